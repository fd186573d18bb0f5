//! The hot path: heartbeats that change nothing are authenticated and recorded many at a time.
//!
//! Nearly every heartbeat is the current agent of an online workspace saying that all is as it was. Such
//! ones are gathered, and one statement finds their credentials and renews their leases. Whatever that
//! statement does not match (a pending, rotated or revoked credential, another status, another generation,
//! nobody known) goes through admission alone, as if this file did not exist: it can only ever agree with
//! admission, never overrule it. Nothing is remembered of who was let in, so a revocation counts from the
//! next batch on, on every replica.
//!
//! What an agent reports of itself is written when it differs from what this server wrote last, and every
//! [`REFRESH`]. In between nothing about it is of interest but whether it is still let in: those heartbeats are
//! only counted, and where the count is not that of the batch, each is looked at. Start at [`Beats::beat`].

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::credential::TokenHash;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Features;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::store;
use crate::app::App;
use crate::db::Single;
use crate::db::group::{Group, Item};
use crate::workspaces::{self, Beat};

/// However little an agent's report changes, it is written this often: another replica, or a sweep, may have
/// written something else.
const REFRESH: Duration = Duration::from_secs(120);
/// Reports that are remembered. Beyond, all are forgotten and written once more.
const REMEMBERED: usize = 1_000_000;

/// Heartbeats on their way to the database, and what was written of each agent last.
pub struct Beats {
    group: Group<Waiting>,
    told: Mutex<HashMap<WorkspaceId, Told>>,
}

/// What an agent reported when it was last written down, as fingerprints.
#[derive(Clone, Copy)]
struct Told {
    all: u64,
    task: u64,
    at: Timestamp,
    /// By whom, where that is known.
    by: Option<Teller>,
}

/// Whose report was written down. Says how its lease is paced, never whether it is let in.
#[derive(Clone, Copy)]
struct Teller {
    hash: TokenHash,
    managed: bool,
    features: Features,
}

/// One heartbeat.
pub struct Waiting {
    workspace: WorkspaceId,
    hash: TokenHash,
    said: Said,
}

/// What it says.
enum Said {
    /// What was written down lately, by this one.
    Same(Teller),
    /// Something that is to be written down.
    New(Beat),
}

/// What the batch did with it.
#[derive(Clone, Copy)]
pub struct Recorded {
    /// When it should beat again.
    next_heartbeat: Duration,
    /// What it reports was written down, and it is this one's.
    written: Option<Teller>,
}

/// What came of it.
pub(super) enum Outcome {
    /// Recorded. The agent is asked to beat again after this long.
    Recorded {
        next_heartbeat: Duration,
        /// It says that it does something else now.
        task_changed: bool,
    },
    /// It needs a decision.
    Undecided,
}

impl Default for Beats {
    fn default() -> Self {
        let group = Group::new(store::MOST);
        Self { group, told: Mutex::default() }
    }
}

impl Beats {
    /// Record a heartbeat that reports nothing that could move a status. `beat` has to be calm.
    pub(super) async fn beat(
        &self,
        app: &App,
        workspace: WorkspaceId,
        hash: TokenHash,
        beat: &Beat,
    ) -> Outcome {
        let now = app.clock.now();
        let told = told(beat, now);
        let last = self.lock().get(&workspace).copied();
        let same = last.is_some_and(|last| last.all == told.all && now < last.at.after(REFRESH));
        if beat.card.is_some() && !same {
            return Outcome::Undecided;
        }
        let teller = last.filter(|_| same).and_then(|last| last.by).filter(|by| by.hash == hash);
        let said = teller.map_or_else(|| Said::New(beat.clone()), Said::Same);
        let asked = self.group.ask(app, Waiting { workspace, hash, said }).await;
        let Some(Some(Recorded { next_heartbeat, written })) = asked else {
            return Outcome::Undecided;
        };
        if written.is_some() {
            self.remember(workspace, Told { by: written, ..told });
        }
        let task_changed = last.is_none_or(|last| last.task != told.task);
        Outcome::Recorded { next_heartbeat, task_changed }
    }

    /// It was written down by the way of a decision.
    pub(super) fn written(&self, workspace: WorkspaceId, beat: &Beat, now: Timestamp) {
        self.remember(workspace, told(beat, now));
    }

    /// Something else wrote what the agent reports, or may have.
    pub(crate) fn forget(&self, workspace: WorkspaceId) {
        self.lock().remove(&workspace);
    }

    fn remember(&self, workspace: WorkspaceId, told: Told) {
        let mut all = self.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(workspace, told);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uptime is left out: it always differs.
fn told(beat: &Beat, at: Timestamp) -> Told {
    let mut hasher = DefaultHasher::new();
    beat.current_task.hash(&mut hasher);
    let task = hasher.finish();
    beat.error_rate.to_bits().hash(&mut hasher);
    beat.sample_error.hash(&mut hasher);
    beat.active_tasks.hash(&mut hasher);
    beat.monthly_spend.hash(&mut hasher);
    beat.capabilities.hash(&mut hasher);
    beat.idle_timeout_seconds.hash(&mut hasher);
    beat.card.hash(&mut hasher);
    Told { all: hasher.finish(), task, at, by: None }
}

impl Item for Waiting {
    type Key = WorkspaceId;
    /// `None`: it was not recorded.
    type Answer = Option<Recorded>;

    /// The statement says which workspaces it recorded, not by which credential.
    fn key(&self) -> WorkspaceId {
        self.workspace
    }

    fn run(app: App, batch: Vec<Self>) -> BoxFuture<'static, Vec<Self::Answer>> {
        async move {
            match record(&app, &batch).await {
                Ok(recorded) => {
                    batch.iter().map(|one| recorded.get(&one.workspace).copied()).collect()
                }
                Err(cause) => {
                    // Each is decided alone then, and says what is wrong.
                    tracing::debug!(error = %cause, "a batch of heartbeats was not recorded");
                    vec![None; batch.len()]
                }
            }
        }
        .boxed()
    }
}

/// Leases first, and for good: whatever is wrong with a report, its agent was heard. The two are transactions
/// of their own, since everybody else locks a workspace before its instances.
async fn record(
    app: &App,
    batch: &[Waiting],
) -> Result<HashMap<WorkspaceId, Recorded>, sqlx::Error> {
    let mut single = app.db.renewal().await?;
    let now = app.clock.now();
    let (mut recorded, unknown) = count(app, &mut single, batch, now).await?;
    let heard = store::record(&mut single, &unknown, now).await?;
    // SQLite has this one for whatever writes.
    drop(single);
    let mut heard: HashMap<_, _> =
        heard.into_iter().map(|one| (WorkspaceId::from_uuid(one.workspace_id), one)).collect();
    let mut reports = Vec::new();
    let mut tellers = HashMap::new();
    for one in batch {
        let Some(row) = heard.remove(&one.workspace) else { continue };
        let features = Features::from_names(row.features.split_whitespace());
        let teller = Teller { hash: one.hash, managed: row.backend.is_some(), features };
        recorded.insert(one.workspace, teller.recorded(app, now));
        if let Said::New(beat) = &one.said {
            let of = (one.workspace, Generation::new(row.generation));
            reports.push(store::Report { of, hash: one.hash, beat });
            tellers.insert(one.workspace, teller);
        }
    }
    // In one order everywhere, so that batches of two replicas do not wait for each other.
    reports.sort_unstable_by_key(|report| report.of.0.uuid());
    match write_down(app, &reports, now).await {
        Ok(written) => {
            for id in written.into_iter().map(WorkspaceId::from_uuid) {
                if let Some(one) = recorded.get_mut(&id) {
                    one.written = tellers.get(&id).copied();
                }
            }
        }
        // They come again with the next heartbeats.
        Err(cause) => tracing::warn!(error = %cause, "what agents report was not written down"),
    }
    Ok(recorded)
}

/// Those that say nothing new, if all of them are let in; and those about which more is to be asked.
async fn count(
    app: &App,
    single: &mut Single,
    batch: &[Waiting],
    now: Timestamp,
) -> Result<(HashMap<WorkspaceId, Recorded>, Vec<(WorkspaceId, TokenHash)>), sqlx::Error> {
    let (mut recorded, mut same, mut unknown) = (HashMap::new(), Vec::new(), Vec::new());
    for one in batch {
        let of = (one.workspace, one.hash);
        if let Said::Same(teller) = one.said {
            recorded.insert(one.workspace, teller.recorded(app, now));
            same.push(of);
        } else {
            unknown.push(of);
        }
    }
    if store::renew(single, &same, now).await? != same.len() as u64 {
        recorded.clear();
        unknown.append(&mut same);
    }
    Ok((recorded, unknown))
}

impl Teller {
    fn recorded(self, app: &App, now: Timestamp) -> Recorded {
        let holder = workspaces::holder(app, self.managed, self.features, now);
        Recorded { next_heartbeat: holder.beat(), written: None }
    }
}

async fn write_down(
    app: &App,
    reports: &[store::Report<'_>],
    now: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = app.db.begin().await?;
    let written = store::report(&mut tx, reports, now).await?;
    tx.commit().await?;
    Ok(written)
}
