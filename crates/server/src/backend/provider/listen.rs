//! What a provider says by itself: a stream of events, followed for as long as its backend is there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use tokio::sync::watch;

use super::Line;
use super::wire::Named;
use crate::backend::{BackendError, ErrorKind, Pushes};

/// The first wait after it could not be heard, and the longest.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(10);
/// A provider says something at least every 15 s; whoever is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// No line of it is longer.
const LINE: usize = 4096;

/// Push every end, for ever. What ended while it was not heard it is asked to tell again.
#[expect(
    clippy::disallowed_methods,
    reason = "a provider comes back in real time, whatever the clock of the server says"
)]
pub(super) async fn follow(line: Arc<Line>, pushes: Pushes, heard: watch::Sender<bool>) {
    let (mut wait, mut told, mut first) = (SOONEST, false, true);
    loop {
        match hear(&line, &pushes, &heard, first).await {
            Ok(()) => (wait, told, first) = (SOONEST, false, false),
            // It said that it could, and cannot: leases will tell.
            Err(cause) if cause.kind == ErrorKind::Unsupported => return,
            Err(_) if told => {}
            Err(cause) => {
                let error = cause.chain();
                tracing::warn!(error, "the provider's events are not heard; leases will tell");
                told = true;
            }
        }
        heard.send_replace(false);
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(LATEST);
    }
}

/// Push ends until it says no more. An error: it was not heard at all.
async fn hear(
    line: &Line,
    pushes: &Pushes,
    heard: &watch::Sender<bool>,
    first: bool,
) -> Result<(), BackendError> {
    let request = line.caller.request(Method::GET, &["events"], None);
    let answer = tokio::time::timeout(SILENCE, line.caller.answer("hear events", request, &[]));
    let silent = |_| super::transient("hear events: no answer".to_owned());
    let mut parts = answer.await.map_err(silent)??.bytes_stream();
    heard.send_replace(true);
    if !first {
        // The connection was gone for a while, and so may be what was said on it.
        let _ = line.recover().await;
    }
    let mut said = Vec::new();
    while let Ok(Some(Ok(part))) = tokio::time::timeout(SILENCE, parts.next()).await {
        for byte in part {
            match byte {
                b'\n' => {
                    if let Some(named) = event(&said) {
                        pushes.ended(named.into());
                    }
                    said.clear();
                }
                _ if said.len() >= LINE => return Ok(()),
                byte => said.push(byte),
            }
        }
    }
    Ok(())
}

/// A line of a stream of server-sent events; what is no event of ours says nothing.
fn event(line: &[u8]) -> Option<Named> {
    let data = line.strip_prefix(b"data:")?;
    serde_json::from_slice(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_of_data_and_all_else_says_nothing() {
        let id = "c0000000-0000-4000-8000-000000000001";
        let line = format!("data: {{\"workspace\":\"{id}\",\"generation\":7,\"more\":1}}\r");
        let named = event(line.as_bytes()).unwrap();
        assert_eq!((named.workspace.to_string().as_str(), named.generation.number()), (id, 7));
        for other in ["", ":", ": hello", "event: ended", "data: {}", "data: nonsense"] {
            assert!(event(other.as_bytes()).is_none(), "{other}");
        }
    }
}
