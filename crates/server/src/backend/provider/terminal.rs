//! A shell in an instance of a provider: a WebSocket, passed on both ways.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Method, StatusCode, Upgraded};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Line;
use super::wire::Size;
use crate::backend::{BackendError, Bytestream, Key, Terminal};

/// Pieces that may wait, either way.
const WAITING: usize = 16;

pub(super) async fn open(
    line: &Line,
    key: Key,
    size: (u16, u16),
) -> Result<Terminal, BackendError> {
    let what = "open a terminal";
    let (id, number, nonce) =
        (key.workspace.to_string(), key.generation.to_string(), generate_key());
    let path = ["instances", id.as_str(), number.as_str(), "terminal"];
    let request = line.caller.request(Method::GET, &path, None);
    let request = request
        .query(&[("columns", size.0), ("rows", size.1)])
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &nonce);
    let answer = line.caller.answer(what, request, &[]).await?;
    let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT).and_then(|it| it.to_str().ok());
    let agreed = accepted == Some(derive_accept_key(nonce.as_bytes()).as_str());
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !agreed {
        return Err(BackendError::broken(format!("{what}: the provider opens no WebSocket")));
    }
    let io = answer.upgrade().await.map_err(|cause| super::call::lost(what, &cause))?;
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    Ok(passed_on(socket))
}

/// The shell lives as long as its output is read: that is what carries either way.
fn passed_on(socket: WebSocketStream<Upgraded>) -> Terminal {
    let (input, typed) = mpsc::channel::<Bytes>(WAITING);
    let (size, sizes) = mpsc::channel::<(u16, u16)>(WAITING);
    let both = Both { socket, typed, sizes };
    let output: Bytestream = futures_util::stream::unfold(both, |mut both| async move {
        let said = both.next().await?;
        Some((said, both))
    })
    .boxed();
    Terminal { output, input, size }
}

struct Both {
    socket: WebSocketStream<Upgraded>,
    typed: mpsc::Receiver<Bytes>,
    sizes: mpsc::Receiver<(u16, u16)>,
}

impl Both {
    /// What the shell says next. Meanwhile what is typed goes there.
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let message = tokio::select! {
                said = self.socket.next() => match said? {
                    Ok(Message::Binary(said)) => return Some(Ok(said)),
                    Ok(Message::Close(_)) => return None,
                    Ok(_) => continue,
                    Err(_) => return Some(Err(std::io::Error::other("the terminal broke off"))),
                },
                Some((columns, rows)) = self.sizes.recv() => {
                    let size = serde_json::to_string(&Size { columns, rows }).unwrap_or_default();
                    Message::text(size)
                }
                Some(typed) = self.typed.recv() => Message::Binary(typed),
            };
            self.socket.send(message).await.ok()?;
        }
    }
}
