//! `ligand ws shell`.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Upgraded;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::clock;
use crate::error::{CommandError, CommandResult};
use crate::output;
use crate::session::Session;
use crate::target::ClientArgs;

/// What ends input, as a terminal types it: Ctrl-D.
const END: u8 = 4;
/// How often that is typed once there is no more input: what runs in the shell may take one for itself.
const AGAIN: Duration = Duration::from_secs(1);
/// The server asks every 30 s whether we are there. Whoever says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(100);
/// Bytes that are read at once. The server takes 64 KiB in a message.
const PIECE: usize = 8 << 10;
/// Pieces that may wait.
const WAITING: usize = 4;
/// Where there is no terminal.
const SIZE: (u16, u16) = (80, 24);

type Socket = WebSocketStream<Upgraded>;

/// Open a shell in a workspace's instance
///
/// On a terminal it is as large as that, and ends with `exit` or Ctrl-D. Elsewhere, what standard input says is
/// typed into it, and what the shell's terminal shows is printed, prompts and all; it ends with the input. A
/// process in a sandbox has no terminal.
#[derive(clap::Args)]
pub(crate) struct ShellArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws shell`.
pub(crate) async fn run(args: ShellArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let (size, key) = (window().unwrap_or(SIZE), generate_key());
    let opened = session.client.terminal(&named.id, size, &key).await?;
    if opened.accept.as_deref() != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(CommandError::failed("what answers there opens no terminal"));
    }
    let socket = WebSocketStream::from_raw_socket(opened.io, Role::Client, None).await;
    // From here on it is this terminal that speaks, and it is put back whatever comes.
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let heed = |kind| terminal.then(|| signal(kind).map_err(failed)).transpose();
    let sizes = heed(SignalKind::window_change())?;
    let mut end = heed(SignalKind::terminate())?;
    let (sink, stream) = socket.split();
    let outcome = tokio::select! {
        heard = hear(stream) => heard,
        lost = say(sink, typed(), sizes) => Err(lost),
        () = comes(&mut end) => Err(CommandError::failed("ended by a signal")),
    };
    drop(raw);
    outcome
}

/// The columns and rows of the terminal that we print on, if that is one.
fn window() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row)).filter(|(cols, rows)| *cols > 0 && *rows > 0)
}

/// What is typed, as it comes. Reading cannot be called off, so a thread does it that ends with the program.
fn typed() -> mpsc::Receiver<Bytes> {
    let (send, typed) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let (mut stdin, mut piece) = (std::io::stdin().lock(), [0; PIECE]);
        while let Ok(read @ 1..) = stdin.read(&mut piece) {
            if send.blocking_send(Bytes::copy_from_slice(&piece[..read])).is_err() {
                return;
            }
        }
    });
    typed
}

/// Print what the shell says, until it ends.
async fn hear(mut stream: SplitStream<Socket>) -> CommandResult {
    loop {
        let heard = tokio::select! {
            heard = stream.next() => heard,
            () = clock::pause(SILENCE) => return Err(lost("the server says nothing any more")),
        };
        match heard {
            Some(Ok(Message::Binary(said))) => output::bytes(&said)?,
            Some(Ok(Message::Close(_))) => return Ok(()),
            // Questions whether we are there are answered by the socket itself.
            Some(Ok(_)) => {}
            Some(Err(cause)) => return Err(lost(cause)),
            None => return Err(lost("the server hung up")),
        }
    }
}

/// Pass on what is typed, and how large the terminal is. Ends when nobody takes it any more.
async fn say(
    mut sink: SplitSink<Socket, Message>,
    mut typed: mpsc::Receiver<Bytes>,
    mut sizes: Option<Signal>,
) -> CommandError {
    let (mut over, mut whole_line) = (false, true);
    loop {
        let message = tokio::select! {
            piece = typed.recv(), if !over => match piece {
                Some(piece) => {
                    whole_line = piece.ends_with(b"\n");
                    Message::Binary(piece)
                }
                // A line that has no end is one all the same.
                None => {
                    over = true;
                    let end: &[u8] = if whole_line { &[END] } else { &[b'\n', END] };
                    Message::Binary(Bytes::from_static(end))
                }
            },
            () = clock::pause(AGAIN), if over => Message::Binary(Bytes::from_static(&[END])),
            () = comes(&mut sizes) => {
                let (cols, rows) = window().unwrap_or(SIZE);
                Message::Text(json!({"type": "resize", "cols": cols, "rows": rows}).to_string().into())
            }
        };
        match sink.send(message).await {
            Ok(()) => {}
            // Then it is on its way, and whoever hears it tells.
            Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                clock::pause(AGAIN).await;
            }
            Err(cause) => return lost(cause),
        }
    }
}

/// Wait for a signal; for ever, where none is waited for.
async fn comes(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending().await
    }
}

fn lost(cause: impl std::fmt::Display) -> CommandError {
    CommandError::failed("the connection to the shell was lost").because(Some(cause.to_string()))
}

fn failed(cause: std::io::Error) -> CommandError {
    CommandError::failed(format!("cannot listen to this terminal: {cause}"))
}

/// A terminal that passes on every key, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> CommandResult<Self> {
        let before = tcgetattr(std::io::stdin()).map_err(|cause| failed(cause.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)
            .map_err(|cause| failed(cause.into()))?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody could be told.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
