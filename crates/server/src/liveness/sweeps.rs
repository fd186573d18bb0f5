//! Sweeps: what looks for leftovers, and takes them away.
//!
//! Above each stands what it calls garbage. All of them decide and act in one statement or transaction, and
//! none is needed for anything to be right: they find what a defect, an operator or a crash left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::guards::Guard;
use ligand_domain::id::WorkspaceId;
use ligand_domain::sweep::PHANTOM;
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::store::{self, Stale};
use crate::activity;
use crate::app::App;
use crate::delegations;
use crate::journal::{self, Kind, Work};
use crate::reconcile::{Pass, Reconciler};

/// How often leftovers are looked for.
const EVERY: Duration = Duration::from_secs(60);
/// How often busy workspaces are looked at.
const EVERY_BUSY: Duration = Duration::from_secs(300);
/// Rows that one pass takes away at most; there may be another pass at once.
const AT_ONCE: i64 = 500;

/// Declares a sweep: its name, what it does, how often it looks, and its pass.
macro_rules! sweep {
    ($(#[$doc:meta])* $type:ident, $name:literal, $does:literal, $every:expr, $pass:path) => {
        $(#[$doc])*
        pub struct $type;

        impl Reconciler for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn does(&self) -> &'static str {
                $does
            }

            fn workers(&self) -> usize {
                1
            }

            fn every(&self) -> Option<Duration> {
                Some($every)
            }

            fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
                $pass(app).boxed()
            }

            fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
                async { Ok(Some(app.clock.now().after($every))) }.boxed()
            }
        }
    };
}

sweep! {
    /// Garbage: a live instance credential of an older generation than the current one, not used for five
    /// minutes, of a workspace that is neither removed nor being started, and of which its backend, which
    /// answered, has no instance. An empty list is an answer; an error is none.
    StaleCredentials,
    "sweep-credentials",
    "ends idle credentials of older generations where the backend has no instance",
    EVERY,
    stale_credentials
}

sweep! {
    /// Garbage: a credential that was minted in an answer and not used by the time at which it lapses. It is
    /// as good as lapsed already; this makes its state say so.
    LapsedCredentials,
    "sweep-lapsed",
    "marks credentials as lapsed that nobody used in time",
    EVERY,
    lapsed_credentials
}

sweep! {
    /// Garbage: a count of turns in progress, where neither a heartbeat nor a call of the workspace was seen
    /// for ten minutes. What an agent that beats says of itself is no garbage, however long a turn takes.
    PhantomBusy,
    "sweep-busy",
    "clears the turns in progress of agents that were not heard of for ten minutes",
    EVERY_BUSY,
    phantom_busy
}

/// Ends the credentials of one workspace that are stale at `now`, in one statement. Gives how many.
///
/// # Errors
/// When the database does not answer.
pub async fn end_stale(app: &App, workspace: WorkspaceId, now: Timestamp) -> anyhow::Result<u64> {
    let mut work = Work::begin(app).await?;
    let ended = match app.config.guards.hold(Guard::SweepInOneStatement) {
        true => store::end_stale(&mut work.tx, workspace, stale(app, now), now).await?,
        false => store::end_blindly(&mut work.tx, workspace, now).await?,
    };
    if ended > 0 {
        let summary = "left over credentials of older generations were ended";
        work.note(workspace, None, Kind::Swept, summary, json!({"count": ended}));
    }
    work.commit().await?;
    Ok(ended)
}

/// Workspaces that hold a stale credential, on backends that answered and have no instance of them; and the
/// backends that did not.
///
/// # Errors
/// When the database does not answer.
pub async fn stale_holders(app: &App) -> anyhow::Result<(Vec<WorkspaceId>, Vec<String>)> {
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    for (name, backend) in app.backends.all() {
        let owned = match backend.list_owned().await {
            Ok(owned) => owned,
            Err(cause) => {
                silent.push(format!("{name}: {}", cause.chain()));
                continue;
            }
        };
        let there: BTreeSet<WorkspaceId> = owned.into_iter().map(|key| key.workspace).collect();
        let mut tx = app.db.read().await?;
        let holders = store::holders(&mut tx, name, stale(app, app.clock.now())).await?;
        found.extend(holders.into_iter().filter(|id| !there.contains(id)));
    }
    Ok((found, silent))
}

fn stale(app: &App, now: Timestamp) -> Stale {
    let current_too = !app.config.guards.hold(Guard::SweepSparesCurrent);
    Stale { idle_since: now.before(app.config.stale_credential_after), current_too }
}

pub(super) fn failures(all: &[String]) -> Option<String> {
    (!all.is_empty()).then(|| all.join("; "))
}

async fn stale_credentials(app: &App) -> anyhow::Result<Pass> {
    let (found, silent) = stale_holders(app).await?;
    let mut pass = Pass { looked_at: found.len() as u64, steps: 0, failed: failures(&silent) };
    for workspace in found {
        // The first failure ends the pass; the next one goes on.
        pass.steps += end_stale(app, workspace, app.clock.now()).await?;
    }
    Ok(pass)
}

async fn lapsed_credentials(app: &App) -> anyhow::Result<Pass> {
    if !app.config.guards.hold(Guard::UnusedLapses) {
        return Ok(Pass::default());
    }
    let mut work = Work::begin(app).await?;
    let lapsed = store::lapse(&mut work.tx, work.now, AT_ONCE).await?;
    for (workspace, generation) in &lapsed {
        let summary = "a credential lapsed: nobody used it in time";
        work.note(*workspace, *generation, Kind::Swept, summary, json!({}));
    }
    work.commit().await?;
    let count = lapsed.len() as u64;
    Ok(Pass { looked_at: count, steps: count, failed: None })
}

async fn phantom_busy(app: &App) -> anyhow::Result<Pass> {
    let mut work = Work::begin(app).await?;
    let since = work.now.before(PHANTOM);
    let cleared = store::unbusy(&mut work.tx, since, AT_ONCE).await?;
    for workspace in &cleared {
        let summary = "it was called busy, and not heard of for ten minutes: it is not busy";
        work.note(*workspace, None, Kind::Swept, summary, json!({}));
    }
    work.commit().await?;
    let count = cleared.len() as u64;
    Ok(Pass { looked_at: count, steps: count, failed: None })
}

/// Garbage: events, activity and ended delegations older than they are kept, and decisions older than those are, about generations and
/// workspaces that are over. What led to the present state of a workspace is none, however old.
pub struct Retention {
    every: Duration,
}

impl Retention {
    /// As often as the settings say.
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { every: app.config.retention.every }
    }
}

impl Reconciler for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn does(&self) -> &'static str {
        "takes away events, activity, ended delegations and decisions that are older than they are kept"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Option<Duration> {
        Some(self.every)
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        async {
            let now = app.clock.now();
            let events = now.before(app.config.retention.events);
            let entries = now.before(app.config.retention.journal);
            let mut tx = app.db.begin().await?;
            let gone = journal::forget(&mut tx, events, entries, AT_ONCE).await?
                + activity::forget(&mut tx, events, AT_ONCE).await?
                + delegations::forget(&mut tx, events, AT_ONCE).await?;
            tx.commit().await?;
            Ok(Pass { looked_at: gone, steps: gone, failed: None })
        }
        .boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(Some(app.clock.now().after(self.every))) }.boxed()
    }
}
