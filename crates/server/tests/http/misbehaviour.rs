//! What Ligand does about a backend that misbehaves: a test for each fault that the fake one can be told.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_domain::id::WorkspaceId;
use ligand_server::backend::fake::{Call, Fault, Planned};
use ligand_server::backend::{Backend as _, Key, Place, Root};
use ligand_server::liveness::orphans::Orphans;
use ligand_server::reconcile::Reconciler as _;
use serde_json::json;

use crate::support::agent::{Agent, online};
use crate::support::{ADMIN, TestApp, a_moment, both};

fn newest(app: &TestApp, workspace: &str) -> Key {
    app.fake.newest(workspace.parse().unwrap()).unwrap().key
}

async fn sweep(app: &TestApp) -> u64 {
    Orphans::default().pass(&app.app).await.unwrap().steps
}

async fn status(app: &TestApp, workspace: &str) -> String {
    app.workspace(workspace).await["status"].as_str().unwrap().to_owned()
}

both! {
    async fn a_lost_answer_to_an_end_is_asked_for_again(app: TestApp) {
        for call in [Call::Stop, Call::Destroy] {
            let (workspace, _) = online(&app, &call.to_string()).await;
            app.fake.plan(Planned::once(Fault::LoseReply).at(&[call]));
            app.post(&format!("/workspaces/{workspace}/restart"), json!({})).await.ok();
            app.settle().await;
            let waits = app.workspace(&workspace).await;
            assert!(waits["last_error"].as_str().unwrap().contains("answer of the backend was lost"), "{waits}");
            app.later(3).await;
            Agent::of(&app, &workspace).register(&app).await.ok();
            app.settle().await;
            let now = app.workspace(&workspace).await;
            assert_eq!((&now["status"], &now["generation"]), (&json!("online"), &json!(2)));
            assert_eq!(app.fake.instances().iter().filter(|it| it.key.workspace.to_string() == workspace).count(), 1);
        }
    }

    async fn a_throttled_start_says_so_and_comes_again(app: TestApp) {
        app.fake.plan(Fault::Throttle(Duration::from_secs(2)));
        let workspace = app.create("a").await;
        app.settle().await;
        let waits = app.workspace(&workspace).await;
        assert_eq!(waits["last_error"], "too many calls (429): ask again in 2 s");
        assert!(waits["next_attempt_at"].is_string(), "{waits}");
        app.later(2).await;
        Agent::of(&app, &workspace).register(&app).await.ok();
        assert_eq!((status(&app, &workspace).await, app.fake.starts()), ("online".to_owned(), 1));
    }

    async fn throttled_everywhere_for_a_while_nothing_is_lost_and_nothing_happens_twice(app: TestApp) {
        let all = [Call::Ensure, Call::Find, Call::Inspect, Call::Stop, Call::Destroy];
        app.fake.plan(Planned::once(Fault::Throttle(Duration::from_secs(1))).at(&all).times(9));
        let workspace = app.create("a").await;
        for _ in 0..20 {
            app.later(3).await;
        }
        Agent::of(&app, &workspace).register(&app).await.ok();
        app.settle().await;
        assert_eq!((status(&app, &workspace).await, app.fake.instances().len(), app.fake.starts()), ("online".to_owned(), 1, 1));
    }

    async fn what_was_started_twice_is_ended_twice(app: TestApp) {
        app.fake.plan(Fault::Twice);
        let (workspace, _) = online(&app, "a").await;
        assert_eq!((app.fake.starts(), app.fake.instances()[0].copies), (2, 2));
        app.delete(&format!("/workspaces/{workspace}")).await.ok();
        let left = app.fake.instances();
        assert!(left.len() == 1 && left[0].exit.is_none(), "its twin runs, and no row names it: {left:?}");
        sweep(&app).await;
        assert!(app.fake.instances().is_empty());
    }

    async fn what_was_said_to_be_destroyed_and_is_not_is_found(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        let old = newest(&app, &workspace);
        app.fake.plan(Fault::Linger);
        app.post(&format!("/workspaces/{workspace}/restart"), json!({})).await.ok();
        app.settle().await;
        Agent::of(&app, &workspace).register(&app).await.ok();
        let keys = || app.fake.instances().iter().map(|it| it.key).collect::<Vec<_>>();
        assert!(keys().len() == 2 && keys().contains(&old));
        assert_eq!(sweep(&app).await, 1);
        assert_eq!(keys(), [newest(&app, &workspace)]);
        assert_eq!(status(&app, &workspace).await, "online");
    }

    async fn a_slow_end_is_waited_for_before_the_next_one_starts(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        for call in [Call::Stop, Call::Destroy] {
            app.fake.plan(Planned::once(Fault::Late(Duration::from_millis(150))).at(&[call]));
        }
        app.post(&format!("/workspaces/{workspace}/restart"), json!({})).await.ok();
        let most = std::cell::Cell::new(0);
        tokio::select! {
            () = app.settle() => {}
            () = async {
                loop {
                    most.set(most.get().max(app.fake.instances().len()));
                    a_moment(5).await;
                }
            } => {}
        }
        assert_eq!((most.get(), app.fake.starts()), (1, 2));
        Agent::of(&app, &workspace).register(&app).await.ok();
        assert_eq!(status(&app, &workspace).await, "online");
    }

    async fn whoever_is_said_to_run_and_is_not_heard_is_replaced(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.fake.plan(Planned::once(Fault::SayRunning).times(0));
        app.fake.kill(newest(&app, &workspace), 9);
        app.settle().await;
        assert_eq!((status(&app, &workspace).await, app.fake.starts()), ("online".to_owned(), 1));
        app.later(31).await;
        let doubted = app.workspace(&workspace).await;
        assert_eq!(doubted["status"], "offline");
        assert!(doubted["evidence"].as_str().unwrap().contains("the backend says that it runs"), "{doubted}");
        app.later(61).await;
        assert_eq!((app.fake.starts(), app.fake.instances().len()), (2, 1));
    }

    async fn whoever_is_said_to_be_gone_and_runs_is_ended_before_it_is_replaced(app: TestApp) {
        let (workspace, old) = online(&app, "a").await;
        app.fake.plan(Fault::SayGone);
        app.later(31).await;
        assert_eq!((app.fake.starts(), app.fake.instances().len()), (2, 1), "never two at once");
        Agent::of(&app, &workspace).register(&app).await.ok();
        assert_eq!(status(&app, &workspace).await, "online");
        assert_eq!(old.beat(&app).await.status, 401, "the first one is superseded, wherever it is");
    }

    /// A backend's word for it is not enough: whoever moves data compares digests.
    async fn data_that_an_import_lost_is_missed_by_its_digest(app: TestApp) {
        let (from, to) = (WorkspaceId::from_random([1; 16]), WorkspaceId::from_random([2; 16]));
        let at = Place { root: Root::Workspace, path: "notes".into() };
        app.fake.write_file(from, at, Bytes::from_static(b"kept")).await.unwrap();
        app.fake.plan(Fault::LoseData);
        for held in [false, true] {
            let archive = app.fake.export(from).await.unwrap();
            let said = app.fake.import(to, archive.boxed(), None).await.unwrap();
            assert_eq!(said, app.fake.digest(from).await.unwrap());
            assert_eq!(app.fake.digest(to).await.unwrap() == said, held);
        }
    }

    async fn a_refused_erase_of_a_purge_keeps_the_row_and_says_so(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.fake.plan(Planned::once(Fault::Refuse("busy volume".to_owned())).at(&[Call::Erase]));
        let purge = format!("/workspaces/{workspace}?purge=true");
        app.delete(&purge).await.refuses(500, "purge failed");
        // Its data is there, and its row says whose it is: nothing was forgotten half-way.
        assert_eq!(app.fake.list_data().await.unwrap().len(), 1);
        app.delete(&purge).await.ok();
        assert!(app.fake.list_data().await.unwrap().is_empty());
    }

    async fn an_erase_that_was_refused_is_tried_again_though_nobody_asks_again(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.fake.plan(Planned::once(Fault::Refuse("busy volume".to_owned())).at(&[Call::Erase]).times(2));
        app.delete(&format!("/workspaces/{workspace}?purge=true")).await.refuses(500, "purge failed");
        let why = app.get(&format!("/workspaces/{workspace}/why")).await.ok();
        assert_eq!(why["next"], "every trace of it is being taken away");
        assert!(why["workspace"]["last_error"].as_str().unwrap().contains("busy volume"), "{why}");
        app.later(1).await;
        assert_eq!(app.fake.list_data().await.unwrap().len(), 1, "it does not hurry into the same wall");
        for _ in 0..2 {
            app.later(2).await;
        }
        assert!(app.fake.list_data().await.unwrap().is_empty());
        app.get(&format!("/workspaces/{workspace}")).await.refuses(404, "workspace not found");
    }

    async fn a_purge_outlives_who_asked_for_it_and_the_server(app: TestApp) {
        let (above, _) = online(&app, "above").await;
        let below = app.post("/workspaces", json!({"name": "below", "parent_id": above})).await.ok();
        let below = below["id"].as_str().unwrap().to_owned();
        let (kept, _) = online(&app, "kept").await;
        // Nobody reconciles while it is asked for: that is all that is written before the server ends.
        let path = format!("/workspaces/{above}?confirm=true&purge=true");
        let asked = app.call("DELETE", &path, Some(ADMIN), None).await;
        asked.is(202, &json!({"status": "removing", "cascade_deleted": 1}));
        assert_eq!(app.fake.list_data().await.unwrap().len(), 3);
        let next = app.with(|_| {});
        next.later(30).await;
        for gone in [&above, &below] {
            next.get(&format!("/workspaces/{gone}")).await.refuses(404, "workspace not found");
        }
        assert_eq!(next.fake.list_data().await.unwrap(), [kept.parse().unwrap()]);
        assert_eq!(next.fake.instances().len(), 1, "and nothing else was ended");
    }

    async fn what_is_deleted_without_a_purge_keeps_its_row_and_its_data(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{workspace}")).await.ok();
        app.later(600).await;
        assert_eq!(app.workspace(&workspace).await["status"], "removed");
        assert_eq!(app.fake.list_data().await.unwrap().len(), 1);
    }
}
