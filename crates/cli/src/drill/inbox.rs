//! An agent that the drill plays: it takes what is delivered, and answers when it is told to.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::scene::Outcome;

/// Deliveries that wait to be looked at.
const MOST: usize = 64;

/// See the module.
pub(super) struct Inbox {
    url: String,
    letters: mpsc::Receiver<Letter>,
    /// Ends with it.
    _door: JoinSet<()>,
}

/// One delivery. Its connection stays open until it is answered or dropped.
pub(super) struct Letter {
    /// Which attempt it says to be.
    pub(super) attempt: i64,
    to: TcpStream,
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {}", self.attempt)
    }
}

impl Letter {
    /// Answer it with these words.
    pub(super) async fn answer(mut self, words: &str) -> io::Result<()> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "result": { "answer": words } }).to_string();
        respond(&mut self.to, "200 OK", &body).await
    }
}

impl Inbox {
    /// On a free port of this machine.
    pub(super) async fn open() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen as an agent")?;
        let port = listener.local_addr().context("find the agent's port")?.port();
        // By its name: an address of the loopback is refused from agents elsewhere.
        let url = format!("http://localhost:{port}");
        let (put, letters) = mpsc::channel(MOST);
        let mut door = JoinSet::new();
        door.spawn(async move {
            let mut callers = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                // Whoever speaks no HTTP has brought nothing.
                callers.spawn(receive(caller, put.clone()));
                while callers.try_join_next().is_some() {}
            }
        });
        Ok(Self { url, letters, _door: door })
    }

    /// Where it answers.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The next delivery.
    pub(super) async fn next(&mut self, what: &str, patience: Duration) -> Outcome<Letter> {
        let next = tokio::time::timeout(patience, self.letters.recv()).await;
        let late = || anyhow!("not within {} s: {what}", patience.as_secs());
        Ok(next.ok().flatten().with_context(late)?)
    }
}

/// One request. Whatever is no delivery is answered at once.
async fn receive(caller: TcpStream, put: mpsc::Sender<Letter>) -> io::Result<()> {
    let mut reader = BufReader::new(caller);
    let (mut attempt, mut length) = (None, 0);
    let mut first = String::new();
    reader.read_line(&mut first).await?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "ligand-attempt" => attempt = value.trim().parse().ok(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    let mut to = reader.into_inner();
    match attempt {
        Some(attempt) if first.starts_with("POST ") => {
            // Nobody looks any more: the connection ends.
            let _ = put.send(Letter { attempt, to }).await;
            Ok(())
        }
        _ => respond(&mut to, "200 OK", r#"{"name":"foreign"}"#).await,
    }
}

async fn respond(to: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes()).await?;
    to.write_all(body.as_bytes()).await?;
    to.flush().await
}
