//! The files of a workspace, for callers outside.
//!
//! Whoever runs in an instance may put links wherever it writes. So each step of a path is opened below the
//! last one and never through a link, and nothing is looked up twice by name. What is written is whole or not
//! there, and belongs to whoever owns the directory that it is in.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ligand_domain::files::DRAFT;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::backend::{BackendError, Found};

/// Largest file that is read.
const LARGEST: u64 = 64 << 20;
/// Most entries of one list.
const MOST: usize = 10_000;
/// Deepest directory that is taken away with all that is in it.
const DEEPEST: u8 = 100;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Neither follow a link nor wait for the other end of a pipe.
const PLAIN: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const DRAFTED: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn failed(what: &str, path: &Path, cause: Errno) -> BackendError {
    let what = format!("cannot {what} {}", path.display());
    match cause {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => BackendError::missing(what),
        cause => BackendError::io(what, cause.into()),
    }
}

/// The names in a path, outermost first. What is no name leads nowhere.
fn names(path: &Path) -> Result<Vec<&OsStr>, BackendError> {
    let name = |component| match component {
        Component::Normal(name) => Ok(name),
        _ => Err(BackendError::broken(format!("{} is no path below", path.display()))),
    };
    path.components().map(name).collect()
}

/// A directory below `root`. The root's own last name is no link either.
fn directory(root: &Path, below: &[&OsStr]) -> Result<OwnedFd, Errno> {
    let mut fd = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    for name in below {
        fd = rustix::fs::openat(&fd, *name, DIRECTORY, Mode::empty())?;
    }
    Ok(fd)
}

/// The same, made where it is missing.
fn made(root: &Path, below: &[&OsStr]) -> Result<OwnedFd, BackendError> {
    let in_the_way = |cause: Errno, path: &Path| match cause {
        Errno::NOTDIR | Errno::LOOP => {
            BackendError::broken(format!("{} is no directory", path.display()))
        }
        cause => BackendError::io(format!("cannot open {}", path.display()), cause.into()),
    };
    let mut path = root.to_owned();
    let mut fd = rustix::fs::open(root, DIRECTORY, Mode::empty())
        .map_err(|cause| in_the_way(cause, &path))?;
    for name in below {
        path.push(name);
        match rustix::fs::mkdirat(&fd, *name, Mode::RWXU) {
            Ok(()) => {
                let new = rustix::fs::openat(&fd, *name, DIRECTORY, Mode::empty())
                    .map_err(|cause| in_the_way(cause, &path))?;
                belongs_like(&fd, &new).map_err(|cause| {
                    BackendError::io(format!("cannot hand over {}", path.display()), cause)
                })?;
                fd = new;
            }
            Err(Errno::EXIST) => {
                fd = rustix::fs::openat(&fd, *name, DIRECTORY, Mode::empty())
                    .map_err(|cause| in_the_way(cause, &path))?;
            }
            Err(cause) => return Err(in_the_way(cause, &path)),
        }
    }
    Ok(fd)
}

/// Give a new file or directory to the owner of the directory that it is in.
fn belongs_like(directory: &OwnedFd, new: &OwnedFd) -> std::io::Result<()> {
    let (above, own) = (rustix::fs::fstat(directory)?, rustix::fs::fstat(new)?);
    if (above.st_uid, above.st_gid) != (own.st_uid, own.st_gid) {
        fchown(new, Some(above.st_uid), Some(above.st_gid))?;
    }
    Ok(())
}

pub(super) fn read(root: &Path, path: &Path) -> Result<Bytes, BackendError> {
    let missing = || BackendError::missing(format!("there is no file {}", path.display()));
    let names = names(path)?;
    let (name, above) = names.split_last().ok_or_else(missing)?;
    let opened = directory(root, above)
        .and_then(|directory| rustix::fs::openat(&directory, *name, PLAIN, Mode::empty()));
    let file = File::from(opened.map_err(|cause| failed("open", path, cause))?);
    let unreadable = |cause| BackendError::io(format!("cannot read {}", path.display()), cause);
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(missing());
    }
    let mut content = Vec::new();
    // What grows meanwhile does not grow in here.
    file.take(LARGEST + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > LARGEST {
        let what = format!("{} is larger than {LARGEST} bytes", path.display());
        return Err(BackendError::broken(what));
    }
    Ok(content.into())
}

pub(super) fn write(root: &Path, path: &Path, content: &[u8]) -> Result<(), BackendError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let names = names(path)?;
    let (name, above) =
        names.split_last().ok_or_else(|| BackendError::broken("a file needs a name"))?;
    let directory = made(root, above)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let draft = format!("{DRAFT}{}-{number}", std::process::id());
    let written = drafted(&directory, &draft, name, content);
    let written = written.and_then(|()| {
        rustix::fs::renameat(&directory, &draft, &directory, *name)?;
        rustix::fs::fsync(&directory)?;
        Ok(())
    });
    written.map_err(|cause| {
        let _ = rustix::fs::unlinkat(&directory, &draft, AtFlags::empty());
        BackendError::io(format!("cannot write {}", path.display()), cause)
    })
}

/// The whole content beside the file, with the mode of what it replaces.
fn drafted(directory: &OwnedFd, draft: &str, name: &OsStr, content: &[u8]) -> std::io::Result<()> {
    let old = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    let old = old.filter(|old| FileType::from_raw_mode(old.st_mode) == FileType::RegularFile);
    let fd = rustix::fs::openat(directory, draft, DRAFTED, Mode::RUSR | Mode::WUSR)?;
    belongs_like(directory, &fd)?;
    let mut file = File::from(fd);
    if let Some(old) = old {
        file.set_permissions(Permissions::from_mode(old.st_mode & 0o777))?;
    }
    file.write_all(content)?;
    file.sync_all()
}

pub(super) fn remove(root: &Path, path: &Path) -> Result<(), BackendError> {
    let names = names(path)?;
    let Some((name, above)) = names.split_last() else {
        return Err(BackendError::broken("a directory of a workspace stays"));
    };
    let removed = directory(root, above).and_then(|above| take_away(above.as_fd(), name, 0));
    match removed {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(cause) => {
            Err(BackendError::io(format!("cannot remove {}", path.display()), cause.into()))
        }
    }
}

fn take_away(above: BorrowedFd<'_>, name: &OsStr, depth: u8) -> Result<(), Errno> {
    match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    if depth >= DEEPEST {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = rustix::fs::openat(above, name, DIRECTORY, Mode::empty())?;
    for entry in entries(&directory)? {
        take_away(directory.as_fd(), &entry, depth + 1)?;
    }
    rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)
}

fn entries(directory: &OwnedFd) -> Result<Vec<std::ffi::OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(super) fn list(root: &Path, path: &Path, depth: u8) -> Result<Vec<Found>, BackendError> {
    let top = directory(root, &names(path)?).map_err(|cause| failed("list", path, cause))?;
    let mut found = Vec::new();
    enter(&top, Path::new(""), depth, &mut found).map_err(|cause| failed("list", path, cause))?;
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// What disappears while it is looked at is not there.
fn enter(
    directory: &OwnedFd,
    prefix: &Path,
    depth: u8,
    found: &mut Vec<Found>,
) -> Result<(), Errno> {
    for name in entries(directory)? {
        if found.len() >= MOST || name.as_bytes().starts_with(DRAFT.as_bytes()) {
            continue;
        }
        let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        let Ok(stat) = stat else { continue };
        let dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let size = if dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
        let path: PathBuf = prefix.join(&name);
        found.push(Found { path: path.clone(), size, dir });
        if dir
            && depth > 1
            && let Ok(below) = rustix::fs::openat(directory, &name, DIRECTORY, Mode::empty())
        {
            enter(&below, &path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Open a log, if it is a plain file. Gives what tells it from the one that takes its place.
pub(super) fn log(directory: &Path, name: &str) -> std::io::Result<Option<(File, u64)>> {
    let opened = self::directory(directory, &[])
        .and_then(|directory| rustix::fs::openat(&directory, name, PLAIN, Mode::empty()));
    match opened.map(File::from) {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((file, metadata.ino())))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}
