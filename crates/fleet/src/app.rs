//! What every room of the fleet shares: built once, cloned everywhere.

use std::sync::Arc;
use std::time::Duration;

use ligand_domain::secrets::{Stored, Unreadable};
use ligand_domain::time::Timestamp;
use ligand_server::app::{Clock, Ids};
use ligand_server::backend::Backends;
use ligand_server::db::Db;
use ligand_server::reconcile::Bells;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::operator::Metrics;

/// The fleet's shared parts.
#[derive(Clone)]
pub struct Fleet(Arc<Parts>);

/// What a fleet stands on: what differs between a program and a test.
pub struct Ground {
    /// The database.
    pub db: Db,
    /// The only clock.
    pub clock: Clock,
    /// The only source of randomness.
    pub ids: Ids,
    /// What runs instances, by the names of provider accounts.
    pub providers: Backends,
    /// The settings, resolved.
    pub config: Config,
    /// Calls platforms. With time limits, without redirects.
    pub http: reqwest::Client,
}

/// See [`Fleet`].
pub struct Parts {
    ground: Ground,
    /// Wakes reconcilers. Hints only.
    pub bells: Bells,
    /// Counts what changed here: whoever waits for something looks again. A hint, too.
    pub changed: watch::Sender<u64>,
    /// Counters.
    pub metrics: Metrics,
    /// Work that a graceful stop waits for.
    pub tasks: TaskTracker,
    /// Set when the fleet stops.
    pub stop: CancellationToken,
    /// When it started.
    pub started: Timestamp,
}

impl std::ops::Deref for Parts {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl std::ops::Deref for Fleet {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Fleet {
    /// Start on this ground.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        let started = ground.clock.now();
        Self(Arc::new(Parts {
            ground,
            bells: Bells::default(),
            changed: watch::Sender::default(),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            started,
        }))
    }

    /// Run in the background; a graceful stop waits for it.
    #[expect(clippy::disallowed_methods, reason = "the one place where tasks begin, tracked")]
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tasks.track_future(work));
    }

    /// Encrypt a text for storing. The fleet always has a key.
    #[must_use]
    pub fn seal(&self, text: &str) -> Stored {
        self.config.keys.seal(text, self.ids.bytes())
    }

    /// Read a stored text.
    ///
    /// # Errors
    /// [`Unreadable`], which says nothing of it.
    pub fn open(&self, stored: &Stored) -> Result<String, Unreadable> {
        self.config.keys.open(stored)
    }

    /// Something changed: reconcilers and whoever waits look again.
    pub fn ring(&self) {
        self.bells.ring();
        self.changed.send_modify(|count| *count += 1);
    }

    /// Until something changed here, or a moment passed.
    pub async fn a_change(&self, heard: &mut watch::Receiver<u64>, moment: Duration) {
        tokio::select! {
            _ = heard.changed() => {}
            () = self.clock.rest(moment) => {}
        }
    }
}
