//! The grounds that there are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Exit;
use ligand_server::backend::docker::{Docker, Setup};
use ligand_server::backend::fake::{Call, Fake, Fault, Planned};
use ligand_server::backend::process::Process;
use ligand_server::backend::{Backend, Key, Place, Pushes, Root};

use super::bench::{Doing, Ground, at, key};
use crate::docker::socket::Socket;
use crate::support::docker::{self, docker_backend};

/// Processes below a directory of their own.
pub(super) struct OfProcess {
    root: PathBuf,
    other: PathBuf,
}

impl OfProcess {
    pub(super) fn here() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |of: &str| scratch.join(format!("kit-{}-{number}-{of}", std::process::id()));
        Some(Self { root: name("own"), other: name("other") })
    }
}

impl Drop for OfProcess {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
        let _ = std::fs::remove_dir_all(&self.other);
    }
}

impl Ground for OfProcess {
    fn open(&self, pushes: Pushes) -> Arc<dyn Backend> {
        Arc::new(Process::new(&self.root, pushes))
    }

    fn stranger(&self) -> Arc<dyn Backend> {
        Arc::new(Process::new(&self.other, Pushes::channel().0))
    }

    fn kill(&self, key: Key) {
        let record = self.root.join(format!("{}/run/{}.json", key.workspace, key.generation));
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        let pid = i32::try_from(record["identity"]["pid"].as_i64().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn read(&self, workspace: WorkspaceId, at: &Place) -> Option<Bytes> {
        let folder = match at.root {
            Root::Configs => "configs",
            Root::Workspace => "workspace",
            Root::Home => "home",
            Root::Plugins => "plugins",
        };
        let path = self.root.join(workspace.to_string()).join(folder).join(&at.path);
        std::fs::read(path).ok().map(Bytes::from)
    }
}

/// Nothing but what is told.
pub(super) struct OfFake(Fake);

impl OfFake {
    pub(super) fn new() -> Self {
        Self(Fake::new(Pushes::channel().0))
    }

    pub(super) fn here() -> Option<Self> {
        Some(Self::new())
    }

    async fn told(&self, key: Key, doing: Doing) {
        let of = key.workspace;
        let write =
            |path: &str, content: Bytes| self.0.write_file(of, at(Root::Workspace, path), content);
        match doing {
            Doing::Waits | Doing::Stubborn => {}
            Doing::Exits(says, code) => {
                let said = Some(says.to_owned());
                self.0.end(key, Exit { code: Some(code), signal: None, said });
            }
            Doing::Logs(lines) => self.0.say(of, &format!("{lines}\n")),
            Doing::ShowsEnvironment => {
                let instance = self.0.newest(of).unwrap();
                let lines = instance.env.iter().map(|(name, value)| format!("{name}={value}\n"));
                write("environment", Bytes::from(lines.collect::<String>())).await.unwrap();
            }
            Doing::Copies(name) => {
                let content = self.0.read_file(of, at(Root::Configs, name)).await.unwrap();
                write("seen", content).await.unwrap();
            }
            Doing::Writes(text) => {
                write("note", Bytes::from_static(text.as_bytes())).await.unwrap()
            }
        }
    }
}

impl Ground for OfFake {
    fn open(&self, pushes: Pushes) -> Arc<dyn Backend> {
        Arc::new(self.0.reopened(pushes))
    }

    fn stranger(&self) -> Arc<dyn Backend> {
        Arc::new(Fake::new(Pushes::channel().0))
    }

    fn act(&self, key: Key, doing: Doing) -> BoxFuture<'_, ()> {
        self.told(key, doing).boxed()
    }

    fn kill(&self, key: Key) {
        self.0.kill(key, 9);
    }

    fn throttle(&self) {
        self.0.plan(Planned::once(Fault::Throttle(Duration::from_secs(2))).at(&[Call::Inspect]));
    }

    fn restart_engine(&self) {
        self.0.plan(Planned::once(Fault::Silence).at(&[Call::Inspect]));
    }

    fn lose_reply(&self) {
        self.0.plan(Fault::LoseReply);
    }
}

impl OfFake {
    /// Misbehave.
    pub(super) fn spoil(&self, planned: Planned) {
        self.0.plan(planned);
    }
}

/// Containers of the tests' engine, which is reached through a socket that can misbehave.
pub(super) struct OfDocker {
    bench: docker::Bench,
    front: Socket,
    through: Setup,
}

impl OfDocker {
    /// None where there is no engine.
    pub(super) fn here() -> Option<Self> {
        let bench = docker_backend()?;
        let front = Socket::new(&bench.socket(), &bench.setup.socket);
        let shell = (String::new(), docker::SHELL.to_owned());
        let through = Setup {
            socket: front.path().to_owned(),
            images: [shell].into(),
            ..bench.setup.clone()
        };
        Some(Self { bench, front, through })
    }

    fn of_others(&self) -> Setup {
        Setup { owner: format!("{}-other", self.through.owner), ..self.through.clone() }
    }
}

/// Wait for it wherever this is called.
fn apart<T: Send>(body: impl Future<Output = T> + Send) -> std::thread::Result<T> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(body)
        });
        waiting.join()
    })
}

impl Drop for OfDocker {
    fn drop(&mut self) {
        let workspaces: Vec<WorkspaceId> = (1..10).map(|n| key(n, 1).workspace).collect();
        let cleared = apart(async {
            docker::clear(&self.of_others()).await;
            self.bench.clear().await;
            docker::no_process_of(&workspaces).await;
        });
        // What a scenario failed of is told first.
        assert!(cleared.is_ok() || std::thread::panicking(), "it leaves something behind");
    }
}

impl Ground for OfDocker {
    fn open(&self, pushes: Pushes) -> Arc<dyn Backend> {
        Arc::new(Docker::new(self.through.clone(), pushes))
    }

    fn stranger(&self) -> Arc<dyn Backend> {
        Arc::new(Docker::new(self.of_others(), Pushes::channel().0))
    }

    fn kill(&self, key: Key) {
        apart(self.bench.kill(key)).unwrap();
    }

    fn restart_engine(&self) {
        self.front.lose_the_answer_to("-1/json");
    }
}
