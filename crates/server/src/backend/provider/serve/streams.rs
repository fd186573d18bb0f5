//! Answers that go on until somebody ends them. When the provider is to stop, all of them end.

use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{Answered, Refused, Served, Which, key};
use crate::backend::provider::wire::{Named, Size};
use crate::backend::{BackendError, Bytestream, Key, Terminal};

/// Somebody who hears nothing for so long is told that we are there.
const ALIVE: Duration = Duration::from_secs(15);
/// Longest message that is typed.
const TYPED: usize = 64 << 10;

/// A stream of the backend's, as it comes.
pub(super) fn endless(stream: Bytestream, stop: CancellationToken) -> Response {
    super::bytes(Body::from_stream(stream.take_until(stop.cancelled_owned())))
}

/// What ended, as server-sent events. What ended before is not told: `recover` does that.
pub(super) async fn events(State(served): State<Served>) -> Response {
    let next = |mut ends: broadcast::Receiver<Key>| async move {
        let said = loop {
            match tokio::time::timeout(ALIVE, ends.recv()).await {
                Ok(Ok(key)) => break event(key),
                // Whoever was too slow asks, sooner or later.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => break Bytes::from_static(b":\n\n"),
            }
        };
        Some((Ok::<_, std::io::Error>(said), ends))
    };
    let first = futures_util::stream::iter([Ok(Bytes::from_static(b":\n\n"))]);
    let ends = futures_util::stream::unfold(served.ends.subscribe(), next);
    let stream = first.chain(ends).take_until(served.stop.clone().cancelled_owned());
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
}

fn event(key: Key) -> Bytes {
    let named = serde_json::to_string(&Named::from(key)).unwrap_or_default();
    Bytes::from(format!("data: {named}\n\n"))
}

/// How large a terminal is at first.
#[derive(Deserialize)]
pub(super) struct First {
    #[serde(default = "columns")]
    columns: u16,
    #[serde(default = "rows")]
    rows: u16,
}

const fn columns() -> u16 {
    80
}

const fn rows() -> u16 {
    24
}

pub(super) async fn terminal(
    State(served): State<Served>,
    path: Which,
    Query(size): Query<First>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answered<Response> {
    let terminal = served.backend.terminal(key(path)?, (size.columns, size.rows)).await?;
    let upgrade = upgrade.map_err(|_| {
        let why = BackendError::broken("expected a WebSocket upgrade");
        Refused(StatusCode::BAD_REQUEST, why)
    })?;
    let upgrade = upgrade.max_message_size(TYPED).max_frame_size(TYPED);
    Ok(upgrade.on_upgrade(move |socket| pass_on(socket, terminal, served.stop)))
}

/// Both ways, until one of them ends.
async fn pass_on(mut socket: WebSocket, mut terminal: Terminal, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            said = terminal.output.next() => {
                let Some(Ok(said)) = said else { break };
                if socket.send(Message::Binary(said)).await.is_err() {
                    return;
                }
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Binary(typed))) => {
                    if terminal.input.send(typed).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Text(text))) => {
                    if let Ok(Size { columns, rows }) = serde_json::from_str(&text) {
                        // Only the latest counts, and another one follows.
                        let _ = terminal.size.try_send((columns, rows));
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}
