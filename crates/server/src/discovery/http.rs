//! Discovery over HTTP.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::registry::{Access, CheckAccess, Discovered, Peer};
use ligand_domain::id::WorkspaceId;
use serde::Deserialize;

use super::{Caller, InPath, allowed, forbidden};
use crate::app::App;
use crate::config::BackendConfig;
use crate::error::{Error, Result};
use crate::http::address::Address;
use crate::http::body::{Payload, parse};
use crate::http::path::WorkspacePath;
use crate::workspaces::{self, Workspace};

/// Whom to look for among the peers.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Like {
    /// Part of a name or a role, in letters of any size.
    q: Option<String>,
}

/// Where a peer answers.
#[utoipa::path(get, path = "/registry/discover/{id}", tag = "registry", params(
    ("id" = String, Path, description = "the peer"), ("X-Workspace-ID" = String, Header, description = "the caller")), responses(
    (status = 200, body = Discovered), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn discover(
    Caller(caller): Caller,
    WorkspacePath(target): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<Discovered>> {
    let caller = caller.ok_or_else(forbidden)?;
    if !allowed(&app, caller, target).await? {
        return Err(forbidden());
    }
    let mut tx = app.db.read().await?;
    let found = workspaces::get(&mut tx, target).await?;
    let caller = workspaces::get(&mut tx, caller).await?;
    let target = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    let instance = workspaces::instance_of(&mut tx, target.id, target.current).await?;
    drop(tx);
    let there = target.status.serves() || !target.managed();
    if target.agent.url.is_empty() || !there {
        let mut body = ErrorBody::new("workspace not available");
        body.status = Some(target.status.as_str().to_owned());
        return Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)));
    }
    let url = match instance.is_some_and(|instance| instance.url_reported) {
        true => target.agent.url.clone(),
        false => judged(&app, &target, caller.as_ref()).await?,
    };
    Ok(Json(Discovered { id: target.id.uuid(), url, name: target.name }))
}

/// An address that nobody but the agent vouches for, since no backend reported it: it is judged at every look,
/// as it is at every call.
async fn judged(app: &App, target: &Workspace, caller: Option<&Workspace>) -> Result<String> {
    let refused = |why: String| {
        let body = ErrorBody::new("workspace URL failed safety check").detail(why);
        Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body))
    };
    let address = Address::parse(&target.agent.url).map_err(refused)?;
    address.may_be_called(app).await.map_err(refused)?;
    // What this machine calls itself is somebody else in a container.
    match caller.is_some_and(|caller| in_container(app, caller)) {
        true => Ok(from_container(&address, &target.agent.url)),
        false => Ok(target.agent.url.clone()),
    }
}

/// Whether a workspace's agent has a network of its own. What is on the network of this machine has not.
fn in_container(app: &App, caller: &Workspace) -> bool {
    let backend = caller.backend.as_ref().map(|name| app.config.backends.get(name));
    backend.is_some_and(|of| of.is_none_or(BackendConfig::apart))
}

fn from_container(address: &Address, text: &str) -> String {
    match address.host() {
        host @ ("localhost" | "127.0.0.1") => text.replacen(host, "host.docker.internal", 1),
        _ => text.to_owned(),
    }
}

/// The workspaces next to one in the hierarchy: siblings, children, parent.
#[utoipa::path(get, path = "/registry/{id}/peers", tag = "registry", params(("id" = String, Path, description = "the caller"), Like), responses(
    (status = 200, body = Vec<Peer>), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn peers(
    InPath(of): InPath,
    State(app): State<App>,
    Query(like): Query<Like>,
) -> Result<Json<Vec<Peer>>> {
    let mut peers = super::peers(&app, of).await?;
    let part = like.q.as_deref().unwrap_or_default().trim().to_lowercase();
    // Here and not in the database: its engines differ in what is a small letter.
    peers.retain(|peer| {
        let role = peer.role.as_deref().unwrap_or_default();
        [peer.name.as_str(), role].iter().any(|text| text.to_lowercase().contains(&part))
    });
    Ok(Json(peers))
}

/// Whether one workspace may talk to another.
#[utoipa::path(post, path = "/registry/check-access", tag = "registry", request_body = CheckAccess, responses(
    (status = 200, body = Access), (status = 400, body = ErrorBody)))]
pub(crate) async fn check_access(
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Access>> {
    let text = "invalid request body";
    let asked: CheckAccess = parse(&body, text)?;
    for (field, value) in [("caller_id", &asked.caller_id), ("target_id", &asked.target_id)] {
        if value.is_empty() {
            return Err(Error::invalid(text, format!("{field}: expected a workspace's id")));
        }
    }
    let id = |text: &str| text.parse::<WorkspaceId>().ok();
    let allowed = match (id(&asked.caller_id), id(&asked.target_id)) {
        _ if asked.caller_id == asked.target_id => true,
        (Some(caller), Some(target)) => allowed(&app, caller, target).await?,
        (None, _) | (_, None) => false,
    };
    Ok(Json(Access { allowed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ds_09_only_what_names_this_machine_is_written_anew() {
        for (url, seen) in [
            ("http://localhost:8000/a", "http://host.docker.internal:8000/a"),
            ("http://127.0.0.1:8000", "http://host.docker.internal:8000"),
            ("https://agent.example/localhost", "https://agent.example/localhost"),
            ("https://agent.example", "https://agent.example"),
        ] {
            assert_eq!(from_container(&Address::parse(url).unwrap(), url), seen);
        }
    }
}
