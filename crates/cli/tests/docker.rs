//! The built server with its instances in containers of a real engine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::Call;
use crate::migrate;
use crate::run::Home;
use crate::socket::Socket;
use crate::stack::{Stack, generation, now, pause, service, until};

/// The engine, and what is in it because of one test.
struct Engine {
    host: String,
    owner: String,
    home: Home,
}

impl Engine {
    /// A backend of this name, in a server's settings.
    fn backend(&self, name: &str) -> String {
        let (socket, owner) = (self.socket(), &self.owner);
        format!(
            "[backends.{name}]\nkind = \"docker\"\nnetwork = \"host\"\nsocket = {socket:?}\nowner = {owner:?}\n"
        )
    }

    /// What a workspace's instance has in its directory, as it is now.
    fn look(&self, id: &str, generation: i64) -> Home {
        let home = Home::new();
        let from = format!("ws-{id}-{generation}:/workspace");
        self.docker(&["cp", "-q", &from, &home.path().display().to_string()]);
        home
    }

    fn found() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let host = service("LIGAND_TEST_DOCKER_HOST").filter(|host| host != "none")?;
        let owner = format!("cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Self { host, owner, home: Home::new() })
    }

    fn socket(&self) -> &str {
        self.host.trim_start_matches("unix://")
    }

    /// A server whose workspaces are containers of this engine, reached over a socket.
    fn stack(&self, socket: &str) -> Stack {
        let settings = format!(
            "backend = \"box\"\nheartbeat_seconds = 1\n\
             [backends.box]\nkind = \"docker\"\nnetwork = \"host\"\nsocket = {socket:?}\nowner = {:?}\n\
             [backends.box.images]\nabsent = \"no/such/image:1\"\n\
             [runtimes.absent]\n",
            self.owner
        );
        let file = self.home.put("ligand.toml", &settings).display().to_string();
        Stack::start(&["serve", "platform", "--config", &file], &[])
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a person at the engine is somebody else's program"
    )]
    fn docker(&self, args: &[&str]) -> String {
        let mut command = Command::new("docker");
        let ran = command.env("DOCKER_HOST", &self.host).args(args).output().unwrap();
        assert!(ran.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    /// What of ours is there: `container`s or `volume`s.
    fn ours(&self, what: &str) -> Vec<String> {
        let filter = format!("label=ligand.owner={}", self.owner);
        let list = if what == "volume" { vec!["volume", "ls", "-q"] } else { vec!["ps", "-aq"] };
        let listed = self.docker(&[&list[..], &["--filter", &filter]].concat());
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for container in self.ours("container") {
            self.docker(&["rm", "-f", &container]);
        }
        for volume in self.ours("volume") {
            self.docker(&["volume", "rm", &volume]);
        }
    }
}

/// An engine that nobody else uses, so that it may be restarted.
struct Own {
    dir: PathBuf,
    daemon: Option<Child>,
}

impl Own {
    fn start(image_of: &Engine) -> (Self, Engine) {
        let dir = std::env::temp_dir().join(format!("ligand-own-{}", image_of.owner));
        std::fs::create_dir_all(&dir).unwrap();
        let mut own = Self { dir, daemon: None };
        own.up();
        let engine = Engine { host: own.host(), owner: image_of.owner.clone(), home: Home::new() };
        let image = own.dir.join("image").display().to_string();
        image_of.docker(&["save", "-o", &image, "ligand-agent:latest"]);
        engine.docker(&["load", "-i", &image]);
        (own, engine)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("engine.sock").display())
    }

    #[expect(clippy::disallowed_methods, reason = "an engine is somebody else's program")]
    fn up(&mut self) {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let log = std::fs::File::options().create(true).append(true).open(path("log")).unwrap();
        let namespace = self.dir.file_name().unwrap().to_string_lossy().into_owned();
        let mut command = Command::new("dockerd");
        command.args([
            "--host",
            &self.host(),
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("run"),
        ]);
        command.args(["--pidfile", &path("pid"), "--containerd-namespace", &namespace]);
        command.args([
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--shutdown-timeout",
            "1",
        ]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        let host = self.host();
        until("the engine answers", || {
            let asked = Command::new("docker").env("DOCKER_HOST", &host).arg("version").output();
            asked.unwrap().status.success().then_some(())
        });
    }

    fn down(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let _ = daemon.wait();
    }
}

impl Drop for Own {
    #[expect(
        clippy::disallowed_methods,
        reason = "what an engine leaves mounted is not ours to know"
    )]
    fn drop(&mut self) {
        self.down();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = |path: &&str| Path::new(path).starts_with(&self.dir);
        for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(below) {
            let _ = Command::new("umount").args(["--lazy", path]).status();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn create(stack: &Stack, name: &str) -> String {
    stack.ok(&["ws", "create", name, "--tier", "2", "--wait"]);
    stack.id(name)
}

fn journal(why: &Value) -> Vec<&str> {
    why["journal"].as_array().unwrap().iter().filter_map(|entry| entry["kind"].as_str()).collect()
}

/// The context that is told after a restart is tested with what tells it.
#[test]
fn e2e_07_a_killed_container_is_replaced_and_online_again() {
    let Some(engine) = Engine::found() else { return };
    let mut stack = engine.stack(engine.socket());
    let id = create(&stack, "a");
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    let killed = now();
    engine.docker(&["kill", &format!("ws-{id}-1")]);
    until("generation 2 settles", || (stack.settled(&id) == 2).then_some(()));
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    let events = stack.ask(&format!("GET /events/{id}")).to_string();
    assert!(events.contains("WORKSPACE_OFFLINE"), "{events}");
    assert_eq!(engine.ours("container").len(), 1, "the old container is gone");
    // The server dies, and the container with it; the next server takes both up.
    stack.kill_server();
    assert_eq!(
        engine.docker(&["ps", "-q", "--filter", &format!("name=ws-{id}-2")]).lines().count(),
        1
    );
    engine.docker(&["kill", &format!("ws-{id}-2")]);
    stack.restart();
    until("generation 3 settles", || (stack.settled(&id) == 3).then_some(()));
    stack.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(stack.settled(&id), 4);
    stack.ask(&format!("DELETE /workspaces/{id}?confirm=true&purge=true"));
    until("nothing is left", || {
        (engine.ours("container").is_empty() && engine.ours("volume").is_empty()).then_some(())
    });
}

#[test]
fn a_socket_that_is_away_during_a_restart_kills_nothing_and_everything_resumes() {
    let Some(engine) = Engine::found() else { return };
    let path = std::env::temp_dir().join(format!("ligand-{}.sock", engine.owner));
    let front = Socket::new(&path, engine.socket().as_ref());
    let stack = engine.stack(&front.path().display().to_string());
    let restarted = create(&stack, "restarted");
    // An answer that is lost is no start that failed.
    front.lose_the_answer_to("/start");
    let died = create(&stack, "died");
    assert_eq!((stack.settled(&died), engine.ours("container").len()), (1, 2));
    front.pull();
    stack.ask(&format!("POST /workspaces/{restarted}/restart"));
    engine.docker(&["kill", &format!("ws-{died}-1")]);
    // Longer than a lease of three beats.
    until("its silence is noticed", || {
        (stack.workspace("died")["status"] == "degraded").then_some(())
    });
    pause(Duration::from_secs(3));
    for id in [&restarted, &died] {
        let why = stack.why(id);
        let kinds = journal(&why);
        assert!(!kinds.contains(&"lost") && !kinds.contains(&"given-up"), "{why:#}");
        assert_ne!(why["workspace"]["status"], "failed", "{why:#}");
    }
    assert_eq!(
        generation(&stack.workspace("died")),
        1,
        "nothing is done on the strength of silence"
    );
    let running = engine.docker(&["ps", "-q", "--filter", &format!("name=ws-{restarted}-1")]);
    assert_eq!(running.lines().count(), 1, "the instance that is to be replaced works on");
    front.put_back();
    for id in [&restarted, &died] {
        until("generation 2 settles", || (stack.settled(id) == 2).then_some(()));
    }
    assert_eq!(stack.cycles(&restarted), "prp");
    assert_eq!(engine.ours("container").len(), 2);
}

#[test]
fn an_engine_that_is_restarted_is_unknown_and_then_its_containers_are_replaced() {
    let Some(shared) = Engine::found() else { return };
    let (mut own, engine) = Own::start(&shared);
    let stack = engine.stack(engine.socket());
    let id = create(&stack, "a");
    // Containers end with an engine that is stopped, and nobody is there to tell.
    own.down();
    until("its silence is noticed", || {
        (stack.workspace("a")["status"] == "degraded").then_some(())
    });
    assert_eq!(generation(&stack.workspace("a")), 1);
    own.up();
    until("generation 2 settles", || (stack.settled(&id) == 2).then_some(()));
    assert_eq!(engine.ours("container").len(), 1);
    drop((stack, engine, own));
}

#[test]
fn ti_06_a_failed_start_is_told_in_three_words() {
    let Some(engine) = Engine::found() else { return };
    let stack = engine.stack(engine.socket());
    let body = json!({"name": "b", "runtime": "absent", "tier": 2});
    let created =
        Call::new(stack.url(), "POST /workspaces").token(&stack.admin()).json(&body).send();
    let id = created.json()["id"].as_str().unwrap().to_owned();
    until("it fails", || (stack.workspace("b")["status"] == "failed").then_some(()));
    assert_eq!(stack.why(&id)["workspace"]["last_error"], "workspace start failed");
    let events = stack.ask(&format!("GET /events/{id}"));
    let failed = events.as_array().unwrap().iter();
    let failed = failed.filter(|event| event["event_type"] == "WORKSPACE_PROVISION_FAILED");
    let told: Vec<&Value> = failed.map(|event| &event["payload"]["error"]).collect();
    assert!(
        !told.is_empty() && told.iter().all(|error| **error == "workspace start failed"),
        "{told:?}"
    );
    let open =
        [stack.why(&id), events, stack.workspace("b")].map(|value| value.to_string()).concat();
    assert!(!open.contains("no/such/image") && !open.contains("No such image"), "{open}");
    assert!(stack.server_logs().contains("No such image"), "operators read it in the log");
}

/// From processes into a container and back: what it has and what it did comes with it each time.
#[test]
fn a_workspace_goes_from_processes_to_containers_and_back_while_it_is_called() {
    let Some(engine) = Engine::found() else { return };
    let agent = [env!("CARGO_BIN_EXE_ligand"), "agent"];
    let settings = format!(
        "backend = \"west\"\nheartbeat_seconds = 1\nagent = {agent:?}\n\
         [backends.west]\nkind = \"process\"\n{}\
         [runtimes.echo]\nenv = {{ LIGAND_ECHO_EFFECTS = \"effects\" }}\n",
        engine.backend("a"),
    );
    let file = engine.home.put("ligand.toml", &settings).display().to_string();
    let stack = Stack::start(&["serve", "platform", "--config", &file], &[]);
    let id = create(&stack, "a");
    let west = stack.data().join("west").join(&id);
    migrate::fill(&west);
    let kept = migrate::content(&west);
    let ((), answers) = migrate::while_called(&stack, &id, || {
        for (to, generation_then) in [("a", 2), ("west", 3)] {
            stack.ok(&["migrate", "a", "--to", to, "--grace", "0", "--watch"]);
            let now = stack.workspace("a");
            assert_eq!((generation(&now), &now["backend"]), (generation_then, &json!(to)));
            let here = engine.ours("container").len();
            assert_eq!(here, usize::from(to == "a"), "one instance, at {to}");
        }
    });
    assert_eq!(migrate::content(&west), kept, "its data came with it");
    migrate::tell(&stack, &id, &answers);
    migrate::conserved(&answers, &migrate::effects(&west));
    assert_eq!(engine.ours("volume").len(), 0, "no data is left");
}

/// A server whose workspaces are containers of either engine, `a` at first.
fn between(a: &Engine, b: &Engine) -> Stack {
    let settings = format!(
        "backend = \"a\"\nheartbeat_seconds = 1\n[migrations]\ngrace_seconds = 1\n{}{}\
         [runtimes.echo]\nenv = {{ LIGAND_ECHO_EFFECTS = \"effects\" }}\n",
        a.backend("a"),
        b.backend("b"),
    );
    let file = a.home.put("ligand.toml", &settings).display().to_string();
    Stack::start(&["serve", "platform", "--config", &file], &[])
}

fn nothing_is_left(engine: &Engine) {
    assert_eq!(engine.ours("container"), [""; 0], "no container is left");
    assert_eq!(engine.ours("volume"), [""; 0], "no data is left");
}

#[test]
fn a_workspace_goes_from_one_engine_to_another_while_it_is_called() {
    let Some(a) = Engine::found() else { return };
    let (own, b) = Own::start(&a);
    let stack = between(&a, &b);
    let id = create(&stack, "w");
    let before = stack.workspace("w");
    let given = Home::new();
    migrate::fill(given.path());
    let kept = migrate::content(given.path());
    let from = given.path().join("workspace/data").display().to_string();
    a.docker(&["cp", "-q", &from, &format!("ws-{id}-1:/workspace/data")]);
    let move_it = ["migrate", "w", "--to", "b", "--grace", "0", "--watch"];
    let (_, answers) = migrate::while_called(&stack, &id, || stack.ok(&move_it));
    let came = b.look(&id, 2);
    assert_eq!(migrate::content(came.path()), kept, "its data came with it");
    migrate::conserved(&answers, &migrate::effects(came.path()));
    migrate::tell(&stack, &id, &answers);
    let (it, after) = (migrate::over(&stack, &id), stack.workspace("w"));
    assert!(it["state"] == "migrated" && it["digest"].is_string(), "{it:#}");
    assert_eq!((generation(&after), &after["backend"]), (2, &json!("b")), "{after:#}");
    assert!(after["url"] != before["url"] && after["url"] == it["url_after"], "{after:#}");
    nothing_is_left(&a);
    assert_eq!(b.ours("container").len(), 1, "one instance, and nothing that only carried data");
    assert_eq!(stack.settled(&id), 2);
    drop((stack, a, b, own));
}

#[test]
fn a_drain_takes_everybody_from_one_engine_to_another() {
    let Some(a) = Engine::found() else { return };
    let (own, b) = Own::start(&a);
    let stack = between(&a, &b);
    let names = migrate::create_all(&stack, 3);
    assert_eq!(a.ours("container").len(), names.len());
    migrate::drained(&stack, ("a", "b"), &names);
    nothing_is_left(&a);
    assert_eq!(b.ours("container").len(), names.len(), "an instance each");
    drop((stack, a, b, own));
}

#[test]
fn doctor_tells_of_the_engine() {
    let Some(engine) = Engine::found() else { return };
    let stack = engine.stack(engine.socket());
    let said = stack.cli(&["doctor"]).stdout;
    assert!(said.contains("backend box") && said.contains("containers of Docker"), "{said}");
}
