//! A snapshot on its way into a backend.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::future::pending;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, stream};
use ligand_domain::id::WorkspaceId;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{self, Receiver};
use uuid::Uuid;

use super::manifest::{Hash, Manifest, Piece, What, hex};
use super::{AT_ONCE, Error, Progress, Store};
use crate::backend::archive::{self, Item, Meta, Packer};
use crate::backend::{Backend, Carried};

/// Chunks that are held at a time. Each copy went through the data in one order: so many copies may have been made
/// before a chunk is fetched twice.
const HELD: usize = 8;

/// What becomes of it there.
pub(super) enum How {
    /// It is the data.
    All,
    /// It is to be amended.
    Ahead,
    /// It is what changed of that, and this is gone.
    Changes(Vec<PathBuf>),
}

/// Stream a snapshot, or a part of one, to a backend.
pub(super) async fn into(
    store: &Store,
    id: Uuid,
    manifest: Manifest,
    (backend, workspace, how): (&dyn Backend, WorkspaceId, How),
    progress: Progress<'_>,
) -> Result<Carried, Error> {
    let (expected, total) = (manifest.carried.digest.clone(), manifest.carried.bytes);
    let hashes: Vec<Hash> = needed(&manifest).into_iter().map(|it| manifest.chunks[it]).collect();
    let fetched = stream::iter(hashes).map(|hash| store.chunk(id, hash)).buffered(AT_ONCE);
    let mut fetched = std::pin::pin!(fetched);
    let (sender, receiver) = mpsc::channel(1);
    let (why, done) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU64::new(0)));
    let chunks = Chunks {
        from: receiver,
        shelf: Shelf::default(),
        hashes: manifest.chunks.clone(),
        why: Arc::clone(&why),
        done: Arc::clone(&done),
        id,
    };
    let archive = archive::stream(move |out| write(&manifest, chunks, out));
    let import = match how {
        How::All => backend.import(workspace, archive, Some(expected)),
        How::Ahead => backend.import_ahead(workspace, archive),
        How::Changes(gone) => backend.amend(workspace, archive, gone, expected),
    };
    let fetch = async {
        while let Some(chunk) = fetched.next().await {
            progress(done.load(Ordering::Relaxed), total);
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        drop(sender);
        pending().await
    };
    let imported = tokio::select! {
        imported = import => imported,
        never = fetch => never,
    };
    match imported {
        Ok(carried) => {
            progress(total, total);
            Ok(carried)
        }
        // What hindered the snapshot says more than that its archive ended.
        Err(cause) => {
            let why = why.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err(why.unwrap_or_else(|| cause.into()))
        }
    }
}

/// Write a snapshot as the archive that it was.
fn write(manifest: &Manifest, mut chunks: Chunks, out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer::new(out);
    for entry in &manifest.entries {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let meta = Meta { mode: entry.mode, changed: entry.changed, owner: entry.owner };
        match &entry.what {
            What::Dir => packer.put(path, meta, Item::Dir)?,
            What::Link(target) => packer.put(path, meta, Item::Link { target })?,
            What::Same(first) => {
                let first = Path::new(OsStr::from_bytes(first));
                packer.put(path, meta, Item::Same { first })?;
            }
            What::File(pieces) => {
                let size = pieces.iter().map(|piece| u64::from(piece.length)).sum();
                let mut content = Content { left: pieces, here: Bytes::new(), chunks: &mut chunks };
                packer.put(path, meta, Item::File { size, content: &mut content })?;
            }
        }
    }
    packer.finish().map(drop)
}

/// The chunks to fetch, in the order in which [`Chunks`] will ask for them: their places in the manifest.
fn needed(manifest: &Manifest) -> Vec<usize> {
    let (mut shelf, mut needed) = (Shelf::default(), Vec::new());
    for piece in manifest.pieces() {
        if shelf.find(piece.chunk).is_none() {
            shelf.put(piece.chunk, ());
            needed.push(piece.chunk as usize);
        }
    }
    needed
}

/// Those that were used last.
struct Shelf<T>(VecDeque<(u32, T)>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(VecDeque::with_capacity(HELD))
    }
}

impl<T: Clone> Shelf<T> {
    fn find(&mut self, chunk: u32) -> Option<T> {
        let place = self.0.iter().position(|(held, _)| *held == chunk)?;
        let found = self.0.remove(place)?;
        self.0.push_back(found.clone());
        Some(found.1)
    }

    fn put(&mut self, chunk: u32, content: T) {
        if self.0.len() == HELD {
            self.0.pop_front();
        }
        self.0.push_back((chunk, content));
    }
}

/// Chunks as they come.
struct Chunks {
    from: Receiver<Result<Bytes, Error>>,
    shelf: Shelf<Bytes>,
    hashes: Vec<Hash>,
    /// What hindered it, for who asked.
    why: Arc<Mutex<Option<Error>>>,
    done: Arc<AtomicU64>,
    id: Uuid,
}

impl Chunks {
    fn piece(&mut self, piece: &Piece) -> io::Result<Bytes> {
        let found = match self.shelf.find(piece.chunk) {
            Some(found) => Ok(found),
            None => self.next(piece.chunk),
        };
        let (at, length) = (piece.at as usize, piece.length as usize);
        let taken = found.and_then(|chunk| {
            let end = at.checked_add(length).filter(|end| *end <= chunk.len());
            end.map(|end| chunk.slice(at..end)).ok_or_else(|| {
                let hash = hex(&self.hashes[piece.chunk as usize]);
                Error::broken(format!("the chunk {hash} of migration {} is too short", self.id))
            })
        });
        let taken = taken.map_err(|why| {
            let text = why.to_string();
            *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            io::Error::other(text)
        })?;
        self.done.fetch_add(length as u64, Ordering::Relaxed);
        Ok(taken)
    }

    fn next(&mut self, chunk: u32) -> Result<Bytes, Error> {
        let gone = || Error::transient("nobody waits for the data any more".to_owned());
        let content = self.from.blocking_recv().ok_or_else(gone)??;
        let expected = self.hashes[chunk as usize];
        if Hash::from(Sha256::digest(&content)) != expected {
            let hash = hex(&expected);
            let what = format!("the chunk {hash} of migration {} is damaged", self.id);
            return Err(Error::broken(what));
        }
        self.shelf.put(chunk, content.clone());
        Ok(content)
    }
}

/// A file's content, piece after piece.
struct Content<'a> {
    left: &'a [Piece],
    here: Bytes,
    chunks: &'a mut Chunks,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.here.is_empty() {
            let Some((piece, left)) = self.left.split_first() else { return Ok(0) };
            (self.here, self.left) = (self.chunks.piece(piece)?, left);
        }
        let length = self.here.len().min(buffer.len());
        self.here.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
