//! A log from now on, over rotations.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::files;
use crate::backend::Bytestream;

/// The log that agents write.
const LOG: &str = "agent.log";
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Most bytes in one piece.
const PIECE: usize = 64 << 10;

/// What is written to the log of this directory from now on.
pub(super) fn follow(directory: PathBuf) -> io::Result<Bytestream> {
    let mut tail = Tail { directory, at: None };
    tail.take_up()?;
    if let Some((file, _)) = &mut tail.at {
        file.seek(SeekFrom::End(0))?;
    }
    let pieces = stream::unfold(Some(tail), |tail| async move {
        let mut tail = tail?;
        match tail.piece().await {
            Ok(piece) => Some((Ok(piece), Some(tail))),
            Err(cause) => Some((Err(cause), None)),
        }
    });
    Ok(pieces.boxed())
}

struct Tail {
    directory: PathBuf,
    /// The file that is being read, and its number.
    at: Option<(File, u64)>,
}

impl Tail {
    /// Open the log if there is one.
    fn take_up(&mut self) -> io::Result<()> {
        self.at = files::log(&self.directory, LOG)?;
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "real files grow in real time, whatever the clock says"
    )]
    async fn piece(&mut self) -> io::Result<Bytes> {
        loop {
            let piece = self.read()?;
            if !piece.is_empty() {
                return Ok(piece);
            }
            if self.replaced()? {
                // What was written between the last look and the rotation is still in the old one.
                let rest = self.read()?;
                if !rest.is_empty() {
                    return Ok(rest);
                }
                self.take_up()?;
                continue;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let Some((file, _)) = &mut self.at else { return Ok(Bytes::new()) };
        if file.metadata()?.len() < file.stream_position()? {
            // Cut off in place.
            file.seek(SeekFrom::Start(0))?;
        }
        let mut piece = vec![0; PIECE];
        let length = file.read(&mut piece)?;
        piece.truncate(length);
        Ok(piece.into())
    }

    /// Whether another file has the log's name.
    fn replaced(&self) -> io::Result<bool> {
        let now = files::log(&self.directory, LOG)?.map(|(_, number)| number);
        let held = self.at.as_ref().map(|(_, number)| *number);
        Ok(now.is_some() && now != held)
    }
}
