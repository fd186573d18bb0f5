//! What can happen, in words.

use std::fmt;

use ligand_agent::session::Call;
use ligand_domain::migration::Stage;

use crate::agent::Fate;
use crate::migrate::Move;
use crate::reconcile::{Mishap, Next, Why};

/// One step. Those that take from the budget come from outside; the others the world takes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The agent at this place makes its next call.
    Calls(u8, Fate),
    /// The kept copy of a request arrives.
    CopyArrives,
    /// The kept copy is dropped.
    CopyDropped,
    /// The agent dies and comes up again.
    Crashes(u8),
    /// The agent comes up again with an empty disk.
    DiskLost(u8),
    /// The agent's disk takes no more.
    DiskFills(u8),
    /// It takes more again.
    DiskHasRoom(u8),
    /// The instance is gone.
    Dies(u8),
    /// A slow instance is up at last.
    IsUp(u8),
    /// The operator of an external agent starts it anew.
    RestartedByHand(u8),
    /// The reconciler takes its step.
    Reconciles(Next, Mishap),
    /// The other half of a plan.
    Commits,
    /// A backend begins with what it was asked for.
    BackendBegins,
    /// Another replica decides to restart.
    SecondDecides,
    /// It acts on that.
    SecondActs,
    /// Nothing was heard of the current instance for a whole lease.
    LeaseLapses,
    /// A start takes too long.
    StartOverdue(u8),
    /// Nobody used this credential in time.
    Lapses(u8),
    /// The door that an administrator opened closes.
    DoorCloses,
    /// An administrator orders a restart.
    OrdersRestart,
    /// An administrator revokes every credential.
    Revokes,
    /// A person, asked for by the state, does so.
    PersonRevokes,
    /// A person, asked for by the state, delivers a new credential.
    PersonDelivers,
    /// An administrator orders a rotation.
    OrdersRotation,
    /// An operator revokes what there is, and puts a new credential into the agent's file.
    Delivers,
    /// An administrator starts a migration.
    Migrates,
    /// The migration takes its step.
    Moves(Move, Mishap),
    /// A phase of it takes too long.
    PhaseLate,
    /// An administrator wants it undone.
    Aborts,
    /// What failed is tried again.
    RetryDue,
    /// A migrator of somebody else's starts a target.
    OutsiderStarts,
    /// It revokes every credential.
    MigratorRevokes,
    /// It says where the instance is now.
    Repoints,
    /// It orders a restart.
    MigratorRestarts,
    /// It ends the source.
    MigratorRetires,
    /// It ends its target, and calls the move off.
    MigratorCallsOff,
    /// Nobody is told any more to wait for who comes first after a revocation.
    WaitIsOver,
    /// Somebody without a credential registers.
    StrangerRegisters,
    /// A thief takes a credential that is superseded, and keeps it.
    Steals(u8),
    /// It calls with that.
    ThiefCalls(Call),
    /// The sweeper finds that the workspace has live credentials and no instance.
    SweeperLooks,
    /// It acts on that.
    SweeperActs,
}

impl Action {
    /// Whether somebody or something has to go wrong for it.
    pub(crate) const fn is_fault(self) -> bool {
        match self {
            Self::Calls(_, fate) => !matches!(fate, Fate::Answered),
            Self::Reconciles(_, mishap) | Self::Moves(_, mishap) => !matches!(mishap, Mishap::None),
            Self::Crashes(_)
            | Self::DiskLost(_)
            | Self::DiskFills(_)
            | Self::Dies(_)
            | Self::SecondDecides => true,
            _ => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(at, fate) => write!(f, "agent {at} calls{fate}"),
            Self::CopyArrives => write!(f, "the kept copy of the request arrives"),
            Self::CopyDropped => write!(f, "the kept copy of the request is dropped"),
            Self::Crashes(at) => write!(f, "agent {at} dies, and comes up again"),
            Self::DiskLost(at) => write!(f, "agent {at} loses its disk, and comes up again"),
            Self::DiskFills(at) => write!(f, "the disk of agent {at} takes no more"),
            Self::DiskHasRoom(at) => write!(f, "the disk of agent {at} has room again"),
            Self::Dies(at) => write!(f, "the instance of agent {at} is gone"),
            Self::IsUp(at) => write!(f, "agent {at} is up, later than unused credentials are kept"),
            Self::RestartedByHand(at) => write!(f, "the operator starts agent {at} anew"),
            Self::Reconciles(next, mishap) => write!(f, "the reconciler {next}{mishap}"),
            Self::Commits => write!(f, "the credential of what was started is committed"),
            Self::BackendBegins => write!(f, "the backend begins with what it was asked for"),
            Self::SecondDecides => write!(f, "another replica decides to restart"),
            Self::SecondActs => write!(f, "the other replica acts on its decision"),
            Self::LeaseLapses => write!(f, "the lease of the current instance lapses"),
            Self::StartOverdue(it) => write!(f, "the start of generation {it} takes too long"),
            Self::Lapses(at) => write!(f, "nobody used credential {at} in time"),
            Self::DoorCloses => write!(f, "the door that an administrator opened closes"),
            Self::OrdersRestart => write!(f, "an administrator orders a restart"),
            Self::Revokes => write!(f, "an administrator revokes every credential"),
            Self::PersonRevokes => {
                write!(f, "a person, as the state asks, revokes every credential")
            }
            Self::PersonDelivers => {
                write!(f, "a person, as the state asks, delivers a new credential")
            }
            Self::OrdersRotation => write!(f, "an administrator orders a rotation"),
            Self::Delivers => {
                write!(
                    f,
                    "the operator revokes all, and writes a new credential into the agent's file"
                )
            }
            Self::Migrates => write!(f, "an administrator starts a migration"),
            Self::Moves(step, mishap) => write!(f, "the migration {step}{mishap}"),
            Self::PhaseLate => write!(f, "the phase of the migration takes too long"),
            Self::Aborts => write!(f, "an administrator wants the migration undone"),
            Self::RetryDue => write!(f, "what failed is tried again"),
            Self::OutsiderStarts => write!(f, "a migrator of somebody else's starts a target"),
            Self::MigratorRevokes => write!(f, "the migrator revokes every credential"),
            Self::Repoints => write!(f, "the migrator says where the instance is now"),
            Self::MigratorRestarts => write!(f, "the migrator orders a restart"),
            Self::MigratorRetires => write!(f, "the migrator ends the source"),
            Self::MigratorCallsOff => write!(f, "the migrator ends its target"),
            Self::WaitIsOver => write!(f, "the wait after the revocation is over"),
            Self::StrangerRegisters => write!(f, "a stranger registers without a credential"),
            Self::Steals(at) => write!(f, "a thief takes the superseded credential {at}"),
            Self::ThiefCalls(Call::Register) => write!(f, "the thief registers"),
            Self::ThiefCalls(_) => write!(f, "the thief sends a heartbeat"),
            Self::SweeperLooks => write!(f, "the sweeper finds live credentials and no instance"),
            Self::SweeperActs => write!(f, "the sweeper acts on what it saw"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => Ok(()),
            Self::Lost => write!(f, ", and the answer is lost"),
            Self::Copied => write!(f, ", and the network keeps a copy of the request"),
            Self::Withheld => write!(f, ", and does not get every secret"),
            Self::Dies(most) => {
                write!(f, ", hears the answer, and dies after {most} writes; it comes up again")
            }
        }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => write!(f, "rests"),
            Self::Plan(Why::Missing) => write!(f, "plans an instance"),
            Self::Plan(Why::Restart) => write!(f, "plans the restart"),
            Self::Plan(Why::Unreachable) => write!(f, "plans to replace the silent instance"),
            Self::Start(it) => write!(f, "starts generation {it}"),
            Self::Lost(it) => write!(f, "notes that generation {it} ended"),
            Self::GiveUp(it) => write!(f, "gives generation {it} up"),
            Self::Silent(it) => write!(f, "notes that generation {it} is silent"),
            Self::Retire(it) => write!(f, "ends generation {it}"),
        }
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => write!(f, "rests"),
            Self::Enter(phase) => write!(f, "enters {}", Stage::Before(*phase).as_str()),
            Self::Prepare => write!(f, "raises the generation for its target"),
            Self::Start => write!(f, "starts its target"),
            Self::Copy => write!(f, "copies data"),
            Self::Hold => write!(f, "lets messages wait"),
            Self::StandBy => write!(f, "tells the source to stand by"),
            Self::StopSource => write!(f, "stops the source"),
            Self::Complete => write!(f, "makes the last copy"),
            Self::Restore => write!(f, "puts the copy in its place"),
            Self::Run(serial) => write!(f, "tells the target to run, with secrets of {serial}"),
            Self::Probe => write!(f, "has the target do a turn"),
            Self::CutOver => write!(f, "cuts over"),
            Self::RollBack => write!(f, "is rolled back"),
            Self::DestroyTarget => write!(f, "destroys its target"),
            Self::Resume => write!(f, "tells the source to run, and lets messages go on"),
            Self::Release => write!(f, "lets messages go on to the target"),
            Self::Retire => write!(f, "destroys the source"),
            Self::Finish => write!(f, "is over"),
        }
    }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::DiesBefore => write!(f, "; the server dies before it asks the backend"),
            Self::DiesMeanwhile => write!(f, "; the server dies, and the backend has yet to begin"),
            Self::DiesAfter => write!(f, "; the server dies before it notes the start"),
            Self::GoesOn => write!(f, "; what it ends goes on running"),
            Self::Fails => write!(f, "; that fails"),
        }
    }
}
