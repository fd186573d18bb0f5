//! Sweeps, and what they must never touch.

use std::time::Duration;

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_server::access::{self, For};
use ligand_server::backend::{Backend as _, Key, Spec};
use ligand_server::journal::Work;
use ligand_server::liveness::sweeps::{
    LapsedCredentials, Orphans, PhantomBusy, Retention, StaleCredentials, end_stale, stale_holders,
};
use ligand_server::reconcile::{Pass, Reconciler};
use serde_json::json;

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::{ADMIN, TestApp, both};

async fn sweep(app: &TestApp, of: impl Reconciler) -> Pass {
    of.pass(&app.app).await.unwrap()
}

/// A workspace in its second generation, whose first left a live credential behind; its backend has nothing
/// of it. Everything is six minutes old.
async fn leftover(app: &TestApp) -> (String, Agent, Agent) {
    let (id, first) = online(app, "a").await;
    app.fake.kill(app.fake.newest(id.parse().unwrap()).unwrap().key, 9);
    app.settle().await;
    let second = Agent::of(app, &id);
    second.register(app).await.ok();
    app.settle().await;
    app.sql("UPDATE credentials SET state = 'active', ended_at = NULL WHERE kind = 'instance' AND generation = 1").await;
    app.fake.lose(app.fake.newest(id.parse().unwrap()).unwrap().key);
    app.app.clock.advance(Duration::from_secs(360));
    (id, first, second)
}

/// What it is told as, at a route that takes any live credential of the workspace.
async fn lives(app: &TestApp, agent: &Agent) -> bool {
    let path = format!("/workspaces/{}/why", agent.workspace);
    app.call("GET", &path, agent.token.as_deref(), None).await.status == 200
}

both! {
    async fn os_14_os_17_a_leftover_is_swept_and_the_current_credential_is_not(app: TestApp) {
        let (_, first, second) = leftover(&app).await;
        assert!(app.fake.list_owned().await.unwrap().is_empty(), "an empty list is an answer");
        let pass = sweep(&app, StaleCredentials).await;
        assert_eq!((pass.looked_at, pass.steps), (1, 1));
        assert!(!lives(&app, &first).await);
        assert!(lives(&app, &second).await, "idle and without an instance, and yet current");
        let again = sweep(&app, StaleCredentials).await;
        assert_eq!((again.looked_at, again.steps), (0, 0));
    }

    async fn os_14_what_is_used_or_younger_than_five_minutes_is_spared(app: TestApp) {
        let (_, first, _) = leftover(&app).await;
        let (holders, _) = stale_holders(&app.app).await.unwrap();
        assert_eq!(holders.len(), 1);
        // Used between the look and the act.
        assert!(lives(&app, &first).await);
        assert_eq!(end_stale(&app.app, holders[0], app.app.clock.now()).await.unwrap(), 0);
        app.app.clock.advance(Duration::from_secs(299));
        assert_eq!(sweep(&app, StaleCredentials).await.steps, 0);
        app.app.clock.advance(Duration::from_secs(1));
        assert_eq!(sweep(&app, StaleCredentials).await.steps, 1);
    }

    async fn os_16_removed_and_starting_workspaces_are_no_candidates(app: TestApp) {
        leftover(&app).await;
        for status in ["provisioning", "removed"] {
            let text = if status == "removed" { "UPDATE workspaces SET status = 'removed'" } else { "UPDATE workspaces SET status = 'provisioning'" };
            app.sql(text).await;
            assert_eq!(sweep(&app, StaleCredentials).await, Pass::default(), "{status}");
        }
    }

    async fn os_15_without_a_backend_nothing_is_looked_at(app: TestApp) {
        leftover(&app).await;
        app.sql("UPDATE workspaces SET backend = 'elsewhere'").await;
        assert_eq!(sweep(&app, StaleCredentials).await, Pass::default());
    }

    async fn os_18_external_workspaces_are_no_candidates(app: TestApp) {
        let id = unclaimed(&app).await;
        let answer = Agent::with(&id, None).register(&app).await.ok();
        let agent = Agent::with(&id, answer["auth_token"].as_str());
        agent.beat(&app).await.ok();
        app.sql("UPDATE workspaces SET current_generation = 5, newest_generation = 5").await;
        app.app.clock.advance(Duration::from_secs(3600));
        assert_eq!(sweep(&app, StaleCredentials).await, Pass::default());
        assert!(lives(&app, &agent).await);
    }

    async fn os_19_the_first_failure_ends_the_pass(app: TestApp) {
        let (_, first, _) = leftover(&app).await;
        app.sql("ALTER TABLE credentials RENAME TO hidden").await;
        assert!(StaleCredentials.pass(&app.app).await.is_err());
        app.sql("ALTER TABLE hidden RENAME TO credentials").await;
        assert_eq!(sweep(&app, StaleCredentials).await.steps, 1);
        assert!(!lives(&app, &first).await);
    }

    async fn os_20_a_credential_minted_between_the_look_and_the_act_stays(app: TestApp) {
        let (id, first, second) = leftover(&app).await;
        let (holders, _) = stale_holders(&app.app).await.unwrap();
        let id: WorkspaceId = id.parse().unwrap();
        assert_eq!(holders, [id]);
        // Even of the old generation.
        let mut work = Work::begin(&app.app).await.unwrap();
        let token = access::mint(&app.app, &mut work, id, For::Start(Generation::new(1))).await.unwrap();
        work.commit().await.unwrap();
        assert_eq!(end_stale(&app.app, id, app.app.clock.now()).await.unwrap(), 1);
        let fresh = Agent::with(&id.to_string(), Some(token.reveal()));
        assert_eq!((lives(&app, &first).await, lives(&app, &fresh).await, lives(&app, &second).await), (false, true, true));
    }

    async fn os_09_os_10_os_11_only_instances_that_no_row_names_are_ended(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let starting = app.create("b").await;
        app.settle().await;
        let unknown = Key { workspace: WorkspaceId::from_random([7; 16]), generation: Generation::new(1) };
        let ended = Key { workspace: id.parse().unwrap(), generation: Generation::new(9) };
        for key in [unknown, ended] {
            let credential = app.app.ids.token();
            app.fake.ensure(Spec { key, command: Vec::new(), env: Default::default(), credential }).await.unwrap();
        }
        let pass = sweep(&app, Orphans).await;
        assert_eq!((pass.looked_at, pass.steps, pass.failed), (4, 2, None));
        let left: Vec<String> = app.fake.instances().iter().map(|it| it.key.workspace.to_string()).collect();
        assert_eq!(left.len(), 2);
        assert!(left.contains(&id) && left.contains(&starting));
        assert_eq!(sweep(&app, Orphans).await.steps, 0);
    }

    async fn a_phantom_is_not_busy_and_an_agent_that_beats_is_none(app: TestApp) {
        let (silent, agent) = online(&app, "a").await;
        let (busy, beating) = online(&app, "b").await;
        let work = json!({"active_tasks": 3, "current_task": "thinking"});
        agent.beat_with(&app, work.clone()).await.ok();
        app.app.clock.advance(Duration::from_secs(599));
        beating.beat_with(&app, work).await.ok();
        assert_eq!(sweep(&app, PhantomBusy).await.steps, 0);
        app.app.clock.advance(Duration::from_secs(1));
        assert_eq!(sweep(&app, PhantomBusy).await.steps, 1);
        assert_eq!(app.workspace(&silent).await["active_tasks"], 0);
        assert_eq!(app.workspace(&busy).await["active_tasks"], 3);
        assert!(app.journal(&silent).await.contains(&"swept".to_owned()));
    }

    async fn what_nobody_used_in_time_lapses_in_the_database_too(app: TestApp) {
        let id = unclaimed(&app).await;
        Agent::with(&id, None).register(&app).await.ok();
        app.app.clock.advance(Duration::from_secs(599));
        assert_eq!(sweep(&app, LapsedCredentials).await.steps, 0);
        app.app.clock.advance(Duration::from_secs(1));
        assert_eq!(sweep(&app, LapsedCredentials).await.steps, 1);
        assert_eq!(app.get("/admin/liveness").await.ok()["credentials_live"], 0);
        // A pending credential of a start lapses with its start alone.
        app.create("b").await;
        app.settle().await;
        app.app.clock.advance(Duration::from_secs(3600));
        assert_eq!(sweep(&app, LapsedCredentials).await.steps, 0);
    }

    async fn old_events_go_the_story_of_the_present_stays_and_watchers_are_told(app: TestApp) {
        let (id, _, _) = leftover(&app).await;
        let before = app.journal(&id).await;
        let pass = sweep(&app, Retention::new(&app.app)).await;
        assert_eq!(pass, Pass::default());
        app.app.clock.advance(Duration::from_secs(91 * 24 * 3600));
        app.create("fresh").await;
        let mut gone = 0;
        loop {
            let pass = sweep(&app, Retention::new(&app.app)).await;
            gone += pass.steps;
            if pass.steps == 0 {
                break;
            }
        }
        assert!(gone > 0 && app.events(&id).await.is_empty());
        let after = app.journal(&id).await;
        assert!(after.len() < before.len() && after.contains(&"created".to_owned()), "{after:?}");
        assert!(after.ends_with(&["planned", "started", "registered"].map(str::to_owned)), "{after:?}");
        let request = axum::http::Request::builder().uri("/events/stream?after=0").header("authorization", format!("Bearer {ADMIN}"));
        let response = app.response(request.body(axum::body::Body::empty()).unwrap()).await;
        let mut body = response.into_body().into_data_stream();
        let mut text = String::new();
        while !text.contains("STREAM_GAP") {
            let chunk = futures_util::StreamExt::next(&mut body).await.unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        assert!(text.contains("are not kept any more"), "{text}");
    }
}

#[cfg(feature = "mutants")]
mod mutants {
    use ligand_domain::guards::{Guard, Guards};

    use super::*;
    use crate::support::engine::on_each;

    #[test]
    fn a_sweep_that_spares_nobody_takes_the_current_credential() {
        on_each("spares_nobody", |db| async {
            let without = Guards::without(Guard::SweepSparesCurrent);
            let app = TestApp::new(db, |config| config.guards = without);
            let (_, _, second) = leftover(&app).await;
            sweep(&app, StaleCredentials).await;
            assert!(!lives(&app, &second).await);
        });
    }

    #[test]
    fn a_sweep_in_two_statements_takes_what_came_between() {
        on_each("two_statements", |db| async {
            let without = Guards::without(Guard::SweepInOneStatement);
            let app = TestApp::new(db, |config| config.guards = without);
            let (id, _, second) = leftover(&app).await;
            stale_holders(&app.app).await.unwrap();
            end_stale(&app.app, id.parse().unwrap(), app.app.clock.now()).await.unwrap();
            assert!(!lives(&app, &second).await);
        });
    }
}
