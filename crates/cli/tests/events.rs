//! `ligand events`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::{Fake, Reply, ok, refusal};
use crate::run::{Home, TOKEN, command, ligand};
use crate::sample::{self, DEMO, OTHER};

fn event(seq: Option<i64>, name: &str, workspace: &str, payload: &Value) -> Value {
    let mut event = json!({
        "event": name, "workspace_id": workspace, "payload": payload,
        "timestamp": "2026-01-02T03:04:05.678901Z",
    });
    if let Some(seq) = seq {
        event["seq"] = seq.into();
    }
    event
}

fn online(seq: i64) -> Value {
    event(Some(seq), "WORKSPACE_ONLINE", DEMO, &json!({ "generation": seq }))
}

/// A server whose stream breaks once, and then repeats an event before it goes on.
fn breaking() -> Fake {
    Fake::start(|request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        "GET /events/stream?after=3" => Reply::Events(vec![
            online(4),
            event(None, "WORKSPACE_HEARTBEAT", DEMO, &json!({})),
            event(Some(5), "WORKSPACE_OFFLINE", OTHER, &json!({ "why": "exit\ncode 1" })),
        ]),
        "GET /events/stream?after=5" => Reply::EventsOpen(vec![
            event(Some(5), "WORKSPACE_OFFLINE", OTHER, &json!({})),
            event(Some(6), "ORG_CHANGED", "33333333-3333-4333-8333-333333333333", &Value::Null),
        ]),
        line => refusal(400, line),
    })
}

#[test]
fn a_broken_stream_is_resumed_without_repeating() {
    let fake = breaking();
    insta::assert_snapshot!(ligand(&fake, "events --after 3 --for 2").transcript());
    let streams: Vec<String> =
        fake.asked().into_iter().filter(|line| line.contains("stream")).collect();
    assert_eq!(streams, ["GET /events/stream?after=3", "GET /events/stream?after=5"]);
}

#[test]
fn broadcasts_are_shown_on_demand_and_others_left_out() {
    let ran = ligand(&breaking(), "events --after 3 --for 1 --all --workspace demo --output json");
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&Value> = lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(names, ["WORKSPACE_ONLINE", "WORKSPACE_HEARTBEAT"]);
}

#[test]
fn a_first_refusal_is_final_and_so_is_a_later_one() {
    let fake = Fake::start(|_| refusal(401, "missing token"));
    assert_eq!(ligand(&fake, "events").code, 4);
    let mut first = true;
    let fake = Fake::start(move |_| {
        if std::mem::take(&mut first) { Reply::Events(Vec::new()) } else { refusal(401, "revoked") }
    });
    insta::assert_snapshot!(ligand(&fake, "events").transcript());
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut seq = 0;
    let fake = Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        _ => {
            seq += 1;
            Reply::Events(vec![online(seq)])
        }
    });
    let vars = [("LIGAND_SERVER", &*fake.url()), ("LIGAND_TOKEN", TOKEN)];
    let mut child = command(&Home::new(), &vars, &["events"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // The reader is dropped with the statement: the next event finds nobody.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("demo"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
