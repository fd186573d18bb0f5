//! Migrations: a workspace leaves one backend for another, or stays where it is.
//!
//! | file | what |
//! | --- | --- |
//! | `http.rs`, `http/drains.rs` | what administrators may ask for |
//! | `begin.rs` | a migration is asked for, paused, resumed, aborted |
//! | `reconcile.rs` | takes one that is due from step to step |
//! | `facts.rs` | what the decision looks at |
//! | `steps.rs`, `target.rs`, `data.rs`, `probe.rs` | what can be undone: the source, the target, the data, a turn |
//! | `turn.rs` | the cut-over, and the way back: one transaction each |
//! | `after.rs` | what is cleared away |
//! | `drains.rs` | every workspace leaves a backend |
//! | `sweep.rs` | snapshots that nobody forgot |
//! | `view.rs` | what callers see |
//!
//! What comes next is decided by `ligand_domain::migration`; each phase is written down before it is taken, so that a
//! server that dies leaves one that goes on where it was. Two rows are locked in one order: the workspace's, then its
//! migration's, then its drain's.

mod after;
mod begin;
mod data;
mod drains;
mod facts;
pub mod http;
mod probe;
mod reconcile;
mod steps;
mod store;
mod sweep;
mod target;
mod turn;
mod view;

use std::time::Duration;

use ligand_api::workspace::Moving;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::migration::{self as domain, After, Before, Stage, Wish};
use ligand_domain::orphan::Label;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

pub use self::drains::DrainReconciler;
pub use self::reconcile::MigrationReconciler;
pub(crate) use self::store::{note_lacking, purge, release_all, wake};
pub use self::sweep::SnapshotSweep;
use crate::app::App;
use crate::config::Config;
use crate::db::Tx;

type Done<T = ()> = Result<T, sqlx::Error>;

/// A migration as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Migration {
    id: Uuid,
    workspace: WorkspaceId,
    /// The backend that it leaves.
    from: String,
    /// The backend that it goes to.
    to: String,
    source: Generation,
    /// The number that the source's backend knows it by.
    source_born: Generation,
    target: Option<Generation>,
    stage: Stage,
    /// The last phase that was entered of those that lead to the target.
    reached: Stage,
    since: Timestamp,
    deadline: Timestamp,
    wish: Wish,
    grace: Duration,
    reason: Option<String>,
    cause: Option<String>,
    asked_at: Timestamp,
    ended_at: Option<Timestamp>,
    failures: i64,
    last_error: Option<String>,
    next_attempt_at: Option<Timestamp>,
    waits_for: Option<String>,
    /// The source is being stopped by this migration: its end is none of its own.
    stopping: bool,
    source_ended: bool,
    source_gone: bool,
    target_gone: bool,
    data: domain::Data,
    bytes_total: Option<i64>,
    bytes_done: i64,
    digest: Option<String>,
    held_at: Option<Timestamp>,
    released_at: Option<Timestamp>,
    url_before: String,
    url_after: Option<String>,
    /// For which serial its target completed a turn; or why it did not.
    probe: domain::Probe,
    /// What its target's program does not prove.
    lacks: Option<String>,
    drain: Option<Uuid>,
}

impl Migration {
    /// As the decision looks at it.
    fn decided(&self) -> domain::Migration {
        domain::Migration {
            stage: self.stage,
            since: self.since,
            deadline: self.deadline,
            wish: self.wish,
            source: self.source,
            candidate: self.target,
            grace: self.grace,
            next_attempt_at: self.next_attempt_at,
        }
    }

    /// It begins a stage now.
    fn enter(&mut self, stage: Stage, config: &Config, now: Timestamp) {
        (self.stage, self.since, self.deadline) = (stage, now, Timestamp::NEVER);
        (self.failures, self.last_error, self.next_attempt_at) = (0, None, None);
        self.waits_for = None;
        match stage {
            Stage::Before(before) => {
                self.reached = stage;
                self.deadline = now.after(config.migrations.deadline(before));
                if matches!(before, Before::PreCopy | Before::Quiesce | Before::Restore) {
                    self.bytes_done = 0;
                }
                if before == Before::Activate {
                    (self.probe, self.lacks) = (domain::Probe::None, None);
                }
            }
            Stage::After(After::Release | After::Retire) => self.reached = stage,
            Stage::Over(_) => self.ended_at = Some(now),
            Stage::Undoing => {}
        }
    }
}

/// Whether a migration of a workspace is not over yet.
pub(crate) async fn is_open(app: &App, workspace: WorkspaceId) -> Done<bool> {
    Ok(store::open_of(&mut app.db.read().await?, workspace).await?.is_some())
}

/// The migration of a workspace that is not over yet, in short.
pub(crate) async fn moving(tx: &mut Tx, workspace: WorkspaceId) -> Done<Option<Moving>> {
    let open = store::open_of(tx, workspace).await?;
    Ok(open.map(|it| Moving {
        phase: it.stage.as_str().to_owned(),
        to: it.to,
        since: it.since.to_string(),
    }))
}

/// What migrations that are not over may still have at a backend: no row of an instance need name it any more.
pub(crate) async fn named(tx: &mut Tx, backend: &str) -> Done<Vec<Label>> {
    store::named(tx, backend).await
}
