//! The directories of one workspace:
//!
//! ```text
//! <root>/<workspace>/configs    what the platform gives it: its credential
//!                   /workspace  its data; where it starts
//!                   /home       its home
//!                   /plugins    what extends it
//!                   /logs       agent.log (rotated by the agent), boot.log (its bare output)
//!                   /run        one record per instance that was not destroyed
//!                   /uid        its user's number, where it has one
//! ```
//!
//! Where it has a user of its own, the directories of the instance are that user's, and the rest stays the server's: what the server
//! believes cannot be put there by an instance, nor can one of those become a link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Exit;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::backend::{BackendError, Key, Root};

/// Of a log, at most this much is read for its tail.
const TAIL: u64 = 1 << 20;
/// The bare output is set aside beyond this, at the next start.
const BOOT_LOG: u64 = 1 << 20;
/// Neither follow a link nor wait for the other end of a pipe.
const NO_DETOUR: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
/// Characters of an instance's last words that are kept.
const LAST_WORDS: usize = 500;

/// The directories that an instance may write.
const OF_INSTANCE: [&str; 5] = ["configs", "workspace", "home", "logs", "plugins"];

/// What is known of a started instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) identity: Identity,
    pub(super) address: Option<String>,
    /// Length of the bare output before it started.
    pub(super) said_before: u64,
}

/// How an instance ended, as recorded.
#[derive(Serialize, Deserialize)]
struct RecordedExit {
    code: Option<i32>,
    signal: Option<i32>,
    said: Option<String>,
}

pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn new(root: &Path, workspace: WorkspaceId) -> Self {
        Self(root.join(workspace.to_string()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What an instance may write, as far as it is there.
    pub(super) fn of_instance(&self) -> Vec<PathBuf> {
        let parts = OF_INSTANCE.iter().map(|part| self.0.join(part));
        parts.filter(|part| part.is_dir()).collect()
    }

    /// Give what is the instance's to its user. `mounts`: nobody else needs to pass the tree.
    pub(super) fn hand_over(&self, uid: u32, mounts: bool) -> Result<(), BackendError> {
        self.handed_over(uid, mounts).map_err(|cause| {
            let what = format!("cannot give {} to the user {uid}", self.0.display());
            BackendError::io(what, cause)
        })
    }

    fn handed_over(&self, uid: u32, mounts: bool) -> std::io::Result<()> {
        for part in self.of_instance() {
            // What is inside goes first: a crash before the end repeats all of it.
            if fs::symlink_metadata(&part)?.uid() != uid {
                super::data::own_below(&part, uid)?;
                std::os::unix::fs::lchown(&part, Some(uid), Some(uid))?;
            }
        }
        std::os::unix::fs::lchown(&self.0, Some(0), Some(uid))?;
        let passed = if mounts { 0o700 } else { 0o710 };
        fs::set_permissions(&self.0, fs::Permissions::from_mode(passed))
    }

    pub(super) fn configs(&self) -> PathBuf {
        self.0.join("configs")
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Where files that callers name are kept.
    pub(super) fn place(&self, root: Root) -> PathBuf {
        match root {
            Root::Configs => self.configs(),
            Root::Workspace => self.workspace(),
            Root::Home => self.home(),
            Root::Plugins => self.plugins(),
        }
    }

    fn plugins(&self) -> PathBuf {
        self.0.join("plugins")
    }

    fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Make the directories. Nobody else may look inside; `shared`: other users may pass the root, on the way to
    /// their own.
    pub(super) fn prepare(&self, shared: bool) -> Result<(), BackendError> {
        if let Some(root) = self.0.parent().filter(|_| shared) {
            create(root)?;
            let mode = fs::Permissions::from_mode(0o711);
            fs::set_permissions(root, mode).map_err(|cause| {
                BackendError::io(format!("cannot let users pass {}", root.display()), cause)
            })?;
        }
        let data = [self.configs(), self.workspace(), self.home(), self.plugins()];
        for path in data.into_iter().chain([self.logs(), self.run()]) {
            create(&path)?;
        }
        Ok(())
    }

    /// Put the credential where the instance looks for it, and take away what belonged to the last one.
    pub(super) fn deliver(
        &self,
        credential: &Token,
        owner: Option<u32>,
    ) -> Result<(), BackendError> {
        let beside = ["next", "previous", "generation"].map(|end| format!(".auth_token.{end}"));
        for stale in beside.iter().map(String::as_str).chain([".register_key"]) {
            remove(&self.configs().join(stale))?;
        }
        give(&self.configs().join(".auth_token"), credential.reveal().as_bytes(), owner)
    }

    pub(super) fn boot_log_length(&self) -> u64 {
        let path = self.logs().join("boot.log");
        let length = fs::metadata(&path).map_or(0, |meta| meta.len());
        if length > BOOT_LOG && fs::rename(&path, path.with_extension("log.1")).is_ok() {
            return 0;
        }
        length
    }

    /// Where its bare output goes, twice.
    pub(super) fn boot_log(&self) -> Result<(Stdio, Stdio), BackendError> {
        let path = self.logs().join("boot.log");
        let failed = |cause| BackendError::io(format!("cannot open {}", path.display()), cause);
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).custom_flags(NO_DETOUR);
        let file = options.open(&path).map_err(failed)?;
        let twin = file.try_clone().map_err(failed)?;
        Ok((Stdio::from(file), Stdio::from(twin)))
    }

    /// The error it ended with: its last line that says so, else its last line.
    pub(super) fn last_words(&self, from: u64) -> Option<String> {
        let mut file = plain(&self.logs().join("boot.log")).ok()??;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(8192)))).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let said =
            lines.clone().find(|line| line.starts_with("error:")).or_else(|| lines.next())?;
        Some(said.chars().take(LAST_WORDS).collect())
    }

    pub(super) fn record(
        &self,
        generation: Generation,
        record: &Record,
    ) -> Result<(), BackendError> {
        create(&self.run())?;
        write(&self.run().join(format!("{generation}.json")), &json(record))
    }

    pub(super) fn recorded(&self, generation: Generation) -> Result<Option<Record>, BackendError> {
        read(&self.run().join(format!("{generation}.json")))
    }

    pub(super) fn record_exit(
        &self,
        generation: Generation,
        exit: &Exit,
    ) -> Result<(), BackendError> {
        let Exit { code, signal, said } = exit.clone();
        // Destroyed meanwhile: there is nothing to record it beside.
        if self.recorded(generation)?.is_none() {
            return Ok(());
        }
        write(
            &self.run().join(format!("{generation}.exit")),
            &json(&RecordedExit { code, signal, said }),
        )
    }

    pub(super) fn exit(&self, generation: Generation) -> Result<Option<Exit>, BackendError> {
        let found: Option<RecordedExit> = read(&self.run().join(format!("{generation}.exit")))?;
        Ok(found.map(|RecordedExit { code, signal, said }| Exit { code, signal, said }))
    }

    /// The instances that were not destroyed.
    pub(super) fn records(&self) -> Result<Vec<(Generation, Record)>, BackendError> {
        let mut found = Vec::new();
        for path in entries(&self.run())? {
            if let Some(generation) = generation_of(&path)
                && let Some(record) = self.recorded(generation)?
            {
                found.push((generation, record));
            }
        }
        Ok(found)
    }

    pub(super) fn forget(&self, generation: Generation) -> Result<(), BackendError> {
        remove(&self.run().join(format!("{generation}.exit")))?;
        remove(&self.run().join(format!("{generation}.json")))
    }

    pub(super) fn erase(&self) -> Result<(), BackendError> {
        super::data::remove_tree(&self.0)
            .map_err(|cause| BackendError::io(format!("cannot remove {}", self.0.display()), cause))
    }

    /// The last lines of the log, from the rotated file too where the newest is short.
    pub(super) fn tail(&self, lines: usize) -> Result<Bytes, BackendError> {
        let mut text = Vec::new();
        for name in ["agent.log.1", "agent.log"] {
            let path = self.logs().join(name);
            let failed = |cause| BackendError::io(format!("cannot read {}", path.display()), cause);
            let Some(mut file) = plain(&path).map_err(failed)? else { continue };
            let length = file.metadata().map_err(failed)?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).map_err(failed)?;
            file.take(TAIL).read_to_end(&mut text).map_err(failed)?;
        }
        let ends =
            text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let from = ends.skip(1).nth(lines.saturating_sub(1)).map_or(0, |at| at + 1);
        Ok(Bytes::from(text).slice(from..))
    }
}

/// Open what an instance wrote, if it is a plain file. Whatever else it put there (a link, a device, a pipe)
/// leads out of its tree, or blocks whoever reads it.
fn plain(path: &Path) -> std::io::Result<Option<File>> {
    let opened = OpenOptions::new().read(true).custom_flags(NO_DETOUR).open(path);
    match opened {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) if cause.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Every instance with a record below the root.
pub(super) fn recorded_below(root: &Path) -> Result<Vec<Key>, BackendError> {
    let mut keys = Vec::new();
    for entry in entries(root)? {
        let Some(workspace) = entry.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        for record in entries(&entry.join("run"))? {
            keys.extend(generation_of(&record).map(|generation| Key { workspace, generation }));
        }
    }
    Ok(keys)
}

fn generation_of(record: &Path) -> Option<Generation> {
    record.extension().filter(|extension| *extension == "json")?;
    record.file_stem()?.to_str()?.parse().ok().map(Generation::new)
}

pub(super) fn entries(path: &Path) -> Result<Vec<PathBuf>, BackendError> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(BackendError::io(format!("cannot list {}", path.display()), cause)),
    }
}

/// Whether instances can be kept below the root.
pub(super) fn writable(root: &Path) -> Result<(), BackendError> {
    create(root)?;
    let probe = root.join(".probe");
    write(&probe, b"")?;
    remove(&probe)
}

fn create(path: &Path) -> Result<(), BackendError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|cause| BackendError::io(format!("cannot create {}", path.display()), cause))
}

/// Replace a file in one step, readable by its owner alone. What was there stays until the new one is whole.
fn write(path: &Path, content: &[u8]) -> Result<(), BackendError> {
    give(path, content, None)
}

/// The same, for a user.
fn give(path: &Path, content: &[u8], owner: Option<u32>) -> Result<(), BackendError> {
    let failed = |cause| BackendError::io(format!("cannot write {}", path.display()), cause);
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    // Made anew: what lies there under its name may be a link of an instance's.
    remove(&draft)?;
    let mut options = OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o600).open(&draft).map_err(failed)?;
    std::os::unix::fs::fchown(&file, owner, owner).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)
}

/// Whatever it is.
fn remove(path: &Path) -> Result<(), BackendError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) if cause.kind() == std::io::ErrorKind::IsADirectory => {
            super::data::remove_tree(path).map_err(|cause| {
                BackendError::io(format!("cannot remove {}", path.display()), cause)
            })
        }
        Err(cause) => Err(BackendError::io(format!("cannot remove {}", path.display()), cause)),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain fields become JSON")
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, BackendError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => {
            return Err(BackendError::io(format!("cannot read {}", path.display()), cause));
        }
    };
    let broken = |cause: serde_json::Error| {
        BackendError::io(format!("cannot understand {}", path.display()), cause.into())
    };
    serde_json::from_slice(&bytes).map(Some).map_err(broken)
}
