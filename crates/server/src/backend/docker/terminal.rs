//! A shell in a container.

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::ResizeExecOptions;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::engine::{Engine, failed};
use super::names;
use crate::backend::{BackendError, Key, Terminal};

/// Pieces of input that may wait.
const WAITING: usize = 16;
/// What a shell takes for the end: whatever runs in it is interrupted, and then there is no more input.
const GOODBYE: &[u8] = b"\x03\x04";

/// Open one. It ends when the terminal is dropped.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the terminal, which its connection owns: no stop waits for a shell"
)]
pub(super) async fn open(
    engine: &Engine,
    key: Key,
    (columns, rows): (u16, u16),
) -> Result<Terminal, BackendError> {
    let name = names::container(key);
    let client = engine.client()?;
    let what = || format!("open a shell in the container {name}");
    let exec = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(true),
        env: Some(vec!["TERM=xterm-256color".to_owned()]),
        cmd: Some(vec!["/bin/sh".to_owned()]),
        ..CreateExecOptions::default()
    };
    let made = client.create_exec(&name, exec).await.map_err(|cause| failed(what(), &cause))?;
    let start = StartExecOptions { detach: false, tty: true, output_capacity: None };
    let begun = client.start_exec(&made.id, Some(start)).await;
    let StartExecResults::Attached { output, input } =
        begun.map_err(|cause| failed(what(), &cause))?
    else {
        return Err(BackendError::broken(what()));
    };
    let size = |columns: u16, rows: u16| ResizeExecOptions { w: columns.into(), h: rows.into() };
    if let Err(cause) = client.resize_exec(&made.id, size(columns, rows)).await {
        tracing::debug!(error = %cause, "a terminal keeps its first size");
    }
    let (typed, typing) = mpsc::channel(WAITING);
    let (resized, mut sizes) = mpsc::channel::<(u16, u16)>(WAITING);
    tokio::spawn(pass_on(typing, input));
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            if let Err(cause) = client.resize_exec(&made.id, size(columns, rows)).await {
                tracing::debug!(error = %cause, "a terminal keeps its size");
            }
        }
    });
    let output =
        output.map(|part| part.map(|part| part.into_bytes()).map_err(super::broken_stream));
    Ok(Terminal { output: output.boxed(), input: typed, size: resized })
}

/// Until nobody types any more.
async fn pass_on(mut typing: mpsc::Receiver<Bytes>, mut input: impl AsyncWrite + Unpin + Send) {
    while let Some(bytes) = typing.recv().await {
        if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
    let _ = input.write_all(GOODBYE).await;
    let _ = input.shutdown().await;
}
