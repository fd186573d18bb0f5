//! An export on its way into chunks.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::Sender;

use super::manifest::{Entry, Hash, Manifest, Piece, What};
use crate::backend::Carried;
use crate::backend::archive::{self, Item, Meta, Most};

/// A piece of a file, and a chunk, are no longer than this.
pub(super) const CHUNK: usize = 4 << 20;
/// From here on a chunk of small pieces may end where one of them says so.
const ENOUGH: usize = 1 << 20;

/// What is told to those who send.
pub(super) enum Told {
    /// To be sent.
    Chunk(Hash, Bytes),
    /// So many bytes of content were read so far.
    Read(u64),
}

/// What is known of the data so far, and where it lies.
pub(super) struct Packing {
    /// Where each piece lies: which chunk, and where in there.
    known: HashMap<Hash, (u32, u32)>,
    chunks: Vec<Hash>,
    /// Chunks that the store has, or that are on their way there.
    there: HashSet<Hash>,
    /// The chunk that is being filled; it will be the next of `chunks`.
    open: Vec<u8>,
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    read: u64,
    told: u64,
}

impl Packing {
    /// With what an earlier copy said, as far as it is still there.
    pub(super) fn new(last: Option<Manifest>, there: HashSet<Hash>) -> Self {
        let mut known = HashMap::new();
        let mut chunks = Vec::new();
        if let Some(last) = last {
            let here: Vec<bool> = last.chunks.iter().map(|hash| there.contains(hash)).collect();
            let pieces = last.pieces().filter(|piece| here[piece.chunk as usize]);
            known.extend(pieces.map(|piece| (piece.hash, (piece.chunk, piece.at))));
            chunks = last.chunks;
        }
        Self {
            known,
            chunks,
            there,
            open: Vec::new(),
            buffer: Vec::new(),
            entries: Vec::new(),
            read: 0,
            told: 0,
        }
    }

    /// Go through an export. Where it cannot be read whole, what was read of it is known all the same.
    pub(super) fn pass(
        &mut self,
        source: &mut dyn Read,
        out: &Sender<Told>,
    ) -> io::Result<Carried> {
        self.entries.clear();
        (self.read, self.told) = (0, 0);
        let read = archive::each(&mut *source, Most::default(), |path, meta, item| {
            self.entry(path, meta, item, out)
        });
        // Whether it was whole is said last.
        let read = read.and_then(|carried| {
            io::copy(source, &mut io::sink())?;
            Ok(carried)
        });
        self.close(out).and(read)
    }

    /// What was read last.
    pub(super) fn manifest(self, carried: Option<Carried>) -> Manifest {
        let whole = carried.is_some();
        let carried = carried.unwrap_or_else(|| Carried {
            digest: String::new(),
            entries: self.entries.len() as u64,
            bytes: self.read,
        });
        Manifest { whole, carried, chunks: self.chunks, entries: self.entries }.tidied()
    }

    fn entry(
        &mut self,
        path: &Path,
        meta: Meta,
        item: Item<'_>,
        out: &Sender<Told>,
    ) -> io::Result<()> {
        let what = match item {
            Item::Dir => What::Dir,
            Item::File { content, .. } => What::File(self.file(content, out)?),
            Item::Link { target } => What::Link(target.to_owned()),
            Item::Same { first } => What::Same(first.as_os_str().as_bytes().to_owned()),
        };
        let path = path.as_os_str().as_bytes().to_owned();
        let Meta { mode, changed, owner } = meta;
        self.entries.push(Entry { path, mode, changed, owner, what });
        Ok(())
    }

    fn file(&mut self, content: &mut dyn Read, out: &Sender<Told>) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let read = (&mut *content).take(CHUNK as u64).read_to_end(&mut buffer);
            let placed = read.and_then(|_| self.piece(&buffer, out));
            self.buffer = buffer;
            let Some(piece) = placed? else { return Ok(pieces) };
            pieces.push(piece);
            if (piece.length as usize) < CHUNK {
                return Ok(pieces);
            }
        }
    }

    /// Where a piece lies; it is put somewhere if it does not yet.
    fn piece(&mut self, content: &[u8], out: &Sender<Told>) -> io::Result<Option<Piece>> {
        if content.is_empty() {
            return Ok(None);
        }
        let hash: Hash = Sha256::digest(content).into();
        let length = length(content.len())?;
        let (chunk, at) = match self.known.get(&hash) {
            Some(place) => *place,
            None => self.place(hash, content, out)?,
        };
        self.read += u64::from(length);
        if self.read - self.told >= CHUNK as u64 {
            self.told = self.read;
            say(out, Told::Read(self.read))?;
        }
        Ok(Some(Piece { hash, chunk, at, length }))
    }

    fn place(&mut self, hash: Hash, content: &[u8], out: &Sender<Told>) -> io::Result<(u32, u32)> {
        if self.open.len() + content.len() > CHUNK {
            self.close(out)?;
        }
        let place = (length(self.chunks.len())?, length(self.open.len())?);
        self.open.extend_from_slice(content);
        self.known.insert(hash, place);
        // Where chunks of small pieces end depends on the pieces: whatever changed before one of them, those after it
        // come out the same, and a copy that begins anew finds them.
        let ends = self.open.len() >= ENOUGH && hash[0] == 0;
        if ends || self.open.len() == CHUNK {
            self.close(out)?;
        }
        Ok(place)
    }

    /// Nothing more comes into the chunk that is being filled.
    fn close(&mut self, out: &Sender<Told>) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let content = Bytes::from(std::mem::take(&mut self.open));
        let hash: Hash = Sha256::digest(&content).into();
        self.chunks.push(hash);
        if self.there.insert(hash) {
            say(out, Told::Chunk(hash, content))?;
        }
        Ok(())
    }
}

fn say(out: &Sender<Told>, told: Told) -> io::Result<()> {
    out.blocking_send(told).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

fn length(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(io::Error::other)
}
