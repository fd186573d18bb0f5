//! The brake, deadlines, debounce, and what is never claimed without evidence.

use std::time::Duration;

use ligand_server::backend::Key;
use ligand_server::backend::fake::Fault;
use ligand_server::liveness::BrakeReconciler;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::engine::on_each;
use crate::support::{ADMIN, TestApp, a_moment, both};

fn newest(app: &TestApp, id: &str) -> Key {
    app.fake.newest(id.parse().unwrap()).unwrap().key
}

/// One look of the brake, as a running server takes it every few seconds.
async fn look(app: &TestApp) {
    while BrakeReconciler.pass(&app.app).await.unwrap().steps > 0 {}
}

async fn brake(app: &TestApp) -> Value {
    app.get("/admin/liveness").await.ok()["brake"].clone()
}

async fn status(app: &TestApp, id: &str) -> String {
    app.workspace(id).await["status"].as_str().unwrap().to_owned()
}

/// Ten workspaces, of which all but two have fallen silent.
async fn mass_silence(app: &TestApp) -> Vec<(String, Agent)> {
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(online(app, &format!("w{n}")).await);
    }
    app.app.clock.advance(Duration::from_secs(25));
    beat(app, &all[8..]).await;
    app.later(6).await;
    all
}

async fn beat(app: &TestApp, of: &[(String, Agent)]) {
    for (_, agent) in of {
        agent.beat(app).await.ok();
    }
}

/// Let the patience with the silent end; the others go on beating.
async fn patience_ends(app: &TestApp, others: &[(String, Agent)]) {
    for _ in 0..4 {
        app.app.clock.advance(Duration::from_secs(16));
        beat(app, others).await;
    }
    app.settle().await;
}

const OVERTAKEN: &str = "UPDATE workspaces SET current_generation = 2, newest_generation = 2";

/// One pass, and a statement while it asks the backend.
async fn meanwhile(app: &TestApp, statement: &'static str) {
    app.sql("UPDATE workspaces SET due_at = 1").await;
    app.fake.plan(Fault::Late(Duration::from_millis(400)));
    let other = async {
        a_moment(150).await;
        app.sql(statement).await;
    };
    let (pass, ()) = tokio::join!(app.pass(), other);
    assert_eq!((pass.looked_at, pass.failed), (1, None));
}

both! {
    async fn mass_silence_replaces_nobody(app: TestApp) {
        let all = mass_silence(&app).await;
        assert_eq!(status(&app, &all[0].0).await, "offline", "silence is told at once");
        patience_ends(&app, &all[8..]).await;
        assert_eq!(app.fake.starts(), 10, "nothing is replaced for being silent");
        let told = brake(&app).await;
        assert_eq!((&told["state"], &told["silent"], &told["running"]), (&json!("engaged"), &json!(8), &json!(10)));
        let held = app.workspace(&all[0].0).await;
        assert_eq!(held["next_attempt_at"], told["next_attempt_at"], "its state says when it goes on");
        assert!(app.journal(&all[0].0).await.contains(&"held".to_owned()));
        let events = app.get("/events").await.ok();
        let engaged: Vec<&Value> = events.as_array().unwrap().iter().filter(|e| e["event_type"] == "BRAKE_ENGAGED").collect();
        assert_eq!(engaged.len(), 1, "announced once: {events}");
        assert_eq!(engaged[0]["workspace_id"], json!(null));
        // A server that starts anew knows of it.
        let app = app.reborn();
        assert_eq!(brake(&app).await["state"], "engaged");
        // They come back: nobody was replaced needlessly.
        beat(&app, &all).await;
        look(&app).await;
        assert_eq!(brake(&app).await["state"], "easing");
        app.settle().await;
        assert_eq!(app.fake.starts(), 10);
        for (id, _) in &all {
            let workspace = app.workspace(id).await;
            assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(1)));
        }
        for _ in 0..4 {
            app.app.clock.advance(Duration::from_secs(16));
            beat(&app, &all).await;
        }
        look(&app).await;
        assert_eq!(brake(&app).await["state"], "free");
    }

    async fn the_brake_lets_go_when_half_are_back_and_the_rest_is_replaced(app: TestApp) {
        let all = mass_silence(&app).await;
        look(&app).await;
        patience_ends(&app, &all[8..]).await;
        beat(&app, &all[4..]).await;
        look(&app).await;
        app.settle().await;
        assert_eq!(app.fake.starts(), 14, "four are still silent");
    }

    async fn an_operator_releases_the_brake(app: TestApp) {
        let all = mass_silence(&app).await;
        patience_ends(&app, &all[8..]).await;
        assert_eq!(brake(&app).await["state"], "engaged");
        app.call("POST", "/admin/brake/release", None, None).await.refuses(401, "admin auth required");
        let released = app.call("POST", "/admin/brake/release", Some(ADMIN), None).await.ok();
        assert_eq!((&released["state"], &released["per_minute"]), (&json!("easing"), &json!(20)));
        app.settle().await;
        assert_eq!(app.fake.starts(), 18);
        // Said again, it changes nothing.
        let again = app.call("POST", "/admin/brake/release", Some(ADMIN), None).await.ok();
        assert_eq!(again["state"], "easing");
    }

    async fn who_waits_for_its_turn_while_the_brake_eases_is_left_alone_until_then(app: TestApp) {
        let all = mass_silence(&app).await;
        patience_ends(&app, &all[8..]).await;
        app.call("POST", "/admin/brake/release", Some(ADMIN), None).await.ok();
        app.sql("UPDATE liveness SET permits_used = 20, permits_window = brake_since").await;
        app.settle().await;
        let turn = app.workspace(&all[0].0).await["next_attempt_at"].clone();
        assert!(turn.is_string());
        for _ in 0..3 {
            app.app.clock.advance(Duration::from_secs(5));
            assert_eq!(BrakeReconciler.pass(&app.app).await.unwrap().steps, 0, "nobody is let go");
            app.settle().await;
        }
        assert_eq!((&app.workspace(&all[0].0).await["next_attempt_at"], app.fake.starts()), (&turn, 10));
        app.later(46).await;
        assert!(app.fake.starts() > 10, "its turn comes when it was said to come");
    }

    async fn what_ended_after_another_generation_took_over_says_nothing_of_the_workspace(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.fake.kill(newest(&app, &id), 9);
        meanwhile(&app, OVERTAKEN).await;
        let (events, told) = (app.events(&id).await, app.journal(&id).await);
        assert!(!told.contains(&"lost".to_owned()) && !events.contains(&"WORKSPACE_OFFLINE".to_owned()), "{told:?}");
    }

    async fn whose_silence_was_overtaken_by_another_generation_is_not_doubted(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.app.clock.advance(Duration::from_secs(31));
        meanwhile(&app, OVERTAKEN).await;
        let (events, told) = (app.events(&id).await, app.journal(&id).await);
        assert!(!told.contains(&"silent".to_owned()) && !events.contains(&"WORKSPACE_OFFLINE".to_owned()), "{told:?}");
    }

    async fn a_plan_that_another_plan_overtook_is_decided_anew(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        // Somebody else planned one, gave it up, and waits.
        meanwhile(&app, "UPDATE workspaces SET newest_generation = 2, next_attempt_at = claimed_until + 60000000").await;
        app.settle().await;
        assert_eq!(app.fake.starts(), 1);
        app.later(90).await;
        assert_eq!(app.fake.starts(), 2);
    }

    async fn a_guess_during_a_look_is_not_forgotten(app: TestApp) {
        app.fake.report_address(Some("http://127.0.0.1:9".to_owned()));
        let id = app.create("a").await;
        app.settle().await;
        Agent::of(&app, &id).register_with(&app, json!({"ligand": null}), &[]).await.ok();
        app.settle().await;
        app.sql("UPDATE workspaces SET due_at = 1").await;
        app.fake.plan(Fault::Late(Duration::from_millis(600)));
        let turn = async {
            a_moment(200).await;
            let turn = json!({"method": "message/send", "params": {"message": {"parts": [{"kind": "text", "text": "hi"}]}}});
            app.post(&format!("/workspaces/{id}/a2a"), turn).await.refuses(502, "failed to reach workspace agent");
        };
        tokio::join!(app.pass(), turn);
        app.fake.lose(newest(&app, &id));
        app.later(61).await;
        assert_eq!(app.fake.starts(), 2, "long before its lease of 180 s");
    }

    async fn the_brake_ends_by_itself(app: TestApp) {
        let all = mass_silence(&app).await;
        patience_ends(&app, &all[8..]).await;
        for _ in 0..60 {
            app.app.clock.advance(Duration::from_secs(16));
            beat(&app, &all[8..]).await;
        }
        app.settle().await;
        assert_eq!((brake(&app).await["state"].clone(), app.fake.starts()), (json!("easing"), 18));
    }

    async fn what_is_reported_is_replaced_while_the_brake_holds(app: TestApp) {
        let all = mass_silence(&app).await;
        patience_ends(&app, &all[8..]).await;
        for (id, _) in &all[..3] {
            app.fake.kill(newest(&app, id), 9);
        }
        app.settle().await;
        assert_eq!((brake(&app).await["state"].clone(), app.fake.starts()), (json!("engaged"), 13));
        // A person's restart is none of the brake's business.
        app.post(&format!("/workspaces/{}/restart", all[5].0), json!({})).await.ok();
        app.settle().await;
        assert_eq!(app.fake.starts(), 14);
    }

    async fn reports_have_a_rate_while_the_brake_holds(app: TestApp) {
        let all = mass_silence(&app).await;
        patience_ends(&app, &all[8..]).await;
        app.sql("UPDATE liveness SET permits_used = 20, permits_window = brake_since").await;
        app.fake.kill(newest(&app, &all[0].0), 9);
        app.settle().await;
        assert_eq!(app.fake.starts(), 10, "twenty began in this minute");
        assert!(app.workspace(&all[0].0).await["next_attempt_at"].is_string());
        app.later(61).await;
        assert_eq!(app.fake.starts(), 11);
    }

    async fn few_silent_workspaces_do_not_engage_the_brake(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.later(31).await;
        look(&app).await;
        assert_eq!(brake(&app).await["state"], "free");
        app.later(61).await;
        assert_eq!(app.fake.starts(), 2, "{id}");
    }

    async fn co_04_an_undelivered_turn_soon_after_a_start_is_counted_and_not_forgotten(app: TestApp) {
        // Nobody listens there, and the address is the backend's own.
        app.fake.report_address(Some("http://127.0.0.1:9".to_owned()));
        let id = app.create("a").await;
        app.settle().await;
        let agent = Agent::of(&app, &id);
        agent.register_with(&app, json!({"ligand": null}), &[]).await.ok();
        app.settle().await;
        let turn = json!({"method": "message/send", "params": {"message": {"parts": [{"kind": "text", "text": "hi"}]}}});
        for _ in 0..3 {
            app.post(&format!("/workspaces/{id}/a2a"), turn.clone()).await.refuses(502, "failed to reach workspace agent");
        }
        let told = app.journal(&id).await;
        assert_eq!(told.iter().filter(|kind| *kind == "doubted").count(), 1, "{told:?}");
        app.fake.lose(newest(&app, &id));
        app.later(58).await;
        assert_eq!(app.fake.starts(), 1, "left to a later look");
        app.later(3).await;
        assert_eq!(app.fake.starts(), 2, "long before its lease of 180 s");
    }

    async fn a_report_soon_after_a_start_is_acted_on_at_once(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.fake.kill(newest(&app, &id), 9);
        app.settle().await;
        assert_eq!(app.fake.starts(), 2);
    }

    async fn pt_01_04_05_06_late_starts_fail_with_a_reason_and_one_event(app: TestApp) {
        let (first, second, third) = (app.create("a").await, app.create("b").await, app.create("c").await);
        app.settle().await;
        app.later(599).await;
        Agent::of(&app, &third).register(&app).await.ok();
        app.later(1).await;
        for id in [&first, &second] {
            let events = app.get(&format!("/events/{id}")).await.ok();
            let failed: Vec<&Value> = events.as_array().unwrap().iter().filter(|e| e["event_type"] == "WORKSPACE_PROVISION_FAILED").collect();
            assert_eq!(failed.len(), 1, "{events}");
            assert_eq!(failed[0]["payload"]["source"], "provision_timeout_sweep");
            assert_eq!(failed[0]["payload"]["error"], "the instance did not register within 600 s");
            // The next attempt has begun already.
            assert_eq!(app.workspace(id).await["last_error"], "the instance did not register within 600 s");
            assert_eq!(status(&app, id).await, "provisioning");
        }
        assert!(!app.events(&third).await.contains(&"WORKSPACE_PROVISION_FAILED".to_owned()), "registered in the meantime");
    }

    async fn an_external_workspace_that_never_registers_is_awaited(app: TestApp) {
        let id = unclaimed(&app).await;
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "online");
        assert!(workspace["evidence"].as_str().unwrap().contains("nothing was heard"), "{workspace}");
        app.later(89).await;
        assert_eq!(status(&app, &id).await, "online");
        app.later(2).await;
        assert_eq!(status(&app, &id).await, "awaiting_agent");
        assert_eq!(app.events(&id).await.last().unwrap(), "WORKSPACE_AWAITING_AGENT");
        Agent::with(&id, None).register(&app).await.ok();
        assert_eq!(status(&app, &id).await, "online");
    }

    /// HS-04, HS-05, LV-02.
    async fn hs_04_hs_05_lv_02_a_stale_external_workspace_is_awaited(app: TestApp) {
        let id = unclaimed(&app).await;
        let answer = Agent::with(&id, None).register_with(&app, json!({"ligand": null}), &[]).await.ok();
        let agent = Agent::with(&id, answer["auth_token"].as_str());
        agent.beat(&app).await.ok();
        app.later(89).await;
        assert_eq!(status(&app, &id).await, "online");
        app.later(2).await;
        assert_eq!(status(&app, &id).await, "awaiting_agent");
        agent.beat(&app).await.ok();
        assert_eq!(status(&app, &id).await, "online");
    }

    async fn what_ended_with_its_server_did_not_fail(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.sql("UPDATE instances SET dismissed_at = 1").await;
        app.fake.kill(newest(&app, &id), 15);
        let app = app.reborn();
        app.settle().await;
        assert_eq!(app.fake.starts(), 2);
        let told = app.journal(&id).await;
        assert!(!told.contains(&"lost".to_owned()) && told.contains(&"retired".to_owned()), "{told:?}");
        assert_eq!(app.workspace(&id).await["last_error"], json!(null));
    }

    async fn a_large_fleet_is_asked_to_beat_slower_and_nobody_lapses_for_it(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        assert_eq!(agent.beat(&app).await.ok()["next_heartbeat_seconds"], 10);
        app.sql("UPDATE liveness SET pace = 30, pace_before = 10, pace_since = 1").await;
        look(&app).await;
        // One workspace is no large fleet: the pace is back at once, and what was told still counts.
        app.app.pace.set(ligand_domain::lease::Pace { beat: Duration::from_secs(30), ..Default::default() });
        assert_eq!(agent.beat(&app).await.ok()["next_heartbeat_seconds"], 30);
        app.later(60).await;
        assert_eq!(status(&app, &id).await, "online", "three beats of what it was told");
    }

    async fn reconcilers_and_the_brake_are_reported(app: TestApp) {
        online(&app, "a").await;
        let told = app.get("/admin/liveness").await.ok();
        assert_eq!(told["brake"], json!({"state": "free", "running": 1, "silent": 0, "since": null, "next_attempt_at": null, "per_minute": null}));
    }
}

#[test]
fn pt_02_03_08_09_deadlines_are_the_runtimes_or_the_operators() {
    on_each("deadlines", |db| async {
        let app = TestApp::new(db, |config| {
            config.runtimes.insert("hermes".to_owned(), ligand_server::config::Recipe::default());
        });
        let created = app.post("/workspaces", json!({"name": "h", "runtime": "hermes"})).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        app.settle().await;
        app.later(660).await;
        assert_eq!(app.fake.starts(), 1);
        app.later(1139).await;
        assert_eq!(app.fake.starts(), 1, "hermes has 1800 s");
        app.later(1).await;
        assert_eq!(app.fake.starts(), 2);
        assert!(app.workspace(&id).await["last_error"].as_str().unwrap().contains("1800 s"));
    });
    on_each("override", |db| async {
        let app =
            TestApp::new(db, |config| config.provision_timeout = Some(Duration::from_secs(7)));
        app.create("a").await;
        app.settle().await;
        app.later(7).await;
        assert_eq!(app.fake.starts(), 2);
    });
}

#[cfg(feature = "mutants")]
#[test]
fn without_the_brake_a_mass_silence_is_a_storm() {
    use ligand_domain::guards::{Guard, Guards};
    on_each("no_brake", |db| async {
        let app = TestApp::new(db, |config| config.guards = Guards::without(Guard::Brake));
        let all = mass_silence(&app).await;
        patience_ends(&app, &all[8..]).await;
        assert_eq!(app.fake.starts(), 18);
    });
}
