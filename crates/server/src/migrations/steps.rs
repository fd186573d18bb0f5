//! The steps of `ligand_domain::migration`, carried out. Each is written down before it is taken, and may be taken
//! twice.

use std::time::Duration;

use ligand_domain::migration::{Before, LOOK_AGAIN, Program, Stage, Step};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;

use super::facts::Looked;
use super::reconcile::{Going, Went};
use super::{Migration, begin, store};
use crate::messages;
use crate::programs::{self, Wish};
use crate::workspaces::{self, Instance};

/// What is said to those whose messages wait.
const HELD: &str = "migration";
/// Messages wait no longer than its phases may take, and this.
const SLACK: Duration = Duration::from_secs(60);
/// It runs with what it has.
pub(super) const AS_BEFORE: Wish = Wish::Run(0);
/// Turns that were let through just before messages had to wait are known by then.
const UNDER_WAY: Duration = Duration::from_millis(100);

impl Going<'_> {
    pub(super) async fn take(
        &mut self,
        it: Migration,
        looked: Looked,
        step: Step,
    ) -> anyhow::Result<Went> {
        match step {
            Step::Rest(again) => Ok(Went::Rest(again)),
            Step::Enter(phase) => self.enter(Stage::Before(phase)).await,
            Step::Prepare => self.prepare().await,
            Step::Start => self.start(&it, &looked).await,
            Step::Copy => self.copy(&it).await,
            Step::Hold => self.hold().await,
            Step::StandBy => self.stand_by(&it, &looked).await,
            Step::StopSource => self.stop_source(&looked).await,
            Step::Complete => self.complete(&it).await,
            Step::Restore => self.restore(&it).await,
            Step::Run(serial) => self.run(&looked, serial).await,
            Step::Probe => self.probe(&it, &looked).await,
            Step::CutOver => self.cut_over().await,
            Step::RollBack(cause) => self.roll_back(cause).await,
            Step::DestroyTarget => self.destroy_target(&it, &looked).await,
            Step::Resume => self.resume(&it, &looked).await,
            Step::Release => self.release().await,
            Step::Retire => self.retire(&it, &looked).await,
            Step::Finish => self.finish(&it).await,
        }
    }

    /// Write down that a phase begins.
    pub(super) async fn enter(&self, stage: Stage) -> anyhow::Result<Went> {
        let (mut work, _, mut it) = self.begin().await?;
        it.enter(stage, &self.app.config, work.now);
        store::save(&mut work.tx, &it).await?;
        store::note_phase(&mut work.tx, it.id, stage, work.now).await?;
        let summary = format!("the migration to {} is at {}", it.to, stage.as_str());
        begin::note(&mut work, &it, summary);
        work.commit().await?;
        Ok(Went::On)
    }

    /// From now on messages wait. What is under way goes on.
    async fn hold(&self) -> anyhow::Result<Went> {
        let (mut work, _, mut it) = self.begin().await?;
        let now = work.now;
        let config = &self.app.config.migrations;
        let left = Before::ALL.into_iter().filter(|phase| *phase >= Before::Hold);
        let longest: Duration = left.map(|phase| config.deadline(phase)).sum();
        let until = now.after(longest).after(SLACK);
        messages::hold_in(&mut work.tx, it.workspace, HELD, until).await?;
        it.held_at.get_or_insert(now);
        store::save(&mut work.tx, &it).await?;
        work.commit().await?;
        Ok(Went::Rest(self.app.clock.now().after(UNDER_WAY)))
    }

    /// Tell the source's agent to end its program, and wait until it says that it did.
    async fn stand_by(&self, it: &Migration, looked: &Looked) -> anyhow::Result<Went> {
        let (Some(source), Some(target)) = (&looked.source, it.target) else {
            return Ok(self.soon());
        };
        // No two migrations bring up the same generation.
        self.tell(source, Wish::StandBy(target.number())).await
    }

    /// Tell the target's agent to run its program with what is stored now, and wait until it says that it does.
    async fn run(&self, looked: &Looked, serial: i64) -> anyhow::Result<Went> {
        let Some(target) = &looked.target else { return Ok(self.soon()) };
        self.tell(target, Wish::Run(serial)).await
    }

    /// Write down what an agent's program is to do, and give it a nudge: its next heartbeat is told.
    pub(super) async fn tell(&self, whom: &Instance, wanted: Wish) -> anyhow::Result<Went> {
        let of = (self.workspace, whom.generation);
        let mut reading = self.app.db.read().await?;
        let known = programs::wanted(&mut reading, of).await?;
        drop(reading);
        if known != Some(wanted) {
            let (mut work, _, _) = self.begin().await?;
            programs::want(&mut work.tx, of, wanted).await?;
            work.commit().await?;
            self.app.beats.forget(self.workspace);
        }
        programs::nudge(self.app, &whom.url, whom.url_reported);
        Ok(self.soon())
    }

    /// Stop the source, whose agent cannot stand by. That it is being stopped is written down first: from then on
    /// its end is no reason to turn back.
    async fn stop_source(&self, looked: &Looked) -> anyhow::Result<Went> {
        let Some(source) = &looked.source else { return Ok(self.soon()) };
        self.change(|it, _| it.stopping = true).await?;
        let backend = self.backend(source.backend.as_deref().unwrap_or_default())?;
        backend.stop(workspaces::key(source), self.app.config.stop_grace).await?;
        self.change(|it, _| it.source_ended = true).await
    }

    /// Look again soon.
    pub(super) fn soon(&self) -> Went {
        Went::Rest(self.later(LOOK_AGAIN))
    }

    pub(super) fn later(&self, after: Duration) -> Timestamp {
        self.app.clock.now().after(after)
    }

    /// Tell the source to run again, and let messages go on.
    async fn resume(&self, it: &Migration, looked: &Looked) -> anyhow::Result<Went> {
        let rests = looked.facts.source.program == Program::StandsBy;
        let source = looked.source.as_ref().filter(|source| source.ended_at.is_none());
        let runs = looked.facts.intent == Intent::Running;
        let patient = runs && self.app.clock.now() < it.since.after(SLACK);
        if let Some(source) = source.filter(|_| rests && patient) {
            return self.tell(source, AS_BEFORE).await;
        }
        let (mut work, workspace, mut it) = self.begin().await?;
        let now = work.now;
        programs::forget(&mut work.tx, self.workspace).await?;
        messages::release_in(&mut work.tx, self.workspace).await?;
        it.released_at = it.held_at.map(|_| now);
        store::save(&mut work.tx, &it).await?;
        if workspace.is_some() {
            workspaces::wake(&mut work.tx, self.workspace, now).await?;
        }
        work.commit().await?;
        self.app.beats.forget(self.workspace);
        messages::released(self.app);
        self.app.bells.ring();
        Ok(Went::On)
    }
}
