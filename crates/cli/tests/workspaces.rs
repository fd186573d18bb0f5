//! `ligand ws list`, `get`, `send`, `restart`, `delete`, `logs`.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply, ok, refusal};
use crate::run::{TOKEN, ligand};
use crate::sample::{self, DEMO, OTHER};

/// A server with two workspaces that answers one request more.
fn fake(line: &'static str, reply: impl Fn(&Value) -> Reply + Send + 'static) -> Fake {
    Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        asked if asked == line => reply(&request.body),
        _ => refusal(404, "not found"),
    })
}

fn two() -> Fake {
    fake("", |_| Reply::Silence)
}

#[test]
fn list_is_a_table() {
    insta::assert_snapshot!(ligand(&two(), "ws list").transcript());
}

#[test]
fn list_of_nothing_is_a_header() {
    let fake = Fake::start(|_| ok(json!([])));
    insta::assert_snapshot!(ligand(&fake, "ws list").transcript());
}

#[test]
fn json_is_what_the_server_said() {
    let ran = ligand(&two(), "ws list --output json");
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|workspace| workspace["name"].clone()).collect()
    };
    assert_eq!(names(&printed), names(&sample::both()));
    assert_eq!(printed[1]["last_error"], "exit code 1");
    assert_eq!(ran.stderr, "");
}

#[test]
fn get_takes_a_name_or_an_id() {
    let line = "GET /workspaces/22222222-2222-4222-8222-222222222222";
    let fake = fake(line, |_| ok(sample::failed()));
    let by_name = ligand(&fake, "ws get sad").transcript();
    assert_eq!(by_name, ligand(&fake, &format!("ws get {OTHER}")).transcript());
    insta::assert_snapshot!(by_name);
    assert_eq!(fake.asked(), ["GET /workspaces", line, line], "an id needs no list");
}

#[test]
fn an_unknown_name_is_refused() {
    insta::assert_snapshot!(ligand(&two(), "ws get nobody").transcript());
}

#[test]
fn an_ambiguous_name_is_refused() {
    let twin = sample::with(sample::workspace("online", 1), &json!({ "id": OTHER }));
    let fake = Fake::start(move |_| ok(json!([sample::workspace("online", 2), twin])));
    insta::assert_snapshot!(ligand(&fake, "ws get demo").transcript());
}

const A2A: &str = "POST /workspaces/11111111-1111-4111-8111-111111111111/a2a";

#[test]
fn send_prints_what_the_agent_says() {
    let fake = fake(A2A, |body| {
        let parts = &body["params"]["message"]["parts"];
        ok(json!({ "jsonrpc": "2.0", "result": { "role": "agent", "parts": parts } }))
    });
    let ran = ligand(&fake, "ws send demo hello");
    assert_eq!((ran.stdout.as_str(), ran.code), ("hello\n", 0));
}

#[test]
fn send_shows_what_is_no_text() {
    let fake = fake(A2A, |_| Reply::Json(202, json!({ "queued": true })));
    assert_eq!(ligand(&fake, "ws send demo hello").stdout, "{\"queued\":true}\n");
}

#[test]
fn send_fails_when_the_agent_does() {
    let error = json!({ "code": -32603, "message": "out of tokens", "data": "try tomorrow" });
    let fake = fake(A2A, move |_| ok(json!({ "jsonrpc": "2.0", "error": error })));
    insta::assert_snapshot!(ligand(&fake, "ws send demo hello").transcript());
    let ran = ligand(&fake, "ws send demo hello --output json");
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((printed["error"]["code"].as_i64(), ran.code), (Some(-32603), 1));
}

#[test]
fn send_gives_up_in_time() {
    let fake = fake(A2A, |_| Reply::Silence);
    insta::assert_snapshot!(ligand(&fake, "ws send demo hello --timeout 1").transcript());
}

/// A server whose workspace takes these states one after the other once it was restarted.
fn restarting(states: Vec<Value>, answer: Value) -> Fake {
    let mut restarted = false;
    let mut states = states.into_iter();
    let mut last = sample::workspace("online", 2);
    Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        line if line == format!("GET /workspaces/{DEMO}") => {
            if restarted {
                last = states.next().unwrap_or(last.clone());
            }
            ok(last.clone())
        }
        line if line == format!("POST /workspaces/{DEMO}/restart") => {
            restarted = true;
            ok(answer.clone())
        }
        line if line == format!("GET /workspaces/{DEMO}/why") => ok(json!({
            "workspace": last, "next": "nothing", "instances": [],
            "journal": [{ "seq": 1, "at": sample::SINCE, "generation": 3, "kind": "refused",
                          "summary": "runtime echo has no recipe", "evidence": {} }],
        })),
        _ => refusal(404, "not found"),
    })
}

#[test]
fn restart_waits_for_the_next_generation() {
    let states = vec![
        sample::workspace("online", 2),
        sample::workspace("provisioning", 2),
        sample::workspace("online", 3),
    ];
    let fake = restarting(states, json!({ "status": "provisioning" }));
    insta::assert_snapshot!(ligand(&fake, "ws restart demo --wait").transcript());
}

#[test]
fn restart_that_fails_tells_why() {
    let fields = json!({ "since": "2098-01-01T00:00:00Z" });
    let states = vec![sample::with(sample::workspace("failed", 2), &fields)];
    let fake = restarting(states, json!({ "status": "provisioning" }));
    insta::assert_snapshot!(ligand(&fake, "ws restart demo --wait").transcript());
}

#[test]
fn restart_that_takes_too_long_tells_how_it_stands() {
    let fields = json!({ "last_error": "still pulling the image" });
    let states = vec![sample::with(sample::workspace("provisioning", 2), &fields)];
    let fake = restarting(states, json!({ "status": "provisioning" }));
    insta::assert_snapshot!(ligand(&fake, "ws restart demo --wait --timeout 1").transcript());
}

#[test]
fn restart_that_does_nothing_is_not_awaited() {
    let answer = json!({ "status": "noop", "message": "no backend runs this workspace" });
    let fake = restarting(Vec::new(), answer);
    insta::assert_snapshot!(ligand(&fake, "ws restart demo --wait").transcript());
    assert_eq!(ligand(&fake, "ws restart demo").code, 0);
}

#[test]
fn delete_that_takes_others_along_wants_a_word() {
    let fake = Fake::start(|request| {
        assert_eq!(request.token.as_deref(), Some(TOKEN));
        let child = sample::with(sample::failed(), &json!({ "parent_id": DEMO }));
        match request.line.as_str() {
            "GET /workspaces" => ok(json!([sample::workspace("online", 2), child])),
            line if line.contains("confirm=true&purge=true") => {
                ok(json!({ "status": "purged", "cascade_deleted": 1 }))
            }
            _ => Reply::Json(
                409,
                json!({ "status": "confirmation_required", "message": "", "children": [],
                        "children_count": 1 }),
            ),
        }
    });
    insta::assert_snapshot!("delete_unconfirmed", ligand(&fake, "ws delete demo").transcript());
    let confirmed = ligand(&fake, "ws delete demo --confirm --purge");
    insta::assert_snapshot!("delete_confirmed", confirmed.transcript());
}

#[test]
fn logs_are_printed_as_they_are() {
    let line = "GET /workspaces/11111111-1111-4111-8111-111111111111/logs?lines=2";
    let fake = fake(line, |_| Reply::Text("one\n\u{1b}[1mtwo\u{1b}[0m\n".to_owned()));
    assert_eq!(ligand(&fake, "ws logs demo --lines 2").stdout, "one\n\u{1b}[1mtwo\u{1b}[0m\n");
    let ran = ligand(&fake, "ws logs demo --lines 2 --output json");
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(printed["lines"][0], "one");
}

const PAUSE: &str = "POST /workspaces/11111111-1111-4111-8111-111111111111/pause?cascade=false";

#[test]
fn a_pause_names_those_below() {
    let child = json!({ "id": OTHER, "name": "sad" });
    let fake = fake(PAUSE, move |_| {
        Reply::Json(409, json!({ "error": "workspace has descendants", "descendants": [child] }))
    });
    let ran = ligand(&fake, "ws pause demo");
    assert_eq!(ran.code, 1);
    for word in ["sad", "--cascade", "was not paused"] {
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
}

#[test]
fn a_pause_that_goes_on_is_waited_for() {
    let mut left = 3;
    let fake = Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        line if line == PAUSE => {
            Reply::Json(202, json!({ "status": "pausing", "paused_count": 1 }))
        }
        line if line == format!("GET /workspaces/{DEMO}") => {
            left -= 1;
            ok(sample::workspace(if left > 0 { "online" } else { "paused" }, 1))
        }
        _ => refusal(404, "not found"),
    });
    let ran = ligand(&fake, "ws pause demo");
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert!(
        ran.stdout.contains("paused") && ran.stderr.contains("demo is online"),
        "{}",
        ran.transcript()
    );
}

#[test]
fn a_hibernation_says_what_keeps_it_awake() {
    let line = "POST /workspaces/11111111-1111-4111-8111-111111111111/hibernate?force=false";
    let fake = fake(line, |_| {
        Reply::Json(409, json!({ "error": "workspace has active tasks", "active_tasks": 3 }))
    });
    let ran = ligand(&fake, "ws hibernate demo");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("turns in progress: 3") && ran.stderr.contains("--force"),
        "{}",
        ran.stderr
    );
}

#[test]
fn resume_wake_and_recover_say_how_it_stands() {
    for (verb, path, answer) in [
        ("resume", "resume?cascade=false", json!({ "status": "provisioning", "resumed_count": 2 })),
        ("wake", "wake", json!({ "status": "provisioning" })),
        (
            "recover",
            "recover",
            json!({ "status": "provisioning", "workspace_id": DEMO, "failures_forgotten": 7 }),
        ),
    ] {
        let wanted = format!("POST /workspaces/{DEMO}/{path}");
        let fake = Fake::start(move |request| match request.line.as_str() {
            "GET /workspaces" => ok(sample::both()),
            line if line == wanted => ok(answer.clone()),
            line if line == format!("GET /workspaces/{DEMO}") => ok(sample::workspace("failed", 1)),
            _ => refusal(404, "not found"),
        });
        let ran = ligand(&fake, &format!("ws {verb} demo"));
        assert_eq!(ran.code, 0, "{}", ran.transcript());
        assert!(ran.stdout.contains("provisioning"), "{}", ran.transcript());
    }
}
