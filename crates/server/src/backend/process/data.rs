//! A workspace's data as a whole: out, in, and its digest.
//!
//! New data is unpacked beside the old, verified, and put in its place by renames. A crash in between is repaired by
//! the next call that needs the data:
//!
//! ```text
//! .ahead      taken in ahead of time, and to be amended: worth nothing
//! .incoming   being unpacked: worth nothing
//! .verified   whole; the old data is being moved to .previous
//! .filling    the old data is out of the way, this is being moved in
//! .previous   goes when all is in place
//! ```
//!
//! The directories themselves stay: an instance that stands in one of them sees the new content.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ligand_domain::id::WorkspaceId;

use super::Process;
use super::tree::{self, Tree};
use crate::backend::archive::{self, Most, ROOTS};
use crate::backend::{BackendError, Bytestream, Carried};

impl Process {
    pub(super) fn data_below(&self) -> Result<Vec<WorkspaceId>, BackendError> {
        let mut found = Vec::new();
        for path in tree::entries(&self.0.root)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let workspace: Option<WorkspaceId> = name.and_then(|name| name.parse().ok());
            found.extend(workspace.filter(|_| path.join("workspace").is_dir()));
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) async fn export_data(&self, of: WorkspaceId) -> Result<Bytestream, BackendError> {
        let base = self.whole_data(of)?;
        Ok(archive::stream(move |out| archive::write(&base, out).map(|_| ())))
    }

    pub(super) async fn digest_data(&self, of: WorkspaceId) -> Result<Carried, BackendError> {
        let base = self.whole_data(of)?;
        let found = tokio::task::spawn_blocking(move || archive::digest(&base)).await;
        found.map_err(io::Error::other).flatten().map_err(|cause| {
            BackendError::io(format!("cannot digest the data of workspace {of}"), cause)
        })
    }

    /// Where it lies, with nothing half done.
    fn whole_data(&self, of: WorkspaceId) -> Result<PathBuf, BackendError> {
        let tree = self.tree(of);
        if !tree.path().join("workspace").is_dir() {
            let what = format!("there is no data of workspace {of}");
            return Err(BackendError::missing(what));
        }
        tree.finish_swap()?;
        Ok(tree.path().to_owned())
    }

    pub(super) async fn import_data(
        &self,
        of: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Result<Carried, BackendError> {
        let tree = self.tree(of);
        let owner = self.prepare(&tree)?;
        let _held = tree.lock_data()?;
        tree.complete()?;
        let fresh = tree.fresh(INCOMING)?;
        let into = fresh.clone();
        let unpacked = archive::feed(archive, move |source| {
            let came = archive::read(source, &into, Most::default())?;
            // What counts is what lies there.
            let lies = archive::digest(&into)?;
            archive::settle(&into)?;
            Ok((came, lies))
        });
        let stays = stays(of);
        let (came, lies) = unpacked.await.map_err(|cause| {
            let _ = remove_tree(&fresh);
            BackendError::io(stays.as_str(), cause)
        })?;
        let wanted = expected.as_deref().unwrap_or(&came.digest);
        tree.is(wanted, &came, "the archive's", &stays)?;
        tree.is(wanted, &lies, "what lies there", &stays)?;
        if let Some(uid) = owner {
            own_below(&fresh, uid).map_err(|cause| BackendError::io(stays.as_str(), cause))?;
        }
        tree.swap()?;
        Ok(came)
    }

    pub(super) async fn take_ahead(
        &self,
        of: WorkspaceId,
        archive: Bytestream,
    ) -> Result<Carried, BackendError> {
        let tree = self.tree(of);
        self.prepare(&tree)?;
        let _held = tree.lock_data()?;
        let ahead = tree.fresh(AHEAD)?;
        let into = ahead.clone();
        let unpacked = archive::feed(archive, move |source| {
            let came = archive::read(source, &into, Most::default())?;
            // What is on the disk now need not be waited for later.
            archive::settle(&into)?;
            Ok(came)
        });
        unpacked.await.map_err(|cause| {
            let _ = remove_tree(&ahead);
            let what = format!("cannot take in data of workspace {of} ahead of time");
            BackendError::io(what, cause)
        })
    }

    pub(super) async fn amend_data(
        &self,
        of: WorkspaceId,
        changes: Bytestream,
        gone: Vec<PathBuf>,
        expected: String,
    ) -> Result<Carried, BackendError> {
        let tree = self.tree(of);
        let owner = self.prepare(&tree)?;
        let _held = tree.lock_data()?;
        tree.complete()?;
        let fresh = tree.take_up(of)?;
        let into = fresh.clone();
        let amended = archive::feed(changes, move |source| {
            archive::amend(source, &into, &gone, Most::default())?;
            // What counts is what lies there, of which only a part has just come.
            let lies = archive::digest(&into)?;
            archive::settle(&into)?;
            Ok(lies)
        });
        let stays = stays(of);
        let lies = amended.await.map_err(|cause| {
            let _ = remove_tree(&fresh);
            BackendError::io(stays.as_str(), cause)
        })?;
        tree.is(&expected, &lies, "what lies there", &stays)?;
        if let Some(uid) = owner {
            own_below(&fresh, uid).map_err(|cause| BackendError::io(stays.as_str(), cause))?;
        }
        tree.swap()?;
        Ok(lies)
    }
}

/// Where data is unpacked, before it counts.
const INCOMING: &str = ".incoming";
/// Where it is that is to be amended yet.
const AHEAD: &str = ".ahead";

fn stays(of: WorkspaceId) -> String {
    format!("cannot import data of workspace {of}; what was there stays")
}

/// The right to change the data below a tree; given back when dropped.
///
/// It is given back by name, not by closing the file: a process that is being started elsewhere holds a copy of every
/// open file between its fork and its exec, and the lock would live as long as that copy.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Tree {
    fn lock_data(&self) -> Result<Held, BackendError> {
        let path = self.path().join(".data.lock");
        let failed = |cause| BackendError::io(format!("cannot lock {}", path.display()), cause);
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Held(file)),
            Err(TryLockError::WouldBlock) => Err(failed(io::Error::new(
                io::ErrorKind::WouldBlock,
                "data is being imported there",
            ))),
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }

    /// Complete what a crash left half done.
    pub(super) fn finish_swap(&self) -> Result<(), BackendError> {
        let begun = [".verified", ".filling", ".previous"];
        if begun.iter().any(|name| self.path().join(name).exists()) {
            let _held = self.lock_data()?;
            self.complete()?;
        }
        Ok(())
    }

    /// Whether what came has this digest; otherwise it goes.
    fn is(
        &self,
        wanted: &str,
        found: &Carried,
        what: &str,
        stays: &str,
    ) -> Result<(), BackendError> {
        let digest = &found.digest;
        if digest == wanted {
            return Ok(());
        }
        let _ = remove_tree(&self.path().join(INCOMING));
        let why = format!("{stays}: {what} digest is {digest}, expected was {wanted}");
        Err(BackendError::broken(why))
    }

    /// What was taken in ahead is what comes in now.
    fn take_up(&self, of: WorkspaceId) -> Result<PathBuf, BackendError> {
        let path = self.path().join(INCOMING);
        let ahead = self.path().join(AHEAD);
        if !ahead.is_dir() {
            let what = format!("no data of workspace {of} was taken in ahead of time");
            return Err(BackendError::missing(what));
        }
        let taken = remove_tree(&path).and_then(|()| fs::rename(ahead, &path));
        let what = || format!("cannot move data to {}", path.display());
        taken.map_err(|cause| BackendError::io(what(), cause))?;
        Ok(path)
    }

    /// An empty directory to unpack into.
    fn fresh(&self, name: &str) -> Result<PathBuf, BackendError> {
        let path = self.path().join(name);
        let failed = |cause| BackendError::io(format!("cannot make {}", path.display()), cause);
        remove_tree(&path).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    /// From here on the new data is what counts.
    fn swap(&self) -> Result<(), BackendError> {
        let (from, to) = (self.path().join(INCOMING), self.path().join(".verified"));
        let renamed = remove_tree(&self.path().join(AHEAD)).and_then(|()| fs::rename(from, to));
        let renamed = renamed.and_then(|()| settle(self.path()));
        let what = || format!("cannot put new data below {}", self.path().display());
        renamed.map_err(|cause| BackendError::io(what(), cause))?;
        self.complete()
    }

    fn complete(&self) -> Result<(), BackendError> {
        let what = || format!("cannot complete an import below {}", self.path().display());
        self.completed().map_err(|cause| BackendError::io(what(), cause))
    }

    fn completed(&self) -> io::Result<()> {
        let [verified, filling, previous] =
            [".verified", ".filling", ".previous"].map(|name| self.path().join(name));
        if verified.exists() {
            for root in ROOTS {
                move_all(root, &self.path().join(root), &previous.join(root))?;
            }
            fs::rename(&verified, &filling)?;
            settle(self.path())?;
        }
        if filling.exists() {
            for root in ROOTS {
                move_all(root, &filling.join(root), &self.path().join(root))?;
            }
            remove_tree(&filling)?;
        }
        remove_tree(&previous)
    }
}

/// Move what belongs to the data; credentials stay.
fn move_all(root: &str, from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    let entries = match fs::read_dir(from) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if archive::carried(&Path::new(root).join(entry.file_name())) {
            rename(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A directory that its owner may not write can be moved by root alone, as `..` in it changes.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            let mode = fs::symlink_metadata(from)?.permissions().mode() & 0o777;
            fs::set_permissions(from, Permissions::from_mode(mode | 0o700))?;
            fs::rename(from, to)?;
            fs::set_permissions(to, Permissions::from_mode(mode))
        }
        done => done,
    }
}

fn settle(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Remove it with all that is in it, also what its owner may not write. Nothing there is success.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let gone = |done: io::Result<()>| match done {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    match gone(fs::remove_dir_all(path)) {
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            let _ = widen(path);
            gone(fs::remove_dir_all(path))
        }
        done => done,
    }
}

fn widen(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            widen(&entry.path())?;
        }
    }
    Ok(())
}

/// Give everything below `dir` to `uid`; `dir` itself stays whose it is. Links are given, not followed.
pub(super) fn own_below(dir: &Path, uid: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        // A link may take its place meanwhile: then it is the link that is given, and nothing below is entered.
        std::os::unix::fs::lchown(&path, Some(uid), Some(uid))?;
        if kind.is_file() {
            // Giving a file away takes its set-user-id bit, not its permissions.
            continue;
        }
        if kind.is_dir() {
            own_below(&path, uid)?;
        }
    }
    Ok(())
}
