//! Two servers on one PostgreSQL database.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt as _;
use ligand_server::reconcile::{Reconciler as _, drive};
use ligand_server::replicas::join;
use ligand_server::workspaces::WorkspaceReconciler;
use serde_json::json;

use crate::support::agent::{Agent, online};
use crate::support::engine::{a_postgres, run};
use crate::support::{ADMIN, TestApp};

/// Run a body with two servers, where there is a PostgreSQL.
pub(crate) fn with_two(name: &str, body: impl AsyncFn(&TestApp, &TestApp)) {
    run(async {
        let Some((db, schema)) = a_postgres(name).await else { return };
        let first = TestApp::new(db, |_| {});
        let second = first.replica(schema.open().await);
        body(&first, &second).await;
        for app in [first, second] {
            app.app.stop.cancel();
            app.app.tasks.close();
            app.app.tasks.wait().await;
            app.app.db.close().await;
        }
        schema.drop().await;
    });
}

/// Both hear each other from here on: a bell rung at one was heard at the other, and the other way round.
async fn acquainted(a: &TestApp, b: &TestApp) {
    for app in [a, b] {
        // There has to be a bell for it to be rung.
        drop(app.app.bells.of("workspaces"));
        join(&app.app);
    }
    for (from, to) in [(a, b), (b, a)] {
        // The first bell is that of beginning to listen.
        to.app.bells.of("workspaces").notified().await;
        let heard = async {
            from.app.bells.ring();
            to.app.bells.of("workspaces").notified().await;
        };
        heard.await;
    }
    // What was rung here was rung for here, too.
    for app in [a, b] {
        let _ =
            tokio::time::timeout(Duration::ZERO, app.app.bells.of("workspaces").notified()).await;
    }
}

/// Read a stream until it has said `what`.
async fn hears(app: &TestApp, path: &str, what: &str) {
    let request = Request::get(path).header("authorization", format!("Bearer {ADMIN}"));
    let response = app.response(request.body(Body::empty()).unwrap()).await;
    let mut chunks = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains(what) {
        text.push_str(&String::from_utf8_lossy(&chunks.next().await.unwrap().unwrap()));
    }
}

#[test]
fn what_one_commits_the_other_is_told() {
    with_two("told", async |a, b| {
        acquainted(a, b).await;
        let mut commits = b.app.hub.commits();
        a.create("somebody").await;
        a.settle().await;
        let last = *a.app.hub.commits().borrow();
        assert!(last > 0);
        commits.wait_for(|seen| *seen >= last).await.unwrap();
        hears(b, "/events/stream?after=0", "WORKSPACE_PROVISIONING").await;
        // It is told once, and does not come back as news.
        assert_eq!(*b.app.hub.own_commits().borrow(), 0);
    });
}

#[test]
fn what_one_makes_due_the_other_is_rung_for() {
    with_two("rung", async |a, b| {
        acquainted(a, b).await;
        a.create("somebody").await;
        b.app.bells.of("workspaces").notified().await;
        let rings = *b.app.bells.rings().borrow();
        assert_eq!(rings, 1, "that of getting acquainted: what is heard is not passed on");
        assert_eq!(b.pass().await.looked_at, 1);
    });
}

#[test]
fn servers_that_never_hear_of_each_other_lose_nothing() {
    with_two("deaf", async |a, b| {
        drive(&b.app, Arc::new(WorkspaceReconciler));
        let id = a.create("somebody").await;
        hears(b, "/events/stream?after=0", "WORKSPACE_PROVISIONING").await;
        // Nobody rang: the reconciler of the other looked by itself.
        while a.fake.newest(id.parse().unwrap()).is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!((*b.app.hub.commits().borrow() > 0, a.fake.starts()), (true, 1));
    });
}

#[test]
fn two_servers_never_take_the_same_row() {
    with_two("claims", async |a, b| {
        for n in 0..16 {
            a.create(&format!("w{n}")).await;
        }
        let passes =
            (0..32).map(|n| WorkspaceReconciler.pass(if n % 2 == 0 { &a.app } else { &b.app }));
        let passes = futures_util::future::join_all(passes).await;
        let taken: u64 = passes.into_iter().map(|pass| pass.unwrap().looked_at).sum();
        a.settle().await;
        assert_eq!((taken, a.fake.starts()), (16, 16));
    });
}

#[test]
fn what_one_revokes_the_other_refuses_at_the_next_call() {
    with_two("revoked", async |a, b| {
        let (id, agent) = online(a, "somebody").await;
        let path = format!("/registry/{id}/peers");
        let look =
            async || b.call("GET", &path, agent.token.as_deref(), None).await.status.as_u16();
        agent.beat(b).await.ok();
        assert_eq!(look().await, 200);
        a.delete(&format!("/workspaces/{id}")).await.ok();
        assert_eq!(look().await, 401);
        agent.beat(b).await.refuses(401, "invalid workspace auth token");
        Agent::with(&id, None)
            .register(b)
            .await
            .is(401, &json!({"error": "missing workspace auth token"}));
    });
}

#[test]
fn a_turn_goes_on_while_its_agent_beats_at_another_server() {
    with_two("silence", async |a, b| {
        // It takes connections and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        a.fake.report_address(Some(format!("http://{}", silent.local_addr().unwrap())));
        let (id, agent) = online(a, "somebody").await;
        let idle = json!({"runtime_metadata": {"idle_timeout_seconds": 1}});
        agent.beat_with(a, idle.clone()).await.ok();
        let path = format!("/workspaces/{id}/a2a");
        let body =
            json!({"method": "message/send", "params": {"message": {"role": "user", "parts": []}}});
        let mut turn = std::pin::pin!(a.call("POST", &path, Some(ADMIN), Some(body)));
        for _ in 0..6 {
            a.app.clock.advance(Duration::from_millis(400));
            agent.beat_with(b, idle.clone()).await.ok();
            let ended = tokio::time::timeout(Duration::from_millis(400), &mut turn).await;
            assert!(
                ended.is_err(),
                "more than two terms of silence here, and beats there: {ended:?}"
            );
        }
        a.app.clock.advance(Duration::from_secs(2));
        let queued = turn.await;
        assert_eq!(
            (queued.status.as_u16(), &queued.body["queued"]),
            (202, &json!(true)),
            "{queued:?}"
        );
    });
}
