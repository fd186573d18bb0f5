//! A foreign agent: an A2A server in Python that knows nothing of Ligand; and clients of the same origin, which know
//! nothing of Ligand either, and reach agents through it.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::Call;
use crate::instances::program;
use crate::stack::{Stack, service, until};

const HEARD: &str = "python agent heard: hi";

#[test]
fn a_python_agent_answers_in_both_protocols_and_is_kept() {
    let Some(python) = service("LIGAND_TEST_PYTHON") else { return };
    let agent = example("agent.py");
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "py", "--wait", "--", &python, agent.to_str().unwrap()]);
    let id = stack.id("py");
    let leader = stack.leader(&id, 1);
    for round in 1..=2 {
        assert_eq!(stack.ok(&["ws", "send", "py", "hi"]), format!("{HEARD}\n"), "round {round}");
        let old = json!({ "role": "user", "messageId": format!("old-{round}"),
            "parts": [{ "kind": "text", "text": "hi" }] });
        let answer = ask(&stack, &id, "message/send", &old, None);
        assert_eq!(answer["result"]["parts"][0]["text"], HEARD, "{answer}");
        let new = json!({ "role": "ROLE_USER", "messageId": format!("new-{round}"),
            "parts": [{ "text": "hi" }] });
        let answer = ask(&stack, &id, "SendMessage", &new, Some("1.0"));
        assert_eq!(answer["result"]["message"]["parts"][0]["text"], HEARD, "{answer}");
        if round == 1 {
            let child = program(&stack, leader).unwrap();
            stack.signal(child, Signal::KILL);
            until("it runs again", || program(&stack, leader).filter(|pid| *pid != child));
            until("it answers", || {
                (stack.cli(&["ws", "send", "py", "hi"]).code == 0).then_some(())
            });
        }
    }
    assert_eq!((stack.settled(&id), stack.leader(&id, 1)), (1, leader));
}

const BOTH: [&str; 2] = ["1.0", "0.3"];
const ALL: [&str; 7] = ["send", "task", "get", "stream", "cancel", "cancel a stream", "subscribe"];

#[test]
fn the_official_client_reaches_agents_through_ligand_in_both_protocols() {
    let Some(python) = service("LIGAND_TEST_PYTHON") else { return };
    let (stack, caller) = with_agents(&python, &example("agent.py"));
    let (py, echo) = (place(&stack, "py"), place(&stack, "echo"));
    let checks = beside("official_client.py");
    let said = client(&python, &checks, &[&py, BOTH[0], BOTH[1]], &[("TOKEN", &caller)]);
    assert_eq!(said, held(&BOTH, &ALL));
    let admin = stack.admin();
    let vars = [("TOKEN", admin.as_str()), ("ECHO", "echo: hi")];
    assert_eq!(client(&python, &checks, &[&echo, "0.3"], &vars), held(&["0.3"], &["send"]));
    let shown = example("client.py");
    let said = client(&python, &shown, &[&py, "count to 3"], &[("LIGAND_TOKEN", &admin)]);
    assert_eq!(said, "1\n2\n3\n");
}

#[test]
fn agents_and_clients_of_the_older_protocol_alone_meet_newer_ones() {
    let Some(python) = service("LIGAND_TEST_PYTHON") else { return };
    let Some(older) = service("LIGAND_TEST_PYTHON_OLDER") else { return };
    let (stack, caller) = with_agents(&older, &beside("older/agent.py"));
    let newer = example("agent.py");
    stack.ok(&["ws", "create", "newer", "--wait", "--", &python, newer.to_str().unwrap()]);
    let vars = [("TOKEN", caller.as_str()), ("ECHO", "older agent heard: hi")];
    let (py, newer, echo) = (place(&stack, "py"), place(&stack, "newer"), place(&stack, "echo"));
    let said = client(&python, &beside("official_client.py"), &[&py, "0.3"], &vars);
    assert_eq!(said, held(&["0.3"], &["send"]));
    let checks = beside("older/client.py");
    let expected = held(&["older"], &["send", "task", "get", "stream", "cancel"]);
    let said = client(&older, &checks, &[&py, "older agent heard: hi"], &vars);
    assert_eq!(said, expected);
    let said = client(&older, &checks, &[&newer, "python agent heard: hi"], &vars);
    assert_eq!(said, expected);
    let said = client(&older, &checks, &[&echo, "echo: hi", "alone"], &vars);
    assert_eq!(said, held(&["older"], &["send"]));
}

/// A stack with the agent `py`, one that only echoes, and a workspace beside them. Gives a credential of the last.
fn with_agents(python: &str, agent: &Path) -> (Stack, String) {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "py", "--wait", "--", python, agent.to_str().unwrap()]);
    for name in ["echo", "caller"] {
        stack.ok(&["ws", "create", name, "--wait"]);
    }
    let minted = stack.ask(&format!("POST /workspaces/{}/tokens", stack.id("caller")));
    let caller = minted["auth_token"].as_str().unwrap().to_owned();
    (stack, caller)
}

/// Where a client is pointed at.
fn place(stack: &Stack, name: &str) -> String {
    format!("{}/workspaces/{}", stack.url(), stack.id(name))
}

/// What a client prints where all of this went well.
fn held(versions: &[&str], what: &[&str]) -> String {
    let line = |version, what| format!("{version} {what}\n");
    versions.iter().flat_map(|version| what.iter().map(move |it| line(version, it))).collect()
}

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python-agent");
    folder.join(name).canonicalize().unwrap()
}

/// Run a client that is to succeed, with nothing in its environment but this; gives what it printed.
#[expect(clippy::disallowed_methods, reason = "a client of another make is a process")]
fn client(python: &str, script: &Path, args: &[&str], vars: &[(&str, &str)]) -> String {
    let ran =
        Command::new(python).arg(script).args(args).env_clear().envs(vars.iter().copied()).output();
    let ran = ran.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{args:?}\n{said}\n{complained}");
    said
}

fn ask(stack: &Stack, id: &str, method: &str, message: &Value, version: Option<&str>) -> Value {
    let body =
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "message": message } });
    let line = format!("POST /workspaces/{id}/a2a");
    let call = Call::new(stack.url(), &line).token(&stack.admin()).json(&body);
    let call = match version {
        Some(version) => call.header("a2a-version", version),
        None => call,
    };
    let answer = call.send();
    assert_eq!(answer.status, 200, "{method}: {answer:?}");
    answer.json()
}
