//! The ledger: messages that come twice, leases, holds, and what agents tell of their turns.

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use ligand_server::messages;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::runtime::{
    accepted, answering, deliver, hanging_up, ledger, message, named, patient, remembering, said,
    send_with, sent, served, stands,
};
use crate::support::{ADMIN, TestApp, a_moment, both};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"x":1}}"#;

/// What the agent of a workspace tells of one turn.
async fn tells(
    app: &TestApp,
    agent: &Agent,
    id: &str,
    attempt: i64,
    more: serde_json::Value,
) -> u64 {
    let mut turn = json!({"message": id, "attempt": attempt, "at_ms": 1_767_225_600_000_i64});
    for (key, value) in more.as_object().unwrap() {
        turn[key] = value.clone();
    }
    let body = json!({"workspace_id": agent.workspace, "turns": [turn]});
    let told = app.call("POST", "/registry/turns", agent.token.as_deref(), Some(body)).await.ok();
    told["taken"].as_u64().unwrap()
}

both! {
    async fn a_repeated_message_gets_the_recorded_answer(app: TestApp) {
        let (url, seen) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        send_with(&app, &id, &named("m", "hi"), &[]).await.ok();
        let mut again = named("m", "hi");
        again["id"] = json!("second");
        let answer = send_with(&app, &id, &again, &[]).await;
        answer.is(200, &json!({"jsonrpc": "2.0", "id": "second", "result": {"x": 1}}));
        assert_eq!(answer.headers["idempotent-replayed"], "true");
        // Also later, and whoever would not have waited.
        let later = send_with(&app, &id, &again, &[("prefer", "respond-async")]).await;
        assert_eq!((later.status.as_u16(), seen.lock().unwrap().len()), (200, 1));
        let other = send_with(&app, &id, &named("m", "something else"), &[]).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{other:?}");
        // By the header, where the message has no name.
        for _ in 0..2 {
            send_with(&app, &id, &said("hi"), &[("idempotency-key", "k")]).await.ok();
        }
        assert_eq!((ledger(&app, &id).await.len(), seen.lock().unwrap().len()), (2, 2));
    }

    async fn a_name_is_free_again_after_its_window(app: TestApp) {
        let (url, seen) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        send_with(&app, &id, &named("m", "hi"), &[]).await.ok();
        app.app.clock.advance(std::time::Duration::from_secs(25 * 3600));
        send_with(&app, &id, &named("m", "something else"), &[]).await.ok();
        assert_eq!((ledger(&app, &id).await.len(), seen.lock().unwrap().len()), (1, 2));
    }

    async fn what_failed_is_delivered_again_when_it_comes_again(app: TestApp) {
        let (url, seen) = answering(|| (StatusCode::INTERNAL_SERVER_ERROR, "{}").into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        for attempt in 1..=2 {
            send_with(&app, &id, &named("m", "hi"), &[]).await.refuses(500, "Internal Server Error");
            let rows = ledger(&app, &id).await;
            assert_eq!((rows.len(), &rows[0]["attempt"], &rows[0]["state"]), (1, &json!(attempt), &json!("dead")));
        }
        assert_eq!(seen.lock().unwrap()[1].0["ligand-attempt"], "2");
    }

    async fn two_callers_of_one_message_get_one_answer(app: TestApp) {
        let (url, seen, permits) = patient(ANSWER).await;
        let (id, _) = served(&app, "a", &url).await;
        let message = named("m", "hi");
        let release = async {
            sent(&seen, 1).await;
            a_moment(50).await;
            permits.add_permits(2);
        };
        let (one, two, ()) = tokio::join!(send_with(&app, &id, &message, &[]), send_with(&app, &id, &message, &[]), release);
        assert_eq!((one.ok(), two.ok()), (serde_json::from_str(ANSWER).unwrap(), serde_json::from_str(ANSWER).unwrap()));
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    async fn a_stream_is_recorded_to_its_end(app: TestApp) {
        let (url, seen) = answering(|| {
            ([("content-type", "text/event-stream")], "data: {\"jsonrpc\":\"2.0\",\"id\":1}\n\ndata: end\n\n").into_response()
        }).await;
        let (id, _) = served(&app, "a", &url).await;
        let first = send_with(&app, &id, &named("m", "hi"), &[]).await;
        assert_eq!(first.headers["content-type"], "text/event-stream");
        let row = ledger(&app, &id).await[0]["queue_id"].as_str().unwrap().to_owned();
        stands(&app, &row, "processed").await;
        let mut again = named("m", "hi");
        again["id"] = json!(7);
        let again = send_with(&app, &id, &again, &[]).await;
        assert_eq!(again.headers["content-type"], "text/event-stream");
        assert_eq!(again.text, "data: {\"id\":7,\"jsonrpc\":\"2.0\"}\n\ndata: end\n\n");
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    async fn a_held_workspace_gets_nothing_until_it_is_released(app: TestApp) {
        let (url, seen) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        let (workspace, until) = (id.parse().unwrap(), app.app.clock.now().after(std::time::Duration::from_secs(60)));
        messages::hold(&app.app, workspace, "it is being moved", until).await.unwrap();
        let queued = accepted(&app, &id, &named("q", "hi")).await;
        let release = async {
            a_moment(100).await;
            assert_eq!((deliver(&app).await, seen.lock().unwrap().len()), (0, 0));
            let question = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/get"});
            send_with(&app, &id, &question, &[]).await.refuses(503, "workspace agent is busy");
            messages::release(&app.app, workspace).await.unwrap();
        };
        let message = named("m", "hi");
        let (direct, ()) = tokio::join!(send_with(&app, &id, &message, &[]), release);
        direct.ok();
        deliver(&app).await;
        stands(&app, &queued, "processed").await;
        // A hold that nobody releases lapses; who waits for less is told that the message is queued.
        let until = app.app.clock.now().after(std::time::Duration::from_secs(60));
        messages::hold(&app.app, workspace, "it is being moved", until).await.unwrap();
        let late = send_with(&app, &id, &named("n", "hi"), &[("x-timeout", "1")]).await;
        assert_eq!(late.status.as_u16(), 202, "{late:?}");
        app.app.clock.advance(std::time::Duration::from_secs(61));
        deliver(&app).await;
        stands(&app, late.body["queue_id"].as_str().unwrap(), "processed").await;
    }

    /// A server died with leases. What it had promised is delivered again; a foreign runtime gets it once more at most.
    async fn leases_of_a_dead_server_are_judged_by_who_was_promised_what(app: TestApp) {
        let (url, seen, _) = patient(ANSWER).await;
        let (foreign, _) = served(&app, "foreign", &url).await;
        let (ligand, _) = remembering(&app, "ligand", &url).await;
        let (theirs, ours) = (accepted(&app, &foreign, &named("m", "x")).await, accepted(&app, &ligand, &named("m", "x")).await);
        let direct = named("d", "x");
        let call = send_with(&app, &foreign, &direct, &[]);
        tokio::select! { _ = call => panic!("nobody answers"), () = sent(&seen, 1) => {} }
        app.sql("UPDATE workspaces SET max_concurrent_tasks = 2").await;
        assert_eq!(deliver(&app).await, 2);
        sent(&seen, 3).await;
        let app = app.reborn();
        let lapse = "UPDATE messages SET leased_until = 0 WHERE state = 'delivering'";
        app.sql(lapse).await;
        // Its lapse, and then its next attempt, in one pass.
        deliver(&app).await;
        sent(&seen, 5).await;
        for (id, maybe_run) in [(&theirs, true), (&ours, false)] {
            let row = message(&app, id).await;
            assert_eq!((&row["state"], &row["attempt"], &row["maybe_run"]), (&json!("delivering"), &json!(2), &json!(maybe_run)));
        }
        let dead = ledger(&app, &foreign).await.into_iter().find(|row| row["key"] == "d").unwrap();
        assert_eq!((&dead["state"], &dead["maybe_run"]), (&json!("dead"), &json!(true)));
        let app = app.reborn();
        app.sql(lapse).await;
        deliver(&app).await;
        sent(&seen, 6).await;
        let (theirs, ours) = (message(&app, &theirs).await, message(&app, &ours).await);
        assert_eq!((&theirs["state"], &ours["state"], &ours["attempt"]), (&json!("dead"), &json!("delivering"), &json!(3)));
        assert!(app.journal(&foreign).await.contains(&"message-given-up".to_owned()));
    }

    async fn a_late_outcome_changes_nothing(app: TestApp) {
        let row = overtaken(&app).await;
        a_moment(200).await;
        assert_eq!(message(&app, &row).await["state"], "delivering");
        let metrics = app.get("/metrics").await.text;
        assert!(metrics.contains("ligand_message_attempts_total{outcome=\"late\"} 1"), "{metrics}");
    }

    async fn an_agent_tells_how_far_its_turns_are(app: TestApp) {
        let (url, seen, _) = patient(ANSWER).await;
        let (id, agent) = remembering(&app, "a", &url).await;
        let (other, stranger) = served(&app, "b", &url).await;
        let row = accepted(&app, &id, &named("m", "x")).await;
        deliver(&app).await;
        sent(&seen, 1).await;
        assert_eq!(tells(&app, &agent, &row, 1, json!({"state": "received"})).await, 1);
        let received = message(&app, &row).await;
        assert!(received["delivered_at"].is_string() && received["started_at"].is_null());
        assert_eq!(tells(&app, &agent, &row, 1, json!({"state": "started"})).await, 1);
        assert!(message(&app, &row).await["started_at"].is_string());
        // Another attempt, another workspace, another generation: nothing.
        assert_eq!(tells(&app, &agent, &row, 2, json!({"state": "started"})).await, 0);
        assert_eq!(tells(&app, &stranger, &row, 1, json!({"state": "started"})).await, 0);
        let ended = json!({"state": "ended", "status": 200, "response": ANSWER});
        assert_eq!(tells(&app, &agent, &row, 2, ended.clone()).await, 0);
        assert_eq!(tells(&app, &agent, &row, 1, ended).await, 1);
        let done = message(&app, &row).await;
        assert_eq!((&done["state"], &done["evidence"], &done["response"]["result"]["x"]), (&json!("processed"), &json!("agent"), &json!(1)));
        let body = json!({"workspace_id": other, "turns": []});
        for (token, text) in [(None, "missing workspace auth token"), (agent.token.as_deref(), "invalid workspace auth token"), (Some(ADMIN), "invalid workspace auth token")] {
            app.call("POST", "/registry/turns", token, Some(body.clone())).await.refuses(401, text);
        }
        let bad = json!({"workspace_id": id, "turns": [{"message": row, "attempt": 1, "state": "gone", "at_ms": 0}]});
        let bad = app.call("POST", "/registry/turns", agent.token.as_deref(), Some(bad)).await;
        bad.refuses(400, "invalid request body");
        assert!(bad.body["detail"].as_str().unwrap().starts_with("turns[0].state"), "{bad:?}");
    }

    async fn what_ligands_agent_says_of_a_turn_is_evidence(app: TestApp) {
        let (url, _) = answering(|| {
            ([("ligand-turn", "processed"), ("ligand-started-at", "1767225599000")], ANSWER).into_response()
        }).await;
        let (id, _) = remembering(&app, "a", &url).await;
        send_with(&app, &id, &named("m", "x"), &[]).await.ok();
        let row = &ledger(&app, &id).await[0];
        assert_eq!((&row["evidence"], &row["started_at"]), (&json!("agent"), &json!("2025-12-31T23:59:59.000000Z")));
    }

    async fn an_interrupted_turn_is_not_begun_again_unless_somebody_says_so(app: TestApp) {
        let (url, seen) = answering(|| (StatusCode::CONFLICT, [("ligand-turn", "interrupted")], "{}").into_response()).await;
        let (id, _) = remembering(&app, "a", &url).await;
        let row = accepted(&app, &id, &named("m", "x")).await;
        deliver(&app).await;
        let dead = stands(&app, &row, "dead").await;
        assert_eq!((&dead["maybe_run"], &dead["attempt"]), (&json!(true), &json!(1)));
        assert!(!seen.lock().unwrap()[0].0.contains_key("ligand-again"));
        let replayed = app.call("POST", &format!("/admin/messages/{row}/replay"), Some(ADMIN), None).await;
        assert_eq!((replayed.status.as_u16(), &replayed.body["state"]), (202, &json!("accepted")));
        deliver(&app).await;
        sent(&seen, 2).await;
        assert_eq!(seen.lock().unwrap()[1].0["ligand-again"], "true");
    }

    async fn a_foreign_runtime_that_hangs_up_twice_is_asked_no_more(app: TestApp) {
        let (url, calls) = hanging_up("").await;
        let (id, agent) = served(&app, "a", &url).await;
        let queued = send_with(&app, &id, &named("m", "x"), &[]).await;
        assert_eq!((queued.status.as_u16(), &queued.body["queue_depth"]), (202, &json!(1)), "{queued:?}");
        // It is due when its agent has room, whatever the wait.
        assert_eq!(deliver(&app).await, 0);
        agent.beat(&app).await.ok();
        assert_eq!(deliver(&app).await, 1);
        let dead = stands(&app, queued.body["queue_id"].as_str().unwrap(), "dead").await;
        assert_eq!((&dead["maybe_run"], *calls.lock().unwrap()), (&json!(true), 2));
    }
}

/// A message whose agent answers after somebody else began to deliver it.
async fn overtaken(app: &TestApp) -> String {
    let (url, seen, permits) = patient(ANSWER).await;
    let (id, _) = remembering(app, "a", &url).await;
    let row = accepted(app, &id, &named("m", "x")).await;
    deliver(app).await;
    sent(&seen, 1).await;
    app.sql("UPDATE messages SET attempt = attempt + 1").await;
    permits.add_permits(1);
    row
}

// The rule that this test rests on, taken away: then the outcome of an attempt that is over is taken.
#[cfg(feature = "mutants")]
crate::support::modes::adjusted! { |config| config.guards = ligand_domain::guards::Guards::without(ligand_domain::guards::Guard::LeaseAttempt);
    async fn without_its_guard_a_late_outcome_is_taken(app: TestApp) {
        let row = overtaken(&app).await;
        stands(&app, &row, "processed").await;
    }
}
