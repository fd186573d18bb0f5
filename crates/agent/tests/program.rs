//! The program beside the agent: started first, started again, ended with the agent.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, Dir, PROGRAM, Start, alive, end_by_force, until};
use crate::fake::{Platform, Reply, beaten, welcome};

/// An agent with its program, registered; and its URL.
async fn with_program(dir: &Dir, script: &str) -> (Platform, Agent, String) {
    let pids = dir.path("pids");
    let platform = Platform::start(move |call, _| match call.name.as_str() {
        "register" if pids.exists() => welcome("token"),
        // Too early: the program cannot listen yet. The agent will call again, and be found out.
        "register" => Reply::Json(500, Value::Null),
        _ => beaten(),
    })
    .await;
    let start = Start::of(&platform, dir).env("LIGAND_SECRET", "ours");
    let agent = start.args(&["--", "sh", "-c", script]).go();
    let calls = platform.until("a register", |calls| !calls.is_empty()).await;
    let url = calls[0].body["url"].as_str().expect("a URL").replace("localhost", "127.0.0.1");
    (platform, agent, url)
}

/// One turn; `None` while nobody answers it.
async fn turn(url: &str) -> Option<Value> {
    // Without an id: it passes through, each time.
    let message = json!({ "parts": [{ "text": "hi" }] });
    let body = json!({ "id": 1, "method": "SendMessage", "params": { "message": message } });
    let answer = crate::serve::client().post(url).json(&body).send().await.expect("an answer");
    let good = answer.status().is_success();
    let body = answer.json().await.expect("JSON in every case");
    good.then_some(body)
}

#[tokio::test]
async fn it_registers_once_turns_can_be_answered() {
    let dir = Dir::new();
    // Nothing listens until the test says so.
    let script = format!(
        r#"env > "$DIR/env"; echo "hello from the program"
        until [ -e "$DIR/go" ]; do sleep 0.01; done; {PROGRAM}"#
    );
    let go = dir.path("go");
    let waits = async {
        until("the program's start", || dir.text("stderr").contains("started sh")).await;
        until("its environment", || dir.text("env").contains("PORT=")).await;
        until("the wait for it", || dir.text("stderr").contains("waiting for")).await;
        std::fs::write(go, "").expect("written");
    };
    let ((platform, _agent, url), ()) = tokio::join!(with_program(&dir, &script), waits);
    let names: Vec<String> = platform.calls().into_iter().map(|call| call.name).collect();
    let registers = names.iter().filter(|name| *name == "register").count();
    assert_eq!(registers, 1, "not before the program listens");
    assert_eq!(
        turn(&url).await.expect("answered")["result"]["message"]["messageId"],
        "echo-unnamed"
    );

    let env = dir.text("env");
    let has = |line: &str| env.lines().any(|found| found == line);
    assert!(has("HOST=127.0.0.1") && has("PYTHONUNBUFFERED=1") && has("WORKSPACE_ID=ws-1"));
    assert!(!env.contains("LIGAND_"), "{env}");
    assert_eq!(dir.text("stdout"), "hello from the program\n");
}

#[tokio::test]
async fn a_program_that_died_is_started_again_and_heartbeats_tell() {
    let dir = Dir::new();
    let (platform, _agent, url) = with_program(&dir, PROGRAM).await;
    assert!(turn(&url).await.is_some());
    end_by_force(dir.pids()[0]);
    let told = |call: &crate::fake::Call| {
        let error = call.body["sample_error"].as_str().unwrap_or_default();
        error.contains("program ended") && error.contains("9")
    };
    platform.until_beat("a heartbeat that tells", told).await;
    until("a second start", || dir.pids().len() == 2).await;
    let health = format!("{url}/health");
    loop {
        let answer = crate::serve::client().get(&health).send().await.expect("an answer");
        let body: Value = answer.json().await.expect("JSON");
        if body["child"] == "running" {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(turn(&url).await.is_some(), "the new one answers");
    let registers = platform.calls().iter().filter(|call| call.name == "register").count();
    assert_eq!(registers, 1, "its death is no reason to register again");
}

#[tokio::test]
async fn asked_to_stop_it_stops_its_program_first() {
    let dir = Dir::new();
    let (_platform, mut agent, _) = with_program(&dir, PROGRAM).await;
    let program = dir.pids()[0];
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));
    assert!(!alive(program));
    assert!(dir.text("stderr").contains("the program has ended"), "without force");
}
