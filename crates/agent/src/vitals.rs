//! How the agent is doing: what its parts note and its heartbeats report.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::machine;

/// Turns over which the error rate is taken.
const TURNS: usize = 20;
/// An error older than this no longer says how the agent is.
const RECENT: Duration = Duration::from_secs(300);
/// Characters of an error that are reported.
const LONGEST_TEXT: usize = 300;

/// The program beside the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// There is none: the agent answers turns itself.
    None,
    /// Started, and not yet listening.
    Starting,
    /// It accepts connections on this port of the loopback interface.
    Running(u16),
    /// Ended, and waiting for its next start.
    Down,
    /// It is about to stand by, or to be started anew: no turn begins.
    Stopping,
    /// It does not run, because it is not to.
    StandingBy,
}

impl Program {
    /// The word in `GET /health`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Starting => "starting",
            Self::Running(_) => "running",
            Self::Down => "down",
            Self::Stopping => "stopping",
            Self::StandingBy => "standing-by",
        }
    }

    /// Whether turns are kept away until somebody says otherwise.
    pub(crate) fn stands_by(self) -> bool {
        matches!(self, Self::Stopping | Self::StandingBy)
    }
}

/// What heartbeats report.
#[derive(Debug)]
pub(crate) struct Vitals {
    started: Instant,
    active: AtomicI64,
    /// The latest turns; true is one that failed.
    turns: Mutex<VecDeque<bool>>,
    error: Mutex<Option<(Instant, String)>>,
    /// What the program does, and which order it follows.
    program: watch::Sender<(Program, u64)>,
}

impl Vitals {
    pub(crate) fn new(program: Program) -> Arc<Self> {
        Arc::new(Self {
            started: machine::now(),
            active: AtomicI64::new(0),
            turns: Mutex::default(),
            error: Mutex::default(),
            program: watch::Sender::new((program, 0)),
        })
    }

    /// A turn begins; it ends with the value.
    pub(crate) fn begin_turn(self: &Arc<Self>) -> Turn {
        self.active.fetch_add(1, Ordering::Relaxed);
        Turn { vitals: Arc::clone(self) }
    }

    /// Something went wrong that a person may want to know.
    pub(crate) fn note_error(&self, text: &str) {
        *locked(&self.error) = Some((machine::now(), legible(text)));
    }

    pub(crate) fn set_program(&self, state: Program) {
        self.program.send_modify(|(program, _)| *program = state);
    }

    /// This order is followed from now on.
    pub(crate) fn take_up(&self, nth: u64) {
        self.program.send_modify(|(_, following)| *following = nth);
    }

    pub(crate) fn program(&self) -> Program {
        self.program.borrow().0
    }

    /// What the program does, and which order it follows.
    pub(crate) fn doing(&self) -> (Program, u64) {
        *self.program.borrow()
    }

    /// Changes of that, from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<(Program, u64)> {
        self.program.subscribe()
    }

    /// Returns when turns can be answered, or are not to be yet.
    pub(crate) async fn reachable(&self) {
        let ready = |state: &(Program, u64)| {
            matches!(state.0, Program::None | Program::Running(_) | Program::StandingBy)
        };
        let mut changes = self.program.subscribe();
        changes.wait_for(ready).await.expect("the sender lives as long as `self`");
    }

    pub(crate) fn active_turns(&self) -> i64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Share of the latest turns that failed, 0..1.
    pub(crate) fn error_rate(&self) -> f64 {
        let turns = locked(&self.turns);
        let failed = turns.iter().filter(|failed| **failed).count();
        // At most `TURNS` of each: exact in any float.
        if turns.is_empty() { 0.0 } else { failed as f64 / turns.len() as f64 }
    }

    /// The latest error, while it is recent; else empty.
    pub(crate) fn sample_error(&self) -> String {
        let recent = |at: Instant| machine::now().saturating_duration_since(at) < RECENT;
        match &*locked(&self.error) {
            Some((at, text)) if recent(*at) => text.clone(),
            _ => String::new(),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        machine::now().saturating_duration_since(self.started)
    }
}

/// A turn in flight. Dropped without an outcome (the caller went away) it counts as neither.
#[derive(Debug)]
pub(crate) struct Turn {
    vitals: Arc<Vitals>,
}

impl Turn {
    pub(crate) fn end(self, failed: bool) {
        let mut turns = locked(&self.vitals.turns);
        turns.push_back(failed);
        if turns.len() > TURNS {
            turns.pop_front();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.vitals.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A foreign text, fit for one line of a log: bounded, without control characters.
pub(crate) fn legible(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST_TEXT).collect()
}

/// The holder of these locks only moves values: after a panic elsewhere they are as good as before.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_count_while_in_flight_and_by_outcome() {
        let vitals = Vitals::new(Program::None);
        assert_eq!((vitals.active_turns(), vitals.error_rate()), (0, 0.0));
        let (one, two) = (vitals.begin_turn(), vitals.begin_turn());
        assert_eq!(vitals.active_turns(), 2);
        one.end(true);
        drop(two);
        assert_eq!((vitals.active_turns(), vitals.error_rate()), (0, 1.0));
        for _ in 0..TURNS {
            vitals.begin_turn().end(false);
        }
        assert_eq!(vitals.error_rate(), 0.0, "only the latest count");
        vitals.begin_turn().end(true);
        assert_eq!(vitals.error_rate(), 0.05);
    }

    #[test]
    fn the_latest_error_is_one_bounded_line() {
        let vitals = Vitals::new(Program::None);
        assert_eq!(vitals.sample_error(), "");
        vitals.note_error("first");
        vitals.note_error(&format!("second\n{}", "x".repeat(1_000)));
        let sample = vitals.sample_error();
        assert!(sample.starts_with("second x") && sample.len() == LONGEST_TEXT, "{sample}");
    }
}
