//! What platforms ask of their instances.

use std::time::Duration;

use ligand_server::backend::fake::{Call, Fault, Planned};
use ligand_server::backend::{Backend as _, Key, Place, Root, Spec};
use serde_json::{Value, json};

use crate::support::{OPERATOR, SECRET, WORKSPACE, asked, both};

fn path(of: &str) -> String {
    format!("/cp/workspaces/{WORKSPACE}{of}")
}

fn id(of: &Value) -> String {
    of["instance_id"].as_str().unwrap().to_owned()
}

fn key(generation: i64) -> Key {
    use ligand_domain::id::Generation;
    Key { workspace: WORKSPACE.parse().unwrap(), generation: Generation::new(generation) }
}

both! {
    async fn an_instance_is_provisioned_seen_stopped_and_ended(app: TestFleet) {
        app.a.report_address(Some("http://10.1.2.3:8000".to_owned()));
        let it = app.provision(json!({"generation": 1, "command": ["ligand", "agent", "--", "x"]})).await;
        assert!(id(&it).starts_with("i-"), "{it}");
        assert_eq!((&it["state"], &it["private_ip"]), (&json!("running"), &json!("10.1.2.3")));
        assert_eq!((&it["workspace_id"], &it["url"]), (&json!(WORKSPACE), &json!("http://10.1.2.3:8000")));
        let started = app.a.newest(WORKSPACE.parse().unwrap()).unwrap();
        assert_eq!(started.command, ["/bin/ligand", "agent", "--", "x"]);
        assert_eq!(started.env["KEY"], "s3cret-value");
        assert_eq!(app.status(&it).await["state"], "running");
        let stopped = app.call("POST", &path(&format!("/stop?instance_id={}", id(&it))), Value::Null).await.is(200);
        assert_eq!(stopped["state"], "stopped");
        let seen = app.status(&it).await;
        assert_eq!((&seen["state"], &seen["exit"]["code"]), (&json!("stopped"), &json!(0)));
        let delete = path(&format!("?instance_id={}&provider=a", id(&it)));
        assert_eq!(app.call("DELETE", &delete, Value::Null).await.is(200)["state"], "gone");
        assert!(app.a.instances().is_empty());
        assert_eq!(app.status(&it).await["state"], "gone");
        assert_eq!(app.call("DELETE", &delete, Value::Null).await.is(200)["state"], "gone", "again is fine");
        let over = app.call("POST", "/cp/workspaces/provision", asked(json!({"generation": 1}))).await.is(409);
        assert_eq!(over["code"], "ended");
    }

    async fn who_brings_nothing_finds_nothing_of_his_predecessors(app: TestFleet) {
        let at = || Place { root: Root::Configs, path: ".auth_token".into() };
        let workspace = WORKSPACE.parse().unwrap();
        let lies = async || app.a.read_file(workspace, at()).await.is_ok();
        let put = async || app.a.write_file(workspace, at(), "of the one before".into()).await.unwrap();
        app.provision(json!({"generation": 1})).await;
        put().await;
        app.provision(json!({"generation": 1})).await;
        assert!(lies().await, "it is his own");
        app.provision(json!({"generation": 2, "env": {"LIGAND_PASSPORT": "p"}})).await;
        assert!(lies().await, "a passport comes before it");
        app.provision(json!({"generation": 3})).await;
        assert!(!lies().await);
        // A platform that names no generations ends nothing of what an instance holds.
        put().await;
        app.provision(json!({})).await;
        assert!(lies().await);
    }

    async fn the_same_call_again_means_the_same_instance(app: TestFleet) {
        let first = app.provision(json!({"generation": 3})).await;
        let again = app.provision(json!({"generation": 3, "env": {"KEY": "another"}})).await;
        assert_eq!((id(&first), app.a.starts()), (id(&again), 1));
        let next = app.provision(json!({"generation": 4})).await;
        assert_ne!(id(&first), id(&next));
        assert_eq!(app.a.instances().len(), 2, "the older one is its platform's business");
        let old = app.call("POST", "/cp/workspaces/provision", asked(json!({"generation": 2}))).await.is(409);
        assert_eq!(old["code"], "superseded");
        let elsewhere = asked(json!({"generation": 4, "provider": "b"}));
        app.call("POST", "/cp/workspaces/provision", elsewhere).await.is(409);
        let of = app.call("GET", &path("/instances?generation=4"), Value::Null).await.is(200);
        assert_eq!(of["instances"].as_array().unwrap().len(), 1);
        assert_eq!(of["instances"][0]["instance_id"], next["instance_id"]);
        let all = app.call("GET", "/cp/workspaces", Value::Null).await.is(200);
        assert_eq!(all["instances"].as_array().unwrap().len(), 2);
        let status = app.call("GET", &path("/status"), Value::Null).await.is(200);
        assert_eq!(status["generation"], 4, "the newest, where none is named");
    }

    async fn two_calls_at_once_start_one_instance(app: TestFleet) {
        let call = || app.call("POST", "/cp/workspaces/provision", asked(json!({})));
        let (one, other) = tokio::join!(call(), call());
        assert_eq!(id(&one.is(201)), id(&other.is(201)));
        assert_eq!(app.a.starts(), 1);
    }

    async fn where_the_fleet_counts_another_wish_replaces_what_is_there(app: TestFleet) {
        let first = app.provision(json!({})).await;
        let second = app.provision(json!({"env": {"KEY": "new"}})).await;
        assert_ne!(id(&first), id(&second));
        app.later(2).await;
        assert_eq!(app.status(&second).await["state"], "running");
        let there = app.a.instances();
        assert_eq!((there.len(), there[0].env["KEY"].as_str()), (1, "new"), "one at a time");
        assert_eq!(app.status(&first).await["state"], "gone");
    }

    async fn a_start_whose_answer_is_lost_is_found(app: TestFleet) {
        app.a.plan(Fault::LoseReply);
        let it = app.provision(json!({"generation": 1})).await;
        assert_eq!(it["state"], "pending");
        assert!(it["error"].as_str().unwrap().contains("lost"), "{it}");
        app.later(2).await;
        assert_eq!(app.status(&it).await["state"], "running");
        assert_eq!(app.a.starts(), 1);
    }

    async fn a_crash_between_the_start_and_its_note_leaks_nothing(app: TestFleet) {
        // Nobody reconciles: the call is committed, and that is all.
        let bearer = format!("Bearer {SECRET}");
        let headers = [("authorization", bearer.as_str()), ("x-molecule-admin-token", &app.token)];
        let body = asked(json!({"generation": 1})).to_string();
        let it = app.send("POST", "/cp/workspaces/provision", &headers, body).await.is(201);
        assert_eq!(it["state"], "pending");
        let spec = Spec { credential: None, ..Spec::bare(key(1), Vec::new(), app.fleet.ids.token()) };
        app.a.ensure(spec).await.unwrap();
        let app = app.reborn();
        app.settle().await;
        assert_eq!(app.status(&it).await["state"], "running");
        assert_eq!(app.a.starts(), 1);
        assert!(app.journal().await.iter().any(|line| line.contains("it was there already")));
        assert_eq!(app.sweep().await.steps, 0);
    }

    async fn what_cannot_be_started_is_refused_and_may_be_asked_for_again(app: TestFleet) {
        app.a.plan(Fault::Refuse("no such image".to_owned()));
        let call = || app.call("POST", "/cp/workspaces/provision", asked(json!({"generation": 1})));
        let refused = call().await.is(422);
        assert_eq!((&refused["error"], &refused["code"]), (&json!("no such image"), &json!("broken")));
        assert_eq!(call().await.is(201)["state"], "running");
    }

    async fn what_is_malformed_is_told_by_field(app: TestFleet) {
        let bad = json!({"workspace_id": "w", "tier": 7, "org_id": "other", "generation": -1});
        let said = app.call("POST", "/cp/workspaces/provision", bad).await.is(400);
        let detail = said["detail"].as_str().unwrap();
        for field in ["workspace_id: ", "tier: ", "org_id: ", "generation: "] {
            assert!(detail.contains(field), "{field}: {detail}");
        }
        let unknown = asked(json!({"provider": "mars"}));
        let said = app.call("POST", "/cp/workspaces/provision", unknown).await.is(400);
        assert!(said["detail"].as_str().unwrap().contains("provider"));
        app.call("GET", "/cp/workspaces/nonsense/status", Value::Null).await.is(400);
    }

    async fn each_missing_credential_is_named_and_a_wrong_one_opens_nothing(app: TestFleet) {
        let (good, wrong) = (format!("Bearer {SECRET}"), "Bearer wrong".to_owned());
        let routes = [
            ("POST", "/cp/workspaces/provision".to_owned()),
            ("GET", "/cp/workspaces".to_owned()),
            ("DELETE", path("")),
            ("GET", path("/status")),
            ("GET", path("/instances")),
            ("POST", path("/stop")),
            ("GET", path("/logs")),
            ("GET", path("/data")),
            ("PUT", path("/data")),
            ("DELETE", path("/data")),
            ("GET", path("/data/digest")),
        ];
        for (method, path) in &routes {
            let none = app.send(method, path, &[], "").await.is(401);
            assert!(none["detail"].as_str().unwrap().contains("Authorization"), "{none}");
            assert!(none["detail"].as_str().unwrap().contains("X-Molecule-Admin-Token"), "{none}");
            let one = app.send(method, path, &[("authorization", &good)], "").await.is(401);
            assert_eq!(one["detail"], "missing: X-Molecule-Admin-Token");
            let other = app.send(method, path, &[("x-molecule-admin-token", &app.token)], "").await.is(401);
            assert_eq!(other["detail"], "missing: Authorization: Bearer SHARED_SECRET");
            for headers in [
                [("authorization", wrong.as_str()), ("x-molecule-admin-token", app.token.as_str())],
                [("authorization", &good), ("x-molecule-admin-token", "wrong")],
                [("authorization", &good), ("x-molecule-admin-token", OPERATOR)],
            ] {
                assert_eq!(app.send(method, path, &headers, "").await.is(401)["error"], "invalid credentials");
            }
        }
        assert_eq!(app.a.starts(), 0);
    }

    async fn one_organisation_never_meets_anothers_instances(app: TestFleet) {
        let it = app.provision(json!({"generation": 1})).await;
        let other = app.org("other").await;
        let named = |of: &str| path(&format!("{of}?instance_id={}", id(&it)));
        for (method, path) in [
            ("GET", named("/status")),
            ("POST", named("/stop")),
            ("GET", path("/logs")),
            ("GET", path("/data")),
            ("PUT", path("/data")),
            ("DELETE", path("/data")),
            ("GET", path("/data/digest")),
            ("GET", format!("/cp/admin/workspaces/{WORKSPACE}/console")),
        ] {
            app.call_as(&other, method, &path, Value::Null).await.is(404);
        }
        app.call_as(&other, "DELETE", &named(""), Value::Null).await.is(200);
        for path in ["/cp/workspaces".to_owned(), path("/instances")] {
            let none = app.call_as(&other, "GET", &path, Value::Null).await.is(200);
            assert_eq!(none["instances"], json!([]));
        }
        app.call_as(&other, "POST", "/cp/workspaces/provision", asked(json!({"generation": 2}))).await.is(409);
        assert_eq!(app.status(&it).await["state"], "running");
    }

    async fn a_provider_that_cannot_be_asked_is_doubt(app: TestFleet) {
        let it = app.provision(json!({"generation": 1})).await;
        app.a.plan(Planned::once(Fault::Silence).at(&[Call::Inspect]).times(0));
        let seen = app.status(&it).await;
        assert_eq!(seen["state"], "unknown");
        assert!(seen["error"].as_str().unwrap().contains("did not answer"), "{seen}");
        let missing = path("/status?instance_id=i-never");
        app.call("GET", &missing, Value::Null).await.is(404);
    }

    async fn data_goes_out_and_comes_in_whole(app: TestFleet) {
        app.provision(json!({"generation": 1})).await;
        let digest = app.call("GET", &path("/data/digest"), Value::Null).await.is(200);
        let archive = app.call("GET", &path("/data"), Value::Null).await;
        assert_eq!(archive.headers["content-type"], "application/x-tar");
        app.provision(json!({"generation": 2, "provider": "b"})).await;
        let bearer = format!("Bearer {SECRET}");
        let headers = [("authorization", bearer.as_str()), ("x-molecule-admin-token", &app.token)];
        let put = |digest: &str| path(&format!("/data?provider=b&digest={digest}"));
        let wrong = app.send("PUT", &put("0000"), &headers, archive.bytes.clone()).await;
        assert_eq!(wrong.is(422)["code"], "broken");
        let right = digest["digest"].as_str().unwrap();
        let came = app.send("PUT", &put(right), &headers, archive.bytes.clone()).await.is(200);
        assert_eq!(came["digest"], digest["digest"]);
        let there = app.call("GET", &path("/data/digest?provider=b"), Value::Null).await.is(200);
        assert_eq!(there["digest"], digest["digest"]);
        let used = app.call("DELETE", &path("/data?provider=b"), Value::Null).await.is(409);
        assert_eq!(used["code"], "conflict");
        app.call("DELETE", &path("?generation=1"), Value::Null).await.is(200);
        app.call("DELETE", &path("/data?provider=a"), Value::Null).await.is(204);
        app.call("GET", &path("/data/digest?provider=a"), Value::Null).await.is(404);
        app.call("GET", &path("/data/digest?provider=b"), Value::Null).await.is(200);
    }

    async fn data_stays_until_it_is_to_be_pruned(app: TestFleet) {
        app.provision(json!({"generation": 1})).await;
        app.call("DELETE", &path(""), Value::Null).await.is(200);
        app.call("GET", &path("/data/digest"), Value::Null).await.is(200);
        app.call("DELETE", &path("?prune=true"), Value::Null).await.is(200);
        assert_eq!(app.call("GET", &path("/data/digest"), Value::Null).await.is(404)["code"], "missing");
        app.provision(json!({"generation": 2})).await;
        app.call("GET", &path("/data/digest"), Value::Null).await.is(200);
        app.sweep().await;
        app.call("GET", &path("/data/digest"), Value::Null).await.is(200);
    }

    async fn data_that_could_not_be_taken_away_is_taken_away_later(app: TestFleet) {
        app.provision(json!({"generation": 1})).await;
        app.a.plan(Planned::once(Fault::Silence).at(&[Call::Erase]).times(2));
        app.call("DELETE", &path("?prune=true"), Value::Null).await.is(200);
        app.call("GET", &path("/data/digest"), Value::Null).await.is(200);
        // The second failure is met by whoever comes second.
        app.sweep().await;
        app.sweep().await;
        app.call("GET", &path("/data/digest"), Value::Null).await.is(404);
        assert_eq!(app.sweep().await.steps, 0, "it is done once");
    }

    async fn logs_and_the_console_show_the_end_of_what_was_said(app: TestFleet) {
        app.provision(json!({"generation": 1})).await;
        app.a.say(WORKSPACE.parse().unwrap(), "one\n");
        app.a.say(WORKSPACE.parse().unwrap(), "two\n");
        let logs = app.call("GET", &path("/logs?lines=1"), Value::Null).await;
        assert_eq!(String::from_utf8_lossy(&logs.bytes).trim(), "two");
        let console = format!("/cp/admin/workspaces/{WORKSPACE}/console");
        let output = app.operate("GET", &console, Value::Null).await.is(200);
        assert!(output["output"].as_str().unwrap().contains("one"), "{output}");
        app.call("GET", &console, Value::Null).await.is(200);
        app.send("GET", &console, &[("authorization", "Bearer wrong")], "").await.is(401);
    }

    async fn a_wrong_verb_is_405(app: TestFleet) {
        for (method, path) in [
            ("GET", "/cp/workspaces/provision".to_owned()),
            ("POST", "/cp/tenants/config".to_owned()),
            ("GET", "/cp/tenants/boot-event".to_owned()),
            ("POST", path("/status")),
            ("PUT", path("")),
        ] {
            app.call(method, &path, Value::Null).await.is(405);
        }
        app.send("GET", "/cp/nothing", &[], "").await.is(404);
    }

    async fn every_route_but_the_open_ones_refuses_strangers(app: TestFleet) {
        let api = serde_json::to_value(ligand_fleet::routes::description()).unwrap();
        let mut open = Vec::new();
        for (path, methods) in api["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let at = path.replace("{id}", WORKSPACE).replace("{slug}", "acme").replace("{name}", "a");
                let answer = app.send(&method.to_uppercase(), &at, &[], "").await;
                if answer.status != 401 {
                    open.push(format!("{method} {path}: {}", answer.status));
                }
            }
        }
        let mut expected: Vec<String> =
            ligand_fleet::routes::OPEN.iter().map(|(method, path, _)| format!("{method} {path}: 200 OK")).collect();
        // Without a slug nobody is asked about.
        expected.push("get /cp/auth/tenant-member: 400 Bad Request".to_owned());
        expected.sort();
        open.sort();
        assert_eq!(open, expected);
    }

    async fn a_slow_provider_is_answered_for_as_pending(app: TestFleet) {
        app.a.plan(Planned::once(Fault::Late(Duration::from_millis(50))).at(&[Call::Ensure]));
        let it = app.provision(json!({"generation": 1})).await;
        assert!(["pending", "running"].contains(&it["state"].as_str().unwrap()), "{it}");
        app.later(1).await;
        assert_eq!(app.status(&it).await["state"], "running");
    }
}
