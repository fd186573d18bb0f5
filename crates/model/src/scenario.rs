//! The situations that are explored, each to its last state.

use ligand_agent::guards::Guards as AgentGuards;
use ligand_agent::holdings::Disk;
use ligand_domain::admission::Bootstrap;
use ligand_domain::guards::Guards;
use ligand_domain::instance::Phase;

use crate::admit::Site;
use crate::agent::Recipe;
use crate::world::{Budget, Credential, Row, World};
use ligand_domain::credential::{Origin, State};

/// One situation: what there is, and what may happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// A backend runs the instances.
    pub managed: bool,
    /// Nobody takes the workspace up without a credential, unless an administrator opens it.
    pub sealed: bool,
    /// Instances get a passport in their start-up data, no file.
    pub by_passport: bool,
    /// The runtime is somebody else's.
    pub foreign: bool,
    /// Instances come up later than an unused credential would be kept.
    pub slow: bool,
    /// A migration's data bring the source's credential files along.
    pub copies_files: bool,
    /// The source of a migration cannot stand by: it is stopped.
    pub old_source: bool,
    /// The network keeps no copies.
    pub no_copies: bool,
    /// A migration's target does not get every secret, or fails at its turn.
    pub withholds: bool,
    /// Nothing that heals by waiting, by replacement or by calling off is counted on.
    pub strict: bool,
    /// Agents die and come up again, between any two of their writes.
    pub crashes: bool,
    /// Disks fill up, and have room again.
    pub fills: bool,
    /// Instances, or the disks of external agents, are lost.
    pub losses: bool,
    /// Servers die around the start of an instance.
    pub server_crashes: bool,
    /// What is ended may go on running.
    pub zombies: bool,
    /// There is another replica, which acts late.
    pub replicas: bool,
    /// The first instance serves already, or the agent has its first credential.
    pub serving: bool,
    /// What may happen.
    pub budget: Budget,
    /// Which of the platform's rules hold.
    pub guards: Guards,
    /// Which of the agent's rules hold.
    pub agent_guards: AgentGuards,
}

const NOTHING: Budget = Budget {
    faults: 0,
    restarts: 0,
    revokes: 0,
    rotations: 0,
    deliveries: 0,
    migrations: 0,
    aborts: 0,
    moves: 0,
    strangers: 0,
    thieves: 0,
    sweeps: 0,
};

/// A managed, sealed workspace whose instance serves, and to which nothing happens.
const MANAGED: Scenario = Scenario {
    name: "",
    managed: true,
    sealed: true,
    by_passport: false,
    foreign: false,
    slow: false,
    copies_files: false,
    old_source: false,
    no_copies: false,
    withholds: false,
    strict: false,
    crashes: false,
    fills: false,
    losses: false,
    server_crashes: false,
    zombies: false,
    replicas: false,
    serving: true,
    budget: NOTHING,
    guards: Guards::ON,
    agent_guards: AgentGuards::ON,
};

/// An external workspace with an open door.
const EXTERNAL: Scenario = Scenario { managed: false, sealed: false, ..MANAGED };

/// Every scenario of the normal run. With `far`, one fault more in each that has any.
#[must_use]
pub fn all(far: bool) -> Vec<Scenario> {
    let mut all =
        [managed(), starts(), start_data(), external(), special(), migrations(), troubled()]
            .concat();
    if far {
        for scenario in all.iter_mut().filter(|scenario| scenario.budget.faults > 0) {
            scenario.budget.faults += 1;
        }
    }
    all
}

/// By name.
#[must_use]
pub fn named(name: &str) -> Option<Scenario> {
    all(false).into_iter().find(|scenario| scenario.name == name)
}

fn managed() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "first-start",
            serving: false,
            crashes: true,
            losses: true,
            server_crashes: true,
            budget: Budget { faults: 2, strangers: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "restart",
            crashes: true,
            losses: true,
            server_crashes: true,
            budget: Budget { faults: 2, restarts: 2, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "restart-with-zombies",
            zombies: true,
            budget: Budget { faults: 2, restarts: 1, revokes: 1, thieves: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "restart-and-revoke",
            losses: true,
            budget: Budget { faults: 1, restarts: 1, revokes: 1, strangers: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "two-replicas",
            replicas: true,
            losses: true,
            budget: Budget { faults: 2, restarts: 2, ..NOTHING },
            ..MANAGED
        },
    ]
}

fn starts() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "resumed-start",
            serving: false,
            strict: true,
            server_crashes: true,
            budget: Budget { faults: 2, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "slow-start",
            serving: false,
            slow: true,
            budget: Budget { restarts: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "foreign-runtime",
            sealed: false,
            foreign: true,
            serving: false,
            losses: true,
            crashes: true,
            budget: Budget { faults: 1, restarts: 1, revokes: 1, strangers: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "managed-rotation",
            crashes: true,
            budget: Budget { faults: 1, restarts: 1, rotations: 1, ..NOTHING },
            ..MANAGED
        },
    ]
}

fn start_data() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "passport",
            by_passport: true,
            serving: false,
            crashes: true,
            losses: true,
            server_crashes: true,
            budget: Budget { faults: 2, restarts: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "passport-reply-lost",
            by_passport: true,
            serving: false,
            strict: true,
            crashes: true,
            budget: Budget { faults: 2, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "passport-and-revoke",
            by_passport: true,
            budget: Budget { faults: 1, restarts: 1, revokes: 1, strangers: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "foreign-start-data",
            sealed: false,
            foreign: true,
            by_passport: true,
            serving: false,
            losses: true,
            server_crashes: true,
            budget: Budget { faults: 1, restarts: 1, revokes: 1, strangers: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "foreign-start-data-zombies",
            sealed: false,
            foreign: true,
            by_passport: true,
            serving: false,
            crashes: true,
            zombies: true,
            budget: Budget { faults: 3, restarts: 1, ..NOTHING },
            ..MANAGED
        },
    ]
}

fn external() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "external-open",
            serving: false,
            crashes: true,
            budget: Budget { faults: 2, revokes: 1, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-open-strict",
            serving: false,
            strict: true,
            crashes: true,
            budget: Budget { faults: 2, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-two-revocations",
            budget: Budget { faults: 2, revokes: 2, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-with-stranger",
            losses: true,
            budget: Budget { faults: 1, revokes: 1, strangers: 1, thieves: 1, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-sealed",
            sealed: true,
            crashes: true,
            losses: true,
            budget: Budget { faults: 2, revokes: 1, strangers: 1, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-foreign",
            foreign: true,
            serving: false,
            crashes: true,
            budget: Budget { faults: 2, revokes: 1, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-rotation",
            strict: true,
            fills: true,
            crashes: true,
            budget: Budget { faults: 3, rotations: 3, ..NOTHING },
            ..EXTERNAL
        },
        Scenario {
            name: "external-delivery",
            strict: true,
            sealed: true,
            crashes: true,
            budget: Budget { faults: 1, deliveries: 1, rotations: 1, ..NOTHING },
            ..EXTERNAL
        },
    ]
}

fn special() -> Vec<Scenario> {
    vec![Scenario {
        name: "sweeper",
        losses: true,
        budget: Budget { faults: 1, restarts: 1, sweeps: 2, ..NOTHING },
        ..MANAGED
    }]
}

fn migrations() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "migration-undisturbed",
            strict: true,
            budget: Budget { migrations: 1, restarts: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration",
            crashes: true,
            losses: true,
            server_crashes: true,
            budget: Budget { faults: 1, migrations: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration-and-revoke",
            budget: Budget { faults: 1, migrations: 1, revokes: 1, sweeps: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration-and-restart",
            replicas: true,
            budget: Budget { faults: 1, migrations: 1, restarts: 2, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration-with-zombies",
            zombies: true,
            server_crashes: true,
            budget: Budget { faults: 2, migrations: 1, aborts: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration-with-thief",
            zombies: true,
            budget: Budget { faults: 1, migrations: 1, thieves: 1, strangers: 1, ..NOTHING },
            ..MANAGED
        },
    ]
}

fn troubled() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "migration-withheld",
            withholds: true,
            budget: Budget { faults: 2, migrations: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            // A copy of what an agent said while it stood by for the first would count for the second.
            name: "migration-twice",
            no_copies: true,
            crashes: true,
            server_crashes: true,
            budget: Budget { faults: 1, migrations: 2, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration-stops-source",
            old_source: true,
            losses: true,
            server_crashes: true,
            zombies: true,
            budget: Budget { faults: 1, migrations: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "migration-with-copied-files",
            copies_files: true,
            budget: Budget { faults: 1, migrations: 1, strangers: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "foreign-migrator",
            strict: true,
            budget: Budget { moves: 1, ..NOTHING },
            ..MANAGED
        },
        Scenario {
            name: "foreign-migrator-disturbed",
            crashes: true,
            losses: true,
            budget: Budget { faults: 1, moves: 1, ..NOTHING },
            ..MANAGED
        },
    ]
}

impl Scenario {
    pub(crate) fn site(&self) -> Site {
        let bootstrap = if self.sealed { Bootstrap::Sealed } else { Bootstrap::Open };
        let start_data = self.foreign && self.by_passport;
        Site { managed: self.managed, bootstrap, start_data, guards: self.guards }
    }

    pub(crate) fn recipe(&self) -> Recipe {
        Recipe {
            foreign: self.foreign,
            by_passport: self.by_passport,
            slow: self.slow,
            copies_files: self.copies_files,
            stands_by: !self.old_source && !self.foreign,
            waits: false,
            guards: self.agent_guards,
        }
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> World {
        let (site, recipe) = (self.site(), self.recipe());
        let mut world = World::new(self.budget);
        if !self.serving {
            if !self.managed {
                world.agents.push(recipe.agent(&site, 0, None, Disk::default()));
            }
            return world.tidied();
        }
        (world.current, world.newest, world.writer, world.online) = (1, 1, 1, true);
        let token = world.mint(&site, Origin::Start, Credential::pending(1));
        let born = u8::from(self.managed);
        let disk = Disk { token: Some(token), ..Disk::default() };
        world.agents.push(recipe.agent(&site, born, None, disk));
        let used = &mut world.credentials[0];
        (used.state, used.used) = (State::Active, true);
        world.rows.push(Row {
            generation: 1,
            born,
            phase: Phase::Serving,
            silent: false,
            overdue: false,
        });
        world.tidied()
    }
}
