//! Every backend against the same scenarios, and what only real processes do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use ligand_server::backend::fake::Fake;
use ligand_server::backend::process::Process;
use ligand_server::backend::{Backend, ErrorKind, Key, Push, Pushes, Spec};
use tokio::sync::mpsc::UnboundedReceiver;

const GRACE: Duration = Duration::from_secs(5);

struct Bench {
    backend: Arc<dyn Backend>,
    pushed: UnboundedReceiver<Push>,
    root: Option<PathBuf>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(root) = &self.root {
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("backend-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn process() -> Bench {
    let (pushes, pushed) = Pushes::channel();
    let root = scratch();
    Bench { backend: Arc::new(Process::new(&root, pushes)), pushed, root: Some(root) }
}

fn fake() -> Bench {
    let (pushes, pushed) = Pushes::channel();
    Bench { backend: Arc::new(Fake::new(pushes)), pushed, root: None }
}

fn key(n: u8, generation: i64) -> Key {
    Key { workspace: WorkspaceId::from_random([n; 16]), generation: Generation::new(generation) }
}

fn spec(key: Key, script: &str) -> Spec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = BTreeMap::from([("WORKSPACE_ID".to_owned(), key.workspace.to_string())]);
    Spec { key, command, env, credential: Token::from_entropy([9; 32]) }
}

const WAITS: &str = "while :; do sleep 1; done";

/// Run a scenario against every backend.
fn on_all<F: Future<Output = ()>>(scenario: impl Fn(Bench) -> F) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for bench in [fake as fn() -> Bench, process] {
        runtime.block_on(async { scenario(bench()).await });
    }
}

fn on_process<F: Future<Output = ()>>(scenario: impl Fn(Bench) -> F) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { scenario(process()).await });
}

fn pid(bench: &Bench, key: Key) -> i32 {
    let path =
        bench.root.as_ref().unwrap().join(format!("{}/run/{}.json", key.workspace, key.generation));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    i32::try_from(record["identity"]["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn pushed(bench: &mut Bench) -> Key {
    let push = tokio::time::timeout(Duration::from_secs(10), bench.pushed.recv());
    push.await.expect("a push within ten seconds").unwrap().0
}

#[test]
fn starting_twice_starts_once() {
    on_all(|bench| async move {
        let key = key(1, 1);
        let first = bench.backend.ensure(spec(key, WAITS)).await.unwrap();
        let second = bench.backend.ensure(spec(key, WAITS)).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(bench.backend.find(key).await.unwrap(), Some(first));
        assert_eq!(bench.backend.inspect(key).await.unwrap(), Seen::Running);
        assert_eq!(bench.backend.list_owned().await.unwrap(), [key]);
        bench.backend.destroy(key).await.unwrap();
    });
}

#[test]
fn what_was_never_started_is_gone_and_ending_it_is_success() {
    on_all(|bench| async move {
        let key = key(2, 1);
        assert_eq!(bench.backend.inspect(key).await.unwrap(), Seen::Gone);
        assert_eq!(bench.backend.find(key).await.unwrap(), None);
        bench.backend.stop(key, GRACE).await.unwrap();
        bench.backend.destroy(key).await.unwrap();
        bench.backend.erase(key.workspace).await.unwrap();
        assert!(bench.backend.list_owned().await.unwrap().is_empty());
    });
}

#[test]
fn stopped_and_destroyed_twice_is_stopped_and_destroyed() {
    on_all(|bench| async move {
        let key = key(3, 1);
        bench.backend.ensure(spec(key, WAITS)).await.unwrap();
        for _ in 0..2 {
            bench.backend.stop(key, GRACE).await.unwrap();
            assert!(matches!(bench.backend.inspect(key).await.unwrap(), Seen::Stopped(_)));
        }
        for _ in 0..2 {
            bench.backend.destroy(key).await.unwrap();
            assert_eq!(bench.backend.inspect(key).await.unwrap(), Seen::Gone);
        }
    });
}

#[test]
fn generations_of_a_workspace_are_told_apart() {
    on_all(|bench| async move {
        let (old, new) = (key(4, 1), key(4, 2));
        bench.backend.ensure(spec(old, WAITS)).await.unwrap();
        bench.backend.destroy(old).await.unwrap();
        bench.backend.ensure(spec(new, WAITS)).await.unwrap();
        assert_eq!(bench.backend.inspect(old).await.unwrap(), Seen::Gone);
        assert_eq!(bench.backend.inspect(new).await.unwrap(), Seen::Running);
        bench.backend.destroy(new).await.unwrap();
    });
}

#[test]
fn an_exit_is_pushed_with_its_code_and_last_words() {
    on_process(|mut bench| async move {
        let key = key(5, 1);
        let script =
            "echo first; echo 'error: no such model' >&2; echo 'hint: ask somebody' >&2; exit 3";
        bench.backend.ensure(spec(key, script)).await.unwrap();
        assert_eq!(pushed(&mut bench).await, key);
        let Seen::Stopped(exit) = bench.backend.inspect(key).await.unwrap() else {
            panic!("it exited")
        };
        assert_eq!(
            (exit.code, exit.signal, exit.said.as_deref()),
            (Some(3), None, Some("error: no such model"))
        );
        bench.backend.destroy(key).await.unwrap();
    });
}

#[test]
fn a_killed_leader_takes_its_group_along() {
    on_process(|mut bench| async move {
        let key = key(6, 1);
        bench.backend.ensure(spec(key, "sleep 1000 & echo $! > child; wait")).await.unwrap();
        let file = bench.root.as_ref().unwrap().join(format!("{}/workspace/child", key.workspace));
        let child = until(|| std::fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok()).await;
        assert!(alive(child));
        kill(pid(&bench, key));
        pushed(&mut bench).await;
        until(|| (!alive(child)).then_some(())).await;
        let Seen::Stopped(exit) = bench.backend.inspect(key).await.unwrap() else {
            panic!("it was killed")
        };
        assert_eq!(exit.signal, Some(9));
        bench.backend.destroy(key).await.unwrap();
    });
}

#[test]
fn a_stubborn_instance_is_ended_firmly() {
    on_process(|bench| async move {
        let key = key(7, 1);
        bench
            .backend
            .ensure(spec(key, "trap '' TERM; echo ready > ready; while :; do sleep 0.1; done"))
            .await
            .unwrap();
        let file = bench.root.as_ref().unwrap().join(format!("{}/workspace/ready", key.workspace));
        until(|| file.exists().then_some(())).await;
        let leader = pid(&bench, key);
        bench.backend.stop(key, Duration::from_millis(200)).await.unwrap();
        assert!(!alive(leader));
        bench.backend.destroy(key).await.unwrap();
    });
}

#[test]
fn the_environment_is_built_from_nothing_and_the_tree_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    on_process(|bench| async move {
        let key = key(8, 1);
        let started = bench
            .backend
            .ensure(spec(key, "env > environment.new; mv environment.new environment; sleep 1000"))
            .await
            .unwrap();
        let tree = bench.root.as_ref().unwrap().join(key.workspace.to_string());
        let file = tree.join("workspace/environment");
        let text = until(|| std::fs::read_to_string(&file).ok()).await;
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        for name in &names {
            let known = [
                "PATH",
                "LANG",
                "HOME",
                "CONFIGS_DIR",
                "WORKSPACE_CONFIG_PATH",
                "WORKSPACE_DIR",
                "WORKSPACE_ID",
                "PWD",
                "OLDPWD",
                "SHLVL",
                "_",
            ];
            assert!(known.contains(name) || name.starts_with("LIGAND_"), "{name} was inherited");
        }
        assert!(text.contains(&format!("LIGAND_AGENT_URL={}", started.address.unwrap())));
        let mode =
            |path: &str| std::fs::metadata(tree.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("configs"), mode("home"), mode("configs/.auth_token")),
            (0o700, 0o700, 0o600)
        );
        let leader = pid(&bench, key);
        let stat = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap();
        let group = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(2).unwrap();
        assert_eq!(group, leader.to_string(), "it leads a group of its own");
        bench.backend.destroy(key).await.unwrap();
        bench.backend.erase(key.workspace).await.unwrap();
        assert!(!tree.exists());
    });
}

#[test]
fn a_later_server_finds_what_an_earlier_one_started() {
    on_process(|mut bench| async move {
        let key = key(9, 1);
        let started = bench.backend.ensure(spec(key, WAITS)).await.unwrap();
        let root = bench.root.clone().unwrap();
        let (pushes, mut heard) = Pushes::channel();
        let later = Process::new(&root, pushes);
        later.recover().await.unwrap();
        assert_eq!(later.inspect(key).await.unwrap(), Seen::Running);
        assert_eq!(later.find(key).await.unwrap(), Some(started.clone()));
        // The record is lost too: the label in its environment is enough.
        std::fs::remove_file(root.join(format!("{}/run/1.json", key.workspace))).unwrap();
        assert_eq!(later.find(key).await.unwrap(), Some(started));
        // Its end is seen at once, though it is nobody's child here.
        kill(pid(&bench, key));
        let push =
            tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
        assert_eq!(push.0, key);
        assert!(matches!(later.inspect(key).await.unwrap(), Seen::Stopped(_)));
        pushed(&mut bench).await;
        // A third one, started after the end, reports it as well.
        let (pushes, mut heard) = Pushes::channel();
        Process::new(&root, pushes).recover().await.unwrap();
        assert_eq!(heard.recv().await.unwrap().0, key);
        bench.backend.destroy(key).await.unwrap();
    });
}

#[test]
fn a_program_that_is_not_there_and_a_tree_that_cannot_be_made_are_named() {
    on_process(|bench| async move {
        let key = key(10, 1);
        let mut missing = spec(key, "");
        missing.command = vec!["/no/such/program".to_owned()];
        let refused = bench.backend.ensure(missing).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Broken);
        assert!(refused.chain().contains("/no/such/program"), "{}", refused.chain());
        assert_eq!(bench.backend.inspect(key).await.unwrap(), Seen::Gone);
        let file = scratch();
        std::fs::write(&file, "a file").unwrap();
        let (pushes, _) = Pushes::channel();
        let below = Process::new(&file.join("below"), pushes);
        let refused = below.ensure(spec(key, WAITS)).await.unwrap_err();
        assert!(refused.chain().contains(&file.display().to_string()), "{}", refused.chain());
        assert!(below.fingerprint().await.is_err());
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn the_end_of_a_log_is_read_over_its_rotation() {
    on_process(|bench| async move {
        let key = key(11, 1);
        bench.backend.ensure(spec(key, WAITS)).await.unwrap();
        let logs = bench.root.as_ref().unwrap().join(format!("{}/logs", key.workspace));
        std::fs::write(logs.join("agent.log.1"), "one\ntwo\n").unwrap();
        std::fs::write(logs.join("agent.log"), "three\nfour\n").unwrap();
        for (lines, expected) in
            [(1, "four\n"), (3, "two\nthree\nfour\n"), (100, "one\ntwo\nthree\nfour\n")]
        {
            let text = bench.backend.logs(key.workspace, lines).await.unwrap();
            assert_eq!(text, expected.as_bytes(), "{lines}");
        }
        // What an instance puts there instead of a file leads nowhere.
        std::fs::remove_file(logs.join("agent.log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", logs.join("agent.log")).unwrap();
        assert_eq!(bench.backend.logs(key.workspace, 100).await.unwrap(), "one\ntwo\n".as_bytes());
        bench.backend.destroy(key).await.unwrap();
    });
}

/// Poll until there is something, for ten seconds at most.
#[expect(clippy::disallowed_methods, reason = "real processes take real time")]
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within ten seconds");
}
