//! What every room shares: built once, cloned everywhere. Engines and their settings; of the nouns only the
//! hub that tells watchers of commits, and the queues of heartbeats, messages and activity.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ligand_domain::credential::Token;
use ligand_domain::id::{
    CredentialId, EventId, InstanceId, MessageId, OrgTokenId, PassportId, WorkspaceId,
};
use ligand_domain::lease;
use ligand_domain::time::Timestamp;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Sessions;
use crate::activity::Log;
use crate::backend::Backends;
use crate::config::Config;
use crate::db::Db;
use crate::http::limit::Limiter;
use crate::http::metrics::Metrics;
use crate::journal::Hub;
use crate::messages::Post;
use crate::reconcile::Bells;
use crate::registry::beats::Beats;
use crate::{templates, transfer};

/// The server's shared parts.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    parts: Parts,
    limiter: Limiter,
    sessions: Sessions,
    templates: templates::Cache,
    transfers: transfer::Opened,
}

/// What a server stands on: what differs between a program, a test and a simulation.
pub struct Ground {
    /// The database.
    pub db: Db,
    /// The only clock.
    pub clock: Clock,
    /// The only source of randomness.
    pub ids: Ids,
    /// The only one that asks what a name stands for.
    pub names: Names,
    /// What runs instances.
    pub backends: Backends,
    /// The settings, resolved.
    pub config: Config,
    /// Calls agents. With time limits, without redirects.
    pub http: reqwest::Client,
}

/// See [`App`].
pub struct Parts {
    /// What it stands on.
    ground: Ground,
    /// Wakes reconcilers. Hints only: nothing is wrong without them.
    pub bells: Bells,
    /// Heartbeats on their way to the database.
    pub beats: Beats,
    /// Messages on their way.
    pub post: Post,
    /// Activity on its way to the database.
    pub log: Log,
    /// How often agents are asked to report. Refreshed from the database.
    pub pace: Pace,
    /// Tells watchers that events were committed.
    pub hub: Hub,
    /// Counters.
    pub metrics: Metrics,
    /// Work that a graceful stop waits for.
    pub tasks: TaskTracker,
    /// Set when the server stops.
    pub stop: CancellationToken,
    /// When this server started: nobody's silence before it counts.
    pub started: Timestamp,
}

impl std::ops::Deref for Parts {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl App {
    /// Start on this ground.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        let limiter = Limiter::new(ground.config.edge.rate_limit);
        let started = ground.clock.now();
        let parts = Parts {
            ground,
            bells: Bells::default(),
            beats: Beats::default(),
            post: Post::default(),
            log: Log::default(),
            pace: Pace::default(),
            hub: Hub::default(),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            started,
        };
        let (sessions, templates) = (Sessions::default(), templates::Cache::default());
        let transfers = transfer::Opened::default();
        Self(Arc::new(Shared { parts, limiter, sessions, templates, transfers }))
    }

    /// Who asked how often.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }

    /// What the control plane said of sessions.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// What templates say.
    pub(crate) fn templates(&self) -> &templates::Cache {
        &self.0.templates
    }

    /// Where data lies on its way.
    pub(crate) fn transfers(&self) -> &transfer::Opened {
        &self.0.transfers
    }

    /// Run in the background; a graceful stop waits for it.
    #[expect(clippy::disallowed_methods, reason = "the one place where tasks begin, tracked")]
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tasks.track_future(work));
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

/// The pace that agents are asked for, as this server last read it.
#[derive(Clone, Default)]
pub struct Pace(Arc<Mutex<lease::Pace>>);

impl Pace {
    /// As last read.
    #[must_use]
    pub fn get(&self) -> lease::Pace {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was read anew.
    pub fn set(&self, pace: lease::Pace) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }
}

/// The clock. Tests and simulation own theirs.
#[derive(Clone)]
pub enum Clock {
    /// The machine's.
    System,
    /// Moves when told to.
    Manual(Arc<Mutex<Timestamp>>),
}

impl Clock {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self::Manual(Arc::new(Mutex::new(at)))
    }

    /// The time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                Timestamp::EPOCH.after(since.unwrap_or_default())
            }
            Self::Manual(at) => *at.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Move a manual clock forward. Does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(at) = self {
            let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
            *at = at.after(by);
        }
    }

    /// The beat of something that goes on beside other work. A manual clock stands still for it.
    #[expect(clippy::disallowed_methods, reason = "beside `sleep` the one place that waits")]
    pub async fn tick(&self, every: Duration) {
        match self {
            Self::System => tokio::time::sleep(every).await,
            Self::Manual(_) => std::future::pending().await,
        }
    }

    /// Let what happens meanwhile gather. With a manual clock that takes no time at all.
    #[expect(clippy::disallowed_methods, reason = "beside `sleep` the one place that waits")]
    pub async fn rest(&self, duration: Duration) {
        match self {
            Self::System => tokio::time::sleep(duration).await,
            Self::Manual(_) => tokio::task::yield_now().await,
        }
    }

    /// Wait. With a manual clock, waiting takes no time of its own: the time is moved instead.
    #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
    pub async fn sleep(&self, duration: Duration) {
        match self {
            Self::System => tokio::time::sleep(duration).await,
            Self::Manual(_) => {
                self.advance(duration);
                tokio::task::yield_now().await;
            }
        }
    }
}

/// How long the machine may take to resolve a name.
const RESOLVED_WITHIN: Duration = Duration::from_secs(5);

/// Resolves names. Tests and simulation own theirs, so that they depend on no network.
#[derive(Clone)]
pub enum Names {
    /// The machine's resolver.
    System,
    /// These, and `localhost`.
    Table(Arc<Mutex<Known>>),
}

/// What a table of names knows.
#[derive(Debug, Default)]
pub struct Known {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// What every other name stands for.
    others: Vec<IpAddr>,
    asked: Vec<String>,
}

impl Names {
    /// A table with nothing in it but `localhost`.
    #[must_use]
    pub fn table() -> Self {
        Self::Table(Arc::default())
    }

    /// A table in which every name stands for this address.
    #[must_use]
    pub fn all(address: IpAddr) -> Self {
        let known = Known { others: vec![address], ..Known::default() };
        Self::Table(Arc::new(Mutex::new(known)))
    }

    /// Let `name` stand for these addresses. Does nothing to the machine's resolver.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        if let Self::Table(known) = self {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.addresses.insert(name.to_owned(), addresses.to_vec());
        }
    }

    /// The names that a table was asked for, oldest first. The machine's resolver keeps no such list.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        match self {
            Self::System => Vec::new(),
            Self::Table(known) => {
                known.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
            }
        }
    }

    /// Every address of a host, which may be one itself. Never call it inside a transaction.
    ///
    /// # Errors
    /// When the name stands for nothing, or nobody says so in time.
    pub async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        let unknown = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let found: Vec<IpAddr> = match self {
            Self::System => {
                let asked =
                    tokio::time::timeout(RESOLVED_WITHIN, tokio::net::lookup_host((host, 0)));
                let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
                asked.await.map_err(late)??.map(|found| found.ip()).collect()
            }
            Self::Table(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.asked.push(host.to_owned());
                let others = || match host {
                    "localhost" => vec![Ipv4Addr::LOCALHOST.into()],
                    _ => known.others.clone(),
                };
                known.addresses.get(host).cloned().unwrap_or_else(others)
            }
        };
        if found.is_empty() { Err(unknown()) } else { Ok(found) }
    }
}

/// Ids, secrets and jitter. Seeded in tests and simulation.
pub struct Ids(Mutex<ChaCha20Rng>);

impl Ids {
    /// From the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn from_os() -> Result<Self, rand::rngs::SysError> {
        Ok(Self(Mutex::new(ChaCha20Rng::try_from_rng(&mut rand::rngs::SysRng)?)))
    }

    /// From a seed: the same ids in the same order. Never in production.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        bytes
    }

    /// Uniform in 0..1.
    pub fn jitter(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// A new workspace's id.
    pub fn workspace(&self) -> WorkspaceId {
        WorkspaceId::from_random(self.bytes())
    }

    /// A new instance's id.
    pub fn instance(&self) -> InstanceId {
        InstanceId::from_random(self.bytes())
    }

    /// A new credential's id.
    pub fn credential(&self) -> CredentialId {
        CredentialId::from_random(self.bytes())
    }

    /// A new passport's id.
    pub fn passport(&self) -> PassportId {
        PassportId::from_random(self.bytes())
    }

    /// A new organisation token's id.
    pub fn org_token(&self) -> OrgTokenId {
        OrgTokenId::from_random(self.bytes())
    }

    /// A new event's id.
    pub fn event(&self) -> EventId {
        EventId::from_random(self.bytes())
    }

    /// A new message's id.
    pub fn message(&self) -> MessageId {
        MessageId::from_random(self.bytes())
    }

    /// A new secret.
    pub fn token(&self) -> Token {
        Token::from_entropy(self.bytes())
    }
}
