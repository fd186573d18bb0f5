//! What administrators may ask of drains.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use ligand_api::error::ErrorBody;
use ligand_api::migration::{Drain as View, DrainRequest, Drains};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::{BAD_BODY, MOST, backend, grace};
use crate::access::Admin;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse_kept};
use crate::http::path;
use crate::migrations::drains::{self, Ask, Drain, State as Standing};
use crate::migrations::{store, view};

/// Most migrations at once.
const MOST_AT_ONCE: u32 = 100;
/// Most failures that can be named.
const MOST_FAILURES: u32 = 100_000;

/// The `{id}` of a drain.
pub(crate) struct DrainPath(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for DrainPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let text = path::raw(parts, state).await;
        let wrong = |_| Error::invalid("invalid drain ID", "id: expected a UUID");
        Uuid::try_parse(&text).map(Self).map_err(wrong)
    }
}

/// Take every workspace of a backend to another one.
#[utoipa::path(post, path = "/admin/drains", tag = "migrations", request_body = DrainRequest, responses(
    (status = 202, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn drain(
    _: Admin,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<(StatusCode, Json<View>)> {
    let said: DrainRequest = parse_kept(&body, BAD_BODY)?;
    let from = backend(&app, "backend", &said.backend)?;
    let to = backend(&app, "to", &said.to)?;
    if from == to {
        return Err(Error::invalid(BAD_BODY, "to: expected another backend than the one drained"));
    }
    let (at_once, stop_after) =
        (said.concurrency.unwrap_or(4), said.stop_after_failures.unwrap_or(1));
    if !(1..=MOST_AT_ONCE).contains(&at_once) {
        let expected = format!("concurrency: expected 1 to {MOST_AT_ONCE}");
        return Err(Error::invalid(BAD_BODY, expected));
    }
    if stop_after > MOST_FAILURES {
        let expected = format!("stop_after_failures: expected 0 to {MOST_FAILURES}");
        return Err(Error::invalid(BAD_BODY, expected));
    }
    let new = Drain {
        id: uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid(),
        from: from.to_owned(),
        to: to.to_owned(),
        concurrency: i64::from(at_once),
        stop_after: i64::from(stop_after),
        grace: grace(said.grace_seconds)?,
        forgiven: 0,
        state: Standing::Running,
        cause: None,
        asked_at: Timestamp::EPOCH,
        ended_at: None,
    };
    let (begun, members) = drains::begin(&app, new).await?;
    Ok((StatusCode::ACCEPTED, Json(view::drain(begun, &members))))
}

/// Every drain, newest first.
#[utoipa::path(get, path = "/admin/drains", tag = "migrations", responses(
    (status = 200, body = Drains), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(_: Admin, State(app): State<App>) -> Result<Json<Drains>> {
    let mut tx = app.db.read().await?;
    let mut drains = Vec::new();
    for it in store::drains::list(&mut tx, MOST).await? {
        let members = store::drains::members(&mut tx, it.id).await?;
        drains.push(view::drain(it, &members));
    }
    Ok(Json(Drains { drains }))
}

/// A drain, with every workspace that stayed and why.
#[utoipa::path(get, path = "/admin/drains/{id}", tag = "migrations", params(("id" = String, Path, description = "drain id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get(
    _: Admin,
    DrainPath(id): DrainPath,
    State(app): State<App>,
) -> Result<Json<View>> {
    let mut tx = app.db.read().await?;
    let found = store::drains::get(&mut tx, id).await?;
    let found = found.ok_or_else(|| Error::not_found("drain not found"))?;
    let members = store::drains::members(&mut tx, id).await?;
    Ok(Json(view::drain(found, &members)))
}

async fn want(app: &App, id: Uuid, ask: Ask) -> Result<Json<View>> {
    let (it, members) = drains::want(app, id, ask).await?;
    Ok(Json(view::drain(it, &members)))
}

/// Begin no further migration. Those on their way go on.
#[utoipa::path(post, path = "/admin/drains/{id}/pause", tag = "migrations", params(("id" = String, Path, description = "drain id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn pause(
    _: Admin,
    DrainPath(id): DrainPath,
    State(app): State<App>,
) -> Result<Json<View>> {
    want(&app, id, Ask::Pause).await
}

/// Go on with a drain that was paused, or that stopped because too many were rolled back.
#[utoipa::path(post, path = "/admin/drains/{id}/resume", tag = "migrations", params(("id" = String, Path, description = "drain id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn resume(
    _: Admin,
    DrainPath(id): DrainPath,
    State(app): State<App>,
) -> Result<Json<View>> {
    want(&app, id, Ask::Resume).await
}

/// Begin no further migration, and roll back those on their way that can be.
#[utoipa::path(post, path = "/admin/drains/{id}/abort", tag = "migrations", params(("id" = String, Path, description = "drain id")), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn abort(
    _: Admin,
    DrainPath(id): DrainPath,
    State(app): State<App>,
) -> Result<Json<View>> {
    want(&app, id, Ask::Abort).await
}
