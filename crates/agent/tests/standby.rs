//! Programs that stand by: started when the platform says so, with secrets that are fetched then, and stopped when it
//! says so.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::agent::{Agent, Dir, PROGRAM, Start, alive, until};
use crate::fake::{Call, DEADLINE, Platform, Reply, welcome};

const TOKEN: &str = "token-one-0123456789abcdefghijklmnopqrstuvw";

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Written whole, so that nobody reads half of it.
fn write(dir: &Dir, name: &str, value: &Value) {
    let draft = dir.path(&format!("{name}.draft"));
    fs::write(&draft, value.to_string()).expect("written");
    fs::rename(draft, dir.path(name)).expect("renamed");
}

/// A platform that wants of the program what the file `wish` says, and has the secrets in the file `secrets`.
async fn platform(dir: &Dir, pace: u64) -> Platform {
    let (wish, secrets) = (dir.path("wish"), dir.path("secrets"));
    Platform::start(move |call, _| match (call.name.as_str(), call.bearer.as_deref()) {
        ("register", None) => welcome(TOKEN),
        ("register", _) => Reply::Json(200, json!({ "status": "registered" })),
        ("secrets", _) => match read(&secrets) {
            Value::Null => Reply::Json(500, json!({ "error": "failed to decrypt secrets" })),
            values => Reply::Json(200, values),
        },
        _ => {
            let body = json!({ "status": "ok", "next_heartbeat_seconds": pace });
            let program = read(&wish);
            let mut body = body;
            if program != Value::Null {
                body["program"] = program;
            }
            Reply::Json(200, body)
        }
    })
    .await
}

/// A program that notes its environment and answers turns.
fn noting() -> String {
    format!(r#"env > "$DIR/env.draft"; mv "$DIR/env.draft" "$DIR/env"; {PROGRAM}"#)
}

fn program(call: &Call) -> &Value {
    &call.body["ligand"]["program"]
}

fn reports(state: &str, serial: Option<i64>) -> impl Fn(&Call) -> bool {
    move |call| program(call)["state"] == state && program(call)["serial"].as_i64() == serial
}

async fn url(platform: &Platform) -> String {
    let calls = platform.until("a register", |calls| !calls.is_empty()).await;
    calls[0].body["url"].as_str().expect("a URL").replace("localhost", "127.0.0.1")
}

/// Send a message of this id.
async fn send(url: &str, id: &str) -> reqwest::Response {
    let message = json!({ "messageId": id, "parts": [{ "text": "hi" }] });
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "SendMessage",
        "params": { "message": message } });
    crate::serve::client().post(url).json(&body).send().await.expect("an answer")
}

async fn stands_by(url: &str, dir: &Dir, id: &str) {
    let recorded = || fs::read_dir(dir.path("configs/.turns")).map_or(0, Iterator::count);
    let before = recorded();
    let answer = send(url, id).await;
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(7)));
    assert_eq!(body["error"]["data"]["code"], "stands-by");
    let unnamed = crate::serve::client().post(url).json(&json!({ "id": 1, "method": "x" }));
    assert_eq!(unnamed.send().await.expect("an answer").status().as_u16(), 503);
    assert_eq!(recorded(), before, "nothing is recorded");
    let health = crate::serve::client().get(format!("{url}/health")).send().await;
    let health: Value = health.expect("an answer").json().await.expect("JSON");
    assert_eq!(health["child"], "standing-by");
}

async fn answered(url: &str, id: &str) -> String {
    let answer = send(url, id).await;
    assert_eq!(answer.status().as_u16(), 200);
    answer.headers()["ligand-turn"].to_str().expect("text").to_owned()
}

#[tokio::test]
async fn started_to_wait_it_runs_when_told_with_secrets_that_it_fetches() {
    let dir = Dir::new();
    let platform = platform(&dir, 1).await;
    let start = Start::of(&platform, &dir).env("LIGAND_STANDBY", "wait");
    let start = start.env("API_KEY", "the recipe's").env("TIER", "3");
    let agent = start.args(&["--", "sh", "-c", &noting()]).go();
    let url = url(&platform).await;
    // Nobody told it to: it was started so.
    let waits = reports("standing-by", Some(0));
    platform.until_beat("a heartbeat that waits", &waits).await;
    let register = &platform.calls()[0];
    assert!(waits(register) && register.body["ligand"]["receipt"].is_null(), "{register:?}");
    stands_by(&url, &dir, "early").await;
    platform.until_beat("another", &waits).await;
    assert_eq!(dir.text("env"), "", "not started");

    // Killed before it was told, it waits again.
    agent.kill().await;
    let before = platform.calls().len();
    let start = Start::of(&platform, &dir).env("LIGAND_STANDBY", "wait");
    let start = start.env("API_KEY", "the recipe's").env("TIER", "3");
    let _agent = start.args(&["--", "sh", "-c", &noting()]).go();
    platform.until("its register", |calls| calls.len() > before).await;
    let url = platform.calls()[before].body["url"].as_str().expect("a URL").to_owned();
    let url = url.replace("localhost", "127.0.0.1");
    platform.until_beat("a heartbeat that waits", &waits).await;
    assert!(!platform.calls().iter().any(|call| call.name == "secrets"));

    let secrets =
        json!({ "API_KEY": "one", "WORKSPACE_ID": "other", "LIGAND_X": "x", "PORT": "1" });
    write(&dir, "secrets", &secrets);
    write(&dir, "wish", &json!({ "state": "run", "serial": 4 }));
    let runs = reports("running", Some(4));
    let proves = |call: &Call| runs(call) && call.body["ligand"]["receipt"].is_object();
    platform.until_beat("a heartbeat that proves", proves).await;
    let calls = platform.calls();
    let fetch = calls.iter().find(|call| call.name == "secrets").expect("fetched");
    assert_eq!(fetch.bearer.as_deref(), Some(TOKEN));
    let proof = calls.iter().rev().find(|call| proves(call)).expect("seen");
    let names = proof.body["ligand"]["receipt"].as_object().expect("seen").keys();
    assert_eq!(names.collect::<Vec<_>>(), ["API_KEY"]);
    let env = dir.text("env");
    let has = |line: &str| env.lines().any(|found| found == line);
    assert!(
        has("API_KEY=one") && has("WORKSPACE_ID=ws-1") && has("TIER=3") && !has("PORT=1"),
        "{env}"
    );
    assert!(!env.contains("LIGAND_"), "{env}");
    assert_eq!(answered(&url, "early").await, "processed");

    write(&dir, "secrets", &json!({ "API_KEY": "two" }));
    write(&dir, "wish", &json!({ "state": "run", "serial": 5 }));
    let again = reports("running", Some(5));
    let proves = |call: &Call| again(call) && call.body["ligand"]["receipt"].is_object();
    platform.until_beat("a heartbeat with the new ones", proves).await;
    assert!(dir.text("env").lines().any(|line| line == "API_KEY=two"));
    let pids = dir.pids();
    assert_eq!((pids.len(), alive(pids[0])), (2, false), "started again");
    assert_eq!(platform.calls().iter().filter(|call| call.name == "secrets").count(), 2);

    write(&dir, "wish", &Value::Null);
    platform.until_beat("one as usual", |call| call.body.get("ligand").is_none()).await;
    assert_eq!(answered(&url, "early").await, "replayed");
    let said = dir.text("stderr");
    assert!(!said.contains("one\"") && !said.contains(TOKEN), "{said}");
}

#[tokio::test]
async fn told_to_stand_by_it_stops_its_program_and_starts_it_again_when_nothing_is_wanted() {
    let dir = Dir::new();
    let platform = platform(&dir, 1).await;
    // It leaves a process behind, which is not to go on working on the data.
    let script = format!(r#"(sleep 600 & echo $! > "$DIR/left"); {PROGRAM}"#);
    let start =
        Start::of(&platform, &dir).env("API_KEY", "one").env("LIGAND_SECRET_NAMES", "API_KEY");
    let _agent = start.args(&["--", "sh", "-c", &script]).go();
    let url = url(&platform).await;
    platform.until_beat("one as usual", |call| program(call).is_null()).await;
    assert_eq!(answered(&url, "m").await, "processed");
    write(&dir, "wish", &json!({ "state": "stand-by", "serial": 3 }));
    platform.until_beat("a heartbeat that says so", reports("standing-by", Some(3))).await;
    let left: i32 = dir.text("left").trim().parse().expect("an id");
    assert!(!alive(dir.pids()[0]), "the program is gone");
    until("the end of what it left", || !alive(left)).await;
    stands_by(&url, &dir, "m").await;
    stands_by(&url, &dir, "n").await;
    write(&dir, "wish", &Value::Null);
    platform.until_beat("one as usual", |call| program(call).is_null()).await;
    assert_eq!(dir.pids().len(), 2);
    assert_eq!(
        (answered(&url, "m").await, answered(&url, "n").await),
        ("replayed".to_owned(), "processed".to_owned())
    );
    let calls = platform.calls();
    assert!(!calls.iter().any(|call| call.name == "secrets"), "with the same environment");
    assert_eq!(calls.iter().filter(|call| call.name == "register").count(), 1);
}

#[tokio::test]
async fn the_echo_stands_by_too_and_finds_the_data_that_came_meanwhile() {
    let (from, to) = (Dir::new(), Dir::new());
    let source = platform(&from, 1).await;
    let _source = Start::of(&source, &from).go();
    assert_eq!(answered(&url(&source).await, "m").await, "processed");

    let platform = platform(&to, 1).await;
    let _agent = Start::of(&platform, &to).env("LIGAND_STANDBY", "wait").go();
    let url = url(&platform).await;
    platform.until_beat("a heartbeat that waits", reports("standing-by", Some(0))).await;
    stands_by(&url, &to, "m").await;
    // As an import does it: what is there goes, what comes is put in its place, credentials stay.
    let turns = to.path("configs/.turns");
    let _ = fs::remove_dir_all(&turns);
    fs::rename(from.path("configs/.turns"), &turns).expect("moved");
    write(&to, "secrets", &json!({}));
    write(&to, "wish", &json!({ "state": "run", "serial": 0 }));
    platform.until_beat("a heartbeat that runs", reports("running", Some(0))).await;
    assert_eq!(answered(&url, "m").await, "replayed", "it was answered at the source");
    assert_eq!(answered(&url, "n").await, "processed");
    assert_eq!(to.text("configs/.auth_token"), TOKEN);
    write(&to, "wish", &json!({ "state": "stand-by" }));
    platform.until_beat("a heartbeat that waits", reports("standing-by", Some(0))).await;
    stands_by(&url, &to, "m").await;
}

#[tokio::test]
async fn who_pulls_starts_its_program_once_it_has_its_secrets() {
    let dir = Dir::new();
    let platform = platform(&dir, 1).await;
    let start = Start::of(&platform, &dir).env("LIGAND_STANDBY", "pull");
    let _agent: Agent = start.args(&["--", "sh", "-c", &noting()]).go();
    let refused = |calls: &[Call]| calls.iter().filter(|call| call.name == "secrets").count() >= 2;
    platform.until("two attempts in vain", refused).await;
    assert_eq!(dir.text("env"), "");
    write(&dir, "secrets", &json!({ "API_KEY": "one" }));
    let proves = |call: &Call| call.body["ligand"]["receipt"]["API_KEY"].is_string();
    platform.until_beat("a heartbeat that proves", proves).await;
    assert!(dir.text("env").lines().any(|line| line == "API_KEY=one"));
    platform.until_beat("one as usual", |call| call.body.get("ligand").is_none()).await;
}

#[tokio::test]
async fn nudged_it_beats_at_once_but_only_so_often() {
    let dir = Dir::new();
    let platform = platform(&dir, 300).await;
    let _agent = Start::of(&platform, &dir).go();
    let url = url(&platform).await;
    let beats = |calls: &[Call]| calls.iter().filter(|call| call.name == "heartbeat").count();
    platform.until("a heartbeat", |calls| beats(calls) == 1).await;
    let nudge = format!("{url}/.well-known/ligand/nudge");
    let nudge = || async { crate::serve::client().post(&nudge).send().await.expect("an answer") };
    assert_eq!(nudge().await.status().as_u16(), 204);
    platform.until("another at once", |calls| beats(calls) >= 2).await;
    let many = async { while nudge().await.status().as_u16() != 429 {} };
    tokio::time::timeout(DEADLINE, many).await.expect("too many are refused");
}

#[tokio::test]
async fn a_word_that_is_neither_is_said() {
    let dir = Dir::new();
    let platform = platform(&dir, 1).await;
    let mut agent = Start::of(&platform, &dir).env("LIGAND_STANDBY", "sit").go();
    assert_eq!(agent.ended().await.code(), Some(2));
    assert!(dir.text("stderr").contains("LIGAND_STANDBY: \"sit\" is neither wait nor pull"));
}
