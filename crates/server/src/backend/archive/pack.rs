//! Entries as they are written into an archive.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::{Course, Most};
use crate::backend::Carried;

/// Of a root's own entry.
const ROOT: u32 = 0o755;

/// What an archive says of an entry, besides its kind.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// When it was changed, in seconds of the epoch.
    pub changed: u64,
    /// User and group.
    pub owner: (u64, u64),
}

/// An entry of an archive.
pub enum Item<'a> {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Bytes of content.
        size: u64,
        /// That many bytes.
        content: &'a mut dyn Read,
    },
    /// A symbolic link.
    Link {
        /// Where it leads, as it is written there.
        target: &'a [u8],
    },
    /// A second name of a file that came before.
    Same {
        /// The first one.
        first: &'a Path,
    },
}

/// An archive that is being written.
pub struct Packer<W: Write>(tar::Builder<W>);

impl<W: Write> Packer<W> {
    /// Into `out`, which is written as entries come.
    pub fn new(out: W) -> Self {
        Self(tar::Builder::new(out))
    }

    /// Add an entry. Whether a file has as much content as was said is for the caller to see.
    ///
    /// # Errors
    /// What cannot be written, or content that cannot be read.
    pub fn put(&mut self, path: &Path, meta: Meta, item: Item<'_>) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(meta.mode);
        header.set_mtime(meta.changed);
        header.set_uid(meta.owner.0);
        header.set_gid(meta.owner.1);
        header.set_size(0);
        match item {
            Item::Dir => {
                header.set_entry_type(EntryType::Directory);
                self.0.append_data(&mut header, path, io::empty())
            }
            Item::File { size, content } => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                self.0.append_data(&mut header, path, content)
            }
            Item::Link { target } => {
                header.set_entry_type(EntryType::Symlink);
                // Short ones byte for byte: the other call would tidy them up.
                match header.set_link_name_literal(target) {
                    Ok(()) => self.0.append_data(&mut header, path, io::empty()),
                    Err(_) => self.0.append_link(&mut header, path, OsStr::from_bytes(target)),
                }
            }
            Item::Same { first } => {
                header.set_entry_type(EntryType::Link);
                self.0.append_link(&mut header, path, first)
            }
        }
    }

    /// It is whole. Gives what it was written into.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(self) -> io::Result<W> {
        let mut out = self.0.into_inner()?;
        out.flush()?;
        Ok(out)
    }
}

/// Archives from elsewhere on their way into one of ours: what [`super::read`] would refuse is refused, and what does
/// not belong to the data is left out. Nothing is kept of it but what the digest needs.
pub struct Passing<W: Write> {
    course: Course,
    packer: Packer<W>,
    owner: Option<(u64, u64)>,
}

impl<W: Write> Passing<W> {
    /// Into `out`. With `owner` (user and group), what belongs to root is given to it: root is also whom an archive
    /// names that knows of no owners. What belongs to anybody else stays theirs.
    pub fn new(out: W, most: Most, owner: Option<(u64, u64)>) -> Self {
        Self { course: Course::new(most), packer: Packer::new(out), owner }
    }

    /// Without these, of which each directory's entries are named too.
    #[must_use]
    pub fn without(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.course.without.extend(paths);
        self
    }

    /// The directory of a root itself.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn root(&mut self, name: &str) -> io::Result<()> {
        let meta = Meta { mode: ROOT, changed: 0, owner: (0, 0) };
        self.packer.put(Path::new(name), meta, Item::Dir)
    }

    /// All of an archive.
    ///
    /// # Errors
    /// What [`super::read`] refuses; what cannot be read or written.
    pub fn through(&mut self, archive: impl Read) -> io::Result<()> {
        let Self { course, packer, owner } = self;
        course.through(archive, |path, meta, item| {
            let given = owner.filter(|_| meta.owner.0 == 0);
            packer.put(path, Meta { owner: given.unwrap_or(meta.owner), ..meta }, item)
        })
    }

    /// It was all.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(self) -> io::Result<Carried> {
        self.packer.finish()?;
        Ok(self.course.digest.finish())
    }
}
