//! Exit codes, and where server and token come from.

use serde_json::json;

use crate::fake::{Fake, Reply, ok, refusal};
use crate::run::{Home, TOKEN, ligand, run};
use crate::sample;

/// Nothing listens on this port of the machine itself.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn done_is_0() {
    let fake = Fake::start(|_| ok(sample::both()));
    assert_eq!(ligand(&fake, "ws list").code, 0);
}

#[test]
fn refused_is_1() {
    let fake = Fake::start(|_| {
        Reply::Json(503, json!({ "error": "platform unavailable", "retry_after": 3 }))
    });
    insta::assert_snapshot!(ligand(&fake, "ws list").transcript());
}

#[test]
fn an_answer_that_cannot_be_read_is_1() {
    let fake = Fake::start(|_| Reply::Text("<html>".to_owned()));
    insta::assert_snapshot!(ligand(&fake, "ws list").transcript());
}

#[test]
fn usage_is_2() {
    let home = Home::new();
    for args in [&["no-such-verb"][..], &["ws", "get"], &[], &["ws", "list", "--output", "xml"]] {
        assert_eq!(run(&home, &[], args).code, 2, "{args:?}");
    }
    for server in ["127.0.0.1:8080", "http://user:a-token-nobody-may-see@127.0.0.1"] {
        assert_eq!(run(&home, &[], &["ws", "list", "--server", server]).code, 2, "{server}");
    }
    let token = format!("{TOKEN}\n");
    let args = ["ws", "list", "--server", NOBODY, "--token", &token];
    insta::assert_snapshot!(run(&home, &[], &args).transcript());
}

#[test]
fn unreachable_is_3() {
    let home = Home::new();
    insta::assert_snapshot!("no_server_known", run(&home, &[], &["ws", "list"]).transcript());
    let args = ["ws", "list", "--server", NOBODY, "--token", TOKEN];
    insta::assert_snapshot!("nobody_answers", run(&home, &[], &args).transcript());
}

#[test]
fn not_allowed_is_4() {
    let fake = Fake::start(|_| refusal(401, "invalid token"));
    insta::assert_snapshot!("unauthenticated", ligand(&fake, "ws list").transcript());
    let fake = Fake::start(|_| refusal(403, "admin token required"));
    insta::assert_snapshot!("forbidden", ligand(&fake, "ws list").transcript());
}

#[test]
fn no_answer_in_time_is_5() {
    let fake = Fake::start(|_| Reply::Silence);
    let verb = format!("ws send {} hello --timeout 1", sample::DEMO);
    assert_eq!(ligand(&fake, &verb).code, 5);
}

/// A server that tells which token it was shown.
fn curious() -> Fake {
    Fake::start(|request| match request.token.as_deref() {
        Some("recorded") => ok(json!([])),
        Some(_) => refusal(400, "another token"),
        None => refusal(401, "missing token"),
    })
}

fn record(home: &Home, server: &str) {
    let token = home.put("data/admin-token", "recorded\n");
    let local = json!({ "server": server, "token_path": token });
    home.put(".local/state/ligand/local.json", &local.to_string());
}

#[test]
fn a_server_on_this_machine_is_found() {
    let (home, fake) = (Home::new(), curious());
    record(&home, &fake.url());
    assert_eq!(run(&home, &[], &["ws", "list"]).code, 0);
    let token = [("LIGAND_TOKEN", TOKEN)];
    assert_eq!(run(&home, &token, &["ws", "list"]).code, 1, "the environment goes first");
}

#[test]
fn a_recorded_token_is_shown_to_its_server_only() {
    let (home, fake) = (Home::new(), curious());
    record(&home, NOBODY);
    assert_eq!(run(&home, &[], &["ws", "list", "--server", &fake.url()]).code, 4);
}

#[test]
fn a_token_that_cannot_be_read_is_told() {
    let (home, fake) = (Home::new(), curious());
    let url = fake.url();
    record(&home, &url);
    home.put("data/admin-token", "");
    let ran = run(&home, &[("LIGAND_SERVER", &url)], &["ws", "list"]);
    insta::assert_snapshot!(ran.transcript());
}
