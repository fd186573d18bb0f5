//! `ligand doctor`.

use serde_json::{Value, json};

use crate::fake::{Fake, ok, refusal};
use crate::run::{Home, TOKEN, ligand, run};
use crate::sample::{self, SINCE};

fn health(version: &str, database: &str) -> Value {
    json!({ "status": "ok", "version": version, "database": database, "uptime": 60 })
}

fn reconciler(last_error: Option<&str>) -> Value {
    json!({
        "does": "things", "passes": 3, "looked_at": 3, "steps": 0, "failed": 0,
        "last_pass_at": SINCE, "last_error": last_error,
    })
}

fn server(health: Value, list: Value, last_error: Option<&'static str>) -> Fake {
    Fake::start(move |request| match request.line.as_str() {
        "GET /health" => ok(health.clone()),
        "GET /workspaces" => ok(list.clone()),
        "GET /admin/liveness" => ok(json!({
            "status": "ok", "started_at": SINCE, "credentials_live": 1,
            "reconcilers": { "converge": reconciler(last_error), "leases": reconciler(None) },
        })),
        line => refusal(404, line),
    })
}

/// How many files may be open is the machine's business.
fn without_limit(text: &str) -> String {
    let about = |line: &&str| !line.contains("open files") && !line.contains("ulimit");
    text.lines().filter(about).map(|line| format!("{line}\n")).collect()
}

#[test]
fn all_is_well() {
    let health = health(env!("CARGO_PKG_VERSION"), "ok");
    let fake = server(health, json!([sample::workspace("online", 1)]), None);
    let ran = ligand(&fake, "doctor");
    let text = ran.transcript().replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(without_limit(&text));
}

#[test]
fn all_is_ill() {
    let fake = server(health("9.9.9", "unavailable"), sample::both(), Some("disk full"));
    let ran = ligand(&fake, "doctor");
    let text = ran.transcript().replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(without_limit(&text));
}

#[test]
fn a_refused_token_is_a_failure() {
    let fake = Fake::start(|request| match request.line.as_str() {
        "GET /health" => ok(health(env!("CARGO_PKG_VERSION"), "ok")),
        _ => refusal(401, "invalid token"),
    });
    let ran = ligand(&fake, "doctor --output json");
    assert_eq!(ran.code, 1);
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    let access = printed["checks"].as_array().unwrap().iter();
    let access = access.into_iter().find(|check| check["what"] == "access").unwrap();
    assert_eq!(access["level"], "fail");
    assert!(access["hint"].as_str().unwrap().contains("LIGAND_TOKEN"));
}

#[test]
fn nothing_is_there() {
    insta::assert_snapshot!(
        "no_server",
        without_limit(&run(&Home::new(), &[], &["doctor"]).transcript())
    );
    let vars = [("LIGAND_SERVER", "http://127.0.0.1:1"), ("LIGAND_TOKEN", TOKEN)];
    insta::assert_snapshot!(
        "server_down",
        without_limit(&run(&Home::new(), &vars, &["doctor"]).transcript())
    );
}

#[test]
fn plain_terminals_get_plain_text() {
    let ran = run(&Home::new(), &[("LANG", "C")], &["doctor"]);
    assert!(ran.stdout.is_ascii(), "{}", ran.stdout);
}
