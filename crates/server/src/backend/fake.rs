//! A backend that runs nothing and does what it is told, misbehaviour included.
//!
//! It ships: tests of HTTP and reconcilers run on it, the simulator uses it as its cloud, and `--backend
//! fake` is for trying out the API. Its instances "run" until somebody ends them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::{Exit, Seen};

use super::{Answer, Backend, BackendError, ErrorKind, Key, Limits, Mount, Pushes, Spec, Started};

/// What goes wrong next. Each is used up by the call that it spoils.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The instance is started, and the answer to it is lost.
    LoseReply,
    /// The start is refused with this text.
    Refuse(String),
    /// The next question about any instance is not answered.
    Silence,
    /// The next question whether an instance runs is answered this much later, in real time.
    Late(Duration),
}

/// One instance, as the test sees it.
#[derive(Debug, Clone)]
pub struct FakeInstance {
    /// Whose and which.
    pub key: Key,
    /// The credential that was delivered to it.
    pub credential: String,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The files that were put below its configuration directory.
    pub files: BTreeMap<String, Bytes>,
    /// What it may use.
    pub limits: Limits,
    /// The directory of the machine that it works in.
    pub mount: Option<Mount>,
    /// Whether sessions before it were taken away.
    pub fresh_session: bool,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// Where it answers.
    pub address: Option<String>,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<Key, FakeInstance>,
    faults: Vec<Fault>,
    starts: u64,
    address: Option<String>,
}

/// See the module.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    pushes: Pushes,
}

impl Fake {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(pushes: Pushes) -> Self {
        Self { state: Arc::default(), pushes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Misbehave at the next occasion.
    pub fn plan(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// The address that instances started from now on report.
    pub fn report_address(&self, address: Option<String>) {
        self.state().address = address;
    }

    /// Every instance that was not destroyed.
    #[must_use]
    pub fn instances(&self) -> Vec<FakeInstance> {
        self.state().instances.values().cloned().collect()
    }

    /// The newest instance of a workspace, ended or not.
    #[must_use]
    pub fn newest(&self, workspace: WorkspaceId) -> Option<FakeInstance> {
        let state = self.state();
        state.instances.values().rev().find(|i| i.key.workspace == workspace).cloned()
    }

    /// How many were ever started.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.state().starts
    }

    /// End an instance, as a crash would. The backend notices and pushes it.
    pub fn kill(&self, key: Key, signal: i32) {
        if let Some(instance) = self.state().instances.get_mut(&key)
            && instance.exit.is_none()
        {
            instance.exit = Some(Exit { code: None, signal: Some(signal), said: None });
            self.pushes.ended(key);
        }
    }

    /// Make the backend forget an instance, as a lost machine would. Nothing is pushed.
    pub fn lose(&self, key: Key) {
        self.state().instances.remove(&key);
    }
}

impl State {
    fn take(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.faults.iter().position(wanted)?;
        Some(self.faults.remove(at))
    }

    fn silent(&mut self) -> Result<(), BackendError> {
        match self.take(|fault| *fault == Fault::Silence) {
            Some(_) => Err(transient("the backend did not answer")),
            None => Ok(()),
        }
    }

    fn ensure(&mut self, spec: Spec) -> Result<Started, BackendError> {
        let refuses = |fault: &Fault| matches!(fault, Fault::Refuse(_));
        if let Some(Fault::Refuse(why)) = self.take(refuses) {
            return Err(BackendError::broken(why));
        }
        let key = spec.key;
        if !self.instances.contains_key(&key) {
            self.starts += 1;
            let address = self.address.clone();
            let credential = spec.credential.reveal().to_owned();
            let Spec { env, command, files, limits, mount, fresh_session, .. } = spec;
            let instance = FakeInstance {
                key,
                credential,
                env,
                command,
                files,
                limits,
                mount,
                fresh_session,
                exit: None,
                address,
            };
            self.instances.insert(key, instance);
        }
        if self.take(|fault| *fault == Fault::LoseReply).is_some() {
            return Err(transient("the answer of the backend was lost"));
        }
        Ok(started(&self.instances[&key]))
    }
}

fn transient(what: &str) -> BackendError {
    BackendError { kind: ErrorKind::Transient, what: what.to_owned(), source: None }
}

fn started(instance: &FakeInstance) -> Started {
    let handle = format!("fake/{}/{}", instance.key.workspace, instance.key.generation);
    Started { handle, address: instance.address.clone() }
}

impl Backend for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        Box::pin(async { Ok("runs nothing".to_owned()) })
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        Box::pin(async move { self.state().ensure(spec) })
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            let mut state = self.state();
            state.silent()?;
            Ok(state.instances.get(&key).map(started))
        })
    }

    #[expect(clippy::disallowed_methods, reason = "a backend has no clock of the server's")]
    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(async move {
            let late = self.state().take(|fault| matches!(fault, Fault::Late(_)));
            if let Some(Fault::Late(time)) = late {
                tokio::time::sleep(time).await;
            }
            let mut state = self.state();
            state.silent()?;
            Ok(match state.instances.get(&key) {
                None => Seen::Gone,
                Some(FakeInstance { exit: Some(exit), .. }) => Seen::Stopped(exit.clone()),
                Some(_) => Seen::Running,
            })
        })
    }

    fn stop(&self, key: Key, _: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Some(instance) = self.state().instances.get_mut(&key) {
                instance.exit.get_or_insert(Exit { code: Some(0), ..Exit::default() });
            }
            Ok(())
        })
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(async move {
            self.state().instances.remove(&key);
            Ok(())
        })
    }

    fn erase(&self, _: WorkspaceId) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(async { Ok(self.state().instances.keys().copied().collect()) })
    }

    fn logs(&self, _: WorkspaceId, _: usize) -> Answer<'_, Bytes> {
        Box::pin(async { Ok(Bytes::new()) })
    }

    fn recover(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
