//! Events over HTTP: lists, and streams that resume from a cursor.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse;
use axum::response::{IntoResponse, Response, Sse};
use futures_util::{Stream, stream};
use ligand_api::error::ErrorBody;
use ligand_api::journal::{Event, Recorded};
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::{cursor, store};
use crate::access::{Admin, OfWorkspace};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::path::WorkspacePath;
use crate::workspaces;

/// Events in a list: the contract's number.
const LISTED: i64 = 100;
/// Events that one look at the database brings.
const BATCH: i64 = 256;
/// How long a stream trusts hints alone. A commit on another replica is seen after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A stream without news says so, that proxies keep it open.
const PING: Duration = Duration::from_secs(15);

/// Where a stream begins.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// The `seq` of the last event that was read; the `Last-Event-ID` header says the same.
    after: Option<String>,
}

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
    _: Admin,
    State(app): State<App>,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Response> {
    let watcher = Watcher::new(&app, None, &query, &headers).await?;
    Ok(respond(watcher.events(|event| {
        let data = sse::Event::default().event(&event.event);
        let data = data.data(serde_json::to_string(&event).unwrap_or_default());
        match event.seq {
            Some(seq) => data.id(seq.to_string()),
            None => data,
        }
    })))
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
    let watcher = Watcher::new(&app, Some(id), &query, &headers).await?;
    Ok(respond(watcher.events(|event| {
        let at = Timestamp::parse(&event.timestamp).map_or(0, Timestamp::millis);
        let body = json!({"type": event.event, "timestamp": at, "data": event.payload});
        let data = sse::Event::default().data(body.to_string());
        match event.seq {
            Some(seq) => data.id(seq.to_string()),
            None => data,
        }
    })))
}

fn respond(
    events: impl Stream<Item = std::result::Result<sse::Event, Infallible>> + Send + 'static,
) -> Response {
    let ping = sse::KeepAlive::new().interval(PING).text("ping");
    Sse::new(events).keep_alive(ping).into_response()
}

/// One watcher: reads kept events from the database by cursor, and hears the others as they pass.
struct Watcher {
    app: App,
    of: Option<WorkspaceId>,
    after: i64,
    commits: watch::Receiver<i64>,
    live: broadcast::Receiver<Event>,
    ready: VecDeque<Event>,
}

impl Watcher {
    async fn new(
        app: &App,
        of: Option<WorkspaceId>,
        query: &After,
        headers: &HeaderMap,
    ) -> Result<Self> {
        let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        // Subscribe before looking, so that nothing falls between.
        let (commits, live) = (app.hub.commits(), app.hub.live());
        let mut tx = app.db.read().await?;
        let last = store::last_number(&mut tx).await?;
        let forgotten = store::forgotten(&mut tx).await?;
        drop(tx);
        let mut ready = VecDeque::new();
        let after = match header.or(query.after.as_deref()) {
            None => last,
            Some(text) => {
                let after = cursor(text)?;
                if after > last {
                    // The database is another one, or was set back: what lies between is not known here.
                    ready.push_back(gap(
                        app,
                        format!("the cursor {after} is ahead of the last event {last}"),
                    ));
                }
                if after < forgotten {
                    let why = format!("events up to {forgotten} are not kept any more");
                    ready.push_back(gap(app, why));
                }
                after.min(last)
            }
        };
        ready.push_front(marker(app, "STREAM_OPEN", json!({"after": after})));
        Ok(Self { app: app.clone(), of, after, commits, live, ready })
    }

    fn events(
        self,
        shape: impl Fn(Event) -> sse::Event + Send + 'static,
    ) -> impl Stream<Item = std::result::Result<sse::Event, Infallible>> {
        stream::unfold((self, shape), |(mut watcher, shape)| async move {
            let event = watcher.next().await?;
            let shaped = if event.event == "STREAM_OPEN" {
                sse::Event::default().comment("ping")
            } else {
                shape(event)
            };
            Some((Ok(shaped), (watcher, shape)))
        })
    }

    /// The next event; `None` when the server stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.commits.mark_unchanged();
            match self.read().await {
                Ok(found) if found => continue,
                Ok(_) => {}
                Err(cause) => tracing::warn!(error = %cause, "events cannot be read; trying again"),
            }
            let app = self.app.clone();
            tokio::select! {
                () = app.stop.cancelled() => return None,
                _ = self.commits.changed() => {}
                () = app.clock.sleep(LOOK_AGAIN) => {}
                heard = self.live.recv() => self.hear(heard),
            }
        }
    }

    async fn read(&mut self) -> std::result::Result<bool, sqlx::Error> {
        let mut tx = self.app.db.read().await?;
        let events = store::events_after(&mut tx, self.after, self.of, BATCH).await?;
        self.after = events.last().and_then(|event| event.seq).unwrap_or(self.after);
        self.ready.extend(events);
        Ok(!self.ready.is_empty())
    }

    fn hear(&mut self, heard: std::result::Result<Event, RecvError>) {
        match heard {
            Ok(event) if self.of.is_none_or(|of| event.workspace_id == Some(of.uuid())) => {
                self.ready.push_back(event);
            }
            Ok(_) | Err(RecvError::Closed) => {}
            // Only events that are not kept can be missed.
            Err(RecvError::Lagged(missed)) => {
                let text = format!("{missed} events that are not kept were missed");
                self.ready.push_back(gap(&self.app, text));
            }
        }
    }
}

fn gap(app: &App, why: String) -> Event {
    marker(app, "STREAM_GAP", json!({"reason": why}))
}

fn marker(app: &App, event: &str, payload: serde_json::Value) -> Event {
    let timestamp = app.clock.now().to_string();
    Event { seq: None, event: event.to_owned(), workspace_id: None, timestamp, payload }
}
