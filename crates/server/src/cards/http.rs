//! `GET /workspaces/{id}/.well-known/agent-card.json`: with it, a client of the agents' protocol that is pointed at
//! `/workspaces/{id}` finds the agent through the platform.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use ligand_api::error::ErrorBody;
use ligand_domain::id::WorkspaceId;
use reqwest::Url;
use serde_json::{Map, Value};

use super::proxied::proxied;
use crate::access::Sender;
use crate::app::App;
use crate::discovery;
use crate::error::{Error, Result};
use crate::http::path::WorkspacePath;
use crate::http::route::Route;
use crate::workspaces::{self, Workspace};

/// Where agents keep their card: today, and in older versions.
const NAMES: [&str; 2] = [".well-known/agent-card.json", ".well-known/agent.json"];
/// How long an agent may take to show its card, all names together.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest card.
const MAX_CARD: usize = 1 << 20;

/// The card of a workspace's agent, with the platform's address in place of the agent's own.
#[utoipa::path(get, path = "/workspaces/{id}/.well-known/agent-card.json", tag = "messages", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, description = "an A2A agent card", body = Object), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn card(
    WorkspacePath(id): WorkspacePath,
    sender: Sender,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<Map<String, Value>>> {
    show(&app, id, sender, &headers).await
}

/// The same, where older clients look for it.
#[utoipa::path(get, path = "/workspaces/{id}/.well-known/agent.json", tag = "messages", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, description = "an A2A agent card", body = Object), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn card_of_old(
    WorkspacePath(id): WorkspacePath,
    sender: Sender,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Json<Map<String, Value>>> {
    show(&app, id, sender, &headers).await
}

/// Whoever may send a message may know to whom.
async fn show(
    app: &App,
    id: WorkspaceId,
    sender: Sender,
    headers: &HeaderMap,
) -> Result<Json<Map<String, Value>>> {
    if let Sender::Workspace(caller) = sender
        && !discovery::allowed(app, caller, id).await?
    {
        let text = "access denied: workspaces cannot communicate per hierarchy rules";
        return Err(Error::refused(StatusCode::FORBIDDEN, text));
    }
    let target = workspaces::present(app, id).await?;
    // What it registered is what it said when it started; it may be its agent's word for a program that has more
    // to say. So it is asked, and what it registered is what remains while it does not answer.
    let asked = tokio::time::timeout(PATIENCE, ask(app, &target)).await.unwrap_or_default();
    let registered = || serde_json::from_str(target.agent.card.as_deref()?).ok();
    let card = asked.or_else(registered).ok_or_else(|| {
        let body =
            ErrorBody::new("agent card not found").detail("its agent has not registered one");
        Error::Refused(StatusCode::NOT_FOUND, Box::new(body))
    })?;
    let place = format!("{}/workspaces/{id}/a2a", platform(app, sender, headers));
    Ok(Json(proxied(card, &target.agent.url, &place)))
}

/// Where this caller reaches the platform. A workspace's own agent is told one address at its start; others are
/// told the one that is set for them, or else the one by which they came.
fn platform(app: &App, sender: Sender, headers: &HeaderMap) -> String {
    let platform = match (sender, &app.config.external_platform_url) {
        (Sender::Workspace(_), _) => app.config.platform_url(),
        (Sender::User, Some(url)) => url.clone(),
        (Sender::User, None) => workspaces::origin(headers, app),
    };
    platform.trim_end_matches('/').to_owned()
}

async fn ask(app: &App, target: &Workspace) -> Option<Map<String, Value>> {
    if target.agent.url.is_empty() {
        return None;
    }
    let mut tx = app.db.read().await.ok()?;
    let instance = workspaces::instance_of(&mut tx, target.id, target.current).await.ok()?;
    drop(tx);
    let reported = instance.is_some_and(|instance| instance.url_reported);
    let route = Route::to(app, &target.agent.url, reported).await.ok()?;
    for place in places(&route.url) {
        if let Some(card) = fetch(&route, place).await {
            return Some(card);
        }
    }
    None
}

/// Below its address, and where that has a path, at its root.
fn places(url: &Url) -> Vec<Url> {
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let bases = [Some(base.clone()), base.join("/").ok()];
    let mut places: Vec<Url> = bases
        .into_iter()
        .flatten()
        .flat_map(|base| NAMES.map(|name| base.join(name)))
        .filter_map(std::result::Result::ok)
        .collect();
    places.dedup();
    if base.path() == "/" {
        places.truncate(NAMES.len());
    }
    places
}

async fn fetch(route: &Route, place: Url) -> Option<Map<String, Value>> {
    let answer = route.http.get(place).send().await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let (mut text, mut chunks) = (Vec::new(), answer.bytes_stream());
    while let Some(chunk) = chunks.next().await {
        text.extend_from_slice(&chunk.ok()?);
        if text.len() > MAX_CARD {
            return None;
        }
    }
    let card: Map<String, Value> = serde_json::from_slice(&text).ok()?;
    // Some answer anything with 200; a card has a name.
    card.get("name").is_some_and(Value::is_string).then_some(card)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_card_is_looked_for_below_the_address_and_at_its_root() {
        let places = |url: &str| -> Vec<String> {
            super::places(&url.parse().unwrap()).into_iter().map(String::from).collect()
        };
        let root = ["http://a:1/.well-known/agent-card.json", "http://a:1/.well-known/agent.json"];
        assert_eq!(places("http://a:1"), root);
        assert_eq!(places("http://a:1/?x=1"), root);
        let below =
            ["http://a:1/x/.well-known/agent-card.json", "http://a:1/x/.well-known/agent.json"];
        assert_eq!(places("http://a:1/x"), [below, root].concat());
    }
}
