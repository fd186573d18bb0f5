//! What is cleared away: the target of a migration that was rolled back, the source of one that came through.

use anyhow::anyhow;
use ligand_domain::migration::{After, Outcome, Stage};
use serde_json::json;

use super::facts::Looked;
use super::reconcile::{Going, Went};
use super::{Migration, begin, store};
use crate::backend::{Backend, Key};
use crate::journal::Kind;
use crate::messages;
use crate::transfer;
use crate::workspaces;

impl Going<'_> {
    /// Nothing of an instance is left at a backend, nor of the workspace's data there.
    async fn clear(&self, backend: &dyn Backend, key: Key) -> anyhow::Result<()> {
        let done = async {
            backend.stop(key, self.app.config.stop_grace).await?;
            backend.destroy(key).await?;
            backend.erase(self.workspace).await
        };
        done.await.map_err(|cause| anyhow!(cause.chain()))
    }

    /// Destroy the target, with its data. It can prove itself with nothing any more.
    pub(super) async fn destroy_target(
        &self,
        it: &Migration,
        looked: &Looked,
    ) -> anyhow::Result<Went> {
        let generation = it.target.ok_or_else(|| anyhow!("there is no target"))?;
        let born = looked.target.as_ref().map_or(generation, |target| target.born);
        let backend = self.backend(&it.to)?;
        self.clear(&*backend, Key { workspace: self.workspace, generation: born }).await?;
        self.change(|it, _| it.target_gone = true).await
    }

    /// Messages may go on: they were let go in the transaction of the cut-over, and those who wait are told now.
    pub(super) async fn release(&self) -> anyhow::Result<Went> {
        messages::released(self.app);
        self.enter(Stage::After(After::Retire)).await
    }

    /// Destroy the source, with its data there, and what lies between.
    pub(super) async fn retire(&self, it: &Migration) -> anyhow::Result<Went> {
        let backend = self.backend(&it.from)?;
        let key = Key { workspace: self.workspace, generation: it.source_born };
        self.clear(&*backend, key).await?;
        transfer::forget(self.app, self.id).await?;
        let (mut work, workspace, mut it) = self.begin().await?;
        it.source_gone = true;
        (it.failures, it.last_error, it.next_attempt_at) = (0, None, None);
        store::save(&mut work.tx, &it).await?;
        if workspace.is_some() {
            let summary = format!("generation {} was ended on {}", it.source, it.from);
            let facts = json!({"migration": it.id, "backend": it.from});
            work.note(self.workspace, Some(it.source), Kind::Retired, summary, facts);
        }
        work.commit().await?;
        Ok(Went::On)
    }

    /// It is over.
    pub(super) async fn finish(&self, it: &Migration) -> anyhow::Result<Went> {
        let outcome = match it.stage {
            Stage::Undoing => {
                transfer::forget(self.app, self.id).await?;
                Outcome::RolledBack
            }
            _ => Outcome::Migrated,
        };
        let (mut work, workspace, mut it) = self.begin().await?;
        let (stage, now) = (Stage::Over(outcome), work.now);
        it.enter(stage, &self.app.config, now);
        store::save(&mut work.tx, &it).await?;
        store::note_phase(&mut work.tx, it.id, stage, now).await?;
        if let Some(drain) = it.drain {
            store::drains::wake(&mut work.tx, drain, now).await?;
        }
        if workspace.is_some() {
            workspaces::wake(&mut work.tx, self.workspace, now).await?;
            let summary = match (outcome, &it.cause) {
                (Outcome::Migrated, _) => format!("the migration to {} is done", it.to),
                (Outcome::RolledBack, Some(cause)) => {
                    format!("the migration to {} was rolled back: {cause}", it.to)
                }
                (Outcome::RolledBack, None) => {
                    format!("the migration to {} was rolled back", it.to)
                }
            };
            begin::note(&mut work, &it, summary);
        }
        work.commit().await?;
        self.app.bells.ring();
        Ok(Went::On)
    }
}
