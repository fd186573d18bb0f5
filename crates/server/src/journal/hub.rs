//! Where those who cause events and those who watch them meet, on one server.
//!
//! It carries hints that something was committed, and events that are not kept. What watchers read is in
//! `ring.rs`, filled by `pump.rs`. Hints may be lost; what is kept is read from the database.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ligand_api::journal::Event;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};

use super::stand::Stand;

/// Events that are not kept, on their way to whoever listens on this server.
const LIVE_BUFFER: usize = 1024;
/// Heartbeats come by the thousand: they reach watchers of the server that took them, and no other.
const OF_ONE_SERVER: &str = "WORKSPACE_HEARTBEAT";

/// Tells watchers that there is something to read.
pub struct Hub {
    committed: watch::Sender<i64>,
    /// The same, of this server's commits alone.
    own: watch::Sender<i64>,
    live: broadcast::Sender<Event>,
    others: Others,
    pub(super) stand: Stand,
    #[cfg(feature = "mutants")]
    after: OnceLock<AfterCommit>,
}

/// What of it other servers are told.
#[derive(Default)]
struct Others {
    /// The way to them, where there is one.
    way: OnceLock<mpsc::Sender<Event>>,
    /// Somebody watches at one of them.
    watch: AtomicBool,
    /// What they were not told.
    lost: AtomicU64,
}

/// Is told how many decisions a transaction recorded, right after its commit and before anybody else hears of it.
#[cfg(feature = "mutants")]
pub type AfterCommit = Box<dyn Fn(usize) + Send + Sync>;

impl Default for Hub {
    fn default() -> Self {
        Self {
            committed: watch::Sender::new(0),
            own: watch::Sender::new(0),
            live: broadcast::Sender::new(LIVE_BUFFER),
            others: Others::default(),
            stand: Stand::default(),
            #[cfg(feature = "mutants")]
            after: OnceLock::new(),
        }
    }
}

impl Hub {
    /// What happens right after a commit from now on: the place where proofs end a server. In no release; only
    /// the first is kept.
    #[cfg(feature = "mutants")]
    pub fn after_commit(&self, after: AfterCommit) {
        let _ = self.after.set(after);
    }

    /// So many decisions are durable.
    pub(super) fn decided(&self, count: usize) {
        #[cfg(feature = "mutants")]
        if let (Some(after), true) = (self.after.get(), count > 0) {
            after(count);
        }
        #[cfg(not(feature = "mutants"))]
        let _ = count;
    }

    pub(super) fn committed(&self, seq: i64) {
        advance(&self.own, seq);
        advance(&self.committed, seq);
    }

    /// Another server committed up to `seq`. It told everybody: it is not passed on.
    pub fn heard(&self, seq: i64) {
        advance(&self.committed, seq);
    }

    /// Watch the commits of this server.
    #[must_use]
    pub fn own_commits(&self) -> watch::Receiver<i64> {
        self.own.subscribe()
    }

    /// Watch for commits.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    /// Hear events that are not kept.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }

    /// Whether anybody hears events that are not kept, here or at another server.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.is_watched_here() || self.others.watch.load(Ordering::Relaxed)
    }

    /// Whether anybody on this server does.
    #[must_use]
    pub fn is_watched_here(&self) -> bool {
        self.live.receiver_count() > 0
    }

    /// Send an event that is not kept, here and to other servers where somebody watches. Nobody listening is fine.
    pub fn broadcast(
        &self,
        event: &'static str,
        workspace: WorkspaceId,
        at: Timestamp,
        payload: Value,
    ) {
        let event = Event {
            seq: None,
            event: event.to_owned(),
            workspace_id: Some(workspace.uuid()),
            timestamp: at.to_string(),
            payload,
        };
        if event.event != OF_ONE_SERVER
            && self.others.watch.load(Ordering::Relaxed)
            && let Some(way) = self.others.way.get()
            && way.try_send(event.clone()).is_err()
        {
            self.not_passed(1);
        }
        let _ = self.live.send(event);
    }

    /// Another server sent it.
    pub fn passed(&self, event: Event) {
        let _ = self.live.send(event);
    }

    /// Other servers may have sent so many that did not come here.
    pub fn missed(&self, count: u64) {
        self.stand.missed(count);
    }

    /// From now on events that are not kept go this way too. Only the first is kept.
    pub(crate) fn lead(&self, way: mpsc::Sender<Event>) {
        let _ = self.others.way.set(way);
    }

    /// Whether anybody watches at another server.
    pub(crate) fn watched_elsewhere(&self, watched: bool) {
        self.others.watch.store(watched, Ordering::Relaxed);
    }

    /// Follow whether anybody watches here.
    pub(crate) fn watched_here(&self) -> watch::Receiver<bool> {
        self.stand.watched()
    }

    /// So many could not be passed on.
    pub(crate) fn not_passed(&self, count: u64) {
        self.others.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many could not be passed on since this was last asked.
    pub(crate) fn take_lost(&self) -> u64 {
        self.others.lost.swap(0, Ordering::Relaxed)
    }

    /// Somebody's credential ended: those who watch by it are looked at now.
    pub(crate) fn look_again(&self) {
        self.stand.look_again();
    }
}

fn advance(to: &watch::Sender<i64>, seq: i64) {
    to.send_if_modified(|last| {
        let newer = seq > *last;
        *last = seq.max(*last);
        newer
    });
}
