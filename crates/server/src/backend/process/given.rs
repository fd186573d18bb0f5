//! Files that an instance is given, and what is taken away before it starts.
//!
//! The instance before it could write everywhere below its configuration directory, and may have left links
//! there: each directory is opened from the one above it and no link is followed, so that nothing is written
//! or removed elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use ligand_domain::template;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::backend::BackendError;

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);
/// Nobody else looks inside.
const OF_DIRECTORY: Mode = Mode::RWXU;
const OF_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Where runtimes keep their sessions, below their home.
const SESSIONS: [&str; 2] = [".claude", "sessions"];
/// Directories inside each other.
const MOST_DEPTH: usize = 64;

/// Put files below a directory, each whole or not at all, in place of older ones of the same name.
pub(super) fn deliver(below: &Path, files: &BTreeMap<String, Bytes>) -> Result<(), BackendError> {
    if files.is_empty() {
        return Ok(());
    }
    let failed = |path: &str| {
        let what = format!("cannot write {path} below {}", below.display());
        move |cause: Errno| BackendError::io(what, cause.into())
    };
    let top = rustix::fs::open(below, DIRECTORY, Mode::empty()).map_err(failed("anything"))?;
    for (path, content) in files {
        // The rule is the platform's; this is the last place that can hold it.
        if template::file(path).as_ref() != Some(path) {
            let what = format!("{path:?} is no file of a configuration");
            return Err(BackendError::broken(what));
        }
        let (inside, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut directory = dup(top.as_fd()).map_err(failed(path))?;
        for part in inside.split('/').filter(|part| !part.is_empty()) {
            directory = enter(directory.as_fd(), part).map_err(failed(path))?;
        }
        place(directory.as_fd(), name, content).map_err(failed(path))?;
    }
    Ok(())
}

fn dup(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, ".", DIRECTORY, Mode::empty())
}

/// Open a directory, and make it where there is none. What stands there and is no directory goes.
fn enter(above: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    for _ in 0..2 {
        match rustix::fs::mkdirat(above, name, OF_DIRECTORY) {
            Ok(()) => {
                own(above, rustix::fs::openat(above, name, DIRECTORY, Mode::empty())?.as_fd())?
            }
            Err(Errno::EXIST) => {}
            Err(cause) => return Err(cause),
        }
        match rustix::fs::openat(above, name, DIRECTORY, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                rustix::fs::unlinkat(above, name, AtFlags::empty())?;
            }
            opened => return opened,
        }
    }
    Err(Errno::NOTDIR)
}

/// Write beside, then take the place of what was there.
fn place(directory: BorrowedFd<'_>, name: &str, content: &[u8]) -> Result<(), Errno> {
    let draft = format!(".{name}.draft");
    let gone = |outcome: Result<(), Errno>| match outcome {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    gone(rustix::fs::unlinkat(directory, draft.as_str(), AtFlags::empty()))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, draft.as_str(), flags, OF_FILE)?;
    own(directory, file.as_fd())?;
    let mut file = File::from(file);
    let errno = |cause: std::io::Error| Errno::from_io_error(&cause).unwrap_or(Errno::IO);
    file.write_all(content).and_then(|()| file.sync_all()).map_err(errno)?;
    rustix::fs::renameat(directory, draft.as_str(), directory, name)
}

/// What is made below a directory belongs to whom the directory belongs.
fn own(directory: BorrowedFd<'_>, made: BorrowedFd<'_>) -> Result<(), Errno> {
    let (above, own) = (rustix::fs::fstat(directory)?, rustix::fs::fstat(made)?);
    if (above.st_uid, above.st_gid) == (own.st_uid, own.st_gid) {
        return Ok(());
    }
    let (user, group) =
        (rustix::fs::Uid::from_raw(above.st_uid), rustix::fs::Gid::from_raw(above.st_gid));
    rustix::fs::fchown(made, Some(user), Some(group))
}

/// Take away the sessions that runtimes keep below their home.
pub(super) fn forget_sessions(home: &Path) -> Result<(), BackendError> {
    let forget = || -> Result<(), Errno> {
        let [hidden, sessions] = SESSIONS;
        let home = rustix::fs::open(home, DIRECTORY, Mode::empty())?;
        let above = rustix::fs::openat(&home, hidden, DIRECTORY, Mode::empty())?;
        empty(above.as_fd(), sessions, 0)
    };
    match forget() {
        // There are none, or what stands there are no sessions of ours.
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(cause) => {
            let what = format!("cannot take away the sessions below {}", home.display());
            Err(BackendError::io(what, cause.into()))
        }
    }
}

/// Take away what has this name, and all that is in it; of a link, the link.
fn empty(above: BorrowedFd<'_>, name: &str, depth: usize) -> Result<(), Errno> {
    let directory = match rustix::fs::openat(above, name, DIRECTORY, Mode::empty()) {
        Ok(directory) if depth < MOST_DEPTH => directory,
        Ok(_) => return Err(Errno::LOOP),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return rustix::fs::unlinkat(above, name, AtFlags::empty());
        }
        Err(cause) => return Err(cause),
    };
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { return Err(Errno::ILSEQ) };
        if name != "." && name != ".." {
            empty(directory.as_fd(), name, depth + 1)?;
        }
    }
    rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A directory that is there, and empty.
    fn place(name: &str) -> PathBuf {
        let place =
            std::env::temp_dir().join(format!("ligand-files-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        place
    }

    fn files(of: &[(&str, &'static str)]) -> BTreeMap<String, Bytes> {
        of.iter()
            .map(|(path, text)| ((*path).to_owned(), Bytes::from_static(text.as_bytes())))
            .collect()
    }

    #[test]
    fn files_are_there_whole_and_for_their_owner_alone() {
        let configs = place("whole");
        fs::write(configs.join("kept"), "kept").unwrap();
        fs::write(configs.join("config.yaml"), "older and longer").unwrap();
        deliver(&configs, &files(&[("config.yaml", "new"), ("a/b/c.md", "deep")])).unwrap();
        let read = |path: &str| fs::read_to_string(configs.join(path)).unwrap();
        assert_eq!(
            (read("config.yaml"), read("a/b/c.md"), read("kept")),
            ("new".into(), "deep".into(), "kept".into())
        );
        let mode =
            |path: &str| fs::metadata(configs.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("config.yaml"), mode("a/b/c.md"), mode("a/b")), (0o600, 0o600, 0o700));
        assert_eq!(fs::read_dir(configs.join("a/b")).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn no_link_of_an_earlier_instance_is_followed() {
        let (configs, outside) = (place("links"), place("outside"));
        fs::write(outside.join("victim"), "untouched").unwrap();
        symlink(&outside, configs.join("dir")).unwrap();
        symlink(outside.join("victim"), configs.join("file")).unwrap();
        symlink(outside.join("victim"), configs.join(".file.draft")).unwrap();
        deliver(&configs, &files(&[("dir/x", "in"), ("file", "in"), ("dir/victim", "in")]))
            .unwrap();
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(configs.join("dir/x")).unwrap(), "in");
    }

    #[test]
    fn what_leads_out_is_refused() {
        let configs = place("refused");
        for path in ["../x", "/x", "a/../x", ".auth_token", "./x", "a//b", ""] {
            let refused = deliver(&configs, &files(&[(path, "x")])).unwrap_err();
            assert!(refused.chain().contains("no file of a configuration"), "{path}");
        }
        assert_eq!(fs::read_dir(&configs).unwrap().count(), 0);
    }

    #[test]
    fn sessions_go_and_nothing_else() {
        let (home, outside) = (place("home"), place("beyond"));
        fs::write(outside.join("victim"), "untouched").unwrap();
        forget_sessions(&home).unwrap();
        let sessions = home.join(".claude/sessions");
        fs::create_dir_all(sessions.join("deep/er")).unwrap();
        fs::write(sessions.join("deep/er/x"), "x").unwrap();
        symlink(&outside, sessions.join("out")).unwrap();
        fs::write(home.join(".claude/settings"), "kept").unwrap();
        forget_sessions(&home).unwrap();
        assert!(!sessions.exists() && home.join(".claude/settings").exists());
        symlink(&outside, &sessions).unwrap();
        forget_sessions(&home).unwrap();
        assert!(!sessions.exists() && outside.join("victim").exists());
    }
}
