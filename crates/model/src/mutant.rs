//! Every guard, and the property that misses it. A rule that no property misses is a rule that nobody proved.

use std::time::Duration;

use ligand_agent::guards::{Guard as AgentGuard, Guards as AgentGuards};
use ligand_domain::brake::{Census, State};
use ligand_domain::guards::{Guard, Guards};
use ligand_domain::lease::{self, Holder};
use ligand_domain::time::Timestamp;

use crate::explore::{Broken, breaks, started};
use crate::property::Property;
use crate::scenario::{self, Scenario};
use crate::world::Flaw;

/// A guard of either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either {
    /// The platform's.
    Platform(Guard),
    /// The agent's.
    Agent(AgentGuard),
}

impl Either {
    /// Every guard there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let platform = Guard::ALL.into_iter().map(Self::Platform);
        platform.chain(AgentGuard::ALL.into_iter().map(Self::Agent)).collect()
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform(guard) => guard.as_str(),
            Self::Agent(guard) => guard.as_str(),
        }
    }
}

/// How a guard is proved to carry load.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// Without it this scenario breaks this property.
    Explored(&'static str, Property),
    /// A small model of its own, in time: what must hold, and whether it does under these guards.
    Alone(&'static str, fn(Guards) -> bool),
    /// It is outside of what is modelled here, for this reason, and proved there.
    Elsewhere(&'static str),
}

/// The proof of each guard.
#[must_use]
pub const fn proof(guard: Either) -> Proof {
    match guard {
        Either::Platform(guard) => of_platform(guard),
        Either::Agent(guard) => of_agent(guard),
    }
}

const fn of_platform(guard: Guard) -> Proof {
    const NO_WEDGE: Property = Property::NoWedge;
    const EXILED: Property = Property::Never(Flaw::Exiled);
    const SWEPT: Property = Property::Never(Flaw::Swept);
    const CUTOVER: Property = Property::Never(Flaw::BlindCutover);
    match guard {
        Guard::ReplayFirst => Proof::Explored("external-open-strict", NO_WEDGE),
        Guard::PassportAgain => Proof::Explored("passport-reply-lost", NO_WEDGE),
        Guard::ResumeBeside => Proof::Explored("resumed-start", NO_WEDGE),
        Guard::ResumePlanned => Proof::Explored("resumed-start", NO_WEDGE),
        Guard::PlanCommits => Proof::Explored("resumed-start", NO_WEDGE),
        Guard::SingleFlight => Proof::Explored("two-replicas", Property::Never(Flaw::TwoFlights)),
        Guard::LapseWithStart => Proof::Explored("slow-start", NO_WEDGE),
        Guard::PendingIsLive => {
            Proof::Explored("restart-and-revoke", Property::Never(Flaw::Stranger))
        }
        Guard::NewestRotation => {
            Proof::Explored("external-rotation", Property::Never(Flaw::OldRotation))
        }
        Guard::ExitByGeneration => Proof::Explored("passport-reply-lost", EXILED),
        Guard::NeverExitExternal => Proof::Explored("external-open", EXILED),
        Guard::UnusedLapses => Proof::Explored("external-foreign", NO_WEDGE),
        Guard::ReEnrolByGeneration => {
            Proof::Explored("restart-and-revoke", Property::Never(Flaw::Returned))
        }
        Guard::CandidateActive => Proof::Explored("migration-undisturbed", NO_WEDGE),
        Guard::CandidateInert => Proof::Explored("migration-undisturbed", CUTOVER),
        Guard::SweepSparesCurrent | Guard::SweepInOneStatement => Proof::Explored("sweeper", SWEPT),
        Guard::OneWriter => {
            Proof::Explored("restart-with-zombies", Property::Never(Flaw::Returned))
        }
        Guard::GraceAfterStart => {
            Proof::Alone("no lease lapses before a full term after a server start", grace)
        }
        Guard::Brake => {
            Proof::Alone("while most of a fleet is silent, none is replaced for it", brake)
        }
        Guard::WorkspaceBucket => Proof::Elsewhere(
            "requests and their rates are not modelled; shown by the server's tests of its limits",
        ),
        Guard::Receipt => Proof::Explored("migration-withheld", CUTOVER),
        Guard::LeaseAttempt => {
            Proof::Elsewhere("messages are not modelled; shown by the server's tests of the ledger")
        }
        Guard::StreamSequence => Proof::Elsewhere(
            "watchers are not modelled; shown by the server's tests of streams and by a drill",
        ),
        Guard::CutOverEvidence => Proof::Explored("migration", CUTOVER),
        Guard::CutOverRereads => Proof::Explored("migration-and-revoke", CUTOVER),
        Guard::RollBackRevokes => Proof::Explored("migration-with-zombies", CUTOVER),
        Guard::ForeignSuperseded | Guard::ForeignPlanned => {
            Proof::Explored("foreign-start-data", NO_WEDGE)
        }
        Guard::ForeignAddress => {
            Proof::Explored("foreign-start-data-zombies", Property::Never(Flaw::Returned))
        }
    }
}

const fn of_agent(guard: AgentGuard) -> Proof {
    const NO_WEDGE: Property = Property::NoWedge;
    match guard {
        AgentGuard::KeyKept | AgentGuard::WriteBeforeUse => {
            Proof::Explored("external-open-strict", NO_WEDGE)
        }
        AgentGuard::RotateBeside => Proof::Explored("external-rotation", NO_WEDGE),
        AgentGuard::WithoutBearer => Proof::Explored("external-with-stranger", NO_WEDGE),
        AgentGuard::PassportBeforeFile => {
            Proof::Explored("migration-with-copied-files", Property::Never(Flaw::BlindCutover))
        }
        AgentGuard::RereadOnce => Proof::Explored("external-delivery", NO_WEDGE),
        AgentGuard::TurnOnce => Proof::Elsewhere(
            "messages are not modelled; shown by the agent's tests of turns, by chance and with sockets",
        ),
    }
}

/// A server is away for any time up to an hour, and looks at once when it is back.
fn grace(guards: Guards) -> bool {
    let seen = Timestamp::EPOCH;
    (0..3600).all(|away| {
        let started = seen.after(Duration::from_secs(away));
        let holders = [Holder::Plain, Holder::External(lease::EXTERNAL_TERM)];
        holders.into_iter().all(|holder| {
            lease::lapses_at(seen, started, holder, guards) >= started.after(holder.term())
        })
    })
}

/// Most of a fleet of any size falls silent within a minute.
fn brake(guards: Guards) -> bool {
    (10..500).all(|running| {
        let silent = running * 8 / 10;
        let census = Census { running, silent, turned: silent };
        let state = State::Free.next(census, Timestamp::EPOCH, guards);
        matches!(state, State::Engaged { .. })
    })
}

/// A scenario without one guard.
#[must_use]
pub fn without(scenario: Scenario, guard: Either) -> Scenario {
    match guard {
        Either::Platform(guard) => Scenario { guards: Guards::without(guard), ..scenario },
        Either::Agent(guard) => Scenario { agent_guards: AgentGuards::without(guard), ..scenario },
    }
}

/// What became of a build without one guard.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The property that misses it, and the way to where it does not hold.
    Caught(Box<Broken>),
    /// The small model says so.
    CaughtAlone(&'static str),
    /// It is shown elsewhere, as said.
    Elsewhere(&'static str),
    /// Nothing noticed, or something else than was said.
    Missed(String),
}

/// Take one guard away, and look.
#[must_use]
pub fn hunt(guard: Either) -> (Verdict, Duration) {
    let begun = started();
    let verdict = match (proof(guard), guard) {
        (Proof::Elsewhere(why), _) => Verdict::Elsewhere(why),
        (Proof::Alone(says, holds), Either::Platform(own)) => {
            match (holds(Guards::ON), holds(Guards::without(own))) {
                (true, false) => Verdict::CaughtAlone(says),
                (false, _) => Verdict::Missed(format!("`{says}` does not hold at all")),
                (true, true) => Verdict::Missed(format!("`{says}` holds without it")),
            }
        }
        (Proof::Alone(..), Either::Agent(_)) => Verdict::Missed("no such proof".to_owned()),
        (Proof::Explored(name, property), _) => explored(guard, name, property),
    };
    (verdict, begun.elapsed())
}

fn explored(guard: Either, name: &str, property: Property) -> Verdict {
    let Some(scenario) = scenario::named(name) else {
        return Verdict::Missed(format!("there is no scenario {name}"));
    };
    match breaks(&without(scenario, guard), property) {
        Some(broken) => Verdict::Caught(Box::new(broken)),
        None => Verdict::Missed(format!("{property} holds in {name} without it")),
    }
}
