//! What the agent answers by itself, and where its log goes.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ligand_agent::config::{Args, Settings};
use ligand_agent::logs::Logs;
use ligand_agent::{Exit, run};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent::{Dir, Start, until};
use crate::fake::{DEADLINE, Platform, beaten, welcome};

pub(crate) fn client() -> reqwest::Client {
    let builder = ligand_api::http::builder().expect("TLS").no_proxy().timeout(DEADLINE);
    builder.build().expect("a client")
}

async fn friendly() -> Platform {
    Platform::start(|call, _| match call.name.as_str() {
        "register" => welcome("a-credential-nobody-may-see"),
        _ => beaten(),
    })
    .await
}

#[tokio::test]
async fn in_process_it_echoes_both_protocols_until_it_is_stopped() {
    let (platform, dir) = (friendly().await, Dir::new());
    let args = Args {
        platform_url: Some(platform.url.clone()),
        workspace_id: Some("ws-1".to_owned()),
        configs_dir: Some(dir.path("configs")),
        ..Args::default()
    };
    let settings = Settings::resolve(args, |_| None).expect("valid");
    let stop = CancellationToken::new();
    let turns = async {
        let calls = platform.until("a register", |calls| !calls.is_empty()).await;
        let url = calls[0].body["url"].as_str().expect("a URL").replace("localhost", "127.0.0.1");
        let ask = |body: Value| {
            let request = client().post(&url).json(&body);
            async { request.send().await.expect("an answer").json::<Value>().await.expect("JSON") }
        };
        let parts = json!([{ "kind": "text", "text": "hi" }]);
        let params =
            |id: &str| json!({ "message": { "messageId": id, "contextId": "c", "parts": parts } });
        let old = ask(json!({ "id": 1, "method": "message/send", "params": params("m") })).await;
        assert_eq!(old["result"]["parts"][0], json!({ "kind": "text", "text": "echo: hi" }));
        assert_eq!(old["result"]["contextId"], "c");
        let new = ask(json!({ "id": 2, "method": "SendMessage", "params": params("n") })).await;
        assert_eq!(new["result"]["message"]["parts"][0], json!({ "text": "echo: hi" }));
        for card in ["agent-card.json", "agent.json"] {
            let answer = client().get(format!("{url}/.well-known/{card}")).send().await;
            let card: Value = answer.expect("an answer").json().await.expect("JSON");
            assert_eq!(card, calls[0].body["agent_card"]);
        }
        stop.cancel();
    };
    let agent = run(settings, Logs::start(Some(&dir.path("log"))), stop.clone());
    let both = async { tokio::join!(agent, turns) };
    let (exit, ()) = tokio::time::timeout(DEADLINE, both).await.expect("both end");
    assert_eq!(exit, Exit::Stopped);
}

#[tokio::test]
async fn it_serves_on_the_socket_it_inherits() {
    let (platform, dir) = (friendly().await, Dir::new());
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("bound").port();
    let start = Start::of(&platform, &dir).env("LIGAND_LISTEN_STDIN", "1");
    let _agent = start.stdin(OwnedFd::from(socket)).go();
    let calls = platform.until("a register", |calls| !calls.is_empty()).await;
    assert_eq!(calls[0].body["url"], format!("http://localhost:{port}"));
    let health = format!("http://127.0.0.1:{port}/health");
    let answer = client().get(health).send().await.expect("an answer");
    let expected = json!({ "status": "ok", "child": "none" });
    assert_eq!(answer.json::<Value>().await.expect("JSON"), expected);
}

#[tokio::test]
async fn its_log_goes_to_the_directory() {
    let (platform, dir) = (friendly().await, Dir::new());
    let log_dir = dir.path("log").display().to_string();
    let _agent = Start::of(&platform, &dir).args(&["--log-dir", &log_dir]).go();
    until("the log", || dir.text("log/agent.log").contains("registered")).await;
    let log = dir.text("log/agent.log");
    let first = log.lines().next().unwrap_or_default();
    let named = [env!("CARGO_PKG_VERSION"), "ws-1", platform.url.as_str()];
    assert!(named.iter().all(|word| first.contains(word)), "{first}");
    assert!(!log.contains("a-credential-nobody-may-see"));
    assert_eq!(dir.text("stderr"), "");
}

#[tokio::test]
async fn a_full_disk_costs_the_log_and_nothing_else() {
    let (platform, dir) = (friendly().await, Dir::new());
    std::fs::create_dir(dir.path("log")).expect("made");
    std::os::unix::fs::symlink("/dev/full", dir.path("log/agent.log")).expect("linked");
    let log_dir = dir.path("log").display().to_string();
    let mut agent = Start::of(&platform, &dir).env("LIGAND_LOG_DIR", &log_dir).go();
    let told = |call: &crate::fake::Call| {
        call.body["sample_error"].as_str().is_some_and(|text| text.contains("agent.log"))
    };
    platform.until_beat("a heartbeat that tells", told).await;
    platform.until_beat("another", |_| true).await;
    assert_eq!(dir.text("stderr").matches("warning: ").count(), 1, "said once");
    agent.signal(rustix::process::Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(5), agent.ended()).await;
    assert_eq!(ended.expect("soon").code(), Some(0));
}
