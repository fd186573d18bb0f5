//! What administrators and their tools call.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::workspace::{BootstrapFailed, Console, Dispatched, Noted, Repointed, SetCompute};
use ligand_domain::id::WorkspaceId;

use crate::access::Admin;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse, parse_kept};
use crate::workspaces::outside;

/// An id as it was sent. A malformed one is nobody's here.
fn known(id: &str) -> Result<WorkspaceId> {
    id.parse().map_err(|_| Error::not_found("workspace not found"))
}

/// Restart a workspace in the background. Calls coalesce like any others.
#[utoipa::path(post, path = "/admin/workspaces/{id}/restart", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 202, body = Dispatched), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn restart(
    _: Admin,
    Path(id): Path<String>,
    State(app): State<App>,
) -> Result<(StatusCode, Json<Dispatched>)> {
    outside::dispatch(&app, known(&id)?).await?;
    let status = "restart_dispatched".to_owned();
    Ok((StatusCode::ACCEPTED, Json(Dispatched { status, workspace_id: id })))
}

/// Say that the start of a workspace failed, if it has not succeeded meanwhile.
#[utoipa::path(post, path = "/admin/workspaces/{id}/bootstrap-failed", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), request_body = BootstrapFailed, responses(
    (status = 200, body = Noted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn bootstrap_failed(
    _: Admin,
    Path(id): Path<String>,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Noted>> {
    let mut said: BootstrapFailed = parse(&body, "invalid request body")?;
    // Serial consoles have them.
    for text in [&mut said.error, &mut said.log_tail].into_iter().flatten() {
        text.retain(|char| char != '\0');
    }
    // A row that is not there cannot change.
    let Ok(id) = id.parse() else { return Ok(Json(Noted { ok: true, no_change: Some(true) })) };
    Ok(Json(outside::bootstrap_failed(&app, id, &said).await?))
}

/// What the machine of a workspace printed while it started: kept by a control plane, where there is one.
#[utoipa::path(get, path = "/workspaces/{id}/console", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Console), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 501, body = ErrorBody), (status = 502, body = ErrorBody)))]
pub(crate) async fn console(
    _: Admin,
    Path(id): Path<String>,
    State(app): State<App>,
) -> Result<Json<Console>> {
    let output = outside::console(&app, &id).await?;
    Ok(Json(Console { output }))
}

/// Say which compute a workspace runs on. Nothing else changes.
#[utoipa::path(post, path = "/admin/workspaces/{id}/set-compute-instance", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), request_body = SetCompute, responses(
    (status = 200, body = Repointed), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn set_compute_instance(
    _: Admin,
    Path(id): Path<String>,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Repointed>> {
    let said: SetCompute = parse_kept(&body, "invalid request body")?;
    let compute = outside::compute(&said)?;
    outside::repoint(&app, known(&id)?, &compute).await?;
    Ok(Json(Repointed {
        status: "repointed".to_owned(),
        workspace_id: id,
        instance_id: compute.instance,
        provider: compute.provider,
    }))
}

/// The same without an id, which the contract answers with a text of its own.
pub(crate) async fn no_id(_: Admin) -> Error {
    Error::bad_request("workspace id required")
}
