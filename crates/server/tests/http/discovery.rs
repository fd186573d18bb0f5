//! `GET /registry/discover/{id}`, `GET /registry/{id}/peers`, `POST /registry/check-access`.

use std::net::IpAddr;

use ligand_domain::access::MAX_HOPS;
use ligand_server::config::{Auth, Config};
use serde_json::{Value, json};

use super::gates::created;
use crate::support::agent::{Agent, online};
use crate::support::engine::on_each;
use crate::support::modes::{adjusted, compat, compat_with_admin, development};
use crate::support::{ADMIN, Answer, TestApp, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// A workspace below another one, not started yet.
async fn below(app: &TestApp, name: &str, parent: &str) -> String {
    let body = json!({"name": name, "parent_id": parent});
    app.post("/workspaces", body).await.ok()["id"].as_str().unwrap().to_owned()
}

async fn may(app: &TestApp, caller: &str, target: &str) -> bool {
    let body = json!({"caller_id": caller, "target_id": target});
    let answer = app.call("POST", "/registry/check-access", None, Some(body)).await.ok();
    answer["allowed"].as_bool().unwrap()
}

async fn discover(app: &TestApp, caller: &str, token: &str, target: &str) -> Answer {
    let headers = [("x-workspace-id", caller)];
    app.send("GET", &format!("/registry/discover/{target}"), Some(token), None, &headers).await
}

fn names(peers: &Value) -> Vec<&str> {
    peers.as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect()
}

/// An external workspace that was created with this address.
async fn outside(app: &TestApp, url: &str) -> String {
    let body = json!({"name": "outside", "external": true, "url": url});
    app.post("/workspaces", body).await.ok()["id"].as_str().unwrap().to_owned()
}

both! {
    /// ACC-01 to ACC-11, and ACC-13.
    async fn acc_01_to_11_and_13_the_hierarchy_decides(app: TestApp) {
        let (root, other) = (app.create("root").await, app.create("other").await);
        let (left, right) = (below(&app, "left", &root).await, below(&app, "right", &root).await);
        let (leaf, cousin) = (below(&app, "leaf", &left).await, below(&app, "cousin", &right).await);
        for (caller, target, allowed, id) in [
            (&root, &root, true, "ACC-01"),
            (&left, &right, true, "ACC-02"),
            (&root, &other, true, "ACC-03"),
            (&root, &left, true, "ACC-04"),
            (&left, &root, true, "ACC-05"),
            (&leaf, &cousin, false, "ACC-06"),
            (&leaf, &right, false, "ACC-06"),
            (&left, &other, false, "ACC-07"),
            (&root, &leaf, true, "ACC-10"),
            (&leaf, &root, true, "ACC-11"),
            (&leaf, &other, false, "ACC-13"),
            (&other, &leaf, false, "ACC-13"),
        ] {
            assert_eq!(may(&app, caller, target).await, allowed, "{id}");
        }
        assert!(!may(&app, UNKNOWN, &root).await, "ACC-08");
        assert!(!may(&app, &root, UNKNOWN).await, "ACC-09");
        assert!(!may(&app, &root, "no-id-at-all").await, "ACC-09");
        assert!(may(&app, UNKNOWN, UNKNOWN).await, "ACC-01: nobody is looked up");
    }

    async fn acc_12_ancestors_count_up_to_a_number_of_hops(app: TestApp) {
        let mut line = vec![app.create("w0").await];
        for n in 1..=MAX_HOPS + 1 {
            let parent = line[n - 1].clone();
            line.push(below(&app, &format!("w{n}"), &parent).await);
        }
        for (caller, target, allowed) in
            [(4, 0, true), (0, 4, true), (MAX_HOPS, 0, true), (0, MAX_HOPS, true), (MAX_HOPS + 1, 0, false), (0, MAX_HOPS + 1, false)]
        {
            assert_eq!(may(&app, &line[caller], &line[target]).await, allowed, "{caller} to {target}");
        }
    }

    async fn ds_01_02_a_caller_says_who_it_is_and_is_somebody(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let (other, stranger) = online(&app, "b").await;
        let child = below(&app, "child", &other).await;
        let token = agent.token.as_deref().unwrap();
        let path = format!("/registry/discover/{other}");
        app.call("GET", &path, Some(token), None).await.refuses(400, "X-Workspace-ID header is required");
        let claim = [("x-workspace-id", id.as_str())];
        app.send("GET", &path, None, None, &claim).await.refuses(401, "missing workspace auth token");
        for token in ["wrong", stranger.token.as_deref().unwrap()] {
            app.send("GET", &path, Some(token), None, &claim).await.refuses(401, "invalid workspace auth token");
        }
        discover(&app, UNKNOWN, token, &other).await.refuses(401, "invalid workspace auth token");
        let forbidden = "not authorized to discover this workspace";
        discover(&app, &id, token, UNKNOWN).await.refuses(403, forbidden);
        discover(&app, &id, token, &child).await.refuses(403, forbidden);
        for nobody in [UNKNOWN, "no-id-at-all"] {
            discover(&app, nobody, ADMIN, &other).await.refuses(403, forbidden);
        }
        discover(&app, &id, token, "no-id-at-all").await.refuses(400, "invalid workspace ID");
    }

    async fn ds_03_a_target_that_is_not_there_is_404(app: TestApp) {
        discover(&app, UNKNOWN, ADMIN, UNKNOWN).await.refuses(404, "workspace not found");
    }

    async fn ds_04_05_06_a_peer_is_found_where_it_answers_while_it_serves(app: TestApp) {
        app.fake.report_address(Some("http://10.0.0.7:4711".to_owned()));
        let (target, peer) = online(&app, "target").await;
        let (id, agent) = online(&app, "caller").await;
        let token = agent.token.as_deref().unwrap();
        let found = json!({"id": target, "url": "http://10.0.0.7:4711", "name": "target"});
        discover(&app, &id, token, &target).await.is(200, &found);
        peer.beat_with(&app, json!({"runtime_state": "wedged"})).await.ok();
        discover(&app, &id, token, &target).await.is(200, &found);
        app.post(&format!("/workspaces/{target}/restart"), json!({})).await.ok();
        let gone = json!({"error": "workspace not available", "status": "provisioning"});
        discover(&app, &id, token, &target).await.is(503, &gone);
        app.delete(&format!("/workspaces/{target}")).await.ok();
        let gone = json!({"error": "workspace not available", "status": "removed"});
        discover(&app, &id, token, &target).await.is(503, &gone);
    }

    async fn ds_07_08_an_external_peer_is_where_its_agent_says(app: TestApp) {
        app.app.names.set("agent.example", &[IpAddr::from([93, 184, 216, 34])]);
        let target = outside(&app, "https://agent.example/a").await;
        let (id, agent) = online(&app, "caller").await;
        let token = agent.token.as_deref().unwrap();
        let found = json!({"id": target, "url": "https://agent.example/a", "name": "outside"});
        discover(&app, &id, token, &target).await.is(200, &found);
        let created = app.post("/workspaces", json!({"name": "silent", "external": true})).await.ok();
        let silent = created["id"].as_str().unwrap();
        let waiting = json!({"error": "workspace not available", "status": "awaiting_agent"});
        discover(&app, &id, token, silent).await.is(503, &waiting);
    }

    async fn ds_10_an_address_that_may_not_be_called_is_not_given_out(app: TestApp) {
        let (id, agent) = online(&app, "caller").await;
        app.app.names.set("inside.example", &[IpAddr::from([93, 184, 216, 34]), IpAddr::from([10, 0, 0, 1])]);
        for url in ["http://169.254.169.254/latest", "http://inside.example", "http://nowhere.example", "http://localhost:1", "ftp://x"] {
            let target = outside(&app, url).await;
            let answer = discover(&app, &id, agent.token.as_deref().unwrap(), &target).await;
            answer.refuses(503, "workspace URL failed safety check");
        }
    }

    async fn an_address_that_only_a_managed_agent_vouches_for_is_judged_like_any_other(app: TestApp) {
        let (target, _) = online(&app, "target").await;
        let (id, agent) = online(&app, "caller").await;
        let discovered = discover(&app, &id, agent.token.as_deref().unwrap(), &target).await;
        discovered.refuses(503, "workspace URL failed safety check");
    }

    async fn ds_11_peers_are_siblings_children_and_the_parent(app: TestApp) {
        let root = app.create("root").await;
        let (left, _) = (below(&app, "left", &root).await, app.create("elsewhere").await);
        let gone = below(&app, "gone", &root).await;
        app.settle().await;
        app.delete(&format!("/workspaces/{gone}")).await.ok();
        let (_, nephew) = (below(&app, "right", &root).await, below(&app, "leaf", &left).await);
        app.settle().await;
        let agent = Agent::of(&app, &left);
        agent.register(&app).await.ok();
        let path = format!("/registry/{left}/peers");
        let peers = app.call("GET", &path, agent.token.as_deref(), None).await.ok();
        assert_eq!(names(&peers), ["right", "leaf", "root"]);
        assert_eq!(peers[1], json!({"id": nephew, "name": "leaf", "role": null, "tier": 3, "status": "provisioning",
            "url": "", "parent_id": left, "active_tasks": 0, "agent_card": null}));
        let roots = app.get(&format!("/registry/{root}/peers")).await.ok();
        assert_eq!(names(&roots), ["elsewhere", "left", "right"]);
        let below = app.get(&format!("/registry/{nephew}/peers")).await.ok();
        assert_eq!(below[0]["agent_card"], json!({"name": "an agent"}), "the parent's");
    }

    async fn ds_12_13_peers_of_nobody_are_404_and_a_broken_database_says_nothing(app: TestApp) {
        app.get(&format!("/registry/{UNKNOWN}/peers")).await.refuses(404, "workspace not found");
        app.get("/registry/no-id-at-all/peers").await.refuses(400, "invalid workspace ID");
        let (id, agent) = online(&app, "a").await;
        let path = format!("/registry/{id}/peers");
        for token in [None, Some("wrong")] {
            assert_eq!(app.call("GET", &path, token, None).await.status, 401);
        }
        app.sql("ALTER TABLE workspaces RENAME COLUMN tier TO level").await;
        let failed = app.call("GET", &path, agent.token.as_deref(), None).await;
        failed.is(500, &json!({"error": "lookup failed"}));
    }

    async fn ds_14_15_16_peers_can_be_none_and_can_be_searched(app: TestApp) {
        let id = app.create("lone").await;
        let path = format!("/registry/{id}/peers");
        app.get(&path).await.is(200, &json!([]));
        for (name, role) in [("Ada", Some("Analyst")), ("Bo", None), ("Cy", Some("")), ("\u{c4}nne", Some("cook"))] {
            app.app.clock.advance(std::time::Duration::from_secs(1));
            app.post("/workspaces", json!({"name": name, "role": role})).await.ok();
        }
        for (q, expected) in [
            ("", vec!["Ada", "Bo", "Cy", "\u{c4}nne"]),
            ("%20%20", vec!["Ada", "Bo", "Cy", "\u{c4}nne"]),
            ("aDA", vec!["Ada"]),
            ("%20analyst%20", vec!["Ada"]),
            ("o", vec!["Bo", "\u{c4}nne"]),
            ("%C3%A4nne", vec!["\u{c4}nne"]),
        ] {
            let peers = app.get(&format!("{path}?q={q}")).await.ok();
            assert_eq!(names(&peers), expected, "{q}");
        }
        let none = app.get(&format!("{path}?q=nobody")).await;
        assert_eq!(none.text, "[]");
    }

    async fn ds_17_strict_opens_no_peers_without_a_bearer(app: TestApp) {
        // Its credential was never used, and it holds no other.
        let id = app.create("a").await;
        let refused = app.call("GET", &format!("/registry/{id}/peers"), None, None).await;
        refused.refuses(401, "missing workspace auth token");
    }

    async fn ds_18_check_access_reads_its_body(app: TestApp) {
        for body in ["{", "{}", "{\"caller_id\":\"a\"}", "{\"caller_id\":\"\",\"target_id\":\"\"}"] {
            let answer = app.send("POST", "/registry/check-access", None, Some(body.to_owned()), &[]).await;
            answer.refuses(400, "invalid request body");
        }
        assert!(may(&app, "anything", "anything").await);
    }
}

/// A server with other settings, on each engine.
fn with(name: &str, adjust: fn(&mut ligand_server::config::Config), body: impl AsyncFn(TestApp)) {
    on_each(name, |db| body(TestApp::new(db, adjust)));
}

#[test]
fn ds_09_this_machine_has_another_name_in_a_container() {
    with(
        "ds_09",
        |config| config.development = true,
        async |app| {
            let target = outside(&app, "http://localhost:8000/a").await;
            let caller = outside(&app, "http://localhost:9").await;
            let token = Agent::with(&caller, None).register(&app).await.ok()["auth_token"].clone();
            let found = discover(&app, &caller, token.as_str().unwrap(), &target).await.ok();
            assert_eq!(
                found["url"], "http://localhost:8000/a",
                "nobody put an external caller into a container"
            );
            let (id, agent) = online(&app, "inside").await;
            let found = discover(&app, &id, agent.token.as_deref().unwrap(), &target).await.ok();
            assert_eq!(found["url"], "http://host.docker.internal:8000/a");
        },
    );
}

async fn bearerless(app: &TestApp, by: Option<&str>) -> Answer {
    let (id, _) = created(app, by, "a").await;
    app.call("GET", &format!("/registry/{id}/peers"), None, None).await
}

adjusted! { |config: &mut Config| { compat(config); development(config); };
    async fn ds_17_compat_in_development_opens_peers_to_everybody(app: TestApp) {
        bearerless(&app, None).await.is(200, &json!([]));
    }
}

adjusted! { |config: &mut Config| { compat_with_admin(config); development(config); };
    async fn ds_17_an_admin_token_closes_peers_in_development_too(app: TestApp) {
        bearerless(&app, Some(ADMIN)).await.refuses(401, "missing workspace auth token");
    }
}

adjusted! { compat;
    async fn ds_17_compat_in_production_opens_no_peers(app: TestApp) {
        bearerless(&app, None).await.refuses(401, "missing workspace auth token");
    }
}

#[test]
fn compatibility_lets_a_workspace_discover_for_which_nothing_lives() {
    with(
        "discover_compat",
        |config| config.auth = Auth::Compat,
        async |app| {
            let created =
                app.post("/workspaces", json!({"name": "a", "external": true})).await.ok();
            let id = created["id"].as_str().unwrap();
            let path = format!("/registry/{id}/peers");
            app.call("GET", &path, None, None).await.refuses(401, "missing workspace auth token");
            app.sql("UPDATE credentials SET state = 'revoked', ended_at = 1").await;
            app.call("GET", &path, None, None).await.is(200, &json!([]));
            let unknown = format!("/registry/{UNKNOWN}/peers");
            app.call("GET", &unknown, None, None).await.refuses(404, "workspace not found");
            const LAPSED: &str =
                "UPDATE credentials SET state = 'pending', ended_at = NULL, lapses_at = 2";
            app.sql(LAPSED).await;
            app.call("GET", &path, None, None).await.is(200, &json!([]));
            app.sql("ALTER TABLE credentials RENAME TO gone").await;
            app.call("GET", &path, None, None).await.is(200, &json!([]));
        },
    );
}
