//! What a snapshot holds, and how that is written down: the entries in the order of the archive, and of each file where
//! its content lies. Numbers are big-endian; texts are bytes with their length in front, since a name need not be UTF-8.
//! The last 32 bytes are the SHA-256 of all before them, so that what is damaged is never taken for what was written.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::backend::Carried;

/// What a manifest begins with: another form has another name.
const FORM: &[u8] = b"ligand snapshot 1\n";
/// Length of a hash.
const HASH: usize = 32;

/// A SHA-256.
pub(super) type Hash = [u8; HASH];

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Whether it holds all of the data. One that does not says only what need not be sent again.
    pub(super) whole: bool,
    /// What it holds, and the digest over it.
    pub(super) carried: Carried,
    /// The chunks that entries speak of, by their place in this list.
    pub(super) chunks: Vec<Hash>,
    pub(super) entries: Vec<Entry>,
}

/// A file, a directory or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the archive has it.
    pub(super) path: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
    /// When it was changed, in seconds of the epoch.
    pub(super) changed: u64,
    /// User and group.
    pub(super) owner: (u64, u64),
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Dir,
    /// Its content, piece after piece.
    File(Vec<Piece>),
    /// Where it leads.
    Link(Vec<u8>),
    /// A second name of this file.
    Same(Vec<u8>),
}

/// A part of a file's content, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) hash: Hash,
    /// Its chunk's place in the list.
    pub(super) chunk: u32,
    /// Where it begins in there.
    pub(super) at: u32,
    pub(super) length: u32,
}

/// A manifest cannot be understood, for this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) &'static str);

impl Manifest {
    /// Leave chunks out that nothing speaks of any more.
    pub(super) fn tidied(mut self) -> Self {
        let spoken: BTreeSet<u32> = self.pieces().map(|piece| piece.chunk).collect();
        let places: Vec<u32> = spoken.into_iter().collect();
        let chunks = places.iter().map(|place| self.chunks[*place as usize]).collect();
        for entry in &mut self.entries {
            if let What::File(pieces) = &mut entry.what {
                for piece in pieces {
                    let place = places.binary_search(&piece.chunk).unwrap_or_default();
                    piece.chunk = u32::try_from(place).unwrap_or(u32::MAX);
                }
            }
        }
        Self { chunks, ..self }
    }

    /// All pieces, in the order in which they are needed.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        let files = self.entries.iter().filter_map(|entry| match &entry.what {
            What::File(pieces) => Some(pieces),
            What::Dir | What::Link(_) | What::Same(_) => None,
        });
        files.flatten()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Out(FORM.to_vec());
        out.0.push(u8::from(self.whole));
        out.text(self.carried.digest.as_bytes());
        out.long(self.carried.entries);
        out.long(self.carried.bytes);
        out.long(self.chunks.len() as u64);
        self.chunks.iter().for_each(|hash| out.0.extend_from_slice(hash));
        out.long(self.entries.len() as u64);
        for entry in &self.entries {
            out.entry(entry);
        }
        let seal = Sha256::digest(&out.0);
        out.0.extend_from_slice(&seal);
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let (body, seal) = bytes.split_last_chunk::<HASH>().ok_or(Damaged("it is cut short"))?;
        let rest = body.strip_prefix(FORM).ok_or(Damaged("it has another form"))?;
        if Hash::from(Sha256::digest(body)) != *seal {
            return Err(Damaged("it is not what was written"));
        }
        let mut from = In(rest);
        let whole = from.byte()? == 1;
        let digest = String::from_utf8(from.text()?).map_err(|_| Damaged("its digest is none"))?;
        let carried = Carried { digest, entries: from.long()?, bytes: from.long()? };
        let mut chunks = Vec::new();
        for _ in 0..from.long()? {
            chunks.push(from.hash()?);
        }
        let mut entries = Vec::new();
        for _ in 0..from.long()? {
            entries.push(from.entry(chunks.len())?);
        }
        Ok(Self { whole, carried, chunks, entries })
    }
}

struct Out(Vec<u8>);

impl Out {
    fn short(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn long(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.long(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    fn entry(&mut self, entry: &Entry) {
        self.text(&entry.path);
        self.short(entry.mode);
        self.long(entry.changed);
        self.long(entry.owner.0);
        self.long(entry.owner.1);
        match &entry.what {
            What::Dir => self.0.push(b'd'),
            What::File(pieces) => {
                self.0.push(b'f');
                self.long(pieces.len() as u64);
                for piece in pieces {
                    self.0.extend_from_slice(&piece.hash);
                    self.short(piece.chunk);
                    self.short(piece.at);
                    self.short(piece.length);
                }
            }
            What::Link(target) => {
                self.0.push(b'l');
                self.text(target);
            }
            What::Same(first) => {
                self.0.push(b's');
                self.text(first);
            }
        }
    }
}

/// What is left of a manifest.
struct In<'a>(&'a [u8]);

impl In<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged("it ends too soon"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Damaged> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_be_bytes)
    }

    fn hash(&mut self) -> Result<Hash, Damaged> {
        self.take()
    }

    fn text(&mut self) -> Result<Vec<u8>, Damaged> {
        let length = usize::try_from(self.long()?).unwrap_or(usize::MAX);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Damaged("it ends too soon"))?;
        self.0 = rest;
        Ok(text.to_vec())
    }

    fn entry(&mut self, chunks: usize) -> Result<Entry, Damaged> {
        let path = self.text()?;
        let (mode, changed) = (self.short()?, self.long()?);
        let owner = (self.long()?, self.long()?);
        let what = match self.byte()? {
            b'd' => What::Dir,
            b'l' => What::Link(self.text()?),
            b's' => What::Same(self.text()?),
            b'f' => {
                let mut pieces = Vec::new();
                for _ in 0..self.long()? {
                    let hash = self.hash()?;
                    let (chunk, at, length) = (self.short()?, self.short()?, self.short()?);
                    if chunk as usize >= chunks {
                        return Err(Damaged("it speaks of a chunk that it does not name"));
                    }
                    pieces.push(Piece { hash, chunk, at, length });
                }
                What::File(pieces)
            }
            _ => return Err(Damaged("it holds an entry of a kind that is not known")),
        };
        Ok(Entry { path, mode, changed, owner, what })
    }
}

/// A hash, as it is written in names.
pub(super) fn hex(hash: &Hash) -> String {
    let mut text = String::with_capacity(2 * HASH);
    for byte in hash {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The hash that a name says.
pub(super) fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; HASH];
    if text.len() != 2 * HASH || !text.is_ascii() {
        return None;
    }
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |path: &[u8], what| Entry {
            path: path.to_vec(),
            mode: 0o751,
            changed: 7,
            owner: (1234, u64::MAX),
            what,
        };
        let piece = |chunk, at| Piece { hash: [9; HASH], chunk, at, length: 5 };
        Manifest {
            whole: true,
            carried: Carried { digest: "d".repeat(64), entries: 4, bytes: 15 },
            chunks: vec![[1; HASH], [2; HASH], [3; HASH]],
            entries: vec![
                entry(b"workspace/dir", What::Dir),
                entry(b"workspace/\xff", What::File(vec![piece(2, 0), piece(0, 3)])),
                entry(b"workspace/link", What::Link(b"../\xfe".to_vec())),
                entry(b"workspace/same", What::Same(b"workspace/\xff".to_vec())),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    }

    #[test]
    fn chunks_that_nothing_speaks_of_are_left_out() {
        let tidied = manifest().tidied();
        assert_eq!(tidied.chunks, [[1; HASH], [3; HASH]]);
        let places: Vec<u32> = tidied.pieces().map(|piece| piece.chunk).collect();
        assert_eq!(places, [1, 0]);
    }

    #[test]
    fn whatever_is_changed_or_missing_is_seen() {
        let written = manifest().encode();
        for place in 0..written.len() {
            let mut changed = written.clone();
            changed[place] ^= 1;
            assert!(Manifest::decode(&changed).is_err(), "{place}");
            assert!(Manifest::decode(&written[..place]).is_err(), "{place}");
        }
    }

    #[test]
    fn a_seal_over_nonsense_helps_nothing() {
        let sealed = |mut body: Vec<u8>| {
            let seal = Sha256::digest(&body);
            body.extend_from_slice(&seal);
            Manifest::decode(&body)
        };
        let written = manifest().encode();
        let body = &written[..written.len() - HASH];
        for length in FORM.len()..body.len() {
            assert!(sealed(body[..length].to_vec()).is_err(), "{length}");
        }
        let outside = Manifest { chunks: vec![[1; HASH]], ..manifest() }.encode();
        let why = Manifest::decode(&outside).unwrap_err();
        assert_eq!(why, Damaged("it speaks of a chunk that it does not name"));
    }

    #[test]
    fn names_are_hashes_and_nothing_else_is() {
        let hash: Hash = std::array::from_fn(|place| u8::try_from(place * 8).unwrap());
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        for other in ["", "0", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert_eq!(unhex(other), None, "{other}");
        }
    }
}
