//! Where agents may say that they answer, and where they may be called.

use std::net::IpAddr;

use ligand_server::config::Config;
use serde_json::json;

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::engine::on_each;
use crate::support::{ADMIN, TestApp, both};

const PUBLIC: [u8; 4] = [93, 184, 216, 34];
const METADATA: &str = "link-local and metadata addresses are not allowed";
const PRIVATE: &str = "private addresses are not allowed";
const RESERVED: &str = "reserved addresses are not allowed";
const LOOPBACK: &str = "loopback addresses are not allowed";

fn name(app: &TestApp, name: &str, addresses: &[[u8; 4]]) {
    let addresses: Vec<IpAddr> = addresses.iter().copied().map(IpAddr::from).collect();
    app.app.names.set(name, &addresses);
}

/// A server with other settings, on each engine.
fn with(name: &str, adjust: fn(&mut Config), body: impl AsyncFn(TestApp)) {
    on_each(name, |db| body(TestApp::new(db, adjust)));
}

/// What becomes of a first register with this address.
async fn register(app: &TestApp, url: &str, expected: Result<(), &str>) {
    let agent = Agent::with(&unclaimed(app).await, None);
    let answer = agent.register_with(app, json!({"url": url}), &[]).await;
    match expected {
        Ok(()) => assert!(answer.ok()["auth_token"].is_string(), "{url}"),
        Err(why) => answer.refuses(400, why),
    }
}

async fn send(app: &TestApp, id: &str) -> (u16, String) {
    let body =
        json!({"method": "message/send", "params": {"message": {"role": "user", "parts": []}}});
    let answer = app.call("POST", &format!("/workspaces/{id}/a2a"), Some(ADMIN), Some(body)).await;
    (answer.status.as_u16(), answer.body["error"].as_str().unwrap_or_default().to_owned())
}

both! {
    async fn uv_01_strict_refuses_what_is_not_public_by_every_address_of_a_name(app: TestApp) {
        name(&app, "public.example", &[PUBLIC]);
        name(&app, "mixed.example", &[PUBLIC, [10, 0, 0, 1]]);
        name(&app, "metadata.example", &[[169, 254, 169, 254]]);
        for (url, expected) in [
            ("https://public.example", Ok(())),
            ("https://PUBLIC.example:8443/a", Ok(())),
            ("http://93.184.216.34", Ok(())),
            ("http://mixed.example", Err(PRIVATE)),
            ("http://metadata.example", Err(METADATA)),
            ("http://nowhere.example", Err("its name does not resolve")),
            ("http://169.254.169.254/latest", Err(METADATA)),
            ("http://127.0.0.1:8000", Err(LOOPBACK)),
            ("http://[::1]:8000", Err(LOOPBACK)),
            ("http://[fe80::1]", Err(METADATA)),
            ("http://10.0.0.1", Err(PRIVATE)),
            ("http://172.16.0.1", Err(PRIVATE)),
            ("http://192.168.0.1", Err(PRIVATE)),
            ("http://[fd00::1]", Err(PRIVATE)),
            ("http://[fc00::1]", Err(RESERVED)),
            ("http://192.0.2.1", Err(RESERVED)),
            ("http://100.64.0.1", Err(RESERVED)),
            ("http://224.0.0.1", Err(RESERVED)),
            ("http://[2001:db8::1]", Err(RESERVED)),
            ("http://[::ffff:10.0.0.1]", Err(PRIVATE)),
            ("ftp://public.example", Err("scheme must be http or https")),
            ("public.example", Err("not a URL: relative URL without a base")),
        ] {
            register(&app, url, expected).await;
        }
        let asked = app.app.names.asked().len();
        register(&app, "http://localhost:8000", Ok(())).await;
        assert_eq!(app.app.names.asked().len(), asked, "localhost is not looked up");
    }

    async fn strangers_do_not_choose_what_is_looked_up(app: TestApp) {
        name(&app, "public.example", &[PUBLIC]);
        let (id, agent) = online(&app, "a").await;
        let named = json!({"url": "http://public.example", "agent_card": {"url": "http://other.example"}});
        for (workspace, token) in [
            (id.as_str(), None),
            (id.as_str(), Some("a-stranger")),
            ("00000000-0000-4000-8000-000000000000", None),
        ] {
            let stranger = Agent::with(workspace, token);
            assert_eq!(stranger.register_with(&app, named.clone(), &[]).await.status, 401);
            let card = json!({"workspace_id": workspace, "agent_card": {"url": "http://public.example"}});
            assert_eq!(app.call("POST", "/registry/update-card", token, Some(card)).await.status, 401);
        }
        assert_eq!(app.app.names.asked(), [""; 0]);
        // Looking changed nothing: the first register of an agent is its first, and mints.
        let outside = Agent::with(&unclaimed(&app).await, None);
        let refused = outside.register_with(&app, named, &[]).await;
        refused.refuses(400, "workspace agent_card URL not allowed");
        assert_eq!(app.app.names.asked(), ["public.example", "other.example"]);
        let fine = outside.register_with(&app, json!({"url": "http://public.example"}), &[]).await.ok();
        assert_eq!((&fine["generation"], fine["auth_token"].is_string()), (&json!(1), true));
        agent.beat(&app).await.ok();
    }

    async fn an_unsafe_address_in_a_card_is_refused_by_its_own_text(app: TestApp) {
        let agent = Agent::with(&unclaimed(&app).await, None);
        let card = |url: &str| json!({"agent_card": {"url": url}});
        let refused = agent.register_with(&app, card("http://169.254.169.254"), &[]).await;
        refused.refuses(400, "workspace agent_card URL not allowed");
        assert_eq!(refused.body["detail"], format!("agent_card.url: {METADATA}"));
        // Where the url is not said, the card's is the one.
        let only = json!({"url": null, "agent_card": {"url": "http://localhost:7"}, "delivery_mode": "push"});
        let token = agent.register_with(&app, only, &[]).await.ok()["auth_token"].clone();
        assert_eq!(app.workspace(&agent.workspace).await["url"], "http://localhost:7");
        let agent = Agent::with(&agent.workspace, token.as_str());
        let update = async |url: &str| {
            let body = json!({"workspace_id": agent.workspace, "agent_card": {"url": url}});
            app.call("POST", "/registry/update-card", agent.token.as_deref(), Some(body)).await
        };
        name(&app, "public.example", &[PUBLIC]);
        for url in ["http://169.254.169.254", "http://localhost:7", "http://nowhere.example", "ftp://public.example"] {
            update(url).await.refuses(400, "workspace URL not allowed");
        }
        update("http://public.example").await.ok();
        update("").await.ok();
    }

    async fn rg_13_what_a_backend_reported_is_trusted_whatever_the_agent_says(app: TestApp) {
        app.fake.report_address(Some("http://127.0.0.1:4711".to_owned()));
        let (id, agent) = online(&app, "a").await;
        for url in ["http://localhost:8000", "http://a-host-of-its-own:8000", "http://169.254.169.254"] {
            let said = json!({"url": url, "agent_card": {"url": url}});
            agent.register_with(&app, said, &[]).await.ok();
            assert_eq!(app.workspace(&id).await["url"], "http://127.0.0.1:4711");
        }
        let card = json!({"workspace_id": id, "agent_card": {"url": "http://a-host-of-its-own:8000"}});
        app.call("POST", "/registry/update-card", agent.token.as_deref(), Some(card)).await.ok();
        assert_eq!(app.app.names.asked(), [""; 0], "nothing of it counts, so nothing of it is looked up");
    }

    async fn sf_01_04_06_a_call_is_judged_by_what_the_name_stands_for_now(app: TestApp) {
        name(&app, "moving.example", &[PUBLIC]);
        let agent = Agent::with(&unclaimed(&app).await, None);
        agent.register_with(&app, json!({"url": "http://moving.example"}), &[]).await.ok();
        let refused = (502, "workspace URL is not publicly routable".to_owned());
        for to in [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254], [0, 0, 0, 0]] {
            name(&app, "moving.example", &[PUBLIC, to]);
            assert_eq!(send(&app, &agent.workspace).await, refused, "{to:?}");
        }
        let local = Agent::with(&unclaimed(&app).await, None);
        local.register_with(&app, json!({"url": "http://localhost:1"}), &[]).await.ok();
        assert_eq!(send(&app, &local.workspace).await, refused);
        let body = json!({"name": "x", "external": true, "url": "gopher://x"});
        let odd = app.post("/workspaces", body).await.ok();
        assert_eq!(send(&app, odd["id"].as_str().unwrap()).await, refused);
    }
}

#[test]
fn uv_02_uv_03_saas_registers_private_addresses_and_nothing_else_more() {
    with(
        "uv_02",
        |config| config.saas = true,
        async |app| {
            name(&app, "inside.example", &[[10, 0, 0, 1]]);
            for (url, expected) in [
                ("http://inside.example", Ok(())),
                ("http://10.0.0.1", Ok(())),
                ("http://[fd00::1]", Ok(())),
                ("http://169.254.169.254", Err(METADATA)),
                ("http://127.0.0.1", Err(LOOPBACK)),
                ("http://100.64.0.1", Err(RESERVED)),
                ("http://203.0.113.1", Err(RESERVED)),
                ("http://224.0.0.1", Err(RESERVED)),
                ("http://[fc00::1]", Err(RESERVED)),
                // No domain of tunnels is known.
                ("http://ws-1.agents.example", Err("its name does not resolve")),
            ] {
                register(&app, url, expected).await;
            }
        },
    );
}

#[test]
fn a_tunnel_may_be_registered_before_it_resolves() {
    let adjust = |config: &mut Config| {
        config.saas = true;
        config.app_domain = Some("agents.example".to_owned());
    };
    with("tunnel", adjust, async |app| {
        register(&app, "https://WS-1.agents.example", Ok(())).await;
        register(&app, "https://ws-1.agents.example.", Ok(())).await;
        register(&app, "https://web-1.agents.example", Err("its name does not resolve")).await;
        name(&app, "ws-2.agents.example", &[[169, 254, 169, 254]]);
        register(&app, "https://ws-2.agents.example", Err(METADATA)).await;
    });
    with(
        "tunnel_strict",
        |config| config.app_domain = Some("agents.example".to_owned()),
        async |app| {
            register(&app, "https://ws-1.agents.example", Err("its name does not resolve")).await;
        },
    );
}

#[test]
fn sf_01_02_03_development_calls_this_machine_and_still_no_metadata() {
    with(
        "sf_dev",
        |config| config.development = true,
        async |app| {
            register(&app, "http://127.0.0.1:1", Err(LOOPBACK)).await;
            name(&app, "moving.example", &[PUBLIC]);
            let agent = Agent::with(&unclaimed(&app).await, None);
            agent.register_with(&app, json!({"url": "http://moving.example:1"}), &[]).await.ok();
            for (to, refused) in
                [([169, 254, 169, 254], true), ([192, 0, 2, 1], true), ([127, 0, 0, 1], false)]
            {
                name(&app, "moving.example", &[to]);
                let (_, error) = send(&app, &agent.workspace).await;
                assert_eq!(
                    error == "workspace URL is not publicly routable",
                    refused,
                    "{to:?} {error}"
                );
            }
        },
    );
}
