//! A shell in an instance, over a WebSocket. `http.rs` opens it; this passes on what either side says.
//!
//! What is typed comes as text or binary messages. A text message that is an object of `type` `resize` with
//! `cols` and `rows` tells the size instead. What the shell says goes out as binary messages. The shell ends
//! with the connection.

pub mod http;

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;

use crate::app::App;
use crate::backend::Terminal;

/// Longest message of a caller.
const LONGEST: usize = 64 << 10;
/// A quiet connection is asked whether it is there.
const PING: Duration = Duration::from_secs(30);
/// After so many questions in a row, nothing typed and nothing said, it ends.
const QUIET: u32 = 60;
/// A caller that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(30);
/// Largest terminal: columns and rows.
const LARGEST: (u16, u16) = (1000, 1000);

/// A message that is no input.
#[derive(Deserialize)]
struct Resize {
    r#type: String,
    cols: u16,
    rows: u16,
}

/// What a message means.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Input(Bytes),
    Size((u16, u16)),
    Nothing,
    End,
}

fn meaning(message: Message) -> Said {
    match message {
        Message::Binary(bytes) => Said::Input(bytes),
        Message::Text(text) => match resize(text.as_str()) {
            Some(size) => Said::Size(size),
            None => Said::Input(Bytes::from(text)),
        },
        Message::Ping(_) | Message::Pong(_) => Said::Nothing,
        Message::Close(_) => Said::End,
    }
}

fn resize(text: &str) -> Option<(u16, u16)> {
    let Resize { r#type, cols, rows } = serde_json::from_str(text).ok()?;
    (r#type == "resize").then(|| bounded((cols, rows)))
}

fn bounded((cols, rows): (u16, u16)) -> (u16, u16) {
    (cols.clamp(1, LARGEST.0), rows.clamp(1, LARGEST.1))
}

/// Pass on what either side says, until one of them ends.
async fn pass_on(app: &App, socket: &mut WebSocket, mut terminal: Terminal) {
    let mut quiet = 0;
    // Typed, and not taken by the shell yet. Meanwhile its output goes out: it may be what the shell waits for.
    let mut typed: Option<Bytes> = None;
    loop {
        let message = tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.clock.tick(PING) => {
                quiet += 1;
                if quiet > QUIET {
                    return;
                }
                Message::Ping(Bytes::new())
            }
            said = terminal.output.next() => {
                let Some(Ok(said)) = said else { return };
                quiet = 0;
                Message::Binary(said)
            }
            room = terminal.input.reserve(), if typed.is_some() => {
                let Ok(room) = room else { return };
                if let Some(typed) = typed.take() {
                    room.send(typed);
                }
                continue;
            }
            heard = socket.recv(), if typed.is_none() => {
                let Some(Ok(heard)) = heard else { return };
                match meaning(heard) {
                    Said::Input(bytes) => {
                        quiet = 0;
                        typed = Some(bytes).filter(|bytes| !bytes.is_empty());
                    }
                    // Only the latest counts, and another one follows.
                    Said::Size(size) => drop(terminal.size.try_send(size)),
                    Said::Nothing => {}
                    Said::End => return,
                }
                continue;
            }
        };
        let sent = tokio::select! {
            sent = socket.send(message) => sent.is_ok(),
            () = app.clock.tick(STALLED) => false,
            () = app.stop.cancelled() => false,
        };
        if !sent {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resize_is_no_input() {
        let text = |text: &str| meaning(Message::Text(text.to_owned().into()));
        assert_eq!(text(r#"{"type":"resize","cols":120,"rows":40}"#), Said::Size((120, 40)));
        assert_eq!(text(r#"{"type":"resize","cols":0,"rows":9999}"#), Said::Size((1, 1000)));
        for input in ["ls\r", r#"{"type":"other","cols":1,"rows":1}"#, r#"{"type":"resize"}"#, "{"]
        {
            assert_eq!(text(input), Said::Input(input.to_owned().into()), "{input}");
        }
        assert_eq!(
            meaning(Message::Binary(Bytes::from_static(b"\x03"))),
            Said::Input(Bytes::from_static(b"\x03"))
        );
        assert_eq!(meaning(Message::Close(None)), Said::End);
    }
}
