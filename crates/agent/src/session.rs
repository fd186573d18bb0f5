//! What the agent does after an answer of the platform. Pure: no clock, no files, no network.
//!
//! The rule behind every line: a refusal is never the end. Only the platform's explicit `exit` ends an
//! agent; everything else leads to another attempt, later or with another credential.

use std::time::Duration;

use crate::identity::Token;

/// The first wait after a failure.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait of our own making.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait the platform can ask for: beyond this a mistaken header would look like a dead agent.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// Seconds between heartbeats when the platform names no pace.
const DEFAULT_PACE: u64 = 30;
/// The fastest and the slowest pace that is followed, in seconds.
const PACES: (u64, u64) = (1, 300);

/// The two calls that keep an agent enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Register,
    Heartbeat,
}

/// What the call presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// The credential in hand; no bearer where there is none.
    Held,
    /// The one before it, kept until its successor has worked.
    Previous,
    /// None, on purpose.
    Nothing,
}

/// What the platform tells a former holder to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Reread,
    Register,
    Wait,
    Exit,
}

impl Action {
    /// The wire's word; one this version does not know is no advice.
    pub(crate) fn from_wire(word: &str) -> Option<Self> {
        match word {
            "reread-credential" => Some(Self::Reread),
            "register" => Some(Self::Register),
            "wait" => Some(Self::Wait),
            "exit" => Some(Self::Exit),
            _ => None,
        }
    }
}

/// A 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) action: Option<Action>,
    pub(crate) retry_after: Option<Duration>,
    /// The platform's words, for a person.
    pub(crate) why: String,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Register: 200. The token is the only copy of a new credential.
    Registered { token: Option<Token>, pace: Option<u64> },
    /// Heartbeat: 200.
    Beaten { pace: Option<u64> },
    /// 401.
    Refused(Refusal),
    /// Any other answer that will not change by asking again soon: 400, 403, 404, a redirect.
    Rejected { why: String },
    /// No usable answer: network, 408, 429, 5xx, an unreadable body.
    Failed { why: String, retry_after: Option<Duration> },
}

/// What is known beside the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The token file, read after the answer, holds another credential than the one presented.
    pub(crate) file_differs: bool,
    /// There is a previous credential.
    pub(crate) has_previous: bool,
    /// There is a credential.
    pub(crate) holds: bool,
    /// Uniform in 0..1.
    pub(crate) jitter: f64,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait, then call.
    Call { call: Call, bearer: Bearer, wait: Duration, reread: bool },
    /// The platform has ended this instance.
    Exit { why: String },
}

/// Where the conversation stands.
#[derive(Debug)]
pub(crate) struct Session {
    /// A backend starts and replaces this agent, so its credentials arrive in the file.
    managed: bool,
    call: Call,
    bearer: Bearer,
    /// Calls without a usable answer, since the last one with.
    failures: u32,
    /// Rounds of refusals since the last heartbeat that was accepted. A register that succeeds does not
    /// clear it: otherwise register and heartbeat could chase each other without a pause.
    refusals: u32,
    /// The file was already re-read in this round.
    reread: bool,
    /// What the newest credential was told, while an older one is being tried.
    told: Option<Refusal>,
    pace: Duration,
}

impl Session {
    pub(crate) fn new(managed: bool) -> Self {
        Self {
            managed,
            call: Call::Register,
            bearer: Bearer::Held,
            failures: 0,
            refusals: 0,
            reread: false,
            told: None,
            pace: Duration::from_secs(DEFAULT_PACE),
        }
    }

    /// The first step: register with whatever is held.
    pub(crate) fn first(&mut self) -> Next {
        self.go(Call::Register, Bearer::Held, Duration::ZERO)
    }

    /// The step after `answer`.
    pub(crate) fn after(&mut self, answer: &Answer, facts: Facts) -> Next {
        match answer {
            Answer::Registered { pace, .. } => {
                self.settled(*pace);
                self.go(Call::Heartbeat, Bearer::Held, Duration::ZERO)
            }
            Answer::Beaten { pace } => {
                self.settled(*pace);
                self.refusals = 0;
                self.go(Call::Heartbeat, Bearer::Held, self.pace)
            }
            Answer::Failed { retry_after, .. } => {
                self.failures = self.failures.saturating_add(1);
                let wait = asked(*retry_after).max(self.backoff(self.failures, facts.jitter));
                self.go(self.call, self.bearer, wait)
            }
            Answer::Rejected { .. } => {
                self.new_round();
                let wait = shortened(LONGEST_WAIT, facts.jitter);
                self.go(Call::Register, Bearer::Held, wait)
            }
            Answer::Refused(refusal) => {
                self.failures = 0;
                self.refused(refusal, facts)
            }
        }
    }

    /// Another credential first; then what the newest one was told.
    fn refused(&mut self, refusal: &Refusal, facts: Facts) -> Next {
        if self.bearer == Bearer::Held {
            if facts.file_differs && !self.reread {
                self.reread = true;
                return self.go(self.call, Bearer::Held, Duration::ZERO);
            }
            if facts.has_previous {
                self.told = Some(refusal.clone());
                return self.go(self.call, Bearer::Previous, Duration::ZERO);
            }
        }
        // An older credential may well be told to exit while the newer one is only told to wait.
        let told = self.told.take().unwrap_or_else(|| refusal.clone());
        self.new_round();
        self.refusals = self.refusals.saturating_add(1);
        self.follow(told, facts)
    }

    fn follow(&mut self, told: Refusal, facts: Facts) -> Next {
        let wait = asked(told.retry_after).max(self.backoff(self.refusals, facts.jitter));
        let next = match told.action {
            Some(Action::Exit) => return Next::Exit { why: told.why },
            Some(Action::Wait) => {
                let call = if facts.holds { Call::Heartbeat } else { Call::Register };
                let wait = if told.retry_after.is_some() { wait } else { LONGEST_WAIT };
                self.go(call, Bearer::Held, wait)
            }
            Some(Action::Reread) => self.go(self.call, Bearer::Held, wait),
            Some(Action::Register) if self.call == Call::Heartbeat && self.refusals == 1 => {
                self.go(Call::Register, Bearer::Held, asked(told.retry_after))
            }
            Some(Action::Register) | None => self.go(Call::Register, self.alternate(facts), wait),
        };
        match next {
            Next::Call { call, bearer, wait, .. } => {
                Next::Call { call, bearer, wait, reread: true }
            }
            exit @ Next::Exit { .. } => exit,
        }
    }

    /// Nobody hands an unmanaged agent a new credential: refused at register with the one it holds, it
    /// must also try as one that lost everything, and the other way about.
    fn alternate(&self, facts: Facts) -> Bearer {
        let with_bearer = self.bearer != Bearer::Nothing;
        if !self.managed && self.call == Call::Register && facts.holds && with_bearer {
            Bearer::Nothing
        } else {
            Bearer::Held
        }
    }

    fn settled(&mut self, pace: Option<u64>) {
        self.new_round();
        self.failures = 0;
        if let Some(seconds) = pace {
            self.pace = Duration::from_secs(seconds.clamp(PACES.0, PACES.1));
        }
    }

    /// Two beats at most: an agent that waited for its whole lease would be taken for dead when a platform
    /// that was away comes back.
    fn backoff(&self, nth: u32, jitter: f64) -> Duration {
        backoff(nth, jitter).min(self.pace * 2)
    }

    fn new_round(&mut self) {
        self.reread = false;
        self.told = None;
    }

    fn go(&mut self, call: Call, bearer: Bearer, wait: Duration) -> Next {
        self.call = call;
        self.bearer = bearer;
        Next::Call { call, bearer, wait, reread: false }
    }
}

/// What the platform asked for, within reason.
fn asked(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(LONGEST_ASKED)
}

/// The wait after the `nth` failure (1 is the first): doubling, capped, shortened at random.
pub(crate) fn backoff(nth: u32, jitter: f64) -> Duration {
    let doublings = nth.clamp(1, 16) - 1;
    let full = FIRST_WAIT.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_WAIT);
    shortened(full, jitter)
}

/// Shortened by up to a quarter, so that agents that fell together do not rise together.
fn shortened(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
