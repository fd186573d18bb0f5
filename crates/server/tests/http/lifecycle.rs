//! What the reconciler makes of what happens.

use std::time::Duration;

use ligand_server::backend::Key;
use ligand_server::backend::fake::Fault;
use serde_json::json;

use crate::support::agent::{Agent, online};
use crate::support::{TestApp, both};

fn newest(app: &TestApp, id: &str) -> Key {
    app.fake.newest(id.parse().unwrap()).unwrap().key
}

both! {
    async fn e2e_01_created_started_registered_online(app: TestApp) {
        let id = app.create("a").await;
        assert_eq!(app.workspace(&id).await["status"], "provisioning");
        app.settle().await;
        let agent = Agent::of(&app, &id);
        let answer = agent.register(&app).await.ok();
        assert_eq!((&answer["generation"], answer.get("auth_token")), (&json!(1), None));
        agent.beat(&app).await.ok();
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["url"]), (&json!("online"), &json!("http://localhost:8000")));
        assert_eq!(app.env(&id)["PLATFORM_URL"], "http://127.0.0.1:8080");
    }

    async fn a_killed_instance_is_replaced_under_the_next_generation(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.fake.kill(newest(&app, &id), 9);
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "provisioning");
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(2)));
        let told = ["created", "planned", "started", "registered", "lost", "planned", "started", "registered"];
        assert_eq!(app.journal(&id).await, told);
        let events = app.events(&id).await;
        let expected = ["WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE", "WORKSPACE_OFFLINE", "WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"];
        assert_eq!(events, expected);
        assert_eq!(app.fake.instances().len(), 1);
    }

    async fn restarts_coalesce_to_at_most_two_cycles(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let restart = format!("/workspaces/{id}/restart");
        app.post(&restart, json!({})).await.is(200, &json!({"status": "provisioning",
            "config_dir": "existing-volume", "reset_session": false}));
        app.pass().await;
        for _ in 0..5 {
            app.post(&restart, json!({})).await.ok();
        }
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(3)));
        assert_eq!(app.fake.starts(), 3);
    }

    async fn rs_01_06_a_restart_of_what_is_not_there_is_404(app: TestApp) {
        let unknown = "/workspaces/00000000-0000-4000-8000-000000000000/restart";
        app.post(unknown, json!({})).await.refuses(404, "workspace not found");
        let (id, _) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{id}")).await.ok();
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.refuses(404, "workspace not found");
        app.send("POST", unknown, Some(crate::support::ADMIN), Some("{".to_owned()), &[]).await.refuses(400, "invalid JSON body");
    }

    async fn a_lost_reply_of_the_backend_starts_nothing_twice(app: TestApp) {
        app.fake.plan(Fault::LoseReply);
        let id = app.create("a").await;
        app.settle().await;
        assert_eq!(app.fake.starts(), 1, "found, not started again");
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(1)));
        assert_eq!(app.fake.instances().len(), 1, "{:?}", app.fake.instances());
    }

    async fn a_refused_start_names_its_cause_and_its_next_attempt(app: TestApp) {
        app.fake.plan(Fault::Refuse("no space left on the moon".to_owned()));
        let id = app.create("a").await;
        app.settle().await;
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "failed");
        assert_eq!(workspace["last_error"], "no space left on the moon");
        assert!(workspace["next_attempt_at"].is_string(), "{workspace}");
        assert_eq!(app.events(&id).await.last().unwrap(), "WORKSPACE_PROVISION_FAILED");
        app.later(2).await;
        Agent::of(&app, &id).register(&app).await.ok();
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["last_error"]), (&json!("online"), &json!(null)));
    }

    async fn an_unknown_runtime_fails_with_exactly_that_reason(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "a", "runtime": "cobol"})).await.ok();
        app.settle().await;
        let workspace = app.workspace(created["id"].as_str().unwrap()).await;
        assert_eq!(workspace["last_error"], "the runtime `cobol` has no recipe for the backend `fake`");
    }

    async fn a_command_of_its_own_runs_beside_the_agent(app: TestApp) {
        let body = json!({"name": "a", "command": ["python3", "agent.py"]});
        let created = app.post("/workspaces", body).await.ok();
        app.settle().await;
        let instance = app.fake.newest(created["id"].as_str().unwrap().parse().unwrap()).unwrap();
        assert_eq!(instance.command, ["ligand", "agent", "--", "python3", "agent.py"]);
    }

    async fn a_start_that_never_registers_is_given_up(app: TestApp) {
        let id = app.create("a").await;
        app.settle().await;
        let late = Agent::of(&app, &id);
        app.later(601).await;
        let told = app.journal(&id).await;
        assert!(told.contains(&"given-up".to_owned()), "{told:?}");
        // Its credential lapsed in the transaction that gave it up, and another one is on its way.
        let refused = late.register(&app).await;
        refused.refuses(401, "invalid workspace auth token");
        assert_eq!((&refused.body["code"], &refused.body["action"]), (&json!("superseded"), &json!("exit")));
        Agent::of(&app, &id).register(&app).await.ok();
        assert_eq!(app.workspace(&id).await["generation"], 2);
    }

    async fn whoever_keeps_dying_waits(app: TestApp) {
        let id = app.create("a").await;
        for _ in 0..10 {
            app.settle().await;
            app.fake.kill(newest(&app, &id), 11);
        }
        app.settle().await;
        assert_eq!(app.fake.starts(), 11);
        Agent::of(&app, &id).register(&app).await.ok();
        app.fake.kill(newest(&app, &id), 11);
        app.settle().await;
        assert_eq!(app.fake.starts(), 11, "the eleventh replacement waits");
        assert_eq!(app.workspace(&id).await["url"], "", "nobody answers where it did");
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "offline");
        assert!(workspace["last_error"].as_str().unwrap().contains("killed by signal 11"), "{workspace}");
        // A person's restart does not wait.
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        assert_eq!(app.fake.starts(), 12);
    }

    async fn silence_is_a_question_to_the_backend(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        app.fake.lose(newest(&app, &id));
        app.later(31).await;
        assert_eq!(app.fake.starts(), 2, "gone: replaced at once");
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        // Running and silent: noted, waited for, and then replaced.
        app.later(31).await;
        assert_eq!((app.workspace(&id).await["status"].clone(), app.fake.starts()), (json!("offline"), 2));
        app.later(61).await;
        assert_eq!(app.fake.starts(), 3);
    }

    async fn what_cannot_be_known_is_not_acted_on(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.app.clock.advance(Duration::from_secs(31));
        app.fake.plan(Fault::Silence);
        app.fake.plan(Fault::Silence);
        app.settle().await;
        let workspace = app.workspace(&id).await;
        // Neither "online" nor "offline" would rest on anything.
        assert_eq!(workspace["status"], "degraded");
        assert!(workspace["evidence"].as_str().unwrap().contains("unknown"), "{workspace}");
        assert_eq!(app.fake.starts(), 1);
        // However little its agent says of itself, it is taken back once it is heard.
        agent.beat_with(&app, json!({"error_rate": 0.3})).await.ok();
        app.later(5).await;
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["evidence"]), (&json!("online"), &json!("generation 1 sent a heartbeat")));
        // The backend confirms a later silence: then it is one.
        app.app.clock.advance(Duration::from_secs(31));
        app.fake.plan(Fault::Silence);
        app.fake.plan(Fault::Silence);
        app.settle().await;
        assert_eq!(app.workspace(&id).await["status"], "degraded");
        app.later(5).await;
        assert_eq!((app.workspace(&id).await["status"].clone(), app.fake.starts()), (json!("offline"), 1));
    }

    async fn a_new_server_waits_a_full_term_before_it_doubts_anybody(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.app.clock.advance(Duration::from_secs(3600));
        let app = app.reborn();
        app.settle().await;
        assert_eq!(app.workspace(&id).await["status"], "online");
        app.later(29).await;
        assert_eq!(app.workspace(&id).await["status"], "online");
        agent.beat(&app).await.ok();
        app.later(5).await;
        assert_eq!((app.workspace(&id).await["generation"].clone(), app.fake.starts()), (json!(1), 1));
    }

    async fn a_crash_between_planning_and_starting_is_resumed(app: TestApp) {
        // The backend has it, and the server died before it heard of that.
        let id = app.create("a").await;
        app.settle().await;
        app.sql("UPDATE instances SET phase = 'planned', started_at = NULL, handle = NULL").await;
        app.sql("UPDATE workspaces SET due_at = 0").await;
        let app = app.reborn();
        app.settle().await;
        assert_eq!(app.fake.starts(), 1, "found, not started again");
        Agent::of(&app, &id).register(&app).await.ok();
        // The backend has nothing: another value is minted beside the first.
        app.fake.kill(newest(&app, &id), 9);
        app.settle().await;
        app.sql("UPDATE instances SET phase = 'planned', started_at = NULL, handle = NULL WHERE ended_at IS NULL").await;
        app.sql("UPDATE workspaces SET due_at = 0").await;
        let first = Agent::of(&app, &id);
        app.fake.lose(newest(&app, &id));
        let app = app.reborn();
        app.settle().await;
        let second = Agent::of(&app, &id);
        assert_ne!(first.token, second.token);
        assert!(app.journal(&id).await.contains(&"resumed".to_owned()));
        second.register(&app).await.ok();
        assert_eq!(app.workspace(&id).await["generation"], 2);
    }
}
