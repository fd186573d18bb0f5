//! Taking a workspace from one backend to another: the next step.
//!
//! [`next`] is level-triggered, as everything here: it looks at the stage and at facts, and gives one step. A step
//! may be taken twice. Up to the cut-over a migration is [`Stage::Before`], and everything in there can be undone.
//! The cut-over is one transaction; what follows is [`Stage::After`], for which no step exists that leads back.
//!
//! ```text
//! prepare  provision  pre-copy  hold  quiesce  restore  activate  probe  cut over || release  retire
//!    |________________________ undoing __________________________________|
//! ```

mod stage;

use std::fmt;
use std::time::Duration;

pub use self::stage::{After, Before, Outcome, Stage};
use crate::guards::{Guard, Guards};
use crate::id::Generation;
use crate::instance::Seen;
use crate::time::Timestamp;
use crate::workspace::Intent;

/// What a person wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Wish {
    /// That it goes on.
    #[default]
    Go,
    /// That it rests, where it can.
    Pause,
    /// That it is undone, where it can be.
    Abort,
}

/// What a migration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Where it stands.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
    /// When this phase is given up.
    pub deadline: Timestamp,
    /// What a person wants.
    pub wish: Wish,
    /// The generation that it leaves.
    pub source: Generation,
    /// The one that it brings up, once it is prepared.
    pub candidate: Option<Generation>,
    /// How long the source is kept after the cut-over.
    pub grace: Duration,
    /// After a failure nothing is tried before this.
    pub next_attempt_at: Option<Timestamp>,
}

/// What an agent's program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Program {
    /// Nobody said so.
    #[default]
    Unknown,
    /// It does not run, and waits to be told to.
    StandsBy,
    /// It runs, with secrets that were fetched for this serial.
    Runs(i64),
}

/// What is known of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What its backend says.
    pub seen: Seen,
    /// Whether its agent can stand by; otherwise its instance is stopped instead.
    pub stands_by: bool,
    /// What its program does. [`Program::StandsBy`] only where it has done nothing else since the last copy of its
    /// data was begun.
    pub program: Program,
    /// Its instance was stopped by this migration, or its end was noted.
    pub ended: bool,
    /// It was destroyed, and its data with it.
    pub gone: bool,
}

/// What is known of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What its backend says; `None` before it was asked for one.
    pub seen: Option<Seen>,
    /// Its backend confirmed the start.
    pub started: bool,
    /// Its agent registered, as exactly this candidate.
    pub registered: bool,
    /// A credential of its generation is active.
    pub active: bool,
    /// What its program does.
    pub program: Program,
    /// Its program holds the secrets that are stored now.
    pub proved: bool,
    /// It was destroyed, and its data with it.
    pub gone: bool,
}

/// How far its data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Data {
    /// A first copy was made while the source served.
    pub copied: bool,
    /// The last copy was made, after the source stood by.
    pub complete: bool,
    /// The target has it, under its digest.
    pub restored: bool,
}

/// How the probe went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Probe {
    /// It has not been made, or not since the program started.
    #[default]
    None,
    /// A turn was completed, by the program that was started for this serial.
    Completed(i64),
    /// It failed, for this reason.
    Failed(String),
}

/// Everything the decision looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What a user wants of the workspace.
    pub intent: Intent,
    /// The generation that counts.
    pub current: Generation,
    /// The newest one.
    pub newest: Generation,
    /// The workspace's candidate.
    pub candidate: Option<Generation>,
    /// A start is under way, or one is due: it goes first.
    pub in_flight: bool,
    /// The workspace serves.
    pub serves: bool,
    /// Restarts that were asked for so far. What the target loads must be as new.
    pub serial: i64,
    /// The source.
    pub source: Source,
    /// The target.
    pub target: Target,
    /// The data.
    pub data: Data,
    /// Messages wait.
    pub held: bool,
    /// Turns that are being delivered.
    pub turns: i64,
    /// The probe.
    pub probe: Probe,
}

/// Why a migration is undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A person said so.
    Aborted,
    /// The workspace is meant to be something else now.
    Intent(Intent),
    /// Its generations were changed by somebody else: a revocation, or a registration that nobody planned.
    Overtaken,
    /// The source ended by itself.
    SourceEnded(String),
    /// The source's program ran again after the last copy of its data.
    SourceRuns,
    /// The target ended before it became the workspace.
    TargetEnded(String),
    /// The target could not do what was asked, for this reason.
    Refused(String),
    /// A turn on the target failed.
    ProbeFailed(String),
    /// A phase took too long; what it waited for.
    Late(Before, String),
    /// What the cut-over looked at was not what it had to be.
    Evidence(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("it was aborted"),
            Self::Intent(intent) => write!(f, "the workspace is to be {}", intent.as_str()),
            Self::Overtaken => {
                f.write_str("its credentials were revoked, or somebody took the workspace up")
            }
            Self::SourceEnded(how) => write!(f, "the source ended: {how}"),
            Self::SourceRuns => {
                f.write_str("the source went on working after the last copy of its data")
            }
            Self::TargetEnded(how) => write!(f, "the target ended: {how}"),
            Self::Refused(why) => write!(f, "the target was refused: {why}"),
            Self::ProbeFailed(why) => write!(f, "the target did not complete a turn: {why}"),
            Self::Late(phase, what) => {
                write!(f, "{} took too long: {what}", Stage::Before(*phase).as_str())
            }
            Self::Evidence(what) => write!(f, "at the cut-over {what}"),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing; look again at this time, or when woken.
    Rest(Timestamp),
    /// The phase is done: begin the next one.
    Enter(Before),
    /// Raise the generation and commit the candidate's passport.
    Prepare,
    /// Ask the target's backend for the candidate.
    Start,
    /// Copy data from the source.
    Copy,
    /// Let messages wait.
    Hold,
    /// Tell the source to stand by.
    StandBy,
    /// Stop the source, which cannot stand by.
    StopSource,
    /// Copy what changed since, and close the copy.
    Complete,
    /// Put the copy in place of the target's data.
    Restore,
    /// Tell the target to run with secrets of this serial.
    Run(i64),
    /// Have the target do one turn.
    Probe,
    /// Look once more, and make the target the workspace.
    CutOver,
    /// End it, with everything that its candidate could prove itself with: one transaction.
    RollBack(Cause),
    /// Destroy the target, with its data.
    DestroyTarget,
    /// Tell the source to run again, let messages go on, and say that it is over.
    Resume,
    /// Let messages go on, to the target.
    Release,
    /// Destroy the source, with its data there.
    Retire,
    /// It is over.
    Finish,
}

/// How soon something that tells nobody is looked at again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Decide. Total: every combination has an answer.
#[must_use]
pub fn next(it: &Migration, facts: &Facts, now: Timestamp, guards: Guards) -> Step {
    match it.stage {
        Stage::Before(phase) => match undone_by(it, phase, facts, now) {
            Some(cause) => Step::RollBack(cause),
            None => forward(it, phase, facts, now, guards),
        },
        Stage::Undoing => undo(it, facts, now),
        Stage::After(After::Release) => Step::Release,
        Stage::After(After::Retire) => retire(it, facts, now),
        Stage::Over(_) => Step::Rest(Timestamp::NEVER),
    }
}

/// Why it cannot go on.
fn undone_by(it: &Migration, phase: Before, facts: &Facts, now: Timestamp) -> Option<Cause> {
    if it.wish == Wish::Abort {
        return Some(Cause::Aborted);
    }
    if facts.intent != Intent::Running {
        return Some(Cause::Intent(facts.intent));
    }
    if it.candidate.is_some() {
        let stands = facts.candidate == it.candidate && Some(facts.newest) == it.candidate;
        if !stands || facts.current != it.source {
            return Some(Cause::Overtaken);
        }
        if let (false, Some(how)) = (facts.source.ended, ended(&facts.source.seen)) {
            return Some(Cause::SourceEnded(how));
        }
    }
    // What it does now would be lost.
    if phase >= Before::Quiesce && facts.data.complete && !quiet(facts) {
        return Some(Cause::SourceRuns);
    }
    if let (true, Some(how)) = (facts.target.started, facts.target.seen.as_ref().and_then(ended)) {
        return Some(Cause::TargetEnded(how));
    }
    let paused = it.wish == Wish::Pause && phase.pauses();
    (now >= it.deadline && !paused).then(|| Cause::Late(phase, waits_for(it, phase, facts)))
}

fn ended(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Stopped(exit) => Some(exit.to_string()),
        Seen::Gone => Some("its backend does not have it".to_owned()),
        Seen::Running | Seen::Unknown(_) => None,
    }
}

/// What a phase waits for, for people.
#[must_use]
pub fn waits_for(it: &Migration, phase: Before, facts: &Facts) -> String {
    let said = match phase {
        Before::Prepare if facts.in_flight => "a start that is under way, or due",
        Before::Prepare if !facts.serves => "the workspace to be online",
        Before::Prepare => "its turn",
        Before::Provision if !facts.target.started => "the target's backend",
        Before::Provision => "the target to register",
        Before::PreCopy => "the first copy of the data",
        Before::Hold => return format!("{} turns in flight to end", facts.turns),
        Before::Quiesce if !quiet(facts) => "the source to stand by",
        Before::Quiesce => "the last copy of the data",
        Before::Restore => "the target to have the data",
        Before::Activate => match facts.target.program {
            Program::Runs(serial) if serial >= facts.serial => {
                "the target's program to prove that it holds its secrets"
            }
            Program::Runs(_) | Program::StandsBy | Program::Unknown => {
                "the target's program to start"
            }
        },
        Before::Probe => "a turn on the target",
        Before::CutOver => "its transaction",
    };
    match it.next_attempt_at {
        Some(at) => format!("{said}; the next attempt is at {at}"),
        None => said.to_owned(),
    }
}

/// Nothing changes the source's data any more.
fn quiet(facts: &Facts) -> bool {
    facts.source.ended || facts.source.program == Program::StandsBy
}

/// The target runs with what is stored now, and has shown it.
fn serves(facts: &Facts, guards: Guards) -> bool {
    let target = &facts.target;
    let runs = matches!(target.program, Program::Runs(serial) if serial >= facts.serial);
    runs && (target.proved || !guards.hold(Guard::Receipt))
}

fn forward(it: &Migration, phase: Before, facts: &Facts, now: Timestamp, guards: Guards) -> Step {
    let wait = Step::Rest(now.after(LOOK_AGAIN));
    if it.wish == Wish::Pause && phase.pauses() {
        return Step::Rest(now.after(Duration::from_secs(5)));
    }
    if let Some(at) = it.next_attempt_at.filter(|at| *at > now) {
        return Step::Rest(at);
    }
    let on = phase.next().map_or(Step::CutOver, Step::Enter);
    let (target, data) = (&facts.target, facts.data);
    match phase {
        Before::Prepare if it.candidate.is_some() => on,
        Before::Prepare if facts.in_flight || !facts.serves => wait,
        Before::Prepare => Step::Prepare,
        Before::Provision if !target.started => Step::Start,
        Before::Provision if target.registered && target.active => on,
        Before::Provision => wait,
        Before::PreCopy if data.copied => on,
        Before::PreCopy => Step::Copy,
        Before::Hold if !facts.held => Step::Hold,
        Before::Hold if facts.turns > 0 => wait,
        Before::Hold => on,
        Before::Quiesce if !facts.held => Step::Hold,
        Before::Quiesce if !quiet(facts) && !facts.source.stands_by => Step::StopSource,
        Before::Quiesce if !quiet(facts) => Step::StandBy,
        Before::Quiesce if !data.complete => Step::Complete,
        Before::Quiesce => on,
        Before::Restore if !data.restored => Step::Restore,
        Before::Restore => on,
        Before::Activate if serves(facts, guards) => on,
        Before::Activate => Step::Run(facts.serial),
        Before::Probe => match &facts.probe {
            // Its program was started anew since, or has to be.
            _ if !serves(facts, guards) => Step::Enter(Before::Activate),
            Probe::Completed(serial) if *serial >= facts.serial => on,
            _ if !guards.hold(Guard::CutOverEvidence) => on,
            Probe::Failed(why) => Step::RollBack(Cause::ProbeFailed(why.clone())),
            Probe::None | Probe::Completed(_) => Step::Probe,
        },
        // What was written since has to be loaded, and tried, first.
        Before::CutOver if !serves(facts, guards) && guards.hold(Guard::CutOverEvidence) => {
            Step::Enter(Before::Activate)
        }
        Before::CutOver => Step::CutOver,
    }
}

/// What the cut-over demands, of facts that its own transaction read. `Err` says what is not as it has to be.
///
/// # Errors
/// The first thing that is missing.
pub fn may_cut_over(it: &Migration, facts: &Facts, guards: Guards) -> Result<(), Cause> {
    let target = &facts.target;
    let stands = facts.current == it.source
        && Some(facts.newest) == it.candidate
        && facts.candidate == it.candidate
        && target.active
        && facts.intent == Intent::Running;
    if !stands && guards.hold(Guard::CutOverRereads) {
        return Err(match facts.intent {
            Intent::Running => Cause::Overtaken,
            other @ (Intent::Paused | Intent::Hibernated | Intent::Removed) => Cause::Intent(other),
        });
    }
    let probed = matches!(facts.probe, Probe::Completed(serial) if serial >= facts.serial);
    let lacks = [
        (!target.registered, "the target had not registered"),
        (!quiet(facts), "the source had not stood by since the last copy of its data"),
        (!facts.data.restored, "the target did not have the data"),
        (!serves(facts, guards), "the target had not proved that it holds its secrets"),
        (!probed, "the target had not completed a turn"),
    ];
    match lacks.into_iter().find(|(missing, _)| *missing) {
        Some((_, what)) if guards.hold(Guard::CutOverEvidence) => Err(Cause::Evidence(what)),
        _ => Ok(()),
    }
}

/// What the answer to a probe says: whether it has a result, the code of its error, and the state of its task, if it
/// is one. Nothing that the agent said is in the reason.
///
/// # Errors
/// Why it is no completed turn.
pub fn probed(result: bool, error: Option<i64>, state: Option<&str>) -> Result<(), String> {
    // Names of both versions of the protocol.
    const DONE: [&str; 4] =
        ["completed", "input-required", "TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED"];
    match (result, error, state) {
        (_, Some(code), _) => Err(format!("its answer is an error (code {code})")),
        (false, None, _) => Err("its answer has no result".to_owned()),
        (true, None, None) => Ok(()),
        (true, None, Some(state)) if DONE.contains(&state) => Ok(()),
        (true, None, Some(state)) => {
            let known = state.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            let state = if known && state.len() <= 32 { state } else { "unknown" };
            Err(format!("its task is {state}, not completed"))
        }
    }
}

/// The target goes first: it could act on what it was given. Where its backend does not answer, the source does
/// not wait for that; the target can prove itself with nothing.
fn undo(it: &Migration, facts: &Facts, now: Timestamp) -> Step {
    let source = &facts.source;
    // One that ended meanwhile is told nothing, and never says that it runs.
    let there = !source.ended && ended(&source.seen).is_none();
    let waits = facts.held || source.program == Program::StandsBy && there;
    if it.candidate.is_none() || facts.target.gone {
        return if waits { Step::Resume } else { Step::Finish };
    }
    match it.next_attempt_at {
        // Destroying it failed.
        Some(_) if waits => Step::Resume,
        Some(at) if at > now => Step::Rest(at),
        _ => Step::DestroyTarget,
    }
}

fn retire(it: &Migration, facts: &Facts, now: Timestamp) -> Step {
    if facts.source.gone {
        return Step::Finish;
    }
    let due = it.since.after(it.grace).max(it.next_attempt_at.unwrap_or(it.since));
    match it.wish {
        Wish::Pause => Step::Rest(now.after(Duration::from_secs(5))),
        Wish::Go | Wish::Abort if now < due => Step::Rest(due),
        Wish::Go | Wish::Abort => Step::Retire,
    }
}

#[cfg(test)]
mod tests;
