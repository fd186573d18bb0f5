//! One turn: `POST /workspaces/{id}/a2a`, to an agent on a real socket.

use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use serde_json::json;

use crate::support::agent::{Agent, unclaimed};
use crate::support::modes::{adjusted, compat_with_admin, development};
use crate::support::runtime::{
    answering, hanging_up, ledger, message, named, patient, said, send, send_with, sent, served,
    stands,
};
use crate::support::{ADMIN, a_moment, both};

both! {
    async fn a_turn_is_wrapped_delivered_and_answered(app: TestApp) {
        let (url, seen) = answering(|| r#"{"jsonrpc":"2.0","id":1,"result":{"x": 1}}"#.into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        let body = Some(said("hi").to_string());
        let headers = [("a2a-version", "1.0"), ("cookie", "c=1"), ("traceparent", "00-1-2-01")];
        let answer = app.send("POST", &format!("/workspaces/{id}/a2a"), Some(ADMIN), body, &headers).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"jsonrpc":"2.0","id":1,"result":{"x": 1}}"#));
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
        let (headers, body) = seen.lock().unwrap().pop().unwrap();
        assert_eq!((&body["jsonrpc"], &body["method"]), (&json!("2.0"), &json!("message/send")));
        assert!(body["params"]["message"]["messageId"].is_string() && body["id"].is_string());
        assert!(headers["a2a-version"] == "1.0" && headers["traceparent"] == "00-1-2-01", "{headers:?}");
        for secret in ["authorization", "cookie", "x-workspace-id"] {
            assert!(!headers.contains_key(secret), "{secret}");
        }
    }

    async fn a2_05_a2_37_errors_of_an_agent_pass_and_failures_are_translated(app: TestApp) {
        let (url, _) = answering(|| r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#.into_response()).await;
        let (rpc, _) = served(&app, "rpc", &url).await;
        assert_eq!(send(&app, &rpc, ADMIN).await.ok()["error"]["code"], -32601);
        let (url, _) = answering(|| (StatusCode::CONFLICT, r#"{"error":"too late"}"#).into_response()).await;
        let (text, _) = served(&app, "text", &url).await;
        send(&app, &text, ADMIN).await.is(409, &json!({"error": "too late"}));
        let (url, _) = answering(|| (StatusCode::BAD_REQUEST, r#"{"error":{"code":1}}"#).into_response()).await;
        let (object, _) = served(&app, "object", &url).await;
        send(&app, &object, ADMIN).await.is(400, &json!({"error": "Bad Request"}));
        let row = &ledger(&app, &object).await[0];
        assert_eq!((&row["state"], &row["response_status"]), (&json!("dead"), &json!(400)));
        let row = &ledger(&app, &rpc).await[0];
        assert_eq!((&row["state"], &row["evidence"]), (&json!("processed"), &json!("answer")));
    }

    async fn a_stream_passes_as_a_stream(app: TestApp) {
        let (url, _) = answering(|| ([(header::CONTENT_TYPE, "text/event-stream")], "data: 1\n\ndata: 2\n\n").into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        let answer = send(&app, &id, ADMIN).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(answer.text, "data: 1\n\ndata: 2\n\n");
    }

    async fn an_unreachable_agent_is_502_and_a_dead_one_is_being_restarted(app: TestApp) {
        let (id, _) = served(&app, "a", "http://127.0.0.1:1").await;
        send(&app, &id, ADMIN).await.refuses(502, "failed to reach workspace agent");
        let key = app.fake.newest(id.parse().unwrap()).unwrap().key;
        app.fake.lose(key);
        let dead = send(&app, &id, ADMIN).await;
        assert_eq!((dead.status.as_u16(), &dead.body["restarting"]), (503, &json!(true)));
        app.settle().await;
        assert_eq!(app.fake.starts(), 2);
    }

    async fn a2_03_a2_22_nowhere_to_send_is_503_with_the_status(app: TestApp) {
        let id = app.create("a").await;
        send(&app, &id, ADMIN).await.is(503, &json!({"error": "workspace has no URL", "status": "provisioning"}));
        let unknown = "00000000-0000-4000-8000-000000000000";
        send(&app, unknown, ADMIN).await.refuses(404, "workspace not found");
    }

    async fn a2_07_a2_08_only_family_may_talk(app: TestApp) {
        let (url, _) = answering(|| "{}".into_response()).await;
        let (a, agent) = served(&app, "a", &url).await;
        let (b, _) = served(&app, "b", &url).await;
        let child = app.post("/workspaces", json!({"name": "child", "parent_id": b})).await.ok();
        let child = child["id"].as_str().unwrap();
        let token = agent.token.as_deref().unwrap();
        send(&app, &b, token).await.ok();
        assert!(app.workspace(&a).await["last_outbound_at"].is_string());
        assert_eq!(ledger(&app, &b).await[0]["caller_id"], json!(a));
        let denied = "access denied: workspaces cannot communicate per hierarchy rules";
        send(&app, child, token).await.refuses(403, denied);
    }

    async fn a2_09_a2_10_a2_17_a2_18_a2_19_a2_20_whoever_calls_must_be_somebody(app: TestApp) {
        let (url, _) = answering(|| "{}".into_response()).await;
        let (id, agent) = served(&app, "a", &url).await;
        let path = format!("/workspaces/{id}/a2a");
        let body = Some(said("hi").to_string());
        app.send("POST", &path, None, body.clone(), &[]).await.refuses(401, "missing caller auth token");
        let forged = [("x-workspace-id", "system:restart-context")];
        app.send("POST", &path, Some(ADMIN), body.clone(), &forged).await.refuses(403, "invalid caller ID");
        let other = [("x-workspace-id", "00000000-0000-4000-8000-000000000000")];
        app.send("POST", &path, agent.token.as_deref(), body.clone(), &other).await.refuses(401, "invalid caller auth token");
        let own = [("x-workspace-id", id.as_str())];
        app.send("POST", &path, agent.token.as_deref(), body, &own).await.ok();
    }

    async fn a2_01_what_is_no_message_is_400(app: TestApp) {
        let (id, _) = served(&app, "a", "http://127.0.0.1:1").await;
        let path = format!("/workspaces/{id}/a2a");
        for body in ["[]", "{", ""] {
            app.send("POST", &path, Some(ADMIN), Some(body.to_owned()), &[]).await.refuses(400, "invalid JSON");
        }
        let long = json!({"method": "x".repeat(1 << 20)}).to_string();
        let answer = app.send("POST", &path, Some(ADMIN), Some(long), &[]).await;
        answer.refuses(400, "invalid JSON");
        assert!(answer.body["detail"].as_str().unwrap().contains("1048576"));
    }

    async fn a2_24_an_address_that_no_backend_reported_is_judged_before_the_call(app: TestApp) {
        let (url, seen) = answering(|| "{}".into_response()).await;
        let created = app.post("/workspaces", json!({"name": "x", "external": true, "url": url})).await.ok();
        let id = created["id"].as_str().unwrap();
        send(&app, id, ADMIN).await.refuses(502, "workspace URL is not publicly routable");
        assert!(seen.lock().unwrap().is_empty());
    }

    async fn a2_41_a_spent_budget_is_402(app: TestApp) {
        app.fake.report_address(Some("http://127.0.0.1:1".to_owned()));
        let created = app.post("/workspaces", json!({"name": "a", "budget_limit": 5})).await.ok();
        let id = created["id"].as_str().unwrap();
        app.settle().await;
        Agent::of(&app, id).beat_with(&app, json!({"monthly_spend": 5})).await.ok();
        send(&app, id, ADMIN).await.refuses(402, "workspace budget limit exceeded");
    }

    /// The words of reserved senders, and no others, are refused for what they are.
    async fn a2_11_other_names_are_no_reserved_ones(app: TestApp) {
        let (id, _) = served(&app, "a", "http://127.0.0.1:1").await;
        let body = Some(said("hi").to_string());
        let path = format!("/workspaces/{id}/a2a");
        for name in ["webhook:x", "system:x", "test:x", "channel:x"] {
            app.send("POST", &path, Some(ADMIN), body.clone(), &[("x-workspace-id", name)]).await.refuses(403, "invalid caller ID");
        }
        app.send("POST", &path, Some(ADMIN), body, &[("x-workspace-id", "cron:x")]).await.refuses(401, "invalid caller auth token");
    }

    async fn a2_04_a_database_that_fails_is_500(app: TestApp) {
        let (id, _) = served(&app, "a", "http://127.0.0.1:1").await;
        app.sql("ALTER TABLE workspaces RENAME TO elsewhere").await;
        send(&app, &id, ADMIN).await.refuses(500, "lookup failed");
        app.sql("ALTER TABLE elsewhere RENAME TO workspaces").await;
    }

    async fn a2_14_a2_31_a2_40_a_busy_agent_keeps_the_message_and_its_caller_is_told(app: TestApp) {
        let (url, seen, permits) = patient(r#"{"jsonrpc":"2.0","id":1,"result":"late"}"#).await;
        let (id, _) = served(&app, "a", &url).await;
        let answer = send_with(&app, &id, &named("m", "hi"), &[("x-timeout", "1")]).await;
        assert_eq!((answer.status.as_u16(), &answer.body["queued"], &answer.body["queue_depth"]), (202, &json!(true), &json!(0)), "{answer:?}");
        assert!(answer.body["message"].is_string());
        let row = answer.body["queue_id"].as_str().unwrap();
        // The exchange goes on: it is not made twice.
        let before = message(&app, row).await;
        assert_eq!((&before["state"], &before["origin"]), (&json!("delivering"), &json!("queue")));
        permits.add_permits(1);
        let after = stands(&app, row, "processed").await;
        assert_eq!((&after["response"]["result"], seen.lock().unwrap().len()), (&json!("late"), 1));
        app.sql("ALTER TABLE messages RENAME TO elsewhere").await;
        let failed = send_with(&app, &id, &named("n", "hi"), &[("prefer", "respond-async")]).await;
        failed.refuses(503, "workspace agent is busy");
        assert_eq!((&failed.body["busy"], &failed.headers["retry-after"]), (&json!(true), &"30".parse().unwrap()));
        app.sql("ALTER TABLE elsewhere RENAME TO messages").await;
    }

    async fn a2_15_an_answer_that_breaks_off_is_confirmed(app: TestApp) {
        let (url, _) = hanging_up("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
        let (id, _) = served(&app, "a", &url).await;
        let broken = send(&app, &id, ADMIN).await;
        broken.refuses(502, "failed to read agent response");
        assert_eq!(broken.body["delivery_confirmed"], true);
        let row = &ledger(&app, &id).await[0];
        assert_eq!((&row["state"], &row["maybe_run"]), (&json!("dead"), &json!(true)));
    }

    async fn a2_23_an_address_that_is_none_is_a_build_error(app: TestApp) {
        let (id, _) = served(&app, "a", "http://[no-address").await;
        send(&app, &id, ADMIN).await.refuses(500, "failed to create proxy request");
        assert!(ledger(&app, &id).await.is_empty());
    }

    async fn a2_32_what_is_no_answer_is_502(app: TestApp) {
        let (url, calls) = hanging_up("this is no HTTP\r\n\r\n").await;
        let (id, _) = served(&app, "a", &url).await;
        send(&app, &id, ADMIN).await.refuses(502, "failed to reach workspace agent");
        assert_eq!((&ledger(&app, &id).await[0]["state"], *calls.lock().unwrap()), (&json!("dead"), 1));
    }

    async fn a2_39_a_runtime_with_its_own_sessions_is_asked_again_by_its_caller(app: TestApp) {
        let (url, _) = hanging_up("").await;
        let (id, agent) = served(&app, "a", &url).await;
        agent.beat_with(&app, json!({"runtime_metadata": {"capabilities": {"session": true}}})).await.ok();
        let busy = send(&app, &id, ADMIN).await;
        assert_eq!((busy.status.as_u16(), &busy.headers["retry-after"]), (503, &"30".parse().unwrap()));
        let (native, retry) = (&busy.body["native_session"], &busy.body["retry_after"]);
        assert_eq!((native, &busy.body["busy"], retry), (&json!(true), &json!(true), &json!(30)));
        let rows = ledger(&app, &id).await;
        assert_eq!((rows.len(), &rows[0]["state"]), (1, &json!("dead")));
    }

    async fn a_caller_that_leaves_does_not_end_the_turn(app: TestApp) {
        let (url, seen, permits) = patient("{}").await;
        let (id, _) = served(&app, "a", &url).await;
        tokio::select! {
            _ = send(&app, &id, ADMIN) => panic!("it is not answered yet"),
            () = sent(&seen, 1) => {}
        }
        permits.add_permits(1);
        let row = ledger(&app, &id).await[0]["queue_id"].as_str().unwrap().to_owned();
        stands(&app, &row, "processed").await;
    }

    async fn questions_about_messages_have_no_row(app: TestApp) {
        let (url, seen) = answering(|| "{}".into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        for method in ["tasks/get", "tasks/cancel", "GetTask"] {
            let question = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"id": "t"}});
            send_with(&app, &id, &question, &[]).await.ok();
        }
        assert!(ledger(&app, &id).await.is_empty());
        let headers = seen.lock().unwrap()[0].0.clone();
        assert!(!headers.contains_key("ligand-message"));
        send(&app, &id, ADMIN).await.ok();
        let headers = seen.lock().unwrap()[3].0.clone();
        let row = ledger(&app, &id).await[0]["queue_id"].clone();
        assert_eq!((headers["ligand-message"].to_str().unwrap(), headers["ligand-attempt"].to_str().unwrap()), (row.as_str().unwrap(), "1"));
    }
}

adjusted! { |config| config.messages.idle = std::time::Duration::from_millis(150);
    async fn a2_28_an_agent_that_is_silent_loses_its_turn(app: TestApp) {
        let (url, _, _) = patient("{}").await;
        let (id, _) = served(&app, "a", &url).await;
        let answer = send(&app, &id, ADMIN).await;
        assert_eq!((answer.status.as_u16(), &answer.body["queued"]), (202, &json!(true)), "{answer:?}");
        let row = &ledger(&app, &id).await[0];
        assert_eq!((&row["state"], &row["maybe_run"]), (&json!("accepted"), &json!(true)));
        assert!(row["last_error"].as_str().unwrap().contains("no sign of progress"));
    }

    async fn a2_29_an_agent_that_beats_is_at_it(app: TestApp) {
        let (url, seen, permits) = patient("{}").await;
        let (id, agent) = served(&app, "a", &url).await;
        let beats = async {
            sent(&seen, 1).await;
            for _ in 0..8 {
                a_moment(60).await;
                agent.beat(&app).await.ok();
            }
            permits.add_permits(1);
        };
        let (answer, ()) = tokio::join!(send(&app, &id, ADMIN), beats);
        assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    }
}

adjusted! { development;
    /// Nobody here can say that an external agent is dead.
    async fn a2_33_a2_34_an_agent_that_no_backend_runs_is_never_called_dead(app: TestApp) {
        let body = json!({"name": "x", "external": true, "url": "http://127.0.0.1:1"});
        let created = app.post("/workspaces", body).await.ok();
        let id = created["id"].as_str().unwrap();
        let before = app.workspace(id).await["status"].clone();
        for _ in 0..3 {
            send(&app, id, ADMIN).await.refuses(502, "failed to reach workspace agent");
        }
        app.settle().await;
        assert_eq!((app.workspace(id).await["status"].clone(), app.fake.starts()), (before, 0));
    }
}

adjusted! { compat_with_admin;
    async fn a2_16_a_caller_that_nobody_enrolled_is_believed(app: TestApp) {
        let (url, _) = answering(|| "{}".into_response()).await;
        let (id, _) = served(&app, "a", &url).await;
        let caller = unclaimed(&app).await;
        let body = Some(said("hi").to_string());
        app.send("POST", &format!("/workspaces/{id}/a2a"), None, body, &[("x-workspace-id", &caller)]).await.ok();
    }
}
