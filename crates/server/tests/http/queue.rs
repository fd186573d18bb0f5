//! The queue: messages that are accepted, delivered later, and read by those whom they concern.

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use ligand_server::messages::DeliveryReconciler;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::runtime::{
    accepted, answering, deliver, deliver_later, ledger, message, named, patient, send_with, sent,
    served, stands,
};
use crate::support::{ADMIN, TestApp, a_moment, both};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"x":1}}"#;

/// Let a message fail so often, by an agent that answers like this. Gives the message.
async fn failing(app: &TestApp, times: u64, answer: (StatusCode, &'static str)) -> Value {
    let (url, seen) = answering(move || answer.into_response()).await;
    let (id, agent) = served(app, "failing", &url).await;
    let row = accepted(app, &id, &named("m", "x")).await;
    for time in 1..=times {
        app.app.clock.advance(std::time::Duration::from_secs(20));
        agent.beat(app).await.ok();
        deliver_later(app, 1).await;
        sent(&seen, usize::try_from(time).unwrap()).await;
        for _ in 0..100 {
            if message(app, &row).await["state"] != "delivering" {
                break;
            }
            a_moment(10).await;
        }
    }
    message(app, &row).await
}

both! {
    async fn qu_05_an_accepted_message_is_delivered_and_its_answer_is_read(app: TestApp) {
        let (url, seen) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        let answer = send_with(&app, &id, &named("m", "x"), &[("prefer", "respond-async"), ("traceparent", "00-1-2-01")]).await;
        assert_eq!((answer.status.as_u16(), &answer.body["queue_depth"]), (202, &json!(1)), "{answer:?}");
        assert_eq!(answer.headers["preference-applied"], "respond-async");
        let row = answer.body["queue_id"].as_str().unwrap();
        let path = format!("/workspaces/{id}/a2a/queue/{row}");
        assert_eq!(app.get(&path).await.ok()["status"], "queued");
        assert_eq!(deliver(&app).await, 1);
        stands(&app, row, "processed").await;
        let done = app.get(&path).await.ok();
        assert_eq!((&done["status"], &done["state"], &done["response"]["result"]["x"]), (&json!("completed"), &json!("acknowledged"), &json!(1)));
        for field in ["accepted_at", "delivered_at", "processed_at", "acknowledged_at"] {
            assert!(done[field].is_string(), "{field}: {done}");
        }
        let headers = seen.lock().unwrap()[0].0.clone();
        assert_eq!((&headers["traceparent"], &headers["ligand-message"]), (&"00-1-2-01".parse().unwrap(), &row.parse().unwrap()));
    }

    async fn qu_01_what_matters_more_is_delivered_first(app: TestApp) {
        let (url, seen) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        for name in ["info", "task", "critical", "task2"] {
            accepted(&app, &id, &named(name, name)).await;
            app.app.clock.advance(std::time::Duration::from_millis(1));
        }
        app.sql("UPDATE messages SET priority = 10 WHERE key = 'info'").await;
        app.sql("UPDATE messages SET priority = 100 WHERE key = 'critical'").await;
        for count in 1..=4 {
            for _ in 0..100 {
                if deliver(&app).await == 1 { break; }
                a_moment(10).await;
            }
            sent(&seen, count).await;
        }
        let order: Vec<Value> = seen.lock().unwrap().iter().map(|(_, body)| body["params"]["message"]["messageId"].clone()).collect();
        assert_eq!(order, ["critical", "task", "task2", "info"]);
    }

    async fn qu_07_qu_08_an_error_without_a_text_is_told_by_its_status(app: TestApp) {
        let failed = failing(&app, 1, (StatusCode::SERVICE_UNAVAILABLE, "")).await;
        assert_eq!((&failed["state"], &failed["last_error"]), (&json!("accepted"), &json!("Service Unavailable")));
        let failed = failing(&app, 1, (StatusCode::BAD_GATEWAY, "{}")).await;
        assert_eq!(failed["last_error"], "Bad Gateway");
    }

    async fn qu_09_an_error_that_is_no_text_is_told_by_its_status(app: TestApp) {
        let failed = failing(&app, 1, (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":{"code":1}}"#)).await;
        assert_eq!(failed["last_error"], "Internal Server Error");
    }

    async fn qu_10_an_error_that_is_a_text_is_kept(app: TestApp) {
        let failed = failing(&app, 1, (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"no money"}"#)).await;
        assert_eq!((&failed["last_error"], &failed["status"]), (&json!("no money"), &json!("queued")));
    }

    async fn qu_13_the_fifth_failed_attempt_ends_it(app: TestApp) {
        let failed = failing(&app, 5, (StatusCode::INTERNAL_SERVER_ERROR, "{}")).await;
        let (state, status, attempt) = (&failed["state"], &failed["status"], &failed["attempt"]);
        assert_eq!((state, status, attempt), (&json!("dead"), &json!("failed"), &json!(5)));
        let id = failed["workspace_id"].as_str().unwrap();
        assert!(app.journal(id).await.contains(&"message-given-up".to_owned()));
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        assert_eq!((&why["messages"][0]["state"], &why["messages"][0]["body"]), (&json!("dead"), &json!(null)));
    }

    async fn qu_06_a_busy_agents_message_is_not_failed(app: TestApp) {
        let (url, seen, _) = patient("{}").await;
        let (id, agent) = served(&app, "a", &url).await;
        let able = json!({"ligand": {"version": "0", "features": ["paced", "turns"]}});
        agent.register_with(&app, able, &[]).await.ok();
        app.app.clock.advance(std::time::Duration::from_secs(1));
        let late = send_with(&app, &id, &named("m", "x"), &[("x-timeout", "1")]).await;
        assert_eq!(late.status.as_u16(), 202, "{late:?}");
        sent(&seen, 1).await;
        // The same message, queued already: the same id, no second row, nothing delivered twice.
        let again = send_with(&app, &id, &named("m", "x"), &[]).await;
        assert_eq!((again.status.as_u16(), &again.body["queue_id"]), (202, &late.body["queue_id"]));
        assert_eq!((ledger(&app, &id).await.len(), seen.lock().unwrap().len()), (1, 1));
    }

    async fn qu_11_an_empty_queue_is_left_alone(app: TestApp) {
        let pass = DeliveryReconciler.pass(&app.app).await.unwrap();
        assert_eq!((pass.looked_at, pass.steps, pass.failed), (0, 0, None));
    }

    async fn qu_12_a_database_that_fails_ends_the_pass(app: TestApp) {
        app.sql("ALTER TABLE messages RENAME TO elsewhere").await;
        assert!(DeliveryReconciler.pass(&app.app).await.is_err());
        app.sql("ALTER TABLE elsewhere RENAME TO messages").await;
        assert!(DeliveryReconciler.pass(&app.app).await.is_ok());
    }

    async fn qu_14_of_many_passes_one_delivers_a_message(app: TestApp) {
        let (url, seen, permits) = patient(ANSWER).await;
        let (id, _) = served(&app, "a", &url).await;
        for name in 0..6 {
            accepted(&app, &id, &named(&name.to_string(), "x")).await;
        }
        for taken in 1..=6 {
            let passes = (0..4).map(|_| deliver(&app));
            let all: u64 = futures_util::future::join_all(passes).await.into_iter().sum();
            assert_eq!(all, 1, "one at a time");
            permits.add_permits(1);
            sent(&seen, taken).await;
            for _ in 0..100 {
                let rows = ledger(&app, &id).await;
                if rows.iter().filter(|row| row["state"] == "processed").count() == taken { break; }
                a_moment(10).await;
            }
        }
        assert_eq!(seen.lock().unwrap().len(), 6);
    }

    async fn a_hibernated_workspace_is_woken_by_what_waits(app: TestApp) {
        let (url, seen) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        app.ask(&format!("/workspaces/{id}/hibernate")).await.ok();
        // Whoever does not say otherwise is told to come again.
        let row = accepted(&app, &id, &named("m", "x")).await;
        assert_eq!((deliver(&app).await, app.workspace(&id).await["intent"].clone()), (0, json!("running")));
        app.settle().await;
        let agent = Agent::of(&app, &id);
        agent.register(&app).await.ok();
        app.settle().await;
        assert_eq!(deliver(&app).await, 1);
        stands(&app, &row, "processed").await;
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    async fn a2_38_who_waits_for_a_hibernated_workspace_is_answered_in_the_same_call(app: TestApp) {
        let (url, _) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        app.ask(&format!("/workspaces/{id}/hibernate")).await.ok();
        let wake = async {
            a_moment(100).await;
            app.settle().await;
            Agent::of(&app, &id).register(&app).await.ok();
            app.settle().await;
            deliver(&app).await;
        };
        let message = named("m", "x");
        let (answer, ()) = tokio::join!(send_with(&app, &id, &message, &[("prefer", "wait=20")]), wake);
        answer.is(200, &serde_json::from_str(ANSWER).unwrap());
        app.ask(&format!("/workspaces/{id}/hibernate")).await.ok();
        let refused = send_with(&app, &id, &named("n", "x"), &[]).await;
        let (waking, retry) = (&refused.body["waking"], &refused.headers["retry-after"]);
        assert_eq!((refused.status.as_u16(), waking, retry), (503, &json!(true), &"15".parse().unwrap()));
        assert_eq!(ledger(&app, &id).await.len(), 1);
    }

    async fn only_those_whom_it_concerns_read_an_outcome(app: TestApp) {
        let (url, _) = answering(|| ANSWER.into_response()).await;
        let (target, agent) = served(&app, "a", &url).await;
        let (_, caller) = served(&app, "b", &url).await;
        let (_, stranger) = served(&app, "c", &url).await;
        let (path, body) = (format!("/workspaces/{target}/a2a"), Some(named("m", "x").to_string()));
        let answer = app.send("POST", &path, caller.token.as_deref(), body, &[("prefer", "respond-async")]).await.ok();
        let row = answer["queue_id"].as_str().unwrap();
        let path = format!("{path}/queue/{row}");
        deliver(&app).await;
        stands(&app, row, "processed").await;
        app.call("GET", &path, None, None).await.refuses(401, "missing caller auth token");
        app.call("GET", &path, stranger.token.as_deref(), None).await.refuses(404, "message not found");
        let read = async |token: Option<&str>| app.call("GET", &path, token, None).await.ok()["state"].clone();
        assert_eq!((read(agent.token.as_deref()).await, read(Some(ADMIN)).await), (json!("processed"), json!("processed")));
        assert_eq!(read(caller.token.as_deref()).await, "acknowledged");
        app.get(&format!("/workspaces/{target}/a2a/queue/{target}")).await.refuses(404, "message not found");
        app.get(&format!("/workspaces/{target}/a2a/queue/nothing")).await.refuses(404, "message not found");
    }

    async fn operators_look_and_drop(app: TestApp) {
        let (url, _) = answering(|| ANSWER.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        let (one, two) = (accepted(&app, &id, &named("1", "x")).await, accepted(&app, &id, &named("2", "x")).await);
        let first = app.get("/admin/messages?limit=1&state=accepted").await.ok();
        let next = first["next"].as_str().unwrap();
        let second = app.get(&format!("/admin/messages?limit=1&state=accepted&after={next}")).await.ok();
        let mut ids = [&first, &second].map(|page| page["messages"][0]["queue_id"].as_str().unwrap().to_owned());
        ids.sort();
        let mut both = [one.clone(), two.clone()];
        both.sort();
        assert_eq!(ids, both);
        for bad in ["workspace_id=x", "state=x", "after=x"] {
            app.get(&format!("/admin/messages?{bad}")).await.refuses(400, "invalid query");
        }
        let drop = format!("/admin/messages/{one}/drop");
        assert_eq!(app.call("POST", &drop, Some(ADMIN), None).await.ok()["status"], "dropped");
        app.call("POST", &drop, Some(ADMIN), None).await.refuses(409, "the message is dropped");
        let replay = |id: &str| format!("/admin/messages/{id}/replay");
        app.call("POST", &replay(&two), Some(ADMIN), None).await.refuses(409, "the message is accepted");
        assert_eq!(app.call("POST", &replay(&one), Some(ADMIN), None).await.ok()["state"], "accepted");
        app.get("/admin/messages/nothing").await.refuses(404, "message not found");
        app.call("GET", "/admin/messages", None, None).await.refuses(401, "admin auth required");
    }

    async fn what_is_stale_is_dropped(app: TestApp) {
        let id = app.create("a").await;
        let other = app.create("b").await;
        let (old, there) = (accepted(&app, &id, &named("1", "x")).await, accepted(&app, &other, &named("1", "x")).await);
        app.app.clock.advance(std::time::Duration::from_secs(3601));
        let new = accepted(&app, &id, &named("2", "x")).await;
        let path = "/admin/a2a-queue/drop-stale";
        for bad in ["0", "-1", "x"] {
            let path = format!("{path}?max_age_minutes={bad}");
            app.ask(&path).await.refuses(400, "max_age_minutes must be a positive integer");
        }
        app.ask(&format!("{path}?workspace_id={id}")).await.is(200, &json!({"dropped": 1}));
        let dropped = message(&app, &old).await;
        assert!(dropped["state"] == "dropped" && dropped["last_error"].is_string(), "{dropped}");
        assert_eq!((&message(&app, &there).await["state"], &message(&app, &new).await["state"]), (&json!("accepted"), &json!("accepted")));
        app.sql("ALTER TABLE messages RENAME TO elsewhere").await;
        app.ask(path).await.refuses(500, "failed to drop stale items");
        app.sql("ALTER TABLE elsewhere RENAME TO messages").await;
    }

    async fn what_waits_too_long_expires_and_what_is_over_is_forgotten(app: TestApp) {
        let id = app.create("a").await;
        let row = accepted(&app, &id, &named("1", "x")).await;
        deliver_later(&app, 8 * 24 * 3600).await;
        assert_eq!(message(&app, &row).await["state"], "expired");
        let gone = app.create("b").await;
        let orphan = accepted(&app, &gone, &named("1", "x")).await;
        app.delete(&format!("/workspaces/{gone}?confirm=true")).await.ok();
        deliver_later(&app, 60).await;
        let orphan = message(&app, &orphan).await;
        assert_eq!((&orphan["state"], &orphan["last_error"]), (&json!("dead"), &json!("its workspace was deleted")));
        app.app.clock.advance(std::time::Duration::from_secs(24 * 3600 + 1));
        ligand_server::messages::MessageRetention.pass(&app.app).await.unwrap();
        assert!(ledger(&app, &id).await.is_empty());
    }

    async fn what_cannot_be_accepted_is_refused_by_its_reason(app: TestApp) {
        let unknown = "00000000-0000-4000-8000-000000000000";
        let later = [("prefer", "respond-async")];
        send_with(&app, unknown, &named("m", "x"), &later).await.refuses(404, "workspace not found");
        let created = app.post("/workspaces", json!({"name": "a", "budget_limit": 0})).await.ok();
        let id = created["id"].as_str().unwrap();
        send_with(&app, id, &named("m", "x"), &later).await.refuses(402, "workspace budget limit exceeded");
        send_with(&app, id, &json!([]), &later).await.refuses(400, "invalid JSON");
    }
}
