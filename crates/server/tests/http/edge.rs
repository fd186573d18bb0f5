//! What stands around every handler: limits, the organisation, and what browsers are told.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use futures_util::FutureExt as _;
use ligand_server::config::Config;
use serde_json::json;

use super::gates::created;
use crate::support::agent::{Agent, online};
use crate::support::modes::{adjusted, compat};
use crate::support::{ADMIN, Answer, TestApp, both};

/// A call from somewhere.
struct From<'a> {
    address: &'a str,
    token: Option<&'a str>,
}

impl From<'_> {
    async fn get(&self, app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let peer: SocketAddr = format!("{}:4711", self.address).parse().unwrap();
        let request = request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap();
        app.request(request).await
    }
}

/// Limit, remaining, reset.
fn told(answer: &Answer) -> Vec<u64> {
    let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    names.iter().map(|name| answer.headers[*name].to_str().unwrap().parse().unwrap()).collect()
}

fn five(config: &mut Config) {
    config.edge.rate_limit = 5;
}

adjusted! { five;
    async fn rl_01_rl_03_an_address_has_so_many_requests_a_minute(app: TestApp) {
        let caller = From { address: "10.0.0.1", token: None };
        for left in (0..5).rev() {
            app.app.clock.advance(Duration::from_secs(1));
            let passed = caller.get(&app, "/health", &[]).await;
            assert_eq!((passed.status.as_u16(), told(&passed)), (200, vec![5, left, 56 + left]));
        }
        let refused = caller.get(&app, "/health", &[]).await;
        refused.is(429, &json!({"error": "rate limit exceeded", "retry_after": 56}));
        assert_eq!((told(&refused), &refused.headers["retry-after"]), (vec![5, 0, 56], &"56".parse().unwrap()));
        assert!(refused.headers.get("x-frame-options").is_none());
        From { address: "10.0.0.2", token: None }.get(&app, "/health", &[]).await.ok();
        From { address: "[::ffff:10.0.0.1]", token: None }.get(&app, "/health", &[]).await.refuses(429, "rate limit exceeded");
        app.app.clock.advance(Duration::from_secs(56));
        assert_eq!(told(&caller.get(&app, "/health", &[]).await), [5, 4, 60]);
        let metrics = From { address: "10.0.0.3", token: None }.get(&app, "/metrics", &[]).await;
        assert!(!metrics.text.contains("status=\"429\""), "{}", metrics.text);
    }

    async fn rl_02_what_a_header_claims_moves_nobody(app: TestApp) {
        let caller = From { address: "10.0.0.1", token: None };
        for number in 0..6 {
            let claimed = format!("192.0.2.{number}");
            let headers = [("x-forwarded-for", claimed.as_str()), ("x-real-ip", &claimed), ("forwarded", &claimed)];
            let answer = caller.get(&app, "/health", &headers).await;
            assert_eq!(answer.status.as_u16(), if number < 5 { 200 } else { 429 });
        }
    }

    async fn refusals_count_against_the_address_and_an_administrator_too(app: TestApp) {
        for (address, token) in [("10.0.0.1", Some("guess")), ("10.0.0.2", None), ("10.0.0.3", Some(ADMIN))] {
            let caller = From { address, token };
            for left in (0..5).rev() {
                assert_eq!(told(&caller.get(&app, "/workspaces", &[]).await)[1], left);
            }
            caller.get(&app, "/workspaces", &[]).await.refuses(429, "rate limit exceeded");
        }
    }

    async fn agents_behind_one_address_never_throttle_each_other(app: TestApp) {
        let mut agents = Vec::new();
        for name in ["a", "b", "c"] {
            // Each at a time of its own: the administrator has a limit too.
            app.app.clock.advance(Duration::from_secs(60));
            let (id, token) = created(&app, Some(ADMIN), name).await;
            agents.push((format!("/workspaces/{id}/why"), token));
        }
        app.app.clock.advance(Duration::from_secs(60));
        let from = |token| From { address: "10.0.0.1", token };
        for left in (0..5).rev() {
            for (path, token) in &agents {
                let passed = from(Some(token)).get(&app, path, &[]).await;
                assert_eq!((passed.status.as_u16(), told(&passed)[1]), (200, left));
            }
        }
        // Each has had its share, wherever it calls from; the address has not been charged for any of it.
        for (path, token) in &agents {
            from(Some(token)).get(&app, path, &[]).await.refuses(429, "rate limit exceeded");
            From { address: "10.0.0.9", token: Some(token) }.get(&app, path, &[]).await.refuses(429, "rate limit exceeded");
        }
        assert_eq!(told(&from(None).get(&app, "/health", &[]).await)[1], 4);
        // A flood of strangers behind that address does not touch who was seen to be somebody.
        app.app.clock.advance(Duration::from_secs(60));
        for _ in 0..9 {
            from(Some("guess")).get(&app, &agents[0].0, &[]).await;
        }
        from(Some("guess")).get(&app, &agents[0].0, &[]).await.refuses(429, "rate limit exceeded");
        assert_eq!(from(Some(&agents[0].1)).get(&app, &agents[0].0, &[]).await.status, 200);
    }

    async fn a_credential_that_ended_is_a_stranger_after_its_first_refusal(app: TestApp) {
        let (id, token) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/workspaces/{id}/why");
        let caller = From { address: "10.0.0.1", token: Some(&token) };
        assert_eq!(caller.get(&app, &path, &[]).await.status, 200);
        app.sql("UPDATE credentials SET state = 'revoked', ended_at = 1").await;
        for left in (0..5).rev() {
            let refused = caller.get(&app, &path, &[]).await;
            assert_eq!((refused.status.as_u16(), told(&refused)[1]), (401, left));
        }
        caller.get(&app, &path, &[]).await.refuses(429, "rate limit exceeded");
    }

    async fn a_credential_that_ended_does_not_use_up_its_successors_share_at_open_routes(app: TestApp) {
        let (id, token) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/workspaces/{id}/why");
        let former = From { address: "10.0.0.1", token: Some(&token) };
        assert_eq!(former.get(&app, &path, &[]).await.status, 200);
        app.sql("UPDATE credentials SET state = 'revoked', ended_at = 1").await;
        for left in (0..5).rev() {
            let open = former.get(&app, "/health", &[]).await;
            assert_eq!((open.status.as_u16(), told(&open)[1]), (200, left));
        }
        former.get(&app, "/health", &[]).await.refuses(429, "rate limit exceeded");
        let minted = app.post(&format!("/workspaces/{id}/tokens"), json!({})).await.ok();
        let successor = From { address: "10.0.0.2", token: minted["auth_token"].as_str() };
        let passed = successor.get(&app, &path, &[]).await;
        assert_eq!((passed.status.as_u16(), told(&passed)[1]), (200, 2), "two were used before it ended");
    }

    async fn whoever_goes_away_before_the_answer_is_charged_all_the_same(app: TestApp) {
        let caller = From { address: "10.0.0.1", token: Some("guess") };
        for _ in 0..5 {
            let call = caller.get(&app, "/workspaces/x/why", &[]);
            assert!(call.now_or_never().is_none(), "it has to ask the database");
        }
        caller.get(&app, "/workspaces/x/why", &[]).await.refuses(429, "rate limit exceeded");
    }

    async fn a_failure_of_the_server_makes_no_stranger_of_a_proven_caller(app: TestApp) {
        let (id, token) = created(&app, Some(ADMIN), "a").await;
        let path = format!("/workspaces/{id}/why");
        let caller = From { address: "10.0.0.1", token: Some(&token) };
        assert_eq!(caller.get(&app, &path, &[]).await.status, 200);
        app.sql("ALTER TABLE credentials RENAME TO elsewhere").await;
        assert_eq!(caller.get(&app, &path, &[]).await.status, 503);
        app.sql("ALTER TABLE elsewhere RENAME TO credentials").await;
        let passed = caller.get(&app, &path, &[]).await;
        assert_eq!((passed.status.as_u16(), told(&passed)[1]), (200, 2));
        assert_eq!(told(&From { token: None, ..caller }.get(&app, "/health", &[]).await)[1], 4);
    }

    async fn discovery_is_charged_to_the_workspace_that_proves_itself(app: TestApp) {
        let (id, token) = created(&app, Some(ADMIN), "a").await;
        let caller = From { address: "10.0.0.1", token: Some(&token) };
        let claim = [("x-workspace-id", id.as_str())];
        for (path, left) in [(format!("/registry/{id}/peers"), 4), (format!("/registry/discover/{id}"), 3)] {
            let answer = caller.get(&app, &path, &claim).await;
            assert!(answer.status != 401 && answer.status != 429, "{answer:?}");
            assert_eq!(told(&answer)[1], left);
        }
        assert_eq!(told(&From { token: None, ..caller }.get(&app, "/health", &[]).await)[1], 4);
    }

    async fn a_heartbeat_is_charged_to_its_workspace_and_a_refused_one_to_its_address(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.app.clock.advance(Duration::from_secs(60));
        assert_eq!(told(&agent.beat(&app).await), [5, 4, 60]);
        assert_eq!(told(&agent.register(&app).await), [5, 3, 60]);
        let stranger = Agent::with(&id, Some("guess"));
        assert_eq!(told(&stranger.beat(&app).await), [5, 4, 60]);
        assert_eq!(told(&Agent::with(&id, None).beat(&app).await), [5, 3, 60]);
        assert_eq!(told(&agent.beat(&app).await), [5, 2, 60]);
    }
}

#[cfg(feature = "mutants")]
fn without_buckets(config: &mut Config) {
    use ligand_domain::guards::{Guard, Guards};
    five(config);
    config.guards = Guards::without(Guard::WorkspaceBucket);
}

#[cfg(feature = "mutants")]
adjusted! { without_buckets;
    async fn without_its_guard_one_agent_throttles_another(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.app.clock.advance(Duration::from_secs(60));
        for _ in 0..5 {
            Agent::with(&id, Some("guess")).beat(&app).await;
        }
        agent.beat(&app).await.refuses(429, "rate limit exceeded");
    }
}

both! {
    async fn sh_01_sh_03_sh_04_sh_05_every_answer_tells_browsers_what_not_to_do(app: TestApp) {
        let id = app.create("a").await;
        let always = [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ];
        let stream = format!("/workspaces/{id}/events/stream");
        for path in ["/health", "/metrics", "/workspaces", "/nowhere", "/openapi.json", "/canvas/viewport", "/workspaces/x/why", &stream] {
            let request = Request::builder().uri(path).header("authorization", format!("Bearer {ADMIN}"));
            let answer = app.response(request.body(Body::empty()).unwrap()).await;
            for (name, value) in always {
                assert_eq!(answer.headers()[name], value, "{path}");
            }
            let policy = answer.headers()["content-security-policy"].to_str().unwrap();
            let page = ["/nowhere", "/openapi.json", "/canvas/viewport"].contains(&path);
            assert_eq!(policy.contains("'unsafe-inline'"), page, "{path}");
            assert!(policy.starts_with("default-src 'self'"));
        }
    }

    async fn pages_on_the_list_may_read_answers_in_a_browser(app: TestApp) {
        let preflight = async |origin: &str| {
            let headers = [("origin", origin), ("access-control-request-method", "PATCH")];
            app.send("OPTIONS", "/workspaces/x", None, None, &headers).await
        };
        let allowed = preflight("http://localhost:3000").await;
        assert_eq!(allowed.status, 204);
        assert_eq!(allowed.headers["access-control-allow-origin"], "http://localhost:3000");
        assert_eq!(allowed.headers["access-control-allow-credentials"], "true");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert!(allowed.headers["access-control-allow-methods"].to_str().unwrap().contains(method));
        }
        for header in ["Origin", "Content-Type", "X-Workspace-ID", "Authorization", "X-Molecule-Org-Id", "X-Molecule-Org-Slug", "X-Confirm-Name"] {
            assert!(allowed.headers["access-control-allow-headers"].to_str().unwrap().contains(header));
        }
        assert!(allowed.headers.get("x-ratelimit-limit").is_none(), "preflights are not counted");
        let refused = preflight("http://evil.example").await;
        assert!(refused.status == 403 && refused.headers.get("access-control-allow-origin").is_none());
        let read = async |origin: &str| app.send("GET", "/health", None, None, &[("origin", origin)]).await;
        assert_eq!(read("http://localhost:3001").await.headers["access-control-allow-origin"], "http://localhost:3001");
        let foreign = read("http://evil.example").await;
        assert!(foreign.status == 200 && foreign.headers.get("access-control-allow-origin").is_none());
    }

    async fn tg_01_without_an_organisation_nothing_is_guarded(app: TestApp) {
        assert_eq!(app.get("/workspaces").await.status, 200);
    }
}

adjusted! { |config: &mut Config| config.edge.cors_origins = vec!["https://acme.example".to_owned()];
    async fn a_list_of_origins_replaces_the_local_canvas(app: TestApp) {
        for (origin, listed) in [("https://acme.example", true), ("http://localhost:3000", false)] {
            let answer = app.send("GET", "/health", None, None, &[("origin", origin)]).await;
            assert_eq!(answer.headers.contains_key("access-control-allow-origin"), listed, "{origin}");
        }
    }
}

fn acme(config: &mut Config) {
    config.org_id = Some("acme".to_owned());
    config.edge.canvas_proxy = Some("http://127.0.0.1:9".to_owned());
}

adjusted! { acme;
    async fn tg_02_tg_03_tg_04_tg_08_tg_09_requests_of_another_organisation_are_nobodys(app: TestApp) {
        let list = async |headers: &[(&str, &str)]| app.send("GET", "/workspaces", Some(ADMIN), None, headers).await;
        for headers in [("x-molecule-org-id", "acme"), ("fly-replay-src", "instance=1;state=acme;t=2")] {
            assert_eq!(list(&[headers]).await.status, 200);
        }
        for headers in [&[][..], &[("x-molecule-org-id", "other")], &[("fly-replay-src", "state=other")], &[("fly-replay-src", "instance=acme")]] {
            let refused = list(headers).await;
            assert_eq!((refused.status.as_u16(), refused.text.as_str()), (404, ""));
            assert!(refused.headers.get("content-type").is_none() && refused.headers.get("x-frame-options").is_none());
            assert!(refused.headers.contains_key("x-ratelimit-limit"));
        }
        let metrics = app.call("GET", "/metrics", None, None).await;
        assert!(metrics.text.contains(r#"path="/workspaces",status="404""#), "the guard's refusals are counted");
    }

    async fn tg_05_tg_06_tg_07_what_everybody_needs_is_not_guarded(app: TestApp) {
        assert_eq!(app.call("GET", "/health", None, None).await.status, 200);
        assert_eq!(app.call("GET", "/metrics", None, None).await.status, 200);
        for path in ["/registry/register", "/registry/heartbeat"] {
            assert_eq!(app.call("POST", path, None, Some(json!({}))).await.status, 400);
        }
        for path in ["/registry/update-card", "/registry/register/", "/health/x"] {
            let refused = app.call("POST", path, None, Some(json!({}))).await;
            assert_eq!((refused.status.as_u16(), refused.text.as_str()), (404, ""), "{path}");
        }
    }

    async fn tg_13_strict_trusts_no_page_of_its_own_address(app: TestApp) {
        let headers = [("host", "acme.example"), ("origin", "https://acme.example")];
        assert_eq!(app.send("GET", "/workspaces", Some(ADMIN), None, &headers).await.text, "");
    }
}

adjusted! { |config: &mut Config| { compat(config); config.edge.rate_limit = 5; };
    async fn compat_charges_a_proven_caller_of_an_open_discovery_to_its_workspace(app: TestApp) {
        let (_, token) = created(&app, None, "a").await;
        let nobody = "/registry/00000000-0000-4000-8000-000000000000/peers";
        let caller = From { address: "10.0.0.1", token: Some(&token) };
        caller.get(&app, nobody, &[]).await.refuses(404, "workspace not found");
        assert_eq!(told(&From { token: None, ..caller }.get(&app, "/health", &[]).await)[1], 4);
    }
}

adjusted! { |config: &mut Config| { acme(config); compat(config); };
    async fn tg_11_tg_12_compat_trusts_pages_of_its_own_address(app: TestApp) {
        for page in [("referer", "https://acme.example/x"), ("origin", "https://acme.example")] {
            let headers = [("host", "acme.example"), page];
            assert_eq!(app.send("GET", "/workspaces", None, None, &headers).await.status, 200);
        }
        let foreign = [("host", "acme.example"), ("origin", "https://evil.example")];
        assert_eq!(app.send("GET", "/workspaces", None, None, &foreign).await.status, 404);
    }
}

adjusted! { |config: &mut Config| { acme(config); compat(config); config.edge.canvas_proxy = None; };
    async fn tg_13_without_a_canvas_of_its_own_compat_trusts_none(app: TestApp) {
        let headers = [("host", "acme.example"), ("origin", "https://acme.example")];
        assert_eq!(app.send("GET", "/workspaces", None, None, &headers).await.status, 404);
    }
}
