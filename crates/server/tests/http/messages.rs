//! One turn: `POST /workspaces/{id}/a2a`, to an agent on a real socket.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::{ADMIN, TestApp, both};

type Seen = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// An agent's HTTP server that answers every turn like this.
async fn answering(
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (String, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let handler = move |headers: HeaderMap, body: String| {
        let body = serde_json::from_str(&body).unwrap();
        noted.lock().unwrap().push((headers, body));
        let answer = answer();
        async move { answer }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    (url, seen)
}

fn said(text: &str) -> Value {
    json!({"method": "message/send", "params": {"message": {"role": "user", "parts": [{"kind": "text", "text": text}]}}})
}

/// A workspace whose agent answers at `url`, which its backend reported.
async fn served(app: &TestApp, name: &str, url: &str) -> (String, Agent) {
    app.fake.report_address(Some(url.to_owned()));
    online(app, name).await
}

async fn send(app: &TestApp, id: &str, token: &str) -> crate::support::Answer {
    app.call("POST", &format!("/workspaces/{id}/a2a"), Some(token), Some(said("hi"))).await
}

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

    async fn errors_of_an_agent_pass_and_failures_are_translated(app: TestApp) {
        let (url, _) = answering(|| r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#.into_response()).await;
        let (rpc, _) = served(&app, "rpc", &url).await;
        assert_eq!(send(&app, &rpc, ADMIN).await.ok()["error"]["code"], -32601);
        let (url, _) = answering(|| (StatusCode::CONFLICT, r#"{"error":"too late"}"#).into_response()).await;
        let (text, _) = served(&app, "text", &url).await;
        send(&app, &text, ADMIN).await.is(409, &json!({"error": "too late"}));
        let (url, _) = answering(|| (StatusCode::BAD_REQUEST, r#"{"error":{"code":1}}"#).into_response()).await;
        let (object, _) = served(&app, "object", &url).await;
        send(&app, &object, ADMIN).await.is(400, &json!({"error": "Bad Request"}));
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

    async fn nowhere_to_send_is_503_with_the_status(app: TestApp) {
        let id = app.create("a").await;
        send(&app, &id, ADMIN).await.is(503, &json!({"error": "workspace has no URL", "status": "provisioning"}));
        let unknown = "00000000-0000-4000-8000-000000000000";
        send(&app, unknown, ADMIN).await.refuses(404, "workspace not found");
    }

    async fn only_family_may_talk(app: TestApp) {
        let (url, _) = answering(|| "{}".into_response()).await;
        let (a, agent) = served(&app, "a", &url).await;
        let (b, _) = served(&app, "b", &url).await;
        let child = app.post("/workspaces", json!({"name": "child", "parent_id": b})).await.ok();
        let child = child["id"].as_str().unwrap();
        let token = agent.token.as_deref().unwrap();
        send(&app, &b, token).await.ok();
        assert!(app.workspace(&a).await["last_outbound_at"].is_string());
        let denied = "access denied: workspaces cannot communicate per hierarchy rules";
        send(&app, child, token).await.refuses(403, denied);
    }

    async fn whoever_calls_must_be_somebody(app: TestApp) {
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

    async fn what_is_no_message_is_400(app: TestApp) {
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

    async fn an_address_that_no_backend_reported_is_judged_before_the_call(app: TestApp) {
        let (url, seen) = answering(|| "{}".into_response()).await;
        let created = app.post("/workspaces", json!({"name": "x", "external": true, "url": url})).await.ok();
        let id = created["id"].as_str().unwrap();
        send(&app, id, ADMIN).await.refuses(502, "workspace URL is not publicly routable");
        assert!(seen.lock().unwrap().is_empty());
    }

    async fn a_spent_budget_is_402(app: TestApp) {
        app.fake.report_address(Some("http://127.0.0.1:1".to_owned()));
        let created = app.post("/workspaces", json!({"name": "a", "budget_limit": 5})).await.ok();
        let id = created["id"].as_str().unwrap();
        app.settle().await;
        Agent::of(&app, id).beat_with(&app, json!({"monthly_spend": 5})).await.ok();
        send(&app, id, ADMIN).await.refuses(402, "workspace budget limit exceeded");
    }
}
