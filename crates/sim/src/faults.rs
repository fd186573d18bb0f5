//! What goes wrong between the reconciler and its backend.
//!
//! [`Gates`] stands in front of the fake backend. Each call passes a gate before it takes effect and one
//! after. At one gate of a pass, chosen in advance, the pass can be parked or the call made to fail. No
//! transaction is open at a gate, so the world can go on meanwhile.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use ligand_server::app::App;
use ligand_server::backend::fake::Fake;
use ligand_server::backend::{
    Answer, Backend, BackendError, Bytestream, Carried, ErrorKind, Key, Spec, Started,
};
use ligand_server::reconcile::{Pass, Reconciler};
use tokio::sync::oneshot;

use crate::calls::Crashed;
use crate::door;

/// What happens at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The pass stands still here until it is resumed.
    Park,
    /// The call fails, as if the network did.
    Fail,
}

/// A pass that stands at a gate.
struct Standing {
    key: Key,
    at: String,
    go_on: oneshot::Sender<()>,
}

#[derive(Default)]
struct Plan {
    /// Gates that are passed before the trouble.
    left: u32,
    trouble: Option<Trouble>,
    standing: Option<Standing>,
    /// Whose instances were asked about.
    touched: BTreeSet<WorkspaceId>,
}

/// A backend with gates.
#[derive(Clone)]
pub struct Gates {
    inner: Fake,
    plan: Arc<Mutex<Plan>>,
}

impl Gates {
    /// In front of this one.
    #[must_use]
    pub fn new(inner: Fake) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// In front of another one, with the same trouble ahead.
    #[must_use]
    pub fn beside(&self, inner: Fake) -> Self {
        Self { inner, plan: Arc::clone(&self.plan) }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the gate after so many others, once.
    pub fn trouble(&self, left: u32, trouble: Trouble) {
        let mut plan = self.plan();
        (plan.left, plan.trouble) = (left, Some(trouble));
    }

    /// Nothing goes wrong from now on.
    pub fn clear(&self) {
        self.plan().trouble = None;
    }

    /// Whose instances were asked about since this was last called.
    #[must_use]
    pub fn touched(&self) -> BTreeSet<WorkspaceId> {
        std::mem::take(&mut self.plan().touched)
    }

    async fn gate(&self, call: &str, when: &str, key: Key) -> Result<(), BackendError> {
        let waits = {
            let mut plan = self.plan();
            plan.touched.insert(key.workspace);
            let Some(trouble) = plan.trouble else { return Ok(()) };
            if plan.left > 0 {
                plan.left -= 1;
                return Ok(());
            }
            plan.trouble = None;
            if trouble == Trouble::Fail {
                let what = format!("the backend failed {when} {call}");
                return Err(BackendError { kind: ErrorKind::Transient, what, source: None });
            }
            let (go_on, waits) = oneshot::channel();
            let at = format!("{when} {call} of generation {}", key.generation);
            plan.standing = Some(Standing { key, at, go_on });
            waits
        };
        // An error is a world that ends with a pass still standing.
        let _ = waits.await;
        Ok(())
    }

    async fn call<T>(
        &self,
        name: &'static str,
        key: Key,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.gate(name, "before", key).await?;
        let answer = call.await?;
        self.gate(name, "after", key).await?;
        Ok(answer)
    }
}

impl Backend for Gates {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        self.inner.fingerprint()
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        let key = spec.key;
        Box::pin(async move {
            let started = self.call("ensure", key, self.inner.ensure(spec)).await?;
            Ok(addressed(key, started))
        })
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            let found = self.call("find", key, self.inner.find(key)).await?;
            Ok(found.map(|started| addressed(key, started)))
        })
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(self.call("inspect", key, self.inner.inspect(key)))
    }

    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()> {
        Box::pin(self.call("stop", key, self.inner.stop(key, grace)))
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(self.call("destroy", key, self.inner.destroy(key)))
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        self.inner.erase(workspace)
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        self.inner.list_owned()
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        self.inner.logs(workspace, lines)
    }

    fn recover(&self) -> Answer<'_, ()> {
        self.inner.recover()
    }

    fn list_data(&self) -> Answer<'_, Vec<WorkspaceId>> {
        self.inner.list_data()
    }

    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(self.call("export", of(workspace), self.inner.export(workspace)))
    }

    fn import(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        let import = self.inner.import(workspace, archive, expected);
        Box::pin(self.call("import", of(workspace), import))
    }

    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        self.inner.digest(workspace)
    }
}

/// Data belong to no instance.
fn of(workspace: WorkspaceId) -> Key {
    Key { workspace, generation: Generation::NONE }
}

/// Every instance answers by a name of its own.
fn addressed(key: Key, started: Started) -> Started {
    Started { address: Some(door::address(key)), ..started }
}

/// A pass of the reconciler that is not over.
pub struct Running {
    future: Pin<Box<dyn Future<Output = anyhow::Result<Pass>>>>,
    go_on: Option<oneshot::Sender<()>>,
    /// Where it stands.
    pub at: String,
    /// About which instance.
    pub key: Option<Key>,
    /// Whose it is.
    pub replica: usize,
}

/// What driving a pass came to.
pub enum Driven {
    /// It is over.
    Over(anyhow::Result<Pass>),
    /// It stands at a gate.
    Parked(Running),
    /// It ended with its server.
    Crashed,
}

/// Where driving a pass stopped.
enum Stopped {
    Over(anyhow::Result<Pass>),
    At(Standing),
    Crashed,
}

impl Running {
    /// Begin one of this reconciler.
    #[must_use]
    pub fn begin(app: App, replica: usize, reconciler: Arc<dyn Reconciler>) -> Self {
        let future = Box::pin(async move { reconciler.pass(&app).await });
        Self { future, go_on: None, at: String::new(), key: None, replica }
    }

    /// Let it go on until it is over or stands at a gate.
    pub async fn drive(mut self, gates: &Gates) -> Driven {
        if let Some(go_on) = self.go_on.take() {
            let _ = go_on.send(());
        }
        let stopped = std::future::poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context))) {
                Ok(Poll::Ready(over)) => return Poll::Ready(Stopped::Over(over)),
                Ok(Poll::Pending) => {}
                Err(why) if why.is::<Crashed>() => return Poll::Ready(Stopped::Crashed),
                Err(why) => resume_unwind(why),
            }
            match gates.plan().standing.take() {
                Some(standing) => Poll::Ready(Stopped::At(standing)),
                None => Poll::Pending,
            }
        });
        match stopped.await {
            Stopped::Over(over) => Driven::Over(over),
            Stopped::Crashed => Driven::Crashed,
            Stopped::At(Standing { key, at, go_on }) => {
                Driven::Parked(Self { at, key: Some(key), go_on: Some(go_on), ..self })
            }
        }
    }
}
