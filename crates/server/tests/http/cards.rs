//! Agents' cards behind the platform's address: `GET /workspaces/{id}/.well-known/agent-card.json`.

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::gates::created;
use crate::support::agent::{Agent, online};
use crate::support::{ADMIN, Answer, TestApp, both};

/// A workspace whose agent is this server, on a socket of its own that the backend reported. Gives that address.
pub(crate) async fn served_by(app: &TestApp, name: &str, router: Router) -> (String, Agent) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    app.fake.report_address(Some(url.clone()));
    let (_, agent) = online(app, name).await;
    (url, agent)
}

async fn card(app: &TestApp, id: &str, token: &str) -> Answer {
    let path = format!("/workspaces/{id}/.well-known/agent-card.json");
    app.call("GET", &path, Some(token), None).await
}

/// A card as an agent shows it that listens at no address that anybody else knows.
fn shown() -> Value {
    json!({"name": "b", "version": "2", "url": "http://127.0.0.1:7/", "iconUrl": "http://127.0.0.1:7/icon.png",
        "capabilities": {"streaming": true}, "skills": []})
}

both! {
    async fn an_agent_is_asked_for_its_card_and_nothing_inner_is_shown(app: TestApp) {
        let router = Router::new().route("/.well-known/agent-card.json", get(async || Json(shown())));
        let (url, agent) = served_by(&app, "b", router).await;
        let id = &agent.workspace;
        let answer = card(&app, id, ADMIN).await;
        assert!(!answer.text.contains("127.0.0.1:7") && !answer.text.contains(&url), "{}", answer.text);
        let place = format!("{}/workspaces/{id}/a2a", app.app.config.platform_url());
        let answer = answer.ok();
        assert_eq!((&answer["name"], &answer["url"], &answer["capabilities"]["streaming"]), (&json!("b"), &json!(place), &json!(true)));
        assert_eq!(answer["securitySchemes"]["platform"]["scheme"], "bearer");
        let older = app.get(&format!("/workspaces/{id}/.well-known/agent.json")).await.ok();
        assert_eq!(older, answer);
    }

    async fn an_older_agent_keeps_its_card_elsewhere(app: TestApp) {
        let router = Router::new().route("/.well-known/agent.json", get(async || Json(shown())));
        let (_, agent) = served_by(&app, "b", router).await;
        assert_eq!(card(&app, &agent.workspace, ADMIN).await.ok()["version"], "2");
    }

    async fn what_it_registered_remains_while_it_shows_none(app: TestApp) {
        let nonsense = Router::new().fallback(async || "hello");
        let failing = Router::new().fallback(async || (StatusCode::BAD_GATEWAY, Json(shown())).into_response());
        for (name, router) in [("nonsense", nonsense), ("failing", failing)] {
            let (_, agent) = served_by(&app, name, router).await;
            let answer = card(&app, &agent.workspace, ADMIN).await.ok();
            assert_eq!(answer["name"], "an agent", "{answer}");
        }
        app.fake.report_address(Some("http://127.0.0.1:1".to_owned()));
        let (id, _) = online(&app, "away").await;
        let place = format!("{}/workspaces/{id}/a2a", app.app.config.platform_url());
        assert_eq!(card(&app, &id, ADMIN).await.ok()["url"], place);
        let never = app.create("never").await;
        card(&app, &never, ADMIN).await.refuses(404, "agent card not found");
        card(&app, "00000000-0000-4000-8000-000000000000", ADMIN).await.refuses(404, "workspace not found");
    }

    async fn whoever_may_write_to_an_agent_sees_its_card(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let (peer, token) = created(&app, Some(ADMIN), "peer").await;
        let below = app.post("/workspaces", json!({"name": "below", "parent_id": id})).await.ok();
        card(&app, &id, agent.token.as_deref().unwrap()).await.ok();
        card(&app, &id, &token).await.ok();
        let denied = "access denied: workspaces cannot communicate per hierarchy rules";
        card(&app, below["id"].as_str().unwrap(), &token).await.refuses(403, denied);
        card(&app, &id, "guess").await.refuses(401, "invalid caller auth token");
        let path = format!("/workspaces/{peer}/.well-known/agent-card.json");
        app.call("GET", &path, None, None).await.refuses(401, "missing caller auth token");
    }

    async fn a_card_names_the_address_by_which_its_reader_came(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/.well-known/agent-card.json");
        let url = async |app: &TestApp, token: &str| {
            let host = [("host", "ligand.example:8443"), ("x-forwarded-proto", "https")];
            let answer = app.send("GET", &path, Some(token), None, &host).await.ok();
            answer["url"].as_str().unwrap().to_owned()
        };
        assert_eq!(url(&app, ADMIN).await, format!("https://ligand.example:8443/workspaces/{id}/a2a"));
        let own = agent.token.as_deref().unwrap();
        let app = app.with(|config| config.platform_url = Some("http://platform.internal:8080/".to_owned()));
        assert_eq!(url(&app, own).await, format!("http://platform.internal:8080/workspaces/{id}/a2a"));
        let app = app.with(|config| config.external_platform_url = Some("https://outside.example".to_owned()));
        assert_eq!(url(&app, ADMIN).await, format!("https://outside.example/workspaces/{id}/a2a"));
    }

    async fn an_address_that_must_not_be_called_is_not_asked(app: TestApp) {
        let router = Router::new().route("/.well-known/agent-card.json", get(async || Json(shown())));
        let (url, _) = served_by(&app, "b", router).await;
        let outside = app.post("/workspaces", json!({"name": "x", "external": true, "url": url})).await.ok();
        card(&app, outside["id"].as_str().unwrap(), ADMIN).await.refuses(404, "agent card not found");
    }
}
