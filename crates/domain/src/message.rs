//! Messages: what a row of the ledger may become, and what follows from an attempt to deliver it.
//!
//! A message is open (`accepted`, `delivering`) or over (everything else). Whoever delivers holds a lease: an attempt
//! by its number, a generation, a holder. Only that lease may say what came of the message; what comes later is
//! counted and changes nothing.
//!
//! The rule about doing things twice: Ligand's own agent remembers what it was given, so it may be given the same
//! again. Any other runtime may have begun whatever it was sent; such a message is marked, made once more at most,
//! and then given to people to look at.

use std::time::Duration;

use crate::guards::{Guard, Guards};

/// A lease lasts so long, unless it is renewed.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed while an attempt goes on.
pub const RENEW: Duration = Duration::from_secs(20);
/// Attempts that failed, and were not those of a busy agent, after which a message is given up.
pub const MOST_FAILURES: i64 = 5;
/// The first wait before another attempt.
pub const FIRST_DELAY: Duration = Duration::from_secs(2);
/// The longest.
pub const LAST_DELAY: Duration = Duration::from_secs(300);

/// Delivered before everything else.
pub const CRITICAL: i64 = 100;
/// What a message is worth unless said otherwise.
pub const TASK: i64 = 50;
/// Delivered when there is nothing else.
pub const INFO: i64 = 10;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its delivery.
    Accepted,
    /// An attempt is under way.
    Delivering,
    /// Its agent answered.
    Processed,
    /// Its caller read the answer.
    Acknowledged,
    /// It was not delivered in time.
    Expired,
    /// It was given up, for a reason that stands beside it.
    Dead,
    /// An operator took it away.
    Dropped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Delivering,
        Self::Processed,
        Self::Acknowledged,
        Self::Expired,
        Self::Dead,
        Self::Dropped,
    ];

    /// Text form in stores and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivering => "delivering",
            Self::Processed => "processed",
            Self::Acknowledged => "acknowledged",
            Self::Expired => "expired",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether something will still happen to it by itself.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Accepted | Self::Delivering)
    }

    /// Whether its agent answered it.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Processed | Self::Acknowledged)
    }

    /// The word that published clients of a queue know it by.
    #[must_use]
    pub const fn in_queue(self) -> &'static str {
        match self {
            Self::Accepted => "queued",
            Self::Delivering => "dispatched",
            Self::Processed | Self::Acknowledged => "completed",
            Self::Expired | Self::Dropped => "dropped",
            Self::Dead => "failed",
        }
    }

    /// Whether this may follow. What is over stays over, but that an answer is read, and that somebody asks for a
    /// failed one again.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Accepted => {
                matches!(to, Self::Delivering | Self::Expired | Self::Dead | Self::Dropped)
            }
            Self::Delivering => {
                matches!(to, Self::Accepted | Self::Processed | Self::Dead | Self::Dropped)
            }
            Self::Processed => matches!(to, Self::Acknowledged),
            Self::Acknowledged => false,
            Self::Expired | Self::Dead | Self::Dropped => {
                matches!(to, Self::Accepted | Self::Delivering)
            }
        }
    }
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A caller that waits on its connection, and was promised nothing.
    Direct,
    /// A caller that was told that it is accepted.
    Queue,
    /// A delegation.
    Delegation,
    /// The platform itself.
    Platform,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Direct, Self::Queue, Self::Delegation, Self::Platform];

    /// Text form in stores and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Queue => "queue",
            Self::Delegation => "delegation",
            Self::Platform => "platform",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == text)
    }

    /// Whether somebody was told that it will be delivered.
    #[must_use]
    pub const fn is_promised(self) -> bool {
        !matches!(self, Self::Direct)
    }
}

/// What it rests on that a message was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// Ligand's agent said that the program did it, or gave back what it had recorded.
    Agent,
    /// There was an answer.
    Answer,
}

impl Evidence {
    /// Text form in stores and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Answer => "answer",
        }
    }
}

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer that is a success.
    Answered,
    /// An answer that is a failure.
    Failed,
    /// Ligand's agent had begun it once and was ended before its program was done: it does not begin it again.
    Interrupted,
    /// The agent hung up, or is silent: it may have begun.
    Busy,
    /// Something else went wrong once it was reached: it may have begun.
    Broken,
    /// It was never reached.
    Unreached,
    /// Nothing was tried: there is nowhere to deliver it at the moment.
    Untried,
}

/// What is known of a message whose attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Somebody was told that it will be delivered.
    pub promised: bool,
    /// The runtime remembers what it was given: a second delivery of the same does nothing.
    pub remembers: bool,
    /// An earlier attempt may have run.
    pub maybe_run: bool,
    /// Earlier attempts that failed, and were not those of a busy agent.
    pub failures: i64,
    /// The instance is dead, or keeps its own sessions: its caller asks again by itself.
    pub not_queued: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// It is done.
    Processed,
    /// It waits for another attempt.
    Again {
        /// Failures that count from now on.
        failures: i64,
        /// It may have run.
        maybe_run: bool,
    },
    /// It is given up.
    Dead {
        /// It may have run.
        maybe_run: bool,
    },
}

/// What becomes of a message after an attempt.
#[must_use]
pub const fn after_attempt(outcome: Outcome, facts: Facts) -> Next {
    let Facts { promised, remembers, maybe_run, failures, not_queued } = facts;
    match outcome {
        Outcome::Answered => Next::Processed,
        Outcome::Interrupted => Next::Dead { maybe_run: true },
        Outcome::Untried => Next::Again { failures, maybe_run },
        Outcome::Busy if not_queued && !promised => Next::Dead { maybe_run: true },
        // Made once more at most, where nobody knows whether it ran.
        Outcome::Busy if maybe_run && !remembers => Next::Dead { maybe_run },
        Outcome::Busy => Next::Again { failures, maybe_run: true },
        Outcome::Broken if !promised || (maybe_run && !remembers) => Next::Dead { maybe_run: true },
        Outcome::Broken => failed(failures, true),
        Outcome::Failed | Outcome::Unreached if !promised => Next::Dead { maybe_run },
        Outcome::Failed | Outcome::Unreached => failed(failures, maybe_run),
    }
}

const fn failed(before: i64, maybe_run: bool) -> Next {
    let failures = before + 1;
    if failures >= MOST_FAILURES {
        Next::Dead { maybe_run }
    } else {
        Next::Again { failures, maybe_run }
    }
}

/// What becomes of a message whose lease lapsed: whoever delivered it is gone. Whether it arrived nobody can say.
#[must_use]
pub const fn after_lapse(facts: Facts) -> Next {
    let Facts { promised, remembers, maybe_run, failures, .. } = facts;
    if !promised {
        // Its caller hears nothing more; it may come again, and is recognised then.
        return Next::Dead { maybe_run: true };
    }
    match (remembers, maybe_run) {
        (true, _) => Next::Again { failures, maybe_run },
        (false, false) => Next::Again { failures, maybe_run: true },
        (false, true) => Next::Dead { maybe_run },
    }
}

/// How long to wait before the attempt after this many; `jitter` is uniform in 0..1.
#[must_use]
pub fn delay(attempts: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    let full = FIRST_DELAY.saturating_mul(2u32.saturating_pow(doublings)).min(LAST_DELAY);
    full.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

/// Whether the outcome of any attempt is taken, whichever holds the lease. It is not: a late one would end what a
/// later attempt is about to do.
#[must_use]
pub fn takes_any_attempt(guards: Guards) -> bool {
    !guards.hold(Guard::LeaseAttempt)
}

/// What is known of an earlier message under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// Where it stands.
    pub state: State,
    /// It says the same, from the same caller.
    pub same: bool,
    /// Somebody was told that it will be delivered.
    pub promised: bool,
}

/// What to do with a repeated message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// Refuse it: its name is another message's.
    Another,
    /// Answer with what was recorded.
    Replay,
    /// Say that it is accepted already.
    Queued,
    /// Wait for what comes of the first.
    Join,
    /// Deliver it again.
    Anew,
}

/// What to do with a message whose name is known.
#[must_use]
pub const fn repeated(known: Known) -> Repeat {
    match known.state {
        _ if !known.same => Repeat::Another,
        State::Processed | State::Acknowledged => Repeat::Replay,
        State::Accepted | State::Delivering if known.promised => Repeat::Queued,
        State::Accepted | State::Delivering => Repeat::Join,
        State::Expired | State::Dead | State::Dropped => Repeat::Anew,
    }
}

/// Whether a failed exchange is that of a busy agent: it took too long, or hung up. An agent that was not found, or
/// that refused the connection, is not busy.
#[must_use]
pub fn is_busy(timed_out: bool, text: &str) -> bool {
    const SIGNS: [&str; 6] = [
        "EOF",
        "connection reset",
        "connection closed",
        "deadline exceeded",
        "canceled",
        "broken pipe",
    ];
    let lower = text.to_lowercase();
    timed_out || SIGNS.iter().any(|sign| lower.contains(&sign.to_lowercase()))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
