//! A workspace's data as one archive, the same for every backend: what belongs to it, how it is written and read, and
//! the digest over it.
//!
//! An archive is a tar whose paths begin with the name of a root (`workspace/…`, `home/…`, `configs/…`). The digest
//! is SHA-256 over the entries in the order of their paths: path, kind, permission bits, and content or target. It
//! knows nothing of owners, times and how the archive was packed, so that a directory, the archive of it, and what
//! another backend made of that archive have one digest. Of a root itself only what is inside counts.

mod amend;
mod pack;
mod pipe;
#[cfg(test)]
mod tests;
mod walk;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tar::EntryType;

pub use self::amend::amend;
pub use self::pack::{Item, Meta, Packer, Passing};
pub use self::pipe::{Incoming, feed, stream};
use self::walk::{What, walk};
use super::Carried;

/// The roots that a workspace's data has.
pub const ROOTS: [&str; 4] = ["workspace", "home", "configs", "plugins"];
/// Of a mode, what is carried: a set-user-id bit means something else elsewhere.
const PERMISSIONS: u32 = 0o777;
/// A directory that is being filled.
const WIDE: u32 = 0o700;
/// Bytes that may stand in front of an entry: long names, for the most part.
const HEADERS: u64 = 1 << 20;
/// What the digest begins with: another way to compute it has another name.
const METHOD: &[u8] = b"ligand data 1\n";

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Bytes of content.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for Most {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000 }
    }
}

/// Whether a path of the data leaves with it. What proves who an instance is stays where it is.
#[must_use]
pub fn carried(path: &Path) -> bool {
    let Ok(name) = path.strip_prefix("configs") else { return true };
    let first = name.components().next().map(|first| first.as_os_str().as_bytes().to_owned());
    let secret = |name: &[u8]| {
        name == b".register_key"
            || name.starts_with(b".auth_token")
            || name.starts_with(b".passport")
    };
    !first.is_some_and(|first| secret(&first))
}

/// Write the roots below `base` as one archive, in a fixed order.
///
/// # Errors
/// What cannot be read or written, by name. A file that shrinks meanwhile is one of these: its length stands in front
/// of it.
pub fn write(base: &Path, out: impl Write) -> io::Result<Carried> {
    let (mut packer, mut digest) = (Packer::new(out), Digest::default());
    for root in ROOTS {
        walk(root, &base.join(root), &mut |entry| {
            let path = entry.path.as_path();
            let meta = Meta { mode: entry.mode, changed: entry.changed, owner: (0, 0) };
            let line = match entry.what {
                What::Dir => {
                    packer.put(path, meta, Item::Dir)?;
                    Line::dir(entry.mode)
                }
                What::Link(target) => {
                    packer.put(path, meta, Item::Link { target: &target })?;
                    Line::link(&target)
                }
                What::File { content, size } => {
                    let mut hashing = Hashing::new(content.take(size));
                    packer.put(path, meta, Item::File { size, content: &mut hashing })?;
                    if hashing.length != size {
                        let name = path.display();
                        return Err(invalid(format!("{name} became shorter while it was read")));
                    }
                    hashing.line(entry.mode)
                }
            };
            digest.note(path, line);
            Ok(())
        })?;
    }
    packer.finish()?;
    Ok(digest.finish())
}

/// The digest over the roots below `base`.
///
/// # Errors
/// What cannot be read, by name.
pub fn digest(base: &Path) -> io::Result<Carried> {
    let mut digest = Digest::default();
    for root in ROOTS {
        walk(root, &base.join(root), &mut |entry| {
            let line = match entry.what {
                What::Dir => Line::dir(entry.mode),
                What::Link(target) => Line::link(&target),
                What::File { content, .. } => {
                    let mut hashing = Hashing::new(content);
                    io::copy(&mut hashing, &mut io::sink())?;
                    hashing.line(entry.mode)
                }
            };
            digest.note(&entry.path, line);
            Ok(())
        })?;
    }
    Ok(digest.finish())
}

/// The digest over an archive, without keeping any of it.
///
/// # Errors
/// An archive that [`read`] would refuse.
pub fn digest_of_archive(archive: impl Read, most: Most) -> io::Result<Carried> {
    each(archive, most, |_, _, item| {
        if let Item::File { content, .. } = item {
            io::copy(content, &mut io::sink())?;
        }
        Ok(())
    })
}

/// Go through an archive, entry by entry; what is no data of a workspace is left out. `put` reads content whole.
///
/// # Errors
/// An archive that [`read`] would refuse; what `put` says.
pub fn each(
    archive: impl Read,
    most: Most,
    put: impl FnMut(&Path, Meta, Item<'_>) -> io::Result<()>,
) -> io::Result<Carried> {
    let mut course = Course::new(most);
    course.through(archive, put)?;
    Ok(course.digest.finish())
}

/// Unpack an archive below `into`, which must be there and hold nothing; the roots are made. Links are made as they
/// are, wherever they lead, and nothing is ever written through one.
///
/// # Errors
/// A path that is absolute, leads out with `..`, is not below a root, goes through a link or comes twice; a hard link
/// to what is not in the archive; more than `most`; what cannot be written.
pub fn read(archive: impl Read, into: &Path, most: Most) -> io::Result<Carried> {
    let mut modes = Modes::default();
    for root in ROOTS {
        DirBuilder::new().mode(WIDE).create(into.join(root))?;
    }
    let mut course = Course::new(most);
    course.through(archive, |path, meta, item| put(into, path, meta, item, &mut modes))?;
    modes.set()?;
    Ok(course.digest.finish())
}

/// Put an entry where nothing is yet.
fn put(into: &Path, path: &Path, meta: Meta, item: Item<'_>, modes: &mut Modes) -> io::Result<()> {
    let at = into.join(path);
    match item {
        Item::Dir => {
            DirBuilder::new().mode(WIDE).create(&at)?;
            modes.0.insert(at, meta.mode);
        }
        Item::File { content, .. } => {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&at)?;
            io::copy(content, &mut file)?;
            file.set_permissions(Permissions::from_mode(meta.mode))?;
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(meta.changed))?;
        }
        Item::Link { target } => std::os::unix::fs::symlink(OsStr::from_bytes(target), &at)?,
        Item::Same { first } => fs::hard_link(into.join(first), &at)?,
    }
    Ok(())
}

/// What directories are to be in the end. They are made wide at first, so that everything can be put in.
#[derive(Default)]
struct Modes(BTreeMap<PathBuf, u32>);

impl Modes {
    /// From the inside out.
    fn set(&self) -> io::Result<()> {
        for (path, mode) in self.0.iter().rev() {
            fs::set_permissions(path, Permissions::from_mode(*mode))?;
        }
        Ok(())
    }
}

/// Archives that are gone through, one after the other, as if they were one.
struct Course {
    most: Most,
    /// What is left out.
    without: BTreeSet<PathBuf>,
    digest: Digest,
    dirs: BTreeSet<PathBuf>,
}

impl Course {
    fn new(most: Most) -> Self {
        let dirs = ROOTS.map(PathBuf::from).into_iter().collect();
        Self { most, without: BTreeSet::new(), digest: Digest::default(), dirs }
    }

    /// Go through an archive. `put` gets what is sound, and reads content whole.
    fn through(
        &mut self,
        archive: impl Read,
        mut put: impl FnMut(&Path, Meta, Item<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let budget = Rc::new(Cell::new(HEADERS));
        let mut tar = tar::Archive::new(Rationed { from: archive, budget: Rc::clone(&budget) });
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = sound(&entry.path_bytes())?;
            let (header, size) = (entry.header(), entry.size());
            let (kind, mode) = (header.entry_type(), header.mode()? & PERMISSIONS);
            let owner = (header.uid().unwrap_or_default(), header.gid().unwrap_or_default());
            let meta = Meta { mode, changed: header.mtime().unwrap_or_default(), owner };
            budget.set(size.saturating_add(HEADERS));
            let is_root = path.components().nth(1).is_none();
            let left_out = is_root || !carried(&path) || self.without.contains(&path);
            if kind == EntryType::XGlobalHeader || left_out {
                continue;
            }
            self.may_come(&path, size)?;
            let line = match kind {
                EntryType::Directory => {
                    put(&path, meta, Item::Dir)?;
                    self.dirs.insert(path.clone());
                    Line::dir(mode)
                }
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    let mut content = Hashing::new(&mut entry);
                    put(&path, meta, Item::File { size, content: &mut content })?;
                    if content.length != size {
                        return Err(refused(&path, "is cut short"));
                    }
                    content.line(mode)
                }
                EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    put(&path, meta, Item::Link { target: &target })?;
                    Line::link(&target)
                }
                EntryType::Link => {
                    let first = sound(&entry.link_name_bytes().unwrap_or_default())?;
                    let line = self.digest.entries.get(first.as_os_str().as_bytes()).copied();
                    let line = line.filter(|line| line.kind == b'f');
                    let line =
                        line.ok_or_else(|| refused(&path, "is a link out of the archive"))?;
                    put(&path, meta, Item::Same { first: &first })?;
                    line
                }
                // Devices, pipes: they mean nothing elsewhere.
                _ => continue,
            };
            self.digest.note(&path, line);
            budget.set(HEADERS);
        }
        Ok(())
    }

    fn may_come(&self, path: &Path, size: u64) -> io::Result<()> {
        let (digest, Most { bytes, entries }) = (&self.digest, self.most);
        if digest.entries.contains_key(path.as_os_str().as_bytes()) {
            return Err(refused(path, "comes twice"));
        }
        if !path.parent().is_some_and(|parent| self.dirs.contains(parent)) {
            return Err(refused(path, "is in no directory of the archive"));
        }
        if digest.bytes.saturating_add(size) > bytes || digest.count() >= entries {
            return Err(refused(path, &format!("exceeds {bytes} bytes or {entries} entries")));
        }
        Ok(())
    }
}

/// A path as an archive has it, if it stays below a root.
fn sound(bytes: &[u8]) -> io::Result<PathBuf> {
    let text = Path::new(OsStr::from_bytes(bytes));
    let mut path = PathBuf::new();
    for part in text.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(text, "leads out of the archive"));
            }
        }
    }
    let known = path.iter().next().is_some_and(|root| ROOTS.iter().any(|known| *known == root));
    if known {
        Ok(path)
    } else {
        Err(refused(text, "is not below workspace, home, configs or plugins"))
    }
}

/// A reader that gives no more than was allowed: what stands in front of an entry is kept in memory by who reads it.
struct Rationed<R> {
    from: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let left = self.budget.get().checked_sub(read as u64);
        self.budget.set(left.ok_or_else(|| invalid("the archive's headers have no end"))?);
        Ok(read)
    }
}

/// Hashes what it passes on.
struct Hashing<R> {
    from: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Hashing<R> {
    fn new(from: R) -> Self {
        Self { from, hash: Sha256::new(), length: 0 }
    }

    fn line(self, mode: u32) -> Line {
        Line { kind: b'f', mode, size: self.length, content: self.hash.finalize().into() }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.length += read as u64;
        Ok(read)
    }
}

/// What the digest knows of an entry.
#[derive(Clone, Copy)]
struct Line {
    kind: u8,
    mode: u32,
    size: u64,
    content: [u8; 32],
}

impl Line {
    fn dir(mode: u32) -> Self {
        Self { kind: b'd', mode, size: 0, content: [0; 32] }
    }

    /// A link's own mode means nothing.
    fn link(target: &[u8]) -> Self {
        Self { kind: b'l', mode: 0, size: 0, content: Sha256::digest(target).into() }
    }
}

#[derive(Default)]
struct Digest {
    entries: BTreeMap<Vec<u8>, Line>,
    bytes: u64,
}

impl Digest {
    fn note(&mut self, path: &Path, line: Line) {
        if path.components().nth(1).is_some() {
            self.bytes += line.size;
            self.entries.insert(path.as_os_str().as_bytes().to_owned(), line);
        }
    }

    fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    fn finish(self) -> Carried {
        let mut hash = Sha256::new_with_prefix(METHOD);
        for (path, line) in &self.entries {
            hash.update((path.len() as u64).to_be_bytes());
            hash.update(path);
            hash.update([line.kind]);
            hash.update(line.mode.to_be_bytes());
            hash.update(line.content);
        }
        let mut digest = String::with_capacity(64);
        for byte in hash.finalize() {
            let _ = write!(digest, "{byte:02x}");
        }
        Carried { digest, entries: self.count(), bytes: self.bytes }
    }
}

fn refused(path: &Path, why: &str) -> io::Error {
    invalid(format!("the archive's {} {why}", path.display()))
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Make a file's content and its directories durable.
///
/// # Errors
/// What the system says.
pub fn settle(below: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(below)?)?;
    Ok(())
}
