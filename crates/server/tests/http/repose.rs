//! Pause, resume, hibernation, waking and recovery.

use std::time::Duration;

use ligand_server::backend::fake::Fault;
use ligand_server::reconcile::Reconciler as _;
use ligand_server::workspaces::HibernationMonitor;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::modes::adjusted;
use crate::support::{ADMIN, TestApp, a_moment, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

fn runs(app: &TestApp) -> usize {
    app.fake.instances().len()
}

/// Three generations of workspaces: a parent, its child, and that one's child. All of them online.
async fn line(app: &TestApp) -> [String; 3] {
    let (top, _) = online(app, "top").await;
    let mut ids = vec![top];
    for name in ["middle", "bottom"] {
        let body = json!({"name": name, "parent_id": ids.last().unwrap()});
        let id = app.post("/workspaces", body).await.ok()["id"].as_str().unwrap().to_owned();
        app.settle().await;
        Agent::of(app, &id).register(app).await.ok();
        app.settle().await;
        ids.push(id);
    }
    ids.try_into().unwrap()
}

async fn status(app: &TestApp, id: &str) -> String {
    app.workspace(id).await["status"].as_str().unwrap().to_owned()
}

/// One look of the monitor: how many it looked at, and how many it took to sleep.
async fn look(app: &TestApp) -> (u64, u64) {
    let pass = HibernationMonitor.pass(&app.app).await.unwrap();
    app.settle().await;
    (pass.looked_at, pass.steps)
}

async fn set_idle(app: &TestApp, id: &str, minutes: Value) {
    let body = json!({"hibernation_idle_minutes": minutes});
    app.call("PATCH", &format!("/workspaces/{id}"), Some(ADMIN), Some(body)).await.ok();
}

both! {
    async fn pa_01_what_is_not_there_or_paused_already_is_404(app: TestApp) {
        let refusal = "workspace not found or already paused";
        app.ask(&format!("/workspaces/{UNKNOWN}/pause")).await.refuses(404, refusal);
        let (id, _) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        app.ask(&format!("/workspaces/{id}/pause")).await.refuses(404, refusal);
        app.delete(&format!("/workspaces/{id}")).await.ok();
        app.ask(&format!("/workspaces/{id}/pause")).await.refuses(404, refusal);
    }

    async fn pa_02_re_02_hh_05_a_failing_database_is_500(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.app.db.close().await;
        for verb in ["pause", "resume", "hibernate", "wake", "recover"] {
            let answer = app.call("POST", &format!("/workspaces/{id}/{verb}"), Some(ADMIN), None).await;
            answer.is(500, &json!({"error": "lookup failed"}));
        }
    }

    async fn pa_03_a_pause_stops_one_and_says_so_once(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let answer = app.ask(&format!("/workspaces/{id}/pause")).await;
        answer.is(200, &json!({"status": "paused", "paused_count": 1}));
        assert_eq!(runs(&app), 0);
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["intent"], &workspace["url"]), (&json!("paused"), &json!("paused"), &json!("")));
        let events = app.events(&id).await;
        assert_eq!(events.iter().filter(|name| *name == "WORKSPACE_PAUSED").count(), 1, "{events:?}");
        // Written before it was done, and again after.
        let told = app.journal(&id).await;
        assert!(told.ends_with(&["pause-requested", "stopping", "retired", "settled"].map(String::from)), "{told:?}");
        // Whoever calls all the same is let in, and changes nothing.
        agent.beat(&app).await.ok();
        agent.register(&app).await.ok();
        app.later(3600).await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["url"], runs(&app)), (&json!("paused"), &json!(""), 0));
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        assert_eq!(why["next"], "nothing until it is resumed");
    }

    async fn a_pause_takes_descendants_along_only_when_that_was_said(app: TestApp) {
        let ids = line(&app).await;
        let path = format!("/workspaces/{}/pause", ids[0]);
        let asked = app.ask(&path).await;
        assert_eq!(asked.status, 409);
        let below = json!([{"id": ids[1], "name": "middle"}, {"id": ids[2], "name": "bottom"}]);
        assert_eq!((&asked.body["descendants"], runs(&app)), (&below, 3), "{asked:?}");
        // What is paused already is not concerned.
        app.ask(&format!("/workspaces/{}/pause", ids[2])).await.ok();
        let done = app.ask(&format!("{path}?cascade=true")).await;
        done.is(200, &json!({"status": "paused", "paused_count": 2}));
        assert_eq!(runs(&app), 0);
        // Nothing is started below a paused one.
        let below = format!("parent workspace \"{}\" is paused — resume it first", "middle");
        for verb in ["resume", "restart"] {
            app.ask(&format!("/workspaces/{}/{verb}", ids[2])).await.refuses(409, &below);
        }
        let path = format!("/workspaces/{}/resume", ids[0]);
        let asked = app.ask(&path).await;
        assert_eq!((asked.status.as_u16(), asked.body["descendants"].as_array().unwrap().len()), (409, 2));
        app.ask(&format!("{path}?cascade=true")).await.is(200, &json!({"status": "provisioning", "resumed_count": 3}));
        app.settle().await;
        assert_eq!(runs(&app), 3);
    }

    async fn re_01_what_is_not_paused_is_404(app: TestApp) {
        let refusal = "workspace not found or not paused";
        app.ask(&format!("/workspaces/{UNKNOWN}/resume")).await.refuses(404, refusal);
        let (id, _) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/resume")).await.refuses(404, refusal);
    }

    async fn a_resume_starts_the_next_generation(app: TestApp) {
        let (id, old) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        let answer = app.ask(&format!("/workspaces/{id}/resume")).await;
        answer.is(200, &json!({"status": "provisioning", "resumed_count": 1}));
        assert_eq!(status(&app, &id).await, "provisioning");
        app.settle().await;
        let agent = Agent::of(&app, &id);
        agent.register(&app).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(2)));
        assert_eq!(old.beat(&app).await.body["action"], "exit");
        assert_eq!((runs(&app), app.fake.starts()), (1, 2));
        assert_eq!(app.events(&id).await[2..], ["WORKSPACE_PAUSED", "WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"]);
    }

    async fn a_pause_that_takes_its_backend_long_is_answered_as_going_on(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        // Nobody reconciles.
        let answer = app.call("POST", &format!("/workspaces/{id}/pause"), Some(ADMIN), None).await;
        answer.is(202, &json!({"status": "pausing", "paused_count": 1}));
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["intent"], &workspace["url"]), (&json!("paused"), &json!("")));
        assert_ne!(workspace["status"], "paused", "it is not yet");
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        assert_eq!(why["next"], "it is paused as soon as its instance has ended");
        app.settle().await;
        assert_eq!((status(&app, &id).await.as_str(), runs(&app)), ("paused", 0));
        // A start that is under way is no obstacle.
        let id = app.create("b").await;
        app.settle().await;
        let late = Agent::of(&app, &id);
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        assert_eq!((status(&app, &id).await.as_str(), runs(&app)), ("paused", 0));
        assert_eq!(late.register(&app).await.status, 401, "its credential ended with its start");
        app.ask(&format!("/workspaces/{id}/resume")).await.ok();
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        assert_eq!(status(&app, &id).await, "online");
    }

    async fn an_external_workspace_is_paused_by_not_listening_to_it(app: TestApp) {
        let body = json!({"name": "outside", "external": true});
        let created = app.post("/workspaces", body).await.ok();
        let id = created["id"].as_str().unwrap();
        let agent = Agent::with(id, created["connection"]["auth_token"].as_str());
        agent.register_with(&app, json!({"delivery_mode": "push"}), &[]).await.ok();
        app.ask(&format!("/workspaces/{id}/hibernate")).await.refuses(404,
            "workspace not found or not in a hibernatable state (must be online or degraded)");
        app.ask(&format!("/workspaces/{id}/pause")).await.is(200, &json!({"status": "paused", "paused_count": 1}));
        agent.beat(&app).await.ok();
        app.settle().await;
        assert_eq!(status(&app, id).await, "paused");
        app.ask(&format!("/workspaces/{id}/resume")).await.is(200, &json!({"status": "awaiting_agent", "resumed_count": 1}));
        agent.beat(&app).await.ok();
        let workspace = app.workspace(id).await;
        assert_eq!((&workspace["status"], &workspace["url"], &workspace["generation"]), (&json!("online"), &json!("http://localhost:8000"), &json!(1)));
    }

    async fn hh_01_hi_03_a_hibernation_stops_once_and_says_so(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/hibernate")).await.is(200, &json!({"status": "hibernated"}));
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["url"], runs(&app)), (&json!("hibernated"), &json!(""), 0));
        assert_eq!(app.events(&id).await.last().unwrap(), "WORKSPACE_HIBERNATED");
        assert_eq!(app.journal(&id).await.iter().filter(|kind| *kind == "retired").count(), 1);
        agent.beat(&app).await.ok();
        app.later(3600).await;
        assert_eq!((status(&app, &id).await.as_str(), runs(&app)), ("hibernated", 0));
    }

    async fn hh_02_hi_02_only_what_serves_can_be_hibernated(app: TestApp) {
        let refusal = "workspace not found or not in a hibernatable state (must be online or degraded)";
        app.ask(&format!("/workspaces/{UNKNOWN}/hibernate")).await.refuses(404, refusal);
        let id = app.create("a").await;
        app.ask(&format!("/workspaces/{id}/hibernate")).await.refuses(404, refusal);
        let (id, _) = online(&app, "b").await;
        app.call("POST", &format!("/workspaces/{id}/hibernate"), Some(ADMIN), None).await.is(202, &json!({"status": "hibernating"}));
        assert_eq!(status(&app, &id).await, "hibernating");
        app.ask(&format!("/workspaces/{id}/hibernate")).await.refuses(404, refusal);
        app.settle().await;
        assert_eq!(app.journal(&id).await.iter().filter(|kind| *kind == "stopping").count(), 1);
    }

    async fn hh_03_hh_04_hi_01_turns_in_progress_keep_it_awake_unless_forced(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        agent.beat_with(&app, json!({"active_tasks": 2})).await.ok();
        let path = format!("/workspaces/{id}/hibernate");
        app.ask(&path).await.is(409, &json!({"active_tasks": 2,
            "error": "workspace has active tasks; use ?force=true to terminate them"}));
        assert_eq!((status(&app, &id).await.as_str(), runs(&app)), ("online", 1));
        app.ask(&format!("{path}?force=true")).await.is(200, &json!({"status": "hibernated"}));
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["active_tasks"], runs(&app)), (&json!(0), 0));
    }

    async fn hi_04_of_two_at_once_one_stops(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/hibernate");
        let call = || app.call("POST", &path, Some(ADMIN), None);
        let (one, two) = app.meanwhile(async { tokio::join!(call(), call()) }).await;
        let (won, lost) = if one.status.is_success() { (one, two) } else { (two, one) };
        // Where the machine is busy the backend may be at it yet.
        assert!(won.status == 200 || won.status == 202, "{won:?}");
        assert!([404, 409].contains(&lost.status.as_u16()), "{lost:?}");
        if lost.status == 409 {
            assert_eq!(lost.body["workspace_id"], id.as_str());
        }
        let told = app.journal(&id).await;
        assert_eq!(told.iter().filter(|kind| *kind == "hibernate-requested").count(), 1, "{told:?}");
        assert_eq!(told.iter().filter(|kind| *kind == "retired").count(), 1, "{told:?}");
    }

    async fn hi_05_hi_06_a_failing_database_stops_nothing_and_what_was_begun_is_ended_later(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        // The backend does not say, for a while, that it ended.
        app.call("POST", &format!("/workspaces/{id}/hibernate"), Some(ADMIN), None).await.is(202, &json!({"status": "hibernating"}));
        app.fake.plan(Fault::Silence);
        app.settle().await;
        assert_eq!((status(&app, &id).await.as_str(), runs(&app)), ("hibernated", 0));
        let (id, _) = online(&app, "b").await;
        app.app.db.close().await;
        let answer = app.call("POST", &format!("/workspaces/{id}/hibernate"), Some(ADMIN), None).await;
        answer.is(500, &json!({"error": "lookup failed"}));
        assert_eq!(runs(&app), 1, "nothing was stopped");
    }

    async fn a_message_wakes_what_hibernates_and_one_of_many_begins(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.ask(&format!("/workspaces/{id}/hibernate")).await.ok();
        let body = json!({"method": "message/send", "params": {"message": {"role": "user", "parts": []}}});
        let path = format!("/workspaces/{id}/a2a");
        let send = || app.call("POST", &path, Some(ADMIN), Some(body.clone()));
        let (one, two) = tokio::join!(send(), send());
        for answer in [&one, &two] {
            assert_eq!(answer.status, 503);
        }
        let first = if one.body["waking"] == json!(true) { one } else { two };
        assert_eq!((&first.body["waking"], &first.body["retry_after"]), (&json!(true), &json!(15)), "{first:?}");
        assert_eq!(first.headers["retry-after"], "15");
        let told = app.journal(&id).await;
        assert_eq!(told.iter().filter(|kind| *kind == "wake-requested").count(), 1, "{told:?}");
        app.settle().await;
        assert_eq!((app.fake.starts(), status(&app, &id).await.as_str()), (2, "provisioning"));
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        assert_eq!(status(&app, &id).await, "online");
    }

    async fn what_is_about_to_sleep_wakes_as_well(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.call("POST", &format!("/workspaces/{id}/hibernate"), Some(ADMIN), None).await.is(202, &json!({"status": "hibernating"}));
        app.ask(&format!("/workspaces/{id}/wake")).await.is(200, &json!({"status": "provisioning"}));
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"], runs(&app)), (&json!("online"), &json!(2), 1));
        app.ask(&format!("/workspaces/{id}/wake")).await.refuses(404, "workspace not found or not hibernated");
        app.ask(&format!("/workspaces/{UNKNOWN}/wake")).await.refuses(404, "workspace not found or not hibernated");
    }

    async fn nothing_wakes_below_a_paused_one(app: TestApp) {
        let [top, middle, _] = line(&app).await;
        app.ask(&format!("/workspaces/{middle}/hibernate")).await.ok();
        app.sql("UPDATE workspaces SET intent = 'paused', due_at = 0 WHERE name = 'top'").await;
        app.settle().await;
        assert_eq!(status(&app, &top).await, "paused");
        app.ask(&format!("/workspaces/{middle}/wake")).await.refuses(409, "parent workspace \"top\" is paused — resume it first");
        let body = json!({"method": "message/send", "params": {}});
        let answer = app.call("POST", &format!("/workspaces/{middle}/a2a"), Some(ADMIN), Some(body)).await;
        assert_eq!((answer.status.as_u16(), answer.body.get("waking"), &answer.body["status"]), (503, None, &json!("hibernated")));
        assert_eq!(status(&app, &middle).await, "hibernated");
    }

    async fn hm_01_hm_04_idle_ones_are_hibernated_each_once(app: TestApp) {
        let (a, agent_a) = online(&app, "a").await;
        let (b, agent_b) = online(&app, "b").await;
        let (awake, agent) = online(&app, "awake").await;
        set_idle(&app, &a, json!(5)).await;
        set_idle(&app, &b, json!(10)).await;
        assert_eq!(app.workspace(&a).await["hibernation_idle_minutes"], 5);
        assert_eq!(look(&app).await, (2, 0));
        for _ in 0..13 {
            app.app.clock.advance(Duration::from_secs(25));
            for agent in [&agent_a, &agent_b, &agent] {
                agent.beat(&app).await.ok();
            }
        }
        // It beats, and is idle all the same: nobody called it.
        assert_eq!(look(&app).await, (2, 1));
        assert_eq!((status(&app, &a).await.as_str(), status(&app, &b).await.as_str()), ("hibernated", "online"));
        assert_eq!(look(&app).await, (1, 0));
        assert_eq!(status(&app, &awake).await, "online");
    }

    async fn hm_02_nobody_is_idle_who_was_called_is_busy_or_may_not_sleep(app: TestApp) {
        assert_eq!(look(&app).await, (0, 0));
        app.fake.report_address(Some("http://127.0.0.1:1".to_owned()));
        let (id, agent) = online(&app, "a").await;
        set_idle(&app, &id, json!(1)).await;
        app.app.clock.advance(Duration::from_secs(25));
        agent.beat(&app).await.ok();
        app.app.clock.advance(Duration::from_secs(25));
        agent.beat(&app).await.ok();
        // A turn that does not arrive is one too.
        let body = json!({"method": "message/send", "params": {}});
        app.call("POST", &format!("/workspaces/{id}/a2a"), Some(ADMIN), Some(body)).await.refuses(502, "failed to reach workspace agent");
        app.app.clock.advance(Duration::from_secs(25));
        agent.beat(&app).await.ok();
        assert_eq!(look(&app).await, (1, 0), "called 25 s ago");
        app.app.clock.advance(Duration::from_secs(25));
        agent.beat_with(&app, json!({"active_tasks": 1})).await.ok();
        app.app.clock.advance(Duration::from_secs(25));
        agent.beat_with(&app, json!({"active_tasks": 1})).await.ok();
        assert_eq!(look(&app).await, (0, 0), "busy");
        agent.beat_with(&app, json!({"active_tasks": 0})).await.ok();
        for never in [json!(null), json!(0), json!(-5)] {
            set_idle(&app, &id, never).await;
            assert_eq!(look(&app).await, (0, 0));
        }
        set_idle(&app, &id, json!(1)).await;
        assert_eq!(look(&app).await, (1, 1));
        let refused = app.call("PATCH", &format!("/workspaces/{id}"), Some(ADMIN), Some(json!({"hibernation_idle_minutes": "x"}))).await;
        refused.refuses(400, "invalid request body");
    }

    async fn hm_03_a_failing_database_fails_one_look(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        set_idle(&app, &id, json!(1)).await;
        app.app.clock.advance(Duration::from_secs(61));
        app.app.db.close().await;
        assert!(HibernationMonitor.pass(&app.app).await.is_err());
        assert_eq!(runs(&app), 1);
        assert_eq!(HibernationMonitor.every(), Some(Duration::from_secs(120)));
    }

    async fn a_created_one_says_when_it_may_sleep(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "a", "hibernation_idle_minutes": 3})).await.ok();
        let id = created["id"].as_str().unwrap();
        assert_eq!(app.workspace(id).await["hibernation_idle_minutes"], 3);
        let open = app.call("GET", &format!("/workspaces/{id}"), None, None).await.ok();
        assert_eq!(open.get("hibernation_idle_minutes"), None, "nobody else's business");
    }

    async fn a_restart_and_a_delete_are_for_what_rests_too(app: TestApp) {
        for verb in ["pause", "hibernate"] {
            let (id, _) = online(&app, verb).await;
            app.ask(&format!("/workspaces/{id}/{verb}")).await.ok();
            app.ask(&format!("/workspaces/{id}/restart")).await.ok();
            app.settle().await;
            Agent::of(&app, &id).register(&app).await.ok();
            app.settle().await;
            assert_eq!(status(&app, &id).await, "online");
            app.ask(&format!("/workspaces/{id}/{verb}")).await.ok();
            app.delete(&format!("/workspaces/{id}?purge=true")).await.is(200, &json!({"status": "purged", "cascade_deleted": 0}));
            app.get(&format!("/workspaces/{id}")).await.refuses(404, "workspace not found");
        }
        assert_eq!(runs(&app), 0);
    }

    async fn a_recovery_forgets_failures_and_starts_at_once(app: TestApp) {
        app.fake.plan(Fault::Refuse("no space left on the moon".to_owned()));
        let id = app.create("a").await;
        app.settle().await;
        let path = format!("/workspaces/{id}/recover");
        assert_eq!(status(&app, &id).await, "failed");
        let done = app.ask(&path).await;
        done.is(200, &json!({"status": "provisioning", "workspace_id": id, "failures_forgotten": 1}));
        app.settle().await;
        assert_eq!(app.fake.starts(), 1, "it did not wait for the next attempt");
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let online = app.ask(&path).await;
        online.refuses(409, "workspace cannot be recovered");
        assert!(online.body["detail"].as_str().unwrap().contains("online"), "{online:?}");
        // One that is offline and waits.
        for _ in 0..12 {
            let Some(instance) = app.fake.newest(id.parse().unwrap()) else { break };
            app.fake.kill(instance.key, 9);
            app.settle().await;
        }
        assert!(app.workspace(&id).await["next_attempt_at"].is_string());
        let starts = app.fake.starts();
        app.ask(&path).await.ok();
        app.settle().await;
        assert_eq!(app.fake.starts(), starts + 1);
        assert!(app.journal(&id).await.contains(&"recover-requested".to_owned()));
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        app.ask(&path).await.refuses(409, "workspace cannot be recovered");
        app.ask(&format!("/workspaces/{UNKNOWN}/recover")).await.refuses(404, "workspace not found");
    }
}

adjusted! {
    |config| config.backend = None;

    async fn re_03_rs_04_without_a_backend_nothing_is_started(app: TestApp) {
        let id = app.post("/workspaces", json!({"name": "a"})).await.ok()["id"].as_str().unwrap().to_owned();
        app.ask(&format!("/workspaces/{id}/restart")).await.refuses(503, "provisioner not available");
        app.ask(&format!("/workspaces/{id}/pause")).await.ok();
        // Asked about before anything above it.
        app.ask(&format!("/workspaces/{id}/resume")).await.refuses(503, "provisioner not available");
    }
}

#[test]
fn hm_05_a_graceful_stop_ends_the_monitor() {
    crate::support::engine::on_each("hm_05", |db| async move {
        let app = TestApp::new(db, |_| {});
        ligand_server::reconcile::drive(&app.app, std::sync::Arc::new(HibernationMonitor));
        a_moment(50).await;
        app.app.stop.cancel();
        app.app.tasks.close();
        let ended = tokio::time::timeout(Duration::from_secs(5), app.app.tasks.wait()).await;
        assert!(ended.is_ok(), "it goes on");
    });
}
