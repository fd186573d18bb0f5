//! Rotation by age.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::store;
use crate::app::App;
use crate::journal::{Kind, Work};
use crate::reconcile::{Pass, Reconciler};

/// How often ages are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Rotations that one pass asks for. The next pass takes more.
const MOST: i64 = 100;

/// Asks for a rotation where a credential in use is older than `rotate_after_hours`.
#[derive(Default)]
pub struct RotationReconciler {
    /// Nothing is looked at before this (µs). Only saves work: another server may look earlier.
    next: AtomicI64,
}

impl Reconciler for RotationReconciler {
    fn name(&self) -> &'static str {
        "rotation"
    }

    fn does(&self) -> &'static str {
        "asks agents to rotate credentials that are older than rotate_after_hours"
    }

    fn workers(&self) -> usize {
        1
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        async move {
            let now = app.clock.now();
            let after = app.config.rotate_after;
            if after.is_zero() || now.micros() < self.next.load(Ordering::Relaxed) {
                return Ok(Pass::default());
            }
            let pass = pass(app, now.before(after)).await?;
            if pass.looked_at == 0 {
                self.next.store(now.after(EVERY).micros(), Ordering::Relaxed);
            }
            Ok(pass)
        }
        .boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        let next = Timestamp::from_micros(self.next.load(Ordering::Relaxed));
        async move { Ok((!app.config.rotate_after.is_zero()).then_some(next)) }.boxed()
    }
}

async fn pass(app: &App, minted_by: Timestamp) -> anyhow::Result<Pass> {
    let mut work = Work::begin(app).await?;
    let asked = store::rotate_old(&mut work.tx, minted_by, MOST).await?;
    for (id, serial) in &asked {
        let summary = format!("rotation {serial} of its credential was asked for");
        work.note(*id, None, Kind::Rotated, summary, json!({"serial": serial, "by": "age"}));
    }
    work.commit().await?;
    let count = u64::try_from(asked.len()).unwrap_or(u64::MAX);
    Ok(Pass { looked_at: count, steps: count, failed: None })
}
