//! The gates, in both modes.

use ligand_server::app::App;
use ligand_server::db::Db;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::modes::{adjusted, compat, compat_with_admin, development};
use crate::support::{ADMIN, Answer, TestApp, both};

const UNAVAILABLE: &str = "platform datastore unavailable — retry shortly";
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// A workspace, and a caller's token of it. `by`: what opens the door to creating it.
pub(super) async fn created(app: &TestApp, by: Option<&str>, name: &str) -> (String, String) {
    let body = json!({"name": name, "runtime": "echo"});
    let created = app.call("POST", "/workspaces", by, Some(body)).await.ok();
    let text = |key: &str| created[key].as_str().unwrap().to_owned();
    (text("id"), text("auth_token"))
}

/// A token of the organisation.
pub(super) async fn org_token(app: &TestApp) -> String {
    ligand_server::org_tokens::mint(&app.app, None, None, None).await.unwrap().1.reveal().to_owned()
}

async fn why(app: &TestApp, id: &str, token: Option<&str>) -> Answer {
    app.call("GET", &format!("/workspaces/{id}/why"), token, None).await
}

async fn put_viewport(app: &TestApp, token: Option<&str>, headers: &[(&str, &str)]) -> Answer {
    let body = Some(json!({"x": 1.5, "y": -2.0, "zoom": 0.5}).to_string());
    app.send("PUT", "/canvas/viewport", token, body, headers).await
}

/// Reading goes on, and no use is noted any more.
async fn never_updated(app: &TestApp, table: &'static str) {
    let text = match (&app.app.db, table) {
        (Db::Sqlite { .. }, "org_tokens") => {
            "CREATE TRIGGER full_1 BEFORE UPDATE ON org_tokens BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        }
        (Db::Sqlite { .. }, _) => {
            "CREATE TRIGGER full_2 BEFORE UPDATE ON credentials BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        }
        (Db::Postgres { .. }, "org_tokens") => {
            "ALTER TABLE org_tokens ADD CHECK (last_used_at IS NULL)"
        }
        (Db::Postgres { .. }, _) => "ALTER TABLE credentials ADD CHECK (last_used_at IS NULL)",
    };
    app.sql(text).await;
}

async fn break_database(app: &App) {
    app.db.close().await;
}

both! {
    async fn wa_02_sub_routes_need_a_credential_even_on_an_empty_platform(app: TestApp) {
        for (method, path) in [("GET", "tokens"), ("POST", "tokens"), ("DELETE", "tokens/x"), ("GET", "why"), ("GET", "logs"), ("POST", "restart")] {
            let path = format!("/workspaces/{NOBODY}/{path}");
            app.call(method, &path, None, None).await.is(401, &json!({"error": "missing workspace auth token"}));
            app.call(method, &path, Some("x"), None).await.is(401, &json!({"error": "invalid workspace auth token"}));
        }
    }

    async fn wa_07_wa_08_aa_06_an_organisation_token_opens_workspaces_and_admin_routes(app: TestApp) {
        let (id, _) = created(&app, Some(ADMIN), "a").await;
        let token = org_token(&app).await;
        assert_eq!(why(&app, &id, Some(&token)).await.status, 200);
        assert_eq!(app.call("GET", "/workspaces", Some(&token), None).await.status, 200);
        let minted = app.call("POST", "/org/tokens", Some(&token), None).await.ok();
        let listed = app.get("/org/tokens").await.ok();
        let of = |id: &Value| listed["tokens"].as_array().unwrap().iter().find(|it| it["id"] == *id).cloned();
        let child = of(&minted["id"]).unwrap();
        assert_eq!(child["created_by"], format!("org-token:{}", &token[..8]));
        assert!(child.get("org_id").is_none(), "its parent has none to pass on: {child}");
    }

    async fn wa_09_an_odd_row_of_an_organisation_token_is_accepted_all_the_same(app: TestApp) {
        let (id, _) = created(&app, Some(ADMIN), "a").await;
        let token = org_token(&app).await;
        app.sql("UPDATE org_tokens SET prefix = '', name = '', created_by = ''").await;
        assert_eq!(why(&app, &id, Some(&token)).await.status, 200);
    }

    async fn a_database_that_does_not_answer_is_503_in_front_of_every_bearer(app: TestApp) {
        let (id, _) = created(&app, Some(ADMIN), "a").await;
        app.sql("DROP TABLE org_tokens").await;
        for path in [format!("/workspaces/{id}/why"), "/workspaces".to_owned(), "/canvas/viewport".to_owned()] {
            let refused = app.call("GET", &path, Some("x"), None).await;
            refused.is(503, &json!({"error": UNAVAILABLE, "code": "platform_unavailable"}));
        }
        assert_eq!(why(&app, &id, Some(ADMIN)).await.status, 200);
    }

    async fn a_credential_whose_use_cannot_be_noted_opens_what_it_opens(app: TestApp) {
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let org = org_token(&app).await;
        for table in ["credentials", "org_tokens"] {
            never_updated(&app, table).await;
        }
        for token in [&own, &org] {
            assert_eq!(why(&app, &id, Some(token)).await.status, 200);
        }
    }

    async fn aa_09_the_admin_routes_are_closed_to_workspaces_by_whatever_method(app: TestApp) {
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let of_one = format!("/workspaces/{id}");
        for (method, path) in [("GET", "/admin/liveness"), ("GET", "/org/tokens"), ("POST", "/org/tokens"), ("POST", "/workspaces"),
            ("DELETE", of_one.as_str()), ("GET", "/events")] {
            app.call(method, path, None, None).await.refuses(401, "admin auth required");
            app.call(method, path, Some(&own), None).await.refuses(401, "invalid admin auth token");
        }
        app.call("PATCH", &of_one, None, Some(json!({"name": "b"}))).await.refuses(401, "missing workspace auth token");
    }

    async fn a_workspace_changes_harmless_settings_alone(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}");
        let (_, api) = created(&app, Some(ADMIN), "b").await;
        let org = org_token(&app).await;
        let patch = async |token: &str, body: Value| app.call("PATCH", &path, Some(token), Some(body)).await;
        let own = agent.token.clone().unwrap();
        patch(&own, json!({"name": "n", "role": "r", "x": 1, "y": 2, "collapsed": true})).await.ok();
        for key in ["tier", "runtime", "parent_id", "workspace_dir"] {
            patch(&own, json!({key: null})).await.refuses(403, "admin auth required");
        }
        patch(&api, json!({"name": "n"})).await.refuses(401, "invalid workspace auth token");
        patch(&org, json!({"tier": 2})).await.ok();
        patch(ADMIN, json!({"tier": 1})).await.ok();
    }

    async fn only_the_admin_token_itself_names_a_command(app: TestApp) {
        let body = json!({"name": "a", "command": ["true"]});
        let org = org_token(&app).await;
        let refused = app.call("POST", "/workspaces", Some(&org), Some(body.clone())).await;
        refused.refuses(403, "admin auth required");
        assert!(refused.body["detail"].as_str().unwrap().starts_with("command: "));
        app.call("POST", "/workspaces", Some(&org), Some(json!({"name": "a"}))).await.ok();
        app.post("/workspaces", body).await.ok();
    }

    async fn an_organisation_token_speaks_for_users_and_for_any_workspace(app: TestApp) {
        let (id, _) = created(&app, Some(ADMIN), "a").await;
        let (other, _) = created(&app, Some(ADMIN), "b").await;
        let token = org_token(&app).await;
        let path = format!("/workspaces/{id}/a2a");
        let send = async |headers: &[(&str, &str)]| app.send("POST", &path, Some(&token), Some("{}".to_owned()), headers).await;
        send(&[]).await.refuses(503, "workspace has no URL");
        send(&[("x-workspace-id", other.as_str())]).await.refuses(503, "workspace has no URL");
        send(&[("x-workspace-id", "system:x")]).await.refuses(403, "invalid caller ID");
    }

    async fn cb_02_cb_03_cb_05_cb_06_cb_07_the_canvas_needs_a_credential_whatever_its_origin(app: TestApp) {
        let (_, own) = created(&app, Some(ADMIN), "a").await;
        let org = org_token(&app).await;
        let local = [("origin", "http://localhost:3000")];
        put_viewport(&app, None, &[]).await.refuses(401, "admin auth required");
        put_viewport(&app, None, &local).await.refuses(401, "admin auth required");
        put_viewport(&app, Some("x"), &local).await.refuses(401, "invalid admin auth token");
        app.call("GET", "/canvas/viewport", None, None).await.refuses(401, "admin auth required");
        app.get("/canvas/viewport").await.is(200, &json!({"x": 0.0, "y": 0.0, "zoom": 1.0}));
        for token in [own.as_str(), &org, ADMIN] {
            put_viewport(&app, Some(token), &[]).await.is(200, &json!({"status": "saved"}));
        }
        app.get("/canvas/viewport").await.is(200, &json!({"x": 1.5, "y": -2.0, "zoom": 0.5}));
        let bad = app.call("PUT", "/canvas/viewport", Some(ADMIN), Some(json!({"x": "left"}))).await;
        bad.refuses(400, "invalid viewport data");
        break_database(&app.app).await;
        put_viewport(&app, Some(&own), &[]).await.refuses(503, UNAVAILABLE);
        put_viewport(&app, None, &[]).await.refuses(401, "admin auth required");
    }
}

adjusted! { compat;
    async fn a_platform_on_which_everything_lapsed_is_as_open_as_a_fresh_one(app: TestApp) {
        created(&app, None, "a").await;
        app.call("GET", "/workspaces", None, None).await.refuses(401, "admin auth required");
        app.sql("UPDATE credentials SET state = 'pending', lapses_at = 1").await;
        app.call("GET", "/workspaces", None, None).await.ok();
    }
}

adjusted! { compat;
    async fn aa_01_aa_02_aa_03_compat_opens_a_fresh_install_and_then_to_any_workspace(app: TestApp) {
        assert_eq!(app.call("GET", "/workspaces", None, None).await.status, 200);
        let (id, own) = created(&app, None, "a").await;
        let of_one = format!("/workspaces/{id}");
        for (method, path) in [("GET", "/workspaces"), ("POST", "/workspaces"), ("DELETE", of_one.as_str()), ("GET", "/admin/liveness")] {
            app.call(method, path, None, None).await.refuses(401, "admin auth required");
            app.call(method, path, Some("x"), None).await.refuses(401, "invalid admin auth token");
        }
        assert_eq!(app.call("GET", "/workspaces", Some(&own), None).await.status, 200);
        let report = app.call("GET", "/admin/liveness", Some(&own), None).await.ok();
        assert_eq!(report["auth"], "compat");
        // A command runs on the operator's machine: nobody without the token that is not there.
        let body = json!({"name": "b", "command": ["true"]});
        app.call("POST", "/workspaces", Some(&own), Some(body)).await.refuses(403, "admin auth required");
    }

    async fn aa_12_compat_asks_the_database_first(app: TestApp) {
        break_database(&app.app).await;
        let refused = app.call("GET", "/workspaces", None, None).await;
        refused.is(503, &json!({"error": UNAVAILABLE, "code": "platform_unavailable"}));
    }

    async fn wa_01_wa_02_compat_has_no_grandfathers_at_workspace_routes(app: TestApp) {
        why(&app, NOBODY, None).await.refuses(401, "missing workspace auth token");
        break_database(&app.app).await;
        why(&app, NOBODY, None).await.refuses(401, "missing workspace auth token");
    }

    async fn cb_01_cb_04_cb_08_compat_trusts_pages_and_an_empty_platform(app: TestApp) {
        put_viewport(&app, None, &[]).await.ok();
        app.call("GET", "/canvas/viewport", None, None).await.ok();
        let (_, own) = created(&app, None, "a").await;
        let org = org_token(&app).await;
        put_viewport(&app, None, &[]).await.refuses(401, "admin auth required");
        put_viewport(&app, None, &[("origin", "http://evil.example")]).await.refuses(401, "admin auth required");
        for origin in ["http://localhost:3000", "http://localhost:3001"] {
            put_viewport(&app, None, &[("origin", origin)]).await.ok();
            put_viewport(&app, Some("x"), &[("origin", origin)]).await.refuses(401, "invalid admin auth token");
        }
        put_viewport(&app, Some(&own), &[]).await.ok();
        put_viewport(&app, Some(&org), &[]).await.refuses(401, "invalid admin auth token");
        break_database(&app.app).await;
        // Let in; what it wanted cannot be done.
        put_viewport(&app, None, &[]).await.refuses(500, "failed to save viewport");
    }

    async fn compat_lets_messages_pass_without_a_caller(app: TestApp) {
        let (id, own) = created(&app, None, "a").await;
        let (other, _) = created(&app, Some(&own), "b").await;
        let path = format!("/workspaces/{id}/a2a");
        let send = async |token: Option<&str>, caller: Option<&str>| {
            let headers: Vec<_> = caller.map(|caller| ("x-workspace-id", caller)).into_iter().collect();
            app.send("POST", &path, token, Some("{}".to_owned()), &headers).await
        };
        send(None, None).await.refuses(503, "workspace has no URL");
        send(None, Some(&id)).await.refuses(503, "workspace has no URL");
        send(None, Some(NOBODY)).await.refuses(403, "access denied: workspaces cannot communicate per hierarchy rules");
        send(None, Some(&other)).await.refuses(401, "missing caller auth token");
        send(Some("x"), Some(&other)).await.refuses(401, "invalid caller auth token");
        send(Some(&own), Some(&other)).await.refuses(401, "invalid caller auth token");
        send(None, Some("webhook:x")).await.refuses(403, "invalid caller ID");
    }

    async fn compat_lets_a_workspace_change_every_key(app: TestApp) {
        let (id, own) = created(&app, None, "a").await;
        let path = format!("/workspaces/{id}");
        app.call("PATCH", &path, Some(&own), Some(json!({"tier": 1}))).await.ok();
    }
}

adjusted! { compat_with_admin;
    async fn aa_08_aa_10_compat_with_an_admin_token_is_closed(app: TestApp) {
        app.call("GET", "/workspaces", None, None).await.refuses(401, "admin auth required");
        let (_, own) = created(&app, Some(ADMIN), "a").await;
        app.call("GET", "/workspaces", Some(&own), None).await.refuses(401, "invalid admin auth token");
        let org = org_token(&app).await;
        assert_eq!(app.call("GET", "/workspaces", Some(&org), None).await.status, 200);
        put_viewport(&app, Some(ADMIN), &[]).await.ok();
    }
}

adjusted! { |config: &mut _| { compat(config); development(config); };
    async fn wa_06_aa_11_compat_in_development_lets_everybody_pass(app: TestApp) {
        let (id, _) = created(&app, None, "a").await;
        assert_eq!(app.call("GET", "/workspaces", None, None).await.status, 200);
        let seen = why(&app, &id, None).await;
        assert_eq!((seen.status.as_u16(), &seen.headers["x-ratelimit-limit"]), (200, &"unlimited".parse().unwrap()));
        why(&app, &id, Some("x")).await.refuses(401, "invalid workspace auth token");
        let open = app.call("GET", &format!("/workspaces/{id}"), None, None).await.ok();
        assert!(open.get("evidence").is_none(), "who proves nothing sees the short form");
    }
}

adjusted! { |config: &mut _| { compat_with_admin(config); development(config); };
    async fn wa_06_aa_11_an_admin_token_closes_development(app: TestApp) {
        app.call("GET", "/workspaces", None, None).await.refuses(401, "admin auth required");
        why(&app, NOBODY, None).await.refuses(401, "missing workspace auth token");
    }
}

adjusted! { development;
    async fn wa_06_aa_11_strict_is_strict_in_development(app: TestApp) {
        app.call("GET", "/workspaces", None, None).await.refuses(401, "admin auth required");
        why(&app, NOBODY, None).await.refuses(401, "missing workspace auth token");
    }
}

adjusted! { |config: &mut ligand_server::config::Config| { compat(config); config.edge.canvas_proxy = Some("http://127.0.0.1:9".to_owned()); };
    async fn cb_09_cb_11_compat_trusts_the_canvas_under_its_own_address(app: TestApp) {
        let (id, _) = created(&app, None, "a").await;
        let host = ("host", "acme.example");
        for page in [("referer", "https://acme.example/x"), ("origin", "http://acme.example")] {
            put_viewport(&app, None, &[host, page]).await.ok();
            let seen = app.send("GET", &format!("/workspaces/{id}/why"), None, None, &[host, page]).await;
            assert_eq!(seen.status, 200);
            app.send("GET", "/workspaces", None, None, &[host, page]).await.refuses(401, "admin auth required");
        }
        put_viewport(&app, None, &[host, ("referer", "https://acme.example.evil/")]).await.refuses(401, "admin auth required");
    }
}

adjusted! { |config: &mut ligand_server::config::Config| config.edge.canvas_proxy = Some("http://127.0.0.1:9".to_owned());
    async fn cb_11_strict_trusts_no_page(app: TestApp) {
        let headers = [("host", "acme.example"), ("origin", "http://acme.example")];
        put_viewport(&app, None, &headers).await.refuses(401, "admin auth required");
        let path = format!("/workspaces/{NOBODY}/why");
        app.send("GET", &path, None, None, &headers).await.refuses(401, "missing workspace auth token");
    }
}

both! {
    async fn a_stranger_with_the_right_shape_is_still_a_stranger(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let own = agent.token.unwrap();
        let mut near = own.clone();
        near.replace_range(42.., if own.ends_with('A') { "B" } else { "A" });
        why(&app, &id, Some(&near)).await.refuses(401, "invalid workspace auth token");
        Agent::with(&id, Some(&near)).beat(&app).await.refuses(401, "invalid workspace auth token");
    }
}
