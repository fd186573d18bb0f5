//! Takes one migration that is due from step to step, until it says to rest.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::credential::Token;
use ligand_domain::id::WorkspaceId;
use ligand_domain::migration::{Before, Stage, Step, Wish, next, waits_for};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;
use uuid::Uuid;

use super::facts::{Looked, look};
use super::{Migration, begin, store};
use crate::app::App;
use crate::journal::Work;
use crate::reconcile::{CLAIM, Pass, Reconciler, keep, new_claim};
use crate::workspaces::{self, Workspace};

/// How often a step that takes long is asked whether it still should.
const STILL_WANTED: Duration = Duration::from_millis(500);
/// Steps of one migration in one pass. More would be a sign of going in circles.
const MOST_STEPS: u64 = 40;
/// Copies take as long as they take: one must not hold up the others.
const WORKERS: usize = 16;

/// See the module.
pub struct MigrationReconciler;

impl MigrationReconciler {
    /// One step of one that is due, and no more: what a pass does that is cut short.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn step(&self, app: &App) -> anyhow::Result<Pass> {
        Box::pin(pass(app, 1)).await
    }
}

impl Reconciler for MigrationReconciler {
    fn name(&self) -> &'static str {
        "migrations"
    }

    fn does(&self) -> &'static str {
        "takes workspaces from one backend to another, or back"
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app, MOST_STEPS).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(store::next_due(&mut app.db.read().await?).await?) }.boxed()
    }
}

async fn pass(app: &App, most: u64) -> anyhow::Result<Pass> {
    let now = app.clock.now();
    let claim = new_claim(app);
    let mut tx = app.db.begin().await?;
    let found = store::CLAIMS.take::<(Uuid, Uuid)>(&mut tx, claim, now, now.after(CLAIM)).await;
    let Some((id, workspace)) = found.context("claim a migration")? else {
        return Ok(Pass::default());
    };
    let workspace = WorkspaceId::from_uuid(workspace);
    tx.commit().await?;
    app.bells.of("migrations").notify_one();
    let mut pass = Pass { looked_at: 1, ..Pass::default() };
    let mut going = Going { app, id, workspace, claim, fresh: None };
    let outcome = tokio::select! {
        outcome = going.on(&mut pass, most) => outcome,
        never = keep(app, &store::CLAIMS, id, claim) => match never {},
    };
    let again = match outcome {
        Ok(again) => again,
        Err(cause) => {
            let error = format!("{cause:#}");
            let again = note_failure(app, id, claim, &error).await;
            pass.failed = Some(format!("migration {id} of workspace {workspace}: {error}"));
            again
        }
    };
    let outcome = if pass.failed.is_some() { "failed" } else { "ok" };
    app.metrics.steps.with_label_values(&["migrations", outcome]).inc_by(pass.steps);
    let mut tx = app.db.begin().await?;
    store::CLAIMS.give_back(&mut tx, id, claim, again).await?;
    tx.commit().await?;
    Ok(pass)
}

/// Note why a step failed, and when it is taken again.
async fn note_failure(app: &App, id: Uuid, claim: Uuid, error: &str) -> Timestamp {
    let now = app.clock.now();
    let noted = async {
        let mut tx = app.db.begin().await?;
        let failures = store::get(&mut tx, id).await?.map_or(0, |it| it.failures);
        let next = begin::again_at(failures, now);
        store::note_failure(&mut tx, (id, claim), error, next).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(next)
    };
    noted.await.unwrap_or_else(|cause| {
        tracing::warn!(migration.id = %id, error = %cause, "a failure could not be noted");
        begin::again_at(1, now)
    })
}

/// What a step came to.
pub(super) enum Went {
    /// Ask again what comes next.
    On,
    /// There is something to wait for: look again then.
    Rest(Timestamp),
}

/// One migration on its way.
pub(super) struct Going<'a> {
    pub(super) app: &'a App,
    pub(super) id: Uuid,
    pub(super) workspace: WorkspaceId,
    /// By which this pass has it.
    claim: Uuid,
    /// The passport that was minted in this pass. After a crash it is gone, and another is minted beside it.
    pub(super) fresh: Option<Token>,
}

impl<'a> Going<'a> {
    async fn on(&mut self, pass: &mut Pass, most: u64) -> anyhow::Result<Timestamp> {
        for _ in 0..most {
            let now = self.app.clock.now();
            let Some((it, mut looked)) = self.look(now).await? else {
                return Ok(Timestamp::NEVER);
            };
            let decided = decided(&it, &looked);
            // After the cut-over backends are told what to do, and asked nothing.
            if matches!(it.stage, Stage::Before(_) | Stage::Undoing) {
                looked.ask(self.app, &it).await;
            }
            match next(&decided, &looked.facts, now, self.app.config.guards) {
                Step::Rest(again) => {
                    self.note_waiting(waiting(&it, &looked)).await?;
                    return Ok(again);
                }
                step => {
                    pass.steps += 1;
                    let waits = waiting(&it, &looked);
                    if let Went::Rest(again) = Box::pin(self.take(it, looked, step)).await? {
                        self.note_waiting(waits).await?;
                        return Ok(again);
                    }
                }
            }
        }
        let now = self.app.clock.now();
        Ok(if most < MOST_STEPS { now } else { begin::again_at(0, now) })
    }

    /// Read it and what belongs to it, if this pass still has it.
    async fn look(&self, now: Timestamp) -> anyhow::Result<Option<(Migration, Looked)>> {
        let mut tx = self.app.db.begin().await?;
        let held = store::CLAIMS.keep(&mut tx, self.id, self.claim, now.after(CLAIM)).await?;
        let Some(it) = store::get(&mut tx, self.id).await?.filter(|_| held) else {
            return Ok(None);
        };
        let workspace = workspaces::get(&mut tx, self.workspace).await?;
        let looked = look(&mut tx, &it, workspace, now).await?;
        tx.commit().await?;
        Ok(Some((it, looked)))
    }

    /// Begin to write down what a step came to, if this pass still has it: the workspace first, then the migration.
    pub(super) async fn begin(&self) -> anyhow::Result<(Work<'a>, Option<Workspace>, Migration)> {
        let mut work = Work::begin(self.app).await?;
        let workspace = workspaces::lock(&mut work.tx, self.workspace).await?;
        let until = work.now.after(CLAIM);
        let held = store::CLAIMS.keep(&mut work.tx, self.id, self.claim, until).await?;
        ensure!(held, "another pass took over");
        let it = store::get(&mut work.tx, self.id).await?.context("the migration is gone")?;
        Ok((work, workspace, it))
    }

    /// Write back what a step changed.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&mut Migration, Timestamp),
    ) -> anyhow::Result<Went> {
        let (mut work, _, mut it) = self.begin().await?;
        change(&mut it, work.now);
        (it.failures, it.last_error, it.next_attempt_at) = (0, None, None);
        store::save(&mut work.tx, &it).await?;
        work.commit().await?;
        Ok(Went::On)
    }

    async fn note_waiting(&self, what: Option<String>) -> anyhow::Result<()> {
        let Some(what) = what else { return Ok(()) };
        let mut tx = self.app.db.begin().await?;
        store::note_waiting(&mut tx, self.id, &what).await?;
        Ok(tx.commit().await?)
    }

    /// Do something that may take long, as long as it is still wanted. `None`: it is not, and was broken off.
    pub(super) async fn wanted<T>(
        &self,
        it: &Migration,
        doing: impl Future<Output = T>,
    ) -> Option<T> {
        let ends = async {
            loop {
                self.app.clock.tick(STILL_WANTED).await;
                match self.still_wanted(it).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(cause) => {
                        tracing::debug!(error = %cause, "whether a step is still wanted is not known");
                    }
                }
            }
        };
        tokio::select! {
            done = doing => Some(done),
            () = ends => None,
            () = self.app.stop.cancelled() => None,
        }
    }

    async fn still_wanted(&self, it: &Migration) -> Result<bool, sqlx::Error> {
        let mut tx = self.app.db.read().await?;
        let latest = store::get(&mut tx, self.id).await?;
        let workspace = workspaces::get(&mut tx, self.workspace).await?;
        let in_time = self.app.clock.now() < it.deadline;
        let stands = latest.is_some_and(|it| it.wish != Wish::Abort);
        let runs = workspace
            .is_some_and(|w| w.intent == Intent::Running && w.identity.candidate == it.target);
        Ok(in_time && stands && runs)
    }
}

/// As the decision looks at it: of a workspace that is deleted nothing waits, neither for a grace nor for a person.
fn decided(it: &Migration, looked: &Looked) -> ligand_domain::migration::Migration {
    let decided = it.decided();
    match looked.facts.intent {
        Intent::Removed if decided.wish == Wish::Pause => {
            ligand_domain::migration::Migration { grace: Duration::ZERO, wish: Wish::Go, ..decided }
        }
        Intent::Removed => ligand_domain::migration::Migration { grace: Duration::ZERO, ..decided },
        Intent::Running | Intent::Paused | Intent::Hibernated => decided,
    }
}

/// What it waits for, for people, where that is not what was written down already.
fn waiting(it: &Migration, looked: &Looked) -> Option<String> {
    let Stage::Before(phase) = it.stage else { return None };
    let what = match (it.wish, &it.lacks) {
        (Wish::Pause, _) if phase.pauses() => "a person to resume it".to_owned(),
        (_, Some(lacks)) if phase == Before::Activate => format!("the target, which {lacks}"),
        _ => waits_for(&it.decided(), phase, &looked.facts),
    };
    Some(what).filter(|what| it.waits_for.as_ref() != Some(what))
}
