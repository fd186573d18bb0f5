//! What runs instances, behind one interface.
//!
//! A backend knows neither the database nor HTTP. It is asked by a [`Key`], and every call may be made
//! twice. Not being able to say is an answer: an error from [`Backend::inspect`] is never taken for "gone".
//! What the backend itself notices (an exit) it pushes through [`Pushes`]; that makes a replacement quick,
//! never correct.

pub mod archive;
pub mod docker;
pub mod fake;
pub mod fleet;
pub mod process;
pub mod provider;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use ligand_domain::credential::Token;
pub use ligand_domain::files::Root;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use tokio::sync::mpsc;

/// Which instance: one per workspace and generation, whatever was lost or asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Which.
    pub generation: Generation,
}

/// What to start.
pub struct Spec {
    /// Which instance it will be.
    pub key: Key,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its whole environment, but for what the backend adds (paths, address, label). Nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Its credential, delivered as a file before it starts. `None` where its environment brings a passport instead.
    pub credential: Option<Token>,
    /// Its runtime's name, by which a backend chooses an image.
    pub runtime: String,
    /// Files below the configuration directory, by relative path. They are there before it starts, in place of older
    /// ones of the same name; others stay.
    pub files: BTreeMap<String, Bytes>,
    /// What it may use.
    pub limits: Limits,
    /// A directory of the machine that it works in, instead of one of its own.
    pub mount: Option<Mount>,
    /// Take away the sessions of earlier instances first.
    pub fresh_session: bool,
    /// Of the backend's providers, the one that somebody chose for it; the backend's own where nobody did.
    pub provider: Option<String>,
}

impl Spec {
    /// Nothing but what every instance has.
    #[must_use]
    pub fn bare(key: Key, command: Vec<String>, credential: Token) -> Self {
        Self { credential: Some(credential), ..Self::of(key, command) }
    }

    /// The same, before it is known what it proves itself with.
    #[must_use]
    pub fn of(key: Key, command: Vec<String>) -> Self {
        Self {
            key,
            command,
            env: BTreeMap::new(),
            credential: None,
            runtime: String::new(),
            files: BTreeMap::new(),
            limits: Limits::default(),
            mount: None,
            fresh_session: false,
            provider: None,
        }
    }
}

/// How an instance can be given what it proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A file that is there before it starts: its credential.
    File,
    /// Start-up data alone: a passport in its environment.
    StartData,
}

/// What not every backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Its instances run the command that they are given.
    Programs,
    /// The end of a log.
    Logs,
    /// A log as it grows.
    Follow,
    /// Data as an archive, both ways, and its digest.
    Data,
    /// Single files.
    Files,
    /// A shell.
    Terminal,
    /// Ends of instances are pushed.
    Events,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Programs,
        Self::Logs,
        Self::Follow,
        Self::Data,
        Self::Files,
        Self::Terminal,
        Self::Events,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Programs => "programs",
            Self::Logs => "logs",
            Self::Follow => "follow",
            Self::Data => "data",
            Self::Files => "files",
            Self::Terminal => "terminal",
            Self::Events => "events",
        }
    }
}

/// What an instance may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// 1 to 4: how much it is trusted.
    pub tier: i64,
    /// Memory in MiB, where it is limited.
    pub memory_mb: Option<u64>,
    /// Shares of processor time, where they are limited: 1024 are one core's.
    pub cpu_shares: Option<u64>,
}

/// A directory of the machine that is given to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// An absolute path of the machine.
    pub path: PathBuf,
    /// Whether the instance may write there.
    pub writable: bool,
}

/// A confirmed instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The backend's name for it, for people and logs.
    pub handle: String,
    /// Where it answers, if the backend knows.
    pub address: Option<String>,
}

/// What a caller of a backend can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Asking again later is right.
    Transient,
    /// It will fail the same way until somebody changes something.
    Broken,
    /// This backend has nothing of the kind.
    Unsupported,
    /// What was asked for is not there.
    Missing,
}

/// Why a backend did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct BackendError {
    /// What can be done.
    pub kind: ErrorKind,
    /// What was being done, and to what.
    pub what: String,
    /// The cause.
    #[source]
    pub source: Option<std::io::Error>,
}

impl BackendError {
    /// A failure of the machine, while doing `what`.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self { kind: ErrorKind::Transient, what: what.into(), source: Some(source) }
    }

    /// A request that can never succeed as it is.
    pub fn broken(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Broken, what: what.into(), source: None }
    }

    /// Something that this backend cannot do at all.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, what: what.into(), source: None }
    }

    /// Something that is not there.
    pub fn missing(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Missing, what: what.into(), source: None }
    }

    /// The failure with its causes, as one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.what),
            None => self.what.clone(),
        }
    }
}

/// Bytes as they come, until their end or a failure.
pub type Bytestream = BoxStream<'static, std::io::Result<Bytes>>;

/// A file or a directory of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In which of its directories.
    pub root: Root,
    /// Below that, without `..`; empty for the directory itself.
    pub path: PathBuf,
}

/// What is found below a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Relative to the place that was asked about.
    pub path: PathBuf,
    /// In bytes; of a directory, 0.
    pub size: u64,
    /// Whether it is a directory.
    pub dir: bool,
}

/// A shell in an instance. Dropped, it ends.
pub struct Terminal {
    /// What the shell says.
    pub output: Bytestream,
    /// What is typed.
    pub input: mpsc::Sender<Bytes>,
    /// Columns and rows, whenever they change.
    pub size: mpsc::Sender<(u16, u16)>,
}

/// A workspace's data as it left or came: how much, and a digest over names, modes and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// SHA-256, in lower-case hexadecimal digits.
    pub digest: String,
    /// Files and directories.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// A backend's answer.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Something that runs instances.
pub trait Backend: Send + Sync {
    /// `process`, `fake`, …
    fn kind(&self) -> &'static str;

    /// How its instances are given what they prove themselves with.
    fn delivery(&self) -> Delivery {
        Delivery::File
    }

    /// Whether it claims to be able to. A claim is held against it: by the conformance kit.
    fn can(&self, what: Capability) -> bool {
        let _ = what;
        true
    }

    /// The handle that is on record for an instance, for a backend whose provider knows nothing else. Told before it
    /// is asked about that instance; cheap, and of no consequence otherwise.
    fn known(&self, key: Key, handle: &str) {
        let _ = (key, handle);
    }

    /// The machine that an instance is on, as its provider reports it, where no whole address is known. Known at the
    /// latest when the instance is confirmed.
    fn host(&self, key: Key) -> Option<String> {
        let _ = key;
        None
    }

    /// Whether it can be used at all, in a sentence.
    fn fingerprint(&self) -> Answer<'_, String>;

    /// Start it, or find it if it was started already.
    fn ensure(&self, spec: Spec) -> Answer<'_, Started>;

    /// The instance, if it was started already; for a start whose outcome is not known.
    fn find(&self, key: Key) -> Answer<'_, Option<Started>>;

    /// What it is doing.
    fn inspect(&self, key: Key) -> Answer<'_, Seen>;

    /// End it: politely, and after `grace` firmly. Already ended is success.
    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()>;

    /// Forget it, after it ended. Already forgotten is success. The workspace's data stays.
    fn destroy(&self, key: Key) -> Answer<'_, ()>;

    /// Take away a workspace's data. Nothing there is success.
    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()>;

    /// Every instance that carries our label and has not been destroyed.
    fn list_owned(&self) -> Answer<'_, Vec<Key>>;

    /// The end of a workspace's log.
    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes>;

    /// What the machine of a workspace printed while it started.
    fn console(&self, workspace: WorkspaceId) -> Answer<'_, String> {
        unsupported(self.kind(), workspace, "show the console")
    }

    /// Take up again what an earlier server started: watch what runs, and report what ended meanwhile.
    fn recover(&self) -> Answer<'_, ()>;

    /// Workspaces whose data it holds, whether or not an instance of them is there.
    fn list_data(&self) -> Answer<'_, Vec<WorkspaceId>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// A workspace's log from now on, until the caller has enough.
    fn follow(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        unsupported(self.kind(), workspace, "follow the log")
    }

    /// A workspace's data as one archive (tar). The stream ends in failure where the data cannot be read whole.
    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        unsupported(self.kind(), workspace, "export the data")
    }

    /// Put an archive in place of a workspace's data, if its digest is the `expected` one. Otherwise what was
    /// there stays.
    fn import(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        drop((archive, expected));
        unsupported(self.kind(), workspace, "import data")
    }

    /// Take an archive in that does not count yet: [`Self::amend`] brings it up to what it is then. Nothing that was
    /// there changes. Where this is unsupported everything is imported in the end.
    fn import_ahead(&self, workspace: WorkspaceId, archive: Bytestream) -> Answer<'_, Carried> {
        drop(archive);
        unsupported(self.kind(), workspace, "take in ahead of time the data")
    }

    /// Change what was taken in ahead, and put it in place of a workspace's data, if its digest is the `expected` one.
    /// Otherwise neither that nor what was there can be counted on, until an import. `changes` has every directory and
    /// whatever else differs; `gone` is what was taken in and is in the data no more.
    fn amend(
        &self,
        workspace: WorkspaceId,
        changes: Bytestream,
        gone: Vec<PathBuf>,
        expected: String,
    ) -> Answer<'_, Carried> {
        drop((changes, gone, expected));
        unsupported(self.kind(), workspace, "amend the data")
    }

    /// The digest over a workspace's data as it lies.
    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        unsupported(self.kind(), workspace, "digest the data")
    }

    /// What is below a place, `depth` levels deep. [`ErrorKind::Missing`] where there is nothing of the kind.
    fn list_files(&self, workspace: WorkspaceId, at: Place, depth: u8) -> Answer<'_, Vec<Found>> {
        drop((at, depth));
        unsupported(self.kind(), workspace, "list files")
    }

    /// A file's content. [`ErrorKind::Missing`] where there is none.
    fn read_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, Bytes> {
        drop(at);
        unsupported(self.kind(), workspace, "read a file")
    }

    /// Write a file, and the directories that it is in.
    fn write_file(&self, workspace: WorkspaceId, at: Place, content: Bytes) -> Answer<'_, ()> {
        drop((at, content));
        unsupported(self.kind(), workspace, "write a file")
    }

    /// Take away a file, or a directory with all that is in it. Nothing there is success.
    fn remove_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, ()> {
        drop(at);
        unsupported(self.kind(), workspace, "remove a file")
    }

    /// A shell in an instance that runs, of this many columns and rows.
    fn terminal(&self, key: Key, size: (u16, u16)) -> Answer<'_, Terminal> {
        let _ = size;
        unsupported(self.kind(), key.workspace, "open a terminal")
    }
}

fn unsupported<'a, T>(kind: &str, workspace: WorkspaceId, what: &str) -> Answer<'a, T> {
    let why = format!("the backend `{kind}` cannot {what} of workspace {workspace}");
    Box::pin(async move { Err(BackendError::unsupported(why)) })
}

/// An instance of which its backend has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push(pub Key);

/// Where backends push to. Nobody listening is fine.
#[derive(Clone)]
pub struct Pushes(mpsc::UnboundedSender<Push>);

impl Pushes {
    /// A channel for pushes.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Push>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Say that an instance ended.
    pub fn ended(&self, key: Key) {
        let _ = self.0.send(Push(key));
    }
}

/// The backends of this server, by name.
#[derive(Clone, Default)]
pub struct Backends(BTreeMap<String, Arc<dyn Backend>>);

impl Backends {
    /// With these.
    #[must_use]
    pub fn new(named: impl IntoIterator<Item = (String, Arc<dyn Backend>)>) -> Self {
        Self(named.into_iter().collect())
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Backend>> {
        self.0.get(name)
    }

    /// All of them, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Arc<dyn Backend>)> {
        self.0.iter().map(|(name, backend)| (name.as_str(), backend))
    }
}
