//! Instances as processes of this machine.
//!
//! Each is a process group of its own, with a directory tree per workspace and an environment built from
//! nothing. The address is a socket that the backend binds and the instance inherits as its standard input,
//! so that no port is ever chosen twice. Instances outlive the server: a later one finds them again by
//! recorded identity (boot, pid *and* start time), or by the label in their environment if the server died
//! before it could record anything. Exits are seen at once, through pidfds.
//!
//! `tree.rs` knows the directories, `files.rs` what an instance is given, `identity.rs` the process table.

mod files;
mod identity;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::{Exit, Seen};
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use self::identity::Identity;
use self::tree::{Record, Tree};
use super::{Answer, Backend, BackendError, Key, Pushes, Spec, Started};

/// How long a killed group may take to disappear.
const DISAPPEARS: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// The label: backend root, workspace and generation.
const LABEL: &str = "LIGAND_INSTANCE";
/// Programs that an instance finds without being told where they are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// See the module.
#[derive(Clone)]
pub struct Process(Arc<Shared>);

struct Shared {
    root: PathBuf,
    pushes: Pushes,
    /// Instances that a watcher of this server will report; the value turns true when it has.
    watched: Mutex<HashMap<Key, watch::Receiver<bool>>>,
}

impl Process {
    /// Instances live below `root`, which is created at the first start.
    #[must_use]
    pub fn new(root: &Path, pushes: Pushes) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self(Arc::new(Shared { root, pushes, watched: Mutex::default() }))
    }

    fn tree(&self, workspace: WorkspaceId) -> Tree {
        Tree::new(&self.0.root, workspace)
    }

    fn label(&self, key: Key) -> String {
        format!("{}/{}/{}", self.0.root.display(), key.workspace, key.generation)
    }

    fn start(&self, spec: &Spec) -> Result<Started, BackendError> {
        let key = spec.key;
        let tree = self.tree(key.workspace);
        tree.prepare()?;
        tree.deliver(&spec.credential)?;
        files::deliver(&tree.configs(), &spec.files)?;
        if spec.fresh_session {
            files::forget_sessions(&tree.home())?;
        }
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|cause| BackendError::io("cannot bind a loopback port", cause))?;
        let port = socket
            .local_addr()
            .map_err(|cause| BackendError::io("cannot read the bound port", cause))?;
        let address = format!("http://127.0.0.1:{}", port.port());
        let said_before = tree.boot_log_length();
        let child = self.spawn(spec, &tree, OwnedFd::from(socket), &address)?;
        let pid = child.id().ok_or_else(|| BackendError::broken("the instance ended at once"))?;
        // A zombie until it is waited for, so its identity is there even if it has exited already.
        let identity = Identity::of(pid)
            .ok_or_else(|| BackendError::broken(format!("process {pid} disappeared at once")))?;
        let record = Record { identity, address: Some(address.clone()), said_before };
        tree.record(key.generation, &record)?;
        self.watch(key, Watched::Child(child, pid), &record);
        Ok(Started { handle: record.identity.to_string(), address: Some(address) })
    }

    #[expect(clippy::disallowed_methods, reason = "this is where instances are started")]
    fn spawn(
        &self,
        spec: &Spec,
        tree: &Tree,
        socket: OwnedFd,
        address: &str,
    ) -> Result<Child, BackendError> {
        let (program, arguments) = spec
            .command
            .split_first()
            .ok_or_else(|| BackendError::broken("the runtime's command is empty"))?;
        let (out, err) = tree.boot_log()?;
        Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.environment(spec, tree, address))
            .current_dir(tree.workspace())
            .stdin(Stdio::from(socket))
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|cause| {
                let what = format!("cannot start {program}: {cause}");
                if cause.kind() == std::io::ErrorKind::NotFound {
                    BackendError::broken(what)
                } else {
                    BackendError::io(format!("cannot start {program}"), cause)
                }
            })
    }

    fn environment(&self, spec: &Spec, tree: &Tree, address: &str) -> BTreeMap<String, String> {
        let path = |path: PathBuf| path.display().to_string();
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        env.extend(spec.env.clone());
        env.extend([
            ("HOME".to_owned(), path(tree.home())),
            ("CONFIGS_DIR".to_owned(), path(tree.configs())),
            ("WORKSPACE_CONFIG_PATH".to_owned(), path(tree.configs())),
            ("WORKSPACE_DIR".to_owned(), path(tree.workspace())),
            ("LIGAND_LOG_DIR".to_owned(), path(tree.logs())),
            ("LIGAND_LISTEN_STDIN".to_owned(), "1".to_owned()),
            ("LIGAND_AGENT_URL".to_owned(), address.to_owned()),
            ("LIGAND_MANAGED".to_owned(), "1".to_owned()),
            (LABEL.to_owned(), self.label(spec.key)),
        ]);
        env
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
            identity::kill_group_of(&record.identity, key.workspace);
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
        identity::kill_group_of(&record.identity, key.workspace);
        self.watcher_done(key).await;
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "real processes end in real time, whatever the clock of the server says"
)]
async fn gone_within(identity: &Identity, patience: Duration) -> bool {
    let looks = patience.as_millis() / LOOK.as_millis().max(1);
    for _ in 0..looks {
        if !identity.alive() {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    !identity.alive()
}

/// How the end of an instance is noticed.
enum Watched {
    /// We started it: its exit status is ours to read.
    Child(Child, u32),
    /// An earlier server started it: only that it ended can be seen.
    Other(OwnedFd),
}

impl Watched {
    #[expect(
        deprecated,
        reason = "an owned descriptor keeps the promise that the unsafe replacement asks for"
    )]
    async fn ended(self) -> Exit {
        use std::os::unix::process::ExitStatusExt as _;
        match self {
            Self::Child(mut child, pid) => match child.wait().await {
                Ok(status) => Exit { code: status.code(), signal: status.signal(), said: None },
                Err(cause) => {
                    tracing::warn!(pid, error = %cause, "an exit status could not be read");
                    Exit::default()
                }
            },
            // A pidfd becomes readable when its process ends.
            Self::Other(fd) => match AsyncFd::new(fd) {
                Ok(fd) => {
                    let _ = fd.readable().await;
                    Exit::default()
                }
                Err(cause) => {
                    tracing::warn!(error = %cause, "a process cannot be watched; its lease will tell");
                    std::future::pending().await
                }
            },
        }
    }
}

impl Backend for Process {
    fn kind(&self) -> &'static str {
        "process"
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        Box::pin(async {
            tree::writable(&self.0.root)?;
            Ok(format!("processes below {}, as this user: one trust domain", self.0.root.display()))
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
