//! Instances as processes of this machine.
//!
//! Each is a process group of its own, with a directory tree per workspace and an environment built from
//! nothing. The address is a socket that the backend binds and the instance inherits as its standard input,
//! so that no port is ever chosen twice. Instances outlive the server: a later one finds them again by
//! recorded identity (boot, pid *and* start time), or by the label in their environment if the server died
//! before it could record anything. Exits are seen at once, through pidfds.
//!
//! As root every workspace runs as a user of its own. `start.rs` starts instances, `tree.rs` knows the directories, `user.rs` the users, `view.rs`
//! what these see of the machine, `sandbox.rs` the optional sandbox, `limits.rs` limits and control groups,
//! `identity.rs` the process table, `data.rs` the data as a whole, `files.rs` the way to files that others name,
//! `given.rs` files that an instance is given, `follow.rs` a log as it grows, `terminal.rs` shells, `watched.rs` ends.

mod data;
mod files;
mod follow;
mod given;
mod identity;
mod limits;
mod sandbox;
mod start;
mod terminal;
mod tree;
mod user;
mod view;
mod watched;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use rustix::process::Signal;
use tokio::sync::watch;

use self::identity::{Identity, Marks};
use self::tree::{Record, Tree};
pub use self::user::UID_BASE;
use self::user::Users;
use self::watched::Watched;
use super::{
    Answer, Backend, BackendError, Bytestream, Carried, Found, Key, Place, Pushes, Spec, Started,
    Terminal,
};

/// How long a killed group may take to disappear.
const DISAPPEARS: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// The label: backend root, workspace and generation.
const LABEL: &str = "LIGAND_INSTANCE";

/// How instances are kept apart and limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// As root, the first number of a user of a workspace. `None`: all run as the server's user.
    pub uid_base: Option<u32>,
    /// Whether each runs in a sandbox.
    pub sandbox: Sandbox,
    /// A delegated control group, below which each gets its own.
    pub cgroup: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { uid_base: Some(UID_BASE), sandbox: Sandbox::None, cgroup: None }
    }
}

/// Whether instances run in a sandbox of bubblewrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// They see the machine.
    #[default]
    None,
    /// If it works here.
    Auto,
    /// Or not at all.
    Bubblewrap,
}

/// See the module.
#[derive(Clone)]
pub struct Process(Arc<Shared>);

struct Shared {
    root: PathBuf,
    settings: Settings,
    /// Found out at the first need.
    users: OnceLock<Users>,
    sandboxed: OnceLock<bool>,
    pushes: Pushes,
    /// Instances that a watcher of this server will report; the value turns true when it has.
    watched: Mutex<HashMap<Key, watch::Receiver<bool>>>,
}

impl Process {
    /// Instances live below `root`, which is created at the first start.
    #[must_use]
    pub fn new(root: &Path, pushes: Pushes) -> Self {
        Self::with(root, Settings::default(), pushes)
    }

    /// The same, otherwise than usual.
    #[must_use]
    pub fn with(root: &Path, settings: Settings, pushes: Pushes) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let (users, sandboxed) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Shared {
            root,
            settings,
            users,
            sandboxed,
            pushes,
            watched: Mutex::default(),
        }))
    }

    fn users(&self) -> &Users {
        self.0.users.get_or_init(|| Users::here(self.0.settings.uid_base, &self.0.root))
    }

    fn sandboxed(&self) -> bool {
        match self.0.settings.sandbox {
            Sandbox::None => false,
            Sandbox::Bubblewrap => true,
            Sandbox::Auto => *self.0.sandboxed.get_or_init(sandbox::works),
        }
    }

    /// Make a workspace's directories, with its data whole, and say whose they are.
    fn prepare(&self, tree: &Tree) -> Result<Option<u32>, BackendError> {
        tree.prepare(matches!(self.users(), Users::Own { mounts: false, .. }))?;
        tree.finish_swap()?;
        self.users().settle(tree)
    }

    fn tree(&self, workspace: WorkspaceId) -> Tree {
        Tree::new(&self.0.root, workspace)
    }

    fn label(&self, key: Key) -> String {
        format!("{}/{}/{}", self.0.root.display(), key.workspace, key.generation)
    }

    /// What is recorded of an instance; if nothing is, what the process table knows of its label.
    fn known(&self, key: Key) -> Result<Option<Record>, BackendError> {
        let tree = self.tree(key.workspace);
        if let Some(record) = tree.recorded(key.generation)? {
            return Ok(Some(record));
        }
        let label = format!("{LABEL}={}", self.label(key));
        let Some(identity) = identity::by_environment(&label) else { return Ok(None) };
        let address = identity::variable(identity.pid, "LIGAND_AGENT_URL");
        let record = Record { identity, address, said_before: 0 };
        tree.record(key.generation, &record)?;
        Ok(Some(record))
    }

    /// Report its end, once, whoever started it.
    #[expect(
        clippy::disallowed_methods,
        reason = "a watcher lives as long as its instance, which outlives the server: no stop may wait for it"
    )]
    fn watch(&self, key: Key, watched: Watched, record: &Record) {
        let (done, receiver) = watch::channel(false);
        let mut table = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if table.contains_key(&key) {
            return;
        }
        table.insert(key, receiver);
        drop(table);
        let (this, record) = (self.clone(), record.clone());
        tokio::spawn(async move {
            let mut exit = watched.ended().await;
            let tree = this.tree(key.workspace);
            exit.said = tree.last_words(record.said_before);
            identity::kill_rest(&record.identity, &this.marks(key, false), true);
            if let Err(cause) = tree.record_exit(key.generation, &exit) {
                tracing::warn!(workspace.id = %key.workspace, error = cause.chain(), "an exit could not be recorded");
            }
            let _ = done.send(true);
            this.0.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            this.0.pushes.ended(key);
        });
    }

    fn adopt(&self, key: Key, record: &Record) {
        match identity::pidfd(&record.identity) {
            Some(fd) => self.watch(key, Watched::Other(fd), record),
            None if record.identity.alive() => {
                tracing::warn!(workspace.id = %key.workspace, "an instance cannot be watched; its lease will tell");
            }
            None => self.0.pushes.ended(key),
        }
    }

    /// Wait a moment for the watcher of an instance that is known to have ended.
    async fn watcher_done(&self, key: Key) {
        let found =
            self.0.watched.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(mut receiver) = found {
            let _ =
                tokio::time::timeout(Duration::from_secs(1), receiver.wait_for(|done| *done)).await;
        }
    }

    async fn look(&self, key: Key) -> Result<Seen, BackendError> {
        let Some(record) = self.known(key)? else { return Ok(Seen::Gone) };
        if record.identity.alive() {
            self.adopt(key, &record);
            return Ok(Seen::Running);
        }
        self.watcher_done(key).await;
        let exit = self.tree(key.workspace).exit(key.generation)?;
        Ok(Seen::Stopped(exit.unwrap_or_default()))
    }

    async fn end(&self, key: Key, grace: Duration) -> Result<(), BackendError> {
        let Some(record) = self.known(key)? else { return Ok(()) };
        if record.identity.alive() {
            identity::signal_group(&record.identity, Signal::TERM);
            if !gone_within(&record.identity, grace).await {
                identity::signal_group(&record.identity, Signal::KILL);
                if !gone_within(&record.identity, DISAPPEARS).await {
                    let what =
                        format!("process {} does not end, even when killed", record.identity.pid);
                    return Err(BackendError {
                        kind: super::ErrorKind::Transient,
                        what,
                        source: None,
                    });
                }
            }
        }
        self.end_rest(key, &record.identity).await?;
        self.watcher_done(key).await;
        Ok(())
    }

    /// What left its group goes too, and what that starts while it is being ended.
    async fn end_rest(&self, key: Key, identity: &Identity) -> Result<(), BackendError> {
        let mut others = self.tree(key.workspace).records()?;
        others.retain(|(generation, record)| {
            *generation != key.generation && record.identity.alive()
        });
        let (marks, group) = (self.marks(key, others.is_empty()), self.group(key));
        let looks = DISAPPEARS.as_millis() / LOOK.as_millis().max(1);
        for _ in 0..looks {
            let inside = group.as_ref().is_some_and(limits::Group::kill);
            if identity::kill_rest(identity, &marks, false) == 0 && !inside {
                if let Some(group) = &group {
                    group.remove();
                }
                return Ok(());
            }
            wait(LOOK).await;
        }
        Err(BackendError {
            kind: super::ErrorKind::Transient,
            what: format!("what {identity} started does not end, even when killed"),
            source: None,
        })
    }

    fn marks(&self, key: Key, alone: bool) -> Marks {
        let tree = self.tree(key.workspace);
        let owned = matches!(self.users(), Users::Own { .. });
        Marks {
            label: format!("{LABEL}={}", self.label(key)),
            tree: format!("CONFIGS_DIR={}", tree.configs().display()),
            uid: owned.then(|| user::noted(tree.path())).flatten(),
            alone,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "real processes end in real time, whatever the clock of the server says"
)]
async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn gone_within(identity: &Identity, patience: Duration) -> bool {
    let looks = patience.as_millis() / LOOK.as_millis().max(1);
    for _ in 0..looks {
        if !identity.alive() {
            return true;
        }
        wait(LOOK).await;
    }
    !identity.alive()
}

/// Work on files of others, which may be large and on a slow disk, beside everything else.
fn blocking<'a, T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Answer<'a, T> {
    Box::pin(async {
        let died = |_| BackendError::broken("the work on a file was given up");
        tokio::task::spawn_blocking(work).await.map_err(died)?
    })
}

impl Backend for Process {
    fn kind(&self) -> &'static str {
        "process"
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        Box::pin(async {
            tree::writable(&self.0.root)?;
            let mut said = format!("processes below {}, ", self.0.root.display());
            said += &match self.users() {
                Users::Own { base, .. } => {
                    format!("each workspace as a user of its own, from {base}")
                }
                Users::One { why } => format!("as this user: one trust domain, as {why}"),
            };
            if self.0.settings.sandbox == Sandbox::Bubblewrap && !sandbox::works() {
                return Err(BackendError::broken(
                    "bubblewrap (bwrap) is not there, or may not be used",
                ));
            }
            if self.sandboxed() {
                said += "; in a sandbox";
            }
            match self.0.settings.cgroup.as_deref().map(limits::delegated) {
                Some(Ok(what)) => said += &format!("; {what}"),
                Some(Err(why)) => return Err(BackendError::broken(why)),
                None => said += "; limits by process, no control groups",
            }
            Ok(said)
        })
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        Box::pin(async move {
            match self.find(spec.key).await? {
                Some(started) => Ok(started),
                None => self.start(&spec),
            }
        })
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            let Some(record) = self.known(key)? else { return Ok(None) };
            if record.identity.alive() {
                self.adopt(key, &record);
            }
            Ok(Some(Started { handle: record.identity.to_string(), address: record.address }))
        })
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(self.look(key))
    }

    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()> {
        Box::pin(self.end(key, grace))
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(async move {
            self.end(key, Duration::ZERO).await?;
            self.tree(key.workspace).forget(key.generation)
        })
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        Box::pin(async move { self.tree(workspace).erase() })
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(async { tree::recorded_below(&self.0.root) })
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        Box::pin(async move { self.tree(workspace).tail(lines) })
    }

    fn list_data(&self) -> Answer<'_, Vec<WorkspaceId>> {
        Box::pin(async { self.data_below() })
    }

    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(self.export_data(workspace))
    }

    fn import(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        Box::pin(self.import_data(workspace, archive, expected))
    }

    fn import_ahead(&self, workspace: WorkspaceId, archive: Bytestream) -> Answer<'_, Carried> {
        Box::pin(self.take_ahead(workspace, archive))
    }

    fn amend(
        &self,
        workspace: WorkspaceId,
        changes: Bytestream,
        gone: Vec<PathBuf>,
        expected: String,
    ) -> Answer<'_, Carried> {
        Box::pin(self.amend_data(workspace, changes, gone, expected))
    }

    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        Box::pin(self.digest_data(workspace))
    }

    fn terminal(&self, key: Key, size: (u16, u16)) -> Answer<'_, Terminal> {
        Box::pin(async move { self.open_terminal(key, size) })
    }

    fn follow(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(async move {
            follow::follow(self.tree(workspace).logs())
                .map_err(|cause| BackendError::io("cannot follow the log", cause))
        })
    }

    fn list_files(&self, workspace: WorkspaceId, at: Place, depth: u8) -> Answer<'_, Vec<Found>> {
        let root = self.tree(workspace).place(at.root);
        blocking(move || files::list(&root, &at.path, depth))
    }

    fn read_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, Bytes> {
        let root = self.tree(workspace).place(at.root);
        blocking(move || files::read(&root, &at.path))
    }

    fn write_file(&self, workspace: WorkspaceId, at: Place, content: Bytes) -> Answer<'_, ()> {
        let (this, tree) = (self.clone(), self.tree(workspace));
        blocking(move || {
            this.prepare(&tree)?;
            files::write(&tree.place(at.root), &at.path, &content)
        })
    }

    fn remove_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, ()> {
        let root = self.tree(workspace).place(at.root);
        blocking(move || files::remove(&root, &at.path))
    }

    fn recover(&self) -> Answer<'_, ()> {
        Box::pin(async {
            for key in tree::recorded_below(&self.0.root)? {
                if let Some(record) = self.known(key)? {
                    self.adopt(key, &record);
                }
            }
            Ok(())
        })
    }
}
