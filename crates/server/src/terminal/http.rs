//! `GET /workspaces/{id}/terminal`.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ligand_api::error::ErrorBody;
use ligand_domain::id::WorkspaceId;
use serde::Deserialize;

use super::{LONGEST, bounded, pass_on};
use crate::access::{By, OfWorkspace};
use crate::app::App;
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::http::edge::whence;
use crate::{discovery, workspaces};

/// How large the terminal is at first.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Size {
    /// 80 unless said.
    cols: Option<u16>,
    /// 24 unless said.
    rows: Option<u16>,
}

/// A shell in a workspace's instance, over a WebSocket.
#[utoipa::path(get, path = "/workspaces/{id}/terminal", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), Size), responses(
    (status = 101, description = "a WebSocket"), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn open(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(size): Query<Size>,
    headers: HeaderMap,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    may_open(&app, &caller, &headers).await?;
    let workspace = workspaces::present(&app, caller.workspace).await?;
    let backend = workspace.backend.as_deref().and_then(|name| app.backends.get(name));
    let backend = backend.ok_or_else(no_shells)?;
    let not_running = || Error::not_found("container not running");
    let key = workspaces::running(&app, &workspace).await?.ok_or_else(not_running)?;
    let size = bounded((size.cols.unwrap_or(80), size.rows.unwrap_or(24)));
    let terminal = backend.terminal(key, size).await.map_err(|cause| match cause.kind {
        ErrorKind::Unsupported => no_shells(),
        ErrorKind::Missing => not_running(),
        ErrorKind::Transient | ErrorKind::Broken => {
            Error::Internal("the terminal could not be opened", anyhow::anyhow!(cause.chain()))
        }
    })?;
    // Refused only now: whoever asks in another way still learns what there is.
    let upgrade = upgrade
        .map_err(|cause| Error::invalid("expected a WebSocket upgrade", cause.to_string()))?;
    let upgrade = upgrade.max_message_size(LONGEST).max_frame_size(LONGEST);
    let tasks = app.tasks.clone();
    Ok(upgrade.on_upgrade(move |mut socket| {
        tasks.track_future(async move {
            pass_on(&app, &mut socket, terminal).await;
            let _ = socket.send(Message::Close(None)).await;
        })
    }))
}

fn no_shells() -> Error {
    Error::refused(StatusCode::SERVICE_UNAVAILABLE, "Docker not available")
}

/// Beside the gate: whoever acts as another workspace must be let in as that one, and be of its family; and no
/// page of another site opens a shell with somebody's cookie.
async fn may_open(app: &App, caller: &OfWorkspace, headers: &HeaderMap) -> Result<()> {
    let from = whence(headers);
    let by_page = matches!(caller.by, By::Session | By::Anybody) && from.origin.is_some();
    if by_page && !from.same_origin() && !from.listed(&app.config.edge.cors_origins) {
        return Err(Error::refused(StatusCode::FORBIDDEN, "origin not allowed"));
    }
    let claimed = headers.get("x-workspace-id").and_then(|value| value.to_str().ok());
    let Some(claimed) = claimed.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    let claimed = claimed.parse::<WorkspaceId>().ok();
    if claimed == Some(caller.workspace) {
        return Ok(());
    }
    let invalid = || Error::unauthenticated("invalid token for claimed workspace");
    // The credential that passed the gate is the target's own, and so not that of the one that is claimed.
    let believed = matches!(caller.by, By::Admin | By::Org(_) | By::Session);
    let claimed = claimed.filter(|_| believed).ok_or_else(invalid)?;
    if discovery::allowed(app, claimed, caller.workspace).await? {
        return Ok(());
    }
    let text = "not authorized to access this workspace's terminal";
    Err(Error::refused(StatusCode::FORBIDDEN, text))
}
