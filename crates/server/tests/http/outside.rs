//! What administrators and their tools say of a workspace from outside; restarts, and what an agent is told before
//! its end; a workspace's state in a few words.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use ligand_server::backend::fake::Fault;
use ligand_server::reconcile::Reconciler as _;
use ligand_server::workspaces::WorkspaceReconciler;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::modes::{adjusted, compat, development};
use crate::support::{ADMIN, TestApp, a_moment, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

async fn status(app: &TestApp, id: &str) -> String {
    app.workspace(id).await["status"].as_str().unwrap().to_owned()
}

async fn last_event(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/events/{id}")).await.ok()[0].clone()
}

async fn external(app: &TestApp) -> (String, Agent) {
    let created = app.post("/workspaces", json!({"name": "outside", "external": true})).await.ok();
    let id = created["id"].as_str().unwrap().to_owned();
    let agent = Agent::with(&id, created["connection"]["auth_token"].as_str());
    agent.register(app).await.ok();
    (id, agent)
}

both! {
    async fn ar_01_ar_05_an_administrators_restart_is_dispatched_and_not_waited_for(app: TestApp) {
        let (id, old) = online(&app, "a").await;
        let path = format!("/admin/workspaces/{id}/restart");
        // Nobody reconciles: an answer that waited would not come.
        for _ in 0..3 {
            let answer = app.call("POST", &path, Some(ADMIN), None).await;
            answer.is(202, &json!({"status": "restart_dispatched", "workspace_id": id}));
        }
        assert_eq!((status(&app, &id).await.as_str(), app.fake.starts()), ("provisioning", 1));
        old.beat(&app).await.ok();
        assert_eq!(status(&app, &id).await, "provisioning", "the old one says nothing any more");
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        assert_eq!((status(&app, &id).await.as_str(), app.fake.starts()), ("online", 2), "they coalesced");
        // What does not run stays as it is.
        for verb in ["pause", "hibernate"] {
            let (id, _) = online(&app, verb).await;
            app.ask(&format!("/workspaces/{id}/{verb}")).await.ok();
            let before = status(&app, &id).await;
            app.ask(&format!("/admin/workspaces/{id}/restart")).await.ok();
            app.settle().await;
            assert_eq!(status(&app, &id).await, before);
        }
        let (id, agent) = external(&app).await;
        app.ask(&format!("/admin/workspaces/{id}/restart")).await.ok();
        agent.beat(&app).await.ok();
        assert_eq!(status(&app, &id).await, "online");
    }

    async fn ar_02_ar_04_what_is_not_there_is_404_and_no_id_400(app: TestApp) {
        for id in [UNKNOWN, "hello"] {
            app.ask(&format!("/admin/workspaces/{id}/restart")).await.refuses(404, "workspace not found");
        }
        let (id, _) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{id}")).await.ok();
        app.ask(&format!("/admin/workspaces/{id}/restart")).await.refuses(404, "workspace not found");
        for verb in ["restart", "bootstrap-failed", "set-compute-instance"] {
            app.ask(&format!("/admin/workspaces//{verb}")).await.refuses(400, "workspace id required");
            assert_eq!(app.call("POST", &format!("/admin/workspaces//{verb}"), None, None).await.status, 401);
        }
    }

    async fn ar_03_sc_05_rs_02_a_failing_database_is_500_and_nothing_is_dispatched(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.app.db.close().await;
        app.call("POST", &format!("/admin/workspaces/{id}/restart"), Some(ADMIN), None).await.is(500, &json!({"error": "db lookup failed"}));
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.is(500, &json!({"error": "lookup failed"}));
        let compute = json!({"instance_id": "i-1", "provider": "aws"});
        app.post(&format!("/admin/workspaces/{id}/set-compute-instance"), compute).await.is(500, &json!({"error": "db update failed"}));
        app.post(&format!("/admin/workspaces/{id}/bootstrap-failed"), json!({"error": "x"})).await.is(500, &json!({"error": "db update failed"}));
        app.call("DELETE", &format!("/workspaces/{id}"), Some(ADMIN), None).await.is(500, &json!({"error": "failed to check children"}));
        app.get(&format!("/workspaces/{id}/state")).await.is(500, &json!({"error": "query failed"}));
        assert_eq!(app.fake.instances().len(), 1);
    }

    async fn co_05_restarts_from_everywhere_never_start_two(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let (own, admin) = (format!("/workspaces/{id}/restart"), format!("/admin/workspaces/{id}/restart"));
        for round in 2..5 {
            let call = |path| app.call("POST", path, Some(ADMIN), None);
            let both = app.meanwhile(async { tokio::join!(call(&own), call(&admin)) }).await;
            assert!(both.0.status == 200 && both.1.status == 202, "{both:?}");
            app.settle().await;
            assert_eq!(app.fake.instances().len(), 1, "round {round}");
            Agent::of(&app, &id).register(&app).await.ok();
            app.settle().await;
            assert_eq!(app.fake.instances().len(), 1, "round {round}");
            Agent::of(&app, &id).register(&app).await.ok();
            app.settle().await;
            assert_eq!(status(&app, &id).await, "online", "round {round}");
        }
    }

    async fn co_03_a_pass_that_fails_is_followed_by_another(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.sql("ALTER TABLE journal RENAME TO journal_away").await;
        let claimed = |app: &TestApp| {
            let app = app.app.clone();
            async move { WorkspaceReconciler.pass(&app).await.unwrap() }
        };
        app.sql("UPDATE workspaces SET restarts_wanted = restarts_wanted + 1, due_at = 0").await;
        let pass = claimed(&app).await;
        assert!(pass.failed.is_some(), "{pass:?}");
        app.sql("ALTER TABLE journal_away RENAME TO journal").await;
        app.later(3).await;
        Agent::of(&app, &id).register(&app).await.ok();
        assert_eq!((status(&app, &id).await.as_str(), app.fake.starts()), ("online", 2));
    }

    async fn rs_03_a_restart_below_a_paused_one_names_it(app: TestApp) {
        let (top, _) = online(&app, "top").await;
        app.ask(&format!("/workspaces/{top}/pause")).await.ok();
        for body in [json!({"name": "a", "parent_id": top}), json!({"name": "b", "parent_id": top, "external": true})] {
            let id = app.post("/workspaces", body).await.ok()["id"].as_str().unwrap().to_owned();
            let refusal = "parent workspace \"top\" is paused — resume it first";
            app.ask(&format!("/workspaces/{id}/restart")).await.refuses(409, refusal);
        }
    }

    async fn rs_05_what_no_backend_runs_is_left_alone(app: TestApp) {
        let (id, agent) = external(&app).await;
        let answer = app.ask(&format!("/workspaces/{id}/restart")).await.ok();
        assert_eq!((&answer["status"], &answer["runtime"]), (&json!("noop"), &json!("external")));
        assert!(answer["message"].is_string());
        agent.beat(&app).await.ok();
    }

    async fn bf_01_a_failed_start_is_given_up_and_begun_anew(app: TestApp) {
        let id = app.create("a").await;
        app.settle().await;
        let late = Agent::of(&app, &id);
        let path = format!("/admin/workspaces/{id}/bootstrap-failed");
        let said = json!({"error": "disk full\0", "log_tail": "line\0 1\nline 2"});
        app.post(&path, said).await.is(200, &json!({"ok": true}));
        assert_eq!(status(&app, &id).await, "failed");
        let event = last_event(&app, &id).await;
        assert_eq!(event["event_type"], "WORKSPACE_PROVISION_FAILED");
        assert_eq!(event["payload"], json!({"error": "disk full", "log_tail": "line 1\nline 2", "source": "bootstrap_watcher"}));
        let workspace = app.get("/workspaces").await.ok()[0].clone();
        assert_eq!((&workspace["last_sample_error"], &workspace["status"]), (&json!("disk full\nline 1\nline 2"), &json!("failed")));
        // It is not left at that: the instance is ended, and the next one begins.
        app.settle().await;
        let told = app.events(&id).await;
        assert_eq!(told, ["WORKSPACE_PROVISIONING", "WORKSPACE_PROVISION_FAILED", "WORKSPACE_PROVISIONING"]);
        assert_eq!((app.fake.starts(), app.fake.instances().len()), (2, 1));
        assert_eq!(late.register(&app).await.status, 401);
        Agent::of(&app, &id).register(&app).await.ok();
        assert_eq!(status(&app, &id).await, "online");
    }

    async fn bf_02_whatever_is_not_being_started_stays_as_it_is(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let events = app.events(&id).await;
        for (id, error) in [(id.as_str(), "late"), (UNKNOWN, "x"), ("hello", "x")] {
            let path = format!("/admin/workspaces/{id}/bootstrap-failed");
            app.post(&path, json!({"error": error})).await.is(200, &json!({"ok": true, "no_change": true}));
        }
        assert_eq!((status(&app, &id).await.as_str(), app.events(&id).await), ("online", events));
        app.post(&format!("/admin/workspaces/{id}/bootstrap-failed"), json!("nothing")).await.refuses(400, "invalid request body");
        // Admitted before anybody looked: then there is nothing to give up.
        let id = app.create("b").await;
        app.settle().await;
        app.post(&format!("/admin/workspaces/{id}/bootstrap-failed"), json!({})).await.is(200, &json!({"ok": true}));
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        assert_eq!((status(&app, &id).await.as_str(), app.fake.starts()), ("online", 2));
    }

    async fn bf_03_no_id_is_400(app: TestApp) {
        let path = "/admin/workspaces//bootstrap-failed";
        app.post(path, json!({"error": "x"})).await.refuses(400, "workspace id required");
    }

    async fn bf_04_of_a_long_log_the_end_is_kept(app: TestApp) {
        let id = app.create("a").await;
        app.settle().await;
        let log = format!("{}THE END", "x".repeat(10_000));
        app.post(&format!("/admin/workspaces/{id}/bootstrap-failed"), json!({"error": "", "log_tail": log})).await.ok();
        let payload = last_event(&app, &id).await["payload"].clone();
        let tail = payload["log_tail"].as_str().unwrap();
        assert!(tail.ends_with("THE END") && tail.starts_with("[…] "), "{}", tail.len());
        assert_eq!(tail.len(), 8192 + "[…] ".len());
        assert_eq!(payload["error"], "the start failed; no reason was given");
        let kept = app.get("/workspaces").await.ok()[0]["last_sample_error"].as_str().unwrap().to_owned();
        assert!(kept.len() <= 8192 && kept.ends_with("THE END"), "{}", kept.len());
    }

    async fn bf_05_there_is_no_console_without_a_control_plane(app: TestApp) {
        assert_eq!(app.get(&format!("/workspaces/{UNKNOWN}/console")).await.status, 501);
        app.get("/workspaces//console").await.refuses(400, "workspace id required");
    }

    async fn sc_01_sc_04_compute_is_noted_and_nothing_else_changes(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/admin/workspaces/{id}/set-compute-instance");
        let before = app.workspace(&id).await;
        for _ in 0..2 {
            let answer = app.post(&path, json!({"instance_id": "i-42", "provider": "Hetzner"})).await;
            answer.is(200, &json!({"status": "repointed", "workspace_id": id, "instance_id": "i-42", "provider": "hetzner"}));
        }
        app.settle().await;
        let mut after = app.workspace(&id).await;
        assert_eq!((&after["instance_id"], &after["provider"]), (&json!("i-42"), &json!("hetzner")));
        for key in ["instance_id", "provider"] {
            after.as_object_mut().unwrap().remove(key);
        }
        assert_eq!((after, app.fake.starts()), (before, 1));
        agent.beat(&app).await.ok();
        for id in [UNKNOWN, "hello"] {
            let path = format!("/admin/workspaces/{id}/set-compute-instance");
            app.post(&path, json!({"instance_id": "i", "provider": "aws"})).await.refuses(404, "workspace not found");
        }
    }

    async fn sc_02_sc_03_an_instance_and_a_known_provider_are_needed(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let path = format!("/admin/workspaces/{id}/set-compute-instance");
        app.post(&path, json!({"provider": "aws"})).await.refuses(400, "instance_id required");
        app.post(&path, json!({"instance_id": " "})).await.refuses(400, "instance_id required");
        let unknown = app.post(&path, json!({"instance_id": "i", "provider": "moon"})).await;
        unknown.refuses(400, "provider must be one of aws, gcp, hetzner, local");
        app.post(&path, json!("nothing")).await.refuses(400, "invalid request body");
        assert_eq!(app.workspace(&id).await.get("instance_id"), None);
    }

    async fn ws_08_ids_of_any_form_and_places_that_are_whole(app: TestApp) {
        let id = app.create("a").await;
        let plain = id.replace('-', "");
        for form in [plain.clone(), format!("%7B{id}%7D"), format!("urn:uuid:{id}"), plain.to_uppercase()] {
            let answer = app.call("PATCH", &format!("/workspaces/{form}"), Some(ADMIN), Some(json!({"role": form}))).await;
            answer.is(200, &json!({"status": "updated"}));
            assert_eq!(app.workspace(&id).await["role"], form.as_str());
        }
        let path = format!("/workspaces/{id}");
        let patch = async |body: Value| app.call("PATCH", &path, Some(ADMIN), Some(body)).await;
        patch(json!({"x": 5})).await.is(200, &json!({"status": "updated"}));
        patch(json!({"y": 5})).await.is(200, &json!({"status": "updated"}));
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["x"], &workspace["y"]), (&json!(0.0), &json!(0.0)), "half a place is none");
        patch(json!({"x": 5, "y": 6})).await.ok();
        assert_eq!(app.workspace(&id).await["y"], 6.0);
        patch(json!({"workspace_dir": null})).await.is(200, &json!({"status": "updated", "needs_restart": true}));
        patch(json!({"workspace_dir": "/etc/x"})).await.refuses(400, "invalid workspace directory");
        patch(json!({"runtime": "x".repeat(101)})).await.refuses(400, "runtime must be at most 100 characters");
        patch(json!({"runtime": "a\nb"})).await.refuses(400, "runtime must not contain newline characters");
        patch(json!({"role": "x".repeat(1001)})).await.refuses(400, "role must be at most 1000 characters");
        patch(json!({"runtime": "other"})).await.ok();
        assert_eq!(app.workspace(&id).await["runtime"], "other");
        app.call("PATCH", "/workspaces/hello", Some(ADMIN), Some(json!({}))).await.refuses(400, "invalid workspace ID");
    }

    async fn ws_09_a_delete_is_for_every_state_and_may_be_repeated(app: TestApp) {
        let mut ids = Vec::new();
        let (id, _) = online(&app, "hibernating").await;
        app.call("POST", &format!("/workspaces/{id}/hibernate"), Some(ADMIN), None).await.ok();
        ids.push(id);
        for verb in ["pause", "hibernate"] {
            let (id, _) = online(&app, verb).await;
            app.ask(&format!("/workspaces/{id}/{verb}")).await.ok();
            ids.push(id);
        }
        let provisioning = app.create("provisioning").await;
        app.settle().await;
        ids.push(provisioning);
        app.fake.plan(Fault::Refuse("no".to_owned()));
        ids.push(app.create("failed").await);
        app.settle().await;
        let (offline, _) = online(&app, "offline").await;
        app.sql("UPDATE workspaces SET status = 'offline' WHERE name = 'offline'").await;
        ids.push(offline);
        ids.push(external(&app).await.0);
        for id in &ids {
            let path = format!("/workspaces/{id}");
            for _ in 0..2 {
                app.delete(&path).await.is(200, &json!({"status": "removed", "cascade_deleted": 0}));
            }
            assert_eq!(app.events(id).await.iter().filter(|name| *name == "WORKSPACE_REMOVED").count(), 1);
            assert_eq!(status(&app, id).await, "removed");
            for _ in 0..2 {
                let purged = app.delete(&format!("{path}?purge=true")).await;
                assert_eq!(purged.body["status"], "purged", "{purged:?}");
            }
            app.get(&path).await.refuses(404, "workspace not found");
        }
        assert!(app.fake.instances().is_empty());
    }

    async fn ws_10_a_state_in_a_few_words(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/state");
        let token = agent.token.as_deref();
        let state = json!({"workspace_id": id, "status": "online", "paused": false, "deleted": false});
        app.call("GET", &path, token, None).await.is(200, &state);
        app.get(&path).await.is(200, &state);
        app.call("GET", &path, None, None).await.refuses(401, "missing workspace auth token");
        app.call("GET", &path, Some("wrong"), None).await.refuses(401, "invalid workspace auth token");
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        let state = json!({"workspace_id": id, "status": "paused", "paused": true, "deleted": false});
        app.call("GET", &path, token, None).await.is(200, &state);
        app.delete(&format!("/workspaces/{id}")).await.ok();
        app.get(&path).await.is(404, &json!({"workspace_id": id, "status": "removed", "deleted": true}));
        let unknown = format!("/workspaces/{UNKNOWN}/state");
        app.get(&unknown).await.is(404, &json!({"workspace_id": UNKNOWN, "deleted": true}));
    }

    async fn who_is_to_be_ended_was_told_before_where_the_backend_says_it_answers(app: TestApp) {
        let (url, seen) = listening().await;
        app.fake.report_address(Some(url));
        let (id, _) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/restart")).await.ok();
        app.settle().await;
        let (path, headers, body) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(path, "/signals/restart_pending");
        assert_eq!(headers["x-restart-signal"], "true");
        assert!(!headers.contains_key("authorization"));
        let expected = json!({"jsonrpc": "2.0", "method": "signals/restart_pending", "id": null,
            "params": {"drain_seconds": 20, "workspace_id": id}});
        assert_eq!(body, expected);
        // One that was never admitted is told nothing, nor is one whose workspace is only paused.
        app.ask(&format!("/workspaces/{id}/restart")).await.ok();
        app.settle().await;
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(app.fake.instances().len(), 1);
    }

    async fn who_does_not_answer_holds_its_own_restart_up_by_no_more_than_a_second(app: TestApp) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        app.fake.report_address(Some(format!("http://{}", listener.local_addr().unwrap())));
        let (id, _) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/restart")).await.ok();
        let settled = tokio::time::timeout(Duration::from_secs(5), app.settle()).await;
        assert!(settled.is_ok(), "it waits for an answer");
        assert_eq!(app.fake.starts(), 2);
    }
}

adjusted! {
    |config| { compat(config); development(config); };

    async fn ws_10_who_has_no_credential_yet_answers_anybody_in_development(app: TestApp) {
        let created = app.call("POST", "/workspaces", None, Some(json!({"name": "a", "external": true, "url": "http://localhost:9"}))).await.ok();
        let path = format!("/workspaces/{}/state", created["id"].as_str().unwrap());
        app.call("GET", &path, None, None).await.ok();
        let created = app.call("POST", "/workspaces", None, Some(json!({"name": "b"}))).await.ok();
        let id = created["id"].as_str().unwrap();
        let path = format!("/workspaces/{id}/state");
        app.call("GET", &path, None, None).await.refuses(401, "missing workspace auth token");
    }
}

type Told = Arc<Mutex<Vec<(String, HeaderMap, Value)>>>;

/// An agent that listens, and remembers what it was told.
async fn listening() -> (String, Told) {
    let told = Told::default();
    let noted = Arc::clone(&told);
    let handler = move |uri: axum::http::Uri, headers: HeaderMap, body: String| {
        let body = serde_json::from_str(&body).unwrap();
        noted.lock().unwrap().push((uri.path().to_owned(), headers, body));
        async { "{}" }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    a_moment(1).await;
    (url, told)
}
