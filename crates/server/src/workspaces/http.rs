//! Workspaces over HTTP.

pub mod admin;
pub mod lifecycle;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use ligand_api::error::ErrorBody;
use ligand_api::journal::Why;
use ligand_api::workspace::{
    ConfirmDelete, Create, Created, Deleted, Patched, Restarted, Workspace as View,
};
use ligand_domain::converge;
use ligand_domain::secrets::Receipt;
use ligand_domain::template::Asked;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::view::{self, Look};
use super::{change, create as creation, present, remove, store};
use crate::access::{Admin, Anyone, OfWorkspace};
use crate::app::App;
use crate::backend::{BackendError, ErrorKind};
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse_kept, parse_or_default};
use crate::http::path::WorkspacePath;
use crate::journal;
use crate::messages::{self, Message};
use crate::migrations;
use crate::templates::{Wish, catalogue, start_deadline};

/// Decisions that `why` goes back.
const JOURNAL: i64 = 200;
/// Messages that `why` shows.
const MESSAGES: i64 = 20;
/// Instances that `why` shows.
const INSTANCES: i64 = 20;
/// Most lines of a log in one answer.
const MOST_LINES: usize = 10_000;

/// Create a workspace, and start it.
#[utoipa::path(post, path = "/workspaces", tag = "workspaces", request_body = Create, responses(
    (status = 201, body = Created), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn create(
    Admin(by): Admin,
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<(StatusCode, Json<Created>)> {
    let request: Create = parse_kept(&body, "invalid workspace payload")?;
    let created = creation::create(&app, &by, request, &origin(&headers, &app)).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Where the caller reaches us, as it says.
pub(crate) fn origin(headers: &HeaderMap, app: &App) -> String {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = value("x-forwarded-proto").unwrap_or("http");
    match value("x-forwarded-host").or_else(|| value("host")) {
        Some(host) => format!("{scheme}://{host}"),
        None => app.config.platform_url(),
    }
}

/// Every workspace that is not deleted.
#[utoipa::path(get, path = "/workspaces", tag = "workspaces", responses(
    (status = 200, body = Vec<View>), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list(_: Admin, State(app): State<App>) -> Result<Json<Vec<View>>> {
    let mut tx = app.db.read().await.map_err(Error::internal("query failed"))?;
    let all = store::list(&mut tx).await.map_err(Error::internal("query failed"))?;
    drop(tx);
    let templates = catalogue(&app).await;
    let view = |workspace: &super::Workspace| View {
        provision_timeout_ms: templates.provision_timeout_ms(&workspace.runtime),
        ..view::workspace(workspace, Look::List)
    };
    Ok(Json(all.iter().map(view).collect()))
}

/// One workspace, deleted ones too. Without a credential only what the contract shows to anybody.
#[utoipa::path(get, path = "/workspaces/{id}", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn get(
    WorkspacePath(id): WorkspacePath,
    caller: Anyone,
    State(app): State<App>,
) -> Result<Json<View>> {
    let mut tx = app.db.read().await.map_err(Error::internal("query failed"))?;
    let found = store::get(&mut tx, id).await.map_err(Error::internal("query failed"))?;
    let found = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    let look = if caller.proven { Look::Proven } else { Look::Open };
    let migration = match caller.proven {
        true => migrations::moving(&mut tx, id).await.map_err(Error::internal("query failed"))?,
        false => None,
    };
    drop(tx);
    let provision_timeout_ms = catalogue(&app).await.provision_timeout_ms(&found.runtime);
    Ok(Json(View { provision_timeout_ms, migration, ..view::workspace(&found, look) }))
}

/// Change a workspace's settings. Keys that are not known are ignored.
#[utoipa::path(patch, path = "/workspaces/{id}", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), request_body = Object, responses(
    (status = 200, body = Patched), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn patch(
    caller: OfWorkspace,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Patched>> {
    let keys: Map<String, Value> = parse_kept(&body, "invalid request body")?;
    Ok(Json(change::patch(&app, caller.workspace, &caller.by, &keys).await?))
}

/// What a restart may say.
#[derive(Deserialize, Default, utoipa::ToSchema)]
pub(crate) struct RestartOptions {
    /// A template to take the configuration from.
    template: Option<String>,
    /// Take the configuration from the template that fits.
    apply_template: Option<bool>,
    /// Forget the session.
    reset: Option<bool>,
    /// Write the configuration anew.
    rebuild_config: Option<bool>,
}

/// The same wish in the query.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RestartQuery {
    /// Forget the session.
    reset: Option<String>,
}

/// Restart a workspace. Requests coalesce; the last cycle sees everything written before it began.
#[utoipa::path(post, path = "/workspaces/{id}/restart", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), RestartQuery), request_body = RestartOptions, responses(
    (status = 200, body = Restarted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn restart(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<RestartQuery>,
    Payload(body): Payload,
) -> Result<Json<Restarted>> {
    let options: RestartOptions = parse_or_default(&body, "invalid JSON body")?;
    let reset = options.reset == Some(true) || query.reset.as_deref() == Some("true");
    let asked = Asked {
        template: options.template.filter(|name| !name.is_empty()),
        apply_template: options.apply_template == Some(true),
        rebuild_config: options.rebuild_config == Some(true),
    };
    let wish = Wish::new(&app, asked, reset).await;
    Ok(Json(change::restart(&app, caller.workspace, &wish).await?))
}

/// How to delete.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteOptions {
    /// Take children along.
    #[serde(default)]
    confirm: Option<String>,
    /// Take every trace away too.
    #[serde(default)]
    purge: Option<String>,
}

/// Delete a workspace and its descendants.
#[utoipa::path(delete, path = "/workspaces/{id}", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), DeleteOptions), responses(
    (status = 200, body = Deleted), (status = 202, description = "the backend is still at it", body = Deleted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ConfirmDelete)))]
pub(crate) async fn delete(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
    Query(options): Query<DeleteOptions>,
) -> Result<Response> {
    let yes = |value: &Option<String>| value.as_deref() == Some("true");
    remove::remove(&app, id, yes(&options.confirm), yes(&options.purge)).await
}

/// The causal chain to a workspace's present state, and what happens next.
#[utoipa::path(get, path = "/workspaces/{id}/why", tag = "workspaces", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Why), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn why(caller: OfWorkspace, State(app): State<App>) -> Result<Json<Why>> {
    let mut tx = app.db.read().await?;
    let found = store::get(&mut tx, caller.workspace).await?;
    let found = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    let instances = store::latest(&mut tx, caller.workspace, INSTANCES).await?;
    let migration = migrations::moving(&mut tx, caller.workspace).await?;
    drop(tx);
    let current = instances.iter().find(|instance| instance.generation == found.current);
    let lease_until = current.map(|instance| instance.lease_until(&app));
    let unproven = current.filter(|instance| instance.receipt == Some(Receipt::Incomplete));
    let replaced_at = match unproven {
        Some(instance) => {
            let deadline = start_deadline(&app, &found.runtime).await;
            Some(converge::proof_deadline(instance.started_at, deadline))
        }
        None => None,
    };
    let journal = journal::entries(&app.db, caller.workspace, JOURNAL).await?;
    let messages = messages::recent(&app, caller.workspace, MESSAGES).await?;
    let messages = messages.iter().map(Message::brief).collect();
    let mut why = view::why(&found, &instances, (lease_until, replaced_at), journal);
    why.workspace.migration = migration;
    Ok(Json(Why { messages, ..why }))
}

fn unfollowed(cause: BackendError) -> Error {
    match cause.kind {
        ErrorKind::Unsupported => {
            let text = "the backend of this workspace cannot follow logs";
            Error::refused(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        ErrorKind::Missing => Error::not_found("there is no log yet"),
        ErrorKind::Transient | ErrorKind::Broken => {
            Error::Internal("the log could not be read", cause.into())
        }
    }
}

/// How much of a log.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogOptions {
    /// The last so many lines; 200 unless said.
    lines: Option<usize>,
    /// `true`: go on with what is written from now on.
    follow: Option<String>,
}

/// The end of a workspace's log; followed, also what is written later, until either side has enough.
#[utoipa::path(get, path = "/workspaces/{id}/logs", tag = "workspaces", params(("id" = String, Path, description = "workspace id"), LogOptions), responses(
    (status = 200, description = "plain text", content_type = "text/plain", body = String), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn logs(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(options): Query<LogOptions>,
) -> Result<Response> {
    let workspace = present(&app, caller.workspace).await?;
    let backend = workspace.backend.as_deref().and_then(|name| app.backends.get(name));
    let backend = backend.ok_or_else(|| {
        Error::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "no backend here keeps this workspace's log",
        )
    })?;
    let follow = matches!(options.follow.as_deref(), Some("true" | "1"));
    // Followed from before its end is read: a line may come twice then, and none is missed.
    let news = match follow {
        true => Some(backend.follow(workspace.id).await.map_err(unfollowed)?),
        false => None,
    };
    let lines = options.lines.unwrap_or(200).min(MOST_LINES);
    let text = match lines {
        0 => Bytes::new(),
        lines => {
            let read = backend.logs(workspace.id, lines).await;
            read.map_err(Error::internal("the log could not be read"))?
        }
    };
    let body = match news {
        None => Body::from(text),
        Some(news) => {
            let stop = app.stop.clone().cancelled_owned();
            let end = stream::iter((!text.is_empty()).then_some(Ok(text)));
            Body::from_stream(end.chain(news).take_until(stop))
        }
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}
