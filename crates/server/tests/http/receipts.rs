//! Nothing is online that does not prove that it holds its secrets, if its agent can.

use std::time::Duration;

use ligand_domain::credential::TokenHash;
use ligand_domain::secrets::proof;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::{ADMIN, TestApp, both};

/// A workspace with two secrets, started and not registered.
async fn started(app: &TestApp) -> (String, Agent) {
    let body = json!({"name": "a", "secrets": {"API_KEY": "one", "PASSWORD": "two"}});
    let created = app.post("/workspaces", body).await.ok();
    let id = created["id"].as_str().unwrap().to_owned();
    app.settle().await;
    let agent = Agent::of(app, &id);
    (id, agent)
}

/// What an agent proves that holds these.
fn receipt(agent: &Agent, held: &[(&str, &str)]) -> Value {
    let hash = TokenHash::of(agent.token.as_deref().unwrap());
    held.iter()
        .map(|(name, value)| ((*name).to_owned(), json!(proof(&hash, name, value))))
        .collect()
}

fn declared(receipt: Option<Value>) -> Value {
    json!({"ligand": {"version": "1", "features": ["paced", "receipt"], "receipt": receipt}})
}

async fn status(app: &TestApp, id: &str) -> Value {
    app.workspace(id).await["status"].clone()
}

async fn next(app: &TestApp, id: &str) -> String {
    let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
    why["next"].as_str().unwrap().to_owned()
}

const ALL: [(&str, &str); 2] = [("API_KEY", "one"), ("PASSWORD", "two")];

both! {
    async fn a_complete_receipt_makes_it_online(app: TestApp) {
        let (id, agent) = started(&app).await;
        assert_eq!(app.env(&id)["LIGAND_SECRET_NAMES"], "API_KEY PASSWORD");
        agent.register_with(&app, declared(Some(receipt(&agent, &ALL))), &[]).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["evidence"]), (&json!("online"), &json!("generation 1 registered")));
        // Once it has proved them, a register without is no step back.
        agent.register_with(&app, declared(None), &[]).await.ok();
        assert_eq!(status(&app, &id).await, "online");
        agent.beat(&app).await.is(200, &json!({"status": "ok", "next_heartbeat_seconds": 10}));
    }

    async fn an_incomplete_one_is_not_and_why_names_what_is_missing(app: TestApp) {
        let (id, agent) = started(&app).await;
        let some = receipt(&agent, &[("API_KEY", "one")]);
        agent.register_with(&app, declared(Some(some.clone())), &[]).await.ok();
        for _ in 0..5 {
            app.later(10).await;
            assert_eq!(status(&app, &id).await, "provisioning");
            let beaten = agent.beat_with(&app, json!({"ligand": {"receipt": some}})).await.ok();
            assert_eq!(beaten["receipt"], true, "it is asked for: {beaten}");
            agent.beat(&app).await.ok();
        }
        let workspace = app.workspace(&id).await;
        let evidence = workspace["evidence"].as_str().unwrap();
        assert!(evidence.ends_with("its secrets: PASSWORD missing") || evidence.contains("PASSWORD"), "{evidence}");
        assert_eq!(workspace["url"], "", "nobody is sent to it");
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        let unproven: Vec<&Value> = why["journal"].as_array().unwrap().iter().filter(|e| e["kind"] == "unproven").collect();
        assert!(unproven[0]["summary"].as_str().unwrap().ends_with("PASSWORD missing"), "{why}");
        assert!(!why.to_string().contains("\"one\"") && !why.to_string().contains(":two"), "{why}");
        assert!(next(&app, &id).await.contains("it is replaced at 2026-01-01T00:10:00"), "{why}");
        assert!(!app.events(&id).await.contains(&"WORKSPACE_ONLINE".to_owned()));
        // A proof of another value, or under another credential, is none.
        let wrong = receipt(&agent, &[("API_KEY", "one"), ("PASSWORD", "three")]);
        agent.beat_with(&app, json!({"ligand": {"receipt": wrong}})).await.ok();
        assert!(app.workspace(&id).await["evidence"].as_str().unwrap().ends_with("PASSWORD not as it was loaded"));
        let foreign = receipt(&Agent::with(&id, Some("another")), &ALL);
        agent.beat_with(&app, json!({"ligand": {"receipt": foreign}})).await.ok();
        assert_eq!(status(&app, &id).await, "provisioning");
        // What it holds after all counts from the next heartbeat on.
        let all = json!({"ligand": {"receipt": receipt(&agent, &ALL)}});
        let beaten = agent.beat_with(&app, all).await.ok();
        assert_eq!((beaten["receipt"].clone(), status(&app, &id).await), (Value::Null, json!("online")));
        assert_eq!(app.workspace(&id).await["url"], "http://localhost:8000");
        assert_eq!(app.workspace(&id).await["last_error"], Value::Null);
    }

    async fn what_does_not_prove_them_in_time_is_replaced(app: TestApp) {
        let (id, agent) = started(&app).await;
        agent.register_with(&app, declared(Some(json!({}))), &[]).await.ok();
        for _ in 0..59 {
            app.later(10).await;
            agent.beat(&app).await.ok();
        }
        app.settle().await;
        assert_eq!(app.fake.starts(), 1);
        app.later(10).await;
        assert_eq!(app.fake.starts(), 2);
        let agent = Agent::of(&app, &id);
        agent.register_with(&app, declared(Some(receipt(&agent, &ALL))), &[]).await.ok();
        app.settle().await;
        assert_eq!(status(&app, &id).await, "online");
    }

    async fn a_restart_cures_it_at_once(app: TestApp) {
        let (id, agent) = started(&app).await;
        agent.register_with(&app, declared(Some(json!({}))), &[]).await.ok();
        app.settle().await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let agent = Agent::of(&app, &id);
        agent.register_with(&app, declared(Some(receipt(&agent, &ALL))), &[]).await.ok();
        app.settle().await;
        assert_eq!((status(&app, &id).await, app.fake.starts()), (json!("online"), 2));
    }

    async fn an_agent_without_the_feature_is_online_and_the_evidence_says_so(app: TestApp) {
        let (id, agent) = started(&app).await;
        agent.register(&app).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        let evidence = "generation 1 registered; receipt: unsupported";
        assert_eq!((&workspace["status"], &workspace["evidence"]), (&json!("online"), &json!(evidence)));
    }

    async fn a_later_write_makes_a_restart_due_and_fails_no_receipt(app: TestApp) {
        let (id, agent) = started(&app).await;
        let all = receipt(&agent, &ALL);
        let path = format!("/workspaces/{id}/secrets");
        app.post(&path, json!({"key": "PASSWORD", "value": "new"})).await.ok();
        // It holds what it was given; that it is to be replaced is no fault of its.
        agent.register_with(&app, declared(Some(all)), &[]).await.ok();
        assert!(!app.journal(&id).await.contains(&"unproven".to_owned()));
        app.settle().await;
        assert_eq!((app.fake.starts(), app.env(&id)["PASSWORD"].as_str()), (2, "new"));
        let agent = Agent::of(&app, &id);
        let new = receipt(&agent, &[("API_KEY", "one"), ("PASSWORD", "new")]);
        agent.register_with(&app, declared(Some(new)), &[]).await.ok();
        app.settle().await;
        assert_eq!(status(&app, &id).await, "online");
        // And once it serves, a write leaves it serving until its successor is planned.
        app.call("PUT", &path, Some(ADMIN), Some(json!({"key": "API_KEY", "value": "newer"}))).await.ok();
        assert_eq!(status(&app, &id).await, "online");
        agent.beat(&app).await.ok();
        app.settle().await;
        assert_eq!((app.fake.starts(), status(&app, &id).await), (3, json!("provisioning")));
    }

    async fn what_was_proved_stays_proved_after_a_silence(app: TestApp) {
        let (id, agent) = started(&app).await;
        agent.register_with(&app, declared(Some(receipt(&agent, &ALL))), &[]).await.ok();
        app.settle().await;
        app.later(31).await;
        assert_eq!(status(&app, &id).await, "offline");
        agent.beat(&app).await.ok();
        assert_eq!(status(&app, &id).await, "online");
        app.app.clock.advance(Duration::from_secs(1));
    }
}
