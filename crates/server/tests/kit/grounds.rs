//! The grounds that there are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Exit;
use ligand_kit::{Doing, Done, Ground, Name};
use ligand_server::backend::docker::{Docker, Setup};
use ligand_server::backend::fake::{Call, Fake, Fault, Planned};
use ligand_server::backend::process::Process;
use ligand_server::backend::{Backend, Key, Place, Pushes, Root};

use crate::docker::socket::Socket;
use crate::support::docker::{self, docker_backend};

/// Processes below a directory of their own.
pub(super) struct OfProcess {
    name: Name,
    root: PathBuf,
    other: PathBuf,
}

impl OfProcess {
    pub(super) fn here() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |of: &str| scratch.join(format!("kit-{}-{number}-{of}", std::process::id()));
        Some(Self { name: Name::next(), root: name("own"), other: name("other") })
    }
}

impl Drop for OfProcess {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
        let _ = std::fs::remove_dir_all(&self.other);
    }
}

impl Ground for OfProcess {
    fn name(&self) -> Name {
        self.name
    }

    fn open(&self, pushes: Pushes) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Process::new(&self.root, pushes)))
    }

    fn stranger(&self) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Process::new(&self.other, Pushes::channel().0)))
    }

    fn kill<'a>(&'a self, _: &'a dyn Backend, key: Key) -> BoxFuture<'a, Done> {
        let record = self.root.join(format!("{}/run/{}.json", key.workspace, key.generation));
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        let pid = i32::try_from(record["identity"]["pid"].as_i64().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        Box::pin(async { Ok(()) })
    }
}

/// Nothing but what is told.
pub(super) struct OfFake(Name, Fake);

impl OfFake {
    pub(super) fn new() -> Self {
        Self(Name::next(), Fake::new(Pushes::channel().0))
    }

    pub(super) fn here() -> Option<Self> {
        Some(Self::new())
    }

    async fn told(&self, key: Key, doing: Doing) -> Done {
        let of = key.workspace;
        let write =
            |path: &str, content: Bytes| self.1.write_file(of, at(Root::Workspace, path), content);
        match doing {
            Doing::Waits | Doing::Stubborn => {}
            Doing::Exits(says, code) => {
                let said = Some(says.to_owned());
                self.1.end(key, Exit { code: Some(code), signal: None, said });
            }
            Doing::Logs(lines) => self.1.say(of, &format!("{lines}\n")),
            Doing::ShowsEnvironment => {
                let instance = self.1.newest(of).unwrap();
                let lines = instance.env.iter().map(|(name, value)| format!("{name}={value}\n"));
                write("environment", Bytes::from(lines.collect::<String>())).await?;
            }
            Doing::Copies(name) => {
                let content = self.1.read_file(of, at(Root::Configs, name)).await?;
                write("seen", content).await?;
            }
            Doing::Writes(text) => write("note", Bytes::from_static(text.as_bytes())).await?,
        }
        Ok(())
    }
}

impl Ground for OfFake {
    fn name(&self) -> Name {
        self.0
    }

    fn open(&self, pushes: Pushes) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(self.1.reopened(pushes)))
    }

    fn stranger(&self) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Fake::new(Pushes::channel().0)))
    }

    fn plays(&self) -> bool {
        true
    }

    fn act(&self, key: Key, doing: Doing) -> BoxFuture<'_, Done> {
        Box::pin(self.told(key, doing))
    }

    fn kill<'a>(&'a self, _: &'a dyn Backend, key: Key) -> BoxFuture<'a, Done> {
        self.1.kill(key, 9);
        Box::pin(async { Ok(()) })
    }

    fn throttle(&self) -> Done {
        self.1.plan(Planned::once(Fault::Throttle(Duration::from_secs(2))).at(&[Call::Inspect]));
        Ok(())
    }

    fn restart_engine(&self) -> Done {
        self.1.plan(Planned::once(Fault::Silence).at(&[Call::Inspect]));
        Ok(())
    }

    fn lose_reply(&self) {
        self.1.plan(Fault::LoseReply);
    }
}

impl OfFake {
    /// Misbehave.
    pub(super) fn spoil(&self, planned: Planned) {
        self.1.plan(planned);
    }
}

fn at(root: Root, path: &str) -> Place {
    Place { root, path: path.into() }
}

/// Containers of the tests' engine, which is reached through a socket that can misbehave.
pub(super) struct OfDocker {
    name: Name,
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
        Some(Self { name: Name::next(), bench, front, through })
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
        let workspaces: Vec<WorkspaceId> = (1..10).map(|n| self.name.workspace(n)).collect();
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
    fn name(&self) -> Name {
        self.name
    }

    fn open(&self, pushes: Pushes) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Docker::new(self.through.clone(), pushes)))
    }

    fn stranger(&self) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Docker::new(self.of_others(), Pushes::channel().0)))
    }

    fn kill<'a>(&'a self, _: &'a dyn Backend, key: Key) -> BoxFuture<'a, Done> {
        Box::pin(async move {
            self.bench.kill(key).await;
            Ok(())
        })
    }

    fn restart_engine(&self) -> Done {
        self.front.lose_the_answer_to("-1/json");
        Ok(())
    }
}
