//! What an instance is given, and what becomes of it when that is not enough.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::Call;
use crate::stack::{PATIENCE, Stack, environment, generation, now, until};

const CANARY: &str = "a-canary-of-the-server";

/// A program that answers turns and needs nothing but this binary: an agent that nobody takes for one,
/// because the platform it is told of does not exist.
const PROGRAM: &str = "unset LIGAND_LISTEN_STDIN LIGAND_AGENT_URL LIGAND_LOG_DIR LIGAND_MANAGED; \
    exec \"$0\" agent --platform-url http://127.0.0.1:1 --workspace-id program \
    --configs-dir \"$HOME\" --listen \"127.0.0.1:$PORT\"";

/// Creates the workspace `c` around [`PROGRAM`]; gives its id.
pub(crate) fn create_around_a_program(stack: &Stack) -> String {
    let own = env!("CARGO_BIN_EXE_ligand");
    stack.ok(&["ws", "create", "c", "--wait", "--", "sh", "-c", PROGRAM, own]);
    stack.id("c")
}

/// The program beside the agent of an instance; `None` between two of its runs.
pub(crate) fn program(stack: &Stack, leader: u32) -> Option<u32> {
    let others: Vec<u32> = stack.processes().into_iter().filter(|pid| *pid != leader).collect();
    assert!(others.len() <= 1, "{others:?}");
    others.first().copied()
}

/// A field of `/proc/PID/stat`, counted from the state, which is 0.
fn stat(pid: u32, field: usize) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = text.rsplit_once(')').unwrap();
    rest.split_ascii_whitespace().nth(field).unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_instance_starts_from_nothing_in_a_place_of_its_own() {
    let vars = [("LIGAND_E2E", CANARY), ("ADMIN_TOKEN", "an-admin-token-of-the-environment")];
    let stack = Stack::start(&["serve", "platform"], &vars);
    let admin = [("LIGAND_SERVER", stack.url()), ("LIGAND_TOKEN", vars[1].1)];
    let ran = crate::run::run(&crate::run::Home::new(), &admin, &["ws", "create", "a", "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert!(!stack.data().join("admin-token").exists(), "it was set outright");
    let leader = stack.processes()[0];
    let environment = environment(leader);
    let value = |name: &str| {
        let mut entries = environment.iter().filter_map(|entry| entry.split_once('='));
        entries.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    assert_eq!((value("LIGAND_E2E"), value("ADMIN_TOKEN")), (None, None));
    assert!(!environment.iter().any(|entry| entry.contains(CANARY) || entry.contains(vars[1].1)));
    let id = value("WORKSPACE_ID").unwrap();
    let tree = stack.tree(&id);
    assert_eq!(value("PLATFORM_URL").as_deref(), Some(stack.url()));
    assert_eq!(value("LIGAND_GENERATION").as_deref(), Some("1"));
    assert_eq!(value("HOME"), Some(tree.join("home").display().to_string()));
    let cwd = fs::read_link(format!("/proc/{leader}/cwd")).unwrap();
    assert_eq!(cwd, tree.join("workspace").canonicalize().unwrap());
    assert_eq!(stat(leader, 2), leader.to_string(), "it leads a process group of its own");
    assert_ne!(stat(leader, 2), stat(stack.server_pid(), 2));
    for dir in ["", "configs", "workspace", "home", "logs", "run"] {
        assert_eq!(mode(&tree.join(dir)), 0o700, "{dir}");
    }
    for file in ["configs/.auth_token", "logs/agent.log", "logs/boot.log", "run/1.json"] {
        assert_eq!(mode(&tree.join(file)), 0o600, "{file}");
    }
    let open = fs::read_dir(format!("/proc/{leader}/fd")).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let servers = |path: &Path| path.starts_with(stack.data()) && !path.starts_with(&tree);
    assert!(!open.iter().any(|path| servers(path)), "a file of the server: {open:?}");
}

#[test]
fn a_program_answers_and_is_kept() {
    let stack = Stack::platform();
    let id = create_around_a_program(&stack);
    assert_eq!(stack.ok(&["ws", "send", "c", "hi"]), "echo: hi\n");
    let leader = stack.leader(&id, 1);
    let first = program(&stack, leader).unwrap();
    let environment = environment(first);
    assert!(environment.iter().any(|entry| entry == "HOST=127.0.0.1"), "{environment:?}");
    stack.signal(first, Signal::KILL);
    let second = until("it runs again", || program(&stack, leader).filter(|pid| *pid != first));
    until("it answers again", || (stack.cli(&["ws", "send", "c", "hi"]).code == 0).then_some(()));
    assert_eq!((stack.settled(&id), stack.leader(&id, 1)), (1, leader), "the agent stayed");
    stack.signal(second, Signal::KILL);
    // Both, at once: the whole instance is replaced.
    stack.kill_instance(leader);
    until("generation 2 settles", || (stack.settled(&id) == 2).then_some(()));
    assert_eq!(stack.ok(&["ws", "send", "c", "hi"]), "echo: hi\n");
    stack.ok(&["ws", "delete", "c"]);
    assert_eq!(stack.processes(), [0; 0], "the program ends with its agent");
}

#[test]
fn a_program_outlives_no_agent() {
    let stack = Stack::platform();
    let id = create_around_a_program(&stack);
    let leader = stack.leader(&id, 1);
    let orphan = program(&stack, leader).unwrap();
    stack.signal(leader, Signal::KILL);
    until("generation 2 settles", || (stack.settled(&id) == 2).then_some(()));
    let alive = stack.processes();
    assert!(!alive.contains(&orphan), "two programs of one workspace: {alive:?}");
    assert_eq!(alive.len(), 2, "{alive:?}");
}

/// Tells of a turn while the program is away; gives the answer's status and body.
#[test]
fn an_unreachable_program_is_told_and_comes_back() {
    let stack = Stack::platform();
    let id = create_around_a_program(&stack);
    let leader = stack.leader(&id, 1);
    let turn = || {
        let message = json!({ "role": "user", "parts": [{ "kind": "text", "text": "hi" }] });
        let body = json!({ "method": "message/send", "params": { "message": message } });
        let line = format!("POST /workspaces/{id}/a2a");
        Call::new(stack.url(), &line).token(&stack.admin()).json(&body).send()
    };
    // The first restart goes at once, the third waits a second: long enough to be seen.
    for _ in 0..3 {
        until("it answers", || (turn().status == 200).then_some(()));
        let process = program(&stack, leader).unwrap();
        stack.signal(process, Signal::KILL);
        until("it is gone", || (program(&stack, leader) != Some(process)).then_some(()));
    }
    let refused = until("it is away", || Some(turn()).filter(|answer| answer.status != 200));
    assert!([502, 503].contains(&refused.status), "{refused:?}");
    assert!(refused.json()["error"].as_str().unwrap().contains("program"), "{refused:?}");
    let ran = stack.cli(&["ws", "send", "c", "hi"]);
    assert!(ran.code == 0 || ran.stderr.contains("ligand why c"), "{}", ran.transcript());
    until("it answers again", || (turn().status == 200).then_some(()));
    assert_eq!(stack.settled(&id), 1);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let stack = Stack::platform();
    let ran = stack.cli(&["ws", "create", "c", "--wait", "--", "/no/such/program", "--flag"]);
    assert_eq!(ran.code, 5, "{}", ran.transcript());
    assert!(ran.stderr.contains("cannot start /no/such/program"), "{}", ran.transcript());
    assert!(ran.stderr.contains("ligand why c"), "{}", ran.transcript());
    let id = stack.id("c");
    let waits = until("it waits before the next attempt", || {
        let seen = stack.workspace("c");
        let later = seen["next_attempt_at"].is_string()
            && stack.why(&id)["next"].as_str().unwrap().starts_with("the next attempt");
        // The first ones go at once.
        let tries = stack.why(&id)["journal"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["kind"] == "given-up")
            .count();
        (seen["status"] == "failed" && later && tries > 10).then_some(seen)
    });
    let error = waits["last_error"].as_str().unwrap();
    assert!(error.contains("cannot start /no/such/program") && error.contains("127"), "{error}");
    assert_eq!(generation(&waits), 0, "nothing was ever admitted");
    let told = stack.ok(&["why", "c"]);
    assert!(told.contains("exited with code 127"), "{told}");
    assert!(told.contains("next: the next attempt to start it begins at"), "{told}");
    assert_eq!(stack.processes(), [0; 0]);
    let records = fs::read_dir(stack.tree(&id).join("run")).unwrap().count();
    assert!(records <= 2, "every start that was given up is forgotten, not {records} files kept");
    let begun = now();
    stack.ok(&["ws", "delete", "c", "--purge"]);
    assert!(begun.elapsed() < PATIENCE / 2);
    assert!(!stack.tree(&id).exists());
}

#[test]
fn a_start_that_is_impossible_is_told_in_every_language() {
    let stack = Stack::platform();
    let ran = stack.cli(&["ws", "create", "c", "--wait", "--runtime", "no-such-runtime"]);
    assert_eq!(ran.code, 5, "{}", ran.transcript());
    let cause = "the runtime `no-such-runtime` has no recipe for the backend `process`";
    assert!(ran.stderr.contains(cause), "{}", ran.transcript());
    let ran = stack.cli(&["ws", "create", "d", "--backend", "no-such-backend"]);
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    assert!(ran.stderr.contains("no-such-backend"), "{}", ran.transcript());
    let plain = stack.data().join("plain");
    fs::write(&plain, "no program").unwrap();
    let ran = stack.cli(&["ws", "create", "e", "--wait", "--", plain.to_str().unwrap()]);
    assert_eq!(ran.code, 5, "{}", ran.transcript());
    assert!(ran.stderr.contains("cannot start HOME/data/plain"), "{}", ran.transcript());
    assert!(ran.stderr.contains("exited with code 126"), "{}", ran.transcript());
}

#[test]
fn a_full_disk_costs_log_lines_and_nothing_else() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let log = stack.tree(&id).join("logs/agent.log");
    fs::remove_file(&log).unwrap();
    symlink("/dev/full", &log).unwrap();
    stack.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    let told = until("its trouble is told", || {
        let list: Value =
            serde_json::from_str(&stack.ok(&["ws", "list", "--output", "json"])).unwrap();
        let told = list[0]["last_sample_error"].as_str()?.to_owned();
        (!told.is_empty()).then_some(told)
    });
    assert!(told.contains("cannot write") && told.contains("No space left"), "{told}");
    assert_eq!((stack.settled(&id), stack.workspace("a")["status"].clone()), (2, json!("online")));
    assert_eq!(stack.cli(&["ws", "logs", "a"]).code, 0);
}
