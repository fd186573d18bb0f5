//! `GET /ws`: what happens, over a WebSocket.
//!
//! A connection holds nothing for a watcher that does not read: the socket's own buffer fills, and after a while
//! it ends. Whoever is behind what is shown is told what it may have missed.

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::SinkExt as _;
use ligand_api::error::ErrorBody;

use super::stand::{End, Scope};
use super::watcher::{After, Watcher};
use crate::access::Viewer;
use crate::app::App;
use crate::error::{Error, Result};

/// The protocol that clients may name. Those who do are told first where their stream begins.
const PROTOCOL: &str = "ligand";
/// Longest message of a watcher: it has nothing to say.
const LONGEST: usize = 4 << 10;
/// Bytes that are written at once.
const AT_ONCE: usize = 64 << 10;
/// Most bytes that wait to be written; longer than any event.
const MOST: usize = 4 << 20;
/// A quiet connection is asked whether it is there.
const PING: Duration = Duration::from_secs(30);
/// After so many questions in a row that were not answered it ends.
const UNANSWERED: u32 = 2;
/// A watcher that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(30);
/// How long it may take to say why it ends.
const CLOSING: Duration = Duration::from_secs(1);

/// Events as they happen, over a WebSocket: `{event, workspace_id, timestamp, payload, seq?}`. A canvas sees all;
/// a workspace those of workspaces that it may talk to.
#[utoipa::path(get, path = "/ws", tag = "events", params(After), responses(
    (status = 101, description = "a WebSocket"), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn open(
    viewer: Viewer,
    State(app): State<App>,
    Query(query): Query<After>,
    headers: HeaderMap,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade
        .map_err(|cause| Error::invalid("expected a WebSocket upgrade", cause.to_string()))?;
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(LONGEST).max_frame_size(LONGEST);
    let upgrade = upgrade.write_buffer_size(AT_ONCE).max_write_buffer_size(MOST);
    let scope = viewer.workspace.map_or(Scope::All, Scope::Family);
    let said = query.said(&headers);
    let mut watcher = Watcher::open(&app, scope, viewer.grant, said).await?;
    if said.is_some() || upgrade.selected_protocol().is_some() {
        watcher.announce();
    }
    let tasks = app.tasks.clone();
    Ok(upgrade.on_upgrade(move |mut socket| {
        tasks.track_future(async move {
            let _open = app.metrics.socket();
            if let Some(end) = tell(&app, &mut socket, watcher).await {
                let close = CloseFrame { code: code(end), reason: end.why().into() };
                tokio::select! {
                    _ = socket.send(Message::Close(Some(close))) => {}
                    () = app.clock.tick(CLOSING) => {}
                }
            }
        })
    }))
}

/// Tell what happens, until there is nothing more to be told, or nobody to be told it.
async fn tell(app: &App, socket: &mut WebSocket, mut watcher: Watcher) -> Option<End> {
    let mut unanswered = 0;
    loop {
        let news = tokio::select! {
            news = watcher.next() => match news {
                Ok(news) => news,
                Err(end) => return Some(end),
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {
                    unanswered = 0;
                    continue;
                }
            },
            () = app.clock.tick(PING) => {
                unanswered += 1;
                if unanswered > UNANSWERED {
                    return None;
                }
                sent(app, socket.send(Message::Ping(Bytes::new()))).await?;
                continue;
            }
        };
        let all = async {
            for news in news {
                socket.feed(Message::Text(news.json())).await?;
            }
            socket.flush().await
        };
        sent(app, all).await?;
    }
}

/// `None`: it does not get through, or the server stops meanwhile.
async fn sent<E>(
    app: &App,
    sending: impl Future<Output = std::result::Result<(), E>>,
) -> Option<()> {
    tokio::select! {
        sent = sending => sent.ok(),
        () = app.clock.tick(STALLED) => None,
        () = app.stop.cancelled() => None,
    }
}

fn code(end: End) -> u16 {
    match end {
        End::Stopping => close_code::AWAY,
        End::Revoked => close_code::POLICY,
        End::Unknown => close_code::AGAIN,
    }
}
