//! The data on its way: copied while the source serves, completed once it rests, put in place of the target's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use ligand_domain::migration::Cause;

use super::reconcile::{Going, Went};
use super::{Migration, store};
use crate::backend::ErrorKind;
use crate::transfer;

/// How often progress is written down.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// How far it is.
#[derive(Default)]
struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn get(&self) -> (i64, i64) {
        (count(self.done.load(Ordering::Relaxed)), count(self.total.load(Ordering::Relaxed)))
    }
}

/// As the database counts.
fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Going<'_> {
    /// Copy what there is, while the source goes on changing it; and bring it to the target, where it counts for nothing
    /// yet, so that little is left to be done while messages wait.
    pub(super) async fn copy(&self, it: &Migration) -> anyhow::Result<Went> {
        let (source, target) = (self.backend(&it.from)?, self.backend(&it.to)?);
        let meter = Meter::default();
        let told = |done, total| meter.set(done, total);
        let of = self.workspace;
        let copy = async {
            let copied = transfer::copy_ahead(self.app, self.id, &*source, of, &told).await?;
            if copied.whole {
                transfer::restore_ahead(self.app, self.id, &*target, of, &told).await;
            }
            Ok(copied)
        };
        self.carried(it, &meter, copy, |it, copied| {
            it.data.copied = true;
            it.bytes_done = count(copied.bytes);
            it.bytes_total = Some(it.bytes_done);
        })
        .await
    }

    /// Copy what changed since; nothing changes any more.
    pub(super) async fn complete(&self, it: &Migration) -> anyhow::Result<Went> {
        let source = self.backend(&it.from)?;
        let meter = Meter::default();
        let told = |done, total| meter.set(done, total);
        let copy = transfer::copy(self.app, self.id, &*source, self.workspace, &told);
        self.carried(it, &meter, copy, |it, copied| {
            it.data.complete = true;
            it.bytes_done = count(copied.bytes);
            it.bytes_total = Some(it.bytes_done);
            it.digest = Some(copied.digest);
        })
        .await
    }

    /// Put it in place of what the target has, if it is what left the source.
    pub(super) async fn restore(&self, it: &Migration) -> anyhow::Result<Went> {
        let target = self.backend(&it.to)?;
        let expected = it.digest.as_deref().unwrap_or_default();
        let meter = Meter::default();
        let told = |done, total| meter.set(done, total);
        let of = self.workspace;
        let restore = transfer::restore(self.app, self.id, &*target, of, expected, &told);
        self.carried(it, &meter, restore, |it, carried| {
            it.data.restored = true;
            it.bytes_done = count(carried.bytes);
        })
        .await
    }

    /// Do it as long as it is wanted, and write down what came of it.
    async fn carried<T>(
        &self,
        it: &Migration,
        meter: &Meter,
        doing: impl Future<Output = Result<T, transfer::Error>>,
        note: impl FnOnce(&mut Migration, T),
    ) -> anyhow::Result<Went> {
        match self.shown(it, meter, doing).await {
            None => Ok(Went::On),
            Some(Err(cause)) => self.failed(cause).await,
            Some(Ok(done)) => self.change(|it, _| note(it, done)).await,
        }
    }

    /// What fails the same way again is a refusal; the rest is tried again.
    async fn failed(&self, cause: transfer::Error) -> anyhow::Result<Went> {
        match cause.kind {
            ErrorKind::Transient => Err(anyhow!(cause)),
            ErrorKind::Broken | ErrorKind::Unsupported | ErrorKind::Missing => {
                self.roll_back(Cause::Refused(cause.to_string())).await
            }
        }
    }

    /// Do it as long as it is wanted, and write down now and then how far it is. `None`: it was broken off.
    async fn shown<T>(
        &self,
        it: &Migration,
        meter: &Meter,
        doing: impl Future<Output = T>,
    ) -> Option<T> {
        let shows = async {
            let mut last = (0, 0);
            loop {
                self.app.clock.tick(SHOWN_EVERY).await;
                let now = meter.get();
                if now == last {
                    continue;
                }
                last = now;
                let noted = async {
                    let mut tx = self.app.db.begin().await?;
                    let total = (now.1 > 0).then_some(now.1);
                    store::note_progress(&mut tx, self.id, now.0, total).await?;
                    tx.commit().await
                };
                if let Err(cause) = noted.await {
                    tracing::debug!(error = %cause, "progress could not be written down");
                }
            }
        };
        tokio::select! {
            done = self.wanted(it, doing) => done,
            () = shows => None,
        }
    }
}
