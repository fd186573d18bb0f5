//! The contract's health sweep, by what becomes of workspaces: here the reconciler asks the backend.

use ligand_server::backend::fake::{Call, Fault, Planned};
use ligand_server::reconcile::{Reconciler as _, drive};
use ligand_server::workspaces::WorkspaceReconciler;
use serde_json::json;

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::modes::adjusted;
use crate::support::{TestApp, both};

async fn status(app: &TestApp, workspace: &str) -> String {
    app.workspace(workspace).await["status"].as_str().unwrap().to_owned()
}

async fn told(app: &TestApp, workspace: &str, event: &str) -> usize {
    app.events(workspace).await.iter().filter(|name| *name == event).count()
}

both! {
    async fn hs_01_what_its_backend_says_does_not_run_is_offline_once_and_replaced(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        // The replacement waits, so that what comes before it can be seen.
        app.fake.plan(Planned::once(Fault::Silence).at(&[Call::Ensure]).times(3));
        app.fake.kill(app.fake.newest(workspace.parse().unwrap()).unwrap().key, 9);
        app.settle().await;
        assert_eq!(told(&app, &workspace, "WORKSPACE_OFFLINE").await, 1);
        assert_eq!(app.workspace(&workspace).await["url"], "", "nobody answers there any more");
        for _ in 0..30 {
            app.later(5).await;
        }
        Agent::of(&app, &workspace).register(&app).await.ok();
        assert_eq!((status(&app, &workspace).await, app.fake.starts()), ("online".to_owned(), 2));
        assert_eq!(told(&app, &workspace, "WORKSPACE_OFFLINE").await, 1);
    }

    async fn hs_02_what_runs_is_left_as_it_is(app: TestApp) {
        let (workspace, agent) = online(&app, "a").await;
        let before = (app.events(&workspace).await, app.journal(&workspace).await, app.workspace(&workspace).await["evidence"].clone());
        for _ in 0..20 {
            app.later(15).await;
            agent.beat(&app).await.ok();
        }
        let after = (app.events(&workspace).await, app.journal(&workspace).await, app.workspace(&workspace).await["evidence"].clone());
        assert_eq!((before, app.fake.starts()), (after, 1));
    }

    async fn hs_01_a_backend_that_fails_is_no_evidence(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.fake.plan(Planned::once(Fault::Silence).at(&[Call::Inspect]).times(0));
        app.fake.kill(app.fake.newest(workspace.parse().unwrap()).unwrap().key, 9);
        app.settle().await;
        assert_eq!((told(&app, &workspace, "WORKSPACE_OFFLINE").await, app.fake.starts()), (0, 1));
    }

    async fn hs_07_a_look_that_fails_is_reported_and_the_next_one_looks_again(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.fake.kill(app.fake.newest(workspace.parse().unwrap()).unwrap().key, 9);
        app.sql("ALTER TABLE instances RENAME TO hidden").await;
        app.sql("UPDATE workspaces SET due_at = 1").await;
        let pass = WorkspaceReconciler.pass(&app.app).await.unwrap();
        assert!(pass.looked_at == 1 && pass.failed.is_some(), "{pass:?}");
        app.sql("ALTER TABLE hidden RENAME TO instances").await;
        assert_eq!(told(&app, &workspace, "WORKSPACE_OFFLINE").await, 0);
        app.later(3).await;
        assert_eq!((told(&app, &workspace, "WORKSPACE_OFFLINE").await, app.fake.starts()), (1, 2));
    }
}

adjusted! { |config| config.backend = None;
    async fn hs_03_a_server_without_a_backend_runs_and_stops(app: TestApp) {
        let reconciler = std::sync::Arc::new(WorkspaceReconciler);
        drive(&app.app, reconciler);
        tokio::task::yield_now().await;
        app.app.stop.cancel();
        app.app.tasks.close();
        let stopped = tokio::time::timeout(std::time::Duration::from_secs(20), app.app.tasks.wait());
        assert!(stopped.await.is_ok(), "nothing holds it up");
    }

    async fn hs_11_without_a_backend_external_workspaces_are_watched(app: TestApp) {
        let workspace = unclaimed(&app).await;
        Agent::with(&workspace, None).register_with(&app, json!({"ligand": null}), &[]).await.ok();
        app.later(80).await;
        assert_eq!(status(&app, &workspace).await, "online");
        app.later(200).await;
        assert_eq!(status(&app, &workspace).await, "awaiting_agent");
        assert_eq!(told(&app, &workspace, "WORKSPACE_AWAITING_AGENT").await, 1);
    }
}
