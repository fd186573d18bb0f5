//! What must hold, by name.

use std::fmt;

use ligand_domain::instance::Phase;
use ligand_domain::migration::Program;

use crate::reconcile::Next;
use crate::scenario::Scenario;
use crate::world::{Flaw, Mind, Outside, World};

/// A property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Property {
    /// What no single step may do.
    Never(Flaw),
    /// From every state, once nothing comes from outside any more, the way leads to health, and stays there.
    NoWedge,
}

impl Property {
    /// Every property.
    pub const ALL: [Self; 10] = [
        Self::Never(Flaw::OlderWriter),
        Self::Never(Flaw::Returned),
        Self::NoWedge,
        Self::Never(Flaw::Stranger),
        Self::Never(Flaw::BlindCutover),
        Self::Never(Flaw::LeftBehind),
        Self::Never(Flaw::Swept),
        Self::Never(Flaw::Exiled),
        Self::Never(Flaw::TwoFlights),
        Self::Never(Flaw::OldRotation),
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never(Flaw::OlderWriter) => "one-writer",
            Self::Never(Flaw::Returned) => "no-return",
            Self::NoWedge => "no-wedge",
            Self::Never(Flaw::Stranger) => "no-stranger",
            Self::Never(Flaw::BlindCutover) => "no-blind-cutover",
            Self::Never(Flaw::LeftBehind) => "no-work-is-left-behind",
            Self::Never(Flaw::Swept) => "sweepers-hurt-nothing-fresh",
            Self::Never(Flaw::Exiled) => "no-wanted-agent-is-told-to-exit",
            Self::Never(Flaw::TwoFlights) => "single-flight",
            Self::Never(Flaw::OldRotation) => "only-the-newest-rotation",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl World {
    /// Healthy: nothing is due or in flight, and one agent of the current generation serves with an active
    /// credential that is on its disk.
    #[must_use]
    pub fn healthy(&self, scenario: &Scenario) -> bool {
        let flights = self.migration.is_some() || self.order.is_some() || self.second;
        let row = self.row(self.current);
        let heard = row.is_some_and(|row| row.phase == Phase::Serving && !row.silent);
        let calm = !flights && self.half_planned.is_none() && self.newest == self.current;
        let rotated = scenario.foreign || self.serials().due().is_none();
        calm && heard
            && self.online
            && rotated
            && !self.held
            && self.moved(scenario)
            && self.next(&scenario.site()) == Next::Rest
            && self.agents.iter().any(|agent| match &agent.mind {
                Mind::Ours { disk, turn, .. } => {
                    let runs = matches!(agent.program, Program::Runs(_));
                    turn.is_some() && runs && self.serves_with(disk.token)
                }
                Mind::Foreign { file, held, .. } => *file == *held && self.serves_with(*held),
            })
    }

    /// Of a move nothing is left over, and undisturbed it led where it was to lead.
    fn moved(&self, scenario: &Scenario) -> bool {
        let done = match self.outside {
            None => true,
            Some(Outside::CalledOff) => !scenario.strict,
            Some(it) => it == Outside::Retired,
        };
        let born = self.row(self.current).map(|row| row.born);
        let leaks = scenario.budget.migrations > 0
            && self.agents.iter().any(|it| Some(it.born) != born && !it.unstoppable);
        done && !leaks
    }
}
