//! Tokens of workspaces and of the organisation.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use ligand_server::access;
use ligand_server::config::{Config, File, Flags, resolve};
use ligand_server::db::Tx;
use ligand_server::journal::Work;
use ligand_server::org_tokens;
use serde_json::{Value, json};

use super::gates::{created, org_token};
use crate::support::agent::{Agent, online, unclaimed};
use crate::support::modes::{adjusted, compat};
use crate::support::{ADMIN, TestApp, a_moment, both};

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

fn ids(list: &Value) -> Vec<&str> {
    list["tokens"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect()
}

/// Whether a token opens a workspace's own routes.
async fn opens(app: &TestApp, id: &str, token: &str) -> bool {
    app.call("GET", &format!("/workspaces/{id}/why"), Some(token), None).await.status == 200
}

/// Somebody else decides something about every workspace, until this is committed.
async fn locked(app: &TestApp) -> Work<'_> {
    const LOCK: &str = "UPDATE workspaces SET version = version + 1";
    let mut work = Work::begin(&app.app).await.unwrap();
    match &mut work.tx {
        Tx::Postgres(tx) => drop(sqlx::query(LOCK).execute(&mut **tx).await.unwrap()),
        Tx::Sqlite(tx) => drop(sqlx::query(LOCK).execute(&mut **tx).await.unwrap()),
    }
    work
}

both! {
    async fn ot_01_the_text_is_shown_once_and_nowhere_else(app: TestApp) {
        let minted = app.post("/org/tokens", json!({"name": "ci"})).await.ok();
        let text = minted["auth_token"].as_str().unwrap();
        assert_eq!((text.len(), &minted["prefix"]), (43, &json!(text[..8])));
        assert!(minted["warning"].is_string() && minted["name"] == "ci");
        let listed = app.get("/org/tokens").await;
        assert!(!listed.text.contains(text));
        let of = &listed.body["tokens"][0];
        assert_eq!((&of["prefix"], &of["name"], &of["created_by"]), (&json!(text[..8]), &json!("ci"), &json!("admin-token")));
        assert!(of.get("last_used_at").is_none() && listed.body["count"] == 1);
        app.call("GET", "/workspaces", Some(text), None).await.ok();
        assert!(app.get("/org/tokens").await.body["tokens"][0]["last_used_at"].is_string());
    }

    async fn ot_02_what_is_empty_is_not_stored(app: TestApp) {
        org_tokens::mint(&app.app, Some(""), Some(""), None).await.unwrap();
        let minted = app.post("/org/tokens", json!({"name": ""})).await.ok();
        assert!(minted.get("name").is_none());
        let listed = app.get("/org/tokens").await.ok();
        assert!(listed["tokens"].as_array().unwrap().iter().all(|it| it.get("name").is_none()));
        assert_eq!(listed["tokens"].as_array().unwrap().iter().filter(|it| it.get("created_by").is_none()).count(), 1);
    }

    async fn ot_03_ot_10_ot_11_a_live_one_tells_its_name_and_what_it_is_for(app: TestApp) {
        let root = app.create("root").await.parse().unwrap();
        for org_id in [None, Some(root)] {
            let (id, token) = org_tokens::mint(&app.app, None, None, org_id).await.unwrap();
            let found = org_tokens::validate(&app.app, token.reveal()).await.unwrap().unwrap();
            assert_eq!((found.id, found.prefix.as_str(), found.org_id), (id, token.prefix(), org_id));
        }
        // What it mints is for the same.
        let (_, token) = org_tokens::mint(&app.app, None, None, Some(root)).await.unwrap();
        let child = app.call("POST", "/org/tokens", Some(token.reveal()), None).await.ok();
        let found = org_tokens::validate(&app.app, child["auth_token"].as_str().unwrap()).await.unwrap();
        assert_eq!(found.unwrap().org_id, Some(root));
    }

    async fn ot_04_ot_05_ot_12_nothing_asks_nobody_and_an_unknown_one_is_none(app: TestApp) {
        assert_eq!(org_tokens::validate(&app.app, "never-issued").await.unwrap(), None);
        app.app.db.close().await;
        assert_eq!(org_tokens::validate(&app.app, "").await.unwrap(), None);
        assert!(org_tokens::validate(&app.app, "never-issued").await.is_err());
    }

    async fn ot_06_ot_08_a_revoked_one_opens_nothing_and_is_revoked_once(app: TestApp) {
        let minted = app.post("/org/tokens", json!({})).await.ok();
        let (id, text) = (minted["id"].as_str().unwrap(), minted["auth_token"].as_str().unwrap());
        let path = format!("/org/tokens/{id}");
        app.call("DELETE", &path, Some(ADMIN), None).await.is(200, &json!({"revoked": id}));
        for path in [path.as_str(), "/org/tokens/x", &format!("/org/tokens/{NOBODY}")] {
            app.call("DELETE", path, Some(ADMIN), None).await.refuses(404, "token not found or already revoked");
        }
        app.call("DELETE", "/org/tokens/%20", Some(ADMIN), None).await.refuses(400, "id required");
        app.call("GET", "/workspaces", Some(text), None).await.refuses(401, "invalid admin auth token");
    }

    async fn ot_07_ot_09_the_list_is_of_live_ones_newest_first(app: TestApp) {
        app.get("/org/tokens").await.is(200, &json!({"tokens": [], "count": 0}));
        let mut minted = Vec::new();
        for _ in 0..3 {
            minted.push(app.post("/org/tokens", json!({})).await.ok()["id"].as_str().unwrap().to_owned());
            app.app.clock.advance(Duration::from_secs(1));
        }
        app.call("DELETE", &format!("/org/tokens/{}", minted[1]), Some(ADMIN), None).await.ok();
        let listed = app.get("/org/tokens").await.ok();
        assert_eq!((ids(&listed), &listed["count"]), (vec![minted[2].as_str(), &minted[0]], &json!(2)));
    }

    async fn a_mint_has_a_name_of_some_length_and_a_limit_by_the_hour(app: TestApp) {
        let name = |length: usize| json!({"name": "ü".repeat(length)});
        app.post("/org/tokens", name(101)).await.refuses(400, "name too long (max 100 chars)");
        app.post("/org/tokens", name(100)).await.ok();
        // Strangers use up nobody's share.
        for _ in 0..20 {
            app.call("POST", "/org/tokens", Some("x"), None).await.refuses(401, "invalid admin auth token");
        }
        for _ in 0..8 {
            app.post("/org/tokens", json!({})).await.ok();
        }
        let refused = app.post("/org/tokens", json!({})).await;
        refused.is(429, &json!({"error": "rate limit exceeded", "retry_after": 3600}));
        assert_eq!(refused.headers["retry-after"], "3600");
        app.app.clock.advance(Duration::from_secs(3600));
        app.post("/org/tokens", json!({})).await.ok();
    }

    async fn failures_of_the_organisations_tokens_have_the_contracts_texts(app: TestApp) {
        app.sql("DROP TABLE org_tokens").await;
        app.get("/org/tokens").await.refuses(500, "failed to list tokens");
        app.post("/org/tokens", json!({})).await.refuses(500, "failed to mint token");
        let path = format!("/org/tokens/{NOBODY}");
        app.call("DELETE", &path, Some(ADMIN), None).await.refuses(500, "failed to revoke");
    }

    async fn tk_01_the_list_is_of_live_ones_newest_first_in_parts(app: TestApp) {
        let (id, first) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/workspaces/{id}/tokens");
        let mut minted = vec![first];
        for _ in 0..2 {
            app.app.clock.advance(Duration::from_secs(1));
            let answer = app.call("POST", &path, Some(&minted[0]), None).await;
            assert_eq!((answer.status.as_u16(), &answer.body["workspace_id"]), (201, &json!(id)));
            minted.push(answer.body["auth_token"].as_str().unwrap().to_owned());
        }
        let list = app.call("GET", &path, Some(&minted[0]), None).await.ok();
        let prefixes: Vec<_> = list["tokens"].as_array().unwrap().iter().map(|it| it["prefix"].clone()).collect();
        assert_eq!(prefixes, minted.iter().rev().map(|text| json!(text[..8])).collect::<Vec<_>>());
        assert!(list["tokens"][0]["last_used_at"].is_null() && list["tokens"][2]["last_used_at"].is_string());
        for (query, count) in [("?limit=2", 2), ("?limit=0", 3), ("?limit=201", 3), ("?limit=x", 3), ("?offset=1", 2), ("?offset=-1", 3), ("?offset=9", 0)] {
            assert_eq!(app.get(&format!("{path}{query}")).await.ok()["count"], count, "{query}");
        }
        app.get(&format!("/workspaces/{NOBODY}/tokens")).await.is(200, &json!({"tokens": [], "count": 0}));
        app.sql("DROP TABLE credentials").await;
        app.get(&path).await.refuses(500, "failed to list tokens");
    }

    async fn tk_02_at_fifty_there_are_no_more(app: TestApp) {
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/workspaces/{id}/tokens");
        for _ in 1..50 {
            assert!(opens(&app, &id, app.post(&path, json!({})).await.ok()["auth_token"].as_str().unwrap()).await);
        }
        let refused = app.call("POST", &path, Some(&own), None).await;
        refused.refuses(429, "maximum 50 active tokens per workspace");
        // An administrator must be able to help.
        let minted = app.post(&format!("/admin/workspaces/{id}/tokens"), json!({})).await;
        assert_eq!((minted.status.as_u16(), minted.body.as_object().unwrap().len()), (201, 2));
        app.post(&format!("/workspaces/{NOBODY}/tokens"), json!({})).await.refuses(404, "workspace not found");
        app.post(&format!("/admin/workspaces/{NOBODY}/tokens"), json!({})).await.refuses(404, "workspace not found");
        app.post("/admin/workspaces/x/tokens", json!({})).await.refuses(400, "invalid workspace ID");
        app.sql("ALTER TABLE credentials RENAME TO elsewhere").await;
        app.post(&path, json!({})).await.refuses(500, "failed to create token");
    }

    async fn tk_03_one_is_revoked_once_and_by_its_own_workspace(app: TestApp) {
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let (_, other) = created(&app, Some(ADMIN), "b").await;
        let list = app.call("GET", &format!("/workspaces/{id}/tokens"), Some(&own), None).await.ok();
        let path = format!("/workspaces/{id}/tokens/{}", ids(&list)[0]);
        app.call("DELETE", &path, Some(&other), None).await.refuses(401, "invalid workspace auth token");
        let (elsewhere, _) = created(&app, Some(ADMIN), "c").await;
        let foreign = format!("/workspaces/{elsewhere}/tokens/{}", ids(&list)[0]);
        app.call("DELETE", &foreign, Some(ADMIN), None).await.refuses(404, "token not found or already revoked");
        app.call("DELETE", &path, Some(&own), None).await.is(200, &json!({"status": "revoked"}));
        assert!(!opens(&app, &id, &own).await);
        app.call("DELETE", &path, Some(ADMIN), None).await.refuses(404, "token not found or already revoked");
        app.call("DELETE", &format!("/workspaces/{id}/tokens/x"), Some(ADMIN), None).await.refuses(404, "token not found or already revoked");
        app.sql("DROP TABLE credentials").await;
        app.call("DELETE", &path, Some(ADMIN), None).await.refuses(500, "failed to revoke token");
    }

    async fn what_an_instance_asks_for_ends_with_it_and_what_others_ask_for_does_not(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/tokens");
        let mint = async |by: &str| {
            let minted = app.call("POST", &path, Some(by), None).await.ok();
            minted["auth_token"].as_str().unwrap().to_owned()
        };
        let of_instance = mint(agent.token.as_deref().unwrap()).await;
        let grandchild = mint(&of_instance).await;
        let of_admin = mint(ADMIN).await;
        let of_caller = mint(&of_admin).await;
        let of_org = mint(&org_token(&app).await).await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        for token in [&of_instance, &grandchild] {
            assert!(opens(&app, &id, token).await, "the old instance still serves");
        }
        Agent::of(&app, &id).register(&app).await.ok();
        for (token, lives) in [(&of_instance, false), (&grandchild, false), (&of_admin, true), (&of_caller, true), (&of_org, true)] {
            assert_eq!(opens(&app, &id, token).await, lives);
        }
    }

    async fn a_replaced_external_credential_takes_along_what_was_minted_with_it(app: TestApp) {
        let id = unclaimed(&app).await;
        let (replace, path) = (format!("/workspaces/{id}/external/rotate"), format!("/workspaces/{id}/tokens"));
        let first = app.post(&replace, json!({})).await.ok();
        let agent = Agent::with(&id, first["auth_token"].as_str());
        agent.register(&app).await.ok();
        let mint = async |by: &str| {
            let minted = app.call("POST", &path, Some(by), None).await.ok();
            minted["auth_token"].as_str().unwrap().to_owned()
        };
        let of_instance = mint(agent.token.as_deref().unwrap()).await;
        let grandchild = mint(&of_instance).await;
        let of_admin = mint(ADMIN).await;
        app.post(&replace, json!({})).await.ok();
        for (token, lives) in [(&of_instance, false), (&grandchild, false), (&of_admin, true)] {
            assert_eq!(opens(&app, &id, token).await, lives);
        }
    }

    async fn a_revoked_instance_credential_takes_along_what_was_minted_with_it(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/tokens");
        let own = agent.token.as_deref().unwrap();
        let minted = app.call("POST", &path, Some(own), None).await.ok();
        let of_instance = minted["auth_token"].as_str().unwrap();
        let of_admin = app.post(&path, json!({})).await.ok()["auth_token"].as_str().unwrap().to_owned();
        let list = app.get(&path).await.ok();
        let listed = list["tokens"].as_array().unwrap();
        let leaked = listed.iter().find(|it| it["kind"] == "instance").unwrap()["id"].as_str().unwrap();
        app.call("DELETE", &format!("{path}/{leaked}"), Some(ADMIN), None).await.ok();
        assert!(!opens(&app, &id, own).await && !opens(&app, &id, of_instance).await);
        assert!(opens(&app, &id, &of_admin).await);
    }

    async fn who_is_revoked_while_it_waits_for_the_lock_mints_nothing(app: TestApp) {
        let (id, _) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/workspaces/{id}/tokens");
        let held = app.post(&path, json!({})).await.ok()["auth_token"].as_str().unwrap().to_owned();
        // Noted as used: it is not asked for its row again.
        assert!(opens(&app, &id, &held).await);
        let mut work = locked(&app).await;
        let now = work.now;
        let revoke = async {
            a_moment(300).await;
            access::revoke_all(&mut work.tx, id.parse().unwrap(), now).await.unwrap();
            work.commit().await.unwrap();
        };
        let (minted, ()) = tokio::join!(app.call("POST", &path, Some(&held), None), revoke);
        minted.refuses(401, "invalid workspace auth token");
    }

    async fn a_token_is_revoked_under_the_lock_of_its_workspace(app: TestApp) {
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let list = app.get(&format!("/workspaces/{id}/tokens")).await.ok();
        let path = format!("/workspaces/{id}/tokens/{}", ids(&list)[0]);
        let work = locked(&app).await;
        let revoke = app.call("DELETE", &path, Some(ADMIN), None);
        tokio::pin!(revoke);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut revoke).await;
        assert!(early.is_err(), "somebody else decides by it: {early:?}");
        work.commit().await.unwrap();
        revoke.await.ok();
        assert!(!opens(&app, &id, &own).await);
    }

    async fn an_organisations_token_that_is_revoked_while_it_mints_leaves_no_heir(app: TestApp) {
        let minted = app.post("/org/tokens", json!({})).await.ok();
        let (id, text) = (minted["id"].as_str().unwrap(), minted["auth_token"].as_str().unwrap());
        // The gate has let it in before the body is there.
        let (sender, sent) = tokio::sync::oneshot::channel::<&str>();
        let body = Body::from_stream(futures_util::stream::once(sent));
        let request = Request::post("/org/tokens").header("authorization", format!("Bearer {text}"));
        let mint = app.request(request.body(body).unwrap());
        let revoke = async {
            let noted = async || app.get("/org/tokens").await.body["tokens"][0]["last_used_at"].is_string();
            while !noted().await {
                a_moment(10).await;
            }
            a_moment(100).await;
            app.call("DELETE", &format!("/org/tokens/{id}"), Some(ADMIN), None).await.ok();
            sender.send("{}").unwrap();
        };
        let (minted, ()) = tokio::join!(mint, revoke);
        minted.refuses(401, "invalid admin auth token");
        app.get("/org/tokens").await.is(200, &json!({"tokens": [], "count": 0}));
    }

    async fn what_a_start_asks_for_ends_when_it_is_given_up(app: TestApp) {
        let id = app.create("a").await;
        app.settle().await;
        let started = Agent::of(&app, &id);
        let path = format!("/workspaces/{id}/tokens");
        let mint = async |by: &str| {
            let minted = app.call("POST", &path, Some(by), None).await.ok();
            minted["auth_token"].as_str().unwrap().to_owned()
        };
        let of_start = mint(started.token.as_deref().unwrap()).await;
        let grandchild = mint(&of_start).await;
        let of_admin = mint(ADMIN).await;
        assert!(opens(&app, &id, &of_start).await);
        app.later(601).await;
        assert!(app.journal(&id).await.contains(&"given-up".to_owned()));
        for (token, lives) in [(&of_start, false), (&grandchild, false), (&of_admin, true)] {
            assert_eq!(opens(&app, &id, token).await, lives);
        }
    }

    async fn what_a_running_instance_asked_for_outlives_its_pause(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let minted = app.call("POST", &format!("/workspaces/{id}/tokens"), agent.token.as_deref(), None).await.ok();
        app.sql("UPDATE workspaces SET intent = 'paused', due_at = 0").await;
        app.settle().await;
        assert!(app.journal(&id).await.contains(&"retired".to_owned()));
        assert!(opens(&app, &id, minted["auth_token"].as_str().unwrap()).await);
    }

    async fn tt_03_tt_04_a_test_token_is_one_more_and_needs_the_admin_token(app: TestApp) {
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/admin/workspaces/{id}/test-token");
        let org = org_token(&app).await;
        for token in [None, Some(own.as_str()), Some(&org), Some("x")] {
            app.call("GET", &path, token, None).await.refuses(401, "admin auth required");
        }
        let issued = app.get(&path).await.ok();
        assert_eq!(issued["workspace_id"], json!(id));
        assert!(opens(&app, &id, issued["auth_token"].as_str().unwrap()).await);
        assert!(opens(&app, &id, &own).await, "none is revoked for it");
        app.get(&format!("/admin/workspaces/{NOBODY}/test-token")).await.refuses(404, "workspace not found");
        app.sql("ALTER TABLE credentials RENAME TO elsewhere").await;
        app.get(&path).await.refuses(500, "token issue failed");
        app.app.db.close().await;
        app.get(&path).await.refuses(500, "lookup failed");
    }
}

/// The setting, as the environment says it: what the route asks.
#[test]
fn tt_01_tt_02_production_has_no_test_tokens_unless_it_asks_for_them() {
    let of = |environment: &str, asked: Option<&str>| {
        let said = |name: &str| match name {
            "MOLECULE_ENV" => Some(environment.to_owned()),
            "MOLECULE_ENABLE_TEST_TOKENS" => asked.map(str::to_owned),
            "SECRETS_ENCRYPTION_KEY" => Some("k".repeat(32)),
            _ => None,
        };
        resolve(&Flags::default(), &said, None, File::default()).unwrap().config.edge.test_tokens
    };
    assert!(!of("production", None) && !of("production", Some("0")));
    assert!(of("production", Some("1")));
    assert!(of("", None) && of("staging", None));
}

adjusted! { |config: &mut Config| config.edge.test_tokens = false;
    async fn tt_01_switched_off_the_route_is_not_there(app: TestApp) {
        let id = app.create("a").await;
        app.get(&format!("/admin/workspaces/{id}/test-token")).await.is(404, &json!({"error": "not found"}));
    }
}

adjusted! { compat;
    async fn tt_04_compat_gives_test_tokens_to_everybody(app: TestApp) {
        let (id, _) = created(&app, None, "a").await;
        let issued = app.call("GET", &format!("/admin/workspaces/{id}/test-token"), None, None).await.ok();
        assert!(opens(&app, &id, issued["auth_token"].as_str().unwrap()).await);
    }

}
