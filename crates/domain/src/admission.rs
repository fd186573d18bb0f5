//! Who is let in: one pure function over facts that were loaded in one transaction.
//!
//! [`decide`] tries the lines of the admission table in order, and the first that matches decides. The
//! store applies the decision, and mints what it asks for, in the same transaction, so there is no gap
//! between being asked and being answered.

use std::time::Duration;

use crate::credential::{Credential, Kind, Passport, PassportState, State};
use crate::guards::{Guard, Guards};
use crate::id::{CredentialId, Generation};
pub use crate::newcomer::Newcomer;
pub use crate::refusal::{Action, Code, Line, Refusal, Told};
use crate::time::Timestamp;

/// What a managed agent that will be replaced is told to wait before it asks again.
pub const WAIT_FOR_REPLACEMENT: Duration = Duration::from_secs(5);
/// How long an administrator's revocation opens a workspace for one registration.
pub const OPENED_FOR: Duration = Duration::from_secs(900);
/// How long after a revocation the heartbeats of its former holder are told to wait, so that whoever the
/// workspace was opened for comes first.
pub const OTHERS_FIRST: Duration = Duration::from_secs(120);

/// Which call asks to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Takes up an identity.
    Register,
    /// Keeps it alive.
    Heartbeat,
    /// Changes the agent card. Not a use of a pending credential.
    UpdateCard,
    /// Asks for a new credential beside the one it uses. Not a use either, and never let through.
    Rotate,
}

impl Call {
    /// Whether it makes a pending credential active.
    #[must_use]
    pub const fn is_use(self) -> bool {
        matches!(self, Self::Register | Self::Heartbeat)
    }
}

/// Whether a workspace with nothing live may be taken up by a caller without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap {
    /// Never: its instances get their credential before they start.
    Sealed,
    /// Yes, as the contract says.
    Open,
}

/// Where the newest generation stands, when it is ahead of the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// It is the current one.
    Current,
    /// It will take over at its first call.
    Planned,
    /// A migration's candidate: it takes over at cut-over only.
    Candidate,
    /// Its start was given up, or its migration rolled back.
    Abandoned,
}

/// The workspace that the call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Deleted.
    pub removed: bool,
    /// The generation that counts now.
    pub current: Generation,
    /// The newest generation.
    pub newest: Generation,
    /// What the newest generation is.
    pub newest_is: Newest,
    /// The generation with which the current instance was born, where that has not ended: after a bootstrap another one
    /// than the current. Its backend knows it by that.
    pub born: Option<Generation>,
    /// An instance credential is active, or pending and not given up.
    pub live: bool,
    /// Whether it may be taken up without a credential.
    pub bootstrap: Bootstrap,
    /// An administrator opened it for one registration, and the window has not passed.
    pub opened: bool,
    /// The credentials were revoked so recently that a migrator's target should come first.
    pub just_revoked: bool,
    /// A backend replaces its instances.
    pub managed: bool,
    /// What the newest instance can prove itself with.
    pub newcomer: Newcomer,
}

/// Whether a revocation at this time still keeps its former holder waiting.
#[must_use]
pub fn just_revoked(revoked_at: Option<Timestamp>, now: Timestamp) -> bool {
    revoked_at.is_some_and(|at| now < at.after(OTHERS_FIRST))
}

impl Standing {
    fn may_bootstrap(&self) -> bool {
        !self.live && (self.bootstrap == Bootstrap::Open || self.opened)
    }

    /// The same for somebody who proves nothing: an administrator opens it to anybody.
    fn may_bootstrap_bare(&self, guards: Guards) -> bool {
        self.may_bootstrap() && (self.opened || self.newcomer.may_come(guards))
    }

    /// The next generation, and the one that whoever opens it overtakes; or the planned one, where that is all that its
    /// instance can come with.
    fn next(&self, guards: Guards) -> (Generation, Option<Generation>) {
        if self.newest_is == Newest::Planned && self.newcomer.takes_planned(guards) {
            return (self.newest, None);
        }
        let overtaken = matches!(self.newest_is, Newest::Planned | Newest::Candidate);
        (self.newest.next(), overtaken.then_some(self.newest))
    }

    fn bootstraps(&self, guards: Guards) -> Decision {
        let (generation, abandons) = self.next(guards);
        Decision::Bootstraps { generation, abandons }
    }

    fn may_re_enrol(&self, generation: Generation) -> bool {
        let planned = generation == self.newest && self.newest_is == Newest::Planned;
        generation == self.current && generation != Generation::NONE || planned
    }

    fn is_candidate(&self, generation: Generation, guards: Guards) -> bool {
        let candidate = self.newest_is == Newest::Candidate && generation == self.newest;
        candidate && guards.hold(Guard::CandidateInert)
    }

    fn is_planned(&self, generation: Generation, guards: Guards) -> bool {
        let unguarded = !guards.hold(Guard::CandidateInert) && self.newest_is == Newest::Candidate;
        generation == self.newest && (self.newest_is == Newest::Planned || unguarded)
    }
}

/// What the caller presented, already looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// No bearer.
    Nothing,
    /// A bearer that this workspace never issued.
    Stranger,
    /// A credential of this workspace, in whatever state.
    Credential(Credential),
    /// A passport of this workspace.
    Passport(Passport),
}

impl Presented {
    fn is_held(self) -> bool {
        matches!(self, Self::Credential(_) | Self::Passport(_))
    }
}

/// Everything the decision looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which call.
    pub call: Call,
    /// The workspace; `None` when the id is unknown.
    pub workspace: Option<Standing>,
    /// The id was purged; hashes of its credentials remain.
    pub purged: bool,
    /// What the caller presented.
    pub presented: Presented,
    /// The credential that was minted for this `Idempotency-Key`, if the key counts.
    pub replayed: Option<Credential>,
    /// Unknown ids may create themselves by registering.
    pub open_registration: bool,
    /// The contract's open doors are open.
    pub compat: bool,
}

/// The table's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The reply that carried the credential was lost: revoke it, mint another in its generation.
    Remint {
        /// The credential nobody received.
        lost: CredentialId,
        /// Its generation, and the new one's.
        generation: Generation,
    },
    /// The current generation's agent.
    Current {
        /// Its generation.
        generation: Generation,
        /// First use: the credential becomes active, and its siblings and elders are superseded.
        activates: bool,
    },
    /// The newest generation's agent, calling for the first time: it becomes current.
    TakesOver {
        /// The new current generation.
        generation: Generation,
        /// It presented a passport, so a credential is minted for it.
        mints: bool,
    },
    /// The planned generation's agent, making a call that is no use of its credential: let in, nothing
    /// changes hands.
    Early {
        /// Its generation.
        generation: Generation,
    },
    /// The current generation's agent, with the passport whose first answer it never got: another
    /// credential is minted in its generation.
    Redeems {
        /// Its generation.
        generation: Generation,
    },
    /// A migration's candidate: it is known as such, and nothing of the workspace changes.
    Candidate {
        /// Its generation.
        generation: Generation,
        /// It presented a passport, so a credential is minted for it.
        mints: bool,
        /// First use: the credential becomes active, and its siblings are superseded.
        activates: bool,
    },
    /// The rightful holder lost a race: it gets a new credential in its own generation.
    ReEnrols {
        /// Its generation.
        generation: Generation,
    },
    /// A caller of the platform that also serves: let in as the current generation.
    Api {
        /// Opens this generation, where nothing was live.
        opens: Option<Generation>,
        /// A planned generation that will never be admitted now.
        abandons: Option<Generation>,
    },
    /// The first registration: the next generation, and a credential for it.
    Bootstraps {
        /// The generation that it opens.
        generation: Generation,
        /// A planned generation that will never be admitted now.
        abandons: Option<Generation>,
    },
    /// An unknown id creates itself.
    Creates,
    /// Nothing is live and the contract's open doors are open: the call counts as the current generation's,
    /// whoever makes it.
    LetThrough {
        /// The current generation.
        generation: Generation,
    },
    /// The contract's open doors are open, and there is nothing that the call could change.
    Ignored,
    /// Not let in.
    Refused(Refusal),
}

/// Decide. Total: every combination of facts has an answer.
#[must_use]
pub fn decide(facts: &Facts, guards: Guards) -> Decision {
    let Some(workspace) = &facts.workspace else { return unknown_id(facts) };
    if let Some(decision) = replay(facts, workspace, guards) {
        return decision;
    }
    if workspace.removed {
        return removed(facts);
    }
    let decision = match facts.presented {
        Presented::Credential(c) if c.kind == Kind::Instance => {
            by_credential(facts.call, workspace, c, guards)
        }
        Presented::Credential(c) if c.state.is_live() => by_api(facts, workspace, guards),
        Presented::Credential(_) => None,
        Presented::Passport(passport) => by_passport(facts.call, workspace, passport, guards),
        Presented::Nothing | Presented::Stranger => {
            let registers = facts.call == Call::Register;
            let may = registers && workspace.may_bootstrap_bare(guards);
            may.then(|| workspace.bootstraps(guards))
        }
    };
    let decision = decision.or_else(|| by_open_door(facts, workspace, guards));
    decision.unwrap_or_else(|| refuse(facts, workspace, guards))
}

/// The answer to an earlier register was lost, and its sender asks again.
fn replay(facts: &Facts, workspace: &Standing, guards: Guards) -> Option<Decision> {
    let lost = facts.replayed.filter(|_| guards.hold(Guard::ReplayFirst))?;
    let valid = match facts.presented {
        Presented::Credential(held) => held.state.is_live(),
        Presented::Passport(held) => held.state.opens(),
        Presented::Nothing | Presented::Stranger => false,
    };
    let unused = !lost.used && lost.state == State::Pending;
    let current = lost.generation == Some(workspace.current) && !workspace.removed;
    (facts.call == Call::Register && current && unused && !valid)
        .then_some(Decision::Remint { lost: lost.id, generation: workspace.current })
}

fn by_credential(
    call: Call,
    workspace: &Standing,
    held: Credential,
    guards: Guards,
) -> Option<Decision> {
    let generation = held.generation?;
    let pending = held.state == State::Pending;
    let activates = call.is_use() && pending;
    if held.state.is_live() {
        let older = generation < workspace.current && !guards.hold(Guard::OneWriter);
        if generation == workspace.current || older {
            return Some(Decision::Current { generation: workspace.current, activates });
        }
        if workspace.is_candidate(generation, guards) {
            let known = pending || guards.hold(Guard::CandidateActive);
            return known.then_some(Decision::Candidate { generation, mints: false, activates });
        }
        if pending && workspace.is_planned(generation, guards) {
            return Some(if call.is_use() {
                Decision::TakesOver { generation, mints: false }
            } else {
                Decision::Early { generation }
            });
        }
    }
    if call != Call::Register || held.state.is_live() || !workspace.may_bootstrap() {
        return None;
    }
    if !guards.hold(Guard::ReEnrolByGeneration) {
        return Some(workspace.bootstraps(guards));
    }
    // A race that its rightful holder lost. A superseded credential never comes back this way.
    let ended = matches!(held.state, State::Revoked | State::Lapsed);
    (ended && workspace.may_re_enrol(generation)).then_some(Decision::ReEnrols { generation })
}

fn by_passport(
    call: Call,
    workspace: &Standing,
    held: Passport,
    guards: Guards,
) -> Option<Decision> {
    if call != Call::Register {
        return None;
    }
    let generation = held.generation;
    let again = held.state == PassportState::Redeemed && guards.hold(Guard::PassportAgain);
    if held.state == PassportState::Open || again {
        if generation == workspace.current {
            return Some(Decision::Redeems { generation });
        }
        if workspace.is_candidate(generation, guards) {
            return Some(Decision::Candidate { generation, mints: true, activates: false });
        }
        if workspace.is_planned(generation, guards) {
            return Some(Decision::TakesOver { generation, mints: true });
        }
    }
    let ended = matches!(held.state, PassportState::Spent | PassportState::Revoked);
    let lost = ended && workspace.may_bootstrap();
    (lost && workspace.may_re_enrol(generation)).then_some(Decision::ReEnrols { generation })
}

/// An api credential lets an external workspace's operator serve by it.
fn by_api(facts: &Facts, workspace: &Standing, guards: Guards) -> Option<Decision> {
    if facts.call == Call::Rotate || (workspace.managed && !facts.compat) {
        return None;
    }
    let opens = facts.call == Call::Register && !workspace.live;
    let next = opens.then(|| workspace.next(guards));
    let abandons = next.and_then(|(_, abandons)| abandons);
    Some(Decision::Api { opens: next.map(|(generation, _)| generation), abandons })
}

/// The contract lets everybody in where nothing is live: also whom a newer credential replaced, and where the
/// bootstrap is sealed.
fn by_open_door(facts: &Facts, workspace: &Standing, guards: Guards) -> Option<Decision> {
    if !facts.compat || workspace.live {
        return None;
    }
    match facts.call {
        Call::Register => Some(workspace.bootstraps(guards)),
        Call::Heartbeat | Call::UpdateCard => {
            Some(Decision::LetThrough { generation: workspace.current })
        }
        Call::Rotate => None,
    }
}

fn unknown_id(facts: &Facts) -> Decision {
    if facts.purged {
        return removed(facts);
    }
    match facts.call {
        Call::Register if facts.open_registration => Decision::Creates,
        Call::Heartbeat | Call::UpdateCard if facts.compat => Decision::Ignored,
        Call::Register | Call::Heartbeat | Call::UpdateCard | Call::Rotate => {
            refusal(facts, Line::UnknownId, None)
        }
    }
}

fn removed(facts: &Facts) -> Decision {
    if facts.compat && facts.call != Call::Rotate {
        return Decision::Ignored;
    }
    let told =
        facts.presented.is_held().then_some(Told { code: Code::Revoked, action: Action::Exit });
    refusal(facts, Line::Removed, told)
}

fn refusal(facts: &Facts, line: Line, told: Option<Told>) -> Decision {
    let bearer = facts.presented != Presented::Nothing;
    Decision::Refused(Refusal { line, bearer, told, heard: false })
}

fn refuse(facts: &Facts, workspace: &Standing, guards: Guards) -> Decision {
    let former = match facts.presented {
        Presented::Nothing => return refusal(facts, Line::Nothing, None),
        Presented::Stranger => return refusal(facts, Line::Stranger, None),
        // A live api credential of a managed workspace is valid elsewhere; here it is nobody's.
        Presented::Credential(c) if c.kind == Kind::Api && c.state.is_live() => {
            return refusal(facts, Line::Stranger, None);
        }
        Presented::Credential(c) => Former {
            state: c.state,
            generation: c.generation.unwrap_or(workspace.current),
            newer_used: c.newer_used,
        },
        Presented::Passport(p) => Former {
            state: match p.state {
                PassportState::Open | PassportState::Redeemed | PassportState::Expired => {
                    State::Lapsed
                }
                PassportState::Spent => State::Superseded,
                PassportState::Revoked => State::Revoked,
            },
            generation: p.generation,
            newer_used: p.state == PassportState::Spent && workspace.live,
        },
    };
    let told = tell(facts.call, workspace, former, guards);
    let heard = workspace.just_revoked
        && former.state == State::Revoked
        && former.generation == workspace.current
        && matches!(told.action, Action::Wait(_));
    let told = Some(told);
    Decision::Refused(Refusal { line: Line::FormerHolder, bearer: true, told, heard })
}

/// Whoever held a valid credential or passport of the workspace once.
#[derive(Clone, Copy)]
struct Former {
    state: State,
    generation: Generation,
    newer_used: bool,
}

/// What a former holder is told, tried in the order of the table.
fn tell(call: Call, workspace: &Standing, former: Former, guards: Guards) -> Told {
    let Former { state, generation, newer_used } = former;
    let code = match state {
        State::Pending | State::Active | State::Superseded => Code::Superseded,
        State::Revoked => Code::Revoked,
        State::Lapsed => Code::Lapsed,
    };
    // Planning another one takes that the one before it is over.
    let over = generation < workspace.newest || workspace.newest_is == Newest::Abandoned;
    let abandoned = generation > workspace.current && over;
    // Somebody took the workspace up while its instance ran. Until a backend is told where the new one is, or replaces
    // it, the old one is what it has: were it to end, that would be taken for the end of the workspace's instance.
    let bound = workspace.born == Some(generation);
    let replaced = match guards.hold(Guard::ExitByGeneration) {
        true => generation < workspace.current && !bound || abandoned,
        false => state == State::Superseded,
    };
    // Only a backend's instance is ever told to exit: nobody would start an external agent again.
    if replaced && (workspace.managed || !guards.hold(Guard::NeverExitExternal)) {
        return Told { code: Code::Superseded, action: Action::Exit };
    }
    if newer_used && !replaced {
        return Told { code: Code::Superseded, action: Action::RereadCredential };
    }
    if workspace.may_bootstrap() && state != State::Superseded {
        let waits = workspace.just_revoked && call == Call::Heartbeat;
        let action = if waits { Action::Wait(WAIT_FOR_REPLACEMENT) } else { Action::Register };
        return Told { code, action };
    }
    let action =
        if workspace.managed { Action::Wait(WAIT_FOR_REPLACEMENT) } else { Action::Register };
    Told { code, action }
}
