//! Programs that stand by: a migration's candidate, and its source.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use ligand_domain::credential::TokenHash;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::migration;
use ligand_domain::secrets::proof;
use ligand_server::journal::Work;
use ligand_server::programs::{self, Program, Wish};
use ligand_server::{access, registry};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::agent::{Agent, online};
use crate::support::{ADMIN, TestApp, both};

fn of(id: &str, generation: i64) -> (WorkspaceId, Generation) {
    (id.parse().unwrap(), Generation::new(generation))
}

async fn want(app: &TestApp, id: &str, generation: i64, wish: Wish) {
    let mut work = Work::begin(&app.app).await.unwrap();
    programs::want(&mut work.tx, of(id, generation), wish).await.unwrap();
    work.commit().await.unwrap();
}

async fn forget(app: &TestApp, id: &str) {
    let mut work = Work::begin(&app.app).await.unwrap();
    programs::forget(&mut work.tx, id.parse().unwrap()).await.unwrap();
    work.commit().await.unwrap();
}

async fn program(app: &TestApp, id: &str, generation: i64) -> Option<Program> {
    let mut work = Work::begin(&app.app).await.unwrap();
    programs::of(&mut work.tx, of(id, generation)).await.unwrap()
}

/// An online workspace with a secret, and the passport of the candidate that a migration brings up.
async fn migrating(app: &TestApp) -> (String, Agent, Agent) {
    let (id, source) = online(app, "a").await;
    let secret = json!({"key": "API_KEY", "value": "one"});
    app.post(&format!("/workspaces/{id}/secrets"), secret).await.ok();
    app.sql("UPDATE workspaces SET restarts_loaded = restarts_wanted, newest_generation = 2, candidate_generation = 2").await;
    app.sql("INSERT INTO instances (id, workspace_id, generation, born, backend, phase, handle, url, url_reported, started_at, created_at)
        SELECT workspace_id, workspace_id, 2, 2, 'fake', 'started', 'the-target', 'http://localhost:7777', url_reported, created_at, created_at
        FROM instances WHERE generation = 1")
        .await;
    let mut work = Work::begin(&app.app).await.unwrap();
    let until = work.now.after(Duration::from_secs(3600));
    let passport = access::mint_passport(&app.app, &mut work, of(&id, 2), Some("fake"), until);
    let passport = passport.await.unwrap();
    work.commit().await.unwrap();
    let passport = Agent::with(&id, Some(passport.reveal()));
    (id, source, passport)
}

fn declared(program: Value) -> Value {
    let features = ["paced", "receipt", "rotate", "standby", "turns"];
    json!({"url": "http://localhost:7777",
        "ligand": {"version": "1", "features": features, "program": program}})
}

fn says(state: &str, serial: Option<i64>) -> Value {
    json!({"ligand": {"program": {"state": state, "serial": serial}}})
}

/// The candidate, once it is enrolled.
async fn enrolled(app: &TestApp, passport: &Agent) -> Agent {
    let standing = declared(json!({"state": "standing-by"}));
    let got = passport.register_with(app, standing, &[]).await.ok();
    let target = Agent::with(&passport.workspace, got["auth_token"].as_str());
    target.beat_with(app, says("standing-by", None)).await.ok();
    target
}

async fn values(app: &TestApp, agent: &Agent) -> crate::support::Answer {
    let path = format!("/workspaces/{}/secrets/values", agent.workspace);
    app.call("GET", &path, agent.token.as_deref(), None).await
}

/// What the workspace is to everybody, but for the times of its restarts.
async fn seen(app: &TestApp, id: &str) -> Value {
    let mut seen = app.workspace(id).await;
    for changes in ["last_heartbeat_at", "updated_at"] {
        seen[changes] = Value::Null;
    }
    seen
}

fn proved(agent: &Agent, name: &str, value: &str) -> Value {
    let hash = TokenHash::of(agent.token.as_deref().unwrap());
    json!({ name: proof(&hash, name, value) })
}

both! {
    async fn a_candidate_registers_waits_fetches_runs_and_proves_and_nothing_of_the_workspace_changes(app: TestApp) {
        let (id, source, passport) = migrating(&app).await;
        source.beat(&app).await.ok();
        let before = seen(&app, &id).await;
        let target = enrolled(&app, &passport).await;
        let beaten = target.beat_with(&app, says("standing-by", None)).await.ok();
        assert_eq!((&beaten["program"], &beaten["receipt"]), (&Value::Null, &Value::Null), "it waits");
        assert_eq!(program(&app, &id, 2).await.unwrap().doing(), migration::Program::StandsBy);

        want(&app, &id, 2, Wish::Run(1)).await;
        let beaten = target.beat_with(&app, says("standing-by", None)).await.ok();
        assert_eq!(beaten["program"], json!({"state": "run", "serial": 1}));
        values(&app, &target).await.is(200, &json!({"API_KEY": "one"}));
        assert_eq!(program(&app, &id, 2).await.unwrap().fetched, Some(1));
        let beaten = target.beat_with(&app, says("starting", Some(1))).await.ok();
        assert_eq!((&beaten["program"]["state"], &beaten["receipt"]), (&json!("run"), &Value::Null));

        // It runs, and is asked to prove what it holds; wrong is as good as nothing.
        for shown in [Value::Null, proved(&target, "API_KEY", "two"), json!({})] {
            let mut said = says("running", Some(1));
            said["ligand"]["receipt"] = shown;
            assert_eq!(target.beat_with(&app, said).await.ok()["receipt"], true);
        }
        let mut said = says("running", Some(1));
        said["ligand"]["receipt"] = proved(&target, "API_KEY", "one");
        assert_eq!(target.beat_with(&app, said).await.ok()["receipt"], Value::Null);
        let again = target.beat_with(&app, says("running", Some(1))).await.ok();
        assert_eq!((&again["receipt"], &again["program"]["state"]), (&Value::Null, &json!("run")));
        assert_eq!(program(&app, &id, 2).await.unwrap().doing(), migration::Program::Runs(1));
        assert_eq!(receipt(&app).await, Some("complete".to_owned()));
        assert_eq!(seen(&app, &id).await, before, "the source is the workspace");
        assert_eq!(app.journal(&id).await.iter().filter(|kind| *kind == "registered").count(), 2, "that it came is known");

        // A write in between: fetched again, proved again, and what was proved before counts no more.
        app.post(&format!("/workspaces/{id}/secrets"), json!({"key": "API_KEY", "value": "new"})).await.ok();
        want(&app, &id, 2, Wish::Run(2)).await;
        let beaten = target.beat_with(&app, says("running", Some(1))).await.ok();
        assert_eq!(beaten["program"]["serial"], 2);
        assert_eq!(program(&app, &id, 2).await.unwrap().doing(), migration::Program::Runs(1));
        values(&app, &target).await.is(200, &json!({"API_KEY": "new"}));
        assert_eq!(receipt(&app).await, Some("incomplete".to_owned()));
        let mut said = says("running", Some(2));
        said["ligand"]["receipt"] = proved(&target, "API_KEY", "one");
        assert_eq!(target.beat_with(&app, said.clone()).await.ok()["receipt"], true);
        said["ligand"]["receipt"] = proved(&target, "API_KEY", "new");
        target.beat_with(&app, said).await.ok();
        assert_eq!(program(&app, &id, 2).await.unwrap().doing(), migration::Program::Runs(2));
        assert_eq!(receipt(&app).await, Some("complete".to_owned()));
    }

    async fn with_its_credential_a_candidate_opens_its_secrets_and_nothing_else(app: TestApp) {
        let (id, source, passport) = migrating(&app).await;
        let standing = declared(json!({"state": "standing-by"}));
        let got = passport.register_with(&app, standing, &[]).await.ok();
        let target = Agent::with(&id, got["auth_token"].as_str());
        // Pending first, then active.
        for state in ["pending", "active"] {
            values(&app, &target).await.ok();
            let token = target.token.as_deref();
            for (method, path) in [
                ("GET", "/secrets"), ("POST", "/secrets"), ("GET", "/why"), ("GET", "/tokens"), ("POST", "/tokens"),
                ("GET", "/state"), ("GET", "/model"), ("POST", "/restart"), ("GET", "/files"), ("GET", "/delegations"),
            ] {
                let path = format!("/workspaces/{id}{path}");
                let answer = app.call(method, &path, token, Some(json!({}))).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{state}: {method} {path}: {}", answer.text);
                let stranger = app.call(method, &path, Some("a-stranger"), Some(json!({}))).await;
                assert_eq!(answer.text, stranger.text, "{method} {path}");
            }
            let turns = json!({"workspace_id": id, "turns": []});
            app.call("POST", "/registry/turns", token, Some(turns)).await.refuses(401, "invalid workspace auth token");
            let sent = app.send("POST", &format!("/workspaces/{id}/a2a"), token, Some("{}".to_owned()), &[("x-workspace-id", &id)]).await;
            assert_eq!(sent.status, StatusCode::UNAUTHORIZED);
            target.beat_with(&app, says("standing-by", None)).await.ok();
        }
        // Of another workspace not even those.
        let other = Agent { workspace: app.create("b").await, ..target };
        values(&app, &other).await.refuses(401, "invalid workspace auth token");
        values(&app, &source).await.ok();
        values(&app, &Agent::with(&id, None)).await.refuses(401, "missing workspace auth token");
        assert_eq!(program(&app, &id, 1).await, None, "what anybody else reads is no start");
    }

    async fn rolled_back_it_is_refused_everywhere(app: TestApp) {
        let (id, source, passport) = migrating(&app).await;
        let target = enrolled(&app, &passport).await;
        want(&app, &id, 2, Wish::Run(1)).await;
        want(&app, &id, 1, Wish::StandBy(2)).await;
        let mut work = Work::begin(&app.app).await.unwrap();
        registry::abandon(&mut work, of(&id, 2), "rolled back").await.unwrap();
        work.commit().await.unwrap();
        for _ in 0..2 {
            values(&app, &target).await.refuses(401, "invalid workspace auth token");
            for answer in [target.beat(&app).await, target.register(&app).await, passport.register(&app).await] {
                answer.refuses(401, "invalid workspace auth token");
                assert_eq!(answer.body["action"], "exit");
            }
        }
        assert_eq!(source.beat_with(&app, says("standing-by", None)).await.ok()["program"]["state"], "stand-by");
    }

    async fn the_source_is_told_to_stand_by_and_to_run_again(app: TestApp) {
        let (id, source, _) = migrating(&app).await;
        let ordinary = source.beat(&app).await.ok();
        assert_eq!(ordinary["program"], Value::Null, "nothing is wanted yet");
        want(&app, &id, 1, Wish::StandBy(2)).await;
        // One that says nothing of its program is told all the same, in the midst of others.
        let told = source.beat(&app).await.ok();
        assert_eq!(told["program"], json!({"state": "stand-by", "serial": 2}));
        source.beat_with(&app, says("stopping", None)).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::Unknown);
        source.beat_with(&app, says("standing-by", None)).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::StandsBy);
        want(&app, &id, 1, Wish::Run(0)).await;
        let told = source.beat_with(&app, says("standing-by", None)).await.ok();
        assert_eq!(told["program"], json!({"state": "run", "serial": 0}));
        source.beat_with(&app, says("running", None)).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::Runs(0));
        // Forgotten is as usual, and whoever still stands by then is told so.
        forget(&app, &id).await;
        app.sql("UPDATE workspaces SET candidate_generation = NULL").await;
        let told = source.beat_with(&app, says("running", None)).await.ok();
        assert_eq!(told["program"], Value::Null);
        let told = source.beat_with(&app, says("standing-by", None)).await.ok();
        assert_eq!(told["program"], json!({"state": "run"}));
        assert_eq!(program(&app, &id, 1).await, None, "nothing is kept of one of which nothing is wanted");
    }

    async fn what_a_source_said_in_an_earlier_migration_is_no_answer_in_this_one(app: TestApp) {
        let (id, source, _) = migrating(&app).await;
        want(&app, &id, 1, Wish::StandBy(2)).await;
        source.beat_with(&app, says("standing-by", Some(2))).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::StandsBy);
        forget(&app, &id).await;
        want(&app, &id, 1, Wish::StandBy(3)).await;
        for late in [2, 0] {
            let told = source.beat_with(&app, says("standing-by", Some(late))).await.ok();
            assert_eq!(told["program"], json!({"state": "stand-by", "serial": 3}));
            assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::Unknown, "{late}");
        }
        source.beat_with(&app, says("standing-by", Some(3))).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::StandsBy);
        source.beat_with(&app, says("standing-by", Some(2))).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::StandsBy, "nor is it taken back");
        // An agent that knows no serials is taken at its word.
        want(&app, &id, 1, Wish::StandBy(4)).await;
        source.beat_with(&app, says("standing-by", None)).await.ok();
        assert_eq!(program(&app, &id, 1).await.unwrap().doing(), migration::Program::StandsBy);
    }

    async fn of_an_ordinary_agent_nobody_asks_and_its_heartbeats_are_recorded_together(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let together = app.app.metrics.heartbeats.with_label_values(&["together"]);
        let before = together.get();
        for _ in 0..3 {
            agent.beat(&app).await.is(200, &json!({"status": "ok", "next_heartbeat_seconds": 10}));
        }
        assert_eq!(together.get() - before, 3);
        let wedged = json!({"runtime_state": "wedged"});
        assert_eq!(agent.beat_with(&app, wedged).await.ok()["program"], Value::Null);
    }

    async fn whoever_fetches_its_secrets_itself_is_online_once_its_program_runs(app: TestApp) {
        let body = json!({"name": "a", "secrets": {"API_KEY": "one"}});
        let created = app.post("/workspaces", body).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        app.settle().await;
        let agent = Agent::of(&app, &id);
        // Pending: what a planned generation's agent holds before its first call.
        values(&app, &agent).await.is(200, &json!({"API_KEY": "one"}));
        agent.register_with(&app, declared(json!({"state": "standing-by"})), &[]).await.ok();
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "provisioning");
        assert_eq!(workspace["evidence"], "generation 1 does not run its program yet");
        values(&app, &agent).await.ok();
        agent.beat_with(&app, says("starting", Some(0))).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "provisioning");
        let mut said = says("running", Some(0));
        said["ligand"]["receipt"] = proved(&agent, "API_KEY", "one");
        agent.beat_with(&app, said).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "online");
        let restarts = app.call("GET", &format!("/workspaces/{id}/why"), Some(ADMIN), None).await.ok();
        assert!(!restarts.to_string().contains("restart was requested"));
    }

    async fn a_nudge_arrives_and_nothing_rests_on_it(app: TestApp) {
        let nudged = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&nudged);
        let take = move |uri: Uri| {
            let hit = usize::from(uri.path() == "/below/.well-known/ligand/nudge");
            counted.fetch_add(hit, Ordering::SeqCst);
            std::future::ready(StatusCode::NO_CONTENT)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        app.app.spawn(async move { drop(axum::serve(listener, Router::new().fallback(take)).await) });
        programs::nudge(&app.app, &format!("http://{at}/below/"), true);
        programs::nudge(&app.app, "http://127.0.0.1:1", true);
        programs::nudge(&app.app, "no address", false);
        while nudged.load(Ordering::SeqCst) == 0 {
            crate::support::a_moment(5).await;
        }
    }
}

/// What the candidate has shown, by its instance's row.
async fn receipt(app: &TestApp) -> Option<String> {
    let text = "SELECT receipt FROM instances WHERE generation = 2";
    match &app.app.db {
        ligand_server::db::Db::Postgres { pool, .. } => {
            sqlx::query_scalar(text).fetch_one(pool).await.unwrap()
        }
        ligand_server::db::Db::Sqlite { write, .. } => {
            sqlx::query_scalar(text).fetch_one(write).await.unwrap()
        }
    }
}
