//! A directory, entry by entry, in one order. No link is followed, not even one that takes the place of a directory
//! while it is read: everything is opened from the directory that it was found in.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::{carried, invalid};

/// Directories within each other. Each holds a descriptor open while it is read.
const DEEPEST: usize = 200;

/// Something that belongs to the data.
pub(super) struct Entry {
    /// Below the data's root, whose name it begins with.
    pub(super) path: PathBuf,
    /// Permission bits.
    pub(super) mode: u32,
    /// When it was changed, in seconds of the epoch.
    pub(super) changed: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Dir,
    File { content: File, size: u64 },
    Link(Vec<u8>),
}

type Visit<'a> = &'a mut dyn FnMut(Entry) -> io::Result<()>;

/// Visit what is below `at`, itself included, under the name `root`. Nothing there: nothing is visited. What is
/// neither file, directory nor link is left out, and so is what disappears meanwhile.
pub(super) fn walk(root: &str, at: &Path, visit: Visit<'_>) -> io::Result<()> {
    let dir = match openat(CWD, at, directory(), Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(cause) => return Err(failed(at, cause)),
    };
    descend(dir, PathBuf::from(root), 0, visit)
}

fn descend(dir: OwnedFd, path: PathBuf, depth: usize, visit: Visit<'_>) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(invalid(format!("{} is nested too deeply", path.display())));
    }
    let names = names(&dir).map_err(|cause| failed(&path, cause))?;
    let stat = fstat(&dir).map_err(|cause| failed(&path, cause))?;
    visit(entry(path.clone(), &stat, What::Dir))?;
    for name in names {
        let below = path.join(&name);
        if !carried(&below) {
            continue;
        }
        match one(&dir, &name, &below) {
            Ok(Found::Nothing) => {}
            Ok(Found::Dir(found)) => descend(found, below, depth + 1, visit)?,
            Ok(Found::Entry(found)) => visit(found)?,
            // Gone, or turned into something else, since it was listed.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => {}
            Err(cause) => return Err(failed(&below, cause)),
        }
    }
    Ok(())
}

enum Found {
    Nothing,
    Dir(OwnedFd),
    Entry(Entry),
}

fn one(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<Found, Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Dir(openat(dir, name, directory(), Mode::empty())?),
        FileType::Symlink => {
            let target = readlinkat(dir, name, Vec::new())?.into_bytes();
            Found::Entry(entry(path.to_owned(), &stat, What::Link(target)))
        }
        FileType::RegularFile => {
            // Non-blocking: it may have become a pipe.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = openat(dir, name, flags, Mode::empty())?;
            let stat = fstat(&opened)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(Found::Nothing);
            }
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            let content = File::from(opened);
            Found::Entry(entry(path.to_owned(), &stat, What::File { content, size }))
        }
        _ => Found::Nothing,
    })
}

fn entry(path: PathBuf, stat: &Stat, what: What) -> Entry {
    let changed = u64::try_from(stat.st_mtime).unwrap_or_default();
    Entry { path, mode: stat.st_mode & super::PERMISSIONS, changed, what }
}

fn names(dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for found in Dir::read_from(dir)? {
        let name = found?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn failed(path: &Path, cause: Errno) -> io::Error {
    let cause = io::Error::from(cause);
    io::Error::new(cause.kind(), format!("cannot read {}: {cause}", path.display()))
}
