//! From provider to provider: the platform moves, the fleet asks and follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::platform::{Call, Platform};
use crate::support::{TestFleet, WORKSPACE, asked, both};

const MIGRATION: &str = "22222222-2222-4222-8222-222222222222";

fn migration(state: &str, cause: Option<&str>) -> Value {
    json!({"id": MIGRATION, "workspace_id": WORKSPACE, "from": "a", "to": "bee", "source_generation": 1,
        "state": state, "phase": "probe", "phases": [], "started_at": "2026-01-01T00:00:00Z", "cause": cause})
}

/// A platform whose migrations end so, once `over` is set.
async fn moving(app: &TestFleet, over: &Arc<AtomicBool>, end: &'static str) -> Platform {
    let over = Arc::clone(over);
    let answer = move |call: &Call| {
        if call.what.starts_with("POST") {
            return (202, migration("running", None));
        }
        let cause = (end == "rolled-back").then_some("no room there");
        let state = if over.load(Ordering::Relaxed) { end } else { "running" };
        (200, json!({"migrations": [migration(state, cause)]}))
    };
    let platform = Platform::listen(answer).await;
    let change = json!({"platform_url": platform.url(), "backends": {"b": "bee"}});
    app.operate("PATCH", "/cp/admin/orgs/acme", change).await.is(200);
    platform
}

fn asks(platform: &Platform) -> Vec<Call> {
    platform.calls().into_iter().filter(|call| call.what.ends_with("/migrate")).collect()
}

both! {
    async fn a_workspace_is_moved_by_its_platform(app: TestFleet) {
        let over = Arc::default();
        let platform = moving(&app, &over, "migrated").await;
        app.provision(json!({"generation": 1})).await;
        let path = format!("/cp/admin/workspaces/{WORKSPACE}/migrate-provider");
        app.operate("POST", &path, json!({"provider": "a"})).await.is(400);
        app.operate("POST", &path, json!({"provider": "mars"})).await.is(400);
        let asked = app.operate("POST", &path, json!({"provider": "b"})).await.is(202);
        assert_eq!(asked["workspaces"][0]["state"], "waiting");
        app.operate("POST", &path, json!({"provider": "b"})).await.is(409);
        app.transfer().await;
        let asks = asks(&platform);
        assert_eq!(asks.len(), 1);
        assert_eq!(asks[0].what, format!("POST /admin/workspaces/{WORKSPACE}/migrate"));
        assert_eq!((&asks[0].body["to"], asks[0].authorization.as_str()), (&json!("bee"), format!("Bearer {}", app.token).as_str()));
        app.fleet.clock.advance(std::time::Duration::from_secs(3));
        app.transfer().await;
        let now = app.operate("GET", &path, Value::Null).await.is(200);
        assert_eq!((&now["state"], &now["workspaces"][0]["phase"]), (&json!("running"), &json!("probe")));
        over.store(true, Ordering::Relaxed);
        app.fleet.clock.advance(std::time::Duration::from_secs(3));
        app.transfer().await;
        let done = app.operate("GET", &path, Value::Null).await.is(200);
        assert_eq!((&done["state"], &done["workspaces"][0]["state"]), (&json!("done"), &json!("migrated")));
        assert_eq!(done["workspaces"][0]["migration_id"], MIGRATION);
    }

    async fn a_drain_moves_so_many_at_once_and_stops_when_one_fails(app: TestFleet) {
        let over = Arc::default();
        let platform = moving(&app, &over, "rolled-back").await;
        for number in 1..=4 {
            let id = format!("{number}1111111-1111-4111-8111-111111111111");
            let body = asked(json!({"workspace_id": id, "generation": 1}));
            app.call("POST", "/cp/workspaces/provision", body).await.is(201);
        }
        let path = "/cp/admin/providers/a/drain";
        app.operate("POST", path, json!({"to": "b", "concurrency": 0})).await.is(400);
        app.operate("POST", path, json!({"to": "a"})).await.is(400);
        let begun = app.operate("POST", path, json!({"to": "b", "concurrency": 2})).await.is(202);
        assert_eq!(begun["workspaces"].as_array().unwrap().len(), 4);
        app.transfer().await;
        assert_eq!(asks(&platform).len(), 2);
        over.store(true, Ordering::Relaxed);
        app.fleet.clock.advance(std::time::Duration::from_secs(3));
        app.transfer().await;
        assert_eq!(asks(&platform).len(), 2, "nothing is begun after a failure");
        let all = app.operate("GET", path, Value::Null).await.is(200);
        let drain = &all["drains"][0];
        assert_eq!(drain["state"], "stopped");
        let of = |state: &str| {
            let items = drain["workspaces"].as_array().unwrap().iter();
            items.filter(|item| item["state"] == state).cloned().collect::<Vec<_>>()
        };
        assert_eq!((of("failed").len(), of("waiting").len()), (2, 2));
        assert_eq!(of("failed")[0]["cause"], "no room there");
        let one = format!("/cp/admin/drains/{}", drain["id"].as_str().unwrap());
        assert_eq!(app.operate("GET", &one, Value::Null).await.is(200)["state"], "stopped");
        assert_eq!(app.operate("GET", "/cp/admin/drains", Value::Null).await.is(200)["drains"].as_array().unwrap().len(), 1);
    }

    async fn what_a_platform_refuses_is_the_cause(app: TestFleet) {
        let platform = Platform::listen(|call| match call.what.starts_with("POST") {
            true => (409, json!({"error": "the workspace is not running"})),
            false => (200, json!({"migrations": []})),
        }).await;
        app.operate("PATCH", "/cp/admin/orgs/acme", json!({"platform_url": platform.url()})).await.is(200);
        app.provision(json!({"generation": 1})).await;
        let path = format!("/cp/admin/workspaces/{WORKSPACE}/migrate-provider");
        app.operate("POST", &path, json!({"provider": "b"})).await.is(202);
        app.transfer().await;
        let done = app.operate("GET", &path, Value::Null).await.is(200);
        assert_eq!(done["workspaces"][0]["cause"], "HTTP 409: the workspace is not running");
        assert_eq!(done["workspaces"][0]["state"], "failed");
    }

    async fn an_answer_that_was_lost_is_found_by_asking_what_is_open(app: TestFleet) {
        let platform = Platform::listen(|call| match call.what.starts_with("POST") {
            true => (409, json!({"error": "a migration is open"})),
            false => (200, json!({"migrations": [migration("running", None)]})),
        }).await;
        let change = json!({"platform_url": platform.url(), "backends": {"b": "bee"}});
        app.operate("PATCH", "/cp/admin/orgs/acme", change).await.is(200);
        app.provision(json!({"generation": 1})).await;
        let path = format!("/cp/admin/workspaces/{WORKSPACE}/migrate-provider");
        app.operate("POST", &path, json!({"provider": "b"})).await.is(202);
        app.transfer().await;
        let now = app.operate("GET", &path, Value::Null).await.is(200);
        assert_eq!(now["workspaces"][0]["state"], "asked");
    }

    async fn a_platform_that_is_away_is_asked_again(app: TestFleet) {
        app.operate("PATCH", "/cp/admin/orgs/acme", json!({"platform_url": "http://127.0.0.1:1"})).await.is(200);
        app.provision(json!({"generation": 1})).await;
        let path = format!("/cp/admin/workspaces/{WORKSPACE}/migrate-provider");
        app.operate("POST", &path, json!({"provider": "b"})).await.is(202);
        app.transfer().await;
        let now = app.operate("GET", &path, Value::Null).await.is(200);
        assert_eq!((&now["state"], &now["workspaces"][0]["state"]), (&json!("running"), &json!("waiting")));
        assert!(now["workspaces"][0]["cause"].is_string());
    }

    async fn a_drain_is_paused_goes_on_and_is_aborted(app: TestFleet) {
        let over = Arc::default();
        let platform = moving(&app, &over, "rolled-back").await;
        for number in 1..=3 {
            let id = format!("{number}1111111-1111-4111-8111-111111111111");
            let body = asked(json!({"workspace_id": id, "generation": 1}));
            app.call("POST", "/cp/workspaces/provision", body).await.is(201);
        }
        let begun = app.operate("POST", "/cp/admin/providers/a/drain", json!({"to": "b", "concurrency": 1})).await.is(202);
        let one = format!("/cp/admin/drains/{}", begun["id"].as_str().unwrap());
        let put = async |what: &str| app.operate("POST", &format!("{one}/{what}"), Value::Null).await;
        let later = async || {
            app.fleet.clock.advance(std::time::Duration::from_secs(3));
            app.transfer().await;
        };
        put("resume").await.is(409);
        assert_eq!(put("pause").await.is(200)["state"], "paused");
        put("pause").await.is(409);
        later().await;
        assert_eq!(asks(&platform).len(), 0, "nothing is begun while it is paused");
        put("resume").await.is(200);
        later().await;
        assert_eq!(asks(&platform).len(), 1);
        // It fails, and the drain stops; who has seen that goes on all the same.
        over.store(true, Ordering::Relaxed);
        later().await;
        assert_eq!(app.operate("GET", &one, Value::Null).await.is(200)["state"], "stopped");
        over.store(false, Ordering::Relaxed);
        assert!(put("resume").await.is(200)["ended_at"].is_null());
        later().await;
        assert_eq!(asks(&platform).len(), 2);
        assert_eq!(put("abort").await.is(200)["state"], "aborted");
        put("resume").await.is(409);
        later().await;
        let aborts: Vec<Call> = platform.calls().into_iter().filter(|call| call.what.ends_with("/migrations/abort")).collect();
        assert_eq!(aborts.len(), 1, "{aborts:?}");
        assert!(app.operate("GET", &one, Value::Null).await.is(200)["ended_at"].is_null(), "one is on its way back");
        over.store(true, Ordering::Relaxed);
        later().await;
        let it = app.operate("GET", &one, Value::Null).await.is(200);
        let mut states: Vec<&str> = it["workspaces"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
        states.sort_unstable();
        assert_eq!((&it["state"], it["ended_at"].is_string(), states), (&json!("aborted"), true, vec!["failed", "failed", "kept"]));
        assert_eq!(asks(&platform).len(), 2);
        put("abort").await.is(409);
        app.operate("POST", "/cp/admin/drains/x/abort", Value::Null).await.is(400);
        app.operate("POST", &format!("/cp/admin/drains/{MIGRATION}/abort"), Value::Null).await.is(404);
    }

    async fn a_target_that_was_given_up_is_not_where_a_workspace_is(app: TestFleet) {
        app.provision(json!({"generation": 1, "provider": "a"})).await;
        app.provision(json!({"generation": 2, "provider": "b"})).await;
        let path = format!("/cp/admin/workspaces/{WORKSPACE}/migrate-provider");
        app.operate("POST", &path, json!({"provider": "b"})).await.is(400);
        let given_up = format!("/cp/workspaces/{WORKSPACE}?generation=2");
        app.call("DELETE", &given_up, Value::Null).await.is(200);
        let drain = app.operate("POST", "/cp/admin/providers/a/drain", json!({"to": "b"})).await.is(202);
        assert_eq!(drain["workspaces"].as_array().unwrap().len(), 1);
        assert_eq!(app.operate("POST", &path, json!({"provider": "b"})).await.status, 409, "it is on its way");
        assert_eq!(app.operate("POST", &path, json!({"provider": "a"})).await.status, 400, "it is there");
    }
}
