//! Between streams and code that reads and writes: a few pieces at a time, so that neither side runs ahead.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backend::Bytestream;

/// Pieces that may wait for the other side.
const AHEAD: usize = 8;
/// Bytes of a piece that is written.
const PIECE: usize = 64 << 10;

/// What `work` writes, as it writes it. Its failure is the stream's last item. Nobody reads any more: its next write
/// fails.
pub fn stream<F>(work: F) -> Bytestream
where
    F: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut sink = io::BufWriter::with_capacity(PIECE, Sink(sender.clone()));
        if let Err(cause) = work(&mut sink).and_then(|()| sink.flush()) {
            // What is still in there must not follow the failure.
            drop(sink.into_parts());
            let _ = sender.blocking_send(Err(cause));
        }
    });
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()
}

struct Sink(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Let `work` read a stream. It is read to its end even where `work` stops before: whether it was whole is said last.
///
/// # Errors
/// Of the stream, or of `work`.
pub async fn feed<T, F>(mut stream: Bytestream, work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let working = tokio::task::spawn_blocking(move || {
        let mut source = Source { receiver, rest: Bytes::new(), ended: false };
        let done = work(&mut source)?;
        io::copy(&mut source, &mut io::sink())?;
        Ok(done)
    });
    let pump = async move {
        while let Some(piece) = stream.next().await {
            if sender.send(Some(piece)).await.is_err() {
                return;
            }
        }
        let _ = sender.send(None).await;
    };
    let (done, ()) = tokio::join!(working, pump);
    done.map_err(io::Error::other)?
}

/// A stream, for code that reads on a thread of its own: there alone it may wait.
pub struct Incoming {
    stream: Bytestream,
    rest: Bytes,
    patience: Duration,
    runtime: Handle,
    given_up: CancellationToken,
}

impl Incoming {
    /// To be made where there is a runtime. Nothing for as long as `patience` is a failure.
    #[must_use]
    pub fn new(stream: Bytestream, patience: Duration) -> Self {
        let (rest, runtime, given_up) = (Bytes::new(), Handle::current(), CancellationToken::new());
        Self { stream, rest, patience, runtime, given_up }
    }

    /// Reading fails once this is dropped, also where it waits: the thread is not left with a stream that says no
    /// more.
    #[must_use]
    pub fn while_held(&self) -> DropGuard {
        self.given_up.clone().drop_guard()
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let next = async { tokio::time::timeout(self.patience, self.stream.next()).await };
            match self.runtime.block_on(self.given_up.run_until_cancelled(next)) {
                Some(Ok(Some(piece))) => self.rest = piece?,
                Some(Ok(None)) => return Ok(0),
                Some(Err(_)) => return Err(io::ErrorKind::TimedOut.into()),
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

struct Source {
    /// `None` is the end. No end came before the channel closed: whoever sent gave up.
    receiver: mpsc::Receiver<Option<io::Result<Bytes>>>,
    rest: Bytes,
    ended: bool,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Some(piece)) => self.rest = piece?,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
