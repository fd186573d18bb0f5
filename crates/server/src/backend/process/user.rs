//! Whose process an instance is. As root, every workspace has a number of its own (uid and gid), which no other tree
//! of this machine has while its own is there. Otherwise all instances run as the server's user.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::thread::{CapabilitySet, capabilities};

use super::tree::Tree;
use super::view;
use crate::backend::BackendError;

/// Where servers of one machine agree on numbers.
const REGISTRY: &str = "/run/ligand/uids";
/// How often the registry's lock is tried for, and how long it is waited for in between.
const TRIES: u32 = 200;

/// How many numbers there are from the first on.
const NUMBERS: u32 = 1 << 16;

/// The first of the numbers: above those of users and services, below those that are given to containers.
pub const UID_BASE: u32 = 70_000;

/// How instances are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Users {
    /// Each workspace has a number from `base` on. `mounts`: what it sees is made for it, so that nobody but the server
    /// needs to pass its tree.
    Own { base: u32, mounts: bool },
    /// They are one trust domain, for this reason.
    One { why: String },
}

impl Users {
    /// What can be done here, for trees below `root`.
    pub(super) fn here(base: Option<u32>, root: &Path) -> Self {
        let one = |why: String| Self::One { why };
        if !rustix::process::geteuid().is_root() {
            return one("the server does not run as root".to_owned());
        }
        let Some(base) = base else { return one("uid_base is 0".to_owned()) };
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
        if !capabilities(None).is_ok_and(|sets| sets.effective.contains(needed)) {
            return one("the server is root without the right to change users".to_owned());
        }
        let mounts = view::possible();
        match view::closed(root) {
            Some(closed) if !mounts => one(format!(
                "others cannot pass {}, and the server may not mount: set `root` to a directory that they can reach",
                closed.display()
            )),
            _ => Self::Own { base, mounts },
        }
    }

    /// The number of the workspace whose tree this is. A tree that has none gets one, with all that is in it.
    pub(super) fn settle(&self, tree: &Tree) -> Result<Option<u32>, BackendError> {
        let Self::Own { base, mounts } = self else { return Ok(None) };
        let found = Registry::open(Path::new(REGISTRY))
            .and_then(|registry| registry.number(tree.path(), *base));
        let number = found.map_err(|cause| {
            let what = format!("cannot find a user for {}", tree.path().display());
            BackendError::io(what, cause)
        })?;
        tree.hand_over(number, *mounts)?;
        Ok(Some(number))
    }
}

/// A file per number that was given out: the tree that has it. What counts is the tree's own note.
struct Registry<'a> {
    dir: &'a Path,
    _lock: File,
}

impl<'a> Registry<'a> {
    fn open(dir: &'a Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600);
        let lock = lock.open(dir.join("lock"))?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { dir, _lock: lock }),
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Err(TryLockError::Error(cause)) => return Err(cause),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another server holds the list of users"))
    }

    fn number(&self, tree: &Path, base: u32) -> io::Result<u32> {
        if let Some(number) = noted(tree)
            && self.holder(number).is_none_or(|holder| holder == tree)
        {
            self.claim(number, tree)?;
            return Ok(number);
        }
        let taken = taken();
        let free = |number: &u32| !taken.contains(number) && self.holder(*number).is_none();
        // Behind the last one first: numbers are not given out again soon, nor all of them looked at.
        let (hint, most) = (self.dir.join(format!("next-{base}")), base.saturating_add(NUMBERS));
        let next = fs::read_to_string(&hint).ok().and_then(|text| text.parse().ok());
        let next = next.unwrap_or(base).clamp(base, most);
        let number = (next..most).chain(base..next).find(free);
        let number = number.ok_or_else(|| io::Error::other("no number is free"))?;
        write_new(&hint, (number + 1).to_string().as_bytes())?;
        self.claim(number, tree)?;
        write_new(&tree.join("uid"), number.to_string().as_bytes())?;
        Ok(number)
    }

    /// The tree that has the number, if it still says so itself.
    fn holder(&self, number: u32) -> Option<PathBuf> {
        let tree = PathBuf::from(fs::read_to_string(self.dir.join(number.to_string())).ok()?);
        (noted(&tree) == Some(number)).then_some(tree)
    }

    fn claim(&self, number: u32, tree: &Path) -> io::Result<()> {
        write_new(&self.dir.join(number.to_string()), tree.as_os_str().as_encoded_bytes())
    }
}

/// The number that a tree says is its.
pub(super) fn noted(tree: &Path) -> Option<u32> {
    fs::read_to_string(tree.join("uid")).ok()?.trim().parse().ok()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    fs::rename(&draft, path)
}

/// Numbers of users that the machine knows, or that something runs as.
fn taken() -> BTreeSet<u32> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = users.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok());
    let running = fs::read_dir("/proc").into_iter().flatten().flatten();
    let running = running.filter_map(|entry| Some(entry.metadata().ok()?.uid()));
    known.chain(running).collect()
}
