//! A client of a few lines: it can send what no well-behaved client would.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest silence of a server.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, as text.
    pub(crate) body: String,
}

impl Answer {
    /// The body, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A request to be sent.
pub(crate) struct Call<'a> {
    server: &'a str,
    line: &'a str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl<'a> Call<'a> {
    /// `line` is method and path: `GET /workspaces`.
    pub(crate) fn new(server: &'a str, line: &'a str) -> Self {
        Self { server, line, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string()).header("content-type", "application/json")
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Send it, and read the whole answer.
    pub(crate) fn send(self) -> Answer {
        let (server, line) = (self.server, self.line);
        self.try_send().unwrap_or_else(|e| panic!("{line} at {server}: {e}"))
    }

    /// The same, for a server that may be away.
    pub(crate) fn try_send(self) -> std::io::Result<Answer> {
        let address = self.server.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let (method, path) = self.line.split_once(' ').unwrap();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-length: {}\r\n",
            self.body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        connection.write_all(format!("{head}\r\n").as_bytes())?;
        connection.write_all(&self.body)?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer}")))?;
        Ok(Answer { status, body: body.to_owned() })
    }
}
