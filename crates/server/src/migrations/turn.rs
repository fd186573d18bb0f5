//! The two turning points, a transaction each: the target becomes the workspace, or it never will.

use ligand_domain::guards::Guard;
use ligand_domain::migration::{After, Before, Cause, Probe, Program, Stage, Wish, may_cut_over};
use ligand_domain::workspace::{Intent, Status};
use serde_json::{Value, json};

use super::facts::{Looked, look};
use super::reconcile::{Going, Went};
use super::steps::AS_BEFORE;
use super::{Migration, begin, store};
use crate::access;
use crate::journal::Work;
use crate::messages;
use crate::programs;
use crate::registry;
use crate::workspaces::{self, Workspace};

/// Why the source's instance is over, in its row.
const MIGRATED: &str = "migrated: its workspace runs elsewhere";
/// Why the candidate's is.
const ROLLED_BACK: &str = "abandoned: its migration was rolled back";

impl Going<'_> {
    /// Look once more at everything that speaks for the target, and make it the workspace.
    pub(super) async fn cut_over(&self) -> anyhow::Result<Went> {
        let (mut work, workspace, it) = self.begin().await?;
        if it.wish == Wish::Abort {
            return Ok(Went::On);
        }
        let now = work.now;
        let looked = look(&mut work.tx, &it, workspace, now).await?;
        let guards = self.app.config.guards;
        if let Err(cause) = may_cut_over(&it.decided(), &looked.facts, guards) {
            drop(work);
            let serial = looked.facts.serial;
            let stale = matches!(it.probe, Probe::Completed(probed) if probed < serial);
            return match cause {
                // Something was written since, which the target has to load first.
                Cause::Evidence(_) if stale => self.enter(Stage::Before(Before::Activate)).await,
                cause => self.roll_back(cause).await,
            };
        }
        let Some(workspace) = &looked.workspace else { return Ok(Went::On) };
        self.become_target(&mut work, it, workspace, &looked).await?;
        work.commit().await?;
        self.app.beats.forget(self.workspace);
        self.app.bells.ring();
        Ok(Went::On)
    }

    async fn become_target(
        &self,
        work: &mut Work<'_>,
        mut it: Migration,
        workspace: &Workspace,
        looked: &Looked,
    ) -> anyhow::Result<()> {
        let (id, now) = (self.workspace, work.now);
        let Some(target) = it.target else { anyhow::bail!("it was never prepared") };
        let url = looked.target.as_ref().map(|target| target.url.clone()).unwrap_or_default();
        let loaded = match looked.facts.target.program {
            Program::Runs(serial) => serial,
            Program::StandsBy | Program::Unknown => workspace.restarts_loaded,
        };
        let tx = &mut work.tx;
        workspaces::set_generations(tx, id, target, target).await?;
        workspaces::clear_candidate(tx, id).await?;
        workspaces::place(tx, id, (&it.to, &url), loaded).await?;
        workspaces::end_instance(tx, (id, it.source), MIGRATED, now).await?;
        access::supersede_before(tx, id, target, now).await?;
        access::end_passports_of(tx, id, it.source, now).await?;
        if let Some(instance) = &looked.target {
            workspaces::move_compute(self.app, tx, instance).await?;
        }
        if let Some(card) = card_at(workspace, &url) {
            workspaces::save_card(tx, id, &card, now).await?;
        }
        let evidence = format!("generation {target} took over at the cut-over of its migration");
        workspaces::set_status(tx, id, Status::Online, &evidence, now).await?;
        programs::forget(tx, id).await?;
        messages::release_in(tx, id).await?;
        workspaces::wake(tx, id, now).await?;
        it.url_after = Some(url.clone());
        it.released_at = Some(now);
        let stage = Stage::After(After::Release);
        it.enter(stage, &self.app.config, now);
        store::save(tx, &it).await?;
        store::note_phase(tx, it.id, stage, now).await?;
        if let Some(drain) = it.drain {
            store::drains::wake(tx, drain, now).await?;
        }
        let summary = format!("generation {target} on {} is the workspace now", it.to);
        begin::note(work, &it, summary);
        let payload = json!({"generation": target, "url": url, "backend": it.to});
        work.emit("WORKSPACE_ONLINE", id, payload);
        Ok(())
    }

    /// End it: whatever the candidate could prove itself with ends first, in the transaction that says so.
    pub(super) async fn roll_back(&self, cause: Cause) -> anyhow::Result<Went> {
        let (mut work, workspace, mut it) = self.begin().await?;
        let (id, now) = (self.workspace, work.now);
        // Decided by facts that another transaction read: after the cut-over there is no way back.
        if !matches!(it.stage, Stage::Before(_)) {
            return Ok(Went::On);
        }
        if let Some(candidate) = it.target {
            if self.app.config.guards.hold(Guard::RollBackRevokes) {
                registry::abandon(&mut work, (id, candidate), ROLLED_BACK).await?;
            } else {
                workspaces::clear_candidate(&mut work.tx, id).await?;
            }
        }
        let (source, runs) = ((id, it.source), workspace.as_ref());
        let runs = runs.is_some_and(|workspace| workspace.intent == Intent::Running);
        if runs && programs::wanted(&mut work.tx, source).await?.is_some() {
            programs::want(&mut work.tx, source, AS_BEFORE).await?;
        }
        let cause = match (cause, it.lacks.take()) {
            (Cause::Late(Before::Activate, _), Some(lacks)) => {
                Cause::Late(Before::Activate, format!("the target {lacks}"))
            }
            (cause, _) => cause,
        };
        it.cause = Some(cause.to_string());
        it.enter(Stage::Undoing, &self.app.config, now);
        store::save(&mut work.tx, &it).await?;
        store::note_phase(&mut work.tx, it.id, Stage::Undoing, now).await?;
        if workspace.is_some() {
            workspaces::wake(&mut work.tx, id, now).await?;
        }
        let summary = format!("the migration to {} is rolled back: {cause}", it.to);
        begin::note(&mut work, &it, summary);
        work.commit().await?;
        self.app.bells.ring();
        Ok(Went::On)
    }
}

/// Its card, with the address at which it answers from now on.
fn card_at(workspace: &Workspace, url: &str) -> Option<String> {
    let mut card: Value = serde_json::from_str(workspace.agent.card.as_deref()?).ok()?;
    let said = card.get_mut("url")?;
    *said = Value::String(url.to_owned());
    Some(card.to_string())
}
