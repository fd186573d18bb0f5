//! The Docker backend on a real engine. Each test has an owner of its own there, and leaves nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::{Exit, Seen};
use ligand_server::backend::docker::{AGENT, Setup};
use ligand_server::backend::{Backend as _, ErrorKind, Key, Limits, Place, Push, Root, Spec};
use ligand_server::briefings::BriefingReconciler;
use ligand_server::db::{DatabaseUrl, Db};
use ligand_server::reconcile::Reconciler as _;
use ligand_server::workspaces::heed;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::agent::Agent;
use crate::support::docker::{Bench, docker_backend, next, open};
use crate::support::engine::run;
use crate::support::{TestApp, a_moment};

#[path = "../../cli/tests/socket.rs"]
pub(crate) mod socket;

use self::socket::Socket;

pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// A shell that is the first process hears only what it asked for.
pub(crate) const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";

/// Run a scenario, where there is an engine.
pub(crate) fn on_docker<F: Future<Output = ()>>(scenario: impl FnOnce(Bench) -> F) {
    if let Some(bench) = docker_backend() {
        run(scenario(bench));
    }
}

/// Engines are shared: no two tests have the same workspaces.
pub(crate) fn key(test: u8, generation: i64) -> Key {
    let mut random = [test; 16];
    random[..4].copy_from_slice(&std::process::id().to_be_bytes());
    Key { workspace: WorkspaceId::from_random(random), generation: Generation::new(generation) }
}

pub(crate) fn spec(key: Key, script: &str) -> Spec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Spec::bare(key, command, Token::from_entropy([9; 32]))
}

pub(crate) fn at(root: Root, path: &str) -> Place {
    Place { root, path: PathBuf::from(path) }
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        a_moment(50).await;
    }
    panic!("not within ten seconds: {what}");
}

#[test]
fn an_instance_comes_and_goes() {
    on_docker(|bench| async move {
        let key = key(1, 1);
        let backend = &bench.backend;
        assert_eq!(backend.inspect(key).await.unwrap(), Seen::Gone);
        assert_eq!(backend.find(key).await.unwrap(), None);
        let started = backend.ensure(spec(key, WAITS)).await.unwrap();
        assert_eq!(backend.ensure(spec(key, WAITS)).await.unwrap(), started, "twice is once");
        assert_eq!(backend.find(key).await.unwrap(), Some(started.clone()));
        assert!(started.address.unwrap().starts_with("http://127.0.0.1:"));
        assert_eq!(backend.inspect(key).await.unwrap(), Seen::Running);
        assert_eq!(backend.list_owned().await.unwrap(), [key]);
        assert_eq!(backend.list_data().await.unwrap(), [key.workspace]);
        assert_eq!(
            backend.erase(key.workspace).await.unwrap_err().kind,
            ErrorKind::Transient,
            "in use"
        );
        for _ in 0..2 {
            backend.stop(key, GRACE).await.unwrap();
            let seen = backend.inspect(key).await.unwrap();
            assert_eq!(seen, Seen::Stopped(Exit { code: Some(0), ..Exit::default() }));
        }
        for _ in 0..2 {
            backend.destroy(key).await.unwrap();
            assert_eq!(backend.inspect(key).await.unwrap(), Seen::Gone);
        }
        assert_eq!(backend.list_data().await.unwrap(), [key.workspace], "its data stays");
        for _ in 0..2 {
            backend.erase(key.workspace).await.unwrap();
        }
        bench.clear().await;
    });
}

#[test]
fn credential_and_files_are_there_before_it_starts_and_what_is_left_of_another_is_not() {
    on_docker(|bench| async move {
        let (first, second) = (key(2, 1), key(2, 2));
        let leave =
            "cp /configs/.auth_token /configs/.auth_token.next; echo data > /workspace/kept";
        bench.backend.ensure(spec(first, leave)).await.unwrap();
        let backend = &bench.backend;
        until("it ended", || async { backend.inspect(first).await.unwrap() != Seen::Running })
            .await;
        backend.destroy(first).await.unwrap();
        let tell = "stat -c '%a %u %n' /configs/.auth_token /configs/sub/config.yaml; cat /configs/.auth_token; \
            echo; cat /configs/sub/config.yaml /configs/.auth_token.next /workspace/kept; echo .";
        let mut wanted = spec(second, tell);
        wanted.credential = Some(Token::from_entropy([8; 32]));
        wanted.files = [("sub/config.yaml".to_owned(), Bytes::from_static(b"a: 1\n"))].into();
        let token = wanted.credential.as_ref().expect("it has one").reveal().to_owned();
        backend.ensure(wanted).await.unwrap();
        until("it ended", || async { backend.inspect(second).await.unwrap() != Seen::Running })
            .await;
        let log = backend.logs(second.workspace, 100).await.unwrap();
        let expected = format!(
            "600 0 /configs/.auth_token\n644 0 /configs/sub/config.yaml\n{token}\na: 1\ndata\n.\n"
        );
        assert_eq!(String::from_utf8_lossy(&log), expected);
        assert_eq!(backend.logs(second.workspace, 1).await.unwrap(), ".\n");
        bench.clear().await;
    });
}

#[test]
fn an_exit_is_pushed_with_its_code_and_last_words() {
    on_docker(|mut bench| async move {
        let (told, killed) = (key(3, 1), key(3, 2));
        let script =
            "echo first; echo 'error: no such model' >&2; echo 'hint: ask' >&2; sleep 1; exit 3";
        bench.backend.ensure(spec(told, script)).await.unwrap();
        assert_eq!(next(&mut bench.pushed).await, told);
        let said = Some("error: no such model".to_owned());
        let exit = Exit { code: Some(3), signal: None, said };
        assert_eq!(bench.backend.inspect(told).await.unwrap(), Seen::Stopped(exit));
        bench.backend.destroy(told).await.unwrap();
        bench.backend.ensure(spec(killed, WAITS)).await.unwrap();
        bench.kill(killed).await;
        while next(&mut bench.pushed).await != killed {}
        let exit = Exit { code: None, signal: Some(9), said: None };
        assert_eq!(bench.backend.inspect(killed).await.unwrap(), Seen::Stopped(exit));
        bench.clear().await;
    });
}

#[test]
fn a_stubborn_instance_is_ended_firmly() {
    on_docker(|bench| async move {
        let key = key(4, 1);
        bench.backend.ensure(spec(key, "trap '' TERM; while :; do sleep 1; done")).await.unwrap();
        bench.backend.stop(key, Duration::from_millis(200)).await.unwrap();
        let Seen::Stopped(exit) = bench.backend.inspect(key).await.unwrap() else {
            panic!("it ended")
        };
        assert_eq!(exit.signal, Some(9));
        bench.clear().await;
    });
}

#[test]
fn a_start_whose_answer_was_lost_is_found() {
    on_docker(|bench| async move {
        let key = key(5, 1);
        let front = Socket::new(&bench.socket(), &bench.setup.socket);
        let (backend, _pushed) = bench.over(front.path());
        front.lose_the_answer_to("/start");
        let lost = backend.ensure(spec(key, WAITS)).await.unwrap_err();
        assert_eq!(lost.chain(), "workspace start failed");
        let found = backend.find(key).await.unwrap().expect("it was started");
        assert_eq!(backend.ensure(spec(key, WAITS)).await.unwrap(), found);
        assert_eq!(backend.list_owned().await.unwrap(), [key]);
        bench.clear().await;
    });
}

#[test]
fn a_start_that_ended_half_way_is_begun_again() {
    on_docker(|bench| async move {
        let key = key(6, 1);
        let front = Socket::new(&bench.socket(), &bench.setup.socket);
        let (backend, _pushed) = bench.over(front.path());
        front.lose_the_answer_to("/containers/create");
        backend.ensure(spec(key, WAITS)).await.unwrap_err();
        // Made, and never started: with which credential nobody knows.
        assert_eq!(backend.find(key).await.unwrap(), None);
        assert_eq!(backend.inspect(key).await.unwrap(), Seen::Gone);
        assert_eq!(backend.list_owned().await.unwrap(), [key]);
        backend.ensure(spec(key, WAITS)).await.unwrap();
        assert_eq!(backend.inspect(key).await.unwrap(), Seen::Running);
        bench.clear().await;
    });
}

#[test]
fn while_the_socket_is_away_everything_is_unknown_and_nothing_is_gone() {
    on_docker(|bench| async move {
        let (running, never) = (key(7, 1), key(7, 2));
        let front = Socket::new(&bench.socket(), &bench.setup.socket);
        let (backend, mut pushed) = bench.over(front.path());
        backend.recover().await.unwrap();
        backend.ensure(spec(running, WAITS)).await.unwrap();
        front.pull();
        for key in [running, never] {
            assert_eq!(backend.inspect(key).await.unwrap_err().kind, ErrorKind::Transient);
            assert_eq!(backend.find(key).await.unwrap_err().kind, ErrorKind::Transient);
            assert!(backend.stop(key, GRACE).await.is_err(), "not known to have ended");
            assert!(backend.destroy(key).await.is_err());
        }
        assert!(backend.list_owned().await.is_err(), "an empty list would be a claim");
        assert!(backend.list_data().await.is_err());
        assert!(backend.erase(running.workspace).await.is_err());
        assert!(backend.fingerprint().await.is_err());
        // It ends meanwhile, and that is heard of once the socket is back.
        bench.kill(running).await;
        assert!(pushed.try_recv().is_err());
        front.put_back();
        assert_eq!(next(&mut pushed).await, running);
        assert!(matches!(backend.inspect(running).await.unwrap(), Seen::Stopped(_)));
        assert_eq!(backend.inspect(never).await.unwrap(), Seen::Gone);
        assert!(backend.fingerprint().await.unwrap().contains("Docker"));
        bench.clear().await;
    });
}

#[test]
fn a_later_server_finds_what_an_earlier_one_started_and_another_platform_does_not() {
    on_docker(|bench| async move {
        let (running, ended) = (key(8, 1), key(9, 1));
        let started = bench.backend.ensure(spec(running, WAITS)).await.unwrap();
        bench.backend.ensure(spec(ended, "exit 0")).await.unwrap();
        let backend = &bench.backend;
        until("it ended", || async { backend.inspect(ended).await.unwrap() != Seen::Running })
            .await;
        let (later, mut pushed) = open(&bench.setup);
        later.recover().await.unwrap();
        assert_eq!(next(&mut pushed).await, ended, "what ended while nobody listened");
        assert_eq!(later.find(running).await.unwrap(), Some(started));
        bench.kill(running).await;
        while next(&mut pushed).await != running {}
        let (other, _) = open(&Setup { owner: "somebody-else".to_owned(), ..bench.setup.clone() });
        assert!(!other.list_owned().await.unwrap().contains(&running));
        assert!(!other.list_data().await.unwrap().contains(&running.workspace));
        bench.backend.destroy(running).await.unwrap();
        let refused = other.erase(running.workspace).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Broken, "{}", refused.chain());
        bench.clear().await;
    });
}

#[test]
fn files_are_reached_whether_or_not_an_instance_is_there() {
    on_docker(|bench| async move {
        let key = key(10, 1);
        let backend = &bench.backend;
        let note = at(Root::Workspace, "deep/er/note");
        let missing = backend.read_file(key.workspace, note.clone()).await.unwrap_err();
        assert_eq!(missing.kind, ErrorKind::Missing);
        backend.ensure(spec(key, WAITS)).await.unwrap();
        for there in [true, false] {
            if !there {
                backend.destroy(key).await.unwrap();
            }
            let content = Bytes::from(vec![u8::from(there); 100_000]);
            backend.write_file(key.workspace, note.clone(), content.clone()).await.unwrap();
            assert_eq!(backend.read_file(key.workspace, note.clone()).await.unwrap(), content);
            let found =
                backend.list_files(key.workspace, at(Root::Workspace, ""), 2).await.unwrap();
            let paths: Vec<_> =
                found.iter().map(|one| (one.path.to_str().unwrap(), one.dir)).collect();
            assert_eq!(paths, [("deep", true), ("deep/er", true)]);
            let found =
                backend.list_files(key.workspace, at(Root::Workspace, "deep/er"), 1).await.unwrap();
            assert_eq!((found[0].path.to_str(), found[0].size), (Some("note"), 100_000));
            let refused = backend.list_files(key.workspace, note.clone(), 1).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Missing, "no directory");
            let out = backend.read_file(key.workspace, at(Root::Configs, "../etc/passwd")).await;
            assert_eq!(out.unwrap_err().kind, ErrorKind::Broken);
        }
        // Only a program of the image can take a file away. With no instance it is that of the agent's image.
        let refused = backend.remove_file(key.workspace, note.clone()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unsupported, "{}", refused.chain());
        backend.ensure(spec(key, WAITS)).await.unwrap();
        for _ in 0..2 {
            backend.remove_file(key.workspace, at(Root::Workspace, "deep")).await.unwrap();
        }
        assert!(
            backend.list_files(key.workspace, at(Root::Workspace, ""), 1).await.unwrap().is_empty()
        );
        bench.clear().await;
    });
}

#[test]
fn a_terminal_is_a_shell_and_a_log_is_followed() {
    on_docker(|bench| async move {
        let key = key(11, 1);
        let script = "while [ ! -e /workspace/go ]; do sleep 0.1; done; echo went; sleep 1000";
        bench.backend.ensure(spec(key, script)).await.unwrap();
        let mut log = bench.backend.follow(key.workspace).await.unwrap();
        let terminal = bench.backend.terminal(key, (101, 31)).await.unwrap();
        terminal.input.send(Bytes::from_static(b"stty size; touch /workspace/go\n")).await.unwrap();
        let mut output = terminal.output;
        let mut said = String::new();
        while !said.contains("31 101") {
            let part =
                tokio::time::timeout(Duration::from_secs(10), output.next()).await.expect(&said);
            said.push_str(&String::from_utf8_lossy(&part.unwrap().unwrap()));
        }
        let line = tokio::time::timeout(Duration::from_secs(10), log.next()).await.unwrap();
        assert_eq!(line.unwrap().unwrap(), "went\n");
        // Dropped, it ends.
        drop((terminal.input, terminal.size));
        let rest = async { while output.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), rest).await.expect("the shell ends");
        bench.clear().await;
    });
}

#[test]
fn the_least_trusted_cannot_write_but_where_it_may() {
    on_docker(|bench| async move {
        let key = key(12, 1);
        let script =
            "touch /nowhere; touch /tmp/a /configs/b /home/c && ls -d /workspace; echo done";
        let limits = Limits { tier: 1, ..Limits::default() };
        bench.backend.ensure(Spec { limits, ..spec(key, script) }).await.unwrap();
        let backend = &bench.backend;
        until("it ended", || async { backend.inspect(key).await.unwrap() != Seen::Running }).await;
        let log =
            String::from_utf8(backend.logs(key.workspace, 100).await.unwrap().to_vec()).unwrap();
        assert!(log.contains("/nowhere: Read-only file system"), "{log}");
        assert!(log.contains("/workspace: No such file") && log.contains("done\n"), "{log}");
        bench.clear().await;
    });
}

#[test]
fn ti_06_what_the_engine_says_of_a_failed_start_is_told_to_nobody() {
    on_docker(|bench| async move {
        let mut absent = spec(key(13, 1), WAITS);
        absent.command = vec!["/no/such/program".to_owned()];
        let nowhere = Setup { image: Some("no/such/image:1".to_owned()), ..bench.setup.clone() };
        let (imageless, _) = open(&nowhere);
        for (backend, spec) in [(&bench.backend, absent), (&imageless, spec(key(14, 1), WAITS))] {
            let key = spec.key;
            let refused = backend.ensure(spec).await.unwrap_err();
            assert_eq!(refused.chain(), "workspace start failed");
            assert_eq!(backend.find(key).await.unwrap(), None, "nothing of it runs");
            backend.destroy(key).await.unwrap();
        }
        // Which recipe is missing is no secret of the engine.
        let (bare, _) = open(&Setup { image: None, ..bench.setup.clone() });
        let refused = bare.ensure(spec(key(15, 1), WAITS)).await.unwrap_err();
        assert_eq!(refused.chain(), "the runtime `` has no recipe for the backend `docker`");
        bench.clear().await;
    });
}

#[test]
fn a_port_that_somebody_else_took_ends_the_instance_with_its_cause_and_the_next_has_another() {
    on_docker(|bench| async move {
        let front = Socket::new(&bench.socket(), &bench.setup.socket);
        let (backend, mut pushed) = bench.over(front.path());
        backend.recover().await.unwrap();
        let agent = |generation| {
            let command = vec![AGENT.to_owned()];
            let key = key(16, generation);
            let env = [
                ("WORKSPACE_ID".to_owned(), key.workspace.to_string()),
                ("PLATFORM_URL".to_owned(), "http://127.0.0.1:1".to_owned()),
            ];
            let bare = Spec::bare(key, command, Token::from_entropy([9; 32]));
            Spec { runtime: "echo".to_owned(), env: env.into(), ..bare }
        };
        // Between the choice of the port and the start.
        let listen = "LIGAND_AGENT_LISTEN=127.0.0.1:";
        let (give, taken) = std::sync::mpsc::channel();
        front.before(listen, move |request| {
            let rest = request.split(listen).nth(1).unwrap();
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            give.send(std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap()).unwrap();
        });
        let first = backend.ensure(agent(1)).await.unwrap().address.unwrap();
        let taken = taken.recv().unwrap();
        assert_eq!(first, format!("http://{}", taken.local_addr().unwrap()));
        assert_eq!(next(&mut pushed).await, key(16, 1));
        let Seen::Stopped(exit) = backend.inspect(key(16, 1)).await.unwrap() else {
            panic!("it cannot listen")
        };
        let said = exit.said.unwrap_or_default();
        let cause = format!("cannot listen on {}", taken.local_addr().unwrap());
        assert!(said.contains(&cause) && said.contains("in use"), "{said}");
        let second = backend.ensure(agent(2)).await.unwrap().address.unwrap();
        assert_ne!(first, second);
        until("it listens", || async { listens(&second) }).await;
        assert_eq!(backend.inspect(key(16, 2)).await.unwrap(), Seen::Running);
        bench.clear().await;
    });
}

fn listens(address: &str) -> bool {
    std::net::TcpStream::connect(address.trim_start_matches("http://")).is_ok()
}

/// Containers are on the machine's network here: the test itself is the agent, at the address of the instance.
#[test]
fn e2e_07_what_replaces_a_killed_container_is_told_of_its_restart() {
    on_docker(|bench| async move {
        let setup = Setup { images: [].into(), ..bench.setup.clone() };
        let (backend, mut pushed) = open(&setup);
        backend.recover().await.unwrap();
        let db = Db::open(&DatabaseUrl::Memory).await.unwrap();
        let shell = ["/bin/sh", "-c", WAITS].map(str::to_owned);
        let app = TestApp::new(db, |config| config.agent = shell.to_vec());
        let app = app.on(|_| Arc::new(backend.clone()));
        let created = app.post("/workspaces", json!({"name": "a", "tier": 2})).await.ok();
        let id = created["id"].as_str().unwrap();
        let key = |generation| Key {
            workspace: id.parse().unwrap(),
            generation: Generation::new(generation),
        };
        let register = async |generation| {
            until("it is started", || async {
                app.later(1).await;
                backend.inspect(key(generation)).await.unwrap() == Seen::Running
            })
            .await;
            let started = backend.find(key(generation)).await.unwrap().unwrap();
            let token = at(Root::Configs, ".auth_token");
            let token = backend.read_file(key(generation).workspace, token).await.unwrap();
            let token = String::from_utf8(token.to_vec()).unwrap();
            let heard = listening(&started.address.unwrap()).await;
            Agent::with(id, Some(&token)).register(&app).await.ok();
            app.settle().await;
            heard
        };
        let first = register(1).await;
        assert_eq!(app.workspace(id).await["status"], "online");
        bench.kill(key(1)).await;
        assert_eq!(next(&mut pushed).await, key(1));
        heed(&app.app, Push(key(1))).await.unwrap();
        let second = register(2).await;
        assert_eq!(BriefingReconciler.pass(&app.app).await.unwrap().steps, 1);
        until("it is told", || async { !second.lock().unwrap().is_empty() }).await;
        let told = second.lock().unwrap().concat();
        assert!(told.contains("restart_context") && told.contains("before)"), "{told}");
        assert_eq!(BriefingReconciler.pass(&app.app).await.unwrap().steps, 0, "once");
        assert!(first.lock().unwrap().is_empty(), "a first start is no restart");
        bench.clear().await;
    });
}

/// An agent at this address, and what it is told.
async fn listening(address: &str) -> Arc<Mutex<Vec<String>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heard);
    let handler = move |body: String| {
        noted.lock().unwrap().push(body);
        async { "{}" }
    };
    let listener = TcpListener::bind(address.trim_start_matches("http://")).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    heard
}
