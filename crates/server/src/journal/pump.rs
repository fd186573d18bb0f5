//! The one reader of a server: reads what was committed once for all who watch, and asks in the same look
//! whether they still may. It begins with the first of them and ends after the last.
//!
//! What was committed after a credential ended is read after that, so by then its watchers are known to be none:
//! no kept event reaches anybody whose credential ended before it. Start at [`Pump::round`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ligand_api::journal::Event;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::ring::{Kin, News};
use super::stand::{Learned, Wants};
use super::store;
use crate::access;
use crate::app::App;
use crate::db::Tx;
use crate::workspaces;

/// Events that one statement brings.
const BATCH: i64 = 512;
/// Events that are not kept, of one round.
const AT_ONCE: usize = 1024;
/// Rests between two rounds: what happens meanwhile is shown in one. The first after a rest is shown at once.
const REST: Duration = Duration::from_millis(20);
/// How long hints alone are trusted: a commit on another server is seen after this at the latest, and so is the
/// end of a credential.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For how long nobody needs to be able to say whether credentials still count.
const DOUBT: Duration = Duration::from_secs(5);

/// Begin to read.
pub(super) fn start(app: &App) {
    let reading = app.clone();
    app.spawn(async move {
        let _running = Running(reading.clone());
        let now = reading.clock.now();
        let live = reading.hub.live();
        let pump = Pump { app: reading, live, kin: BTreeMap::new(), looked: now, confirmed: now };
        pump.run().await;
    });
}

/// Says so when the reader ended in a way that nobody planned.
struct Running(App);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() || self.0.stop.is_cancelled() {
            self.0.hub.stand.stopped();
        }
    }
}

struct Pump {
    app: App,
    live: Receiver<Event>,
    /// Where workspaces stand, as of the last commit that was seen.
    kin: BTreeMap<WorkspaceId, Kin>,
    /// When the database was last looked at.
    looked: Timestamp,
    /// When it last answered.
    confirmed: Timestamp,
}

impl Pump {
    async fn run(mut self) {
        let app = self.app.clone();
        let mut commits = app.hub.commits();
        let (mut due, mut first) = (true, None);
        loop {
            let Some(wants) = app.hub.stand.wants() else { return };
            let heard = self.hear(first.take());
            due |= app.clock.now().since(self.looked) >= LOOK_AGAIN;
            let more = self.round(wants, heard, due).await;
            app.clock.rest(REST).await;
            due = more;
            if due {
                continue;
            }
            tokio::select! {
                biased;
                () = app.stop.cancelled() => return,
                _ = commits.changed() => due = true,
                () = app.hub.stand.asked_to_look() => due = true,
                heard = self.live.recv() => first = Some(heard),
                () = app.clock.tick(LOOK_AGAIN) => due = true,
            }
        }
    }

    /// What came meanwhile and is not kept. What was missed is told in its place.
    fn hear(&mut self, first: Option<Result<Event, RecvError>>) -> Vec<Event> {
        let (mut heard, mut missed) = (Vec::new(), self.app.hub.stand.take_missed());
        match first {
            Some(Ok(event)) => heard.push(event),
            Some(Err(RecvError::Lagged(count))) => missed += count,
            Some(Err(RecvError::Closed)) | None => {}
        }
        while heard.len() < AT_ONCE {
            match self.live.try_recv() {
                Ok(event) => heard.push(event),
                Err(TryRecvError::Lagged(count)) => missed += count,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if missed > 0 {
            heard.insert(
                0,
                gap(&self.app, format!("{missed} events that are not kept were missed")),
            );
        }
        heard
    }

    /// Show what there is. Gives whether there is more in the database.
    async fn round(&mut self, wants: Wants, heard: Vec<Event>, due: bool) -> bool {
        let families = !wants.families.is_empty();
        let (mut learned, mut news, mut more) = (None, Vec::new(), false);
        if due {
            let now = self.app.clock.now();
            match self.look(wants, now).await {
                Ok((found, kept)) => {
                    more = i64::try_from(kept.len()).is_ok_and(|count| count >= BATCH);
                    (learned, news) = (Some(found), kept);
                    self.confirmed = now;
                }
                Err(cause) => {
                    tracing::warn!(error = %cause, "events cannot be read; trying again");
                    if now.since(self.confirmed) >= DOUBT {
                        self.app.hub.stand.doubt();
                    }
                }
            }
            self.looked = now;
        }
        if families && let Err(cause) = self.find_kin(&heard).await {
            tracing::debug!(error = %cause, "whose events these are was not found");
        }
        news.extend(heard.into_iter().map(|event| self.news(event)));
        self.app.hub.stand.show(learned, news);
        more
    }

    /// Read what was committed since, and after that who may still see it.
    async fn look(
        &mut self,
        wants: Wants,
        now: Timestamp,
    ) -> Result<(Learned, Vec<News>), sqlx::Error> {
        let mut tx = self.app.db.read().await?;
        let last = store::last_number(&mut tx).await?;
        let before = wants.upto.unwrap_or(last);
        let events = match last > before {
            true => store::events_after(&mut tx, before, None, BATCH).await?,
            false => Vec::new(),
        };
        let newest = events.last().and_then(|event| event.seq);
        let full = i64::try_from(events.len()).is_ok_and(|count| count >= BATCH);
        let upto = if full { newest.unwrap_or(last) } else { newest.unwrap_or(last).max(last) };
        let ended = access::ended(&mut tx, &wants.grants, now).await?;
        if last != before {
            self.kin.clear();
        }
        let mut families = Vec::new();
        if !wants.families.is_empty() {
            self.load(&mut tx, events.iter().filter_map(about).chain(wants.families.clone()))
                .await?;
            families = wants.families.iter().map(|id| (*id, self.kin_of(Some(*id)))).collect();
        }
        let news = events.into_iter().map(|event| self.news(event)).collect();
        Ok((Learned { upto, asked: wants.grants, ended, families }, news))
    }

    /// Find out where workspaces stand of which that is not known yet.
    async fn find_kin(&mut self, heard: &[Event]) -> Result<(), sqlx::Error> {
        let unknown: Vec<_> =
            heard.iter().filter_map(about).filter(|id| !self.kin.contains_key(id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut tx = self.app.db.read().await?;
        self.load(&mut tx, unknown.into_iter()).await
    }

    async fn load(
        &mut self,
        tx: &mut Tx,
        ids: impl Iterator<Item = WorkspaceId>,
    ) -> Result<(), sqlx::Error> {
        let ids: BTreeSet<WorkspaceId> = ids.collect();
        let ids: Vec<WorkspaceId> = ids.into_iter().collect();
        let mut found = workspaces::lineages(tx, &ids).await?;
        for id in ids {
            self.kin.insert(id, Kin::Known(found.remove(&id).map(Arc::new)));
        }
        Ok(())
    }

    fn news(&self, event: Event) -> News {
        let kin = self.kin_of(about(&event));
        News::new(event, kin)
    }

    fn kin_of(&self, id: Option<WorkspaceId>) -> Kin {
        match id {
            // About the platform: nobody's.
            None => Kin::Known(None),
            Some(id) => self.kin.get(&id).cloned().unwrap_or_default(),
        }
    }
}

fn about(event: &Event) -> Option<WorkspaceId> {
    event.workspace_id.map(WorkspaceId::from_uuid)
}

/// Tells a watcher that something may be missing here.
pub(super) fn gap(app: &App, why: String) -> Event {
    marker(app, "STREAM_GAP", json!({"reason": why}))
}

/// Tells a watcher something about its stream.
pub(super) fn marker(app: &App, event: &str, payload: serde_json::Value) -> Event {
    let timestamp = app.clock.now().to_string();
    Event { seq: None, event: event.to_owned(), workspace_id: None, timestamp, payload }
}
