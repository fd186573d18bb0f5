//! Tasks that workspaces give to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ligand_server::liveness::sweeps::Retention;
use ligand_server::messages::DeliveryReconciler;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::agent::{Agent, online};
use crate::support::{Answer, TestApp, a_moment, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// An agent that hangs up on its first callers, and answers all others like this. Gives its address, and how many came.
async fn answering(hang_ups: usize, status: u16, body: Value) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let came = Arc::clone(&count);
    let body = body.to_string();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let n = came.fetch_add(1, Ordering::SeqCst);
            answer(stream, (n >= hang_ups).then(|| (status, body.clone()))).await;
        }
    });
    (url, count)
}

async fn answer(mut stream: TcpStream, with: Option<(u16, String)>) {
    let mut read = Vec::new();
    // What is asked here is short, and ends as its envelope does.
    while !read.ends_with(b"}") {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
    if let Some((status, body)) = with {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    }
}

fn said(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": "1", "result": {"parts": [{"kind": "text", "text": text}]}})
}

/// Who gives tasks, and who is given them at this address.
async fn pair(app: &TestApp, url: &str) -> (Agent, String) {
    let (_, caller) = online(app, "caller").await;
    app.fake.report_address(Some(url.to_owned()));
    let (target, _) = online(app, "target").await;
    (caller, target)
}

async fn give(app: &TestApp, caller: &Agent, body: Value) -> Answer {
    let path = format!("/workspaces/{}/delegate", caller.workspace);
    app.call("POST", &path, caller.token.as_deref(), Some(body)).await
}

async fn given(app: &TestApp, caller: &Agent, target: &str, task: &str) -> String {
    let answer = give(app, caller, json!({"target_id": target, "task": task})).await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (202, &json!("delegated")));
    answer.body["delegation_id"].as_str().unwrap().to_owned()
}

/// The list as an administrator sees it, who acknowledges nothing.
async fn listed(app: &TestApp, caller: &Agent) -> Vec<Value> {
    let list = app.get(&format!("/workspaces/{}/delegations", caller.workspace)).await.ok();
    list.as_array().unwrap().clone()
}

async fn status_of(app: &TestApp, caller: &Agent, id: &str) -> Value {
    let all = listed(app, caller).await;
    let mut own =
        all.iter().filter(|line| line["delegation_id"] == id && line["method"] == "delegate");
    own.next().unwrap()["status"].clone()
}

/// Deliver until a delegation stands there.
async fn delivered(app: &TestApp, caller: &Agent, id: &str, status: &str) {
    for _ in 0..300 {
        DeliveryReconciler.pass(&app.app).await.unwrap();
        if status_of(app, caller, id).await == status {
            return;
        }
        a_moment(10).await;
    }
    panic!("{id} does not become {status}: {:#?}", listed(app, caller).await);
}

async fn acted(app: &TestApp, caller: &Agent, path: &str, body: Value) -> Answer {
    let path = format!("/workspaces/{}/delegations/{path}", caller.workspace);
    app.call("POST", &path, caller.token.as_deref(), Some(body)).await
}

/// Events of a workspace about its delegations, oldest first.
async fn events(app: &TestApp, caller: &Agent) -> Vec<(String, Value)> {
    let events = app.get(&format!("/events/{}", caller.workspace)).await.ok();
    let events = events.as_array().unwrap().iter().rev().cloned();
    let named = events
        .map(|event| (event["event_type"].as_str().unwrap().to_owned(), event["payload"].clone()));
    named.filter(|(name, _)| name.starts_with("DELEGATION_")).collect()
}

both! {
    async fn de_01_de_02_de_03_de_04_what_is_no_delegation_is_400(app: TestApp) {
        let (_, caller) = online(&app, "caller").await;
        for body in [json!({"task": "t"}), json!({"target_id": UNKNOWN}), json!({"target_id": UNKNOWN, "task": " "}), json!(7),
            json!({"target_id": UNKNOWN, "task": "t", "idempotency_key": "k".repeat(256)})] {
            give(&app, &caller, body).await.refuses(400, "invalid delegation request");
        }
        give(&app, &caller, json!({"target_id": "peer", "task": "t"})).await.refuses(400, "target_id must be a valid UUID");
        let own = json!({"target_id": caller.workspace, "task": "t"});
        give(&app, &caller, own).await.refuses(400, "self-delegation not permitted");
        assert!(listed(&app, &caller).await.is_empty());
    }

    async fn de_05_de_08_a_task_is_carried_and_its_outcome_listed(app: TestApp) {
        let long = "x".repeat(400);
        let (url, came) = answering(0, 200, said(&long)).await;
        let (caller, target) = pair(&app, &url).await;
        let answer = give(&app, &caller, json!({"target_id": target, "task": "count the beans"})).await;
        let id = answer.body["delegation_id"].as_str().unwrap().to_owned();
        answer.is(202, &json!({"delegation_id": id, "status": "delegated", "target_id": target}));
        assert_eq!(status_of(&app, &caller, &id).await, "pending");
        delivered(&app, &caller, &id, "completed").await;
        assert_eq!(came.load(Ordering::SeqCst), 1);
        let lines = listed(&app, &caller).await;
        assert_eq!(lines.len(), 2);
        let (result, task) = (&lines[0], &lines[1]);
        for (line, method) in [(result, "delegate_result"), (task, "delegate")] {
            assert_eq!((&line["method"], &line["type"], &line["status"]), (&json!(method), &json!("delegation"), &json!("completed")));
            assert_eq!((&line["source_id"], &line["target_id"]), (&json!(caller.workspace), &json!(target)));
            assert_eq!((&line["delegation_id"], &line["response_preview"]), (&json!(id), &json!(format!("{}...", "x".repeat(300)))));
            assert!(line["processed_at"].is_string() && line.get("error").is_none() && line.get("acknowledged_at").is_none());
            assert!(line["summary"].is_string() && line["created_at"].is_string());
        }
        assert_ne!(result["id"], task["id"]);
        let rows = app.get(&format!("/workspaces/{}/activity?type=delegation", caller.workspace)).await.ok();
        assert_eq!((&rows[0]["method"], &rows[1]["method"], &rows[1]["status"]), (&json!("delegate_result"), &json!("delegate"), &json!("completed")));
        assert_eq!((&rows[0]["id"], &rows[1]["id"]), (&result["id"], &task["id"]));
        assert_eq!(rows[0]["response_body"], json!({"text": long, "delegation_id": id}));
        let sent = json!({"delegation_id": id, "target_id": target, "task_preview": "count the beans"});
        let dispatched = json!({"delegation_id": id, "target_id": target, "task_preview": "count the beans", "status": "dispatched"});
        let complete = json!({"delegation_id": id, "target_id": target, "response_preview": format!("{}...", "x".repeat(200))});
        assert_eq!(events(&app, &caller).await, [("DELEGATION_SENT".to_owned(), sent), ("DELEGATION_STATUS".to_owned(), dispatched),
            ("DELEGATION_COMPLETE".to_owned(), complete)]);
    }

    async fn de_06_what_cannot_be_written_down_is_not_accepted(app: TestApp) {
        let (url, came) = answering(0, 200, said("done")).await;
        let (caller, target) = pair(&app, &url).await;
        app.sql("ALTER TABLE delegations RENAME TO hidden").await;
        let answer = give(&app, &caller, json!({"target_id": target, "task": "t"})).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (503, &json!("platform_unavailable")));
        let path = format!("/workspaces/{}/delegations", caller.workspace);
        app.get(&path).await.refuses(500, "query failed");
        let record = json!({"target_id": target, "task": "t", "delegation_id": "d"});
        acted(&app, &caller, "record", record).await.refuses(500, "failed to record delegation");
        app.sql("ALTER TABLE hidden RENAME TO delegations").await;
        assert_eq!(DeliveryReconciler.pass(&app.app).await.unwrap().steps, 0);
        assert_eq!(came.load(Ordering::SeqCst), 0);
    }

    async fn de_07_nothing_given_is_an_empty_list(app: TestApp) {
        let (_, caller) = online(&app, "caller").await;
        assert!(listed(&app, &caller).await.is_empty());
        let nobody = Agent::with(UNKNOWN, Some(crate::support::ADMIN));
        assert!(listed(&app, &nobody).await.is_empty());
        give(&app, &nobody, json!({"target_id": caller.workspace, "task": "t"})).await.refuses(404, "workspace not found");
    }

    async fn de_09_a_failure_of_the_target_is_the_outcome_and_a_gateways_is_none(app: TestApp) {
        let (url, came) = answering(0, 500, json!({"error": "out of beans"})).await;
        let (caller, target) = pair(&app, &url).await;
        let id = given(&app, &caller, &target, "t").await;
        delivered(&app, &caller, &id, "failed").await;
        assert_eq!(came.load(Ordering::SeqCst), 1);
        let line = &listed(&app, &caller).await[0];
        assert!(line["error"].as_str().unwrap().contains("out of beans"), "{line}");
        let (url, came) = answering(0, 503, json!({"error": "later"})).await;
        app.fake.report_address(Some(url));
        let (other, _) = online(&app, "other").await;
        let id = given(&app, &caller, &other, "t").await;
        delivered(&app, &caller, &id, "queued").await;
        app.app.clock.advance(Duration::from_secs(30));
        delivered(&app, &caller, &id, "queued").await;
        while came.load(Ordering::SeqCst) < 2 {
            DeliveryReconciler.pass(&app.app).await.unwrap();
            a_moment(10).await;
        }
    }

    /// Also DE-11: the second delivery comes within 2 s.
    async fn de_10_de_11_a_busy_target_gets_its_task_later(app: TestApp) {
        let (url, came) = answering(1, 200, said("done")).await;
        let (caller, target) = pair(&app, &url).await;
        let id = given(&app, &caller, &target, "t").await;
        delivered(&app, &caller, &id, "queued").await;
        assert_eq!(came.load(Ordering::SeqCst), 1);
        let lines = listed(&app, &caller).await;
        assert_eq!((&lines[0]["method"], &lines[0]["status"]), (&json!("delegate_result"), &json!("queued")));
        let row = &app.get(&format!("/workspaces/{}/activity?type=delegation", caller.workspace)).await.ok()[0];
        assert_eq!(row["status"], "queued", "the log is as true as the list");
        app.app.clock.advance(Duration::from_secs(2));
        delivered(&app, &caller, &id, "completed").await;
        let names: Vec<String> = events(&app, &caller).await.into_iter().map(|(name, payload)| match payload["status"].as_str() {
            Some(status) => format!("{name} {status}"),
            None => name,
        }).collect();
        assert_eq!(names, ["DELEGATION_SENT", "DELEGATION_STATUS dispatched", "DELEGATION_STATUS queued",
            "DELEGATION_STATUS dispatched", "DELEGATION_COMPLETE"]);
    }

    async fn de_12_de_13_a_task_that_is_carried_by_its_caller_is_recorded_once(app: TestApp) {
        let (_, caller) = online(&app, "caller").await;
        let record = json!({"target_id": UNKNOWN, "task": "t", "delegation_id": "mine"});
        for _ in 0..2 {
            acted(&app, &caller, "record", record.clone()).await.is(202, &json!({"delegation_id": "mine", "status": "recorded"}));
        }
        let lines = listed(&app, &caller).await;
        assert_eq!((lines.len(), &lines[0]["status"], &lines[0]["method"]), (1, &json!("dispatched"), &json!("delegate")));
        let sent = json!({"delegation_id": "mine", "target_id": UNKNOWN, "task_preview": "t"});
        assert_eq!(events(&app, &caller).await, [("DELEGATION_SENT".to_owned(), sent)]);
        for missing in ["target_id", "task", "delegation_id"] {
            let mut body = record.clone();
            body.as_object_mut().unwrap().remove(missing);
            acted(&app, &caller, "record", body).await.refuses(400, "invalid request body");
        }
        let bad = json!({"target_id": "x", "task": "t", "delegation_id": "d"});
        acted(&app, &caller, "record", bad).await.refuses(400, "target_id must be a valid UUID");
    }

    async fn de_14_de_15_de_16_its_caller_says_how_it_ended_and_the_first_word_counts(app: TestApp) {
        let (_, caller) = online(&app, "caller").await;
        for id in ["good", "bad"] {
            acted(&app, &caller, "record", json!({"target_id": UNKNOWN, "task": "t", "delegation_id": id})).await.ok();
        }
        acted(&app, &caller, "good/update", json!("x")).await.refuses(400, "invalid request body");
        for status in ["", "queued", "dispatched"] {
            acted(&app, &caller, "good/update", json!({"status": status})).await.refuses(400, "status must be 'completed' or 'failed'");
        }
        let done = json!({"status": "completed", "response_preview": "there are 7"});
        for _ in 0..2 {
            acted(&app, &caller, "good/update", done.clone()).await.is(200, &json!({"status": "completed", "delegation_id": "good"}));
        }
        acted(&app, &caller, "bad/update", json!({"status": "failed", "error": "no beans"})).await.ok();
        acted(&app, &caller, "bad/update", done.clone()).await.refuses(409, "delegation cannot be updated");
        acted(&app, &caller, "else/update", done).await.refuses(404, "delegation not found");
        let results: Vec<Value> = listed(&app, &caller).await.into_iter().filter(|line| line["method"] == "delegate_result").collect();
        assert_eq!(results.len(), 2);
        let good = results.iter().find(|line| line["delegation_id"] == "good").unwrap();
        assert_eq!((&good["status"], &good["response_preview"]), (&json!("completed"), &json!("there are 7")));
        let ends: Vec<_> = events(&app, &caller).await.into_iter().skip(2).collect();
        let complete = json!({"delegation_id": "good", "target_id": UNKNOWN, "response_preview": "there are 7"});
        let failed = json!({"delegation_id": "bad", "target_id": UNKNOWN, "error": "no beans"});
        assert_eq!(ends, [("DELEGATION_COMPLETE".to_owned(), complete), ("DELEGATION_FAILED".to_owned(), failed)]);
    }

    async fn de_17_de_18_de_20_a_key_gives_once_until_it_fails(app: TestApp) {
        let (url, _) = answering(0, 200, said("done")).await;
        let (caller, target) = pair(&app, &url).await;
        let keyed = json!({"target_id": target, "task": "t", "idempotency_key": "k"});
        let first = give(&app, &caller, keyed.clone()).await.ok();
        let id = first["delegation_id"].clone();
        let hit = json!({"delegation_id": id, "status": "pending", "target_id": target, "idempotent_hit": true});
        give(&app, &caller, keyed.clone()).await.is(200, &hit);
        delivered(&app, &caller, id.as_str().unwrap(), "completed").await;
        assert_eq!(give(&app, &caller, keyed).await.body["status"], "completed");
        let lost = json!({"target_id": UNKNOWN, "task": "t", "idempotency_key": "other"});
        let failed = give(&app, &caller, lost.clone()).await;
        let again = give(&app, &caller, lost).await;
        assert_eq!((failed.status.as_u16(), again.status.as_u16()), (202, 202));
        assert_ne!(failed.body["delegation_id"], again.body["delegation_id"]);
        let plain = [given(&app, &caller, &target, "t").await, given(&app, &caller, &target, "t").await];
        assert_ne!(plain[0], plain[1]);
    }

    async fn de_19_of_two_at_once_one_is_given_and_both_hear_its_id(app: TestApp) {
        let (caller, target) = pair(&app, "http://127.0.0.1:1").await;
        let keyed = json!({"target_id": target, "task": "t", "idempotency_key": "k"});
        let calls = (0..6).map(|_| give(&app, &caller, keyed.clone()));
        let answers = futures_util::future::join_all(calls).await;
        let id = &answers[0].body["delegation_id"];
        assert!(id.is_string() && answers.iter().all(|answer| answer.body["delegation_id"] == *id), "{answers:?}");
        let accepted = answers.iter().filter(|answer| answer.status == 202).count();
        let hits = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!((accepted, hits), (1, 5));
        assert_eq!(listed(&app, &caller).await.len(), 1);
    }

    async fn a_task_that_cannot_be_carried_fails_at_once_and_says_why(app: TestApp) {
        let (caller, target) = pair(&app, "http://127.0.0.1:1").await;
        let child = app.post("/workspaces", json!({"name": "child", "parent_id": target, "budget_limit": 0})).await.ok();
        let stranger = child["id"].as_str().unwrap();
        app.call("PATCH", &format!("/workspaces/{target}/budget"), Some(crate::support::ADMIN), Some(json!({"budget_limit": 0}))).await.ok();
        for (to, why) in [(UNKNOWN, "workspace not found"), (stranger, "access denied: workspaces cannot communicate per hierarchy rules"),
            (target.as_str(), "workspace budget limit exceeded")] {
            let id = given(&app, &caller, to, "t").await;
            let line = listed(&app, &caller).await.into_iter().find(|line| line["delegation_id"] == id.as_str()).unwrap();
            assert_eq!((&line["status"], &line["error"]), (&json!("failed"), &json!(why)));
        }
        assert_eq!(events(&app, &caller).await.last().unwrap().0, "DELEGATION_FAILED");
    }

    async fn what_the_agent_calls_an_error_is_no_success(app: TestApp) {
        let (url, _) = answering(0, 200, json!({"jsonrpc": "2.0", "id": "1", "error": {"code": -32601, "message": "no such method"}})).await;
        let (caller, target) = pair(&app, &url).await;
        let id = given(&app, &caller, &target, "t").await;
        delivered(&app, &caller, &id, "failed").await;
        assert_eq!(listed(&app, &caller).await[0]["error"], "no such method");
    }

    async fn an_outcome_that_was_read_is_acknowledged(app: TestApp) {
        let (url, _) = answering(0, 200, said("done")).await;
        let (caller, target) = pair(&app, &url).await;
        let (one, two) = (given(&app, &caller, &target, "t").await, given(&app, &caller, &target, "t").await);
        acted(&app, &caller, &format!("{one}/ack"), json!({})).await.refuses(409, "delegation is not over");
        acted(&app, &caller, "else/ack", json!({})).await.refuses(404, "delegation not found");
        delivered(&app, &caller, &one, "completed").await;
        delivered(&app, &caller, &two, "completed").await;
        let acked = acted(&app, &caller, &format!("{one}/ack"), json!({})).await.ok();
        assert_eq!((&acked["status"], acked["acknowledged_at"].is_string()), (&json!("completed"), true));
        let known = |lines: &[Value]| lines.iter().filter(|line| line["acknowledged_at"].is_string()).count();
        assert_eq!(known(&listed(&app, &caller).await), 2, "two lines of one delegation");
        let path = format!("/workspaces/{}/delegations", caller.workspace);
        let own = app.call("GET", &path, caller.token.as_deref(), None).await.ok();
        assert_eq!(known(own.as_array().unwrap()), 4);
        let queue = own[0]["queue_id"].as_str().unwrap();
        let message = app.get(&format!("/workspaces/{target}/a2a/queue/{queue}")).await.ok();
        assert_eq!(message["state"], "acknowledged");
    }

    async fn an_operator_ends_and_begins_a_task_by_its_message(app: TestApp) {
        let (url, _) = answering(0, 200, said("done")).await;
        let (caller, target) = pair(&app, &url).await;
        let id = given(&app, &caller, &target, "t").await;
        let message = listed(&app, &caller).await[0]["queue_id"].as_str().unwrap().to_owned();
        acted(&app, &caller, &format!("{id}/update"), json!({"status": "completed"})).await.refuses(409, "delegation cannot be updated");
        app.post(&format!("/admin/messages/{message}/drop"), json!({})).await.ok();
        assert_eq!(status_of(&app, &caller, &id).await, "failed");
        app.post(&format!("/admin/messages/{message}/replay"), json!({})).await.ok();
        delivered(&app, &caller, &id, "completed").await;
        let names: Vec<String> = events(&app, &caller).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["DELEGATION_SENT", "DELEGATION_FAILED", "DELEGATION_STATUS", "DELEGATION_COMPLETE"]);
    }

    async fn a_message_and_its_task_end_together_or_not_at_all(app: TestApp) {
        let (url, came) = answering(0, 200, said("done")).await;
        let (caller, target) = pair(&app, &url).await;
        let id = given(&app, &caller, &target, "t").await;
        let message = listed(&app, &caller).await[0]["queue_id"].as_str().unwrap().to_owned();
        let path = format!("/workspaces/{target}/a2a/queue/{message}");
        app.sql("ALTER TABLE delegations ADD COLUMN broken INTEGER CHECK (broken IS NULL AND status <> 'completed')").await;
        delivered(&app, &caller, &id, "dispatched").await;
        while came.load(Ordering::SeqCst) == 0 {
            a_moment(10).await;
        }
        a_moment(100).await;
        assert_eq!(app.get(&path).await.ok()["state"], "delivering", "its outcome is not half written");
        assert_eq!(status_of(&app, &caller, &id).await, "dispatched");
        app.sql("ALTER TABLE delegations DROP COLUMN broken").await;
        // The lease lapses, and it is delivered once more.
        app.app.clock.advance(Duration::from_secs(61));
        delivered(&app, &caller, &id, "completed").await;
        assert_eq!(app.get(&path).await.ok()["state"], "processed");
        let ends = events(&app, &caller).await.into_iter().filter(|(name, _)| name == "DELEGATION_COMPLETE");
        assert_eq!(ends.count(), 1);
    }

    async fn what_is_over_and_old_is_forgotten(app: TestApp) {
        let (_, caller) = online(&app, "caller").await;
        let id = given(&app, &caller, UNKNOWN, "t").await;
        acted(&app, &caller, "record", json!({"target_id": UNKNOWN, "task": "t", "delegation_id": "open"})).await.ok();
        assert_eq!(status_of(&app, &caller, &id).await, "failed");
        app.app.clock.advance(Duration::from_secs(7 * 24 * 3600 + 1));
        Retention::new(&app.app).pass(&app.app).await.unwrap();
        let left = listed(&app, &caller).await;
        assert_eq!((left.len(), &left[0]["delegation_id"]), (1, &json!("open")));
    }
}
