//! Those who wait for what becomes of a message. They are told at once where this server writes it down, and look
//! again now and then: another one may.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ligand_domain::id::MessageId;
use ligand_domain::message::State;
use tokio::sync::{oneshot, watch};

use super::Message;
use crate::app::App;
use crate::error::{Error, Result};

/// How often somebody who waits looks for himself.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    of: Mutex<HashMap<MessageId, Vec<oneshot::Sender<()>>>>,
    releases: watch::Sender<u64>,
}

impl Waiting {
    /// Something was written down about a message.
    pub(super) fn tell(&self, id: MessageId) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        for waits in of.remove(&id).unwrap_or_default() {
            let _ = waits.send(());
        }
    }

    fn hear(&self, id: MessageId) -> oneshot::Receiver<()> {
        let (tell, heard) = oneshot::channel();
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let all = of.entry(id).or_default();
        // Whoever looked again has left one behind.
        all.retain(|waits| !waits.is_closed());
        all.push(tell);
        heard
    }

    /// A hold is over.
    pub(super) fn released(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// Wait until some hold is over, a moment at most.
    pub(super) async fn release(&self) {
        let mut releases = self.releases.subscribe();
        releases.mark_unchanged();
        let _ = tokio::time::timeout(LOOK, releases.changed()).await;
    }
}

/// Wait until a message is over; with `leaves`, also until it is in the queue. `None`: there is none any more.
///
/// # Errors
/// 503 when the database does not answer.
pub(super) async fn end_of(app: &App, id: MessageId, leaves: bool) -> Result<Option<Message>> {
    loop {
        let heard = app.post.waiting.hear(id);
        let found = super::get(&mut app.db.read().await?, id).await?;
        let waits = |message: &Message| match message.state {
            State::Accepted => !leaves,
            State::Delivering => !(leaves && message.origin.is_promised()),
            _ => false,
        };
        if !found.as_ref().is_some_and(waits) {
            return Ok(found);
        }
        if app.stop.is_cancelled() {
            return Err(Error::Unavailable(anyhow::anyhow!("the server stops")));
        }
        let _ = tokio::time::timeout(LOOK, heard).await;
    }
}
