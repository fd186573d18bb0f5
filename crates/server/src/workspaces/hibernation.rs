//! Hibernates workspaces that nobody calls.
//!
//! Idle is what `ligand_domain::lifecycle` says: no turn began or ended for the minutes that were set for the
//! workspace. Heartbeats are no turns. Which ones may be idle is read without a lock; each is judged again
//! under its own.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::lifecycle::idle;
use ligand_domain::time::Timestamp;

use super::{lifecycle, store};
use crate::app::App;
use crate::reconcile::{Pass, Reconciler};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(120);
/// Workspaces that one pass looks at, those without a turn for longest first.
const AT_ONCE: i64 = 500;

/// See the module.
pub struct HibernationMonitor;

impl Reconciler for HibernationMonitor {
    fn name(&self) -> &'static str {
        "hibernation"
    }

    fn does(&self) -> &'static str {
        "hibernates workspaces without a turn for as long as was set for them"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(Some(app.clock.now().after(EVERY))) }.boxed()
    }
}

async fn pass(app: &App) -> anyhow::Result<Pass> {
    let candidates = store::idling(&mut app.db.read().await?, AT_ONCE).await?;
    let mut pass = Pass { looked_at: candidates.len() as u64, ..Pass::default() };
    for store::Idling { id, current, serving_since } in candidates {
        let may = |found: &super::Workspace, now| {
            // Another instance is another matter: it was not there when this was read.
            let same = found.current == current && !found.restart_due();
            same && idle(found.life(), found.leisure, serving_since, now)
        };
        let now = app.clock.now();
        let found = store::get(&mut app.db.read().await?, id).await?;
        if !found.is_some_and(|found| may(&found, now)) {
            continue;
        }
        match lifecycle::claim(app, id, "no turn for as long as was set", may).await {
            Ok(claimed) => pass.steps += u64::from(claimed),
            // It stays awake until the next look; the others are looked at all the same.
            Err(cause) => pass.failed = Some(format!("workspace {id}: {cause}")),
        }
    }
    Ok(pass)
}
