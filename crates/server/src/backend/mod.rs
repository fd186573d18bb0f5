//! What runs instances, behind one interface.
//!
//! A backend knows neither the database nor HTTP. It is asked by a [`Key`], and every call may be made
//! twice. Not being able to say is an answer: an error from [`Backend::inspect`] is never taken for "gone".
//! What the backend itself notices (an exit) it pushes through [`Pushes`]; that makes a replacement quick,
//! never correct.

pub mod fake;
pub mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ligand_domain::credential::Token;
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
    /// Its credential, delivered before it starts.
    pub credential: Token,
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

    /// The failure with its causes, as one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.what),
            None => self.what.clone(),
        }
    }
}

/// A backend's answer.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Something that runs instances.
pub trait Backend: Send + Sync {
    /// `process`, `fake`, …
    fn kind(&self) -> &'static str;

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

    /// Take up again what an earlier server started: watch what runs, and report what ended meanwhile.
    fn recover(&self) -> Answer<'_, ()>;
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
