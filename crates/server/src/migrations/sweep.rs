//! Snapshots that nobody forgot: a copy that went on for a moment on a server which had lost its claim, while another
//! ended the migration.
//!
//! Only those of migrations that this database knows as over are taken away. One of which it never heard may be
//! somebody else's, as one bucket may serve several installations.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::store;
use crate::app::App;
use crate::reconcile::{Pass, Reconciler};
use crate::transfer;

/// How often the store is looked through. It is a look at every object.
const EVERY: Duration = Duration::from_secs(3600);
/// Nothing writes to a snapshot for as long as this after its migration ended: a claim is long lost then.
const SETTLED: Duration = Duration::from_secs(600);

/// See the module.
pub struct SnapshotSweep;

impl Reconciler for SnapshotSweep {
    fn name(&self) -> &'static str {
        "sweep-snapshots"
    }

    fn does(&self) -> &'static str {
        "removes snapshots of migrations that are over"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        async {
            let mut pass = Pass::default();
            let swept = sweep(app, &mut pass).await;
            pass.failed = swept.err().map(|cause| format!("{cause:#}"));
            Ok(pass)
        }
        .boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(Some(app.clock.now().after(EVERY))) }.boxed()
    }
}

async fn sweep(app: &App, pass: &mut Pass) -> anyhow::Result<()> {
    let before = app.clock.now().before(SETTLED);
    // Whoever never moved anything has no store to look at.
    if !store::any_over(&mut app.db.read().await?, before).await? {
        return Ok(());
    }
    let kept: Vec<Uuid> = transfer::list(app).await?.into_iter().map(|it| it.id).collect();
    pass.looked_at = kept.len() as u64;
    for id in kept {
        if store::is_over(&mut app.db.read().await?, id, before).await? {
            transfer::forget(app, id).await?;
            tracing::warn!(migration.id = %id, "a snapshot was left behind, and is removed now");
            pass.steps += 1;
        }
    }
    Ok(())
}
