//! The simulator: the server's own code in virtual time, driven by a seed.
//!
//! A [`World`] has one database in memory, several replicas of the server on it, two fake backends, and agents
//! that behave well, badly or not at all. A step does one thing, chosen by the seed: a pass of the
//! reconciler, a call of an agent, a crash, a lie of the backend, the passing of time. A pass can be parked
//! at any call that it makes of its backend while the world goes on, resumed later, or never. After every
//! step the laws are checked against what the API and the backend say. At the end faults stop, and every
//! workspace that is meant to run must come online.
//!
//! The same seed gives the same trace, so a seed that fails is a test case.
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`world`] | the steps, and which comes next |
//! | [`calls`] | one server, and how it is asked |
//! | [`agents`] | who calls it: agents, zombies, thieves, strangers |
//! | [`door`] | where agents are called |
//! | [`messages`] | what is sent to them |
//! | [`migrations`] | workspaces leave one backend for another |
//! | [`faults`] | what goes wrong between the reconciler and its backend |
//! | [`passes`] | passes of reconcilers, whole and cut short |
//! | [`model`] | what the simulator knows of a workspace |
//! | [`invariants`] | the laws |
//! | [`quiet`] | the end: what must come true once faults stop |
//! | [`users`] | what people ask for |
//! | [`watch`] | how the world is looked at |
//! | [`trace`] | what happened, and how a violation is told |

pub mod agents;
pub mod calls;
pub mod dice;
pub mod door;
pub mod faults;
pub mod invariants;
pub mod messages;
pub mod migrations;
pub mod model;
pub mod passes;
pub mod quiet;
pub mod trace;
pub mod users;
pub mod watch;
pub mod world;

use ligand_domain::guards::Guards;

use self::trace::{Failure, Violation};
use self::world::World;

/// Steps of foul weather in one run.
pub const STEPS: u32 = 120;

/// What a run without a violation did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Steps, the rounds of quiet weather included.
    pub steps: u32,
    /// Calls that were answered.
    pub calls: u32,
    /// Instances that the backend started.
    pub starts: u64,
    /// Virtual seconds.
    pub seconds: u64,
    /// Every line of the trace.
    pub trace: Vec<String>,
}

/// Run one seed: foul weather, then quiet.
///
/// # Errors
/// The law that was broken, with the seed, the step and the end of the trace.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_under(seed, Guards::ON)
}

/// Run one seed, where only these rules hold.
///
/// # Errors
/// As [`run`].
pub fn run_under(seed: u64, guards: Guards) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs nothing but memory");
    runtime.block_on(Box::pin(async {
        let mut world = World::new(seed, guards).await;
        match Box::pin(weather(&mut world)).await {
            Ok(()) => Ok(world.report()),
            Err(violation) => Err(world.failure(violation)),
        }
    }))
}

async fn weather(world: &mut World) -> Result<(), Violation> {
    world.settle_in().await?;
    for _ in 0..STEPS {
        world.step().await?;
    }
    world.quiet().await
}
