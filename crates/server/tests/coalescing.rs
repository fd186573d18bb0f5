//! Restarts that are asked for at once: few cycles, one at a time, and the last one carries every write.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use ligand_domain::credential::TokenHash;
use ligand_domain::secrets::proof;
use ligand_domain::time::Timestamp;
use ligand_server::app::App;
use ligand_server::backend::fake::Fault;
use ligand_server::reconcile::{Pass, Reconciler, drive};
use ligand_server::workspaces::WorkspaceReconciler;
use serde_json::json;

use crate::replicas::with_two;
use crate::support::agent::{Agent, online};
use crate::support::{TestApp, a_moment, both};

/// Restarts that are asked for at the same time.
const REQUESTS: usize = 50;
/// What is written between them, and where an instance finds it.
const WRITTEN: (&str, &str) = ("API_KEY", "written in the middle");

/// A write that makes a restart due, in the same transaction.
async fn write(app: &TestApp, id: &str) {
    let secret = json!({"key": WRITTEN.0, "value": WRITTEN.1});
    app.post(&format!("/workspaces/{id}/secrets"), secret).await.ok();
}

async fn restart(app: &TestApp, id: &str) {
    app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
}

/// How many cycles there were, the first start included.
async fn cycles(app: &TestApp, id: &str) -> usize {
    app.journal(id).await.iter().filter(|kind| *kind == "planned").count()
}

fn running(app: &TestApp) -> usize {
    app.fake.instances().iter().filter(|it| it.exit.is_none()).count()
}

/// All requests at once, the write among them, while every server reconciles. The agent of a start registers only
/// afterwards: a cycle takes longer than it takes to ask for one.
async fn burst(servers: &[&TestApp], id: &str) {
    let answered = Cell::new(0);
    let calls = (0..REQUESTS).map(|n| {
        let (server, answered) = (servers[n % servers.len()], &answered);
        async move {
            match n {
                _ if n == REQUESTS / 2 => write(server, id).await,
                _ => restart(server, id).await,
            }
            answered.set(answered.get() + 1);
        }
    });
    let reconcile = async {
        while answered.get() < REQUESTS {
            join_all(servers.iter().map(|server| server.pass())).await;
            assert!(running(servers[0]) <= 1, "{:?}", servers[0].fake.instances());
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(join_all(calls), reconcile);
}

/// Agents register as often as there is a new one, and prove what it was given.
async fn come_up(app: &TestApp, id: &str) {
    for _ in 0..4 {
        app.settle().await;
        assert_eq!(running(app), 1, "{:?}", app.fake.instances());
        let agent = Agent::of(app, id);
        let hash = TokenHash::of(agent.token.as_deref().unwrap());
        let env = app.env(id);
        let held = env.get(WRITTEN.0).map(|value| (WRITTEN.0, proof(&hash, WRITTEN.0, value)));
        let receipt: BTreeMap<_, _> = held.into_iter().collect();
        let declared =
            json!({"version": "1", "features": ["paced", "receipt"], "receipt": receipt});
        agent.register_with(app, json!({"ligand": declared}), &[]).await.ok();
    }
    app.settle().await;
}

async fn holds(app: &TestApp, id: &str) {
    let (first, all) = (1, cycles(app, id).await);
    assert!((1..=2).contains(&(all - first)), "{} cycles for {REQUESTS} requests", all - first);
    assert_eq!(app.env(id).get(WRITTEN.0).map(String::as_str), Some(WRITTEN.1));
    let seen = app.workspace(id).await;
    assert!(
        !seen["evidence"].to_string().contains("receipt"),
        "it was asked for, and is complete: {seen}"
    );
    assert_eq!((&seen["status"], &seen["generation"]), (&json!("online"), &json!(all)));
    assert_eq!((app.fake.instances().len(), app.fake.starts()), (1, all as u64));
}

both! {
    async fn co_01_co_02_co_05_fifty_restarts_and_a_write_are_two_cycles_at_most(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        burst(&[&app], &id).await;
        come_up(&app, &id).await;
        holds(&app, &id).await;
    }

    async fn co_02_what_is_written_during_a_cycle_is_carried_by_the_next(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        restart(&app, &id).await;
        app.settle().await;
        assert_eq!(app.env(&id).get(WRITTEN.0), None, "the first cycle has loaded what there was");
        write(&app, &id).await;
        app.settle().await;
        assert_eq!(cycles(&app, &id).await, 2, "one cycle at a time");
        come_up(&app, &id).await;
        assert_eq!(cycles(&app, &id).await, 3);
        holds(&app, &id).await;
    }

    async fn co_03_a_pass_that_panics_keeps_its_workspace_from_nobody(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        // Its backend is slow, so that the panic finds the pass amid its work, with its claim.
        app.fake.plan(Fault::Late(Duration::from_secs(5)));
        restart(&app, &id).await;
        let panics = Arc::new(Panics::default());
        drive(&app.app, Arc::clone(&panics) as Arc<dyn Reconciler>);
        while panics.0.load(Ordering::Relaxed) < 2 {
            a_moment(5).await;
        }
        // The reconciler lives on, and what the panic left behind runs out.
        app.settle().await;
        assert_eq!((cycles(&app, &id).await, app.fake.starts()), (1, 1));
        app.later(10).await;
        assert_eq!((cycles(&app, &id).await, app.fake.starts()), (2, 2));
    }

    async fn e2e_05_two_restarts_and_a_write_in_the_same_second_start_two_instances_at_most(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let reconcile = async {
            for _ in 0..8 {
                app.pass().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(restart(&app, &id), write(&app, &id), restart(&app, &id), reconcile);
        come_up(&app, &id).await;
        holds(&app, &id).await;
    }
}

#[test]
fn co_01_co_02_co_05_over_two_replicas() {
    with_two("coalescing", async |a, b| {
        let (id, _) = online(a, "a").await;
        burst(&[a, b], &id).await;
        come_up(a, &id).await;
        holds(b, &id).await;
    });
}

/// The reconciler of workspaces: its first pass panics amid its work, and the next never ends. Counts them.
#[derive(Default)]
struct Panics(AtomicU32);

impl Reconciler for Panics {
    fn name(&self) -> &'static str {
        WorkspaceReconciler.name()
    }

    fn does(&self) -> &'static str {
        WorkspaceReconciler.does()
    }

    fn workers(&self) -> usize {
        1
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, Result<Pass>> {
        async move {
            if self.0.fetch_add(1, Ordering::Relaxed) > 0 {
                return std::future::pending().await;
            }
            tokio::select! {
                pass = WorkspaceReconciler.pass(app) => pass,
                // A panic, without its noise.
                () = a_moment(50) => std::panic::resume_unwind(Box::new("amid a pass")),
            }
        }
        .boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, Result<Option<Timestamp>>> {
        WorkspaceReconciler.next_due(app)
    }
}
