//! A new credential while the agent runs.

use std::time::Duration;

use ligand_server::credentials::RotationReconciler;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::engine::on_each;
use crate::support::{Answer, TestApp, both};

/// A managed workspace whose agent declared that it can rotate.
async fn rotating(app: &TestApp) -> (String, Agent) {
    let id = app.create("a").await;
    app.settle().await;
    let agent = Agent::of(app, &id);
    let declares = json!({"ligand": {"version": "0", "features": ["paced", "rotate"]}});
    agent.register_with(app, declares, &[]).await.ok();
    app.settle().await;
    (id, agent)
}

async fn ask(app: &TestApp, id: &str) -> i64 {
    let answer = app.post(&format!("/admin/workspaces/{id}/rotate"), json!({})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(
        (&answer.body["status"], answer.body["workspace_id"].as_str()),
        (&json!("rotation_requested"), Some(id))
    );
    answer.body["serial"].as_i64().unwrap()
}

async fn take(app: &TestApp, agent: &Agent, serial: i64) -> Answer {
    let body = json!({"workspace_id": agent.workspace, "serial": serial});
    app.call("POST", "/registry/rotate", agent.token.as_deref(), Some(body)).await
}

fn with(agent: &Agent, answer: &Value) -> Agent {
    Agent::with(&agent.workspace, answer["auth_token"].as_str())
}

/// The serial that a heartbeat's answer names.
async fn told(app: &TestApp, agent: &Agent) -> Option<i64> {
    agent.beat(app).await.ok()["rotate"].as_i64()
}

both! {
    async fn an_agent_takes_a_new_credential_without_a_restart(app: TestApp) {
        let (id, agent) = rotating(&app).await;
        assert_eq!(told(&app, &agent).await, None);
        let serial = ask(&app, &id).await;
        assert_eq!(told(&app, &agent).await, Some(serial));
        // Answered anew, for a reply may be lost; the old one serves on, and nothing lapses.
        let lost = take(&app, &agent, serial).await.ok();
        let got = take(&app, &agent, serial).await.ok();
        assert_ne!(lost["auth_token"], got["auth_token"]);
        assert_eq!((&got["status"], &got["serial"], &got["generation"]), (&json!("rotated"), &json!(serial), &json!(1)));
        for _ in 0..40 {
            app.later(20).await;
            assert_eq!(told(&app, &agent).await, Some(serial));
        }
        let fresh = with(&agent, &got);
        assert_eq!(told(&app, &fresh).await, None, "its first use is the end of it");
        for old in [&agent, &with(&agent, &lost)] {
            let refused = old.beat(&app).await;
            refused.refuses(401, "invalid workspace auth token");
            assert_eq!((&refused.body["code"], &refused.body["action"]), (&json!("superseded"), &json!("reread-credential")));
        }
        take(&app, &fresh, serial).await.refuses(409, "this rotation is done");
        assert_eq!((app.fake.starts(), &app.workspace(&id).await["generation"]), (1, &json!(1)));
    }

    async fn only_the_newest_serial_is_answered(app: TestApp) {
        let (id, agent) = rotating(&app).await;
        let first = ask(&app, &id).await;
        let stale = take(&app, &agent, first).await.ok();
        let second = ask(&app, &id).await;
        let outdated = take(&app, &agent, first).await;
        outdated.refuses(409, "a newer rotation was asked for");
        assert!(outdated.body["detail"].as_str().unwrap().contains(&second.to_string()), "{outdated:?}");
        take(&app, &agent, second + 1).await.refuses(409, "no such rotation");
        // A value of an older one may be used, and does not satisfy the newer one.
        let fresh = with(&agent, &stale);
        assert_eq!(told(&app, &fresh).await, Some(second));
        let newest = with(&agent, &take(&app, &fresh, second).await.ok());
        assert_eq!(told(&app, &newest).await, None);
    }

    async fn only_the_credential_in_use_may_ask(app: TestApp) {
        let (id, agent) = rotating(&app).await;
        let serial = ask(&app, &id).await;
        let pending = with(&agent, &take(&app, &agent, serial).await.ok());
        take(&app, &pending, serial).await.refuses(409, "the credential is not in use");
        // A card is accepted from it, and is no use of it.
        let card = json!({"workspace_id": id, "agent_card": {"name": "early"}});
        app.call("POST", "/registry/update-card", pending.token.as_deref(), Some(card)).await.ok();
        take(&app, &pending, serial).await.refuses(409, "the credential is not in use");
        agent.beat(&app).await.ok();
        take(&app, &Agent::with(&id, None), serial).await.is(401, &json!({"error": "missing workspace auth token"}));
        take(&app, &Agent::with(&id, Some("stale")), serial).await.is(401, &json!({"error": "invalid workspace auth token"}));
        pending.beat(&app).await.ok();
        let ended = take(&app, &agent, serial).await;
        ended.refuses(401, "invalid workspace auth token");
        assert_eq!(ended.body["action"], "reread-credential");
        let text = app.call("POST", "/registry/rotate", None, Some(json!({"workspace_id": id}))).await;
        text.refuses(400, "invalid request body");
        assert!(text.body["detail"].as_str().unwrap().contains("serial"));
    }

    async fn whoever_asks_for_ever_has_no_more_than_a_few_unused_values(app: TestApp) {
        let (id, agent) = rotating(&app).await;
        let serial = ask(&app, &id).await;
        let mut newest = agent.clone();
        for _ in 0..12 {
            newest = with(&agent, &take(&app, &agent, serial).await.ok());
        }
        let list = app.get(&format!("/workspaces/{id}/tokens")).await.ok();
        let held = list["tokens"].as_array().unwrap().iter().filter(|it| it["kind"] == "instance").count();
        assert_eq!(held, 1 + 8, "the one in use, and the newest");
        assert_eq!(told(&app, &newest).await, None);
    }

    async fn a_restart_satisfies_a_rotation(app: TestApp) {
        let (id, agent) = rotating(&app).await;
        ask(&app, &id).await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let next = Agent::of(&app, &id);
        assert_ne!(next.token, agent.token);
        let declares = json!({"ligand": {"version": "0", "features": ["rotate"]}});
        next.register_with(&app, declares, &[]).await.ok();
        assert_eq!(told(&app, &next).await, None);
    }

    async fn who_cannot_rotate_is_not_asked(app: TestApp) {
        let (id, agent) = crate::support::agent::online(&app, "a").await;
        let path = format!("/admin/workspaces/{id}/rotate");
        let refused = app.post(&path, json!({})).await;
        refused.refuses(409, "the agent cannot rotate its credential");
        assert!(refused.body["detail"].as_str().unwrap().contains("restart"), "{refused:?}");
        assert_eq!(told(&app, &agent).await, None);
        let unknown = "/admin/workspaces/00000000-0000-4000-8000-000000000000/rotate";
        app.post(unknown, json!({})).await.refuses(404, "workspace not found");
        app.call("POST", &path, agent.token.as_deref(), None).await.refuses(401, "invalid admin auth token");
    }

    async fn a_failure_is_told_once_by_why(app: TestApp) {
        let (id, agent) = rotating(&app).await;
        ask(&app, &id).await;
        for _ in 0..3 {
            let report = json!({"ligand": {"rotation_error": "no space left on device"}});
            agent.beat_with(&app, report).await.ok();
        }
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        let failed: Vec<&Value> = why["journal"].as_array().unwrap().iter()
            .filter(|entry| entry["kind"] == "rotation-failed").collect();
        assert_eq!(failed.len(), 1);
        assert!(failed[0]["summary"].as_str().unwrap().contains("no space left"), "{failed:?}");
        agent.beat(&app).await.ok();
    }
}

#[test]
fn credentials_are_rotated_by_age_where_an_operator_said_so() {
    let day = Duration::from_secs(24 * 3600);
    on_each("age", |db| async move {
        let app = TestApp::new(db, |config| config.rotate_after = day);
        let (id, agent) = rotating(&app).await;
        crate::support::agent::online(&app, "cannot").await;
        let reconciler = RotationReconciler::default();
        assert_eq!(reconciler.pass(&app.app).await.unwrap().looked_at, 0);
        app.app.clock.advance(day);
        assert_eq!(reconciler.pass(&app.app).await.unwrap().looked_at, 1);
        assert_eq!(reconciler.pass(&app.app).await.unwrap().looked_at, 0, "one at a time");
        let serial = told(&app, &agent).await.unwrap();
        let fresh = with(&agent, &take(&app, &agent, serial).await.ok());
        assert_eq!(told(&app, &fresh).await, None);
        app.app.clock.advance(day / 2);
        assert_eq!(reconciler.pass(&app.app).await.unwrap().looked_at, 0, "it is young: {id}");
    });
    on_each("never", |db| async move {
        let app = TestApp::new(db, |_| {});
        rotating(&app).await;
        app.app.clock.advance(365 * day);
        assert_eq!(RotationReconciler::default().pass(&app.app).await.unwrap().looked_at, 0);
    });
}
