//! Who is let in: one pure function over facts that were loaded in one transaction.
//!
//! [`decide`] tries the lines of the admission table in order, and the first that matches decides. The
//! store applies the decision, and mints what it asks for, in the same transaction, so there is no gap
//! between being asked and being answered.

use std::time::Duration;

use crate::credential::{Credential, Kind, Passport, PassportState, State};
use crate::guards::Guards;
use crate::id::{CredentialId, Generation};

/// What a managed agent that will be replaced is told to wait before it asks again.
pub const WAIT_FOR_REPLACEMENT: Duration = Duration::from_secs(5);

/// Which call asks to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Takes up an identity.
    Register,
    /// Keeps it alive.
    Heartbeat,
    /// Changes the agent card. Not a use of a pending credential.
    UpdateCard,
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
}

impl Standing {
    fn may_bootstrap(&self) -> bool {
        !self.live && (self.bootstrap == Bootstrap::Open || self.opened)
    }

    fn may_re_enrol(&self, generation: Generation) -> bool {
        let planned = generation == self.newest && self.newest_is == Newest::Planned;
        generation == self.current && generation != Generation::NONE || planned
    }

    fn is_candidate(&self, generation: Generation) -> bool {
        self.newest_is == Newest::Candidate && generation == self.newest
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
    /// A migration's candidate: it is known as such, and nothing of the workspace changes.
    Candidate {
        /// Its generation.
        generation: Generation,
        /// It presented a passport, so a credential is minted for it.
        mints: bool,
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
    /// Not let in.
    Refused(Refusal),
}

/// Which line of the table refused. For the journal; a stranger never sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The workspace is removed or purged.
    Removed,
    /// A credential that was valid once.
    FormerHolder,
    /// A bearer that was never valid here.
    Stranger,
    /// No bearer.
    Nothing,
    /// No such workspace.
    UnknownId,
}

impl Line {
    /// As the journal says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "the workspace is removed",
            Self::FormerHolder => "the credential was valid once",
            Self::Stranger => "the credential was never issued here",
            Self::Nothing => "no credential was presented",
            Self::UnknownId => "no such workspace",
        }
    }
}

/// A refusal, and what the caller may be told about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which line refused.
    pub line: Line,
    /// A bearer was sent: the contract's text is "invalid …", else "missing …".
    pub bearer: bool,
    /// Why and what to do; only for somebody who proved to be a former holder.
    pub told: Option<Told>,
}

/// Why a former holder is refused, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Something newer was used.
    Superseded,
    /// A person ended it.
    Revoked,
    /// It was never used, or its start was given up.
    Lapsed,
}

impl Code {
    /// Text form on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
            Self::Lapsed => "lapsed",
        }
    }
}

/// What a former holder should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A newer credential was delivered: read the file again.
    RereadCredential,
    /// A successor serves, or the workspace is gone: stop, for good.
    Exit,
    /// Ask to be enrolled anew.
    Register,
    /// The platform is replacing it; ask again after this long.
    Wait(Duration),
}

impl Action {
    /// Text form on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RereadCredential => "reread-credential",
            Self::Exit => "exit",
            Self::Register => "register",
            Self::Wait(_) => "wait",
        }
    }
}

/// What a former holder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Why.
    pub code: Code,
    /// The cure.
    pub action: Action,
}

/// Decide. Total: every combination of facts has an answer.
#[must_use]
pub fn decide(facts: &Facts, guards: Guards) -> Decision {
    let _ = guards;
    let Some(workspace) = &facts.workspace else { return unknown_id(facts) };
    if let Some(decision) = replay(facts, workspace) {
        return decision;
    }
    if workspace.removed {
        return refuse_removed(facts);
    }
    let registers = facts.call == Call::Register;
    let decision = match facts.presented {
        Presented::Credential(c) if c.kind == Kind::Instance => {
            by_credential(facts.call, workspace, c)
        }
        Presented::Credential(c) if c.state.is_live() => by_api(workspace, registers),
        Presented::Credential(_) => None,
        Presented::Passport(passport) => by_passport(registers, workspace, passport),
        Presented::Nothing | Presented::Stranger => {
            (registers && workspace.may_bootstrap()).then(|| Decision::Bootstraps {
                generation: workspace.newest.next(),
                abandons: (workspace.newest_is == Newest::Planned).then_some(workspace.newest),
            })
        }
    };
    decision.unwrap_or_else(|| refuse(facts, workspace))
}

/// The answer to an earlier register was lost, and its sender asks again.
fn replay(facts: &Facts, workspace: &Standing) -> Option<Decision> {
    let lost = facts.replayed?;
    let valid = matches!(facts.presented, Presented::Credential(c) if c.state.is_live());
    let unused = !lost.used && matches!(lost.state, State::Pending | State::Lapsed);
    let current = lost.generation == Some(workspace.current);
    (facts.call == Call::Register && current && unused && !valid)
        .then_some(Decision::Remint { lost: lost.id, generation: workspace.current })
}

fn by_credential(call: Call, workspace: &Standing, held: Credential) -> Option<Decision> {
    let generation = held.generation?;
    let is_use = call != Call::UpdateCard;
    if held.state.is_live() {
        if generation == workspace.current {
            let activates = is_use && held.state == State::Pending;
            return Some(Decision::Current { generation, activates });
        }
        if workspace.is_candidate(generation) {
            return Some(Decision::Candidate { generation, mints: false });
        }
        let pending = held.state == State::Pending;
        if pending && generation == workspace.newest && workspace.newest_is == Newest::Planned {
            return Some(if is_use {
                Decision::TakesOver { generation, mints: false }
            } else {
                Decision::Early { generation }
            });
        }
    }
    // A race that its rightful holder lost. A superseded credential never comes back this way.
    let ended = matches!(held.state, State::Revoked | State::Lapsed);
    let re_enrols = ended && workspace.may_bootstrap() && workspace.may_re_enrol(generation);
    (call == Call::Register && re_enrols).then_some(Decision::ReEnrols { generation })
}

fn by_passport(registers: bool, workspace: &Standing, held: Passport) -> Option<Decision> {
    if !registers {
        return None;
    }
    let generation = held.generation;
    match held.state {
        PassportState::Open if workspace.is_candidate(generation) => {
            Some(Decision::Candidate { generation, mints: true })
        }
        PassportState::Open
            if generation == workspace.newest && workspace.newest_is == Newest::Planned =>
        {
            Some(Decision::TakesOver { generation, mints: true })
        }
        PassportState::Spent if workspace.may_bootstrap() && workspace.may_re_enrol(generation) => {
            Some(Decision::ReEnrols { generation })
        }
        PassportState::Open | PassportState::Spent | PassportState::Revoked => None,
    }
}

/// An api credential lets an external workspace's operator serve by it.
fn by_api(workspace: &Standing, registers: bool) -> Option<Decision> {
    if workspace.managed {
        return None;
    }
    let opens = (registers && !workspace.live).then(|| workspace.newest.next());
    Some(Decision::Api { opens })
}

fn unknown_id(facts: &Facts) -> Decision {
    if facts.purged {
        return refuse_removed(facts);
    }
    if facts.call == Call::Register && facts.open_registration {
        return Decision::Creates;
    }
    Decision::Refused(Refusal { line: Line::UnknownId, bearer: bearer(facts), told: None })
}

fn refuse_removed(facts: &Facts) -> Decision {
    let told =
        facts.presented.is_held().then_some(Told { code: Code::Revoked, action: Action::Exit });
    Decision::Refused(Refusal { line: Line::Removed, bearer: bearer(facts), told })
}

fn bearer(facts: &Facts) -> bool {
    facts.presented != Presented::Nothing
}

fn refuse(facts: &Facts, workspace: &Standing) -> Decision {
    let (line, told) = match facts.presented {
        Presented::Nothing => (Line::Nothing, None),
        Presented::Stranger => (Line::Stranger, None),
        // A live api credential of a managed workspace is valid elsewhere; here it is nobody's.
        Presented::Credential(c) if c.kind == Kind::Api && c.state.is_live() => {
            (Line::Stranger, None)
        }
        Presented::Credential(c) => {
            let generation = c.generation.unwrap_or(workspace.current);
            (
                Line::FormerHolder,
                Some(tell(facts.call, workspace, c.state, generation, c.newer_used)),
            )
        }
        Presented::Passport(p) => {
            let state =
                if p.state == PassportState::Revoked { State::Revoked } else { State::Lapsed };
            (Line::FormerHolder, Some(tell(facts.call, workspace, state, p.generation, false)))
        }
    };
    Decision::Refused(Refusal { line, bearer: bearer(facts), told })
}

/// What a former holder is told, tried in the order of the table.
fn tell(
    call: Call,
    workspace: &Standing,
    state: State,
    generation: Generation,
    newer_used: bool,
) -> Told {
    let code = match state {
        State::Pending | State::Active | State::Superseded => Code::Superseded,
        State::Revoked => Code::Revoked,
        State::Lapsed => Code::Lapsed,
    };
    if newer_used {
        return Told { code: Code::Superseded, action: Action::RereadCredential };
    }
    let abandoned = generation == workspace.newest && workspace.newest_is == Newest::Abandoned;
    let older = generation < workspace.current;
    // Only a backend's instance is ever told to exit: nobody would start an external agent again.
    if (older || abandoned) && workspace.managed {
        return Told { code: Code::Superseded, action: Action::Exit };
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
