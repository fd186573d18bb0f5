//! Messages that come again, to agents that are killed, cut off, or on a full disk. The echo counts what it really did.

use std::path::Path;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

use crate::agent::{Agent, Dir, Start, until};
use crate::fake::{Call, Platform, Reply, beaten, refused, welcome};
use crate::serve::client;

/// An agent whose echo counts, and its URL.
async fn counting(platform: &Platform, dir: &Dir) -> (Agent, String) {
    let before = platform.calls().len();
    let effects = dir.path("effects").display().to_string();
    let agent = Start::of(platform, dir).env("LIGAND_ECHO_EFFECTS", &effects).go();
    let calls = platform.until("a heartbeat", |calls| {
        calls.iter().skip(before).any(|call| call.name == "heartbeat")
    });
    let calls = calls.await;
    let register = calls.iter().skip(before).find(|call| call.name == "register").expect("first");
    let url = register.body["url"].as_str().expect("a URL").replace("localhost", "127.0.0.1");
    (agent, url)
}

async fn friendly() -> Platform {
    Platform::start(|call, _| match call.name.as_str() {
        "register" if call.bearer.is_some() => Reply::Json(200, json!({ "status": "registered" })),
        "register" => welcome("token"),
        "turns" => Reply::Json(200, json!({ "status": "ok" })),
        _ => beaten(),
    })
    .await
}

/// A message whose turn takes `millis`, as the platform delivers it.
fn post(url: &str, message: &str, attempt: u32, millis: u64) -> reqwest::RequestBuilder {
    let metadata = json!({ "ligand_echo_delay_ms": millis });
    let message =
        json!({ "messageId": message, "parts": [{ "text": "hi" }], "metadata": metadata });
    let params = json!({ "message": message });
    let body =
        json!({ "jsonrpc": "2.0", "id": attempt, "method": "SendMessage", "params": params });
    let request = client().post(url).header("ligand-message", "row-1");
    request.header("ligand-attempt", attempt).json(&body)
}

async fn send(url: &str, message: &str, attempt: u32, millis: u64) -> Response {
    post(url, message, attempt, millis).send().await.expect("an answer")
}

fn word(answer: &Response) -> &str {
    answer.headers().get("ligand-turn").map_or("", |word| word.to_str().expect("text"))
}

fn effects(dir: &Dir) -> Vec<String> {
    dir.text("effects").lines().map(str::to_owned).collect()
}

/// What the platform was told of turns, in the order in which it was told.
fn told(calls: &[Call]) -> Vec<Value> {
    let turns = calls.iter().filter(|call| call.is("turns", Some("token")));
    turns.flat_map(|call| call.body["turns"].as_array().expect("a list").clone()).collect()
}

#[tokio::test]
async fn an_answer_outlives_kill_and_a_turn_that_was_cut_short_is_not_run_again() {
    let (platform, dir) = (friendly().await, Dir::new());
    let (agent, url) = counting(&platform, &dir).await;
    assert_eq!(word(&send(&url, "a", 1, 0).await), "processed");
    let request = post(&url, "b", 1, 600_000);
    tokio::select! {
        _ = request.send() => panic!("too early"),
        () = until("its beginning", || effects(&dir) == ["a", "b"]) => {}
    }
    agent.kill().await;

    let (_agent, url) = counting(&platform, &dir).await;
    let replayed = send(&url, "a", 2, 0).await;
    assert_eq!((replayed.status().as_u16(), word(&replayed)), (200, "replayed"));
    let body: Value = replayed.json().await.expect("JSON");
    assert_eq!(
        (&body["id"], &body["result"]["message"]["messageId"]),
        (&json!(2), &json!("echo-a"))
    );
    let interrupted = send(&url, "b", 2, 600_000).await;
    assert_eq!((interrupted.status().as_u16(), word(&interrupted)), (409, "interrupted"));
    assert_eq!(effects(&dir), ["a", "b"]);
    // An operator wants it all the same.
    let again = post(&url, "b", 3, 600_000).header("ligand-again", "true");
    tokio::select! {
        _ = again.send() => panic!("too early"),
        () = until("the second run", || effects(&dir) == ["a", "b", "b"]) => {}
    }
}

#[tokio::test]
async fn a_slow_turn_is_told_and_its_end_too_when_nobody_waits_for_it() {
    let (platform, dir) = (friendly().await, Dir::new());
    let (_agent, url) = counting(&platform, &dir).await;
    assert_eq!(word(&send(&url, "quick", 1, 0).await), "processed");
    let request = post(&url, "slow", 4, 1_500);
    let begun = platform.until("its beginning", |calls| told(calls).len() == 2);
    let calls = tokio::select! {
        _ = request.send() => panic!("too early"),
        calls = begun => calls,
    };
    let states = |turns: &[Value]| -> Vec<Value> {
        turns.iter().map(|turn| turn["state"].clone()).collect()
    };
    assert_eq!(states(&told(&calls)), ["received", "started"]);
    let calls = platform.until("its end", |calls| told(calls).len() == 3).await;
    let end = &told(&calls)[2];
    assert_eq!((&end["message"], &end["attempt"]), (&json!("row-1"), &json!(4)));
    assert_eq!((&end["state"], &end["status"]), (&json!("ended"), &json!(200)));
    assert!(end["at_ms"].as_i64() > told(&calls)[1]["at_ms"].as_i64());
    assert_eq!(end["content_type"], "application/json");
    let response = end["response"].as_str().expect("the answer");
    let response: Value = serde_json::from_str(response).expect("JSON");
    assert_eq!(response["result"]["message"]["messageId"], "echo-slow");
    assert_eq!(word(&send(&url, "slow", 5, 1_500).await), "replayed");
    assert_eq!(effects(&dir), ["quick", "slow"]);
}

#[tokio::test]
async fn what_the_platform_refuses_to_hear_is_told_with_the_next_credential() {
    let platform = Platform::start(|call, before| {
        let refusals = before.iter().filter(|call| call.is("turns", Some("token"))).count();
        match (call.name.as_str(), call.bearer.as_deref()) {
            ("turns", Some("token")) => refused(None),
            ("turns", _) => Reply::Json(200, json!({ "status": "ok" })),
            ("register", None) => welcome("token"),
            ("register", Some(_)) => Reply::Json(200, json!({ "status": "registered" })),
            (_, Some("token")) if refusals > 0 => refused(Some("reread-credential")),
            _ => beaten(),
        }
    })
    .await;
    let dir = Dir::new();
    let (_agent, url) = counting(&platform, &dir).await;
    let request = post(&url, "m", 1, 1_000);
    let refused = platform
        .until("a refusal", |calls| calls.iter().any(|call| call.is("turns", Some("token"))));
    tokio::select! { _ = request.send() => panic!("too early"), _ = refused => {} }
    std::fs::write(dir.path("configs/.auth_token"), "token-2").expect("written");
    let heard = |calls: &[Call]| {
        let mut turns = calls.iter().filter(|call| call.is("turns", Some("token-2")));
        turns.any(|call| call.body["turns"][0]["state"] == "ended")
    };
    platform.until("the end, told with the next one", heard).await;
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_run_and_runs_when_it_can() {
    let (platform, dir) = (friendly().await, Dir::new());
    let (_agent, url) = counting(&platform, &dir).await;
    // In the place of the directory: nothing can be written there, even by root.
    let turns = dir.path("configs/.turns");
    std::fs::write(&turns, "in the way").expect("written");
    for attempt in 1..3 {
        let answer = send(&url, "m", attempt, 0).await;
        assert_eq!((answer.status().as_u16(), word(&answer)), (503, ""));
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"], "the turn cannot be recorded and was not run");
        assert!(body["detail"].as_str().expect("why").contains("CONFIGS_DIR"), "{body}");
    }
    assert_eq!(effects(&dir), [""; 0]);
    let says = |call: &Call| {
        let said = call.body["sample_error"].as_str().unwrap_or_default();
        said.contains("the record of a turn cannot be kept")
    };
    platform.until_beat("a heartbeat that says so", says).await;
    std::fs::remove_file(&turns).expect("removed");
    assert_eq!(word(&send(&url, "m", 3, 0).await), "processed");
    assert_eq!(effects(&dir), ["m"]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_given_and_lost_with_the_process_alone() {
    let (platform, dir) = (friendly().await, Dir::new());
    let (agent, url) = counting(&platform, &dir).await;
    let turns = dir.path("configs/.turns");
    let slow = send(&url, "m", 1, 1_000);
    let block = async {
        until("its record", || names(&turns).len() == 1).await;
        let draft = turns.join(format!("{}.new", names(&turns)[0]));
        std::fs::create_dir(draft).expect("made");
    };
    let (answer, ()) = tokio::join!(slow, block);
    assert_eq!((answer.status().as_u16(), word(&answer)), (200, "processed"));
    assert_eq!(word(&send(&url, "m", 2, 1_000).await), "replayed", "from memory");
    agent.kill().await;
    let (_agent, url) = counting(&platform, &dir).await;
    assert_eq!(word(&send(&url, "m", 3, 1_000).await), "interrupted");
    assert_eq!(effects(&dir), ["m"]);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.contains('.')).collect()
}

#[tokio::test]
async fn a_stream_comes_again_after_a_restart() {
    let (platform, dir) = (friendly().await, Dir::new());
    let (agent, url) = counting(&platform, &dir).await;
    let stream = |url: &str, id: u32| {
        let metadata = json!({ "ligand_echo_chunks": 5, "ligand_echo_delay_ms": 50 });
        let message = json!({ "messageId": "s", "parts": [{ "text": "x" }], "metadata": metadata });
        let params = json!({ "message": message });
        let body = json!({ "id": id, "method": "message/stream", "params": params });
        let request = client().post(url).json(&body).send();
        async move {
            let answer = request.await.expect("an answer");
            (word(&answer).to_owned(), answer.text().await.expect("whole"))
        }
    };
    let (said, first) = stream(&url, 1).await;
    assert_eq!((said.as_str(), first.matches("data: ").count()), ("processed", 7));
    agent.kill().await;
    let (_agent, url) = counting(&platform, &dir).await;
    let (said, again) = stream(&url, 1).await;
    assert_eq!((said.as_str(), again == first), ("replayed", true));
    let (_, renamed) = stream(&url, 2).await;
    assert_eq!(renamed, first.replace(r#""id":1,"#, r#""id":2,"#));
    assert_eq!(effects(&dir), ["s"]);
}

/// A build that lacks the rule runs a message as often as it comes; no other build does, whatever it is told.
#[tokio::test]
async fn a_mutant_runs_it_twice() {
    let (platform, dir) = (friendly().await, Dir::new());
    let effects_file = dir.path("effects").display().to_string();
    let start = Start::of(&platform, &dir).env("LIGAND_ECHO_EFFECTS", &effects_file);
    let _agent = start.env("LIGAND_MUTANT", "turn-once").go();
    let calls = platform.until("a register", |calls| !calls.is_empty()).await;
    let url = calls[0].body["url"].as_str().expect("a URL").replace("localhost", "127.0.0.1");
    for attempt in 1..3 {
        send(&url, "m", attempt, 0).await;
    }
    assert_eq!(effects(&dir).len(), if cfg!(feature = "mutants-by-name") { 2 } else { 1 });
    // Long enough for nothing to be told of quick turns.
    let quiet = Duration::from_millis(300);
    let heard = platform.until("a call", |calls| !told(calls).is_empty());
    assert!(tokio::time::timeout(quiet, heard).await.is_err());
}
