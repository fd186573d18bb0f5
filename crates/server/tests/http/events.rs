//! The event stream and its cursor.

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::agent::online;
use crate::support::{ADMIN, TestApp, both};

/// Read a stream until `count` data lines have come.
async fn read(app: &TestApp, path: &str, headers: &[(&str, &str)], count: usize) -> Vec<Value> {
    let mut request = Request::get(path).header("authorization", format!("Bearer {ADMIN}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.response(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let mut chunks = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("\ndata:").count() < count {
        let chunk = chunks.next().await.expect("the stream goes on").unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.starts_with(": ping"), "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(|line| serde_json::from_str(line.trim()).unwrap()).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

both! {
    async fn a_stream_resumes_from_its_cursor_without_a_gap(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let all = read(&app, "/events/stream?after=0", &[], 2).await;
        assert_eq!(names(&all), ["WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"]);
        let cursor = all[0]["seq"].to_string();
        let rest = read(&app, "/events/stream", &[("last-event-id", &cursor)], 1).await;
        assert_eq!(rest, all[1..]);
        let card = json!({"workspace_id": id, "agent_card": {"name": "n"}});
        app.call("POST", "/registry/update-card", agent.token.as_deref(), Some(card)).await.ok();
        let path = format!("/workspaces/{id}/events/stream?after={}", all[1]["seq"]);
        let own = read(&app, &path, &[], 1).await;
        assert_eq!((&own[0]["type"], &own[0]["data"]["agent_card"]["name"]), (&json!("AGENT_CARD_UPDATED"), &json!("n")));
        assert!(own[0]["timestamp"].is_i64());
    }

    async fn a_cursor_from_another_life_is_answered_with_a_gap_marker(app: TestApp) {
        online(&app, "a").await;
        let events = read(&app, "/events/stream?after=99999", &[], 1).await;
        assert_eq!(names(&events), ["STREAM_GAP"]);
        let bad = app.get("/events/stream?after=yesterday").await;
        bad.refuses(400, "the cursor must be the number of an event");
    }

    async fn a_stream_of_nothing_is_404(app: TestApp) {
        let unknown = "/workspaces/00000000-0000-4000-8000-000000000000/events/stream";
        app.get(unknown).await.refuses(404, "workspace not found");
    }

    async fn heartbeats_pass_by_and_are_not_kept(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/events/stream");
        let watching = read(&app, &path, &[], 2);
        // They are heard from the moment the stream is open, so beat until it is.
        let beating = async {
            for n in 0.. {
                agent.beat_with(&app, json!({"current_task": format!("task {n}")})).await.ok();
                tokio::task::yield_now().await;
            }
        };
        let seen = tokio::select! { seen = watching => seen, () = beating => unreachable!() };
        let types: Vec<&Value> = seen.iter().map(|event| &event["type"]).collect();
        // One part of the stream may bring those of several heartbeats.
        assert_eq!(types[..2], ["TASK_UPDATED", "WORKSPACE_HEARTBEAT"]);
        assert!(!app.events(&id).await.contains(&"WORKSPACE_HEARTBEAT".to_owned()));
    }
}
