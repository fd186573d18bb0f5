//! A workspace's life with nothing in its way: found, talked to, restarted, deleted.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::Call;
use crate::stack::{Stack, generation, pause, until};

const TURN: &str = "hello <- hello from ligand up\nhello -> echo: hello from ligand up\n";

#[test]
fn once_prints_a_turn_and_leaves_nothing_running() {
    let stack = Stack::prepare(&["up"], &[("LIGAND_LOG", "warn")]);
    for round in 1..=2 {
        let ran = stack.run_server(&["--once"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, TURN), "{round}: {}", ran.transcript());
        assert!(
            ran.stderr.contains("the admin token is in HOME/data/admin-token"),
            "{}",
            ran.stderr
        );
        assert_eq!(stack.processes(), [0; 0], "round {round}");
        assert!(!stack.record().exists(), "round {round}");
    }
}

#[test]
fn a_second_shell_finds_the_server() {
    let mut stack = Stack::up();
    until("the demo is there", || {
        stack.cli(&["ws", "list"]).stdout.contains("hello").then_some(())
    });
    stack.settled(&stack.id("hello"));
    let list = stack.ok(&["ws", "list"]);
    assert!(list.contains("online") && list.contains("process"), "{list}");
    assert_eq!(stack.ok(&["ws", "send", "hello", "hi"]), "echo: hi\n");
    let why = stack.ok(&["why", "hello"]);
    assert!(why.starts_with("hello is ONLINE since ") && why.contains("\nnext: "), "{why}");
    assert!(stack.ok(&["ws", "logs", "hello"]).contains("registered"));
    assert_eq!(stack.cli(&["doctor"]).code, 0, "{}", stack.cli(&["doctor"]).transcript());
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(stack.record()), 0o600);
    assert_eq!(mode(stack.data()), 0o700);
    assert_eq!(mode(stack.data().join("admin-token")), 0o600);
    assert_eq!(stack.stop_server(), Some(0));
    assert_eq!(stack.processes(), [0; 0], "what `up` runs ends with it");
    assert!(!stack.record().exists());
    assert_eq!(stack.cli(&["ws", "list"]).code, 3);
}

#[test]
fn a_server_that_stops_leaves_its_instances_running() {
    let mut stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let leader = stack.leader(&id, 1);
    assert_eq!(stack.stop_server(), Some(0));
    assert_eq!(stack.processes(), [leader]);
    stack.restart();
    assert_eq!(stack.ok(&["ws", "send", "a", "again"]), "echo: again\n");
    assert_eq!((stack.settled(&id), stack.leader(&id, 1)), (1, leader));
}

#[test]
fn an_end_amid_a_start_leaves_nothing_running() {
    let mut stack = Stack::prepare(&["up"], &[]);
    for round in 0..6 {
        stack.restart();
        // It listens; its workspace is only being started, each round a little further.
        pause(Duration::from_millis(round * 8));
        assert_eq!(stack.stop_server(), Some(0), "round {round}");
        assert_eq!(stack.processes(), [0; 0], "round {round}");
        assert!(!stack.record().exists());
    }
    stack.restart();
    until("it answers", || (stack.cli(&["ws", "send", "hello", "hi"]).code == 0).then_some(()));
}

#[test]
fn a_restart_replaces_the_process() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let before = stack.leader(&id, 1);
    stack.ok(&["ws", "restart", "a", "--wait"]);
    let after = stack.leader(&id, 2);
    assert_eq!(stack.settled(&id), 2);
    assert_eq!(stack.processes(), [after]);
    assert_ne!(before, after);
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
}

#[test]
fn restarts_before_the_next_instance_is_given_anything_are_carried_by_it() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let restart = || stack.ask(&format!("POST /workspaces/{id}/restart"));
    // It does not end until it is made to, which takes the whole grace: time enough for the others.
    stack.signal(stack.leader(&id, 1), Signal::STOP);
    restart();
    until("the restart is under way", || (stack.cycles(&id) == "prp").then_some(()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(restart);
        }
    });
    assert_eq!(stack.cycles(&id), "prprrrr", "the first one is still under way");
    assert_eq!((stack.settled(&id), stack.cycles(&id).as_str()), (2, "prprrrr"));
    assert_eq!(stack.processes(), [stack.leader(&id, 2)]);
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
}

#[test]
fn a_deleted_workspace_is_gone_with_its_process_and_its_credential() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let credential = stack.credential(&id);
    let beat = json!({ "workspace_id": id, "error_rate": 0.0, "sample_error": "", "active_tasks": 0,
        "uptime_seconds": 1, "current_task": "" });
    let beat =
        || Call::new(stack.url(), "POST /registry/heartbeat").token(&credential).json(&beat).send();
    assert_eq!(beat().status, 200);
    let deleted: Value =
        serde_json::from_str(&stack.ok(&["ws", "delete", "a", "--output", "json"])).unwrap();
    assert_eq!(deleted["status"], "removed");
    assert_eq!(stack.processes(), [0; 0], "it is gone when the answer comes");
    let refused = beat();
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("revoked")), "{refused:?}");
    assert_eq!(refused.json()["action"], "exit");
    assert_eq!(stack.ask("GET /workspaces"), json!([]));
    assert!(stack.tree(&id).join("workspace").is_dir(), "its data stays");
    stack.ok(&["ws", "delete", &id, "--purge"]);
    assert!(!stack.tree(&id).exists());
    let found = Call::new(stack.url(), &format!("GET /workspaces/{id}")).send();
    assert_eq!(found.status, 404);
    assert_eq!(beat().status, 401, "its tombstone remembers");
}

#[test]
fn a_purge_takes_a_running_workspace_and_what_is_below_it() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "top", "--wait"]);
    stack.ok(&["ws", "create", "below", "--parent", "top", "--wait"]);
    let ids = [stack.id("top"), stack.id("below")];
    let ran = stack.cli(&["ws", "delete", "top", "--purge"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("below") && ran.stderr.contains("--confirm"), "{}", ran.stderr);
    assert_eq!(stack.processes().len(), 2, "nothing happened");
    stack.ok(&["ws", "delete", "top", "--purge", "--confirm"]);
    assert_eq!(stack.processes(), [0; 0]);
    assert!(ids.iter().all(|id| !stack.tree(id).exists()));
}

#[test]
fn a_busy_pipe_reader_that_leaves_is_no_failure() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let path = stack.tree(&stack.id("a")).join("logs/agent.log");
    let mut log = fs::OpenOptions::new().append(true).open(path).unwrap();
    log.write_all("a line of some length\n".repeat(20_000).as_bytes()).unwrap();
    let mut verb = stack.follow(&["ws", "logs", "a", "--lines", "10000"]);
    verb.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = verb.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(generation(&stack.workspace("a")), 1);
}
