//! The fleet as a whole: the brake on replacement, the pace of heartbeats, and sweeps.
//!
//! The brake is one row that every replica reads and writes in transactions: `ask` is part of the transaction
//! that would plan a replacement, [`BrakeReconciler`] looks now and then, and lets go whoever waited. The
//! decisions are `ligand_domain::brake` and `ligand_domain::lease`. Sweeps of the database are in `sweeps.rs`, each
//! with its definition of garbage; that of what backends have is in `orphans.rs`.

mod brake;
pub mod http;
pub mod orphans;
mod store;
pub mod sweeps;

use ligand_api::operator::Brake;
use ligand_domain::brake::{Because, Census, Permits, State, Verdict, WINDOW};
use ligand_domain::guards::Guard;
use ligand_domain::lease::Pace;
use ligand_domain::time::Timestamp;
use serde_json::json;

pub use self::brake::BrakeReconciler;
use crate::app::App;
use crate::db::Tx;
use crate::journal::Work;
use crate::workspaces;

/// The one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Where the brake stands.
    pub(crate) brake: State,
    /// Replacements that began in the present minute.
    pub(crate) permits: Permits,
    /// How often agents are asked to report.
    pub(crate) pace: Pace,
}

type Done<T = ()> = Result<T, sqlx::Error>;

/// May this be replaced now, and where does the brake stand that says so? `since` is when it was noted as silent,
/// or ended. Part of the transaction that would plan it, after the workspace's row was locked. Where nothing is held
/// up, a report costs one read and a guess one count of the fleet.
pub(crate) async fn ask(
    app: &App,
    work: &mut Work<'_>,
    because: Because,
    since: Timestamp,
) -> Done<(Verdict, State)> {
    if !app.config.guards.hold(Guard::Brake) {
        return Ok((Verdict::Go(Permits::default()), State::Free));
    }
    if because == Because::Reported {
        let row = store::get(&mut work.tx).await?;
        if row.brake == State::Free {
            return Ok((Verdict::Go(row.permits), row.brake));
        }
    }
    let silent_since = (because == Because::Silent).then_some(since);
    let (mut row, census) = look(app, work, silent_since).await?;
    let verdict = ligand_domain::brake::ask(row.brake, row.permits, census, because, work.now);
    if let Verdict::Go(permits) = verdict
        && permits != row.permits
    {
        row.permits = permits;
        store::set(&mut work.tx, &row).await?;
    }
    Ok((verdict, row.brake))
}

/// Look at the fleet, and move the brake if that is what follows. The row stays locked until the commit.
async fn look(
    app: &App,
    work: &mut Work<'_>,
    silent_since: Option<Timestamp>,
) -> Done<(Row, Census)> {
    let mut row = store::lock(&mut work.tx).await?;
    let from = row.brake.counts_from(work.now, silent_since);
    let census = workspaces::serving(&mut work.tx, from, from.after(WINDOW)).await?;
    let next = row.brake.next(census, work.now, app.config.guards);
    if next != row.brake {
        announce(work, row.brake, next, census);
        row.brake = next;
        store::set(&mut work.tx, &row).await?;
    }
    Ok((row, census))
}

async fn census(tx: &mut Tx, brake: State, now: Timestamp) -> Done<Census> {
    let from = brake.counts_from(now, None);
    workspaces::serving(tx, from, from.after(WINDOW)).await
}

/// Tell watchers and the log, once per move.
fn announce(work: &mut Work<'_>, from: State, to: State, census: Census) {
    let (silent, running) = (census.silent, census.running);
    let facts = json!({"silent": silent, "running": running, "per_minute": census.rate()});
    match to {
        State::Engaged { until, .. } if from.as_str() != to.as_str() => {
            tracing::error!(silent, running, %until, "the brake is engaged: much of the fleet fell silent at once, and nothing is replaced for being silent");
            let mut facts = facts;
            facts["next_attempt_at"] = json!(until);
            work.announce("BRAKE_ENGAGED", facts);
        }
        // Only its peak moved.
        State::Engaged { .. } => {}
        State::Easing { .. } => {
            tracing::warn!(
                silent,
                running,
                "the brake eases: replacement goes on at a bounded rate"
            );
            work.announce("BRAKE_EASING", facts);
        }
        State::Free => {
            tracing::info!(silent, running, "the brake is free again");
            work.announce("BRAKE_FREE", facts);
        }
    }
}

/// An operator says that replacement goes on.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn release(app: &App) -> Done<Brake> {
    let mut work = Work::begin(app).await?;
    let mut row = store::lock(&mut work.tx).await?;
    let census = census(&mut work.tx, row.brake, work.now).await?;
    let next = row.brake.released(work.now);
    if next != row.brake {
        announce(&mut work, row.brake, next, census);
        row.brake = next;
        store::set(&mut work.tx, &row).await?;
    }
    work.commit().await?;
    brake::let_go(app, row.brake).await?;
    Ok(told(row.brake, census))
}

/// Where the brake stands.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn report(app: &App) -> Done<Brake> {
    let mut tx = app.db.read().await?;
    let row = store::get(&mut tx).await?;
    let census = census(&mut tx, row.brake, app.clock.now()).await?;
    Ok(told(row.brake, census))
}

fn told(state: State, census: Census) -> Brake {
    let (since, until) = match state {
        State::Free => (None, None),
        State::Engaged { since, until, .. } => (Some(since), Some(until)),
        State::Easing { since } => (Some(since), None),
    };
    Brake {
        state: state.as_str().to_owned(),
        running: census.running,
        silent: census.silent,
        since: since.map(|at| at.to_string()),
        next_attempt_at: until.map(|at| at.to_string()),
        per_minute: (state != State::Free).then(|| census.rate()),
    }
}
