//! What the engine tells by itself.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt as _;

use super::engine::Engine;
use super::names;
use crate::backend::{BackendError, Pushes};

/// The first wait after the engine could not be heard, and the longest.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(10);

/// Push every end, for ever. While the engine cannot be heard nothing is pushed; what ended meanwhile is pushed once
/// it can be heard again.
#[expect(
    clippy::disallowed_methods,
    reason = "an engine comes back in real time, whatever the clock of the server says"
)]
pub(super) async fn listen(engine: Engine, owner: String, pushes: Pushes) {
    let (mut wait, mut told) = (SOONEST, false);
    loop {
        match hear(&engine, &owner, &pushes).await {
            // It was heard, and ended: perhaps it restarts.
            Ok(()) => (wait, told) = (SOONEST, false),
            Err(_) if told => {}
            Err(cause) => {
                tracing::warn!(
                    error = cause.chain(),
                    "the engine's events are not heard; leases will tell"
                );
                told = true;
            }
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(LATEST);
    }
}

/// Push ends until the engine says no more. An error: it was not heard at all.
async fn hear(engine: &Engine, owner: &str, pushes: &Pushes) -> Result<(), BackendError> {
    let mut filters: HashMap<String, Vec<String>> = names::filters(owner, None);
    filters.insert("type".to_owned(), vec!["container".to_owned()]);
    filters.insert("event".to_owned(), vec!["die".to_owned()]);
    let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
    let mut events = Box::pin(engine.client()?.events(Some(options)));
    let missed = report_ended(engine, owner, pushes);
    tokio::pin!(missed);
    let mut reported = false;
    loop {
        tokio::select! {
            // First, so that nothing ends between the two unseen.
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => {
                    let labels = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
                    if let Some(key) = names::key_of(&labels) {
                        pushes.ended(key);
                    }
                }
                Some(Err(cause)) if !reported => {
                    return Err(super::failed("hear the engine's events".to_owned(), &cause));
                }
                _ => return Ok(()),
            },
            said = &mut missed, if !reported => {
                said?;
                reported = true;
            }
        }
    }
}

/// Push what has ended already.
pub(super) async fn report_ended(
    engine: &Engine,
    owner: &str,
    pushes: &Pushes,
) -> Result<(), BackendError> {
    for one in engine.containers(owner, None).await? {
        let ended = matches!(one.state, Some(State::EXITED | State::DEAD));
        if let Some(key) = one.labels.as_ref().and_then(names::key_of).filter(|_| ended) {
            pushes.ended(key);
        }
    }
    Ok(())
}
