//! Pausing, resuming, hibernating, waking and recovering over HTTP; and a workspace's state in a few words.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ligand_api::error::ErrorBody;
use ligand_api::workspace::{Hibernated, Paused, Recovered, Resumed, State as StateView, Woken};
use ligand_domain::workspace::Status;
use serde::Deserialize;

use crate::access::{OfWorkspace, Watcher};
use crate::app::App;
use crate::error::{Error, Result};
use crate::workspaces::{lifecycle, store};

/// Whether descendants are meant too.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Cascade {
    /// Take descendants along.
    #[serde(default)]
    cascade: Option<String>,
}

/// Whether turns in progress may be ended.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Force {
    /// End turns in progress.
    #[serde(default)]
    force: Option<String>,
}

fn yes(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "true")
}

fn finished(done: bool) -> StatusCode {
    if done { StatusCode::OK } else { StatusCode::ACCEPTED }
}

/// Stop a workspace until it is resumed. Its data stays; messages to it are refused.
#[utoipa::path(post, path = "/workspaces/{id}/pause", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), Cascade), responses(
    (status = 200, body = Paused), (status = 202, description = "the backend is still at it", body = Paused), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, description = "it has descendants", body = ErrorBody)))]
pub(crate) async fn pause(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<Cascade>,
) -> Result<Response> {
    let cascade = yes(query.cascade.as_ref());
    let (done, paused) = lifecycle::pause(&app, caller.workspace, cascade).await?;
    Ok((finished(done), Json(paused)).into_response())
}

/// Let a paused workspace go on, in a new instance.
#[utoipa::path(post, path = "/workspaces/{id}/resume", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), Cascade), responses(
    (status = 200, body = Resumed), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, description = "one above it is paused, or it has paused descendants", body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn resume(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<Cascade>,
) -> Result<Json<Resumed>> {
    let cascade = yes(query.cascade.as_ref());
    Ok(Json(lifecycle::resume(&app, caller.workspace, cascade).await?))
}

/// Stop a workspace until a message comes. Its data stays.
#[utoipa::path(post, path = "/workspaces/{id}/hibernate", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), Force), responses(
    (status = 200, body = Hibernated), (status = 202, description = "the backend is still at it", body = Hibernated), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, description = "it has turns in progress, or changed meanwhile", body = ErrorBody)))]
pub(crate) async fn hibernate(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<Force>,
) -> Result<Response> {
    let force = yes(query.force.as_ref());
    let (done, hibernated) = lifecycle::hibernate(&app, caller.workspace, force).await?;
    Ok((finished(done), Json(hibernated)).into_response())
}

/// Wake a hibernated workspace without sending it anything.
#[utoipa::path(post, path = "/workspaces/{id}/wake", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Woken), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn wake(caller: OfWorkspace, State(app): State<App>) -> Result<Json<Woken>> {
    Ok(Json(lifecycle::wake(&app, caller.workspace).await?))
}

/// Try again at once, whatever failed before: its failures are forgotten, and another instance is started.
#[utoipa::path(post, path = "/workspaces/{id}/recover", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Recovered), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn recover(
    caller: OfWorkspace,
    State(app): State<App>,
) -> Result<Json<Recovered>> {
    Ok(Json(lifecycle::recover(&app, caller.workspace).await?))
}

/// Whether a workspace is paused or deleted, for programs that ask often.
#[utoipa::path(get, path = "/workspaces/{id}/state", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = StateView), (status = 401, body = ErrorBody), (status = 404, description = "there is none, or it is deleted", body = StateView), (status = 500, body = ErrorBody)))]
pub(crate) async fn state(Watcher(id): Watcher, State(app): State<App>) -> Result<Response> {
    let mut tx = app.db.read().await.map_err(Error::internal("query failed"))?;
    let found = store::get(&mut tx, id).await.map_err(Error::internal("query failed"))?;
    let status = found.map(|workspace| workspace.status);
    let deleted = status.is_none_or(|status| status == Status::Removed);
    let view = StateView {
        workspace_id: id.to_string(),
        status: status.map(|status| status.as_str().to_owned()),
        paused: (!deleted).then_some(status == Some(Status::Paused)),
        deleted,
    };
    let code = if deleted { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Ok((code, Json(view)).into_response())
}
