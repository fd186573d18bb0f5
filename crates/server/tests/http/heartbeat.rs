//! `POST /registry/heartbeat`.

use serde_json::json;

use crate::support::agent::{Agent, online};
use crate::support::both;

both! {
    async fn hb_01_offline_and_heard_is_online_with_an_event(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        // Paced: three beats of ten seconds.
        app.later(31).await;
        let silent = app.workspace(&id).await;
        assert_eq!(silent["status"], "offline");
        assert!(silent["evidence"].as_str().unwrap().contains("unreachable"), "{silent}");
        agent.beat(&app).await.ok();
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(1)));
        let events = app.events(&id).await;
        assert_eq!(&events[events.len() - 2..], ["WORKSPACE_OFFLINE", "WORKSPACE_ONLINE"]);
    }

    async fn hb_02_provisioning_and_heard_is_online_and_says_so(app: TestApp) {
        let id = app.create("a").await;
        app.settle().await;
        Agent::of(&app, &id).beat(&app).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "online");
        let events = app.get(&format!("/events/{id}")).await.ok();
        assert_eq!(events[0]["event_type"], "WORKSPACE_ONLINE");
        assert_eq!(events[0]["payload"]["recovered_from"], "provisioning");
    }

    async fn hb_03_bad_bodies_are_400(app: TestApp) {
        for (body, why) in [("{", "EOF"), ("{}", "workspace_id"), ("{\"workspace_id\":\"x\"}", "UUID")] {
            let answer = app.send("POST", "/registry/heartbeat", None, Some(body.to_owned()), &[]).await;
            answer.refuses(400, "invalid request body");
            assert!(answer.body["detail"].as_str().unwrap().contains(why), "{answer:?}");
        }
    }

    async fn hb_04_a_failing_database_is_never_an_open_door(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        // Admitted, and then what follows from it cannot be written.
        app.sql("ALTER TABLE instances RENAME COLUMN features TO talents").await;
        let failed = agent.beat(&app).await;
        failed.is(500, &json!({"error": "failed to update"}));
        app.sql("DROP TABLE credentials").await;
        for token in [agent.token.as_deref(), Some("a-stranger"), None] {
            let failed = Agent::with(&id, token).beat(&app).await;
            failed.refuses(503, "platform datastore unavailable — retry shortly");
        }
    }

    async fn hb_05_good_beats_keep_online_quietly(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let before = (app.workspace(&id).await["since"].clone(), app.events(&id).await);
        app.later(10).await;
        let beat = json!({"error_rate": 0.2, "active_tasks": 2, "uptime_seconds": 12, "current_task": "thinking"});
        let answer = agent.beat_with(&app, beat).await;
        answer.is(200, &json!({"status": "ok", "next_heartbeat_seconds": 10}));
        assert_eq!((app.workspace(&id).await["since"].clone(), app.events(&id).await), before);
        let listed = app.get("/workspaces").await.ok();
        assert_eq!(listed[0]["current_task"], "thinking");
        assert_eq!((&listed[0]["active_tasks"], &listed[0]["uptime_seconds"]), (&json!(2), &json!(12)));
    }

    async fn hb_06_07_08_wedged_degrades_until_it_is_over(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let status = async || app.workspace(&id).await["status"].as_str().unwrap().to_owned();
        agent.beat_with(&app, json!({"runtime_state": "wedged", "sample_error": "stuck"})).await.ok();
        assert_eq!(status().await, "degraded");
        agent.beat_with(&app, json!({"runtime_state": "wedged"})).await.ok();
        assert_eq!(status().await, "degraded");
        agent.beat(&app).await.ok();
        assert_eq!(status().await, "online");
    }

    async fn spend_is_stored_within_bounds(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let spend = async || app.get("/workspaces").await.ok()[0]["monthly_spend"].clone();
        for (reported, stored) in [(7, 7), (0, 7), (-5, 7), (2_000_000_000_000i64, 1_000_000_000_000i64)] {
            agent.beat_with(&app, json!({"monthly_spend": reported})).await.ok();
            assert_eq!(spend().await, json!(stored), "{reported}");
        }
    }

    async fn a_superseded_instance_changes_nothing_and_is_told_to_exit(app: TestApp) {
        let (id, old) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        let before = app.workspace(&id).await;
        assert_eq!(before["generation"], 2);
        app.later(3).await;
        for answer in [old.beat(&app).await, old.register(&app).await] {
            answer.refuses(401, "invalid workspace auth token");
            assert_eq!((&answer.body["code"], &answer.body["action"]), (&json!("superseded"), &json!("exit")));
        }
        assert_eq!(app.workspace(&id).await, before);
    }

    async fn an_instance_being_replaced_is_heard_and_moves_nothing(app: TestApp) {
        let (id, old) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        // The restart was accepted, and the old instance still runs.
        old.beat(&app).await.ok();
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["url"]), (&json!("provisioning"), &json!("")));
        old.register(&app).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "provisioning");
    }
}
