//! Runs reconcilers: at once when the bell rings, otherwise every now and then.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
pub use ligand_server::reconcile::Pass;

use crate::app::Fleet;

/// After a pass that could not even look.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// One pass is one bounded piece of work, taken by a row lease; what it is about it learns from the database alone.
/// The rules of `ligand_server::reconcile` hold here too.
pub trait Reconciler: Send + Sync {
    /// In metrics and logs.
    fn name(&self) -> &'static str;

    /// How many passes may run at once on this server.
    fn workers(&self) -> usize;

    /// How often it looks though no bell was heard.
    fn every(&self) -> Duration;

    /// Whether it looks when the bell rings.
    fn hears(&self) -> bool {
        true
    }

    /// One piece of work.
    fn pass<'a>(&'a self, fleet: &'a Fleet) -> BoxFuture<'a, anyhow::Result<Pass>>;
}

/// Run one reconciler until the fleet stops.
pub fn drive(fleet: &Fleet, reconciler: Arc<dyn Reconciler>) {
    for _ in 0..reconciler.workers() {
        let (worker, reconciler) = (fleet.clone(), Arc::clone(&reconciler));
        fleet.spawn(async move { work(worker, reconciler).await });
    }
}

async fn work(fleet: Fleet, reconciler: Arc<dyn Reconciler>) {
    let bell = fleet.bells.of(reconciler.name());
    while !fleet.stop.is_cancelled() {
        let pass = AssertUnwindSafe(reconciler.pass(&fleet)).catch_unwind().await;
        let pass = pass.unwrap_or_else(|_| Err(anyhow::anyhow!("a pass panicked")));
        let wait = match pass {
            Ok(pass) => {
                fleet.metrics.count(reconciler.name(), &pass);
                if let Some(error) = &pass.failed {
                    let reconciler = reconciler.name();
                    tracing::warn!(reconciler, error, "a row failed and will be tried again");
                }
                if pass.looked_at > 0 && reconciler.hears() {
                    continue;
                }
                reconciler.every()
            }
            Err(cause) => {
                let (reconciler, error) = (reconciler.name(), format!("{cause:#}"));
                tracing::error!(reconciler, error, "a pass failed");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = fleet.stop.cancelled() => return,
            () = bell.notified(), if reconciler.hears() => {}
            () = fleet.clock.tick(wait) => {}
        }
    }
}
