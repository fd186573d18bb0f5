//! As much of the tar format as the engine's archives need: what it is sent, and what it sends.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

/// Everything is in blocks of this size.
const BLOCK: usize = 512;
/// A name that is told beside an entry is no longer than this.
const LONGEST_NAME: u64 = 64 << 10;

/// What an archive says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    /// A link, a device, a pipe.
    Other,
}

/// An archive that is being written.
pub(super) struct Writer {
    bytes: Vec<u8>,
    owner: (u32, u32),
}

impl Writer {
    /// Files will belong to this user and group.
    pub(super) fn new(owner: (u32, u32)) -> Self {
        Self { bytes: Vec::new(), owner }
    }

    /// Add a file. Directories above it are made by whoever unpacks.
    pub(super) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) {
        let name = path.to_string_lossy().into_owned();
        if name.len() >= 100 {
            self.entry("././@LongLink", b'L', 0o644, format!("{name}\0").as_bytes());
        }
        self.entry(&name, b'0', mode, content);
    }

    fn entry(&mut self, name: &str, kind: u8, mode: u32, content: &[u8]) {
        let mut head = [0u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
        put(0, &name.as_bytes()[..name.len().min(99)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{:07o}", self.owner.0).as_bytes());
        put(116, format!("{:07o}", self.owner.1).as_bytes());
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar  ");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The archive.
    pub(super) fn finish(mut self) -> Bytes {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        Bytes::from(self.bytes)
    }
}

/// Reads an archive as it comes, and keeps no more of it than it must.
#[derive(Default)]
pub(super) struct Reader {
    buffer: BytesMut,
    /// Content and padding of an entry that nobody wants.
    skip: u64,
    /// The name that an extension gave the next entry.
    name: Option<PathBuf>,
}

/// The archive is not one.
#[derive(Debug, thiserror::Error)]
#[error("the engine's archive is not understood: {0}")]
pub(super) struct Malformed(&'static str);

impl Reader {
    /// More of it came.
    pub(super) fn feed(&mut self, mut bytes: Bytes) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        self.buffer.extend_from_slice(&bytes.split_off(skipped));
    }

    /// The next entry, if what came is enough. With `keep` its content too, if it is a file of at most that many
    /// bytes; otherwise the content is passed over.
    pub(super) fn next(&mut self, keep: Option<u64>) -> Result<Option<(Entry, Bytes)>, Malformed> {
        loop {
            if self.skip > 0 || self.buffer.len() < BLOCK {
                return Ok(None);
            }
            let head = &self.buffer[..BLOCK];
            if head.iter().all(|byte| *byte == 0) {
                let _ = self.buffer.split_to(BLOCK);
                continue;
            }
            let size = number(&head[124..136]).ok_or(Malformed("a size is no number"))?;
            let flag = head[156];
            let extension = matches!(flag, b'L' | b'x' | b'K' | b'g');
            if extension && size > LONGEST_NAME {
                return Err(Malformed("a name is too long"));
            }
            let name = self.name.clone().unwrap_or_else(|| name(head));
            let kind = match flag {
                b'0' | 0 => Kind::File,
                b'5' => Kind::Dir,
                _ => Kind::Other,
            };
            let wanted = extension || (kind == Kind::File && keep.is_some_and(|most| size <= most));
            let padded = size.next_multiple_of(BLOCK as u64);
            if !wanted {
                let _ = self.buffer.split_to(BLOCK);
                let there = usize::try_from(padded).unwrap_or(usize::MAX).min(self.buffer.len());
                let _ = self.buffer.split_to(there);
                self.skip = padded - there as u64;
                self.name = None;
                return Ok(Some((Entry { path: name, size, kind }, Bytes::new())));
            }
            let (size_here, whole) =
                (usize::try_from(size).unwrap_or(0), usize::try_from(padded).unwrap_or(0));
            if self.buffer.len() < BLOCK + whole {
                return Ok(None);
            }
            let _ = self.buffer.split_to(BLOCK);
            let content = self.buffer.split_to(whole).freeze().slice(..size_here);
            match flag {
                b'L' => self.name = Some(path(until_zero(&content))),
                b'x' => self.name = extended(&content).or(self.name.take()),
                b'K' | b'g' => {}
                _ => {
                    self.name = None;
                    return Ok(Some((Entry { path: name, size, kind }, content)));
                }
            }
        }
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

fn name(head: &[u8]) -> PathBuf {
    let (name, prefix) = (path(until_zero(&head[..100])), path(until_zero(&head[345..500])));
    // Only this variant of the format has a prefix; in the other one there are times.
    if &head[257..263] == b"ustar\0" { prefix.join(name) } else { name }
}

fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let low = field.last_chunk::<8>()?;
        return Some(u64::from_be_bytes(*low));
    }
    let text = std::str::from_utf8(until_zero(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// The name among the lines `LENGTH KEY=VALUE` of an extension.
fn extended(content: &[u8]) -> Option<PathBuf> {
    let mut rest = content;
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let line = rest.get(..length)?.get(space + 1..length.checked_sub(1)?)?;
        if rest[length - 1] != b'\n' {
            return None;
        }
        if let Some(value) = line.strip_prefix(b"path=") {
            return Some(path(value));
        }
        rest = rest.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(archive: &Bytes, piece: usize, keep: Option<u64>) -> Vec<(Entry, Bytes)> {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for part in archive.chunks(piece) {
            reader.feed(Bytes::copy_from_slice(part));
            while let Some(entry) = reader.next(keep).unwrap() {
                found.push(entry);
            }
        }
        found
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let long = PathBuf::from(format!("deep/{}", "x".repeat(200)));
        let mut writer = Writer::new((0, 0));
        writer.file(Path::new("a"), 0o600, b"one");
        writer.file(&long, 0o644, &[7; 1000]);
        writer.file(Path::new("empty"), 0o644, b"");
        let archive = writer.finish();
        for piece in [1, 511, 512, 4096] {
            let found = all(&archive, piece, Some(2000));
            let paths: Vec<_> = found.iter().map(|(entry, _)| entry.path.clone()).collect();
            assert_eq!(paths, [PathBuf::from("a"), long.clone(), "empty".into()], "{piece}");
            assert_eq!((&found[0].1[..], found[1].1.len()), (&b"one"[..], 1000));
            let passed_over = all(&archive, piece, None);
            assert_eq!(passed_over.len(), 3);
            assert!(passed_over.iter().all(|(_, content)| content.is_empty()));
        }
    }

    #[test]
    fn an_extended_name_is_taken_and_nonsense_is_refused() {
        assert_eq!(extended(b"11 path=a/b\n"), None, "the length counts itself");
        assert_eq!(extended(b"12 path=a/b\n"), Some("a/b".into()));
        assert_eq!(extended(b"9 uid=12\n12 path=a/b\n"), Some("a/b".into()));
        let mut reader = Reader::default();
        reader.feed(Bytes::from(vec![b'?'; BLOCK]));
        assert!(reader.next(None).is_err());
    }
}
