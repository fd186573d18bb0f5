//! `POST /registry/register` and `POST /registry/update-card`.

use serde_json::{Value, json};

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::both;

const KEY: &str = "a-key-of-at-least-22-characters";

both! {
    async fn rg_01_malformed_json_is_400(app: TestApp) {
        let answer = app.send("POST", "/registry/register", None, Some("{".to_owned()), &[]).await;
        answer.refuses(400, "invalid request body");
        assert!(answer.body["detail"].as_str().unwrap().contains("EOF"), "{answer:?}");
    }

    async fn rg_02_a_missing_field_is_400_and_named(app: TestApp) {
        let id = unclaimed(&app).await;
        for (body, field) in [
            (json!({"url": "http://localhost:1", "agent_card": {}}), "id"),
            (json!({"id": id, "url": "http://localhost:1"}), "agent_card"),
            (json!({"id": "not-a-uuid", "url": "http://localhost:1", "agent_card": {}}), "id"),
        ] {
            let answer = app.call("POST", "/registry/register", None, Some(body)).await;
            answer.refuses(400, "invalid request body");
            assert!(answer.body["detail"].as_str().unwrap().contains(field), "{answer:?}");
        }
        let agent = Agent::with(&id, None);
        let push = json!({"url": null, "delivery_mode": "push"});
        agent.register_with(&app, push, &[]).await.refuses(400, "url is required for push-mode workspaces");
        // Nothing was half-done: the bootstrap is still open.
        assert!(agent.register(&app).await.ok()["auth_token"].is_string());
    }

    async fn rg_03_a_failing_database_shows_nothing_of_itself(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.sql("DROP TABLE events").await;
        let failed = agent.register(&app).await;
        failed.is(500, &json!({"error": "registration failed"}));
        app.sql("DROP TABLE credentials").await;
        let failed = agent.register(&app).await;
        failed.refuses(503, "platform datastore unavailable — retry shortly");
        assert_eq!(failed.body["code"], "platform_unavailable");
        assert!(!failed.text.contains("credentials") && !failed.text.contains("SELECT"), "{id} {failed:?}");
    }

    async fn rg_04_a_removed_workspace_is_not_changed(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{id}")).await.ok();
        let before = app.workspace(&id).await;
        let answer = agent.register(&app).await;
        answer.refuses(401, "invalid workspace auth token");
        assert_eq!((&answer.body["code"], &answer.body["action"]), (&json!("revoked"), &json!("exit")));
        let stranger = Agent::with(&id, Some("never-issued")).register(&app).await;
        stranger.is(401, &json!({"error": "invalid workspace auth token"}));
        assert_eq!(app.workspace(&id).await, before);
    }

    async fn rg_06_nothing_live_bootstraps_with_a_token(app: TestApp) {
        let id = unclaimed(&app).await;
        let registered = Agent::with(&id, None).register(&app).await.ok();
        let token = registered["auth_token"].as_str().unwrap().to_owned();
        assert_eq!((registered["status"].as_str(), token.len()), (Some("registered"), 43));
        let agent = Agent::with(&id, Some(&token));
        agent.beat(&app).await.ok();
        let workspace = app.workspace(&id).await;
        assert_eq!((&workspace["status"], &workspace["generation"]), (&json!("online"), &json!(1)));
    }

    async fn rg_07_live_and_no_bearer_is_401_and_writes_nothing(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let before = app.workspace(&id).await;
        let refused = Agent::with(&id, None).register(&app).await;
        refused.is(401, &json!({"error": "missing workspace auth token"}));
        assert_eq!(app.workspace(&id).await, before);
    }

    async fn rg_12_a_second_register_brings_no_token(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let again = agent.register(&app).await.ok();
        assert_eq!((&again["status"], again.get("auth_token")), (&json!("registered"), None));
    }

    async fn rg_13_the_address_of_the_backend_is_kept(app: TestApp) {
        app.fake.report_address(Some("http://127.0.0.1:4711".to_owned()));
        let (id, agent) = online(&app, "a").await;
        agent.register_with(&app, json!({"url": "http://localhost:8000"}), &[]).await.ok();
        assert_eq!(app.workspace(&id).await["url"], "http://127.0.0.1:4711");
    }

    async fn a_sealed_workspace_has_no_open_door(app: TestApp) {
        let id = app.create("sealed").await;
        app.settle().await;
        let stranger = Agent::with(&id, None).register(&app).await;
        stranger.is(401, &json!({"error": "missing workspace auth token"}));
        let unknown = Agent::with("00000000-0000-4000-8000-000000000000", None).register(&app).await;
        unknown.is(401, &stranger.body);
        // Whoever knocks for ever is noted once for each reason.
        for _ in 0..3 {
            Agent::with(&id, Some("a-stranger")).beat(&app).await;
            Agent::with(&id, None).beat(&app).await;
        }
        let refused = app.journal(&id).await.into_iter().filter(|kind| kind == "refused").count();
        assert_eq!(refused, 2);
        // Its own agent is not held up by that.
        Agent::of(&app, &id).register(&app).await.ok();
    }

    async fn a_lost_reply_is_answered_again(app: TestApp) {
        let id = unclaimed(&app).await;
        let headers = [("idempotency-key", KEY)];
        let agent = Agent::with(&id, None);
        let lost = agent.register_with(&app, json!({}), &headers).await.ok();
        // Somebody else is refused meanwhile, with or without a key of their own.
        agent.register(&app).await.refuses(401, "missing workspace auth token");
        let other = [("idempotency-key", "another-key-of-22-characters")];
        agent.register_with(&app, json!({}), &other).await.refuses(401, "missing workspace auth token");
        let again = agent.register_with(&app, json!({}), &headers).await.ok();
        assert_ne!(again["auth_token"], lost["auth_token"]);
        Agent::with(&id, lost["auth_token"].as_str()).beat(&app).await.refuses(401, "invalid workspace auth token");
        Agent::with(&id, again["auth_token"].as_str()).beat(&app).await.ok();
        // It was used: the key is worth nothing any more.
        agent.register_with(&app, json!({}), &headers).await.refuses(401, "missing workspace auth token");
    }

    async fn an_unused_bootstrap_lapses(app: TestApp) {
        let id = unclaimed(&app).await;
        let agent = Agent::with(&id, None);
        let first = agent.register(&app).await.ok();
        app.later(590).await;
        agent.register(&app).await.refuses(401, "missing workspace auth token");
        let why = format!("/workspaces/{id}/why");
        let look = async || app.call("GET", &why, first["auth_token"].as_str(), None).await.status.as_u16();
        assert_eq!(look().await, 200);
        app.later(11).await;
        assert_eq!(look().await, 401, "it is lapsed everywhere");
        let second = agent.register(&app).await.ok();
        assert_eq!((&second["generation"], second["auth_token"].is_string()), (&json!(2), true));
    }

    async fn unsafe_addresses_are_refused_before_anything_is_minted(app: TestApp) {
        let id = unclaimed(&app).await;
        let agent = Agent::with(&id, None);
        for (url, why) in [
            ("http://169.254.169.254/latest", "link-local and metadata addresses are not allowed"),
            ("http://10.0.0.1", "private addresses are not allowed"),
            ("http://[::ffff:127.0.0.1]:80", "loopback addresses are not allowed"),
            ("ftp://example.org", "scheme must be http or https"),
        ] {
            agent.register_with(&app, json!({"url": url}), &[]).await.refuses(400, why);
        }
        assert!(agent.register(&app).await.ok()["auth_token"].is_string());
    }

    async fn modes_and_kinds_are_checked(app: TestApp) {
        let agent = Agent::with(&unclaimed(&app).await, None);
        let mode = agent.register_with(&app, json!({"delivery_mode": "pigeon"}), &[]).await;
        mode.refuses(400, "delivery_mode must be 'push' or 'poll'");
        let kind = agent.register_with(&app, json!({"kind": "robot"}), &[]).await;
        kind.refuses(400, "kind must be 'workspace' or 'platform'");
        let platform = agent.register_with(&app, json!({"kind": "platform"}), &[]).await;
        platform.refuses(403, "this workspace is not a platform agent");
        let poll = agent.register_with(&app, json!({"delivery_mode": "poll", "url": null}), &[]).await.ok();
        assert_eq!(poll["delivery_mode"], "poll");
    }

    async fn a_mode_is_what_is_said_else_what_was_said_else_by_who_runs_it(app: TestApp) {
        let (_, managed) = online(&app, "a").await;
        let outside = Agent::with(&unclaimed(&app).await, None);
        let mode = async |agent: &Agent, more: Value| agent.register_with(&app, more, &[]).await.ok();
        assert_eq!(mode(&managed, json!({})).await["delivery_mode"], "push");
        let first = mode(&outside, json!({"delivery_mode": ""})).await;
        assert_eq!(first["delivery_mode"], "poll");
        let outside = Agent::with(&outside.workspace, first["auth_token"].as_str());
        assert_eq!(mode(&outside, json!({"delivery_mode": "push"})).await["delivery_mode"], "push");
        assert_eq!(mode(&outside, json!({})).await["delivery_mode"], "push");
        assert_eq!(mode(&managed, json!({"delivery_mode": "poll"})).await["delivery_mode"], "poll");
        assert_eq!(mode(&managed, json!({"url": null})).await["delivery_mode"], "poll");
        let none = json!({"delivery_mode": "poll", "url": "remote://no-inbound"});
        let polls = Agent::with(&unclaimed(&app).await, None);
        assert_eq!(mode(&polls, none).await["delivery_mode"], "poll");
    }

    async fn gaps_of_a_card_are_filled_from_the_workspace(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "Ada", "role": "analyst"})).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        app.settle().await;
        let agent = Agent::of(&app, &id);
        let shown = async |card: Value| {
            agent.register_with(&app, json!({"agent_card": card}), &[]).await.ok();
            app.workspace(&id).await["agent_card"].clone()
        };
        let filled = json!({"name": "Ada", "description": "analyst", "role": "analyst", "skills": []});
        assert_eq!(shown(json!({"name": id, "description": "", "skills": []})).await, filled);
        let own = json!({"name": "Bob", "description": "mine", "role": "cook"});
        assert_eq!(shown(own.clone()).await, own);
        assert_eq!(shown(json!([1, 2])).await, json!([1, 2]));
        assert_eq!(shown(Value::Null).await, Value::Null);
    }

    async fn a_register_that_fails_counts_until_one_succeeds(app: TestApp) {
        app.fake.report_address(None);
        let (id, agent) = online(&app, "a").await;
        let status = async || app.workspace(&id).await["status"].as_str().unwrap().to_owned();
        let beat = async |more: Value| {
            agent.beat_with(&app, more).await.ok();
            status().await
        };
        let fail = async || {
            let unsafe_ = json!({"url": "http://169.254.169.254"});
            agent.register_with(&app, unsafe_, &[]).await.refuses(400, "link-local and metadata addresses are not allowed");
        };
        fail().await;
        assert_eq!(status().await, "online", "nothing of it stays but that it failed");
        assert_eq!(beat(json!({"sample_error": "who knows"})).await, "degraded");
        let events = app.get(&format!("/events/{id}")).await.ok();
        assert_eq!(events[0]["event_type"], "WORKSPACE_DEGRADED");
        let payload = json!({"register_failure": true, "sample_error": "who knows", "generation": 1});
        assert_eq!(events[0]["payload"], payload);
        assert_eq!(beat(json!({})).await, "degraded", "a good beat is no register");
        agent.register(&app).await.ok();
        assert_eq!(status().await, "online");
        assert_eq!(beat(json!({})).await, "online");
        // A beat that brings the card brings what a register would have.
        fail().await;
        assert_eq!(beat(json!({})).await, "degraded");
        assert_eq!(beat(json!({"agent_card": {"name": "an agent"}})).await, "online");
        assert_eq!(beat(json!({})).await, "online");
        // Everything that fails after the gate counts, and for five minutes.
        agent.register_with(&app, json!({"kind": "platform"}), &[]).await.refuses(403, "this workspace is not a platform agent");
        assert_eq!(beat(json!({})).await, "degraded");
        for _ in 0..31 {
            app.app.clock.advance(std::time::Duration::from_secs(10));
            agent.beat(&app).await.ok();
        }
        assert_eq!(status().await, "online");
        let failures = app.journal(&id).await.into_iter().filter(|kind| kind == "register-failed").count();
        assert_eq!(failures, 3, "each reason is noted until something else happens");
    }

    async fn a_register_that_is_not_let_in_does_not_count(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let unsafe_ = json!({"url": "http://169.254.169.254", "kind": "platform"});
        for token in [None, Some("a-stranger")] {
            assert_eq!(Agent::with(&id, token).register_with(&app, unsafe_.clone(), &[]).await.status, 401);
        }
        let bad = agent.register_with(&app, json!({"delivery_mode": "pigeon"}), &[]).await;
        assert_eq!(bad.status, 400, "that was before the gate");
        agent.beat(&app).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "online");
    }

    /// The credential of its creation is a caller's, and lives.
    async fn rg_11_an_api_credential_does_not_close_the_bootstrap(app: TestApp) {
        let id = unclaimed(&app).await;
        let created = app.post("/workspaces", json!({"name": "managed"})).await.ok();
        assert!(created["auth_token"].is_string());
        app.sql("UPDATE credentials SET workspace_id = (SELECT id FROM workspaces WHERE name = 'outside')").await;
        app.call("GET", &format!("/registry/{id}/peers"), created["auth_token"].as_str(), None).await.ok();
        assert!(Agent::with(&id, None).register(&app).await.ok()["auth_token"].is_string());
    }

    async fn uc_04_a_failing_database_shows_nothing_of_itself(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.sql("DROP TABLE events").await;
        let card = json!({"workspace_id": id, "agent_card": {"name": "new"}});
        let failed = app.call("POST", "/registry/update-card", agent.token.as_deref(), Some(card)).await;
        failed.is(500, &json!({"error": "failed to update card"}));
        assert_eq!(app.workspace(&id).await["agent_card"], json!({"name": "an agent"}), "all or nothing");
    }

    async fn uc_01_of_a_removed_or_unknown_workspace_is_401(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{id}")).await.ok();
        for (id, code) in [(id.as_str(), json!("revoked")), ("00000000-0000-4000-8000-000000000000", Value::Null)] {
            let card = json!({"workspace_id": id, "agent_card": {"name": "new"}});
            let refused = app.call("POST", "/registry/update-card", agent.token.as_deref(), Some(card)).await;
            refused.refuses(401, "invalid workspace auth token");
            assert_eq!(refused.body["code"], code);
        }
    }

    async fn uc_01_a_card_is_updated_with_an_event(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let body = json!({"workspace_id": id, "agent_card": {"name": "new"}});
        let token = agent.token.as_deref();
        let answer = app.call("POST", "/registry/update-card", token, Some(body)).await;
        answer.is(200, &json!({"status": "updated"}));
        assert_eq!(app.workspace(&id).await["agent_card"], json!({"name": "new"}));
        assert_eq!(app.events(&id).await.last().unwrap(), "AGENT_CARD_UPDATED");
    }

    async fn uc_02_03_bad_card_bodies_are_400(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let token = agent.token.as_deref();
        for body in [Value::Null, json!({"workspace_id": id}), json!({"agent_card": {}})] {
            let answer = app.call("POST", "/registry/update-card", token, Some(body)).await;
            answer.refuses(400, "invalid request body");
        }
    }
}
