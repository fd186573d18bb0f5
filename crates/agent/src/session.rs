//! What the agent does after an answer of the platform. Pure: no clock, no files, no network.
//!
//! The rule behind every line: a refusal is never the end. Only the platform's explicit `exit` ends an
//! agent; everything else leads to another attempt, later or with another credential.
//!
//! A round is what follows one refusal: the file is read again and the call retried once, then every other
//! credential that is held has its turn, then the advice is followed. All calls go through it alike: one that
//! is added later (a poll, say) is another [`Call`] and needs no rule of its own.
//!
//! Together with [`Holdings`](crate::holdings::Holdings) this is the whole of an agent's identity, so that a
//! checker can drive it: apply `Holdings::plan` to a `Disk`, send what [`Next`] names with
//! `Holdings::presented`, give the answer to `Holdings::learn` and then to [`Session::after`].

use std::time::Duration;

use crate::guards::{Guard, Guards};
use crate::waits::{FIRST_WAIT, LONGEST_WAIT, asked, backoff, counted, shortened};

/// Seconds between heartbeats when the platform names no pace.
const DEFAULT_PACE: u64 = 30;
/// The fastest and the slowest pace that is followed, in seconds.
const PACES: (u64, u64) = (1, 300);
/// Orders to rotate that may be passed over after failures, so that a new credential which the platform
/// never accepts costs a call now and then.
const MOST_SKIPPED: u32 = 15;

/// The calls that keep an agent enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `POST /registry/register`.
    Register,
    /// `POST /registry/heartbeat`.
    Heartbeat,
    /// `POST /registry/rotate`.
    Rotate {
        /// The serial that was ordered.
        serial: i64,
    },
    /// `GET /workspaces/{id}/secrets/values`: what the program is to find in its environment.
    Secrets,
}

/// What the call presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bearer {
    /// The credential in hand; no bearer where there is none.
    Held,
    /// The newer one beside it, which has not worked yet.
    Next,
    /// The passport of the start-up data.
    Passport,
    /// None, on purpose.
    Nothing,
}

/// What the platform tells a former holder to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look for a newer credential in the file.
    Reread,
    /// Register again.
    Register,
    /// Ask again later.
    Wait,
    /// End: another instance is the workspace now.
    Exit,
}

impl Action {
    /// The wire's word; one this version does not know is no advice.
    #[must_use]
    pub fn from_wire(word: &str) -> Option<Self> {
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// What to do about it; only a former holder is told.
    pub action: Option<Action>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
    /// The platform's words, for a person.
    pub why: String,
}

impl Refusal {
    /// Between two credentials of one agent: advice to go on counts more than the advice to end, which may
    /// be meant for the older one; that counts more than no advice at all.
    fn weight(&self) -> u8 {
        match self.action {
            Some(Action::Reread | Action::Register | Action::Wait) => 2,
            Some(Action::Exit) => 1,
            None => 0,
        }
    }
}

/// How a call ended. `T` is a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// Register: 200.
    Registered {
        /// The only copy of a new credential.
        token: Option<T>,
        /// Seconds until the next heartbeat.
        pace: Option<u64>,
    },
    /// Heartbeat: 200.
    Beaten {
        /// Seconds until the next one.
        pace: Option<u64>,
        /// The serial of a rotation that is due.
        rotate: Option<i64>,
    },
    /// Rotate: 200.
    Rotated {
        /// The only copy of a new credential.
        token: T,
    },
    /// Secrets: 200. The values are no matter of identity.
    Fetched,
    /// 401.
    Refused(Refusal),
    /// Any other answer that will not change by asking again soon: 400, 403, 404, 409, a redirect.
    Rejected {
        /// The platform's words.
        why: String,
    },
    /// No usable answer: network, 408, 429, 5xx, an unreadable body.
    Failed {
        /// What happened.
        why: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
}

/// What is known beside the answer: of the credentials, as they are after it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// The token file, read after the answer, holds another credential than the one presented.
    pub file_differs: bool,
    /// There is a credential in hand.
    pub holds: bool,
    /// There is a newer one beside it.
    pub has_next: bool,
    /// That one may be used: it is written down and was not refused.
    pub next_ready: bool,
    /// There is a passport.
    pub has_passport: bool,
    /// The program's secrets are to be fetched.
    pub fetch: bool,
    /// Uniform in 0..1.
    pub jitter: f64,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Next {
    /// Wait, then call.
    Call {
        /// What to ask.
        call: Call,
        /// As whom.
        bearer: Bearer,
        /// How long to wait before.
        wait: Duration,
        /// Read the token file again after the wait.
        reread: bool,
    },
    /// The platform has ended this instance.
    Exit {
        /// Its reason.
        why: String,
    },
}

/// Which credentials had their turn in this round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Tried {
    held: bool,
    next: bool,
    passport: bool,
}

/// Where the conversation stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// A backend starts and replaces this agent, so its credentials arrive in the file.
    managed: bool,
    guards: Guards,
    call: Call,
    bearer: Bearer,
    /// Calls without a usable answer, since the last one with.
    failures: u32,
    /// Rounds of refusals since the last heartbeat that was accepted. A register that succeeds does not
    /// clear it: otherwise register and heartbeat could chase each other without a pause.
    refusals: u32,
    /// The file was already re-read in this round.
    reread: bool,
    tried: Tried,
    /// The weightiest of what this round's credentials were told.
    told: Option<Refusal>,
    pace: Duration,
    /// The newest serial that was asked for.
    serial: Option<i64>,
    /// Rotations to it that came to nothing.
    fruitless: u32,
    /// Orders that are still passed over for that.
    skip: u32,
    /// Attempts to fetch secrets that brought none, since the last that did.
    unfetched: u32,
}

impl Session {
    /// Nothing said yet. `managed`: a backend starts and replaces this agent.
    #[must_use]
    pub fn new(managed: bool, guards: Guards) -> Self {
        Self {
            managed,
            guards,
            call: Call::Register,
            bearer: Bearer::Held,
            failures: 0,
            refusals: 0,
            reread: false,
            tried: Tried::default(),
            told: None,
            pace: Duration::from_secs(DEFAULT_PACE),
            serial: None,
            fruitless: 0,
            skip: 0,
            unfetched: 0,
        }
    }

    /// The same conversation without what only lengthens waits: for a checker, to which time is nothing.
    #[must_use]
    pub fn timeless(self) -> Self {
        let refusals = self.refusals.min(2);
        Self {
            failures: 0,
            refusals,
            fruitless: self.fruitless.min(1),
            skip: 0,
            unfetched: 0,
            pace: FIRST_WAIT,
            ..self
        }
    }

    /// The first step: register with whatever is held.
    pub fn first(&mut self, facts: Facts) -> Next {
        self.go(Call::Register, best(Call::Register, facts), Duration::ZERO)
    }

    /// The step after `answer`.
    pub fn after<T>(&mut self, answer: &Answer<T>, facts: Facts) -> Next {
        match answer {
            Answer::Registered { pace, .. } => {
                self.settled(*pace);
                let bearer = if facts.next_ready { Bearer::Next } else { Bearer::Held };
                self.go(Call::Heartbeat, bearer, Duration::ZERO)
            }
            Answer::Beaten { pace, rotate } => {
                self.settled(*pace);
                self.refusals = 0;
                self.beaten(*rotate, facts)
            }
            Answer::Rotated { .. } => {
                self.failures = 0;
                self.new_round();
                // Beside the old one but not written down: the old one goes on working meanwhile.
                let wait =
                    if facts.has_next && !facts.next_ready { self.pace } else { Duration::ZERO };
                let bearer = if facts.next_ready { Bearer::Next } else { Bearer::Held };
                self.go(Call::Heartbeat, bearer, wait)
            }
            Answer::Fetched => {
                (self.failures, self.unfetched) = (0, 0);
                self.new_round();
                self.go(Call::Heartbeat, self.bearer, Duration::ZERO)
            }
            Answer::Failed { retry_after, .. } if self.call == Call::Secrets => {
                self.without_secrets(asked(*retry_after), facts)
            }
            Answer::Failed { retry_after, .. } => {
                self.failures = counted(self.failures);
                let wait = asked(*retry_after).max(self.backoff(self.failures, facts.jitter));
                if let Call::Rotate { .. } = self.call {
                    self.came_to_nothing();
                    return self.go(Call::Heartbeat, self.bearer, wait.min(self.pace));
                }
                self.go(self.call, self.bearer, wait)
            }
            Answer::Rejected { .. } => {
                self.new_round();
                if let Call::Rotate { .. } = self.call {
                    self.came_to_nothing();
                    return self.go(Call::Heartbeat, Bearer::Held, self.pace);
                }
                if self.call == Call::Secrets {
                    return self.without_secrets(self.pace, facts);
                }
                let wait = shortened(LONGEST_WAIT, facts.jitter);
                self.go(Call::Register, best(Call::Register, facts), wait)
            }
            Answer::Refused(refusal) => {
                self.failures = 0;
                self.refused(refusal, facts)
            }
        }
    }

    /// A heartbeat was accepted. What is newer and ready is used before anything else is asked for.
    fn beaten(&mut self, rotate: Option<i64>, facts: Facts) -> Next {
        if self.bearer == Bearer::Next || rotate.is_none() {
            (self.fruitless, self.skip) = (0, 0);
        }
        if facts.next_ready {
            return self.go(Call::Heartbeat, Bearer::Next, Duration::ZERO);
        }
        if facts.fetch {
            return self.go(Call::Secrets, Bearer::Held, Duration::ZERO);
        }
        let Some(serial) = rotate else {
            return self.go(Call::Heartbeat, Bearer::Held, self.pace);
        };
        let newer = self.serial != Some(serial);
        if newer {
            (self.fruitless, self.skip) = (0, 0);
        }
        // What was brought for it and could not be written yet need not be asked for again.
        let here = facts.has_next && !newer;
        if here || self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return self.go(Call::Heartbeat, Bearer::Held, self.pace);
        }
        self.serial = Some(serial);
        self.go(Call::Rotate { serial }, Bearer::Held, Duration::ZERO)
    }

    /// The program waits; heartbeats do not. The next one that is accepted leads back here.
    fn without_secrets(&mut self, asked: Duration, facts: Facts) -> Next {
        self.unfetched = counted(self.unfetched);
        let wait = asked.max(self.backoff(self.unfetched, facts.jitter)).min(self.pace);
        self.go(Call::Heartbeat, self.bearer, wait)
    }

    /// The file first, then every other credential, then what they were told.
    fn refused(&mut self, refusal: &Refusal, facts: Facts) -> Next {
        let held = self.bearer == Bearer::Held;
        let once = self.guards.hold(Guard::RereadOnce) && !self.reread;
        if held && facts.file_differs && once {
            self.reread = true;
            return self.go(self.call, Bearer::Held, Duration::ZERO);
        }
        let told = match self.told.take() {
            Some(earlier) if earlier.weight() >= refusal.weight() => earlier,
            _ => refusal.clone(),
        };
        match self.bearer {
            Bearer::Held => self.tried.held = true,
            Bearer::Next => {
                self.tried.next = true;
                self.came_to_nothing();
            }
            Bearer::Passport => self.tried.passport = true,
            Bearer::Nothing => {}
        }
        if let Some(other) = self.untried(facts) {
            self.told = Some(told);
            return self.go(self.call, other, Duration::ZERO);
        }
        self.new_round();
        self.refusals = counted(self.refusals);
        self.follow(told, facts)
    }

    /// A credential that had no turn in this round. A newcomer on purpose is a round of its own.
    fn untried(&self, facts: Facts) -> Option<Bearer> {
        let passport = facts.has_passport && self.call == Call::Register;
        let order = [
            (Bearer::Held, facts.holds && !self.tried.held),
            (Bearer::Next, facts.has_next && !self.tried.next),
            (Bearer::Passport, passport && !self.tried.passport),
        ];
        let found = order.into_iter().find(|(_, good)| *good).map(|(bearer, _)| bearer);
        found.filter(|_| self.bearer != Bearer::Nothing)
    }

    fn follow(&mut self, told: Refusal, facts: Facts) -> Next {
        let wait = asked(told.retry_after).max(self.backoff(self.refusals, facts.jitter));
        let known = facts.holds || facts.has_next;
        let same =
            if known && self.call != Call::Register { Call::Heartbeat } else { Call::Register };
        let next = match told.action {
            Some(Action::Exit) => return Next::Exit { why: told.why },
            Some(Action::Wait) => {
                let call = if known { Call::Heartbeat } else { Call::Register };
                let wait = if told.retry_after.is_some() { wait } else { LONGEST_WAIT };
                self.go(call, best(call, facts), wait)
            }
            Some(Action::Reread) => self.go(same, best(same, facts), wait),
            Some(Action::Register) if self.call != Call::Register && self.refusals == 1 => {
                let wait = asked(told.retry_after);
                self.go(Call::Register, best(Call::Register, facts), wait)
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
        let alone = !self.managed && self.guards.hold(Guard::WithoutBearer);
        let presented = (facts.holds || facts.has_next) && self.bearer != Bearer::Nothing;
        if alone && self.call == Call::Register && presented {
            Bearer::Nothing
        } else {
            best(Call::Register, facts)
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
        self.tried = Tried::default();
        self.told = None;
    }

    /// The first time it is asked again at once, then after ever more heartbeats.
    fn came_to_nothing(&mut self) {
        self.fruitless = counted(self.fruitless);
        self.skip = (2u32.saturating_pow(self.fruitless - 1) - 1).min(MOST_SKIPPED);
    }

    fn go(&mut self, call: Call, bearer: Bearer, wait: Duration) -> Next {
        self.call = call;
        self.bearer = bearer;
        Next::Call { call, bearer, wait, reread: false }
    }
}

/// Where a round begins. The file comes first: whoever starts this agent may have put a newer one there.
/// A passport is for one that holds nothing, or nothing that was obtained with it.
fn best(call: Call, facts: Facts) -> Bearer {
    if facts.holds {
        Bearer::Held
    } else if facts.has_next {
        Bearer::Next
    } else if facts.has_passport && call == Call::Register {
        Bearer::Passport
    } else {
        Bearer::Held
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
