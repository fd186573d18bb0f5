//! What happens because something died: to instances that the fleet replaces, and to those that it does not.

use ligand_domain::id::Generation;
use ligand_server::backend::fake::{Call, Fault, Planned};
use ligand_server::backend::{Backend as _, Key, Spec};
use serde_json::{Value, json};

use crate::support::platform::Platform;
use crate::support::{TestFleet, WORKSPACE, both};

fn newest(app: &TestFleet) -> Key {
    app.a.newest(WORKSPACE.parse().unwrap()).unwrap().key
}

async fn known_to(app: &TestFleet) -> Platform {
    let platform = Platform::listen(|_| (200, json!({"ok": true}))).await;
    app.operate("PATCH", "/cp/admin/orgs/acme", json!({"platform_url": platform.url()}))
        .await
        .is(200);
    platform
}

both! {
    async fn a_platform_that_names_generations_replaces_by_itself(app: TestFleet) {
        let platform = known_to(&app).await;
        let it = app.provision(json!({"generation": 5})).await;
        app.a.kill(newest(&app), 9);
        let seen = app.status(&it).await;
        assert_eq!((&seen["state"], &seen["exit"]["signal"]), (&json!("stopped"), &json!(9)));
        app.later(60).await;
        app.notify().await;
        assert_eq!((app.a.starts(), platform.calls().len()), (1, 0));
        assert_eq!(app.status(&it).await["state"], "stopped");
    }

    async fn where_the_fleet_counts_it_replaces_within_a_budget(app: TestFleet) {
        let platform = known_to(&app).await;
        let it = app.provision(json!({})).await;
        for starts in 2..=4 {
            app.a.say(WORKSPACE.parse().unwrap(), "Traceback: it fell");
            app.a.kill(newest(&app), 9);
            let seen = app.status(&it).await;
            assert_ne!(seen["state"], "running");
            app.settle().await;
            assert_eq!(app.status(&it).await["state"], "pending", "and not before its time");
            app.later(60).await;
            assert_eq!((app.a.starts(), app.a.instances().len()), (starts, 1));
            assert_eq!(app.status(&it).await["state"], "running");
        }
        app.a.kill(newest(&app), 9);
        app.status(&it).await;
        app.later(30).await;
        assert_eq!(app.a.starts(), 4, "the budget is spent");
        let seen = app.status(&it).await;
        assert_eq!(seen["state"], "stopped");
        assert!(seen["error"].as_str().unwrap().contains("replaced too often"), "{seen}");
        assert!(seen["next_attempt_at"].is_string(), "{seen}");
        app.notify().await;
        let calls = platform.calls();
        assert_eq!(calls.len(), 4);
        assert!(calls.iter().all(|call| call.what == format!("POST /admin/workspaces/{WORKSPACE}/bootstrap-failed")));
        assert_eq!(calls[0].authorization, format!("Bearer {}", app.token));
        assert!(!calls[0].org.is_empty());
        assert_eq!(calls[0].body["error"], "killed by signal 9");
        assert!(calls[0].body["log_tail"].as_str().unwrap().contains("Traceback"), "{:?}", calls[0].body);
        app.later(600).await;
        app.later(2).await;
        assert_eq!(app.a.starts(), 5, "it comes back with the next window");
    }

    async fn an_instance_that_never_registers_is_told_of_in_time(app: TestFleet) {
        let platform = known_to(&app).await;
        app.provision(json!({"runtime": "hermes"})).await;
        for minutes in [24, 2] {
            assert!(platform.calls().is_empty());
            app.later(60 * minutes).await;
            app.notify().await;
        }
        assert!(platform.calls()[0].body["error"].as_str().unwrap().contains("25 minutes"));
        app.later(9000).await;
        app.notify().await;
        assert_eq!(platform.calls().len(), 1, "it is told once");
    }

    async fn a_platform_that_does_not_hear_is_told_again(app: TestFleet) {
        let platform = known_to(&app).await;
        platform.answer(|_| (503, Value::Null));
        app.provision(json!({})).await;
        app.a.kill(newest(&app), 9);
        app.later(31).await;
        app.notify().await;
        assert_eq!(platform.calls().len(), 1);
        platform.answer(|_| (200, json!({"ok": true, "no_change": true})));
        app.later(10).await;
        app.notify().await;
        assert_eq!(platform.calls().len(), 2);
        app.later(100).await;
        app.notify().await;
        assert_eq!(platform.calls().len(), 2);
    }

    async fn doubt_replaces_nothing(app: TestFleet) {
        let it = app.provision(json!({})).await;
        app.a.plan(Planned::once(Fault::Silence).at(&[Call::Inspect]).times(0));
        for _ in 0..20 {
            app.later(30).await;
        }
        assert_eq!(app.a.starts(), 1);
        assert_eq!(app.status(&it).await["state"], "unknown");
    }

    async fn a_machine_that_is_lost_is_replaced_once(app: TestFleet) {
        let it = app.provision(json!({})).await;
        let lost = newest(&app);
        app.a.lose(lost);
        app.later(31).await;
        app.later(2).await;
        assert_eq!((app.a.starts(), app.a.instances().len()), (2, 1));
        assert!(newest(&app).generation > lost.generation);
        assert_eq!(app.status(&it).await["state"], "running");
        let again = app.provision(json!({})).await;
        assert_eq!(again["instance_id"], it["instance_id"]);
    }

    async fn what_nobody_asked_for_is_ended_and_nothing_else(app: TestFleet) {
        let it = app.provision(json!({"generation": 1})).await;
        let stray = Key { workspace: app.fleet.ids.workspace(), generation: Generation::new(1) };
        let twin = Key { generation: Generation::new(9), ..newest(&app) };
        for key in [stray, twin] {
            app.a.ensure(Spec::bare(key, Vec::new(), app.fleet.ids.token())).await.unwrap();
        }
        assert_eq!(app.a.instances().len(), 3);
        app.sweep().await;
        let left = app.a.instances();
        assert_eq!((left.len(), left[0].key), (1, newest(&app)));
        assert_eq!(app.status(&it).await["state"], "running");
        // Data of a workspace that this fleet never heard of may be somebody else's.
        assert!(app.a.list_data().await.unwrap().contains(&stray.workspace));
    }

    async fn a_provider_that_cannot_be_listed_loses_nothing(app: TestFleet) {
        let it = app.provision(json!({"generation": 1})).await;
        app.a.plan(Planned::once(Fault::Silence).at(&[Call::ListOwned]));
        assert!(app.sweep().await.failed.is_some());
        assert_eq!(app.status(&it).await["state"], "running");
        assert!(app.sweep().await.failed.is_none());
    }

    async fn a_deletion_ends_what_is_about_to_be_replaced(app: TestFleet) {
        let it = app.provision(json!({})).await;
        app.a.kill(newest(&app), 9);
        app.status(&it).await;
        app.settle().await;
        let path = format!("/cp/workspaces/{WORKSPACE}?instance_id={}", it["instance_id"].as_str().unwrap());
        app.call("DELETE", &path, Value::Null).await.is(200);
        app.later(600).await;
        assert_eq!((app.a.starts(), app.a.instances().len()), (1, 0));
    }
}
