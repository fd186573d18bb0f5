//! What happened, and how a violation is told.

use std::fmt;

/// Lines that a failure shows.
const SHOWN: usize = 30;

/// What happened, one line each.
#[derive(Default)]
pub struct Trace(Vec<String>);

impl Trace {
    /// Note a line.
    pub fn say(&mut self, line: String) {
        self.0.push(line);
    }

    /// Every line.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which, in a few words.
    pub law: &'static str,
    /// By what.
    pub what: String,
}

impl Violation {
    /// Of this law, by this.
    pub fn new(law: &'static str, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }
}

/// Say that a law holds, or which was broken.
///
/// # Errors
/// The violation, when it does not hold.
pub fn law(holds: bool, law: &'static str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(law, what())) }
}

/// A run that broke a law.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// The step at which it showed.
    pub step: u32,
    /// What showed.
    pub violation: Violation,
    /// Everything that led there; only its end is displayed.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace[self.trace.len().saturating_sub(SHOWN)..] {
            writeln!(f, "  {line}")?;
        }
        let Violation { law, what } = &self.violation;
        writeln!(f, "seed {}, step {}: {law}: {what}", self.seed, self.step)?;
        write!(f, "replay: LIGAND_SIM_SEED={} cargo test -p ligand-sim", self.seed)
    }
}
