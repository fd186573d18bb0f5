//! Watchers that cost next to nothing, for measurements and drills: they share their machine with the server that
//! they watch. One speaks to the stream over a socket of its own, takes events out of what comes, and reads no
//! more of them than it is asked for.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What comes at most before an event is complete.
const LONGEST: usize = 4 << 20;
/// Room for what is read at once.
const AT_ONCE: usize = 64 << 10;

/// How somebody watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By server-sent events.
    Stream,
    /// Over a WebSocket.
    Socket,
}

/// Somebody who watches the whole platform. Dropping it cuts the connection.
pub(crate) struct Tap {
    socket: TcpStream,
    way: Way,
    /// As it came.
    raw: Vec<u8>,
    /// Without what the transfer added; server-sent events only.
    text: Vec<u8>,
}

impl Tap {
    /// Begin to watch, after a cursor or with what comes next.
    ///
    /// # Errors
    /// When nobody answers there, or with a refusal.
    pub(crate) async fn open(
        server: SocketAddr,
        way: Way,
        after: Option<i64>,
        token: &str,
    ) -> Result<Self> {
        let mut socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let query = after.map(|seq| format!("?after={seq}")).unwrap_or_default();
        let (path, more, answer) = match way {
            Way::Stream => ("/events/stream", "", "HTTP/1.1 200 "),
            // Any key will do: it keeps caches from answering, and there is none.
            Way::Socket => (
                "/ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: bGlnYW5kIGlzIHdhdGNoZQ==\r\n",
                "HTTP/1.1 101 ",
            ),
        };
        let head = format!(
            "GET {path}{query} HTTP/1.1\r\nhost: {server}\r\nauthorization: Bearer {token}\r\n{more}\r\n"
        );
        socket.write_all(head.as_bytes()).await?;
        let mut raw = Vec::with_capacity(AT_ONCE);
        let end = loop {
            if let Some(at) = find(&raw, b"\r\n\r\n") {
                break at + 4;
            }
            fill(&mut socket, &mut raw).await?;
        };
        if !raw.starts_with(answer.as_bytes()) {
            let said = String::from_utf8_lossy(&raw[..end]).lines().next().map(str::to_owned);
            return Err(Error::other(format!(
                "to watch was answered {}",
                said.unwrap_or_default()
            )));
        }
        raw.drain(..end);
        Ok(Self { socket, way, raw, text: Vec::new() })
    }

    /// Read on, and give every event that is complete then, as JSON.
    ///
    /// # Errors
    /// When the connection ends, or says what is not understood.
    pub(crate) async fn read(&mut self, mut each: impl FnMut(&[u8])) -> Result<()> {
        loop {
            let found = match self.way {
                Way::Stream => self.events(&mut each)?,
                Way::Socket => self.messages(&mut each).await?,
            };
            if found {
                return Ok(());
            }
            fill(&mut self.socket, &mut self.raw).await?;
        }
    }

    fn events(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        let mut used = 0;
        while let Some(chunk) = chunk(&self.raw[used..])? {
            if chunk.data.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.text.extend_from_slice(chunk.data);
            used += chunk.length;
        }
        self.raw.drain(..used);
        let (mut found, mut used) = (false, 0);
        while let Some(end) = self.text[used..].iter().position(|byte| *byte == b'\n') {
            if let Some(data) = self.text[used..used + end].strip_prefix(b"data: ") {
                each(data);
                found = true;
            }
            used += end + 1;
        }
        self.text.drain(..used);
        Ok(found)
    }

    async fn messages(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        let (mut found, mut used, mut pings) = (false, 0, 0);
        while let Some(frame) = frame(&self.raw[used..])? {
            match frame.kind {
                0x1 => {
                    each(frame.data);
                    found = true;
                }
                0x8 => return Err(ErrorKind::UnexpectedEof.into()),
                0x9 => pings += 1,
                _ => {}
            }
            used += frame.length;
        }
        self.raw.drain(..used);
        for _ in 0..pings {
            // An answer without a word, masked with nothing.
            self.socket.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?;
        }
        Ok(found)
    }
}

async fn fill(socket: &mut TcpStream, raw: &mut Vec<u8>) -> Result<()> {
    if raw.len() > LONGEST {
        return Err(Error::new(ErrorKind::InvalidData, "an event without an end"));
    }
    raw.reserve(AT_ONCE);
    match socket.read_buf(raw).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A piece of a body, and how long it is with all that belongs to it.
struct Chunk<'b> {
    data: &'b [u8],
    length: usize,
}

fn chunk(bytes: &[u8]) -> Result<Option<Chunk<'_>>> {
    let Some(at) = find(&bytes[..bytes.len().min(32)], b"\r\n") else { return Ok(None) };
    let bad = || Error::new(ErrorKind::InvalidData, "a chunk without a length");
    let size = std::str::from_utf8(&bytes[..at]).map_err(|_| bad())?;
    let size = usize::from_str_radix(size, 16).map_err(|_| bad())?;
    let (from, length) = (at + 2, at + 2 + size + 2);
    Ok((bytes.len() >= length).then(|| Chunk { data: &bytes[from..from + size], length }))
}

/// A frame of a WebSocket. A server masks none, and ours cuts no message.
struct Frame<'b> {
    kind: u8,
    data: &'b [u8],
    length: usize,
}

fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x80 == 0 || second & 0x80 != 0 {
        return Err(Error::new(ErrorKind::InvalidData, "a frame that no server of ours sends"));
    }
    let (head, size) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        (126 | 127, _) => return Ok(None),
        (size, _) => (2, u64::from(size)),
    };
    let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST);
    let too_long = || Error::new(ErrorKind::InvalidData, "a message without an end");
    let length = head + size.ok_or_else(too_long)?;
    let whole = |data| Frame { kind: first & 0x0f, data, length };
    Ok(bytes.get(head..length).map(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_frames_are_understood_at_every_cut() {
        let text = b"5\r\nhello\r\nrest";
        for cut in 0..10 {
            assert!(chunk(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let whole = chunk(text).unwrap().unwrap();
        assert_eq!((whole.data, whole.length), (b"hello".as_slice(), 10));
        assert!(chunk(b"x\r\n").is_err());
        for size in [3_usize, 200, 70_000] {
            let mut bytes = vec![0x81];
            match size {
                0..126 => bytes.push(size as u8),
                126..65_536 => {
                    bytes.push(126);
                    bytes.extend((size as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend((size as u64).to_be_bytes());
                }
            }
            let head = bytes.len();
            bytes.extend(std::iter::repeat_n(b'x', size));
            for cut in (0..head).chain([bytes.len() - 1]) {
                assert!(frame(&bytes[..cut]).unwrap().is_none(), "{size} {cut}");
            }
            let whole = frame(&bytes).unwrap().unwrap();
            assert_eq!((whole.kind, whole.data.len(), whole.length), (1, size, bytes.len()));
        }
        assert!(frame(&[0x81, 0x83, 0]).is_err(), "masked");
    }
}
