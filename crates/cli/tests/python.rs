//! A foreign agent: an A2A server in Python that knows nothing of Ligand.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::Call;
use crate::instances::program;
use crate::stack::{Stack, service, until};

const HEARD: &str = "python agent heard: hi";

#[test]
fn a_python_agent_answers_in_both_protocols_and_is_kept() {
    let Some(python) = service("LIGAND_TEST_PYTHON") else { return };
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python-agent/agent.py");
    let agent = agent.canonicalize().unwrap();
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
