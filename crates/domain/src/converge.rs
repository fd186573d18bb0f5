//! The next step that brings a workspace in line with its intent.
//!
//! [`next`] is level-triggered: it looks at facts, never at what was done before. Taking its step and
//! asking again always ends, either in [`Step::Rest`] or with the backend to wait for. Any step may be
//! taken twice.

use std::time::Duration;

use crate::id::Generation;
use crate::instance::{Exit, Instance, Seen};
use crate::time::Timestamp;
use crate::workspace::{Intent, Status};

/// A start that has not registered after this long is given up (the contract's provision timeout).
pub const START_DEADLINE: Duration = Duration::from_secs(600);
/// How soon a backend that could not answer is asked again.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a silent instance that its backend still reports running is waited for before it is replaced.
pub const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(60);

/// The workspace, as far as the decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// What a user asked for.
    pub intent: Intent,
    /// What was last observed.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Whether a backend runs its instances. External workspaces are only watched.
    pub managed: bool,
    /// The generation that counts now.
    pub current: Generation,
    /// The newest generation that was planned.
    pub newest: Generation,
    /// Whether a restart was asked for that no instance has loaded yet.
    pub restart_due: bool,
    /// Nothing is started before this.
    pub next_attempt_at: Option<Timestamp>,
}

/// Why a new generation is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// There was none yet.
    First,
    /// Someone asked for a restart, or changed what an instance has loaded.
    Restart,
    /// The last one is gone, or its start was given up.
    Replace,
    /// It has been silent for too long while its backend says that it runs.
    Unreachable,
}

impl Cause {
    /// As the journal and `ligand why` say it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::First => "first start",
            Self::Restart => "restart requested",
            Self::Replace => "replacement of the last instance",
            Self::Unreachable => "silent for too long",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing; look again at this time, or when woken.
    Rest(Option<Timestamp>),
    /// Raise the generation and commit its credential.
    Plan(Cause),
    /// End every older instance, then ask the backend for this one.
    Start(Generation),
    /// Note that the current instance ended.
    Lost(Generation, Exit),
    /// End a start that will not succeed: its credential lapses, and it is never admitted again.
    GiveUp(Generation, String),
    /// Note that the current instance is silent.
    Silent(Generation),
    /// Stop an instance that should not be, and destroy it.
    Retire(Generation),
}

/// Decide. `instances` are those that have not ended, in any order.
#[must_use]
pub fn next(workspace: &Workspace, instances: &[Instance], now: Timestamp) -> Step {
    match workspace.intent {
        Intent::Running => running(workspace, instances, now),
        // Newest first: what could still become the writer goes before what already lost.
        Intent::Paused | Intent::Hibernated | Intent::Removed => {
            let last = instances.iter().map(|instance| instance.generation).max();
            last.map_or(Step::Rest(None), Step::Retire)
        }
    }
}

fn running(workspace: &Workspace, instances: &[Instance], now: Timestamp) -> Step {
    let of = |generation| instances.iter().find(|i: &&Instance| i.generation == generation);
    if let Some(older) = instances.iter().find(|i| i.generation < workspace.current) {
        return Step::Retire(older.generation);
    }
    if !workspace.managed {
        return of(workspace.current).map_or(Step::Rest(None), |i| watch(workspace, i, now));
    }
    if workspace.newest > workspace.current {
        return match of(workspace.newest) {
            Some(newest) => bring_up(workspace, newest, now),
            None => plan(workspace, Cause::Replace, now),
        };
    }
    match of(workspace.current) {
        None if workspace.newest == Generation::NONE => plan(workspace, Cause::First, now),
        None if workspace.restart_due => plan(workspace, Cause::Restart, now),
        None => plan(workspace, Cause::Replace, now),
        // A person's restart is not held up by what the backend says of the old instance.
        Some(_) if workspace.restart_due => Step::Plan(Cause::Restart),
        Some(current) => match &current.seen {
            Seen::Stopped(exit) => Step::Lost(current.generation, exit.clone()),
            Seen::Gone => Step::Lost(current.generation, Exit::default()),
            Seen::Running | Seen::Unknown(_) => watch(workspace, current, now),
        },
    }
}

fn plan(workspace: &Workspace, cause: Cause, now: Timestamp) -> Step {
    match workspace.next_attempt_at {
        Some(at) if at > now => Step::Rest(Some(at)),
        _ => Step::Plan(cause),
    }
}

/// A newer generation is on its way.
fn bring_up(workspace: &Workspace, newest: &Instance, now: Timestamp) -> Step {
    let Some(started_at) = newest.started_at else {
        return match workspace.next_attempt_at {
            Some(at) if at > now => Step::Rest(Some(at)),
            _ => Step::Start(newest.generation),
        };
    };
    let deadline = started_at.after(START_DEADLINE);
    match &newest.seen {
        Seen::Stopped(exit) => {
            Step::GiveUp(newest.generation, format!("the instance {exit} before it registered"))
        }
        Seen::Gone => Step::GiveUp(
            newest.generation,
            "the instance disappeared before it registered".to_owned(),
        ),
        Seen::Running if now >= deadline => Step::GiveUp(
            newest.generation,
            format!("the instance did not register within {} s", START_DEADLINE.as_secs()),
        ),
        Seen::Running => Step::Rest(Some(deadline)),
        Seen::Unknown(_) => Step::Rest(Some(now.after(ASK_AGAIN))),
    }
}

/// The current instance is there, as far as anybody knows.
fn watch(workspace: &Workspace, current: &Instance, now: Timestamp) -> Step {
    if now < current.lease_until {
        return Step::Rest(Some(current.lease_until));
    }
    // An unknown answer is no evidence: the instance is noted as silent, and never replaced for it.
    if workspace.status.serves() {
        return Step::Silent(current.generation);
    }
    let replaceable = workspace.managed && current.seen == Seen::Running;
    let patience_ends = workspace.since.after(UNREACHABLE_PATIENCE);
    if !replaceable {
        let asks = workspace.managed.then(|| now.after(ASK_AGAIN));
        return Step::Rest(asks);
    }
    if workspace.status == Status::Offline && now < patience_ends {
        return Step::Rest(Some(patience_ends));
    }
    plan(workspace, Cause::Unreachable, now)
}
