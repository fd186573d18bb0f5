//! Creating, reading, changing and deleting workspaces.

use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::engine::on_each;
use crate::support::runtime::{answering, named, send_with, served};
use crate::support::{ADMIN, TestApp, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

both! {
    async fn a_nul_in_a_text_is_refused_and_one_in_a_message_is_delivered(app: TestApp) {
        for (method, path, body) in [
            ("POST", "/workspaces".to_owned(), json!({"name": "a\0b"})),
            ("PATCH", format!("/workspaces/{}", app.create("a").await), json!({"role": "a\0b"})),
        ] {
            let answer = app.call(method, &path, Some(ADMIN), Some(body)).await;
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            assert_eq!((answer.status.as_u16(), detail.contains("\\u0000")), (400, true), "{answer:?}");
        }
        let (url, seen) = answering(|| "{}".into_response()).await;
        let (id, _) = served(&app, "b", &url).await;
        send_with(&app, &id, &named("a\0b", "x\0y"), &[]).await.ok();
        assert!(seen.lock().unwrap()[0].1.to_string().contains("x\\u0000y"));
    }

    async fn ws_01_get_is_200_404_or_500(app: TestApp) {
        let id = app.create("a").await;
        assert_eq!(app.workspace(&id).await["name"], "a");
        app.get(&format!("/workspaces/{UNKNOWN}")).await.refuses(404, "workspace not found");
        app.app.db.close().await;
        app.get(&format!("/workspaces/{id}")).await.is(500, &json!({"error": "query failed"}));
    }

    async fn ws_02_what_is_no_uuid_is_400(app: TestApp) {
        for id in ["hello", "..%2f..%2fetc%2fpasswd", "%2e%2e", "123"] {
            let answer = app.get(&format!("/workspaces/{id}")).await;
            answer.refuses(400, "invalid workspace ID");
        }
    }

    async fn ws_03_a_single_read_shows_no_money_and_nothing_private(app: TestApp) {
        let id = app.create("a").await;
        let path = format!("/workspaces/{id}");
        for (token, private) in [(Some(ADMIN), true), (None, false), (Some("wrong"), false)] {
            let read = app.call("GET", &path, token, None).await.ok();
            for key in ["budget_limit", "monthly_spend", "current_task", "last_sample_error", "workspace_dir"] {
                assert_eq!(read.get(key), None, "{key}");
            }
            for key in ["evidence", "last_error", "next_attempt_at", "backend"] {
                assert_eq!(read.get(key).is_some(), private, "{key} {token:?}");
            }
            for key in ["generation", "intent", "since", "last_outbound_at", "status"] {
                assert!(read.get(key).is_some(), "{key}");
            }
            assert_eq!(read["agent_card"], Value::Null);
        }
        let listed = app.get("/workspaces").await.ok();
        assert_eq!(listed[0].get("budget_limit"), Some(&Value::Null));
        assert_eq!(listed[0].get("monthly_spend"), Some(&json!(0)));
        assert_eq!(listed[0].get("budget_used"), Some(&json!(0)));
        assert_eq!(listed[0].get("last_outbound_at"), None);
    }

    async fn a_create_answers_as_the_contract_says(app: TestApp) {
        let answer = app.post("/workspaces", json!({"name": "a", "role": "tester"})).await;
        assert_eq!(answer.status, 201);
        let body = answer.ok();
        let id = body["id"].as_str().unwrap().to_owned();
        assert_eq!((&body["status"], &body["workspace_access"]), (&json!("provisioning"), &json!("none")));
        assert_eq!(body["awareness_namespace"], format!("workspace:{id}"));
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["tier"], &workspace["runtime"]), (&json!(3), &json!("echo")));
        app.settle().await;
        assert_eq!(app.events(&id).await, ["WORKSPACE_PROVISIONING"]);
        assert_eq!(app.env(&id)["MOLECULE_AGENT_ROLE"], "tester");
    }

    async fn a_bad_create_is_refused_by_name_and_leaves_nothing(app: TestApp) {
        for (body, error, names) in [
            (json!({}), "invalid workspace payload", "name"),
            (json!({"name": ""}), "invalid workspace payload", "name"),
            (json!({"name": "a\nb"}), "invalid workspace fields", "name"),
            (json!({"name": "a", "tier": 9}), "invalid workspace fields", "tier"),
            (json!({"name": "a", "parent_id": "x"}), "invalid workspace fields", "parent_id"),
            (json!({"name": "a", "backend": "moon"}), "invalid workspace fields", "backend"),
            (json!({"name": "a", "secrets": {"HOME": "v"}}), "invalid workspace fields", "secrets"),
            (json!({"name": "a", "template": "../../etc"}), "invalid template", "template"),
            (json!({"name": "a", "workspace_dir": "/etc/x"}), "invalid workspace directory", "workspace_dir"),
            (json!({"name": "a", "workspace_dir": "/srv/x"}), "invalid workspace directory", "workspace_roots"),
            (json!({"name": "a", "workspace_access": "read_only"}), "invalid workspace access", "workspace_access"),
            (json!({"name": "a", "command": []}), "invalid workspace fields", "command"),
            (json!({"name": 7}), "invalid workspace payload", "string"),
        ] {
            let answer = app.post("/workspaces", body.clone()).await;
            answer.refuses(400, error);
            assert!(answer.body["detail"].as_str().unwrap().contains(names), "{body} {answer:?}");
        }
        let orphan = app.post("/workspaces", json!({"name": "a", "parent_id": UNKNOWN})).await;
        orphan.is(500, &json!({"error": "failed to create workspace"}));
        app.get("/workspaces").await.is(200, &json!([]));
    }

    async fn an_oversized_body_is_413(app: TestApp) {
        let body = json!({"name": "x".repeat(1 << 20)}).to_string();
        let answer = app.send("POST", "/workspaces", Some(ADMIN), Some(body), &[]).await;
        answer.refuses(413, "request body too large");
        assert!(answer.body["detail"].as_str().unwrap().contains("1048576"));
    }

    async fn an_external_workspace_gets_all_that_its_operator_needs(app: TestApp) {
        let body = json!({"name": "outside", "external": true});
        let headers = [("host", "ligand.example.org"), ("x-forwarded-proto", "https")];
        let answer = app.send("POST", "/workspaces", Some(ADMIN), Some(body.to_string()), &headers).await;
        let created = answer.ok();
        assert_eq!((&created["status"], &created["external"]), (&json!("awaiting_agent"), &json!(true)));
        let connection = &created["connection"];
        assert_eq!(connection["registry_endpoint"], "https://ligand.example.org/registry/register");
        let id = created["id"].as_str().unwrap().to_owned();
        // Its credential was not used yet, and waits for its operator as long as it takes.
        app.later(3600).await;
        let stranger = Agent::with(&id, None).register(&app).await;
        stranger.refuses(401, "missing workspace auth token");
        let agent = Agent::with(&id, connection["auth_token"].as_str());
        assert_eq!(agent.register(&app).await.ok().get("auth_token"), None);
        assert_eq!(app.workspace(&id).await["status"], "online");
        let noop = app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        assert_eq!(noop["status"], "noop");
        agent.beat(&app).await.ok();
    }

    async fn ws_07_the_list_is_an_array_or_500(app: TestApp) {
        app.get("/workspaces").await.is(200, &json!([]));
        app.app.db.close().await;
        app.get("/workspaces").await.is(500, &json!({"error": "query failed"}));
    }

    async fn ws_08_a_patch_changes_what_it_names(app: TestApp) {
        let id = app.create("a").await;
        let path = format!("/workspaces/{id}");
        let patch = async |body: Value| app.call("PATCH", &path, Some(ADMIN), Some(body)).await;
        let body = json!({"name": "b", "role": "r", "tier": 2, "x": 1.5, "y": 2, "collapsed": true,
            "budget_limit": 5, "unknown": [1]});
        patch(body).await.is(200, &json!({"status": "updated"}));
        let listed = app.get("/workspaces").await.ok()[0].clone();
        for (key, value) in [("name", json!("b")), ("role", json!("r")), ("tier", json!(2)), ("x", json!(1.5)),
            ("y", json!(2.0)), ("collapsed", json!(true)), ("budget_limit", Value::Null)] {
            assert_eq!(listed[key], value, "{key}");
        }
        patch(json!([])).await.refuses(400, "invalid request body");
        patch(json!({"name": "a\nb"})).await.refuses(400, "name must not contain newline characters");
        patch(json!({"role": "a{b"})).await.refuses(400, "role contains invalid characters");
        patch(json!({"name": "x".repeat(256)})).await.refuses(400, "name must be at most 255 characters");
        patch(json!({"tier": "two"})).await.refuses(400, "invalid request body");
        patch(json!({"parent_id": id})).await.refuses(400, "invalid request body");
        let child = app.post("/workspaces", json!({"name": "child", "parent_id": id})).await.ok();
        patch(json!({"parent_id": child["id"]})).await.refuses(400, "invalid request body");
        let deleted = app.create("deleted").await;
        app.delete(&format!("/workspaces/{deleted}")).await.ok();
        patch(json!({"parent_id": deleted})).await.refuses(400, "invalid request body");
        patch(json!({"parent_id": null})).await.ok();
        let gone = app.call("PATCH", &format!("/workspaces/{UNKNOWN}"), Some(ADMIN), Some(json!({}))).await;
        gone.refuses(404, "workspace not found");
    }

    async fn a_workspace_changes_its_own_face_and_nothing_else(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}");
        let token = agent.token.as_deref();
        app.call("PATCH", &path, token, Some(json!({"name": "me", "x": 3}))).await.ok();
        let refused = app.call("PATCH", &path, token, Some(json!({"name": "you", "tier": 4}))).await;
        refused.refuses(403, "admin auth required");
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["name"], &workspace["tier"]), (&json!("me"), &json!(3)));
    }

    async fn ws_09_a_delete_asks_first_where_children_would_go(app: TestApp) {
        let parent = app.create("parent").await;
        let child = app.post("/workspaces", json!({"name": "child", "parent_id": parent})).await.ok();
        let child = child["id"].as_str().unwrap().to_owned();
        app.settle().await;
        let path = format!("/workspaces/{parent}");
        let asked = app.delete(&path).await;
        assert_eq!((asked.status.as_u16(), &asked.body["status"]), (409, &json!("confirmation_required")));
        assert_eq!(asked.body["children"], json!([{"id": child, "name": "child"}]));
        let done = app.delete(&format!("{path}?confirm=true")).await;
        done.is(200, &json!({"status": "removed", "cascade_deleted": 1}));
        assert!(app.fake.instances().is_empty());
        assert_eq!(app.events(&child).await.last().unwrap(), "WORKSPACE_REMOVED");
        app.get("/workspaces").await.is(200, &json!([]));
        assert_eq!(app.workspace(&child).await["status"], "removed");
    }

    async fn a_delete_of_what_is_not_there_is_done(app: TestApp) {
        app.delete(&format!("/workspaces/{UNKNOWN}")).await.is(200, &json!({"status": "removed", "cascade_deleted": 0}));
        app.delete("/workspaces/x").await.refuses(400, "invalid workspace ID");
    }

    async fn a_delete_ends_even_when_its_backend_does_not_answer(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        // Nobody reconciles: the answer says that it is still going on.
        let answer = app.call("DELETE", &format!("/workspaces/{id}"), Some(ADMIN), None).await;
        answer.is(202, &json!({"status": "removing", "cascade_deleted": 0}));
        agent.beat(&app).await.refuses(401, "invalid workspace auth token");
        app.settle().await;
        assert!(app.fake.instances().is_empty());
        app.delete(&format!("/workspaces/{id}")).await.is(200, &json!({"status": "removed", "cascade_deleted": 0}));
    }

    async fn a_purge_leaves_a_tombstone(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}?purge=true");
        app.delete(&path).await.is(200, &json!({"status": "purged", "cascade_deleted": 0}));
        app.get(&format!("/workspaces/{id}")).await.refuses(404, "workspace not found");
        let former = agent.register(&app).await;
        assert_eq!((former.status.as_u16(), &former.body["action"]), (401, &json!("exit")));
        Agent::with(&id, Some("never-issued")).register(&app).await.is(401, &json!({"error": "invalid workspace auth token"}));
    }

    async fn rg_05_e2e_08_a_heartbeat_never_undoes_a_delete(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.call("DELETE", &format!("/workspaces/{id}"), Some(ADMIN), None).await;
        for _ in 0..3 {
            agent.beat(&app).await.refuses(401, "invalid workspace auth token");
            agent.register(&app).await.refuses(401, "invalid workspace auth token");
            app.settle().await;
            assert_eq!(app.workspace(&id).await["status"], "removed");
        }
    }

    async fn why_tells_the_story_in_order_and_what_comes_next(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        assert_eq!(app.journal(&id).await, ["created", "planned", "started", "registered"]);
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        assert!(why["next"].as_str().unwrap().starts_with("if no heartbeat comes by"), "{why}");
        let seqs: Vec<i64> = why["journal"].as_array().unwrap().iter().map(|e| e["seq"].as_i64().unwrap()).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    }
}

#[test]
fn a_purged_id_is_nobodys_even_where_registration_is_open() {
    on_each("purged", |db| async move {
        let app = TestApp::new(db, |config| config.open_registration = true);
        let (id, agent) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{id}?purge=true")).await.ok();
        for stranger in [None, Some("never-issued")] {
            assert_eq!(Agent::with(&id, stranger).register(&app).await.status, 401);
        }
        assert_eq!(agent.register(&app).await.body["action"], "exit");
        // An id that nobody ever had is another matter.
        let fresh = Agent::with(UNKNOWN, None).register(&app).await.ok();
        assert!(fresh["auth_token"].is_string());
        assert_eq!(app.workspace(UNKNOWN).await["name"], UNKNOWN);
    });
}
