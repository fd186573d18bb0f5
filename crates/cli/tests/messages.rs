//! `ligand messages`, and the ways of `ligand ws send`.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply, ok, refusal};
use crate::run::ligand;
use crate::sample::{self, DEMO, OTHER, SINCE};
use crate::stack::{Stack, until};

const ONE: &str = "33333333-3333-4333-8333-333333333333";
const TWO: &str = "44444444-4444-4444-8444-444444444444";

fn message(id: &str, state: &str, fields: &Value) -> Value {
    let message = json!({
        "queue_id": id, "workspace_id": DEMO, "caller_id": null, "origin": "queue",
        "method": "message/send", "key": "m1", "priority": 50, "status": "completed",
        "state": state, "attempt": 1, "generation": 1, "maybe_run": false, "accepted_at": SINCE,
        "due_at": SINCE, "last_error": null, "response_cut": false,
    });
    sample::with(message, fields)
}

fn dead() -> Value {
    let error = "the server that delivered it ended";
    message(
        TWO,
        "dead",
        &json!({"caller_id": OTHER, "attempt": 2, "maybe_run": true, "last_error": error}),
    )
}

fn ledger() -> Fake {
    let whole = json!({
        "delivered_at": "2026-01-02T03:04:05Z", "evidence": "agent", "response_status": 200,
        "body": {"params": {"message": {"parts": [{"text": "hi"}]}}},
        "response": {"result": {"parts": [{"text": "echo: hi"}]}},
    });
    Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        "GET /admin/messages?limit=50" => {
            ok(json!({"messages": [message(ONE, "processed", &json!({})), dead()], "next": null}))
        }
        line if line == format!("GET /admin/messages?workspace_id={DEMO}&state=dead&limit=500") => {
            ok(json!({"messages": [dead()], "next": "7.x"}))
        }
        line if line.ends_with("&limit=500&after=7.x") => ok(json!({"messages": [dead()]})),
        line if line == format!("GET /admin/messages/{ONE}") => {
            ok(message(ONE, "processed", &whole))
        }
        line if line == format!("POST /admin/messages/{TWO}/replay") => {
            Reply::Json(202, message(TWO, "accepted", &json!({})))
        }
        line if line == format!("POST /admin/messages/{TWO}/drop") => {
            refusal(409, "the message is dead")
        }
        _ => refusal(404, "message not found"),
    })
}

#[test]
fn the_ledger_is_listed_with_what_is_worth_knowing() {
    insta::assert_snapshot!(ligand(&ledger(), "messages list").transcript());
}

#[test]
fn pages_are_put_together_as_far_as_asked() {
    let fake = ledger();
    let args = "messages list --workspace demo --state dead --limit 600 --output json";
    let printed: Value = serde_json::from_str(&ligand(&fake, args).stdout).unwrap();
    assert_eq!(printed["messages"].as_array().unwrap().len(), 2, "{:?}", fake.asked());
    let ran = ligand(&fake, "messages list --state lost");
    assert_eq!(ran.code, 2, "{}", ran.transcript());
    assert!(ran.stderr.contains("acknowledged"), "{}", ran.stderr);
}

#[test]
fn one_is_shown_with_what_was_said() {
    insta::assert_snapshot!(ligand(&ledger(), &format!("messages show {ONE}")).transcript());
}

#[test]
fn one_is_delivered_again_or_taken_away() {
    let ran = ligand(&ledger(), &format!("messages replay {TWO}"));
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert!(ran.stdout.contains("accepted"), "{}", ran.stdout);
    let ran = ligand(&ledger(), &format!("messages drop {TWO}"));
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    assert!(
        ran.stderr.contains("the message is dead") && ran.stderr.contains("messages show"),
        "{}",
        ran.stderr
    );
    let ran = ligand(&ledger(), "messages show not-an-id");
    assert_eq!(ran.code, 2, "{}", ran.transcript());
}

fn streamed(events: Vec<Value>) -> Fake {
    Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        _ if request.body["method"] == "message/stream" => Reply::Events(events.clone()),
        line => panic!("{line}"),
    })
}

fn event(result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "result": result})
}

#[test]
fn an_answer_is_printed_as_it_comes() {
    let piece = |text: &str, append: bool| {
        event(
            json!({"kind": "artifact-update", "append": append, "artifact": {"parts": [{"text": text}]}}),
        )
    };
    let status = |state: &str| event(json!({"kind": "status-update", "status": {"state": state}}));
    let fake =
        streamed(vec![status("working"), piece("a", false), piece("b", true), status("completed")]);
    let ran = ligand(&fake, "ws send demo hi --follow");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ab\n"), "{}", ran.transcript());
    let ran = ligand(&fake, "ws send demo hi --follow --output json");
    assert_eq!(ran.stdout.lines().count(), 4, "{}", ran.stdout);
    let fake = streamed(vec![piece("a", false), status("failed")]);
    let ran = ligand(&fake, "ws send demo hi -f");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "a\n"), "{}", ran.transcript());
    assert!(ran.stderr.contains("its task is failed"), "{}", ran.stderr);
    let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no key"}});
    let ran = ligand(&streamed(vec![error]), "ws send demo hi -f");
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    assert!(ran.stderr.contains("no key"), "{}", ran.stderr);
}

/// On a real server, with a real agent.
#[test]
fn every_way_to_send_ends_in_the_ledger() {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    assert_eq!(stack.ok(&["ws", "send", "a", "one", "--follow"]), "echo: one\n");
    assert_eq!(stack.ok(&["ws", "send", "a", "two", "--wait", "20"]), "echo: two\n");
    let queued = stack.ok(&["ws", "send", "a", "three", "--async", "--output", "json"]);
    let queued: Value = serde_json::from_str(&queued).unwrap();
    let id = queued["queue_id"].as_str().unwrap();
    let shown = until("it is processed", || {
        let shown = stack.ok(&["messages", "show", id]);
        shown.contains("echo: three").then_some(shown)
    });
    assert!(shown.contains("processed") && shown.contains("agent"), "{shown}");
    let list = stack.ok(&["messages", "list", "--workspace", "a", "--state", "processed"]);
    assert_eq!(list.lines().count(), 4, "{list}");
    let why = stack.ok(&["why", "a"]);
    assert!(
        why.contains("\nmessages\n") && why.contains(&format!("{id}  processed, queue")),
        "{why}"
    );
    assert_eq!(stack.cli(&["messages", "replay", id]).code, 1);
    assert_eq!(stack.cli(&["messages", "drop", id]).code, 1);
}
