//! Workspace credentials, as callers and operators see them.

use ligand_server::access;
use ligand_server::journal::Work;
use serde_json::json;

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::{TestApp, both};

/// Whether a credential opens a workspace's own routes.
async fn opens(app: &TestApp, id: &str, token: &str) -> bool {
    app.call("GET", &format!("/workspaces/{id}/why"), Some(token), None).await.status == 200
}

/// The caller's credential that a create answers with.
async fn created(app: &TestApp, name: &str) -> (String, String) {
    let created = app.post("/workspaces", json!({"name": name})).await.ok();
    let text = |key: &str| created[key].as_str().unwrap().to_owned();
    (text("id"), text("auth_token"))
}

both! {
    async fn wt_01_a_credential_is_stored_as_hash_and_prefix(app: TestApp) {
        let (_, token) = created(&app, "a").await;
        let dump = dump(&app).await;
        assert!(dump.contains(&token[..8]), "the prefix is kept");
        assert!(!dump.contains(&token), "the secret is not");
        assert!(dump.contains(&hex(ligand_domain::credential::TokenHash::of(&token).bytes())));
    }

    async fn wt_02_two_are_different(app: TestApp) {
        assert_ne!(created(&app, "a").await.1, created(&app, "b").await.1);
    }

    async fn wt_03_wa_04_a_live_one_opens_its_workspace_and_is_noted(app: TestApp) {
        let (id, token) = created(&app, "a").await;
        assert!(!dump(&app).await.contains("|used"));
        assert!(opens(&app, &id, &token).await);
        assert!(dump(&app).await.contains("|used"));
    }

    async fn wt_04_wa_05_another_workspace_stays_closed(app: TestApp) {
        let (_, token) = created(&app, "a").await;
        let (other, _) = created(&app, "b").await;
        let path = format!("/workspaces/{other}/why");
        let answer = app.call("GET", &path, Some(&token), None).await;
        answer.refuses(401, "invalid workspace auth token");
    }

    async fn wt_05_16_wa_01_nothing_presented_asks_no_database(app: TestApp) {
        let (id, _) = created(&app, "a").await;
        app.app.db.close().await;
        let path = format!("/workspaces/{id}/why");
        for header in ["", "Bearer ", "Bearer    ", "bearer x", "Basic x"] {
            let answer = app.send("GET", &path, None, None, &[("authorization", header)]).await;
            answer.refuses(401, "missing workspace auth token");
        }
        assert!(access::validate(&app.app, "").await.unwrap().is_none());
        // With something presented the database is asked, and that shows.
        let answer = app.call("GET", &path, Some("something"), None).await;
        answer.refuses(503, "platform datastore unavailable — retry shortly");
    }

    async fn wt_06_14_wa_03_an_unknown_one_is_invalid(app: TestApp) {
        let (id, _) = created(&app, "a").await;
        let answer = app.call("GET", &format!("/workspaces/{id}/why"), Some("never-issued"), None).await;
        answer.refuses(401, "invalid workspace auth token");
        let message = json!({"method": "message/send"});
        let answer = app.call("POST", &format!("/workspaces/{id}/a2a"), Some("never-issued"), Some(message)).await;
        answer.refuses(401, "invalid caller auth token");
    }

    async fn wt_07_15_aa_05_a_removed_workspaces_one_is_invalid(app: TestApp) {
        let (id, token) = created(&app, "a").await;
        let (other, _) = created(&app, "b").await;
        app.settle().await;
        app.delete(&format!("/workspaces/{id}")).await.ok();
        assert!(!opens(&app, &id, &token).await);
        assert!(access::validate(&app.app, &token).await.unwrap().is_none());
        let body = json!({"method": "message/send"});
        let answer = app.call("POST", &format!("/workspaces/{other}/a2a"), Some(&token), Some(body)).await;
        answer.refuses(401, "invalid caller auth token");
        app.call("GET", "/workspaces", Some(&token), None).await.refuses(401, "invalid admin auth token");
    }

    async fn wt_08_whether_any_is_live_decides_and_its_failure_is_passed_on(app: TestApp) {
        let id = unclaimed(&app).await;
        let mut work = Work::begin(&app.app).await.unwrap();
        assert_eq!(access::live_in(&mut work.tx, id.parse().unwrap(), work.now).await.unwrap(), 0);
        drop(work);
        let agent = Agent::with(&id, None);
        agent.register(&app).await.ok();
        agent.register(&app).await.refuses(401, "missing workspace auth token");
        app.sql("DROP TABLE credentials").await;
        agent.register(&app).await.refuses(503, "platform datastore unavailable — retry shortly");
        let mut work = Work::begin(&app.app).await.unwrap();
        assert!(access::live_in(&mut work.tx, id.parse().unwrap(), work.now).await.is_err());
    }

    async fn wt_09_whether_a_workspace_exists_has_three_answers(app: TestApp) {
        let (id, _) = created(&app, "a").await;
        let stream = |id: &str| format!("/workspaces/{id}/why");
        assert_eq!(app.get(&stream(&id)).await.status, 200);
        let unknown = "00000000-0000-4000-8000-000000000000";
        app.get(&stream(unknown)).await.refuses(404, "workspace not found");
        app.app.db.close().await;
        app.get(&stream(&id)).await.refuses(503, "platform datastore unavailable — retry shortly");
    }

    async fn wt_10_revoking_all_ends_the_live_ones_and_nothing_is_success(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let id = id.parse().unwrap();
        for ended in [2, 0] {
            let mut work = Work::begin(&app.app).await.unwrap();
            let now = work.now;
            assert_eq!(access::revoke_all(&mut work.tx, id, now).await.unwrap(), ended);
            work.commit().await.unwrap();
        }
        let refused = agent.beat(&app).await;
        refused.refuses(401, "invalid workspace auth token");
        assert_eq!(refused.body["code"], "revoked");
    }

    async fn wt_12_live_ones_are_counted_over_all_workspaces(app: TestApp) {
        let count = async || app.get("/admin/liveness").await.ok()["credentials_live"].clone();
        assert_eq!(count().await, json!(0));
        created(&app, "a").await;
        let (id, _) = created(&app, "b").await;
        assert_eq!(count().await, json!(2));
        // Their instances' come with their starts, and all of a workspace's go with it.
        app.settle().await;
        assert_eq!(count().await, json!(4));
        app.delete(&format!("/workspaces/{id}")).await.ok();
        assert_eq!(count().await, json!(2));
    }

    async fn wt_13_any_live_one_tells_whose_it_is(app: TestApp) {
        let (id, token) = created(&app, "a").await;
        let held = access::validate(&app.app, &token).await.unwrap().unwrap();
        assert_eq!(held.workspace.to_string(), id);
        assert!(dump(&app).await.contains("|used"));
    }

    async fn the_first_use_ends_the_predecessor_and_not_the_callers_credential(app: TestApp) {
        let (id, api) = created(&app, "a").await;
        app.settle().await;
        let first = Agent::of(&app, &id);
        first.register(&app).await.ok();
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let second = Agent::of(&app, &id);
        assert_ne!(first.token, second.token);
        // Delivered, and not used: the old one still counts.
        first.beat(&app).await.ok();
        second.register(&app).await.ok();
        first.beat(&app).await.refuses(401, "invalid workspace auth token");
        assert!(opens(&app, &id, &api).await);
    }
}

/// Every credential row as text, from whichever engine.
async fn dump(app: &TestApp) -> String {
    use ligand_server::db::Db;
    const ROWS: &str = "SELECT prefix, hash, last_used_at FROM credentials";
    type Row = (String, Vec<u8>, Option<i64>);
    let rows: Vec<Row> = match &app.app.db {
        Db::Postgres { pool, .. } => sqlx::query_as(ROWS).fetch_all(pool).await.unwrap(),
        Db::Sqlite { read, .. } => sqlx::query_as(ROWS).fetch_all(read).await.unwrap(),
    };
    let line = |(prefix, hash, used): Row| {
        format!("{prefix}|{}{}\n", hex(&hash), if used.is_some() { "|used" } else { "" })
    };
    rows.into_iter().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
