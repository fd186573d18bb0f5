//! What a drill saw, and what it makes of it.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use ligand_api::client;
use ligand_domain::time::Timestamp;
use serde::Serialize;

use crate::{clock, output};

/// How often what is awaited is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long something may take that a drill needs and does not judge.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Why a drill ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// A law does not hold; which, is recorded.
    Broken,
    /// The drill itself could not go on: that says nothing about any law.
    CannotRun(anyhow::Error),
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::CannotRun(error)
    }
}

impl From<client::Error> for Ended {
    fn from(error: client::Error) -> Self {
        Self::CannotRun(error.into())
    }
}

/// What a step of a drill gives.
pub(super) type Outcome<T = ()> = Result<T, Ended>;

/// Something that was done or seen.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    /// Seconds since the drill began.
    at: f64,
    what: String,
}

/// Something that had to hold.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    at: f64,
    /// What had to hold.
    must: String,
    holds: bool,
    /// What was seen.
    seen: String,
}

/// The record of one drill; tells it while it happens.
pub(super) struct Scene {
    begun: Timestamp,
    aloud: bool,
    steps: RefCell<Vec<Step>>,
    checks: RefCell<Vec<Check>>,
}

impl Scene {
    /// A drill begins. `aloud`: every line is printed at once.
    pub(super) fn begin(aloud: bool) -> Self {
        let (steps, checks) = (RefCell::default(), RefCell::default());
        Self { begun: clock::now(), aloud, steps, checks }
    }

    /// Seconds since it began.
    pub(super) fn seconds(&self) -> f64 {
        clock::now().since(self.begun).as_secs_f64()
    }

    /// Note something that was done or seen.
    pub(super) fn step(&self, what: impl Display) {
        let step = Step { at: self.seconds(), what: what.to_string() };
        self.tell(&format!("  {:6.2}s  {}", step.at, step.what));
        self.steps.borrow_mut().push(step);
    }

    /// Note whether something holds that must; what does not ends the drill.
    pub(super) fn must(&self, must: &str, holds: bool, seen: impl Display) -> Outcome {
        let check =
            Check { at: self.seconds(), must: must.to_owned(), holds, seen: seen.to_string() };
        let word = if holds { "PASS" } else { "FAIL" };
        self.tell(&format!("  {:6.2}s  {word}  {} ({})", check.at, check.must, check.seen));
        self.checks.borrow_mut().push(check);
        if holds { Ok(()) } else { Err(Ended::Broken) }
    }

    /// The same for something that must come true in time. The probe says what it saw, and whether that is it.
    pub(super) async fn must_soon(
        &self,
        must: &str,
        patience: Duration,
        mut probe: impl AsyncFnMut() -> Outcome<(bool, String)>,
    ) -> Outcome {
        let until = clock::now().after(patience);
        loop {
            let (holds, seen) = probe().await?;
            if holds {
                return self.must(must, true, seen);
            }
            if clock::now() >= until {
                let seen = format!("not within {} s: {seen}", patience.as_secs());
                return self.must(must, false, seen);
            }
            clock::pause(LOOK).await;
        }
    }

    /// Wait for something that the drill needs and does not judge.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut probe: impl AsyncFnMut() -> Outcome<Option<T>>,
    ) -> Outcome<T> {
        let until = clock::now().after(PATIENCE);
        loop {
            if let Some(found) = probe().await? {
                return Ok(found);
            }
            if clock::now() >= until {
                let late = anyhow::anyhow!("not within {} s: {what}", PATIENCE.as_secs());
                return Err(late.into());
            }
            clock::pause(LOOK).await;
        }
    }

    fn tell(&self, line: &str) {
        if self.aloud {
            // A reader that left is noticed at the end.
            let _ = output::line(&crate::text::plain(line));
        }
    }

    /// What was recorded.
    pub(super) fn record(self) -> (Vec<Step>, Vec<Check>) {
        (self.steps.into_inner(), self.checks.into_inner())
    }

    /// Whether a law was seen broken.
    pub(super) fn broken(&self) -> bool {
        self.checks.borrow().iter().any(|check| !check.holds)
    }

    /// Whether anything was judged.
    pub(super) fn judged(&self) -> bool {
        !self.checks.borrow().is_empty()
    }
}
