//! The Docker engine of the tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ligand_domain::id::WorkspaceId;
use ligand_server::backend::docker::{Docker, Network, Setup};
use ligand_server::backend::{Backend as _, Key, Push, Pushes};
use tokio::sync::mpsc::UnboundedReceiver;

/// An image with a shell and the usual programs.
pub(crate) const SHELL: &str = "ligand-shell:test";

/// A backend on the engine of the tests, which no other test disturbs.
pub(crate) struct Bench {
    pub(crate) backend: Docker,
    pub(crate) pushed: UnboundedReceiver<Push>,
    pub(crate) setup: Setup,
}

/// Where the engine is. Without one its tests are left out, unless everything is asked for.
#[expect(clippy::disallowed_methods, reason = "tests are told so what they may use")]
fn engine_socket() -> Option<PathBuf> {
    let host = std::env::var("LIGAND_TEST_DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let complete = std::env::var("LIGAND_TEST_COMPLETE").is_ok();
    assert!(
        host.is_some() || !complete,
        "LIGAND_TEST_DOCKER_HOST is not set, and nothing may be left out"
    );
    let host = host.filter(|host| host != "none")?;
    Some(PathBuf::from(host.trim_start_matches("unix://")))
}

/// A backend of an owner of its own; none where there is no engine.
pub(crate) fn docker_backend() -> Option<Bench> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let setup = Setup {
        socket: engine_socket()?,
        network: Network::Host,
        images: [("echo".to_owned(), "ligand-agent:latest".to_owned())].into(),
        image: Some(SHELL.to_owned()),
        owner: format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
    };
    let (backend, pushed) = open(&setup);
    Some(Bench { backend, pushed, setup })
}

/// A backend as a server makes it that starts.
pub(crate) fn open(setup: &Setup) -> (Docker, UnboundedReceiver<Push>) {
    let (pushes, pushed) = Pushes::channel();
    (Docker::new(setup.clone(), pushes), pushed)
}

impl Bench {
    /// The same owner, over another socket.
    pub(crate) fn over(&self, socket: &Path) -> (Docker, UnboundedReceiver<Push>) {
        open(&Setup { socket: socket.to_owned(), ..self.setup.clone() })
    }

    /// A socket's name that is nobody's.
    pub(crate) fn socket(&self) -> PathBuf {
        std::env::temp_dir().join(format!("ligand-{}.sock", self.setup.owner))
    }

    /// The engine itself, behind the backend's back.
    pub(crate) fn engine(&self) -> bollard::Docker {
        let path = self.setup.socket.to_string_lossy();
        bollard::Docker::connect_with_unix(&path, 60, bollard::API_DEFAULT_VERSION).unwrap()
    }

    /// `kill -9`.
    pub(crate) async fn kill(&self, key: Key) {
        let name = container(key);
        let options = None::<bollard::query_parameters::KillContainerOptions>;
        self.engine().kill_container(&name, options).await.unwrap();
    }

    /// Take everything away, and see that it is.
    pub(crate) async fn clear(&self) {
        clear(&self.setup).await;
    }
}

/// Take away everything of an owner, and see that it is: containers, those for a moment included, and volumes.
pub(crate) async fn clear(of: &Setup) {
    let (backend, _) = open(of);
    for key in backend.list_owned().await.unwrap() {
        backend.destroy(key).await.unwrap();
    }
    let filters = [("label".to_owned(), vec![format!("ligand.owner={}", of.owner)])];
    let options = bollard::query_parameters::ListContainersOptions {
        all: true,
        filters: Some(filters.into()),
        ..bollard::query_parameters::ListContainersOptions::default()
    };
    let path = of.socket.to_string_lossy();
    let engine =
        bollard::Docker::connect_with_unix(&path, 60, bollard::API_DEFAULT_VERSION).unwrap();
    assert_eq!(engine.list_containers(Some(options)).await.unwrap(), []);
    for workspace in backend.list_data().await.unwrap() {
        backend.erase(workspace).await.unwrap();
    }
    assert_eq!(backend.list_data().await.unwrap(), []);
}

/// Wait until no process of the machine is an instance of these workspaces, or was started by one.
pub(crate) async fn no_process_of(workspaces: &[WorkspaceId]) {
    let names: Vec<String> = workspaces.iter().map(|id| format!("WORKSPACE_ID={id}")).collect();
    let is_one = |environment: &[u8]| {
        let mut lines = environment.split(|byte| *byte == 0);
        lines.any(|line| names.iter().any(|name| name.as_bytes() == line))
    };
    for _ in 0..200 {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut environments =
            processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
        if !environments.any(|environment| is_one(&environment)) {
            return;
        }
        super::a_moment(20).await;
    }
    panic!("a process of an instance outlives its container");
}

/// The name of an instance's container.
fn container(key: Key) -> String {
    format!("ws-{}-{}", key.workspace, key.generation)
}

/// The next push, within ten seconds.
pub(crate) async fn next(pushed: &mut UnboundedReceiver<Push>) -> Key {
    let push = tokio::time::timeout(Duration::from_secs(10), pushed.recv());
    push.await.expect("a push within ten seconds").unwrap().0
}
