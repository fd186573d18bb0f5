//! Identity under faults: lost answers, refusals, a platform that is away, a disk that takes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::agent::{Dir, PROGRAM, Start, alive, until};
use crate::fake::{Call, Platform, Reply, beaten, refused, welcome};

const T1: &str = "token-one-0123456789abcdefghijklmnopqrstuvw";
const T2: &str = "token-two-0123456789abcdefghijklmnopqrstuvw";

fn beats(calls: &[Call], bearer: &str) -> usize {
    calls.iter().filter(|call| call.is("heartbeat", Some(bearer))).count()
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let platform = Platform::start(|call, before| match (call.name.as_str(), before.len()) {
        ("register", 0) => Reply::Lost,
        ("register", _) => welcome(T1),
        _ => beaten(),
    })
    .await;
    let dir = Dir::new();
    let _agent = Start::of(&platform, &dir).env("MOLECULE_ORG_ID", "org-7").go();
    let calls = platform.until("a heartbeat", |calls| beats(calls, T1) >= 2).await;
    assert!(calls[0].is("register", None) && calls[1].is("register", None));
    assert_eq!(calls[0].key.as_ref().map(String::len), Some(43));
    assert_eq!(calls[0].key, calls[1].key);
    assert!(calls.iter().all(|call| call.org.as_deref() == Some("org-7")));
    assert_eq!(
        calls[0].body["ligand"]["features"],
        json!(["paced", "receipt", "rotate", "standby", "turns"])
    );
    assert_eq!(calls[0].body["agent_card"]["name"], "ws-1");

    let saved = dir.path("configs/.auth_token");
    assert_eq!(fs::read_to_string(&saved).expect("saved"), T1);
    let mode = fs::metadata(&saved).expect("saved").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path("configs/.register_key").exists(), "it has done its duty");
    let key = calls[0].key.as_deref().expect("seen above");
    let said = dir.text("stderr");
    assert!(said.contains("registered") && !said.contains(T1) && !said.contains(key), "{said}");
}

#[tokio::test]
async fn a_credential_that_was_replaced_on_disk_is_found_after_one_refusal() {
    let dir = Dir::new();
    let replaced = dir.path("replaced");
    let platform = Platform::start(move |call, _| match call.bearer.as_deref() {
        None => welcome(T1),
        Some(T1) if replaced.exists() => refused(Some("register")),
        _ => beaten(),
    })
    .await;
    let _agent = Start::of(&platform, &dir).go();
    platform.until("a heartbeat", |calls| beats(calls, T1) >= 1).await;
    fs::write(dir.path("configs/.auth_token"), T2).expect("written");
    fs::write(dir.path("replaced"), "").expect("written");
    let calls = platform.until("the new one", |calls| beats(calls, T2) >= 2).await;
    let first = calls.iter().position(|call| call.is("heartbeat", Some(T2))).expect("seen");
    assert!(calls[first - 1].is("heartbeat", Some(T1)), "at once after the refusal");
    let registers = calls.iter().filter(|call| call.name == "register").count();
    assert_eq!(registers, 1, "without registering again");
    let said = dir.text("stderr");
    assert!(said.contains("refused") && !said.contains(T1) && !said.contains(T2), "{said}");
}

#[tokio::test]
async fn a_stale_file_is_not_tried_twice_and_refusal_is_not_the_end() {
    let platform = Platform::start(|call, before| match call.name.as_str() {
        "register" if before.len() < 2 => refused(None),
        "register" => welcome(T2),
        _ if call.bearer.as_deref() == Some(T1) => refused(Some("register")),
        _ => beaten(),
    })
    .await;
    let dir = Dir::new();
    fs::create_dir(dir.path("configs")).expect("made");
    fs::write(dir.path("configs/.auth_token"), T1).expect("written");
    let _agent = Start::of(&platform, &dir).env("LIGAND_MANAGED", "1").go();
    let calls = platform.until("a heartbeat", |calls| beats(calls, T2) >= 1).await;
    let registers: Vec<&Call> = calls.iter().filter(|call| call.name == "register").collect();
    assert_eq!(registers.len(), 3);
    assert!(
        registers.iter().all(|call| call.bearer.as_deref() == Some(T1)),
        "managed: no stranger"
    );
    assert!(registers.iter().all(|call| call.key == registers[0].key));
    assert_eq!(dir.text("stderr").matches("register was refused").count(), 1, "said once");
}

#[tokio::test]
async fn without_a_backend_an_agent_tries_as_holder_and_as_newcomer() {
    let platform = Platform::start(|call, _| match (call.name.as_str(), call.bearer.as_deref()) {
        ("register", Some(_)) => refused(None),
        ("register", None) => welcome(T2),
        _ => beaten(),
    })
    .await;
    let dir = Dir::new();
    fs::create_dir(dir.path("configs")).expect("made");
    fs::write(dir.path("configs/.auth_token"), T1).expect("written");
    let _agent = Start::of(&platform, &dir).go();
    let calls = platform.until("a heartbeat", |calls| beats(calls, T2) >= 1).await;
    assert!(calls[0].is("register", Some(T1)) && calls[1].is("register", None));
    until("the end of the old one", || dir.text("configs/.auth_token") == T2).await;
}

#[tokio::test]
async fn where_the_file_is_refused_the_newer_one_beside_it_is_tried() {
    let platform = Platform::start(|call, _| match (call.bearer.as_deref(), call.name.as_str()) {
        (Some(T1), "register") => Reply::Json(200, json!({ "status": "registered" })),
        (Some(T1), _) => beaten(),
        _ => refused(Some("exit")),
    })
    .await;
    let dir = Dir::new();
    fs::create_dir(dir.path("configs")).expect("made");
    fs::write(dir.path("configs/.auth_token"), T2).expect("written");
    fs::write(dir.path("configs/.auth_token.next"), T1).expect("written");
    let _agent = Start::of(&platform, &dir).env("LIGAND_MANAGED", "1").go();
    let calls = platform.until("a heartbeat", |calls| beats(calls, T1) >= 1).await;
    assert!(calls[0].is("register", Some(T2)) && calls[1].is("register", Some(T1)));
    assert_eq!(dir.text("configs/.auth_token"), T1, "it is the one in hand from now on");
    assert!(!dir.path("configs/.auth_token.next").exists());
}

#[tokio::test]
async fn told_to_exit_it_takes_its_program_along_and_ends_well() {
    let dir = Dir::new();
    let dismissed = dir.path("dismissed");
    let platform = Platform::start(move |call, _| match call.name.as_str() {
        "register" => welcome(T1),
        _ if dismissed.exists() => refused(Some("exit")),
        _ => beaten(),
    })
    .await;
    let mut agent = Start::of(&platform, &dir).args(&["--", "sh", "-c", PROGRAM]).go();
    platform.until("a heartbeat", |calls| beats(calls, T1) >= 1).await;
    let program = dir.pids()[0];
    assert!(alive(program));
    fs::write(dir.path("dismissed"), "").expect("written");
    assert_eq!(agent.ended().await.code(), Some(0));
    assert!(!alive(program));
    assert!(dir.text("stderr").contains("it was replaced"), "it says why");
}

#[tokio::test]
async fn a_platform_that_is_away_is_waited_for() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = gone.local_addr().expect("bound").port();
    drop(gone);
    let dir = Dir::new();
    let _agent = Start::at(&format!("http://127.0.0.1:{port}"), &dir).go();
    until("a failed attempt", || dir.text("stderr").contains("no usable answer")).await;
    let platform =
        Platform::start_at(port, |call, before| match (call.name.as_str(), before.len()) {
            ("register", 0) => Reply::Json(503, json!({ "error": "platform_unavailable" })),
            ("register", _) => welcome(T1),
            _ => beaten(),
        })
        .await;
    let calls = platform.until("a heartbeat", |calls| beats(calls, T1) >= 1).await;
    assert_eq!(calls[0].key, calls[1].key);
}

#[tokio::test]
async fn a_credential_that_cannot_be_written_is_used_said_and_written_later() {
    let platform = Platform::start(|call, _| match call.name.as_str() {
        "register" => welcome(T1),
        _ => beaten(),
    })
    .await;
    let dir = Dir::new();
    // In the place of the temporary file: no write succeeds, even for root.
    let obstacle = dir.path("configs/.auth_token.new");
    fs::create_dir_all(&obstacle).expect("made");
    let _agent = Start::of(&platform, &dir).go();
    let says = |call: &Call| {
        let said = call.body["sample_error"].as_str().unwrap_or_default();
        call.bearer.as_deref() == Some(T1) && said.contains(".auth_token")
    };
    platform.until_beat("a heartbeat that says so", says).await;
    fs::remove_dir(&obstacle).expect("removed");
    until("the file", || dir.text("configs/.auth_token") == T1).await;
    assert!(!dir.text("stderr").contains(T1));
}
