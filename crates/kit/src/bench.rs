//! What a scenario works with, and what makes a backend one that scenarios can run on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::{Exit, Seen};
use ligand_server::backend::{
    Backend, BackendError, Bytestream, Capability, Carried, Delivery, ErrorKind, Found, Key, Place,
    Push, Pushes, Root, Spec, Started,
};
use tokio::sync::mpsc::UnboundedReceiver;

pub use crate::flaw::{Done, Flaw};

/// How long an instance may take to end politely.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It runs until it is asked to end.
    Waits,
    /// It runs, and only being killed ends it.
    Stubborn,
    /// It says this, and ends with this code.
    Exits(&'static str, i32),
    /// It puts this into its log, a line each, and waits.
    Logs(&'static str),
    /// It writes its environment to `/workspace/environment`, and waits.
    ShowsEnvironment,
    /// It copies this file of `/configs` to `/workspace/seen`, and waits.
    Copies(&'static str),
    /// It writes this to `/workspace/note`, and waits.
    Writes(&'static str),
}

const WAITS: &str = "trap 'exit 0' TERM INT; while :; do sleep 5 & wait $!; done";

impl Doing {
    /// As a program that any machine with a shell can run.
    #[must_use]
    pub fn shell(self) -> Vec<String> {
        let safely = |write: &str, path: &str| {
            format!("{write} > {path}.new; mv {path}.new {path}; {WAITS}")
        };
        let script = match self {
            Self::Waits => WAITS.to_owned(),
            Self::Stubborn => "trap '' TERM; echo > ready; while :; do sleep 0.1; done".to_owned(),
            Self::Exits(says, code) => format!("echo '{says}' >&2; exit {code}"),
            Self::Logs(lines) => format!(
                "say() {{ printf '%s\\n' '{lines}'; }}; say; \
                 [ -z \"$LIGAND_LOG_DIR\" ] || say >> \"$LIGAND_LOG_DIR/agent.log\"; {WAITS}"
            ),
            Self::ShowsEnvironment => safely("env", "environment"),
            Self::Copies(name) => safely(&format!("cat \"$CONFIGS_DIR/{name}\""), "seen"),
            Self::Writes(text) => safely(&format!("printf %s '{text}'"), "note"),
        };
        Self::script(&script)
    }

    /// A script in the workspace's directory.
    pub(crate) fn script(script: &str) -> Vec<String> {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("cd \"$WORKSPACE_DIR\"; {script}")]
    }
}

/// What the workspaces of one scenario are called: as nobody else's are.
#[derive(Debug, Clone, Copy)]
pub struct Name([u8; 5]);

impl Name {
    /// This process's next one.
    #[must_use]
    pub fn next() -> Self {
        Self::of(u64::from(std::process::id()))
    }

    /// The next one of whoever draws such a number at random.
    #[must_use]
    pub fn of(owner: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [.., high, middle, low] = owner.to_be_bytes();
        let [.., above, below] = (number << 4).to_be_bytes();
        Self([0xc0 | high, middle, low, above, below])
    }

    /// The scenario's nth workspace, from 0 to 15. Names on an engine are cut short: this is in the beginning.
    #[must_use]
    pub fn workspace(self, n: u8) -> WorkspaceId {
        let mut random = [n; 16];
        random[..5].copy_from_slice(&self.0);
        random[4] |= n & 15;
        WorkspaceId::from_random(random)
    }

    /// Whether it is one of the scenario's.
    #[must_use]
    pub fn has(self, workspace: WorkspaceId) -> bool {
        (0..16).any(|n| self.workspace(n) == workspace)
    }
}

/// Where instances live, however many servers come and go. What is not said of it cannot be seen there.
pub trait Ground: Send + Sync {
    /// What the scenario's workspaces are called.
    fn name(&self) -> Name;

    /// A backend on this ground, as a server makes it that starts.
    ///
    /// # Errors
    /// Where none can be had.
    fn open(&self, pushes: Pushes) -> Done<Arc<dyn Backend>>;

    /// The backend of another owner on the same machine.
    ///
    /// # Errors
    /// Where there is none.
    fn stranger(&self) -> Done<Arc<dyn Backend>> {
        Err(Flaw::local("there is one owner"))
    }

    /// Whether others have instances there too.
    fn shared(&self) -> bool {
        false
    }

    /// How long a scenario may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// What makes an instance do it.
    fn program(&self, doing: Doing) -> Vec<String> {
        doing.shell()
    }

    /// Whether [`Self::act`] does what programs cannot.
    fn plays(&self) -> bool {
        false
    }

    /// It was started: whoever does nothing by itself is made to do what it should.
    fn act(&self, key: Key, doing: Doing) -> BoxFuture<'_, Done> {
        let _ = (key, doing);
        Box::pin(async { Ok(()) })
    }

    /// Kill an instance, behind the back of its backend.
    fn kill<'a>(&'a self, backend: &'a dyn Backend, key: Key) -> BoxFuture<'a, Done> {
        let _ = (backend, key);
        Box::pin(async { Err(Flaw::local("an instance is killed")) })
    }

    /// The next call comes too soon after others.
    ///
    /// # Errors
    /// Where that cannot be brought about.
    fn throttle(&self) -> Done {
        Err(Flaw::local("calls are counted"))
    }

    /// What runs the instances does not answer the next call: it is being restarted.
    ///
    /// # Errors
    /// Where that cannot be brought about.
    fn restart_engine(&self) -> Done {
        Err(Flaw::local("the engine is restarted"))
    }

    /// The next start is carried out, and its answer is lost, where that can be brought about.
    fn lose_reply(&self) {}

    /// What somebody without a token is answered, and what is answered where there is nothing.
    fn door(&self) -> BoxFuture<'_, Done<(u16, u16)>> {
        Box::pin(async { Err(Flaw::local("it is called through no door")) })
    }
}

/// A backend, and the ground it stands on.
pub struct Bench {
    pub(crate) ground: Box<dyn Ground>,
    pub(crate) backend: Arc<dyn Backend>,
    name: Name,
    pushed: UnboundedReceiver<Push>,
}

pub(crate) fn at(root: Root, path: &str) -> Place {
    Place { root, path: PathBuf::from(path) }
}

impl Bench {
    /// # Errors
    /// Where the ground has no backend, or that cannot be used.
    pub(crate) async fn new(ground: Box<dyn Ground>) -> Done<Self> {
        let (pushes, pushed) = Pushes::channel();
        let backend = ground.open(pushes)?;
        // It may know what it can do only once it was asked.
        backend.fingerprint().await?;
        Ok(Self { name: ground.name(), ground, backend, pushed })
    }

    /// The scenario's nth workspace, and one of its generations.
    pub(crate) fn key(&self, n: u8, generation: i64) -> Key {
        Key { workspace: self.name.workspace(n), generation: Generation::new(generation) }
    }

    /// What comes next takes this.
    pub(crate) fn needs(&self, what: Capability) -> Done {
        if self.backend.can(what) { Ok(()) } else { Err(Flaw::unclaimed(what)) }
    }

    /// The server is gone, and another one starts on the same ground.
    pub(crate) async fn restart(&mut self) -> Done {
        let (pushes, pushed) = Pushes::channel();
        self.backend = self.ground.open(pushes)?;
        self.pushed = pushed;
        Ok(self.backend.recover().await?)
    }

    pub(crate) fn spec(&self, key: Key, doing: Doing) -> Spec {
        let mut env = BTreeMap::from([("WORKSPACE_ID".to_owned(), key.workspace.to_string())]);
        let number = key.generation.number().to_le_bytes()[0];
        let credential = Token::from_entropy([number; 32]);
        let mut spec = Spec::bare(key, self.ground.program(doing), credential);
        if self.backend.delivery() == Delivery::StartData {
            let passport = spec.credential.take().map(|it| it.reveal().to_owned());
            env.extend(passport.map(|it| ("LIGAND_PASSPORT".to_owned(), it)));
        }
        Spec { env, ..spec }
    }

    /// What will stand in the file of its credential.
    pub(crate) fn credential(spec: &Spec) -> Done<String> {
        let credential = spec.credential.as_ref().map(|it| it.reveal().to_owned());
        credential.ok_or_else(|| Flaw::Lacks("it delivers start-up data alone".to_owned()))
    }

    /// Start it, and see that it does what it should.
    pub(crate) async fn start(&self, key: Key, doing: Doing) -> Done<Started> {
        self.start_as(self.spec(key, doing), doing).await
    }

    pub(crate) async fn start_as(&self, spec: Spec, doing: Doing) -> Done<Started> {
        if doing != Doing::Waits && !self.ground.plays() {
            self.needs(Capability::Programs)?;
        }
        let key = spec.key;
        let started = self.backend.ensure(spec).await?;
        self.ground.act(key, doing).await?;
        Ok(started)
    }

    pub(crate) async fn kill(&self, key: Key) -> Done {
        self.ground.kill(&*self.backend, key).await
    }

    pub(crate) async fn seen(&self, key: Key) -> Done<Seen> {
        Ok(self.backend.inspect(key).await?)
    }

    /// Every instance, of this scenario where there are others.
    pub(crate) async fn owned(&self) -> Done<Vec<Key>> {
        let mut owned = self.backend.list_owned().await?;
        owned.retain(|key| self.is_ours(key.workspace));
        Ok(owned)
    }

    /// Every workspace that has data, the same.
    pub(crate) async fn data(&self) -> Done<Vec<WorkspaceId>> {
        let mut data = self.backend.list_data().await?;
        data.retain(|workspace| self.is_ours(*workspace));
        Ok(data)
    }

    fn is_ours(&self, workspace: WorkspaceId) -> bool {
        !self.ground.shared() || self.name.has(workspace)
    }

    /// Wait until it has ended.
    pub(crate) async fn ended(&self, key: Key) -> Done<Exit> {
        until("it ends", async || match self.seen(key).await {
            Ok(Seen::Stopped(exit)) => Some(Ok(exit)),
            Ok(_) => None,
            Err(cause) => Some(Err(cause)),
        })
        .await
    }

    /// The next instance of which the backend has something to say.
    pub(crate) async fn pushed(&mut self) -> Done<Key> {
        self.needs(Capability::Events)?;
        match tokio::time::timeout(Duration::from_secs(15), self.pushed.recv()).await {
            Ok(Some(push)) => Ok(push.0),
            _ => Err(Flaw::broken("no end was pushed within 15 s")),
        }
    }

    /// Wait for a file.
    pub(crate) async fn content(&self, key: Key, place: Place) -> Done<Bytes> {
        self.needs(Capability::Files)?;
        let name = format!("{}/{} is written", place.root.as_str(), place.path.display());
        until(&name, async || match self.backend.read_file(key.workspace, place.clone()).await {
            Ok(content) => Some(Ok(content)),
            Err(cause) if cause.kind == ErrorKind::Missing => None,
            Err(cause) => Some(Err(cause.into())),
        })
        .await
    }

    /// The same, as text.
    pub(crate) async fn text(&self, key: Key, root: Root, path: &str) -> Done<String> {
        let content = self.content(key, at(root, path)).await?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Write a file.
    pub(crate) async fn write(
        &self,
        key: Key,
        root: Root,
        path: &str,
        content: impl Into<Bytes>,
    ) -> Done {
        self.needs(Capability::Files)?;
        Ok(self.backend.write_file(key.workspace, at(root, path), content.into()).await?)
    }

    /// A file as it is now.
    pub(crate) async fn read(&self, key: Key, root: Root, path: &str) -> Done<Bytes> {
        self.needs(Capability::Files)?;
        Ok(self.backend.read_file(key.workspace, at(root, path)).await?)
    }

    /// What is below a place.
    pub(crate) async fn list(&self, key: Key, at: Place, depth: u8) -> Done<Vec<Found>> {
        self.needs(Capability::Files)?;
        Ok(self.backend.list_files(key.workspace, at, depth).await?)
    }

    /// Take a file away, or a directory.
    pub(crate) async fn remove(&self, key: Key, root: Root, path: &str) -> Done {
        self.needs(Capability::Files)?;
        Ok(self.backend.remove_file(key.workspace, at(root, path)).await?)
    }

    /// A workspace's data as one archive.
    pub(crate) async fn archive(&self, key: Key) -> Done<Bytes> {
        self.needs(Capability::Data)?;
        let mut stream = self.backend.export(key.workspace).await?;
        let mut archive = Vec::new();
        while let Some(part) = stream.next().await {
            let broken = |cause| Flaw::broken(format!("an archive cannot be read whole: {cause}"));
            archive.extend_from_slice(&part.map_err(broken)?);
        }
        Ok(Bytes::from(archive))
    }

    /// Put an archive in place of a workspace's data.
    pub(crate) async fn import(
        &self,
        key: Key,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Done<Carried> {
        self.needs(Capability::Data)?;
        Ok(self.backend.import(key.workspace, archive, expected).await?)
    }

    /// What a workspace's data amounts to.
    pub(crate) async fn digest(&self, key: Key) -> Done<Carried> {
        self.needs(Capability::Data)?;
        Ok(self.backend.digest(key.workspace).await?)
    }

    /// End everything, and see that nothing is left.
    pub(crate) async fn clear(&self) -> Done {
        for key in self.owned().await? {
            self.backend.destroy(key).await?;
        }
        for workspace in self.data().await? {
            self.backend.erase(workspace).await?;
        }
        let (instances, data) = (self.owned().await?, self.data().await?);
        holds!(instances.is_empty(), "everything was destroyed");
        holds!(data.is_empty(), "everything was erased");
        Ok(())
    }
}

/// An archive as it comes over a network: in pieces.
pub(crate) fn pieces(archive: &Bytes) -> Bytestream {
    let pieces: Vec<_> =
        archive.chunks(700).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures_util::stream::iter(pieces).boxed()
}

/// What kind of failure it was. Where it cannot do it at all, that is what the scenario came to.
pub(crate) fn kind<T>(answer: Result<T, impl Into<Flaw>>) -> Done<Option<ErrorKind>> {
    match answer.map_err(Into::into) {
        Ok(_) => Ok(None),
        Err(Flaw::Failed(cause)) if cause.kind != ErrorKind::Unsupported => Ok(Some(cause.kind)),
        Err(other) => Err(other),
    }
}

/// The failure that a scenario expects. Where a method is not there, that is what it came to.
pub(crate) fn refused<T>(answer: Result<T, impl Into<Flaw>>) -> Done<BackendError> {
    match answer.map_err(Into::into) {
        Ok(_) => Err(Flaw::broken("it was done, and should have been refused")),
        Err(Flaw::Failed(cause)) if cause.kind != ErrorKind::Unsupported => Ok(cause),
        Err(other) => Err(other),
    }
}

/// Look until there is something. Whoever runs the scenario ends it if it takes too long.
#[expect(clippy::disallowed_methods, reason = "real instances take real time")]
pub(crate) async fn until<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Option<Done<T>>,
) -> Done<T> {
    let (mut wait, mut left) = (LOOK, Duration::from_secs(30));
    while left > Duration::ZERO {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(wait).await;
        left = left.saturating_sub(wait);
        // Somebody far away is asked less often.
        wait = (wait * 21 / 20).min(Duration::from_millis(250));
    }
    Err(Flaw::broken(format!("it was awaited that {what}, for 30 s")))
}
