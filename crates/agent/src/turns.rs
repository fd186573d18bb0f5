//! What is done with a message, given what is known of it. Pure: no files, no network, no clock.
//!
//! A message that names itself (`messageId`, or the platform's `Ligand-Message`) is run once. Before its turn reaches
//! the program *begun* is on disk, and afterwards the answer is:
//!
//! ```text
//!                      written             program answers        written
//!   nothing known ------------> begun --------------------------> ended: the answer, again and again
//!         ^                       |
//!         |  not reached,         |  the agent was killed, or the program broke off:
//!         +---- declined ---------+  nobody can say whether it ran. It is not run again by itself
//! ```
//!
//! Two laws. However often a message comes, its turn runs once, unless an operator asks for it again after an end that
//! nobody knows or that was a failure. And whoever is given an answer to a message is given the same one each time.

use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::guards::{Guard, Guards};

/// Statuses by which a program says that it took nothing on: the message may come again.
const DECLINED: [u16; 2] = [429, 503];
/// Statuses from here on are failures of the turn, as its program sees it.
const FAILED: u16 = 400;

/// What is known of a message when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// It is new.
    Nothing,
    /// Its turn is running here.
    UnderWay,
    /// Its turn was begun, and nobody saw the end.
    Begun,
    /// There is a record of it that cannot be understood: it was begun at least.
    Damaged,
    /// Its turn has ended.
    Ended {
        /// With an answer that says that it went wrong.
        failed: bool,
    },
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Its turn is run, once that is written down.
    Run,
    /// It waits for the turn that is running, and is given the same answer.
    Join,
    /// It is given the recorded answer.
    Replay,
    /// It is not run, and told why.
    Refuse(Refusal),
}

/// Why a message is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It was begun before and may have had its effect.
    Interrupted,
    /// Its name belongs to a message of other content.
    Another,
}

/// How a turn came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The program answered, to the end.
    Answered {
        /// The HTTP status.
        status: u16,
    },
    /// The program never had it.
    NotReached,
    /// The program had it and gave no whole answer.
    Broken,
}

/// What the record becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The answer.
    Ended,
    /// None: the message is as if it had not come.
    Nothing,
    /// It stays *begun*.
    Begun,
}

/// What to do with a message. `same`: it is the message of that record, by its content. `again`: an operator asks for
/// it though it may have run.
#[must_use]
pub fn step(known: Known, same: bool, again: bool, guards: Guards) -> Step {
    match known {
        Known::Nothing => Step::Run,
        _ if !same => Step::Refuse(Refusal::Another),
        Known::UnderWay => Step::Join,
        Known::Begun | Known::Damaged | Known::Ended { .. } if !guards.hold(Guard::TurnOnce) => {
            Step::Run
        }
        Known::Begun | Known::Damaged if again => Step::Run,
        Known::Begun | Known::Damaged => Step::Refuse(Refusal::Interrupted),
        // An answer that says that it went wrong is all there is to lose.
        Known::Ended { failed: true } if again => Step::Run,
        Known::Ended { .. } => Step::Replay,
    }
}

/// What the record of a turn becomes when it is over.
#[must_use]
pub fn entry(outcome: Outcome) -> Entry {
    match outcome {
        Outcome::Answered { status } if DECLINED.contains(&status) => Entry::Nothing,
        Outcome::Answered { .. } => Entry::Ended,
        Outcome::NotReached => Entry::Nothing,
        Outcome::Broken => Entry::Begun,
    }
}

/// Whether an answer with this status says that the turn went wrong.
#[must_use]
pub fn failed(status: u16) -> bool {
    status >= FAILED
}

/// A message that names itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    /// Its name, as it is shown to a person.
    pub(crate) shown: String,
    /// Its name, as a file is called: equal for equal names only.
    pub(crate) file: String,
    /// What tells two messages of one name apart.
    pub(crate) digest: String,
    /// The JSON-RPC id of this request for it.
    pub(crate) id: Value,
}

/// The name in a request's body, else the platform's own for it; `None` for a request that names no message.
pub(crate) fn named(body: &[u8], ledger: Option<&str>) -> Option<Named> {
    let request = serde_json::from_slice::<Value>(body).ok();
    let field = |name: &str| request.as_ref().and_then(|request| request.get(name));
    let params = field("params");
    let message = params.and_then(|params| params.get("message"));
    let own = message.and_then(|message| message.get("messageId")?.as_str());
    let (kind, name) = match (own.filter(|id| !id.is_empty()), ledger) {
        (Some(own), _) => ("message", own),
        (None, Some(ledger)) => ("ledger", ledger),
        (None, None) => return None,
    };
    let method = field("method").cloned().unwrap_or_default();
    // Written anew: two spellings of one message are one.
    let content = match message.or(params) {
        Some(content) => format!("{method}\n{content}").into_bytes(),
        None => body.to_vec(),
    };
    Some(Named {
        shown: crate::vitals::legible(name),
        file: hex(format!("{kind}\n{name}").as_bytes()),
        digest: hex(&content),
        id: field("id").cloned().unwrap_or_default(),
    })
}

/// SHA-256, as text.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
