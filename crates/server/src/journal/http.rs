//! Events over HTTP: lists, and streams that resume from a cursor.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ligand_api::error::ErrorBody;
use ligand_api::journal::{Event, Recorded};

use super::ring::News;
use super::stand::Scope;
use super::store;
use super::watcher::{After, Watcher};
use crate::access::{Admin, Grant, OfWorkspace};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::path::WorkspacePath;
use crate::workspaces;

/// Events in a list: the contract's number.
const LISTED: i64 = 100;
/// A stream without news says so, that proxies keep it open.
const PING: Duration = Duration::from_secs(15);

/// The newest events of the platform.
#[utoipa::path(get, path = "/events", tag = "events", responses(
    (status = 200, body = Vec<Recorded>), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(_: Admin, State(app): State<App>) -> Result<Json<Vec<Recorded>>> {
    let failed = Error::internal("query failed");
    let mut tx = app.db.read().await?;
    Ok(Json(store::newest_events(&mut tx, None, LISTED).await.map_err(failed)?))
}

/// The newest events of one workspace.
#[utoipa::path(get, path = "/events/{id}", tag = "events", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Vec<Recorded>), (status = 401, body = ErrorBody)))]
pub(crate) async fn list_of(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<Vec<Recorded>>> {
    let mut tx = app.db.read().await?;
    let events = store::newest_events(&mut tx, Some(id), LISTED).await;
    Ok(Json(events.map_err(Error::internal("query failed"))?))
}

/// Every event as it happens (`text/event-stream`). Kept events carry their `seq` as the event id, so a
/// watcher that reconnects with it misses none; events that are not kept carry none.
#[utoipa::path(get, path = "/events/stream", tag = "events", params(After), responses(
    (status = 200, description = "data: an Event", body = Event, content_type = "text/event-stream"), (status = 401, body = ErrorBody)))]
pub(crate) async fn stream_all(
    Admin(by): Admin,
    State(app): State<App>,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Response> {
    let grant = Grant::of(&by, &headers);
    let watcher = Watcher::open(&app, Scope::All, grant, query.said(&headers)).await?;
    Ok(respond(app, watcher, News::whole))
}

/// One workspace's events as they happen, in the contract's shape.
#[utoipa::path(get, path = "/workspaces/{id}/events/stream", tag = "events", params(("id" = String, Path, description = "workspace id"), After), responses(
    (status = 200, description = "data: {type, timestamp (ms), data}", content_type = "text/event-stream"),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn stream_of(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Response> {
    let id = caller.workspace;
    if !workspaces::exists(&app, id).await? {
        return Err(Error::not_found("workspace not found"));
    }
    let grant = Grant::of(&caller.by, &headers);
    let watcher = Watcher::open(&app, Scope::One(id), grant, query.said(&headers)).await?;
    Ok(respond(app, watcher, News::own))
}

/// A stream of server-sent events. What was shaped once is copied for each watcher, several at a time; nothing
/// gathers for one that does not read.
fn respond(app: App, watcher: Watcher, shape: fn(&News) -> &[u8]) -> Response {
    let first = Ok::<_, Infallible>(ping(&watcher));
    let rest = stream::unfold(Some((app, watcher)), move |on| async move {
        let (app, mut watcher) = on?;
        let next = tokio::select! {
            next = watcher.next() => Some(next),
            () = app.clock.tick(PING) => None,
        };
        Some(match next {
            Some(Ok(news)) => {
                let all: Vec<&[u8]> = news.iter().map(|news| shape(news)).collect();
                (Ok(Bytes::from(all.concat())), Some((app, watcher)))
            }
            Some(Err(end)) => (Ok(Bytes::from(format!(": {}\n\n", end.why()))), None),
            None => (Ok(ping(&watcher)), Some((app, watcher))),
        })
    });
    let body = Body::from_stream(stream::once(std::future::ready(first)).chain(rest));
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, body).into_response()
}

/// A stream without news says so, and up to where that is so.
fn ping(watcher: &Watcher) -> Bytes {
    Bytes::from(format!(": ping\nid: {}\n\n", watcher.after()))
}
