//! What a scenario works with, and what makes a backend one that scenarios can run on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::{Exit, Seen};
use ligand_server::backend::{
    Backend, BackendError, Bytestream, ErrorKind, Key, Place, Push, Pushes, Root, Spec, Started,
};
use tokio::sync::mpsc::UnboundedReceiver;

/// How long an instance may take to end politely.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often something that is waited for is looked at, and how many times.
const LOOK: (Duration, u32) = (Duration::from_millis(10), 1500);

/// A backend's answer ends the scenario where it is a failure: that it cannot do it is one.
pub(super) type Done<T = ()> = Result<T, BackendError>;

/// What an instance does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doing {
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
    pub(super) fn shell(self) -> Vec<String> {
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
        vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("cd \"$WORKSPACE_DIR\"; {script}")]
    }
}

/// Where instances live, however many servers come and go.
pub(super) trait Ground: Send + Sync {
    /// A backend on this ground, as a server makes it that starts.
    fn open(&self, pushes: Pushes) -> Arc<dyn Backend>;

    /// The backend of another owner on the same machine.
    fn stranger(&self) -> Arc<dyn Backend>;

    /// It was started: whoever does nothing by itself is made to do what it should.
    fn act(&self, key: Key, doing: Doing) -> BoxFuture<'_, ()> {
        let _ = (key, doing);
        std::future::ready(()).boxed()
    }

    /// Kill an instance, behind the back of its backend.
    fn kill(&self, key: Key);

    /// Read a file of a workspace without its backend.
    fn read(&self, workspace: WorkspaceId, at: &Place) -> Option<Bytes> {
        let _ = (workspace, at);
        None
    }

    /// The next call comes too soon after others.
    fn throttle(&self) {}

    /// What runs the instances does not answer the next call: it is being restarted.
    fn restart_engine(&self) {}

    /// The next start is carried out, and its answer is lost.
    fn lose_reply(&self) {}
}

/// A backend, and the ground it stands on.
pub(super) struct Bench {
    pub(super) ground: Box<dyn Ground>,
    pub(super) backend: Arc<dyn Backend>,
    pushed: UnboundedReceiver<Push>,
}

thread_local! {
    /// Which scenario this thread runs.
    static SCENARIO: Cell<u8> = const { Cell::new(0) };
}

/// A scenario begins: what it calls its first workspace is no other scenario's.
pub(super) fn begin() {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    SCENARIO.set(NEXT.fetch_add(1, Ordering::Relaxed));
}

/// Names on an engine are everybody's: the beginning of an id is a process's, a scenario's and a number's own.
pub(super) fn key(n: u8, generation: i64) -> Key {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let mut random = [n; 16];
    random[..5].copy_from_slice(&[0xc0 | high, middle, low, SCENARIO.get(), n]);
    Key { workspace: WorkspaceId::from_random(random), generation: Generation::new(generation) }
}

pub(super) fn at(root: Root, path: &str) -> Place {
    Place { root, path: PathBuf::from(path) }
}

impl Bench {
    pub(super) fn new(ground: Box<dyn Ground>) -> Self {
        let (pushes, pushed) = Pushes::channel();
        let backend = ground.open(pushes);
        Self { ground, backend, pushed }
    }

    /// The server is gone, and another one starts on the same ground.
    pub(super) async fn restart(&mut self) -> Done {
        let (pushes, pushed) = Pushes::channel();
        self.backend = self.ground.open(pushes);
        self.pushed = pushed;
        self.backend.recover().await
    }

    pub(super) fn spec(&self, key: Key, doing: Doing) -> Spec {
        let env = BTreeMap::from([("WORKSPACE_ID".to_owned(), key.workspace.to_string())]);
        let number = u8::try_from(key.generation.number()).unwrap();
        let credential = Token::from_entropy([number; 32]);
        Spec { env, ..Spec::bare(key, doing.shell(), credential) }
    }

    /// Start it, and see that it does what it should.
    pub(super) async fn start(&self, key: Key, doing: Doing) -> Done<Started> {
        self.start_as(self.spec(key, doing), doing).await
    }

    pub(super) async fn start_as(&self, spec: Spec, doing: Doing) -> Done<Started> {
        let key = spec.key;
        let started = self.backend.ensure(spec).await?;
        self.ground.act(key, doing).await;
        Ok(started)
    }

    pub(super) async fn seen(&self, key: Key) -> Done<Seen> {
        self.backend.inspect(key).await
    }

    /// Wait until it has ended.
    pub(super) async fn ended(&self, key: Key) -> Done<Exit> {
        until(async || match self.seen(key).await {
            Ok(Seen::Stopped(exit)) => Some(Ok(exit)),
            Ok(_) => None,
            Err(cause) => Some(Err(cause)),
        })
        .await
    }

    /// The next instance of which the backend has something to say.
    pub(super) async fn pushed(&mut self) -> Key {
        let push = tokio::time::timeout(Duration::from_secs(15), self.pushed.recv());
        push.await.expect("a push within its time").expect("an open channel").0
    }

    /// Wait for a file; whoever cannot read it is gone round.
    pub(super) async fn content(&self, key: Key, place: Place) -> Done<Bytes> {
        let workspace = key.workspace;
        until(async || match self.backend.read_file(workspace, place.clone()).await {
            Ok(content) => Some(Ok(content)),
            Err(cause) if cause.kind == ErrorKind::Missing => None,
            Err(cause) if cause.kind == ErrorKind::Unsupported => {
                self.ground.read(workspace, &place).map(Ok)
            }
            Err(cause) => Some(Err(cause)),
        })
        .await
    }

    /// The same, as text.
    pub(super) async fn text(&self, key: Key, root: Root, path: &str) -> Done<String> {
        let content = self.content(key, at(root, path)).await?;
        Ok(String::from_utf8(content.to_vec()).unwrap())
    }

    /// Write a file.
    pub(super) async fn write(
        &self,
        key: Key,
        root: Root,
        path: &str,
        content: &'static str,
    ) -> Done {
        let content = Bytes::from_static(content.as_bytes());
        self.backend.write_file(key.workspace, at(root, path), content).await
    }

    /// A file as it is now.
    pub(super) async fn read(&self, key: Key, root: Root, path: &str) -> Done<Bytes> {
        self.backend.read_file(key.workspace, at(root, path)).await
    }

    /// A workspace's data as one archive.
    pub(super) async fn archive(&self, key: Key) -> Done<Bytes> {
        let mut stream = self.backend.export(key.workspace).await?;
        let mut archive = Vec::new();
        while let Some(part) = stream.next().await {
            archive.extend_from_slice(&part.expect("an archive that can be read whole"));
        }
        Ok(Bytes::from(archive))
    }

    /// End everything.
    pub(super) async fn clear(&self) -> Done {
        for key in self.backend.list_owned().await? {
            self.backend.destroy(key).await?;
        }
        Ok(())
    }
}

/// An archive as it comes over a network: in pieces.
pub(super) fn pieces(archive: &Bytes) -> Bytestream {
    let pieces: Vec<_> =
        archive.chunks(700).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures_util::stream::iter(pieces).boxed()
}

/// What kind of failure it was.
pub(super) fn kind<T>(answer: Done<T>) -> Option<ErrorKind> {
    answer.err().map(|cause| cause.kind)
}

/// Where a method is not there, that is what the scenario came to; any other failure is what it expects.
pub(super) fn refused<T>(answer: Done<T>) -> Done<BackendError> {
    match answer {
        Ok(_) => panic!("it was done, and should not have been"),
        Err(cause) if cause.kind == ErrorKind::Unsupported => Err(cause),
        Err(cause) => Ok(cause),
    }
}

/// Look until there is something.
#[expect(clippy::disallowed_methods, reason = "real instances take real time")]
pub(super) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..LOOK.1 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(LOOK.0).await;
    }
    panic!("it did not happen in its time");
}
