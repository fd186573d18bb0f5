//! Looks at the brake and at the pace, and lets go whoever waited.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::brake::State;
use ligand_domain::time::Timestamp;

use super::{Done, look, store};
use crate::app::App;
use crate::journal::Work;
use crate::reconcile::{Pass, Reconciler};
use crate::workspaces;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);
/// Workspaces that are let go in one pass.
const AT_ONCE: i64 = 500;

/// See the module.
pub struct BrakeReconciler;

impl Reconciler for BrakeReconciler {
    fn name(&self) -> &'static str {
        "brake"
    }

    fn does(&self) -> &'static str {
        "stops replacement on silence while much of the fleet is silent, and sets the pace of heartbeats"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        async { Ok(pass(app).await?) }.boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(Some(app.clock.now().after(EVERY))) }.boxed()
    }
}

async fn pass(app: &App) -> Done<Pass> {
    let mut work = Work::begin(app).await?;
    let (mut row, census) = look(app, &mut work, None).await?;
    let fleet = u64::try_from(census.running).unwrap_or_default();
    let pace = row.pace.follow(fleet, work.now);
    if pace != row.pace {
        row.pace = pace;
        store::set(&mut work.tx, &row).await?;
        tracing::info!(fleet, seconds = pace.beat.as_secs(), "the pace of heartbeats changed");
    }
    work.commit().await?;
    app.pace.set(row.pace);
    let let_go = let_go(app, row.brake).await?;
    Ok(Pass { looked_at: fleet, steps: let_go, failed: None })
}

/// Whoever waited for the brake waits no more. In a transaction of its own: one that holds the fleet's row
/// takes no workspace's.
pub(super) async fn let_go(app: &App, brake: State) -> Done<u64> {
    if matches!(brake, State::Engaged { .. }) {
        return Ok(0);
    }
    let mut tx = app.db.begin().await?;
    let count = workspaces::let_go(&mut tx, app.clock.now(), AT_ONCE).await?;
    tx.commit().await?;
    if count > 0 {
        app.bells.ring();
    }
    Ok(count)
}
