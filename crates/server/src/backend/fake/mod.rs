//! A backend that runs nothing and does what it is told, misbehaviour included.
//!
//! It ships: tests of HTTP and reconcilers run on it, the simulator uses it as its cloud, and `--backend
//! fake` is for trying out the API. Its instances "run" until somebody ends them. What goes wrong is a list of
//! [`Planned`]; `[backends.NAME] plan = […]` gives one to a server. Files, data and logs are kept in memory.

mod data;
mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::{Exit, Seen};
use tokio::sync::mpsc;

use self::data::Tree;
use self::plan::Plan;
pub use self::plan::{Call, Fault, Planned};
use super::{
    Answer, Backend, BackendError, Bytestream, Capability, Carried, ErrorKind, Found, Key, Limits,
    Mount, Place, Pushes, Root, Spec, Started, Terminal,
};

/// One instance, as the test sees it.
#[derive(Debug, Clone)]
pub struct FakeInstance {
    /// Whose and which.
    pub key: Key,
    /// The credential that was delivered to it; empty where it brings a passport instead.
    pub credential: String,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its runtime's name.
    pub runtime: String,
    /// The files that were put below its configuration directory.
    pub files: BTreeMap<String, Bytes>,
    /// What it may use.
    pub limits: Limits,
    /// The directory of the machine that it works in.
    pub mount: Option<Mount>,
    /// Whether the sessions of earlier instances were to be taken away first.
    pub fresh_session: bool,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// Where it answers.
    pub address: Option<String>,
    /// How many of it there are: one, unless it was started twice.
    pub copies: u32,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<Key, FakeInstance>,
    trees: BTreeMap<WorkspaceId, Tree>,
    plan: Plan,
    starts: u64,
    address: Option<String>,
    /// Who hears of what ends: whoever opened it last.
    pushes: Option<Pushes>,
}

/// See the module.
#[derive(Clone)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(pushes: Pushes) -> Self {
        Self(Arc::new(Mutex::new(State { pushes: Some(pushes), ..State::default() })))
    }

    /// Another value for what runs here already, as a later server has it: that one hears of ends from now on.
    #[must_use]
    pub fn reopened(&self, pushes: Pushes) -> Self {
        self.state().pushes = Some(pushes);
        self.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Misbehave at the next occasion, or as planned.
    pub fn plan(&self, planned: impl Into<Planned>) {
        self.state().plan.add(planned.into());
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
        self.end(key, Exit { code: None, signal: Some(signal), said: None });
    }

    /// End an instance in this way. The backend notices and pushes it.
    pub fn end(&self, key: Key, exit: Exit) {
        let mut state = self.state();
        if let Some(instance) = state.instances.get_mut(&key)
            && instance.exit.is_none()
        {
            instance.exit = Some(exit);
            state.pushed(key);
        }
    }

    /// Make the backend forget an instance, as a lost machine would. Nothing is pushed.
    pub fn lose(&self, key: Key) {
        self.state().instances.remove(&key);
    }

    /// An instance of the workspace says something: it is added to its log.
    pub fn say(&self, workspace: WorkspaceId, text: &str) {
        self.state().trees.entry(workspace).or_default().say(text);
    }

    /// A call comes: what the plan has for it. Where nothing is done the answer is an error, here.
    #[expect(clippy::disallowed_methods, reason = "a backend has no clock of the server's")]
    async fn strike(&self, call: Call) -> Result<Option<Fault>, BackendError> {
        let fault = self.state().plan.strike(call);
        match fault {
            Some(Fault::Silence) => Err(transient("the backend did not answer")),
            Some(Fault::Refuse(why)) => Err(BackendError::broken(why)),
            Some(Fault::Throttle(wait)) => {
                let wait = wait.as_secs_f64();
                Err(transient(&format!("too many calls (429): ask again in {wait} s")))
            }
            Some(Fault::Late(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// A call that changes something: it is done, and then perhaps its answer is lost.
    async fn carry_out<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut State, Option<&Fault>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let fault = self.strike(call).await?;
        let done = act(&mut self.state(), fault.as_ref())?;
        match fault {
            Some(Fault::LoseReply) => Err(transient("the answer of the backend was lost")),
            _ => Ok(done),
        }
    }
}

impl State {
    fn pushed(&self, key: Key) {
        if let Some(pushes) = &self.pushes {
            pushes.ended(key);
        }
    }

    fn ensure(&mut self, spec: Spec, fault: Option<&Fault>) -> Started {
        let key = spec.key;
        let copies = if fault == Some(&Fault::Twice) { 2 } else { 1 };
        if !self.instances.contains_key(&key) {
            self.starts += u64::from(copies);
            let credential =
                spec.credential.as_ref().map_or_else(String::new, |it| it.reveal().to_owned());
            let tree = self.trees.entry(key.workspace).or_default();
            let at = |path: &str| Place { root: Root::Configs, path: path.into() };
            for (path, content) in &spec.files {
                tree.put(at(path), content.clone());
            }
            if spec.credential.is_some() {
                tree.put(at(".auth_token"), Bytes::from(credential.clone()));
            }
            let instance = FakeInstance {
                key,
                credential,
                env: spec.env,
                command: spec.command,
                runtime: spec.runtime,
                files: spec.files,
                limits: spec.limits,
                mount: spec.mount,
                fresh_session: spec.fresh_session,
                exit: None,
                address: self.address.clone(),
                copies,
            };
            self.instances.insert(key, instance);
        }
        started(&self.instances[&key])
    }

    fn see(&self, key: Key, fault: Option<&Fault>) -> Seen {
        match (fault, self.instances.get(&key)) {
            (Some(Fault::SayGone), _) => Seen::Gone,
            (Some(Fault::SayRunning), _) => Seen::Running,
            (_, None) => Seen::Gone,
            (_, Some(FakeInstance { exit: Some(exit), .. })) => Seen::Stopped(exit.clone()),
            (_, Some(_)) => Seen::Running,
        }
    }

    fn destroy(&mut self, key: Key, fault: Option<&Fault>) {
        match self.instances.get_mut(&key) {
            Some(_) if fault == Some(&Fault::Linger) => {}
            // The other one was never told to end.
            Some(instance) if instance.copies > 1 => {
                instance.copies -= 1;
                instance.exit = None;
            }
            _ => drop(self.instances.remove(&key)),
        }
    }

    fn data(&self, workspace: WorkspaceId) -> Result<&Tree, BackendError> {
        let missing =
            || BackendError::missing(format!("there is no data of workspace {workspace}"));
        self.trees.get(&workspace).ok_or_else(missing)
    }

    /// What a workspace has; a workspace of which nothing is here has nothing.
    fn tree(&self, workspace: WorkspaceId) -> Tree {
        self.trees.get(&workspace).cloned().unwrap_or_default()
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

    fn can(&self, what: Capability) -> bool {
        what != Capability::Programs
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        Box::pin(async {
            self.strike(Call::Fingerprint).await?;
            Ok("runs nothing".to_owned())
        })
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        Box::pin(self.carry_out(Call::Ensure, |state, fault| Ok(state.ensure(spec, fault))))
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            self.strike(Call::Find).await?;
            Ok(self.state().instances.get(&key).map(started))
        })
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(async move {
            let fault = self.strike(Call::Inspect).await?;
            Ok(self.state().see(key, fault.as_ref()))
        })
    }

    fn stop(&self, key: Key, _: Duration) -> Answer<'_, ()> {
        Box::pin(self.carry_out(Call::Stop, move |state, _| {
            if let Some(instance) = state.instances.get_mut(&key) {
                instance.exit.get_or_insert(Exit { code: Some(0), ..Exit::default() });
            }
            Ok(())
        }))
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(self.carry_out(Call::Destroy, move |state, fault| {
            state.destroy(key, fault);
            Ok(())
        }))
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        Box::pin(self.carry_out(Call::Erase, move |state, _| {
            state.trees.remove(&workspace);
            Ok(())
        }))
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(async {
            self.strike(Call::ListOwned).await?;
            Ok(self.state().instances.keys().copied().collect())
        })
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        Box::pin(async move {
            self.strike(Call::Logs).await?;
            Ok(self.state().tree(workspace).tail(lines))
        })
    }

    fn recover(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.strike(Call::Recover).await?;
            let state = self.state();
            let ended = state.instances.values().filter(|instance| instance.exit.is_some());
            ended.for_each(|instance| state.pushed(instance.key));
            Ok(())
        })
    }

    fn list_data(&self) -> Answer<'_, Vec<WorkspaceId>> {
        Box::pin(async {
            self.strike(Call::ListData).await?;
            Ok(self.state().trees.keys().copied().collect())
        })
    }

    fn follow(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(async move {
            self.strike(Call::Logs).await?;
            Ok(self.state().trees.entry(workspace).or_default().follow())
        })
    }

    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(async move {
            self.strike(Call::Export).await?;
            let archive = self.state().data(workspace)?.archive()?;
            Ok(futures_util::stream::iter([Ok(archive)]).boxed())
        })
    }

    fn import(
        &self,
        workspace: WorkspaceId,
        mut archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(part) = archive.next().await {
                let part = part.map_err(|cause| BackendError::io("read the archive", cause))?;
                bytes.extend_from_slice(&part);
            }
            let (came, carried) = Tree::of(&bytes)?;
            if let Some(expected) = expected.filter(|expected| *expected != carried.digest) {
                let found = &carried.digest;
                return Err(BackendError::broken(format!(
                    "the archive's digest is {found}, expected {expected}"
                )));
            }
            self.carry_out(Call::Import, |state, fault| {
                let lost = fault == Some(&Fault::LoseData);
                let tree = state.trees.entry(workspace).or_default();
                tree.become_data_of(if lost { Tree::default() } else { came });
                Ok(carried)
            })
            .await
        })
    }

    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        Box::pin(async move {
            self.strike(Call::Digest).await?;
            self.state().data(workspace)?.carried()
        })
    }

    fn list_files(&self, workspace: WorkspaceId, at: Place, depth: u8) -> Answer<'_, Vec<Found>> {
        Box::pin(async move {
            self.strike(Call::Files).await?;
            self.state().tree(workspace).list(&at, depth)
        })
    }

    fn read_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, Bytes> {
        Box::pin(async move {
            self.strike(Call::Files).await?;
            self.state().tree(workspace).read(&at)
        })
    }

    fn write_file(&self, workspace: WorkspaceId, at: Place, content: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            self.strike(Call::Files).await?;
            self.state().trees.entry(workspace).or_default().put(at, content);
            Ok(())
        })
    }

    fn remove_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, ()> {
        Box::pin(async move {
            self.strike(Call::Files).await?;
            if let Some(tree) = self.state().trees.get_mut(&workspace) {
                tree.remove(&at);
            }
            Ok(())
        })
    }

    /// What is typed comes back.
    fn terminal(&self, key: Key, _: (u16, u16)) -> Answer<'_, Terminal> {
        Box::pin(async move {
            self.strike(Call::Terminal).await?;
            if self.state().see(key, None) != Seen::Running {
                return Err(BackendError::missing("no such instance runs"));
            }
            let (input, typed) = mpsc::channel(16);
            let (size, sizes) = mpsc::channel(16);
            let echo = |(mut typed, sizes): (mpsc::Receiver<Bytes>, mpsc::Receiver<(u16, u16)>)| async move {
                typed.recv().await.map(|said| (Ok(said), (typed, sizes)))
            };
            let output = futures_util::stream::unfold((typed, sizes), echo).boxed();
            Ok(Terminal { output, input, size })
        })
    }
}
