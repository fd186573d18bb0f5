//! Runs reconcilers: at once when the bell rings, otherwise when something falls due.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::{Pass, Reconciler};
use crate::app::App;

/// However little seems due, look this often: bells get lost, and other replicas ring their own.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The shortest wait for something that falls due.
const SHORTEST: Duration = Duration::from_millis(5);
/// A sweep that took something away looks again soon: there may be more.
const SWEEP_ON: Duration = Duration::from_secs(1);
/// After a pass that could not even look.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Run one reconciler until the server stops.
pub fn drive(app: &App, reconciler: Arc<dyn Reconciler>) {
    let bell = reconciler.every().is_none().then(|| app.bells.of(reconciler.name()));
    for _ in 0..reconciler.workers() {
        let (worker, reconciler, bell) = (app.clone(), Arc::clone(&reconciler), bell.clone());
        app.spawn(async move { work(worker, reconciler, bell).await });
    }
}

async fn work(app: App, reconciler: Arc<dyn Reconciler>, bell: Option<Arc<Notify>>) {
    while !app.stop.is_cancelled() {
        let pass = guarded(&app, &*reconciler).await;
        app.bells.report(&*reconciler, &pass, app.clock.now());
        let wait = match &pass {
            Ok(pass) => {
                if let Some(error) = &pass.failed {
                    tracing::warn!(
                        reconciler = reconciler.name(),
                        error,
                        "a row failed and will be tried again"
                    );
                }
                match reconciler.every() {
                    Some(every) if pass.steps == 0 => every,
                    Some(every) => every.min(SWEEP_ON),
                    None if pass.looked_at == 0 => until_due(&app, &*reconciler).await,
                    // There may be more.
                    None => continue,
                }
            }
            Err(cause) => {
                tracing::error!(
                    reconciler = reconciler.name(),
                    error = format!("{cause:#}"),
                    "a pass failed"
                );
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = rung(bell.as_deref()) => {}
            () = app.clock.sleep(wait) => {}
        }
    }
}

async fn rung(bell: Option<&Notify>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

/// A panic ends one pass, not the reconciler.
async fn guarded(app: &App, reconciler: &dyn Reconciler) -> anyhow::Result<Pass> {
    let pass = AssertUnwindSafe(reconciler.pass(app)).catch_unwind().await;
    pass.unwrap_or_else(|_| Err(anyhow!("a pass of {} panicked", reconciler.name())))
}

async fn until_due(app: &App, reconciler: &dyn Reconciler) -> Duration {
    match reconciler.next_due(app).await {
        Ok(Some(due)) => due.since(app.clock.now()).clamp(SHORTEST, LOOK_AGAIN),
        Ok(None) => LOOK_AGAIN,
        Err(_) => AFTER_FAILURE,
    }
}
