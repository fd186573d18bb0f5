//! What administrators may ask of migrations.

pub mod drains;

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::migration::{Migrate, Migration as View, Migrations};
use serde::Deserialize;

use super::begin::{self, Ask, Asked};
use super::{Migration, store, view};
use crate::access::Admin;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse_kept};
use crate::http::path::WorkspacePath;
use crate::journal::Work;
use crate::workspaces;

const BAD_BODY: &str = "invalid request body";
/// Migrations in one answer.
const MOST: i64 = 200;
/// Longest grace: a source that is kept longer is forgotten.
const MOST_GRACE: u64 = 7 * 24 * 3600;
/// Longest reason, in characters.
const MOST_REASON: usize = 500;

/// The name of a backend of this server.
fn backend<'a>(app: &App, field: &str, name: &'a str) -> Result<&'a str> {
    if app.backends.get(name).is_some() {
        return Ok(name);
    }
    let known: Vec<&str> = app.backends.all().map(|(name, _)| name).collect();
    let expected = format!("{field}: expected the name of a backend: {}", known.join(", "));
    Err(Error::invalid(BAD_BODY, expected))
}

/// How long a source is kept, if somebody said so.
fn grace(seconds: Option<u64>) -> Result<Option<Duration>> {
    if seconds.is_some_and(|seconds| seconds > MOST_GRACE) {
        let expected = format!("grace_seconds: expected 0 to {MOST_GRACE}");
        return Err(Error::invalid(BAD_BODY, expected));
    }
    Ok(seconds.map(Duration::from_secs))
}

async fn show(app: &App, it: Migration) -> Result<View> {
    Ok(view::migration(&mut app.db.read().await?, it, app.clock.now()).await?)
}

/// Take a workspace to another backend.
#[utoipa::path(post, path = "/admin/workspaces/{id}/migrate", tag = "migrations", params(("id" = String, Path, description = "workspace id")), request_body = Migrate, responses(
    (status = 202, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn migrate(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<(StatusCode, Json<View>)> {
    let said: Migrate = parse_kept(&body, BAD_BODY)?;
    let to = backend(&app, "to", &said.to)?;
    let grace = grace(said.grace_seconds)?;
    let reason = said.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let wrong = |text: &str| text.chars().count() > MOST_REASON || text.contains('\0');
    if reason.is_some_and(wrong) {
        let expected = format!("reason: expected a text of at most {MOST_REASON} characters");
        return Err(Error::invalid(BAD_BODY, expected));
    }
    let mut work = Work::begin(&app).await?;
    let asked = Asked { to, grace, reason, drain: None };
    let begun = begin::begin(&app, &mut work, id, &asked).await?;
    work.commit().await?;
    app.bells.ring();
    Ok((StatusCode::ACCEPTED, Json(show(&app, begun).await?)))
}

/// Every migration of a workspace, newest first.
#[utoipa::path(get, path = "/admin/workspaces/{id}/migrations", tag = "migrations", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Migrations), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_of(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<Migrations>> {
    if !workspaces::exists(&app, id).await? {
        return Err(Error::not_found("workspace not found"));
    }
    let found = store::of(&mut app.db.read().await?, id, MOST).await?;
    Ok(Json(shown(&app, found).await?))
}

async fn shown(app: &App, found: Vec<Migration>) -> Result<Migrations> {
    let (mut tx, now) = (app.db.read().await?, app.clock.now());
    let mut migrations = Vec::with_capacity(found.len());
    for it in found {
        migrations.push(view::migration(&mut tx, it, now).await?);
    }
    Ok(Migrations { migrations })
}

/// Which migrations.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// `true`: those that are not over.
    open: Option<String>,
}

/// Migrations of all workspaces, newest first.
#[utoipa::path(get, path = "/admin/migrations", tag = "migrations", params(Which), responses(
    (status = 200, body = Migrations), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    _: Admin,
    State(app): State<App>,
    Query(which): Query<Which>,
) -> Result<Json<Migrations>> {
    let open = match which.open.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid("invalid query", "open: expected true or false")),
    };
    let found = store::list(&mut app.db.read().await?, open, MOST).await?;
    Ok(Json(shown(&app, found).await?))
}

/// Let the migration of a workspace rest, where its source serves as if nothing were.
#[utoipa::path(post, path = "/admin/workspaces/{id}/migrations/pause", tag = "migrations", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn pause(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<View>> {
    let it = begin::want(&app, id, Ask::Pause).await?;
    Ok(Json(show(&app, it).await?))
}

/// Let a migration that was paused go on.
#[utoipa::path(post, path = "/admin/workspaces/{id}/migrations/resume", tag = "migrations", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn resume(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<View>> {
    let it = begin::want(&app, id, Ask::Resume).await?;
    Ok(Json(show(&app, it).await?))
}

/// Roll the migration of a workspace back. After its cut-over that cannot be.
#[utoipa::path(post, path = "/admin/workspaces/{id}/migrations/abort", tag = "migrations", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn abort(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<View>> {
    let it = begin::want(&app, id, Ask::Abort).await?;
    Ok(Json(show(&app, it).await?))
}
