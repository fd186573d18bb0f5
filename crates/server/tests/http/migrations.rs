//! A workspace goes from one backend to another, or stays where it is.

use ligand_domain::id::WorkspaceId;
use ligand_domain::migration::{Before, Stage};
use ligand_server::backend::Backend as _;
use ligand_server::backend::fake::{Call, Fault, Planned};
use ligand_server::liveness::orphans::Orphans;
use ligand_server::migrations::SnapshotSweep;
use ligand_server::reconcile::Reconciler as _;
use ligand_server::transfer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::agent::{Agent, online};
use crate::support::runtime::{accepted, deliver, send, stands};
use crate::support::standby::{Standby, broken, completed, notes, pass, placed};
use crate::support::{ADMIN, Answer, TestApp, both};

fn phases(migration: &Value) -> Vec<&str> {
    let all = migration["phases"].as_array().unwrap().iter();
    all.map(|phase| phase["phase"].as_str().unwrap()).collect()
}

/// Every phase that can be undone, and is entered by itself.
fn before() -> impl Iterator<Item = &'static str> {
    Before::ALL.into_iter().map(|phase| Stage::Before(phase).as_str())
}

async fn migrate(app: &TestApp, id: &str, body: Value) -> Answer {
    app.post(&format!("/admin/workspaces/{id}/migrate"), body).await
}

fn detail(answer: &Answer) -> &str {
    answer.body["detail"].as_str().unwrap_or_default()
}

async fn set(app: &TestApp, id: &str, key: &str, value: &str) {
    let body = json!({"key": key, "value": value});
    app.post(&format!("/workspaces/{id}/secrets"), body).await.ok();
}

both! {
    async fn it_goes_all_the_way_and_takes_everything_along(app: TestApp) {
        let app = app.with_other();
        let (mut it, seen) = placed(&app, "a", completed).await;
        let before = app.workspace(&it.id).await;
        let begun = it.ask(&app).await;
        assert_eq!((&begun["state"], &begun["phase"], &begun["reason"]), (&json!("running"), &json!("prepare"), &json!("a test")));
        it.until(&app, "probe").await;
        let meanwhile = app.workspace(&it.id).await;
        assert_eq!(meanwhile["migration"]["to"], "other");
        assert_eq!((&meanwhile["generation"], &meanwhile["backend"], &meanwhile["status"]), (&json!(1), &json!("fake"), &json!("online")));
        let done = it.done(&app).await;
        assert_eq!(phases(&done), ["prepare", "provision", "pre-copy", "hold", "quiesce", "restore", "activate", "probe",
            "cut-over", "release", "retire", "migrated"]);
        let workspace = app.workspace(&it.id).await;
        assert_eq!((&workspace["generation"], &workspace["backend"], &workspace["status"]), (&json!(2), &json!("other"), &json!("online")));
        assert_ne!(workspace["url"], before["url"], "its address is another one");
        assert_eq!((&done["url_before"], &done["url_after"]), (&before["url"], &workspace["url"]));
        assert_eq!(seen.lock().unwrap().len(), 1, "one turn was tried on it");
        assert!(seen.lock().unwrap()[0].starts_with("ligand-probe-"));
        // Its data is there, and nothing is left behind.
        assert_eq!(notes(app.other(), &it.id).await.as_deref(), Some("what it knows"));
        assert_eq!(notes(&app.fake, &it.id).await, None);
        assert!(app.fake.instances().is_empty() && done["digest"].is_string());
        // The source is over; the target is the workspace.
        assert!(it.source.told_to_exit);
        it.target.as_ref().unwrap().agent.beat(&app).await.ok();
        let kinds = app.journal(&it.id).await;
        assert!(kinds.iter().filter(|kind| *kind == "migration").count() >= 11, "{kinds:?}");
        let events = app.events(&it.id).await;
        assert!(events.contains(&"MIGRATION_DONE".to_owned()), "{events:?}");
        // From now on it is restarted where it is.
        app.ask(&format!("/workspaces/{}/restart", it.id)).await.ok();
        app.settle().await;
        let newest = app.other().newest(it.id.parse().unwrap()).unwrap();
        assert_eq!((newest.key.generation.number(), app.fake.instances().len()), (3, 0));
    }

    async fn no_secret_is_in_the_start_of_a_candidate_and_no_passport_in_the_answers(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        set(&app, &it.id, "API_KEY", "one").await;
        app.settle().await;
        it.source.agent = Agent::of(&app, &it.id);
        let features = json!({"ligand": {"version": "1", "features": ["paced", "standby"]}});
        it.source.agent.register_with(&app, features, &[]).await.ok();
        app.settle().await;
        it.ask(&app).await;
        it.until(&app, "pre-copy").await;
        let instance = app.other().newest(it.id.parse().unwrap()).unwrap();
        assert!(!instance.env.contains_key("API_KEY") && instance.credential.is_empty(), "{:?}", instance.env);
        let passport = instance.env["LIGAND_PASSPORT"].clone();
        let done = it.done(&app).await.to_string();
        let why = app.get(&format!("/workspaces/{}/why", it.id)).await.text;
        assert!(!done.contains(&passport) && !why.contains(&passport));
        assert_eq!(it.target.as_ref().unwrap().values["API_KEY"], "one");
    }

    async fn what_cannot_be_moved_is_refused_with_the_reason(app: TestApp) {
        let app = app.with_other();
        let (id, _) = online(&app, "a").await;
        for (body, field) in [
            (json!({}), "to"),
            (json!({"to": "moon"}), "to: expected the name of a backend: fake, other"),
            (json!({"to": "other", "grace_seconds": 999_999_999}), "grace_seconds"),
            (json!({"to": "other", "reason": "x".repeat(501)}), "reason"),
        ] {
            let answer = migrate(&app, &id, body.clone()).await;
            assert_eq!(answer.status, 400, "{body}: {answer:?}");
            assert!(detail(&answer).contains(field), "{body}: {answer:?}");
        }
        let none = "4b6cb9c2-6a1e-4f0b-9d65-3ed0a9f5a1d1";
        migrate(&app, none, json!({"to": "other"})).await.refuses(404, "workspace not found");
        assert_eq!(migrate(&app, "nobody", json!({"to": "other"})).await.status, 400);
        let outside = crate::support::agent::unclaimed(&app).await;
        for (id, to, why) in [(&id, "fake", "on the backend fake already"), (&outside, "other", "no backend runs it")] {
            let answer = migrate(&app, id, json!({"to": to})).await;
            answer.refuses(409, "workspace cannot be migrated");
            assert!(detail(&answer).contains(why), "{answer:?}");
        }
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        let answer = migrate(&app, &id, json!({"to": "other"})).await;
        assert!(detail(&answer).contains("paused"), "{answer:?}");
        for verb in ["pause", "resume", "abort"] {
            let answer = app.post(&format!("/admin/workspaces/{id}/migrations/{verb}"), json!({})).await;
            answer.refuses(409, "no migration is under way");
        }
    }

    async fn one_workspace_has_one_migration_at_a_time(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        let path = format!("/admin/workspaces/{}/migrate", it.id);
        let second = app.post(&path, json!({"to": "other"})).await;
        second.refuses(409, "workspace cannot be migrated");
        let open = app.get("/admin/migrations?open=true").await.ok();
        assert_eq!(open["migrations"].as_array().unwrap().len(), 1);
        it.done(&app).await;
        let open = app.get("/admin/migrations?open=true").await.ok();
        assert_eq!(open["migrations"], json!([]));
        assert_eq!(app.get("/admin/migrations?open=perhaps").await.status, 400);
        assert_eq!(app.get("/admin/migrations").await.ok()["migrations"].as_array().unwrap().len(), 1);
    }

    async fn aborted_in_any_phase_it_stays_where_it_is(app: TestApp) {
        let app = app.with_other();
        for (number, phase) in before().enumerate() {
            let (mut it, _) = placed(&app, &format!("a{number}"), completed).await;
            it.ask(&app).await;
            it.until(&app, phase).await;
            assert_eq!(it.can(&app, "abort").await.status, 200, "{phase}");
            let over = it.rolled_back(&app).await;
            assert_eq!(over["cause"], "it was aborted", "{phase}");
            assert_eq!(over["phase"], phase);
            for _ in 0..3 {
                it.tick(&app).await;
            }
            it.stayed(&app).await;
            assert_ne!(it.source.program, Some("standing-by"), "{phase}: its program runs again");
            assert_eq!(app.workspace(&it.id).await["generation"], 1, "{phase}");
            if let Some(target) = &mut it.target {
                target.step(&app).await;
                assert!(target.told_to_exit || target.agent.token.is_none(), "{phase}");
            }
            // It can be asked for again: the next generation is another one.
            it.target = None;
            app.delete(&format!("/workspaces/{}", it.id)).await.ok();
        }
    }

    async fn a_roll_back_ends_what_its_target_never_used_though_that_runs_on(app: TestApp) {
        let app = app.with_other();
        for redeemed in [false, true] {
            let (mut it, _) = placed(&app, &format!("a{redeemed}"), completed).await;
            it.started(&app, 2).await;
            let target = it.target.as_mut().unwrap();
            if redeemed {
                target.step(&app).await;
                assert!(target.agent.token.is_some(), "a credential that was never used");
            }
            it.can(&app, "abort").await.ok();
            pass(&app).await;
            assert_eq!(it.latest(&app).await["state"], "undoing");
            assert_eq!(app.other().instances().len(), 1, "it cannot be ended yet");
            let target = it.target.as_mut().unwrap();
            let held = target.agent.token.take();
            target.step(&app).await;
            assert!(target.told_to_exit && target.agent.token.is_none(), "its passport: {redeemed}");
            if let Some(held) = held {
                let agent = Agent::with(&it.id, Some(&held));
                for answer in [agent.beat(&app).await, agent.register(&app).await] {
                    answer.refuses(401, "invalid workspace auth token");
                    assert_eq!(answer.body["action"], "exit");
                }
            }
            assert_eq!(app.workspace(&it.id).await["generation"], 1);
            it.rolled_back(&app).await;
            it.stayed(&app).await;
        }
    }

    async fn after_the_cut_over_there_is_no_way_back(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "retire").await;
        it.can(&app, "abort").await.refuses(409, "migration cannot be aborted");
        // The source is kept for its grace, and no sweep takes it.
        assert_eq!(app.fake.instances().len(), 1);
        Orphans::default().pass(&app.app).await.unwrap();
        assert_eq!(app.fake.instances().len(), 1, "it is named by its migration");
        it.done(&app).await;
        assert!(app.fake.instances().is_empty());
    }

    async fn a_pause_holds_it_while_the_source_serves(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "pre-copy").await;
        assert_eq!(it.can(&app, "pause").await.ok()["state"], "paused");
        for _ in 0..20 {
            pass(&app).await;
            it.tick(&app).await;
        }
        app.app.clock.advance(std::time::Duration::from_secs(6 * 3600));
        let _ = it.source.agent.beat(&app).await;
        pass(&app).await;
        let latest = it.latest(&app).await;
        assert_eq!((&latest["state"], &latest["phase"]), (&json!("paused"), &json!("pre-copy")), "{latest}");
        it.can(&app, "pause").await.ok();
        assert_eq!(it.can(&app, "resume").await.ok()["state"], "running");
        it.can(&app, "resume").await.refuses(409, "migration cannot be resumed");
        it.until(&app, "hold").await;
        it.can(&app, "pause").await.refuses(409, "migration cannot be paused");
        it.done(&app).await;
    }

    async fn a_target_that_completes_no_turn_never_becomes_the_workspace(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", broken).await;
        it.ask(&app).await;
        let over = it.rolled_back(&app).await;
        assert_eq!(over["cause"], "the target did not complete a turn: its task is failed, not completed");
        it.tick(&app).await;
        it.stayed(&app).await;
        assert!(app.events(&it.id).await.contains(&"MIGRATION_ROLLED_BACK".to_owned()));
    }

    async fn a_secret_that_does_not_arrive_is_named_in_the_reason(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        set(&app, &it.id, "API_KEY", "one").await;
        app.settle().await;
        it.source.agent = Agent::of(&app, &it.id);
        let features = json!({"ligand": {"version": "1", "features": ["paced", "standby"]}});
        it.source.agent.register_with(&app, features, &[]).await.ok();
        app.settle().await;
        it.withheld = Some("API_KEY");
        it.ask(&app).await;
        it.until(&app, "activate").await;
        for _ in 0..5 {
            it.tick(&app).await;
            pass(&app).await;
        }
        assert!(it.latest(&app).await["waits_for"].as_str().unwrap().contains("API_KEY"));
        app.app.clock.advance(std::time::Duration::from_secs(400));
        let over = it.rolled_back(&app).await;
        let cause = over["cause"].as_str().unwrap();
        assert!(cause.contains("activate took too long") && cause.contains("API_KEY"), "{cause}");
        assert!(!cause.contains("one,"), "no value is in it");
        it.tick(&app).await;
        it.stayed(&app).await;
    }

    async fn a_secret_written_while_the_target_starts_is_loaded_before_the_cut_over(app: TestApp) {
        let app = app.with_other();
        let (mut it, seen) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "cut-over").await;
        set(&app, &it.id, "LATE", "yes").await;
        let workspace = app.workspace(&it.id).await;
        assert_eq!((&workspace["status"], workspace["url"].as_str().unwrap().is_empty()), (&json!("online"), false));
        let done = it.done(&app).await;
        assert_eq!(it.target.as_ref().unwrap().values["LATE"], "yes");
        assert_eq!(phases(&done).iter().filter(|phase| **phase == "activate").count(), 2, "{:?}", phases(&done));
        assert_eq!(seen.lock().unwrap().len(), 2, "it was tried again, with the new one");
        app.settle().await;
        assert_eq!(app.other().starts(), 1, "the load of the target satisfied the restart");
    }

    async fn a_restart_that_falls_due_waits_and_runs_after_a_roll_back(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "pre-copy").await;
        app.ask(&format!("/workspaces/{}/restart", it.id)).await.ok();
        app.settle().await;
        assert_eq!((app.fake.starts(), &app.workspace(&it.id).await["status"]), (1, &json!("online")));
        it.can(&app, "abort").await.ok();
        it.rolled_back(&app).await;
        app.settle().await;
        let newest = app.fake.newest(it.id.parse().unwrap()).unwrap();
        assert_eq!((app.fake.starts(), newest.key.generation.number()), (2, 3), "the abandoned one is passed over");
        Agent::of(&app, &it.id).register(&app).await.ok();
        assert_eq!(app.workspace(&it.id).await["status"], "online");
    }

    async fn a_revocation_rolls_it_back(app: TestApp) {
        let app = app.with_other();
        for (number, phase) in ["provision", "quiesce", "probe"].into_iter().enumerate() {
            let (mut it, _) = placed(&app, &format!("a{number}"), completed).await;
            it.ask(&app).await;
            it.until(&app, phase).await;
            app.ask(&format!("/admin/workspaces/{}/revoke-auth-tokens", it.id)).await.ok();
            let registered = it.source.agent.register(&app).await.ok();
            assert_eq!(registered["generation"], 1, "{phase}: the source takes it up again");
            it.source.agent.token = registered["auth_token"].as_str().map(str::to_owned);
            let over = it.rolled_back(&app).await;
            assert!(over["cause"].as_str().unwrap().contains("revoked"), "{phase}: {over}");
            it.tick(&app).await;
            it.stayed(&app).await;
            app.delete(&format!("/workspaces/{}", it.id)).await.ok();
        }
    }

    async fn a_delete_or_a_pause_ends_it_and_nothing_is_left(app: TestApp) {
        let app = app.with_other();
        for (number, phase) in before().chain(["retire"]).enumerate() {
            let (mut it, _) = placed(&app, &format!("a{number}"), completed).await;
            it.ask(&app).await;
            it.until(&app, phase).await;
            let path = format!("/workspaces/{}?purge=true", it.id);
            let deleting = app.call("DELETE", &path, Some(ADMIN), None);
            let answered = std::cell::Cell::new(false);
            let deleting = async {
                let answer = deleting.await;
                answered.set(true);
                answer
            };
            let working = async {
                while !answered.get() {
                    pass(&app).await;
                    app.settle().await;
                    tokio::task::yield_now().await;
                }
            };
            let (answer, ()) = tokio::join!(deleting, working);
            assert_eq!(answer.status, 200, "{phase}: {answer:?}");
            assert!(app.fake.instances().is_empty() && app.other().instances().is_empty(), "{phase}");
            let id: WorkspaceId = it.id.parse().unwrap();
            assert!(!app.other().list_data().await.unwrap().contains(&id), "{phase}");
            assert!(!app.fake.list_data().await.unwrap().contains(&id), "{phase}");
        }
        let (mut it, _) = placed(&app, "paused", completed).await;
        it.ask(&app).await;
        it.until(&app, "restore").await;
        app.ask(&format!("/workspaces/{}/pause", it.id)).await.ok();
        for _ in 0..40 {
            pass(&app).await;
            app.later(1).await;
        }
        let over = it.latest(&app).await;
        assert_eq!((&over["state"], &over["cause"]), (&json!("rolled-back"), &json!("the workspace is to be paused")));
        let workspace = app.workspace(&it.id).await;
        assert_eq!((&workspace["status"], &workspace["backend"]), (&json!("paused"), &json!("fake")));
        assert!(app.fake.instances().is_empty() && app.other().instances().is_empty());
        assert_eq!(notes(&app.fake, &it.id).await.as_deref(), Some("what it knows"));
    }

    async fn a_server_that_dies_at_any_phase_leaves_one_that_goes_on(app: TestApp) {
        let mut app = app.with_other();
        for (number, phase) in before().chain(["release", "retire"]).enumerate() {
            let (mut it, _) = placed(&app, &format!("a{number}"), completed).await;
            it.ask(&app).await;
            it.until(&app, phase).await;
            // Somebody had it, and is gone, with everything that was in memory.
            app.sql("UPDATE migrations SET claimed_until = 9000000000000000, due_at = 9000000000000000 WHERE ended_at IS NULL").await;
            app = app.reborn();
            app.sql("UPDATE migrations SET claimed_until = 0, due_at = 0 WHERE ended_at IS NULL").await;
            it.done(&app).await;
            let instances = app.other().instances();
            assert_eq!(instances.len(), 1, "{phase}");
            assert!(app.fake.instances().is_empty(), "{phase}");
            app.delete(&format!("/workspaces/{}", it.id)).await.ok();
        }
    }

    async fn a_passport_that_was_lost_with_its_server_is_minted_again_beside(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        app.other().plan(Planned { what: Fault::Silence, at: vec![Call::Ensure], after: 0, times: 1 });
        it.ask(&app).await;
        pass(&app).await;
        let app = app.reborn();
        let latest = it.latest(&app).await;
        assert!(latest["last_error"].is_null() || latest["next_attempt_at"].is_string(), "{latest}");
        it.done(&app).await;
        assert!(app.journal(&it.id).await.contains(&"resumed".to_owned()));
    }

    async fn a_target_that_is_refused_or_dies_rolls_it_back(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        app.other().plan(Planned { what: Fault::Refuse("no room".to_owned()), at: vec![Call::Ensure], after: 0, times: 1 });
        it.ask(&app).await;
        let over = it.rolled_back(&app).await;
        assert_eq!(over["cause"], "the target was refused: no room");
        it.stayed(&app).await;
        app.app.clock.advance(std::time::Duration::from_secs(1));
        it.ask(&app).await;
        it.until(&app, "restore").await;
        let target = app.other().newest(it.id.parse().unwrap()).unwrap();
        app.other().kill(target.key, 9);
        let over = it.rolled_back(&app).await;
        assert!(over["cause"].as_str().unwrap().contains("signal 9"), "{over}");
        it.tick(&app).await;
        it.stayed(&app).await;
    }

    async fn a_source_that_dies_is_replaced_where_it_was(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "hold").await;
        let source = app.fake.newest(it.id.parse().unwrap()).unwrap();
        app.fake.kill(source.key, 9);
        let over = it.rolled_back(&app).await;
        assert!(over["cause"].as_str().unwrap().contains("the source ended"), "{over}");
        app.settle().await;
        assert_eq!((app.fake.starts(), app.other().instances().len()), (2, 0));
        Agent::of(&app, &it.id).register(&app).await.ok();
        assert_eq!(app.workspace(&it.id).await["status"], "online");
    }

    async fn an_agent_that_cannot_stand_by_is_stopped_instead(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        let plain = json!({"ligand": {"version": "1", "features": ["paced"]}});
        it.source.agent.register_with(&app, plain, &[]).await.ok();
        it.ask(&app).await;
        it.until(&app, "restore").await;
        let source = app.fake.newest(it.id.parse().unwrap()).unwrap();
        assert!(source.exit.is_some(), "it was stopped");
        it.done(&app).await;
        assert_eq!(app.workspace(&it.id).await["backend"], "other");
    }

    async fn a_target_that_never_comes_is_given_up_in_time(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.mute = true;
        it.ask(&app).await;
        it.until(&app, "provision").await;
        pass(&app).await;
        let waits = it.latest(&app).await;
        assert_eq!(waits["waits_for"], "the target to register");
        app.app.clock.advance(std::time::Duration::from_secs(601));
        it.source.agent.beat(&app).await.ok();
        let over = it.rolled_back(&app).await;
        assert_eq!(over["cause"], "provision took too long: the target to register");
    }

    async fn messages_wait_for_the_cut_over_and_go_to_the_target(app: TestApp) {
        let app = app.with_other();
        let (mut it, seen) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "quiesce").await;
        let message = accepted(&app, &it.id, &crate::support::runtime::named("m1", "later")).await;
        deliver(&app).await;
        assert_eq!(it.latest(&app).await["held_messages"], 1);
        let done = it.done(&app).await;
        deliver(&app).await;
        stands(&app, &message, "processed").await;
        assert!(seen.lock().unwrap().contains(&"m1".to_owned()), "the target was given it");
        assert!(done["without_service_ms"].as_u64().unwrap() > 0);
        assert_eq!(send(&app, &it.id, ADMIN).await.status, 200);
    }

    async fn a_stranger_learns_nothing_of_a_migration(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "pre-copy").await;
        let open = app.call("GET", &format!("/workspaces/{}", it.id), None, None).await.ok();
        assert!(open["migration"].is_null());
        let own = it.source.agent.token.clone();
        let path = format!("/admin/workspaces/{}/migrations", it.id);
        assert_eq!(app.call("GET", &path, own.as_deref(), None).await.status, 401);
        let thief = Standby::candidate(app.other(), &it.id, "http://localhost:1");
        assert!(thief.is_some(), "only its passport makes a candidate");
        Agent::with(&it.id, Some("guessed")).register(&app).await.refuses(401, "invalid workspace auth token");
    }
}

both! {
    async fn a_snapshot_that_nobody_forgot_is_removed_and_nobody_elses(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        let done = it.done(&app).await;
        let over: Uuid = done["id"].as_str().unwrap().parse().unwrap();
        let elsewhere = Uuid::from_u128(7);
        // A copy that went on while another server ended it; one of another installation, in the same bucket.
        for id in [over, elsewhere] {
            let (fake, workspace) = (app.other(), it.id.parse().unwrap());
            transfer::copy(&app.app, id, fake, workspace, &|_, _| {}).await.unwrap();
        }
        let kept = async || {
            let kept = transfer::list(&app.app).await.unwrap();
            kept.into_iter().map(|it| it.id).collect::<Vec<_>>()
        };
        let swept = async || SnapshotSweep.pass(&app.app).await.unwrap();
        assert_eq!((swept().await.steps, kept().await.len()), (0, 2), "it may still be written to");
        app.app.clock.advance(std::time::Duration::from_secs(601));
        assert_eq!((swept().await.steps, kept().await), (1, vec![elsewhere]));
        assert_eq!(swept().await.steps, 0);
    }
}
