//! Secrets: who may see and set them, whom a write restarts, and what a start gets.

use std::collections::BTreeMap;

use ligand_domain::secrets::Key;
use ligand_server::config::Auth;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::engine::on_each;
use crate::support::{ADMIN, TestApp, both};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another key of thirty-two bytes!";

/// A server with a key, and one that it had before.
fn keyed(name: &str, body: impl AsyncFn(TestApp)) {
    on_each(name, |db| {
        let app = TestApp::new(db, |config| config.secrets.current = Key::parse(KEY));
        body(app)
    });
}

async fn set(app: &TestApp, path: &str, key: &str, value: &str) -> Value {
    app.post(path, json!({"key": key, "value": value})).await.ok()
}

async fn wanted(app: &TestApp, id: &str) -> usize {
    let journal = app.journal(id).await;
    journal.iter().filter(|kind| *kind == "restart-requested").count()
}

both! {
    async fn sk_01_the_list_is_merged_and_shows_no_value(app: TestApp) {
        let id = app.create("a").await;
        let path = format!("/workspaces/{id}/secrets");
        app.get(&path).await.is(200, &json!([]));
        set(&app, "/settings/secrets", "SHARED", "global-value").await;
        set(&app, "/admin/secrets", "TOKEN", "global-value").await;
        set(&app, &path, "TOKEN", "own-value").await;
        let answer = app.get(&path).await;
        assert!(!answer.text.contains("value\":\"") && !answer.text.contains("own-value"), "{answer:?}");
        let list = answer.ok();
        let brief: Vec<_> = list.as_array().unwrap().iter()
            .map(|one| (one["key"].as_str().unwrap(), one["scope"].as_str().unwrap())).collect();
        assert_eq!(brief, [("SHARED", "global"), ("TOKEN", "workspace")]);
        let first = &list[0];
        assert_eq!((&first["has_value"], &first["created_at"]), (&json!(true), &first["updated_at"]));
        assert_eq!(first.as_object().unwrap().len(), 5, "{first}");
        for path in ["/settings/secrets", "/admin/secrets"] {
            let global = app.get(path).await.ok();
            assert_eq!(global.as_array().unwrap().len(), 2, "{path}: {global}");
        }
        app.get("/workspaces/not-a-uuid/secrets").await.refuses(400, "invalid workspace ID");
        app.call("GET", &path, None, None).await.refuses(401, "missing workspace auth token");
        app.call("GET", "/settings/secrets", None, None).await.refuses(401, "admin auth required");
        app.sql("DROP TABLE global_secrets").await;
        app.get(&path).await.refuses(500, "query failed");
        app.get("/settings/secrets").await.refuses(500, "query failed");
    }

    async fn sk_02_a_write_restarts_and_the_next_instance_has_it(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/secrets");
        let saved = app.call("PUT", &path, agent.token.as_deref(), Some(json!({"key": "K", "value": "one"}))).await;
        saved.is(200, &json!({"status": "saved", "key": "K"}));
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id)["K"].as_str()), (2, "one"));
        assert_eq!(app.env(&id)["LIGAND_SECRET_NAMES"], "K");
        // Several writes before the next start are one start.
        set(&app, &path, "K", "two").await;
        set(&app, &path, "L", "three").await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id)["K"].as_str(), app.env(&id)["L"].as_str()), (3, "two", "three"));
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let path = format!("{path}/K");
        app.call("DELETE", &path, Some(ADMIN), None).await.is(200, &json!({"status": "deleted", "key": "K"}));
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id).contains_key("K")), (4, false));
        app.call("DELETE", &path, Some(ADMIN), None).await.refuses(404, "secret not found");
        app.settle().await;
        assert_eq!(app.fake.starts(), 4, "nothing was written");
    }

    async fn sk_02_what_cannot_be_a_secret_is_refused_and_not_repeated(app: TestApp) {
        let id = app.create("a").await;
        let path = format!("/workspaces/{id}/secrets");
        for body in [
            json!({"key": "", "value": "x"}), json!({"key": "K", "value": ""}), json!({"key": "K"}),
            json!({"key": "K", "value": 5551234}), json!({"key": "A=B", "value": "x"}),
            json!({"key": "LIGAND_GENERATION", "value": "x"}), json!({"key": "PLATFORM_URL", "value": "x"}),
        ] {
            for path in [&path, "/settings/secrets", "/admin/secrets"] {
                let answer = app.post(path, body.clone()).await;
                answer.refuses(400, "invalid request body");
                assert!(!answer.text.contains("5551234"), "{answer:?}");
            }
        }
        let nobody = "/workspaces/00000000-0000-4000-8000-000000000009/secrets";
        app.post(nobody, json!({"key": "K", "value": "v"})).await.refuses(404, "workspace not found");
        app.post("/workspaces/x/secrets", json!({"key": "K", "value": "v"})).await.refuses(400, "invalid workspace ID");
        app.sql("ALTER TABLE workspace_secrets RENAME TO gone").await;
        app.post(&path, json!({"key": "K", "value": "v"})).await.refuses(500, "failed to save secret");
        app.call("DELETE", &format!("{path}/K"), Some(ADMIN), None).await.refuses(500, "failed to delete secret");
        app.sql("ALTER TABLE global_secrets RENAME TO gone_too").await;
        app.post("/settings/secrets", json!({"key": "K", "value": "v"})).await.refuses(500, "failed to save");
        app.call("DELETE", "/admin/secrets/K", Some(ADMIN), None).await.refuses(500, "failed to delete");
    }

    async fn sk_03_values_are_merged_for_whoever_may_have_them(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let (other, stranger) = online(&app, "b").await;
        let path = format!("/workspaces/{id}/secrets/values");
        set(&app, "/settings/secrets", "SHARED", "s").await;
        set(&app, "/settings/secrets", "K", "global").await;
        set(&app, &format!("/workspaces/{id}/secrets"), "K", "own").await;
        let all = json!({"K": "own", "SHARED": "s"});
        for token in [agent.token.as_deref(), Some(ADMIN)] {
            app.call("GET", &path, token, None).await.is(200, &all);
        }
        app.call("GET", &path, None, None).await.refuses(401, "missing workspace auth token");
        app.call("GET", &path, stranger.token.as_deref(), None).await.refuses(401, "invalid workspace auth token");
        let others = format!("/workspaces/{other}/secrets/values");
        app.call("GET", &others, stranger.token.as_deref(), None).await.is(200, &json!({"K": "global", "SHARED": "s"}));
        app.get("/workspaces/x/secrets/values").await.refuses(400, "invalid workspace ID");
        app.sql("ALTER TABLE credentials RENAME TO gone").await;
        app.get(&path).await.refuses(500, "auth check failed");
    }

    async fn sk_04_the_model_is_a_secret(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/model");
        app.get(&path).await.is(200, &json!({"model": "", "source": "default"}));
        let put = async |model: Value| app.call("PUT", &path, Some(ADMIN), Some(json!({"model": model}))).await;
        put(json!("large")).await.is(200, &json!({"status": "saved", "model": "large"}));
        app.get(&path).await.is(200, &json!({"model": "large", "source": "workspace_secrets"}));
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id)["MODEL_PROVIDER"].as_str()), (2, "large"));
        put(json!("")).await.is(200, &json!({"status": "cleared"}));
        app.get(&path).await.is(200, &json!({"model": "", "source": "default"}));
        put(json!(3)).await.refuses(400, "invalid request body");
        app.sql("ALTER TABLE workspace_secrets RENAME TO gone").await;
        app.get(&path).await.refuses(500, "query failed");
        put(json!("small")).await.refuses(500, "failed to save model");
        put(json!("")).await.refuses(500, "failed to clear model");
    }

    async fn sk_05_a_global_change_restarts_those_that_it_reaches_and_nobody_else(app: TestApp) {
        let reached = app.create("reached").await;
        let own = app.create("has its own").await;
        let paused = app.create("paused").await;
        let removed = app.create("removed").await;
        let external = app.post("/workspaces", json!({"name": "outside", "external": true})).await.ok();
        let external = external["id"].as_str().unwrap().to_owned();
        set(&app, &format!("/workspaces/{own}/secrets"), "K", "own").await;
        app.sql("UPDATE workspaces SET intent = 'paused', status = 'paused' WHERE name = 'paused'").await;
        app.delete(&format!("/workspaces/{removed}")).await.ok();
        app.settle().await;
        for id in [&reached, &own] {
            Agent::of(&app, id).register(&app).await.ok();
        }
        app.settle().await;
        let before = wanted(&app, &own).await;
        let saved = set(&app, "/settings/secrets", "K", "global").await;
        assert_eq!(saved, json!({"status": "saved", "key": "K", "scope": "global"}));
        assert_eq!(wanted(&app, &reached).await, 1);
        for (id, restarts) in [(&own, before), (&paused, 0), (&removed, 0), (&external, 0)] {
            assert_eq!(wanted(&app, id).await, restarts, "{id}");
        }
        app.settle().await;
        assert_eq!((app.env(&reached)["K"].as_str(), app.env(&own)["K"].as_str()), ("global", "own"));
        Agent::of(&app, &reached).register(&app).await.ok();
        app.settle().await;
        let deleted = app.call("DELETE", "/settings/secrets/K", Some(ADMIN), None).await;
        deleted.is(200, &json!({"status": "deleted", "key": "K", "scope": "global"}));
        assert_eq!((wanted(&app, &reached).await, wanted(&app, &own).await), (2, before));
        app.settle().await;
        assert!(!app.env(&reached).contains_key("K"));
        app.call("DELETE", "/admin/secrets/K", Some(ADMIN), None).await.refuses(404, "secret not found");
    }

    /// WS-04: secrets of a create.
    async fn ws_04_a_create_brings_secrets_and_fails_whole(app: TestApp) {
        let body = |secrets: Value| json!({"name": "a", "secrets": secrets});
        let created = app.post("/workspaces", body(json!({"K": "v", "L": "w"}))).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        app.settle().await;
        assert_eq!((app.env(&id)["K"].as_str(), app.fake.starts()), ("v", 1));
        app.get(&format!("/workspaces/{id}/secrets/values")).await.is(200, &json!({"K": "v", "L": "w"}));
        app.post("/workspaces", body(json!({}))).await.ok();
        app.post("/workspaces", body(json!({"": "v"}))).await.refuses(400, "invalid workspace fields");
        let before = app.get("/workspaces").await.ok().as_array().unwrap().len();
        app.sql("ALTER TABLE workspace_secrets RENAME TO gone").await;
        app.post("/workspaces", body(json!({"K": "v"}))).await.refuses(500, "failed to save secret: K");
        assert_eq!(app.get("/workspaces").await.ok().as_array().unwrap().len(), before);
    }

    async fn a_purge_takes_secrets_along(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "a", "secrets": {"K": "v"}})).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        app.delete(&format!("/workspaces/{id}?purge=true")).await.ok();
        app.get(&format!("/workspaces/{id}/secrets/values")).await.is(200, &json!({}));
    }

    async fn a_write_after_the_plan_is_in_the_instance_that_is_started(app: TestApp) {
        let id = app.create("a").await;
        app.fake.plan(ligand_server::backend::fake::Fault::Silence);
        // The first pass plans, and is cut short by its backend before it knows whether the instance is there.
        app.fake.plan(ligand_server::backend::fake::Fault::LoseReply);
        app.pass().await;
        set(&app, &format!("/workspaces/{id}/secrets"), "K", "v").await;
        app.later(10).await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        assert_eq!(app.env(&id)["K"], "v", "by a resumed start that loads again, or by a restart");
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        assert_eq!(app.workspace(&id).await["status"], "online");
    }
}

#[test]
fn a_stored_secret_is_encrypted_and_a_previous_key_still_opens_it() {
    keyed("a_stored_secret_is_encrypted", async |app| {
        set(&app, "/settings/secrets", "K", "hunter2").await;
        app.get("/workspaces/00000000-0000-4000-8000-000000000009/secrets/values")
            .await
            .is(200, &json!({"K": "hunter2"}));
        let id = app.create("a").await;
        set(&app, &format!("/workspaces/{id}/secrets"), "OWN", "hunter3").await;
        // Another key, and the old one beside it.
        let rotated = app.with(|config| {
            config.secrets.previous = Key::parse(KEY);
            config.secrets.current = Key::parse(OTHER);
        });
        let values = format!("/workspaces/{id}/secrets/values");
        let all = json!({"K": "hunter2", "OWN": "hunter3"});
        rotated.get(&values).await.is(200, &all);
        let done = rotated.post("/admin/secrets/reencrypt", json!({})).await;
        done.is(200, &json!({"reencrypted": 2, "unreadable": [], "left": 0}));
        let again = rotated.post("/admin/secrets/reencrypt", json!({})).await;
        again.is(200, &json!({"reencrypted": 0, "unreadable": [], "left": 0}));
        assert_eq!(wanted(&rotated, &id).await, 1, "values did not change by that");
        // The old one is not needed any more; a third opens nothing.
        let alone = rotated.with(|config| config.secrets.previous = None);
        alone.get(&values).await.is(200, &all);
        let lost = alone.with(|config| config.secrets.current = Key::parse(KEY));
        let failed = lost.get(&values).await;
        failed.refuses(500, "failed to decrypt secrets");
        assert_eq!(failed.body["failed_keys"], json!(["global:K", "workspace:OWN"]));
        let done = lost.post("/admin/secrets/reencrypt", json!({})).await.ok();
        assert_eq!((&done["reencrypted"], &done["left"]), (&json!(0), &json!(2)), "{done}");
        assert_eq!(done["unreadable"].as_array().unwrap().len(), 2, "{done}");
        let keyless = lost.with(|config| config.secrets.current = None);
        keyless.post("/admin/secrets/reencrypt", json!({})).await.refuses(409, "no encryption key");
    });
}

#[test]
fn a_start_that_cannot_read_its_secrets_fails_with_the_contracts_words() {
    keyed("a_start_that_cannot_read_its_secrets", async |app| {
        let id = app.create("a").await;
        set(&app, &format!("/workspaces/{id}/secrets"), "K", "v").await;
        let app = app.with(|config| config.secrets.current = Key::parse(OTHER));
        app.settle().await;
        assert_eq!(app.fake.starts(), 0);
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "failed");
        let why = "failed to decrypt workspace secret: K (no key opens it)";
        assert_eq!(workspace["last_error"], why);
        assert!(workspace["next_attempt_at"].is_string(), "{workspace}");
        let events = app.get(&format!("/events/{id}")).await.ok();
        let failed = events.as_array().unwrap().iter();
        let failed: Vec<&Value> =
            failed.filter(|e| e["event_type"] == "WORKSPACE_PROVISION_FAILED").collect();
        assert_eq!(failed[0]["payload"]["error"], "failed to decrypt workspace secret");
        // What replaces it can be read: it is tried at once.
        set(&app, &format!("/workspaces/{id}/secrets"), "K", "w").await;
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id)["K"].as_str()), (1, "w"));
    });
}

#[test]
fn a_start_without_its_required_environment_fails_and_names_it() {
    on_each("a_start_without_its_required_environment", |db| async move {
        let app = TestApp::new(db, |config| {
            let echo = config.runtimes.get_mut("echo").unwrap();
            echo.required_env = vec!["GIT_TOKEN".to_owned(), "MODE".to_owned()];
            echo.env = BTreeMap::from([("MODE".to_owned(), "x".to_owned())]);
        });
        let id = app.create("a").await;
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], app.fake.starts()), (&json!("failed"), 0));
        assert_eq!(workspace["evidence"], "required environment is missing: GIT_TOKEN");
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        assert!(why["journal"].to_string().contains("GIT_TOKEN"), "{why}");
        let events = app.get(&format!("/events/{id}")).await.ok();
        let failed = events.as_array().unwrap().iter();
        let failed: Vec<&Value> =
            failed.filter(|e| e["event_type"] == "WORKSPACE_PROVISION_FAILED").collect();
        assert_eq!(failed[0]["payload"]["missing"], json!(["GIT_TOKEN"]));
        set(&app, &format!("/workspaces/{id}/secrets"), "GIT_TOKEN", "v").await;
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id)["GIT_TOKEN"].as_str()), (1, "v"));
    });
}

#[test]
fn sk_03_a_workspace_without_credentials_shows_its_values_to_anybody_in_compat_alone() {
    on_each("sk_03_grandfathered", |db| async move {
        let app = TestApp::new(db, |config| {
            config.auth = Auth::Compat;
            config.development = true;
            config.admin_token = ligand_server::config::Secret::new(String::new());
        });
        let nobody = "/workspaces/00000000-0000-4000-8000-000000000009/secrets/values";
        app.call("GET", nobody, None, None).await.is(200, &json!({}));
        let id = app.create("a").await;
        let values = format!("/workspaces/{id}/secrets/values");
        app.call("GET", &values, None, None).await.refuses(401, "missing workspace auth token");
    });
}

#[test]
fn secrets_in_plain_text_are_counted_until_they_are_encrypted() {
    on_each("plain", |db| async move {
        let app = TestApp::new(db, |config| config.secrets.current = None);
        let told = async |app: &TestApp| {
            let liveness = app.get("/admin/liveness").await.ok();
            (liveness["secrets_plain"].clone(), liveness["secrets_key"].clone())
        };
        assert_eq!(told(&app).await, (json!(0), json!(false)));
        let id = app.create("a").await;
        set(&app, "/settings/secrets", "SHARED", "v").await;
        set(&app, &format!("/workspaces/{id}/secrets"), "OWN", "v").await;
        assert_eq!(told(&app).await, (json!(2), json!(false)));
        let app = app.with(|config| config.secrets.current = Key::parse(KEY));
        set(&app, "/settings/secrets", "NEW", "v").await;
        assert_eq!(told(&app).await, (json!(2), json!(true)), "what is written now is encrypted");
        app.post("/admin/secrets/reencrypt", json!({})).await.ok();
        assert_eq!(told(&app).await, (json!(0), json!(true)));
    });
}
