//! `POST /registry/heartbeat`.

use ligand_server::db::Db;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::{TestApp, both};

/// Let it beat, and see what it is then.
async fn status_after(app: &TestApp, agent: &Agent, beat: Value) -> String {
    agent.beat_with(app, beat).await.ok();
    app.workspace(&agent.workspace).await["status"].as_str().unwrap().to_owned()
}

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

    async fn hb_09_10_11_12_13_spend_is_stored_within_bounds(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let spend = async || app.get("/workspaces").await.ok()[0]["monthly_spend"].clone();
        const MOST: i64 = 1_000_000_000_000;
        for (reported, stored) in [(7, 7), (0, 7), (-5, 7), (MOST - 1, MOST - 1), (MOST, MOST), (8, 8), (MOST + 1, MOST)] {
            agent.beat_with(&app, json!({"monthly_spend": reported})).await.ok();
            assert_eq!(spend().await, json!(stored), "{reported}");
        }
    }

    async fn hb_14_15_16_who_judges_itself_is_not_judged_by_errors(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let beat = async |more: Value| status_after(&app, &agent, more).await;
        let native = json!({"capabilities": {"status_mgmt": true}});
        assert_eq!(beat(json!({"error_rate": 0.9, "runtime_metadata": native})).await, "online", "in the same beat");
        assert_eq!(beat(json!({"error_rate": 0.9})).await, "online");
        assert_eq!(beat(json!({"runtime_state": "wedged"})).await, "degraded");
        assert_eq!(beat(json!({"error_rate": 0.0})).await, "degraded");
        assert_eq!(beat(json!({"runtime_metadata": {"capabilities": {}}})).await, "online");
        assert!(app.events(&id).await.contains(&"WORKSPACE_DEGRADED".to_owned()));
    }

    async fn hb_17_nobody_is_told_that_all_is_well(app: TestApp) {
        let unknown = Agent::with("00000000-0000-4000-8000-000000000000", None);
        unknown.beat(&app).await.is(401, &json!({"error": "missing workspace auth token"}));
        let (id, agent) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{id}")).await.ok();
        let removed = agent.beat(&app).await;
        removed.refuses(401, "invalid workspace auth token");
        assert_eq!(removed.body["action"], "exit");
    }

    /// RO-01, RO-04, RO-05, RO-07, RO-08 and RO-10: what counts is what was said last, as a whole.
    async fn ro_01_04_05_07_08_10_capabilities_are_replaced_as_a_whole(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let bad = |metadata: Value| match metadata {
            Value::Null => json!({"error_rate": 0.9}),
            metadata => json!({"error_rate": 0.9, "runtime_metadata": metadata}),
        };
        let native = |more: &str| json!({"capabilities": {"status_mgmt": true, more: true}});
        for forgets in [
            json!({"capabilities": {"session": true}}),
            json!({"capabilities": {"status_mgmt": false}}),
            json!({"capabilities": {}}),
            json!({"capabilities": null}),
            json!({}),
        ] {
            assert_eq!(status_after(&app, &agent, bad(native("session"))).await, "online");
            assert_eq!(status_after(&app, &agent, bad(Value::Null)).await, "online", "kept while nothing is said");
            assert_eq!(status_after(&app, &agent, bad(forgets.clone())).await, "degraded", "{forgets}");
            assert_eq!(status_after(&app, &agent, json!({})).await, "online");
            assert_eq!(status_after(&app, &agent, bad(Value::Null)).await, "degraded", "still forgotten");
            assert_eq!(status_after(&app, &agent, json!({})).await, "online");
        }
    }

    /// RO-02 and RO-09: an idle timeout is one of its own. RO-03: an empty id is nobody's.
    async fn ro_02_03_09_an_idle_timeout_is_stored_while_it_makes_sense(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let stored = async || {
            let text = "SELECT idle_timeout_seconds, capabilities FROM workspaces";
            match &app.app.db {
                Db::Postgres { pool, .. } => sqlx::query_as::<_, (Option<i64>, String)>(text).fetch_one(pool).await,
                Db::Sqlite { read, .. } => sqlx::query_as(text).fetch_one(read).await,
            }.unwrap()
        };
        let native = json!({"status_mgmt": true});
        for (said, kept) in [(json!(60), Some(60)), (json!(0), None), (json!(90), Some(90)), (json!(-1), None), (Value::Null, None)] {
            let metadata = json!({"idle_timeout_seconds": said, "capabilities": native});
            agent.beat_with(&app, json!({"runtime_metadata": metadata})).await.ok();
            agent.beat(&app).await.ok();
            assert_eq!(stored().await, (kept, native.to_string()), "{said}");
        }
        let nobody = Agent::with("", agent.token.as_deref());
        nobody.beat_with(&app, json!({"runtime_metadata": {"idle_timeout_seconds": 5}})).await.refuses(400, "invalid request body");
        assert_eq!(stored().await.0, None, "{id}");
    }

    async fn ro_06_11_workspaces_do_not_share_what_their_runtimes_do(app: TestApp) {
        let (_, one) = online(&app, "one").await;
        let (_, other) = online(&app, "other").await;
        let native = json!({"error_rate": 0.9, "runtime_metadata": {"capabilities": {"status_mgmt": true}}});
        let plain = json!({"error_rate": 0.9, "runtime_metadata": {"capabilities": {}}});
        let beats = (0..4).map(|_| async { tokio::join!(one.beat_with(&app, native.clone()), other.beat_with(&app, plain.clone())) });
        futures_util::future::join_all(beats).await;
        assert_eq!(status_after(&app, &one, json!({"error_rate": 0.9})).await, "online");
        assert_eq!(status_after(&app, &other, json!({"error_rate": 0.9})).await, "degraded");
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
