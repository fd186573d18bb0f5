//! The next step that brings a workspace in line with its intent.
//!
//! [`next`] is level-triggered: it looks at facts, never at what was done before. Taking its step and
//! asking again always ends, either in [`Step::Rest`] or with the backend to wait for. Any step may be
//! taken twice.

use std::time::Duration;

use crate::guards::{Guard, Guards};
use crate::id::Generation;
use crate::instance::{Exit, Instance, Seen};
use crate::time::Timestamp;
use crate::workspace::{Intent, Status};

/// A start that has not registered after this long is given up (the contract's provision timeout).
pub const START_DEADLINE: Duration = Duration::from_secs(600);
/// The same for the runtime that is known to take long.
pub const SLOW_START_DEADLINE: Duration = Duration::from_secs(1800);
/// Its name.
const SLOW_RUNTIME: &str = "hermes";
/// The longest start that a template can declare.
pub const LONGEST_DECLARED: Duration = Duration::from_secs(24 * 3600);
/// Within this time of a start no guess about the instance is acted on. It is counted, and left to a later
/// look.
pub const DEBOUNCE: Duration = Duration::from_secs(60);
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
    /// The newest generation that was planned, and not abandoned.
    pub newest: Generation,
    /// Whether a restart was asked for that no instance has loaded yet.
    pub restart_due: bool,
    /// Nothing is started before this.
    pub next_attempt_at: Option<Timestamp>,
    /// How long a start may take.
    pub start_deadline: Duration,
    /// Its silence was noted while its backend could not say whether it runs.
    pub unsure: bool,
    /// Its current instance registered without proof that it holds its secrets.
    pub unproven: bool,
    /// For one that serves without ever having been heard of: how long it is taken at its creator's word.
    pub unheard_until: Option<Timestamp>,
    /// A migration brings up its next generation, and looks after it meanwhile. Whatever falls due waits for that.
    pub migrating: bool,
}

/// How long a start of this runtime may take: what the operator says of all, else what its recipe says, else
/// what its templates declare, else what is known of it. A template is no operator: what it declares is bounded.
#[must_use]
pub fn start_deadline(
    runtime: &str,
    declared: Option<Duration>,
    recipe: Option<Duration>,
    operator: Option<Duration>,
) -> Duration {
    let known = if runtime == SLOW_RUNTIME { SLOW_START_DEADLINE } else { START_DEADLINE };
    let declared = declared.map(|declared| declared.min(LONGEST_DECLARED));
    operator.or(recipe).or(declared).unwrap_or(known)
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
    /// It has not proved in time that it holds its secrets.
    Unproven,
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
            Self::Unproven => "without its secrets for too long",
        }
    }
}

/// Why a start is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// It ended before it registered.
    Ended(Exit),
    /// Its backend lost it before it registered.
    Disappeared,
    /// It did not register within this time.
    Late(Duration),
}

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(exit) => write!(f, "the instance {exit} before it registered"),
            Self::Disappeared => f.write_str("the instance disappeared before it registered"),
            Self::Late(limit) => {
                write!(f, "the instance did not register within {} s", limit.as_secs())
            }
        }
    }
}

/// Whether a generation may be planned, under the lock of its workspace: a compare-and-set on the generations
/// (current, newest) that the plan was `decided` by, and on there being no start in flight. Two that decide by the
/// same facts plan once.
#[must_use]
pub fn may_plan(
    decided: (Generation, Generation),
    found: (Generation, Generation),
    in_flight: bool,
    guards: Guards,
) -> bool {
    decided == found && !in_flight || !guards.hold(Guard::SingleFlight)
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
    GiveUp(Generation, GivenUp),
    /// Note that the current instance is silent, though its backend says that it runs.
    Silent(Generation),
    /// Note that the current instance is silent, and that its backend cannot say whether it runs.
    Unsure(Generation),
    /// Take back [`Step::Unsure`]: it was heard again.
    Heard(Generation),
    /// Note that an agent which was said to be there was never heard of.
    Unheard,
    /// Stop an instance that should not be, and destroy it.
    Retire(Generation),
    /// Nothing of it runs any more, as was asked for: note that, with this status.
    Settle(Status),
}

/// Decide. `instances` are those that have not ended, in any order.
#[must_use]
pub fn next(workspace: &Workspace, instances: &[Instance], now: Timestamp) -> Step {
    match workspace.intent {
        Intent::Running => running(workspace, instances, now),
        Intent::Paused => resting(workspace, instances, Status::Paused),
        Intent::Hibernated => resting(workspace, instances, Status::Hibernated),
        Intent::Removed => ending(instances).map_or(Step::Rest(None), Step::Retire),
    }
}

/// Newest first: what could still become the writer goes before what already lost.
fn ending(instances: &[Instance]) -> Option<Generation> {
    instances.iter().map(|instance| instance.generation).max()
}

/// Nothing of it should run until somebody says so. What no backend runs goes on, where it runs: it comes back
/// under the same generation, so its instance is not ended.
fn resting(workspace: &Workspace, instances: &[Instance], rests_as: Status) -> Step {
    match ending(instances).filter(|_| workspace.managed) {
        Some(last) => Step::Retire(last),
        None if workspace.status != rests_as => Step::Settle(rests_as),
        None => Step::Rest(None),
    }
}

fn running(workspace: &Workspace, instances: &[Instance], now: Timestamp) -> Step {
    if workspace.migrating {
        return Step::Rest(None);
    }
    let of = |generation| instances.iter().find(|i: &&Instance| i.generation == generation);
    if let Some(older) = instances.iter().find(|i| i.generation < workspace.current) {
        return Step::Retire(older.generation);
    }
    if !workspace.managed {
        let unheard = || match workspace.unheard_until.filter(|_| workspace.status.serves()) {
            Some(until) if now >= until => Step::Unheard,
            until => Step::Rest(until),
        };
        return of(workspace.current).map_or_else(unheard, |i| watch(workspace, i, now));
    }
    if workspace.newest > workspace.current {
        return match of(workspace.newest) {
            Some(newest) => bring_up(workspace, newest, now),
            None if workspace.restart_due => plan(workspace, Cause::Restart, now),
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
            Seen::Running | Seen::Unknown(_) if workspace.unproven => {
                prove(workspace, current, now)
            }
            Seen::Running | Seen::Unknown(_) => watch(workspace, current, now),
        },
    }
}

/// When an instance that registered without its secrets is replaced: after what a start may take.
#[must_use]
pub fn proof_deadline(started_at: Option<Timestamp>, start_deadline: Duration) -> Timestamp {
    started_at.map_or(Timestamp::EPOCH, |at| at.after(start_deadline))
}

/// The current instance is there and holds other secrets than it was given. It never serves like that; another
/// one may.
fn prove(workspace: &Workspace, current: &Instance, now: Timestamp) -> Step {
    let deadline = proof_deadline(current.started_at, workspace.start_deadline);
    if now >= deadline {
        return plan(workspace, Cause::Unproven, now);
    }
    let step = watch(workspace, current, now);
    if let Step::Rest(again) = step {
        return Step::Rest(Some(again.map_or(deadline, |at| at.min(deadline))));
    }
    step
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
    let deadline = started_at.after(workspace.start_deadline);
    let give_up = |why| Step::GiveUp(newest.generation, why);
    match &newest.seen {
        Seen::Stopped(exit) => give_up(GivenUp::Ended(exit.clone())),
        Seen::Gone => give_up(GivenUp::Disappeared),
        Seen::Running if now >= deadline => give_up(GivenUp::Late(workspace.start_deadline)),
        Seen::Running => Step::Rest(Some(deadline)),
        Seen::Unknown(_) => Step::Rest(Some(now.after(ASK_AGAIN))),
    }
}

/// The current instance is there, as far as anybody knows.
fn watch(workspace: &Workspace, current: &Instance, now: Timestamp) -> Step {
    if now < current.lease_until {
        return match workspace.unsure {
            true => Step::Heard(current.generation),
            false => Step::Rest(Some(current.lease_until)),
        };
    }
    let serves = workspace.status.serves();
    if !workspace.managed {
        // Nobody can be asked: that it is awaited is all there is to say.
        return if serves { Step::Silent(current.generation) } else { Step::Rest(None) };
    }
    if current.seen != Seen::Running {
        // An unknown answer is no evidence of anything: it is told as that, and nothing is done.
        return match serves && !workspace.unsure {
            true => Step::Unsure(current.generation),
            false => Step::Rest(Some(now.after(ASK_AGAIN))),
        };
    }
    if serves {
        return Step::Silent(current.generation);
    }
    // Silence is a guess: it takes patience, and never less than the debounce.
    let settles = current.started_at.map_or(Timestamp::EPOCH, |at| at.after(DEBOUNCE));
    let patience_ends = match workspace.status {
        Status::Offline => workspace.since.after(UNREACHABLE_PATIENCE).max(settles),
        Status::Provisioning
        | Status::Online
        | Status::Degraded
        | Status::Failed
        | Status::Removed
        | Status::Paused
        | Status::Hibernated
        | Status::Hibernating
        | Status::AwaitingAgent => settles,
    };
    if now < patience_ends {
        return Step::Rest(Some(patience_ends));
    }
    plan(workspace, Cause::Unreachable, now)
}
