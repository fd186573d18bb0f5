//! A client that costs next to nothing.
//!
//! The load generator shares its machine with the server that it measures: every microsecond that it takes
//! for itself is missing there. So it speaks HTTP itself, over sockets that stay open: one request out, one
//! answer in, into a buffer that is used again. It understands answers with a `content-length`, which is what
//! these routes send, and nothing else; every other part of the program uses the shared client.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer that is read.
const LONGEST: usize = 64 << 20;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most headers of an answer: the server sends about twenty.
const HEADERS: usize = 64;

/// What an answer's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not all of the head is there.
    Partial,
    /// The head is complete.
    Head(Head),
    /// Not an answer that this client understands.
    Bad(&'static str),
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Its status.
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) body_at: usize,
    /// How long the body is.
    pub(super) body: usize,
    /// The server closes the connection after it.
    pub(super) closes: bool,
}

/// Reads the head of an answer.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > 1 << 16 {
            Parsed::Bad("a head without an end")
        } else {
            Parsed::Partial
        };
    };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let Some(status) = lines.next().and_then(status) else {
        return Parsed::Bad("no status line");
    };
    let (mut body, mut closes) = (None, false);
    for line in lines.take(HEADERS) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Parsed::Bad("a header without a colon");
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            body = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Parsed::Bad("a body in chunks");
        } else if name.eq_ignore_ascii_case(b"connection") {
            closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    match body {
        Some(body) if body <= LONGEST => {
            Parsed::Head(Head { status, body_at: end + 4, body, closes })
        }
        Some(_) => Parsed::Bad("a body that is too long"),
        None => Parsed::Bad("no content-length"),
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let line = line.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

/// A connection that stays open.
pub(super) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer, for as long as its connection is not used again.
#[derive(Debug)]
pub(super) struct Answer<'c> {
    /// Its status.
    pub(super) status: u16,
    /// Its body.
    pub(super) body: &'c [u8],
}

impl Connection {
    /// Not open yet.
    pub(super) fn to(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: Vec::new() }
    }

    /// Opens it, unless it is open.
    pub(super) async fn open(&mut self) -> Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends a whole request and reads its answer. After a failure the next call opens it anew.
    pub(super) async fn call(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        let head = match exchanged.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(head) => head,
            Err(cause) => {
                self.stream = None;
                return Err(cause);
            }
        };
        if head.closes {
            self.stream = None;
        }
        Ok(Answer {
            status: head.status,
            body: &self.buffer[head.body_at..head.body_at + head.body],
        })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Head> {
        self.open().await?;
        let Some(stream) = &mut self.stream else { return Err(ErrorKind::NotConnected.into()) };
        stream.write_all(request).await?;
        self.buffer.clear();
        let mut head = None;
        loop {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if head.is_none() {
                head = match parse(&self.buffer) {
                    Parsed::Partial => None,
                    Parsed::Head(head) => Some(head),
                    Parsed::Bad(why) => return Err(Error::new(ErrorKind::InvalidData, why)),
                };
            }
            if let Some(head) = head
                && self.buffer.len() >= head.body_at + head.body
            {
                return Ok(head);
            }
        }
    }
}

/// A whole request.
pub(super) fn request(method: &str, path: &str, bearer: Option<&str>, body: &str) -> Vec<u8> {
    let bearer = bearer.map(|it| format!("authorization: Bearer {it}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{bearer}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_at_every_cut() {
        let text = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nconnection: close\r\nx: a:b\r\n\r\nhello";
        let head = Head { status: 401, body_at: text.len() - 5, body: 5, closes: true };
        for cut in 0..text.len() {
            let expected = if cut < head.body_at { Parsed::Partial } else { Parsed::Head(head) };
            assert_eq!(parse(&text[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let why = |text: &str| match parse(text.as_bytes()) {
            Parsed::Bad(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            why("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            "a body in chunks"
        );
        assert_eq!(why("HTTP/1.1 200 OK\r\n\r\n"), "no content-length");
        assert_eq!(
            why("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
            "a body that is too long"
        );
        assert_eq!(why("SSH-2.0\r\n\r\n"), "no status line");
        assert_eq!(why("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"), "a header without a colon");
    }

    #[test]
    fn a_request_carries_its_length() {
        let text = request("POST", "/a", Some("t"), "{}");
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("POST /a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer t\r\n")
        );
        assert!(text.ends_with("content-length: 2\r\n\r\n{}"));
    }
}
