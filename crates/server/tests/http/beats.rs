//! Heartbeats that are recorded many at a time: they agree with admission, and never let anybody in that it
//! would not.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::agent::{Agent, online};
use crate::support::{ADMIN, TestApp, both};

/// Heartbeats recorded so far, together and alone.
fn counted(app: &TestApp) -> (u64, u64) {
    let count = |way: &str| app.app.metrics.heartbeats.with_label_values(&[way]).get();
    (count("together"), count("alone"))
}

both! {
    async fn what_changes_nothing_is_recorded_together(app: TestApp) {
        let mut agents = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            agents.push(online(&app, name).await.1);
        }
        let before = counted(&app);
        for answer in join_all(agents.iter().map(|agent| agent.beat(&app))).await {
            assert_eq!(answer.ok()["next_heartbeat_seconds"], 10);
        }
        let after = counted(&app);
        assert_eq!((after.0 - before.0, after.1 - before.1), (5, 0));
    }

    async fn what_an_agent_reports_is_kept_whichever_way_it_came(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let busy = json!({"active_tasks": 3, "current_task": "count", "uptime_seconds": 7,
            "monthly_spend": 42, "runtime_metadata": {"capabilities": {"session": true}, "idle_timeout_seconds": 9}});
        agent.beat_with(&app, busy).await.ok();
        assert_eq!(counted(&app).0, 1);
        let seen = app.call("GET", &format!("/workspaces/{id}"), Some(ADMIN), None).await.ok();
        assert_eq!((&seen["active_tasks"], &seen["uptime_seconds"]), (&json!(3), &json!(7)));
        let listed = app.call("GET", "/workspaces", Some(ADMIN), None).await.ok();
        assert_eq!((&listed[0]["current_task"], &listed[0]["monthly_spend"]), (&json!("count"), &json!(42)));
        agent.beat(&app).await.ok();
        let seen = app.call("GET", &format!("/workspaces/{id}"), Some(ADMIN), None).await.ok();
        assert_eq!(seen["active_tasks"], 0);
        assert_eq!(counted(&app).0, 2);
    }

    async fn a_stranger_in_a_batch_is_refused_and_the_others_are_not(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let (_, other) = online(&app, "b").await;
        let stranger = Agent::with(&id, Some("a-stranger"));
        let borrowed = Agent::with(&id, other.token.as_deref());
        let all = [&stranger, &agent, &borrowed, &other];
        let statuses = join_all(all.map(|agent| agent.beat(&app))).await.into_iter().map(|a| a.status.as_u16());
        assert_eq!(statuses.collect::<Vec<_>>(), [401, 200, 401, 200]);
        let (together, alone) = counted(&app);
        assert_eq!((together, alone), (2, 0));
    }

    async fn a_zero_in_a_text_harms_nobody(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let (_, other) = online(&app, "b").await;
        let odd = json!({"sample_error": "a\0b", "current_task": "\0", "active_tasks": 2});
        let (odd, well) = futures_util::join!(agent.beat_with(&app, odd), other.beat(&app));
        assert_eq!((odd.status.as_u16(), well.status.as_u16()), (200, 200));
        assert_eq!(counted(&app), (2, 0));
        let listed = app.call("GET", "/workspaces", Some(ADMIN), None).await.ok();
        let seen = listed.as_array().unwrap().iter().find(|one| one["id"] == *id).unwrap();
        assert_eq!((&seen["last_sample_error"], &seen["active_tasks"]), (&json!("ab"), &json!(2)));
    }

    async fn what_could_move_a_status_is_decided_alone(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        agent.beat_with(&app, json!({"error_rate": 0.9})).await.ok();
        assert_eq!(counted(&app), (0, 1));
        // Recovery is a move, too.
        agent.beat(&app).await.ok();
        assert_eq!(counted(&app), (0, 2));
        app.call("DELETE", &format!("/workspaces/{id}?confirm=true"), Some(ADMIN), None).await.ok();
        assert_eq!(agent.beat(&app).await.status, 401);
        assert_eq!(counted(&app), (0, 2));
    }
}
