//! Those who wait for what becomes of a message. They are told at once where this server writes it down, and look
//! again now and then: another one may.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
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

/// How long somebody waits. It ends nothing that is under way with the database: an operation that is broken off
/// costs its connection.
pub(super) struct Patience {
    over: bool,
    end: BoxFuture<'static, ()>,
}

impl Patience {
    /// So long; `None`: for ever.
    pub(super) fn new(left: Option<Duration>) -> Self {
        let end = async move {
            match left {
                Some(left) => drop(tokio::time::timeout(left, std::future::pending::<()>()).await),
                None => std::future::pending().await,
            }
        };
        Self { over: false, end: end.boxed() }
    }

    /// Wait for something. `None`: patience is over.
    pub(super) async fn wait<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        if self.over {
            return None;
        }
        tokio::select! {
            biased;
            came = what => Some(came),
            () = &mut self.end => {
                self.over = true;
                None
            }
        }
    }
}

/// What waiting for a message brought.
pub(super) enum Waited {
    /// It is over, or where it was waited for; `None`: there is none any more.
    Over(Option<Box<Message>>),
    /// Patience is over.
    Impatient,
}

/// Wait until a message is over; with `leaves`, also until it is in the queue.
///
/// # Errors
/// 503 when the database does not answer.
pub(super) async fn end_of(
    app: &App,
    id: MessageId,
    leaves: bool,
    patience: &mut Patience,
) -> Result<Waited> {
    loop {
        let heard = app.post.waiting.hear(id);
        let found = super::get(&mut app.db.read().await?, id).await?;
        let waits = |message: &Message| match message.state {
            State::Accepted => !leaves,
            State::Delivering => !(leaves && message.origin.is_promised()),
            State::Processed
            | State::Acknowledged
            | State::Expired
            | State::Dead
            | State::Dropped => false,
        };
        if !found.as_ref().is_some_and(waits) {
            return Ok(Waited::Over(found.map(Box::new)));
        }
        if app.stop.is_cancelled() {
            return Err(Error::Unavailable(anyhow::anyhow!("the server stops")));
        }
        if patience.wait(tokio::time::timeout(LOOK, heard)).await.is_none() {
            return Ok(Waited::Impatient);
        }
    }
}
