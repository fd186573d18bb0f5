//! What goes through workspaces: logged, listed, polled, searched, told to users.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use ligand_server::activity::{self, End, Turn};
use ligand_server::briefings::BriefingReconciler;
use ligand_server::liveness::sweeps::Retention;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::{ADMIN, Answer, TestApp, a_moment, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

async fn log(app: &TestApp, agent: &Agent, body: Value) -> Answer {
    let path = format!("/workspaces/{}/activity", agent.workspace);
    app.call("POST", &path, agent.token.as_deref(), Some(body)).await
}

async fn listed(app: &TestApp, id: &str, query: &str) -> Vec<Value> {
    let list = app.get(&format!("/workspaces/{id}/activity{query}")).await.ok();
    list.as_array().unwrap().clone()
}

fn of<'a>(rows: &'a [Value], key: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[key].as_str().unwrap_or("-")).collect()
}

/// So many entries called `0`, `1`, …, a second apart.
async fn filled(app: &TestApp, agent: &Agent, count: usize) {
    for n in 0..count {
        app.app.clock.advance(Duration::from_secs(1));
        log(app, agent, json!({"activity_type": "agent_log", "summary": n.to_string()})).await.ok();
    }
}

fn message(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": {
        "role": "user", "messageId": "m", "parts": [{"kind": "text", "text": text}]}}})
}

/// An agent's HTTP server that answers every turn like this.
async fn agent(status: StatusCode, body: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handler = move || std::future::ready((status, body.clone()));
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    url
}

/// A turn that ended, recorded. Gives its row.
async fn turned(app: &TestApp, target: &str, sender: Option<&str>, end: End) -> Value {
    let before = listed(app, target, "").await.len();
    let turn = Turn {
        target: target.parse().unwrap(),
        name: "a".to_owned(),
        sender: sender.map(|id| id.parse().unwrap()),
        request: message("hi").to_string(),
        began: app.app.clock.now(),
        end,
    };
    app.app.clock.advance(Duration::from_millis(12));
    activity::turn(&app.app, turn);
    for _ in 0..200 {
        let rows = listed(app, target, "").await;
        if rows.len() > before {
            return rows[0].clone();
        }
        a_moment(10).await;
    }
    panic!("the turn is not recorded");
}

fn answered(status: u16, body: &Value) -> End {
    End::Answered(status, body.to_string().into())
}

both! {
    async fn what_an_agent_logs_is_listed_newest_first(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let whole = json!({"activity_type": "a2a_send", "method": "m", "summary": "s", "target_id": UNKNOWN, "status": "error",
            "error_detail": "why", "duration_ms": 7, "request_body": {"a": 1}, "response_body": "done", "metadata": {"b": 2}});
        log(&app, &agent, whole).await.is(200, &json!({"status": "logged"}));
        log(&app, &agent, json!({"activity_type": "task_update", "metadata": {"b": 2}, "source_id": id, "workspace_id": id})).await.ok();
        let rows = listed(&app, &id, "").await;
        assert_eq!(of(&rows, "activity_type"), ["task_update", "a2a_send"]);
        let (newest, first) = (&rows[0], &rows[1]);
        assert_eq!((&newest["request_body"], &newest["status"]), (&json!({"b": 2}), &json!("ok")));
        assert!(newest["method"].is_null() && newest.get("response_body").is_none(), "{newest}");
        let mut expected = json!({"id": first["id"], "workspace_id": id, "activity_type": "a2a_send", "source_id": id, "target_id": UNKNOWN,
            "method": "m", "summary": "s", "duration_ms": 7, "status": "error", "error_detail": "why", "request_body": {"a": 1}, "response_body": "done"});
        expected["created_at"] = first["created_at"].clone();
        assert_eq!(*first, expected);
        assert!(listed(&app, UNKNOWN, "").await.is_empty());
    }

    async fn what_may_not_be_logged_is_refused(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        log(&app, &agent, json!("x")).await.refuses(400, "invalid request body");
        let types = "activity_type must be one of: a2a_send, a2a_receive, task_update, agent_log, skill_promotion, memory_write, error";
        for kind in ["", "delegation", "memory_write_global"] {
            log(&app, &agent, json!({"activity_type": kind})).await.refuses(400, types);
        }
        let spoofed = "source_id must match authenticated workspace";
        for source in [UNKNOWN, "webhook:github"] {
            let body = json!({"activity_type": "error", "source_id": source});
            log(&app, &agent, body.clone()).await.refuses(403, spoofed);
            app.post(&format!("/workspaces/{id}/activity"), body).await.refuses(403, spoofed);
        }
        log(&app, &agent, json!({"activity_type": "error", "target_id": "x"})).await.refuses(400, "invalid request body");
        app.post(&format!("/workspaces/{UNKNOWN}/activity"), json!({"activity_type": "error"})).await.refuses(404, "workspace not found");
        assert!(listed(&app, &id, "").await.is_empty());
    }

    async fn a_list_is_of_a_type_a_source_and_a_length(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        filled(&app, &agent, 3).await;
        app.post(&format!("/workspaces/{id}/notify"), json!({"message": "hello"})).await.ok();
        assert_eq!(of(&listed(&app, &id, "?source=canvas").await, "method"), ["notify"]);
        assert_eq!(of(&listed(&app, &id, "?source=agent&limit=2").await, "summary"), ["2", "1"]);
        assert_eq!(listed(&app, &id, "?type=a2a_receive").await.len(), 1);
        assert!(listed(&app, &id, "?type=a2a").await.is_empty());
        for all in ["?limit=0", "?limit=x", "?limit=9999", "?source=", "?since_id="] {
            assert_eq!(listed(&app, &id, all).await.len(), 4, "{all}");
        }
        let path = format!("/workspaces/{id}/activity?source=user");
        app.get(&path).await.refuses(400, "source must be 'canvas' or 'agent'");
        app.sql("ALTER TABLE activity RENAME TO hidden").await;
        app.get(&format!("/workspaces/{id}/activity")).await.refuses(500, "query failed");
        app.get(&format!("/workspaces/{id}/session-search")).await.refuses(500, "session search failed");
        assert_eq!(log(&app, &agent, json!({"activity_type": "error"})).await.status, 503);
    }

    async fn a_poller_goes_on_from_its_cursor_and_misses_none(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        filled(&app, &agent, 6).await;
        let all = listed(&app, &id, "").await;
        let oldest = all[5]["id"].as_str().unwrap();
        let next = listed(&app, &id, &format!("?since_id={oldest}&limit=3&type=agent_log")).await;
        assert_eq!(of(&next, "summary"), ["1", "2", "3"]);
        let last = next[2]["id"].as_str().unwrap();
        assert_eq!(of(&listed(&app, &id, &format!("?since_id={last}")).await, "summary"), ["4", "5"]);
        let newest = all[0]["id"].as_str().unwrap();
        assert!(listed(&app, &id, &format!("?since_id={newest}")).await.is_empty());
        let (other, _) = online(&app, "b").await;
        for (whose, cursor) in [(&id, UNKNOWN), (&id, "yesterday"), (&other, newest)] {
            let gone = app.get(&format!("/workspaces/{whose}/activity?since_id={cursor}")).await;
            gone.refuses(410, "cursor not found");
            assert_eq!(gone.body["code"], "cursor_lost");
        }
    }

    async fn many_at_once_are_numbered_without_a_gap_for_pollers(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        filled(&app, &agent, 1).await;
        let mut cursor = listed(&app, &id, "").await[0]["id"].as_str().unwrap().to_owned();
        let calls = (0..24).map(|n| log(&app, &agent, json!({"activity_type": "agent_log", "summary": format!("s{n}")})));
        let writing = futures_util::future::join_all(calls);
        let polling = async {
            let mut seen = Vec::new();
            while seen.len() < 24 {
                let rows = listed(&app, &id, &format!("?since_id={cursor}&limit=5")).await;
                cursor = rows.last().map_or(cursor, |row| row["id"].as_str().unwrap().to_owned());
                seen.extend(of(&rows, "summary").into_iter().map(str::to_owned));
                tokio::task::yield_now().await;
            }
            seen
        };
        let (answers, mut seen) = tokio::join!(writing, polling);
        answers.into_iter().for_each(|answer| drop(answer.ok()));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 24);
    }

    async fn a_list_is_of_a_peer_or_from_before_a_time(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        filled(&app, &agent, 3).await;
        log(&app, &agent, json!({"activity_type": "a2a_send", "target_id": UNKNOWN})).await.ok();
        let rows = listed(&app, &id, "").await;
        assert_eq!(of(&listed(&app, &id, &format!("?peer_id={UNKNOWN}")).await, "activity_type"), ["a2a_send"]);
        let time = rows[2]["created_at"].as_str().unwrap();
        assert_eq!(of(&listed(&app, &id, &format!("?before_ts={time}")).await, "summary"), ["0"]);
        app.get(&format!("/workspaces/{id}/activity?peer_id=me")).await.refuses(400, "peer_id must be a valid UUID");
        app.get(&format!("/workspaces/{id}/activity?before_ts=noon")).await.refuses(400, "before_ts must be an RFC 3339 time");
    }

    async fn a_key_logs_and_tells_once(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        for (path, body) in [("activity", json!({"activity_type": "error"})), ("notify", json!({"message": "m"}))] {
            for key in ["k1", "k1", "k2"] {
                let path = format!("/workspaces/{id}/{path}");
                let headers = [("idempotency-key", if path.ends_with("notify") { "k3" } else { key })];
                app.send("POST", &path, agent.token.as_deref(), Some(body.to_string()), &headers).await.ok();
            }
        }
        assert_eq!(of(&listed(&app, &id, "").await, "activity_type"), ["a2a_receive", "error", "error"]);
    }

    async fn watchers_hear_what_is_logged_and_told(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let mut live = app.app.hub.live();
        log(&app, &agent, json!({"activity_type": "a2a_send", "method": "m", "summary": "s", "duration_ms": 3})).await.ok();
        let files = json!([{"uri": "u", "name": "n", "mimeType": "text/plain", "size": 3}, {"uri": "v", "name": "o"}]);
        let told = json!({"message": "look", "attachments": files, "type": "x"});
        app.call("POST", &format!("/workspaces/{id}/notify"), agent.token.as_deref(), Some(told)).await.is(200, &json!({"status": "sent"}));
        let heard = [live.recv().await.unwrap(), live.recv().await.unwrap(), live.recv().await.unwrap()];
        assert_eq!(heard.each_ref().map(|event| event.event.as_str()), ["ACTIVITY_LOGGED", "ACTIVITY_LOGGED", "AGENT_MESSAGE"]);
        assert!(heard.iter().all(|event| event.workspace_id.unwrap().to_string() == id && event.seq.is_none()));
        assert_eq!(heard[0].payload, json!({"activity_type": "a2a_send", "method": "m", "summary": "s", "status": "ok",
            "source_id": id, "target_id": null, "duration_ms": 3}));
        assert_eq!(heard[2].payload, json!({"message": "look", "workspace_id": id, "name": "a", "attachments": files}));
        let row = &listed(&app, &id, "?source=canvas").await[0];
        assert_eq!((&row["activity_type"], &row["method"], &row["source_id"]), (&json!("a2a_receive"), &json!("notify"), &json!(null)));
        let parts = json!([{"kind": "file", "file": files[0]}, {"kind": "file", "file": files[1]}]);
        assert_eq!(row["response_body"], json!({"result": "look", "parts": parts}));
        assert!(row.get("data").is_none() && row.get("source").is_none(), "an agent that polls must not answer itself");
    }

    async fn a_user_is_told_something_by_a_workspace_that_is_there(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/notify");
        for body in ["{}", r#"{"message": ""}"#, r#"{"type": "progress"}"#, "", "[]"] {
            app.send("POST", &path, agent.token.as_deref(), Some(body.to_owned()), &[]).await.refuses(400, "message is required");
        }
        let body = json!({"message": "m", "attachments": [{"uri": "u", "name": "n"}, {"uri": "u"}]});
        app.post(&path, body).await.refuses(400, "attachment[1]: uri and name are required");
        app.post(&path, json!({"message": "m", "attachments": []})).await.ok();
        assert_eq!(listed(&app, &id, "").await[0]["response_body"], json!({"result": "m"}));
        app.post(&format!("/workspaces/{UNKNOWN}/notify"), json!({"message": "m"})).await.refuses(404, "workspace not found");
        app.delete(&format!("/workspaces/{id}")).await.ok();
        app.post(&path, json!({"message": "m"})).await.refuses(404, "workspace not found");
    }

    async fn a_search_finds_a_text_wherever_it_stands(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        log(&app, &agent, json!({"activity_type": "agent_log", "summary": "Deployed 100%", "method": "Ship"})).await.ok();
        log(&app, &agent, json!({"activity_type": "error", "summary": "broken", "status": "Failed", "request_body": {"task": "Über_all"}})).await.ok();
        log(&app, &agent, json!({"activity_type": "task_update", "response_body": {"x": "Über"}})).await.ok();
        let found = async |q: &str| {
            let answer = app.get(&format!("/workspaces/{id}/session-search?q={q}")).await.ok();
            of(answer.as_array().unwrap(), "label").into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        for (q, labels) in [("deployed", vec!["agent_log"]), ("SHIP", vec!["agent_log"]), ("failed", vec!["error"]), ("TASK_UP", vec!["task_update"]),
            ("100%25", vec!["agent_log"]), ("1%250", vec![]), ("%C3%9Cber", vec!["task_update", "error"]), ("r_a", vec!["error"]), ("e_a", vec![]),
            ("", vec!["task_update", "error", "agent_log"]), ("&limit=1", vec!["task_update"])] {
            assert_eq!(found(q).await, labels, "{q}");
        }
        let first = &app.get(&format!("/workspaces/{id}/session-search?q=ship")).await.ok()[0];
        let expected = json!({"kind": "activity", "id": first["id"], "workspace_id": id, "label": "agent_log", "content": "Deployed 100%",
            "method": "Ship", "status": "ok", "created_at": first["created_at"]});
        assert_eq!(*first, expected);
    }

    async fn a_turn_is_recorded_with_what_came_of_it(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let (peer, _) = online(&app, "b").await;
        app.call("PATCH", &format!("/workspaces/{peer}"), Some(ADMIN), Some(json!({"role": "tester"}))).await.ok();
        let mut live = app.app.hub.live();
        let answer = json!({"jsonrpc": "2.0", "id": "1", "result": {"parts": [], "metadata": {"tool_trace": [{"tool": "t"}]},
            "usage": {"input_tokens": 10, "output_tokens": 2}}});
        let row = turned(&app, &id, None, answered(200, &answer)).await;
        let expected = json!({"activity_type": "a2a_receive", "source_id": null, "target_id": id, "method": "message/send",
            "summary": "message/send → a", "duration_ms": 12, "status": "ok", "error_detail": null, "request_body": message("hi"),
            "response_body": answer, "tool_trace": [{"tool": "t"}], "source": "canvas_user"});
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(row[key], *value, "{key}");
        }
        assert_eq!(row["data"], json!({"source": "canvas_user", "source_id": "", "text": "hi", "message": message("hi")["params"]["message"],
            "peer_name": "", "peer_role": "", "agent_card_url": ""}));
        let events = [live.recv().await.unwrap(), live.recv().await.unwrap()];
        assert_eq!(events.each_ref().map(|event| event.event.as_str()), ["A2A_RESPONSE", "ACTIVITY_LOGGED"]);
        assert_eq!(events[0].payload, json!({"response_body": answer, "method": "message/send", "duration_ms": 12}));
        assert_eq!(events[1].payload["tool_trace"], json!([{"tool": "t"}]));
        let row = turned(&app, &id, Some(&peer), answered(409, &json!({"error": "no"}))).await;
        assert_eq!((&row["status"], &row["source_id"], &row["response_body"]), (&json!("error"), &json!(peer), &json!({"error": "no"})));
        let data = &row["data"];
        assert_eq!((&data["source"], &data["peer_name"], &data["peer_role"]), (&json!("peer_agent"), &json!("b"), &json!("tester")));
        assert!(data["agent_card_url"].as_str().unwrap().ends_with(&format!("/registry/discover/{peer}")));
        let row = turned(&app, &id, Some(&peer), End::Failed("gone".to_owned())).await;
        assert_eq!((&row["status"], &row["error_detail"]), (&json!("error"), &json!("gone")));
        assert_eq!(live.recv().await.unwrap().event, "ACTIVITY_LOGGED");
        let row = turned(&app, &id, None, End::Answered(200, "no JSON".into())).await;
        assert_eq!(row["response_body"], "no JSON");
        let metrics = app.get(&format!("/workspaces/{id}/metrics")).await.ok();
        assert_eq!((&metrics["input_tokens"], &metrics["output_tokens"], &metrics["total_calls"]), (&json!(10), &json!(2), &json!(1)));
    }

    async fn what_is_too_long_is_named_and_not_kept(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let row = turned(&app, &id, None, answered(200, &json!({"result": "x".repeat(1 << 20)}))).await;
        assert_eq!(row["response_body"], json!({"truncated": true, "bytes": (1 << 20) + 13}));
    }

    async fn what_is_old_or_of_a_purged_workspace_is_gone(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        filled(&app, &agent, 2).await;
        let cursor = listed(&app, &id, "").await[0]["id"].as_str().unwrap().to_owned();
        app.app.clock.advance(Duration::from_secs(7 * 24 * 3600));
        log(&app, &agent, json!({"activity_type": "agent_log", "summary": "new"})).await.ok();
        Retention::new(&app.app).pass(&app.app).await.unwrap();
        assert_eq!(of(&listed(&app, &id, "").await, "summary"), ["new", "1"]);
        app.app.clock.advance(Duration::from_secs(1));
        Retention::new(&app.app).pass(&app.app).await.unwrap();
        assert_eq!(of(&listed(&app, &id, "").await, "summary"), ["new"]);
        app.get(&format!("/workspaces/{id}/activity?since_id={cursor}")).await.refuses(410, "cursor not found");
        app.delete(&format!("/workspaces/{id}?purge=true")).await.ok();
        assert!(listed(&app, &id, "").await.is_empty());
    }

    async fn a2_07_a2_35_a2_36_a2_37_the_direct_path_is_recorded(app: TestApp) {
        let answer = json!({"jsonrpc": "2.0", "id": "1", "result": {"usage": {"input_tokens": 4, "output_tokens": 1}}});
        let (good, bad) = (agent(StatusCode::OK, answer.to_string()).await, agent(StatusCode::CONFLICT, r#"{"error":"no"}"#.to_owned()).await);
        let (_, caller) = online(&app, "caller").await;
        let mut rows = Vec::new();
        for url in [good.as_str(), bad.as_str(), "http://127.0.0.1:1"] {
            app.fake.report_address(Some(url.to_owned()));
            let (id, _) = online(&app, "target").await;
            let path = format!("/workspaces/{id}/a2a");
            app.call("POST", &path, caller.token.as_deref(), Some(message("hi"))).await;
            for _ in 0..200 {
                if let [row] = &listed(&app, &id, "").await[..] {
                    rows.push(row.clone());
                    break;
                }
                a_moment(10).await;
            }
        }
        assert_eq!(of(&rows, "status"), ["ok", "error", "error"]);
        assert!(rows.iter().all(|row| row["source_id"] == caller.workspace.as_str() && row["activity_type"] == "a2a_receive"));
        assert!(rows.iter().all(|row| row["summary"] == "message/send → target" && row["request_body"] == message("hi")));
        assert_eq!((&rows[0]["response_body"], &rows[1]["response_body"]), (&answer, &json!({"error": "no"})));
        assert!(rows[2]["error_detail"].is_string() && rows[0]["error_detail"].is_null());
        let used = format!("/workspaces/{}/metrics", rows[0]["workspace_id"].as_str().unwrap());
        for _ in 0..200 {
            if app.get(&used).await.ok()["input_tokens"] == 4 {
                return;
            }
            a_moment(10).await;
        }
        panic!("what it used is not counted");
    }

    async fn what_the_platform_tells_an_agent_is_not_recorded(app: TestApp) {
        let url = agent(StatusCode::OK, json!({"jsonrpc": "2.0", "id": "1", "result": {}}).to_string()).await;
        app.fake.report_address(Some(url));
        let (id, _) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let told = BriefingReconciler.pass(&app.app).await.unwrap();
        assert_eq!(told.steps, 1);
        a_moment(50).await;
        assert!(listed(&app, &id, "").await.is_empty());
    }
}
