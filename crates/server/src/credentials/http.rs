//! What administrators and operators may ask for.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use ligand_api::error::ErrorBody;
use ligand_api::operator::{ExternalRotated, Revoked, RotationRequested};

use crate::access::{Admin, OfWorkspace};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::path::WorkspacePath;
use crate::workspaces;

/// End every credential of a workspace, and open it for one registration within 15 minutes, even where it is
/// sealed. Nothing to end, or no such workspace, is success.
#[utoipa::path(post, path = "/admin/workspaces/{id}/revoke-auth-tokens", tag = "credentials", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Revoked), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn revoke(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<Revoked>> {
    super::revoke(&app, id).await.map_err(Error::internal("revoke failed"))?;
    Ok(Json(Revoked { status: "revoked".to_owned(), workspace_id: id.to_string() }))
}

/// The same without an id, which the contract answers with a text of its own.
pub(crate) async fn revoke_nothing(_: Admin) -> Error {
    Error::bad_request("workspace id required")
}

/// Ask the agent of a workspace to take a new credential while it runs. Its next heartbeat tells it.
#[utoipa::path(post, path = "/admin/workspaces/{id}/rotate", tag = "credentials", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 202, body = RotationRequested), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn rotate(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<(StatusCode, Json<RotationRequested>)> {
    let serial = super::request(&app, id).await?;
    let (status, workspace_id) = ("rotation_requested".to_owned(), id.to_string());
    Ok((StatusCode::ACCEPTED, Json(RotationRequested { status, workspace_id, serial })))
}

/// Give an external workspace a new credential, to be delivered by its operator. The old ones are revoked.
#[utoipa::path(post, path = "/workspaces/{id}/external/rotate", tag = "credentials", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = ExternalRotated), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn rotate_external(
    caller: OfWorkspace,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Json<ExternalRotated>> {
    let id = caller.workspace;
    let token = super::replace(&app, id).await?.reveal().to_owned();
    let origin = workspaces::origin(&headers, &app);
    Ok(Json(ExternalRotated {
        status: "rotated".to_owned(),
        workspace_id: id.to_string(),
        auth_token: token.clone(),
        connection: workspaces::connection(&app, id, token, &origin),
    }))
}
