//! Discovery: which peers a workspace has, whether it may talk to another one, and where that answers.
//!
//! Start at [`caller`], the one gate of this noun.

pub mod http;
mod store;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use ligand_api::registry::Peer;
use ligand_domain::access::may_talk;
use ligand_domain::id::WorkspaceId;

use crate::access::{self, Session};
use crate::app::App;
use crate::config::Auth;
use crate::error::{Error, Result};
use crate::http::limit::Proof;
use crate::http::path;
use crate::workspaces;

/// Let a caller act as the workspace it claims to be: by a live credential of that workspace, or as the
/// administrator. `None` stands for a claim that is no id of any workspace.
///
/// A person passes by a session; a cookie that is none refuses, whatever bearer comes with it.
///
/// Compatibility adds three doors: a workspace for which no credential lives, a database that does not answer,
/// and development without an administrator's token.
///
/// # Errors
/// 401; 503 when the database does not answer.
pub(crate) async fn caller(app: &App, parts: &Parts, claimed: Option<WorkspaceId>) -> Result<()> {
    if app.config.fails_open() {
        return Ok(());
    }
    let bearer = access::presented(&parts.headers);
    if app.config.auth == Auth::Compat && nobody_holds(app, claimed).await.unwrap_or(true) {
        // Whoever needs to prove nothing may prove something all the same: the limiter asks whom to charge.
        if let Some(bearer) = bearer
            && let Ok(Some(held)) = access::validate(app, bearer).await
        {
            Proof::carried(parts).of(held.workspace);
        }
        return Ok(());
    }
    match access::session(app, &parts.headers).await {
        Session::Member => return Ok(()),
        Session::Refused => return Err(Error::unauthenticated("invalid session")),
        Session::Absent => {}
    }
    let Some(bearer) = bearer else {
        return Err(Error::unauthenticated("missing workspace auth token"));
    };
    if access::is_admin(app, bearer) {
        return Ok(());
    }
    let held = access::validate(app, bearer).await?;
    match held.filter(|held| Some(held.workspace) == claimed) {
        Some(held) => {
            Proof::carried(parts).of(held.workspace);
            Ok(())
        }
        None => Err(Error::unauthenticated("invalid workspace auth token")),
    }
}

async fn nobody_holds(
    app: &App,
    claimed: Option<WorkspaceId>,
) -> std::result::Result<bool, sqlx::Error> {
    match claimed {
        Some(id) => Ok(access::live_of(app, id).await? == 0),
        None => Ok(true),
    }
}

/// The workspace that the `X-Workspace-ID` header names, proven. What is no id of any workspace is nobody.
pub(crate) struct Caller(pub(crate) Option<WorkspaceId>);

impl FromRequestParts<App> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let said = parts.headers.get("x-workspace-id").and_then(|value| value.to_str().ok());
        let said = said.map(str::trim).filter(|text| !text.is_empty());
        let said = said.ok_or_else(|| Error::bad_request("X-Workspace-ID header is required"))?;
        let claimed = said.parse().ok();
        caller(app, parts, claimed).await?;
        Ok(Self(claimed))
    }
}

/// The workspace in the path, proven.
pub(crate) struct InPath(pub(crate) WorkspaceId);

impl FromRequestParts<App> for InPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let claimed = path::raw(parts, app).await.parse().ok();
        caller(app, parts, claimed).await?;
        claimed.map(Self).ok_or_else(path::malformed)
    }
}

/// Whether the hierarchy lets one talk to the other. Oneself needs no look.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn allowed(
    app: &App,
    caller: WorkspaceId,
    target: WorkspaceId,
) -> std::result::Result<bool, sqlx::Error> {
    if caller == target {
        return Ok(true);
    }
    let mut tx = app.db.read().await?;
    let caller = workspaces::lineage(&mut tx, caller).await?;
    let target = workspaces::lineage(&mut tx, target).await?;
    Ok(may_talk(caller.as_ref(), target.as_ref()))
}

/// The workspaces next to one in the hierarchy: siblings, children, parent.
///
/// # Errors
/// 404, 500.
pub(crate) async fn peers(app: &App, of: WorkspaceId) -> Result<Vec<Peer>> {
    let found = store::peers(&mut app.db.read().await?, of).await;
    let found = found.map_err(Error::internal("lookup failed"))?;
    found.ok_or_else(|| Error::not_found("workspace not found"))
}

fn forbidden() -> Error {
    Error::refused(StatusCode::FORBIDDEN, "not authorized to discover this workspace")
}
