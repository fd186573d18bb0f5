//! Every workspace leaves a backend.

use std::time::Duration;

use ligand_server::backend::fake::{Call, Fault, Planned};
use serde_json::{Value, json};

use crate::support::standby::{Move, completed, pass, placed};
use crate::support::{TestApp, both};

async fn drain(app: &TestApp, more: Value) -> Value {
    let mut body = json!({"backend": "fake", "to": "other"});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = app.post("/admin/drains", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body
}

async fn look(app: &TestApp, id: &Value) -> Value {
    app.get(&format!("/admin/drains/{}", id.as_str().unwrap())).await.ok()
}

async fn all(app: &TestApp, moves: &mut [Move]) {
    pass(app).await;
    app.settle().await;
    for it in moves.iter_mut() {
        it.agents(app).await;
    }
    app.app.clock.advance(Duration::from_secs(5));
}

/// Until a drain is over. Gives it, and how many were on their way at once.
async fn over(app: &TestApp, moves: &mut [Move], id: &Value) -> (Value, i64) {
    let mut most = 0;
    for _ in 0..300 {
        let now = look(app, id).await;
        most = most.max(now["open"].as_i64().unwrap());
        if now["ended_at"].is_string() {
            return (now, most);
        }
        all(app, moves).await;
    }
    panic!("it is not over: {:#}", look(app, id).await);
}

both! {
    async fn a_drain_moves_everything_so_many_at_a_time(app: TestApp) {
        let app = app.with_other();
        let mut moves = Vec::new();
        for number in 0..5 {
            moves.push(placed(&app, &format!("a{number}"), completed).await.0);
        }
        let begun = drain(&app, json!({"concurrency": 2})).await;
        assert_eq!((&begun["total"], &begun["waiting"], &begun["state"]), (&json!(5), &json!(5), &json!("running")));
        let again = app.post("/admin/drains", json!({"backend": "fake", "to": "other"})).await;
        again.refuses(409, "backend cannot be drained");
        let (done, most) = over(&app, &mut moves, &begun["id"]).await;
        assert_eq!((&done["state"], &done["migrated"], most), (&json!("done"), &json!(5), 2), "{done}");
        for it in &moves {
            assert_eq!(app.workspace(&it.id).await["backend"], "other");
            assert_eq!(it.latest(&app).await["drain_id"], begun["id"]);
        }
        assert!(app.fake.instances().is_empty());
        assert_eq!(app.get("/admin/drains").await.ok()["drains"][0]["id"], begun["id"]);
    }

    async fn a_drain_stops_after_a_failure_and_says_which_and_why(app: TestApp) {
        let app = app.with_other();
        let mut moves = vec![placed(&app, "bad", completed).await.0];
        for number in 0..3 {
            moves.push(placed(&app, &format!("good{number}"), completed).await.0);
        }
        app.ask(&format!("/workspaces/{}/pause", moves[3].id)).await.ok();
        let begun = drain(&app, json!({"concurrency": 1})).await;
        let id = begun["id"].clone();
        pass(&app).await;
        let target = app.other().newest(moves[0].id.parse().unwrap()).unwrap();
        app.other().kill(target.key, 9);
        for _ in 0..60 {
            all(&app, &mut moves).await;
        }
        let stopped = look(&app, &id).await;
        assert_eq!((&stopped["state"], &stopped["waiting"], &stopped["migrated"]), (&json!("stopped"), &json!(3), &json!(0)), "{stopped}");
        assert_eq!((&stopped["failed"][0]["workspace"], stopped["failed"].as_array().unwrap().len()), (&json!("bad"), 1));
        assert!(stopped["failed"][0]["cause"].as_str().unwrap().contains("signal 9"), "{stopped}");
        app.post(&format!("/admin/drains/{}/resume", id.as_str().unwrap()), json!({})).await.ok();
        let (done, _) = over(&app, &mut moves[..3], &id).await;
        assert_eq!((&done["state"], &done["migrated"]), (&json!("done"), &json!(2)), "{done}");
        let kept = &done["failed"][1];
        assert!(kept["cause"].as_str().unwrap().contains("paused"), "{done}");
        app.post(&format!("/admin/drains/{}/pause", id.as_str().unwrap()), json!({})).await.refuses(409, "drain is over");
    }

    async fn a_drain_rests_and_is_aborted(app: TestApp) {
        let app = app.with_other();
        let mut moves = Vec::new();
        for number in 0..3 {
            moves.push(placed(&app, &format!("a{number}"), completed).await.0);
        }
        let id = drain(&app, json!({"concurrency": 1})).await["id"].clone();
        let ask = async |verb: &str| app.post(&format!("/admin/drains/{}/{verb}", id.as_str().unwrap()), json!({})).await;
        pass(&app).await;
        assert_eq!(ask("pause").await.ok()["state"], "paused");
        moves[0].done(&app).await;
        for _ in 0..10 {
            all(&app, &mut moves).await;
        }
        let rests = look(&app, &id).await;
        assert_eq!((&rests["migrated"], &rests["waiting"], &rests["open"]), (&json!(1), &json!(2), &json!(0)), "{rests}");
        ask("resume").await.ok();
        pass(&app).await;
        assert_eq!(look(&app, &id).await["open"], 1);
        ask("abort").await.ok();
        let (done, _) = over(&app, &mut moves, &id).await;
        assert_eq!((&done["state"], &done["migrated"]), (&json!("aborted"), &json!(1)), "{done}");
        let causes: Vec<&str> = done["failed"].as_array().unwrap().iter().map(|it| it["cause"].as_str().unwrap()).collect();
        assert_eq!(causes, ["it was aborted", "the drain was aborted before its turn"]);
        assert_eq!(app.workspace(&moves[1].id).await["backend"], "fake");
    }

    async fn a_place_is_free_at_the_cut_over_and_a_drain_is_done_when_the_last_source_is_gone(app: TestApp) {
        let app = app.with_other();
        let mut moves = Vec::new();
        for number in 0..3 {
            moves.push(placed(&app, &format!("a{number}"), completed).await.0);
        }
        let begun = drain(&app, json!({"concurrency": 1, "grace_seconds": 600})).await;
        assert_eq!(begun["grace_seconds"], 600, "{begun}");
        let mut now = begun.clone();
        for _ in 0..60 {
            now = look(&app, &begun["id"]).await;
            assert!(now["open"].as_i64().unwrap() <= 1, "{now}");
            if now["migrated"] == 3 {
                break;
            }
            all(&app, &mut moves).await;
        }
        assert_eq!((&now["migrated"], &now["retiring"], &now["open"]), (&json!(3), &json!(3), &json!(0)), "{now}");
        assert_eq!((&now["state"], &now["ended_at"]), (&json!("running"), &Value::Null), "{now}");
        assert_eq!(app.fake.instances().len(), 3, "every source has its grace");
        let (done, _) = over(&app, &mut moves, &begun["id"]).await;
        assert_eq!((&done["state"], &done["migrated"], &done["retiring"]), (&json!("done"), &json!(3), &json!(0)), "{done}");
        assert!(app.fake.instances().is_empty());
    }

    async fn while_one_is_undone_that_may_be_the_last_failure_no_further_one_is_begun(app: TestApp) {
        let app = app.with_other();
        let mut moves = Vec::new();
        for name in ["bad", "good", "late"] {
            moves.push(placed(&app, name, completed).await.0);
        }
        let id = drain(&app, json!({"concurrency": 2, "grace_seconds": 0})).await["id"].clone();
        pass(&app).await;
        let target = app.other().newest(moves[0].id.parse().unwrap()).unwrap();
        app.other().plan(Planned::once(Fault::Silence).at(&[Call::Destroy]).times(5));
        app.other().kill(target.key, 9);
        let (mut undone, mut now) = (0, Value::Null);
        for _ in 0..300 {
            now = look(&app, &id).await;
            if now["state"] == "stopped" {
                break;
            }
            assert_eq!(now["waiting"], 1, "{now}");
            undone += u32::from(now["migrated"] == 1 && moves[0].latest(&app).await["state"] == "undoing");
            all(&app, &mut moves).await;
        }
        assert!(undone > 1, "it took a while to undo it");
        assert_eq!((&now["state"], &now["migrated"], &now["waiting"]), (&json!("stopped"), &json!(1), &json!(1)), "{now}");
        assert_eq!(now["failed"][0]["workspace"], "bad");
    }

    async fn what_a_drain_says_is_looked_at(app: TestApp) {
        let app = app.with_other();
        for (body, field) in [
            (json!({"to": "other"}), "backend"),
            (json!({"backend": "fake", "to": "fake"}), "to"),
            (json!({"backend": "moon", "to": "other"}), "backend"),
            (json!({"backend": "fake", "to": "other", "concurrency": 0}), "concurrency"),
            (json!({"backend": "fake", "to": "other", "grace_seconds": 604_801}), "grace_seconds"),
        ] {
            let answer = app.post("/admin/drains", body.clone()).await;
            let detail = answer.body["detail"].as_str().unwrap_or_default().to_owned();
            assert!(answer.status == 400 && detail.contains(field), "{body}: {answer:?}");
        }
        assert_eq!(app.get("/admin/drains/nothing").await.status, 400);
        app.get("/admin/drains/4b6cb9c2-6a1e-4f0b-9d65-3ed0a9f5a1d1").await.refuses(404, "drain not found");
        // Nothing to move: it is over at once.
        let id = drain(&app, json!({})).await["id"].clone();
        pass(&app).await;
        assert_eq!(look(&app, &id).await["state"], "done");
    }

    async fn fifty_leave_eight_at_a_time(app: TestApp) {
        let app = app.with_other();
        let mut moves = Vec::new();
        for number in 0..50 {
            moves.push(placed(&app, &format!("a{number}"), completed).await.0);
        }
        let begun = drain(&app, json!({"concurrency": 8})).await;
        let (done, most) = over(&app, &mut moves, &begun["id"]).await;
        assert_eq!((&done["migrated"], most), (&json!(50), 8), "{done}");
        assert!(app.fake.instances().is_empty());
        assert_eq!(app.other().instances().len(), 50);
    }
}
