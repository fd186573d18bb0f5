//! Drains: every workspace leaves a backend, so many at a time.
//!
//! Which workspaces those are is written down when it is asked for; each has a row that ends as migrated, or with the
//! reason why it stayed. A pass looks at what became of those on their way, and begins as many as there is room for.
//! Whoever has been cut over makes room at once: that its source goes its grace is no work. The drain is done when the
//! last source is gone.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::id::WorkspaceId;
use ligand_domain::migration::{Outcome, Stage, Wish};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::begin::{self, Asked};
use super::store;
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::Work;
use crate::reconcile::{Pass, Reconciler, new_claim};
use crate::workspaces;

/// A claim lasts this long.
const CLAIM: Duration = Duration::from_secs(30);
/// How often it looks at those on their way, besides when one is over.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How soon one that failed to look does so again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// What is said of those whose turn did not come.
const NO_TURN: &str = "the drain was aborted before its turn";

/// Where a drain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// Nothing further is begun, as somebody asked for.
    Paused,
    /// Nothing further is begun: too many were rolled back.
    Stopped,
    Aborted,
    Done,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Aborted => "aborted",
            Self::Done => "done",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Running, Self::Paused, Self::Stopped, Self::Aborted, Self::Done];
        all.into_iter().find(|it| it.as_str() == text)
    }
}

/// Where one of its workspaces stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Open,
    /// It is there; its source is kept for its grace yet.
    Moved,
    /// The same, and nothing of it is left here.
    Migrated,
    /// It was rolled back.
    Failed,
    /// Its migration could not be begun.
    Kept,
}

impl Standing {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Moved => "moved",
            Self::Migrated => "migrated",
            Self::Failed => "failed",
            Self::Kept => "kept",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let before = [Self::Waiting, Self::Open, Self::Moved];
        let mut all = before.into_iter().chain([Self::Migrated, Self::Failed, Self::Kept]);
        all.find(|it| it.as_str() == text)
    }
}

/// A drain as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drain {
    pub(super) id: Uuid,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) concurrency: i64,
    pub(super) stop_after: i64,
    /// How long each source is kept; `None`: as the settings say.
    pub(super) grace: Option<Duration>,
    /// Failures that a person has seen, and went on all the same.
    pub(super) forgiven: i64,
    pub(super) state: State,
    pub(super) cause: Option<String>,
    pub(super) asked_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
}

/// A workspace that is to leave.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) workspace: WorkspaceId,
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) migration: Option<Uuid>,
    pub(super) cause: Option<String>,
}

/// Write one down, with everything that is on the backend now.
///
/// # Errors
/// 409 where the backend is being drained already; 503.
pub(super) async fn begin(app: &App, new: Drain) -> Result<(Drain, Vec<Member>)> {
    let mut work = Work::begin(app).await?;
    let new = Drain { asked_at: work.now, ..new };
    if !store::drains::insert(&mut work.tx, &new).await? {
        let why = format!("a drain of {} is under way already", new.from);
        return Err(begin::conflict("backend cannot be drained", why));
    }
    let placed = workspaces::placed_on(&mut work.tx, &new.from).await?;
    for (number, (workspace, name)) in (1..).zip(&placed) {
        store::drains::insert_member(&mut work.tx, new.id, number, (*workspace, name)).await?;
    }
    let members = store::drains::members(&mut work.tx, new.id).await?;
    work.commit().await?;
    app.bells.ring();
    Ok((new, members))
}

/// What a person can ask of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Pause,
    Resume,
    /// Nothing further is begun, and what can still be undone is.
    Abort,
}

/// Write down what a person wants of a drain.
///
/// # Errors
/// 404; 409 where it cannot be; 503.
pub(super) async fn want(app: &App, id: Uuid, ask: Ask) -> Result<(Drain, Vec<Member>)> {
    let mut work = Work::begin(app).await?;
    // Written first: whoever else would change it waits here.
    store::drains::wake(&mut work.tx, id, work.now).await?;
    let found = store::drains::get(&mut work.tx, id).await?;
    let mut it = found.ok_or_else(|| Error::not_found("drain not found"))?;
    let members = store::drains::members(&mut work.tx, id).await?;
    it.state = match (ask, it.state) {
        (_, State::Done | State::Aborted) => {
            return Err(begin::conflict("drain is over", format!("it is {}", it.state.as_str())));
        }
        (Ask::Pause, State::Running) => State::Paused,
        (Ask::Pause, State::Paused | State::Stopped) => {
            return Err(begin::conflict("drain cannot be paused", "it begins nothing as it is"));
        }
        (Ask::Resume, State::Paused | State::Stopped) => {
            (it.forgiven, it.cause) = (failures(&members), None);
            State::Running
        }
        (Ask::Resume, State::Running) => {
            return Err(begin::conflict("drain cannot be resumed", "it is not paused"));
        }
        (Ask::Abort, State::Running | State::Paused | State::Stopped) => {
            it.cause = Some("it was aborted".to_owned());
            State::Aborted
        }
    };
    store::drains::save(&mut work.tx, &it).await?;
    work.commit().await?;
    app.bells.ring();
    Ok((it, members))
}

fn failures(members: &[Member]) -> i64 {
    let failed = members.iter().filter(|member| member.standing == Standing::Failed).count();
    i64::try_from(failed).unwrap_or(i64::MAX)
}

/// See the module.
pub struct DrainReconciler;

impl Reconciler for DrainReconciler {
    fn name(&self) -> &'static str {
        "drains"
    }

    fn does(&self) -> &'static str {
        "begins the migrations of workspaces whose backend is drained"
    }

    fn workers(&self) -> usize {
        1
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(store::drains::next_due(&mut app.db.read().await?).await?) }.boxed()
    }
}

async fn pass(app: &App) -> anyhow::Result<Pass> {
    let now = app.clock.now();
    let claim = new_claim(app);
    let mut tx = app.db.begin().await?;
    let found = store::drains::CLAIMS.take::<(Uuid,)>(&mut tx, claim, now, now.after(CLAIM)).await;
    let Some((id,)) = found.context("claim a drain")? else { return Ok(Pass::default()) };
    tx.commit().await?;
    let mut pass = Pass { looked_at: 1, ..Pass::default() };
    let draining = Draining { app, id, claim };
    let again = match draining.on(&mut pass).await {
        Ok(again) => again,
        Err(cause) => {
            pass.failed = Some(format!("drain {id}: {cause:#}"));
            app.clock.now().after(AFTER_FAILURE)
        }
    };
    let mut tx = app.db.begin().await?;
    store::drains::CLAIMS.give_back(&mut tx, id, claim, again).await?;
    tx.commit().await?;
    Ok(pass)
}

/// What was found about one on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// It goes on.
    Nothing,
    /// It fails, but is not back yet.
    Undoing,
    /// What it stands for is new.
    News,
}

struct Draining<'a> {
    app: &'a App,
    id: Uuid,
    claim: Uuid,
}

impl Draining<'_> {
    async fn on(&self, pass: &mut Pass) -> anyhow::Result<Timestamp> {
        let mut tx = self.app.db.read().await?;
        let it = store::drains::get(&mut tx, self.id).await?.context("the drain is gone")?;
        let mut members = store::drains::members(&mut tx, self.id).await?;
        drop(tx);
        let under_way =
            |member: &&mut Member| matches!(member.standing, Standing::Open | Standing::Moved);
        let mut undoing = 0;
        for member in members.iter_mut().filter(under_way) {
            let met = self.follow(&it, member).await?;
            pass.steps += u64::from(met == Met::News);
            undoing += i64::from(met == Met::Undoing);
        }
        let mut open = members.iter().filter(|member| member.standing == Standing::Open).count();
        let failed = failures(&members) - it.forgiven;
        let too_many = |failed: i64| it.stop_after > 0 && failed >= it.stop_after;
        let stops = too_many(failed);
        // One that is being undone has failed, though what it stops is said only once it is back.
        let waits = too_many(failed + undoing);
        let room = usize::try_from(it.concurrency).unwrap_or(usize::MAX);
        for member in members.iter_mut().filter(|member| member.standing == Standing::Waiting) {
            match it.state {
                State::Running if waits || open >= room => break,
                State::Running => {
                    pass.steps += u64::from(self.send(&it, member).await?);
                    open += usize::from(member.standing == Standing::Open);
                }
                State::Aborted => {
                    member.standing = Standing::Kept;
                    member.cause = Some(NO_TURN.to_owned());
                    self.save(member).await?;
                }
                State::Paused | State::Stopped | State::Done => break,
            }
        }
        self.settle(&members, stops.then_some(failed)).await
    }

    /// What became of one on its way.
    async fn follow(&self, it: &Drain, member: &mut Member) -> anyhow::Result<Met> {
        let Some(id) = member.migration else { return Ok(Met::Nothing) };
        let migration = store::get(&mut self.app.db.read().await?, id).await?;
        let Some(migration) = migration else {
            // It went with its workspace.
            member.standing = Standing::Migrated;
            self.save(member).await?;
            return Ok(Met::News);
        };
        if it.state == State::Aborted
            && begin::can_abort(&migration)
            && migration.wish != Wish::Abort
        {
            let mut work = Work::begin(self.app).await?;
            workspaces::lock(&mut work.tx, member.workspace).await?;
            if let Some(latest) = store::get(&mut work.tx, id).await?.filter(begin::can_abort) {
                begin::write(&mut work, latest, Wish::Abort).await?;
            }
            work.commit().await?;
            self.app.bells.ring();
            return Ok(Met::News);
        }
        match migration.stage {
            Stage::After(_) if member.standing == Standing::Open => {
                member.standing = Standing::Moved;
            }
            Stage::Over(Outcome::Migrated) => member.standing = Standing::Migrated,
            Stage::Over(Outcome::RolledBack) => {
                member.standing = Standing::Failed;
                member.cause.clone_from(&migration.cause);
            }
            Stage::Undoing => return Ok(Met::Undoing),
            Stage::Before(_) | Stage::After(_) => return Ok(Met::Nothing),
        }
        self.save(member).await?;
        Ok(Met::News)
    }

    /// Send one on its way. Gives whether anything became of it.
    async fn send(&self, it: &Drain, member: &mut Member) -> anyhow::Result<bool> {
        let mut work = Work::begin(self.app).await?;
        let reason = format!("drain of {}", it.from);
        let drain = Some(it.id);
        let asked = Asked { to: &it.to, grace: it.grace, reason: Some(&reason), drain };
        let found = workspaces::lock(&mut work.tx, member.workspace).await?;
        if found.is_none_or(|found| found.backend.as_deref() != Some(it.from.as_str())) {
            // Moved, or deleted and purged, by somebody else.
            member.standing = Standing::Migrated;
        } else if store::open_of(&mut work.tx, member.workspace).await?.is_some() {
            // Somebody else's: that one ends first.
            return Ok(false);
        } else {
            match begin::begin(self.app, &mut work, member.workspace, &asked).await {
                Ok(migration) => {
                    (member.standing, member.migration) = (Standing::Open, Some(migration.id));
                }
                Err(refused @ Error::Refused(..)) => {
                    let (_, body) = refused.told();
                    member.standing = Standing::Kept;
                    member.cause = Some(body.detail.unwrap_or(body.error));
                }
                Err(other) => anyhow::bail!(other.told().1.error),
            }
        }
        store::drains::save_member(&mut work.tx, self.id, member).await?;
        work.commit().await?;
        self.app.bells.ring();
        Ok(true)
    }

    async fn save(&self, member: &Member) -> anyhow::Result<()> {
        let mut tx = self.app.db.begin().await?;
        store::drains::save_member(&mut tx, self.id, member).await?;
        Ok(tx.commit().await?)
    }

    /// Write down where the whole stands. `stops`: so many failed that nothing further is begun.
    async fn settle(&self, members: &[Member], stops: Option<i64>) -> anyhow::Result<Timestamp> {
        let mut work = Work::begin(self.app).await?;
        let now = work.now;
        let until = now.after(CLAIM);
        let held = store::drains::CLAIMS.keep(&mut work.tx, self.id, self.claim, until).await?;
        ensure!(held, "another pass took over");
        let found = store::drains::get(&mut work.tx, self.id).await?;
        let mut it = found.context("the drain is gone")?;
        let with = |standing| members.iter().any(|member| member.standing == standing);
        let open = with(Standing::Open) || with(Standing::Moved);
        let waiting = with(Standing::Waiting);
        if let (State::Running, Some(failed), true) = (it.state, stops, waiting) {
            it.state = State::Stopped;
            it.cause = Some(format!("{failed} were rolled back; nothing further is begun"));
        }
        if !open && !waiting && it.state != State::Aborted {
            it.state = State::Done;
        }
        let over = !open && !waiting;
        it.ended_at = over.then_some(now);
        store::drains::save(&mut work.tx, &it).await?;
        work.commit().await?;
        Ok(if over { Timestamp::NEVER } else { now.after(LOOK_AGAIN) })
    }
}
