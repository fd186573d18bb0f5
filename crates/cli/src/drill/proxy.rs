//! A network that fails as it is told to: it stands between agents and the platform, on 127.0.0.1.
//!
//! It passes one request per connection, whole, and remembers what it saw. Credentials that pass through are
//! kept for comparison and never shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A head or a body beyond this is none of ours.
const LONGEST: usize = 1 << 20;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The platform answers, and its answer is lost.
    LoseReply,
    /// The platform gets it a second time before the first answer is passed on; the second answer is lost.
    Twice,
    /// What the platform answers lacks this name.
    Withhold(&'static str),
}

/// A fault that is going to happen.
#[derive(Debug, Clone)]
struct Rule {
    path: String,
    fault: Fault,
    times: u32,
    /// Not before a request to this path was answered.
    after: Option<&'static str>,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Its path.
    pub(super) path: String,
    /// Its credential.
    pub(super) bearer: Option<String>,
    /// Its `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// The platform's status; `None` where it was not asked, or did not answer.
    pub(super) status: Option<u16>,
    /// What was done to it.
    pub(super) fault: Option<Fault>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
}

/// See the module. Dropping it closes the listener.
pub(super) struct Proxy {
    url: String,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// One in front of `upstream` (`http://127.0.0.1:PORT`).
    #[expect(clippy::disallowed_methods, reason = "it lives as long as its drill, which aborts it")]
    pub(super) async fn before(upstream: &str) -> anyhow::Result<Self> {
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the proxy")?;
        let url = format!("http://{}", listener.local_addr().context("read its address")?);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, upstream) = (Arc::clone(&shared), upstream.clone());
                // What fails here fails for the agent, which is the point of a bad network.
                tokio::spawn(async move { pass(client, &upstream, &shared).await.ok() });
            }
        });
        Ok(Self { url, state, accepting })
    }

    /// Where agents find the platform.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The next `times` requests to `path` meet this fault.
    pub(super) fn fault(&self, path: &str, fault: Fault, times: u32) {
        lock(&self.state).rules.push(Rule { path: path.to_owned(), fault, times, after: None });
    }

    /// The same, once a request to `after` was answered.
    pub(super) fn fault_after(&self, after: &'static str, path: &str, fault: Fault, times: u32) {
        let path = path.to_owned();
        lock(&self.state).rules.push(Rule { path, fault, times, after: Some(after) });
    }

    /// Everything that came by, in its order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pass(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> anyhow::Result<()> {
    let request = Request::read(&mut client).await?;
    let fault = due(state, &request.path);
    let mut seen = Seen {
        path: request.path.clone(),
        bearer: request
            .header("authorization")
            .and_then(|value| Some(value.strip_prefix("Bearer ")?.to_owned())),
        key: request.header("idempotency-key"),
        status: None,
        fault,
    };
    let answer = request.forward(upstream).await;
    let answer = answer.inspect_err(|_| lock(state).seen.push(seen.clone()))?;
    if fault == Some(Fault::Twice) {
        let _ = request.forward(upstream).await;
    }
    seen.status = std::str::from_utf8(answer.get(9..12).unwrap_or_default())
        .ok()
        .and_then(|text| text.parse().ok());
    lock(state).seen.push(seen);
    let answer = match fault {
        Some(Fault::Withhold(name)) => without(&answer, name).context("withhold a name")?,
        _ => answer,
    };
    if fault != Some(Fault::LoseReply) {
        client.write_all(&answer).await?;
        client.shutdown().await?;
    }
    Ok(())
}

/// The same answer, whose body is an object that lacks this name, wherever in it that stands.
fn without(answer: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer's head")?;
    let head = std::str::from_utf8(&answer[..end]).context("read an answer's head")?;
    let mut body: Value = serde_json::from_slice(&answer[end + 4..]).context("read an answer")?;
    lack(&mut body, name);
    let body = body.to_string();
    let kept = head.split("\r\n").filter(|line| {
        !line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    });
    let length = format!("content-length: {}", body.len());
    let head: Vec<&str> = kept.chain([length.as_str()]).collect();
    Ok(format!("{}\r\n\r\n{body}", head.join("\r\n")).into_bytes())
}

fn lack(value: &mut Value, name: &str) {
    if let Value::Object(fields) = value {
        fields.remove(name);
        fields.values_mut().for_each(|inner| lack(inner, name));
    }
}

/// The fault that is due for this path, and counted down.
fn due(state: &Mutex<State>, path: &str) -> Option<Fault> {
    let mut state = lock(state);
    let State { rules, seen, .. } = &mut *state;
    let armed = |after| seen.iter().any(|seen: &Seen| seen.path == after && seen.status.is_some());
    let rule = rules
        .iter_mut()
        .find(|rule| rule.times > 0 && rule.path == path && rule.after.is_none_or(armed))?;
    rule.times -= 1;
    Some(rule.fault)
}

/// A request, whole.
struct Request {
    head: String,
    path: String,
    body: Vec<u8>,
}

impl Request {
    async fn read(client: &mut TcpStream) -> anyhow::Result<Self> {
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            ensure!(read.len() < LONGEST, "a head without end");
            ensure!(client.read_buf(&mut read).await? > 0, "it ended within its head");
        };
        let head = String::from_utf8(read[..end].to_vec()).context("read the head")?;
        let mut body = read.split_off(end + 4);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut request = Self { head, path, body: Vec::new() };
        let length = request.header("content-length").map_or(Ok(0), |text| text.parse());
        let length: usize = length.context("read the length")?;
        ensure!(length < LONGEST, "a body without end");
        while body.len() < length {
            ensure!(client.read_buf(&mut body).await? > 0, "it ended within its body");
        }
        request.body = body;
        Ok(request)
    }

    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.split("\r\n").skip(1);
        let mut pairs = lines.filter_map(|line| line.split_once(':'));
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(found.1.trim().to_owned())
    }

    /// Its answer, head and body. Connections are used once: then an answer ends where its connection does.
    async fn forward(&self, upstream: &str) -> anyhow::Result<Vec<u8>> {
        let mut server = TcpStream::connect(upstream).await?;
        let kept = self.head.split("\r\n").filter(|line| {
            !line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("connection"))
        });
        let head: Vec<&str> = kept.chain(["connection: close"]).collect();
        server.write_all(format!("{}\r\n\r\n", head.join("\r\n")).as_bytes()).await?;
        server.write_all(&self.body).await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        ensure!(!answer.is_empty(), "the platform gave no answer");
        Ok(answer)
    }
}
