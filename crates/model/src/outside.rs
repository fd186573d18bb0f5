//! A migrator of somebody else's, which knows nothing but the administrator's routes: it starts a target that has
//! nothing to prove itself with, revokes what the source has, waits until the target has the workspace, says where
//! the instance is now, orders a restart, and ends the source.

use ligand_agent::holdings::Disk;
use ligand_agent::session::Call;
use ligand_domain::credential::State;
use ligand_domain::instance::Phase;

use crate::action::Action;
use crate::admit::{Site, credential};
use crate::agent::Recipe;
use crate::scenario::Scenario;
use crate::world::{Agent, Mind, Outside, World};

/// What it may do next.
pub(crate) fn possible(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    let serving = world.row(world.current).is_some_and(|row| row.phase == Phase::Serving);
    let settled = serving && world.newest == world.current && !world.restart_due;
    let step = match world.outside {
        None if world.budget.moves > 0 && settled && world.at_rest() => {
            Some(Action::OutsiderStarts)
        }
        Some(Outside::Started) => Some(Action::MigratorRevokes),
        Some(Outside::Revoked) if world.outsider_serves() => Some(Action::Repoints),
        Some(Outside::Repointed) if settled => Some(Action::MigratorRestarts),
        Some(Outside::Restarted) if settled && world.online => Some(Action::MigratorRetires),
        _ => None,
    };
    found.extend(step);
    let early = matches!(world.outside, Some(Outside::Started | Outside::Revoked));
    if early && !scenario.strict && !world.outsider_serves() {
        found.push(Action::MigratorCallsOff);
    }
    if world.just_revoked && !comes(scenario, world) {
        found.push(Action::WaitIsOver);
    }
}

/// Undisturbed, its target comes while the door is open, and before the wait is over.
pub(crate) fn comes(scenario: &Scenario, world: &World) -> bool {
    scenario.strict && world.outside == Some(Outside::Revoked)
}

impl World {
    /// The source sends heartbeats. One that registers after the revocation is let in at once, and keeps its place.
    fn at_rest(&self) -> bool {
        let beats = |agent: &Agent| match &agent.mind {
            Mind::Ours { turn: Some(turn), .. } => turn.call == Call::Heartbeat,
            Mind::Ours { turn: None, .. } | Mind::Foreign { .. } => false,
        };
        self.online && self.agents.iter().all(beats)
    }

    /// The target that the migrator started is the workspace.
    fn outsider_serves(&self) -> bool {
        let serves = |agent: &Agent| {
            let active = |at: usize| {
                let it = &self.credentials[at];
                it.generation == self.current && it.state == State::Active
            };
            let mut all = 0..self.credentials.len();
            agent.outsider && all.any(|at| active(at) && agent.has(credential(at)))
        };
        self.agents.iter().any(serves)
    }

    pub(crate) fn outside(&mut self, site: &Site, recipe: &Recipe, action: Action) {
        let next = match action {
            Action::OutsiderStarts => {
                let target = recipe.agent(site, 0, None, Disk::default());
                self.agents.push(Agent { outsider: true, ..target });
                Outside::Started
            }
            Action::MigratorRevokes => {
                self.revoke(site);
                self.just_revoked = true;
                Outside::Revoked
            }
            Action::Repoints => {
                let current = self.current;
                for row in self.rows.iter_mut().filter(|row| row.generation == current) {
                    row.born = current;
                }
                for agent in self.agents.iter_mut().filter(|agent| agent.outsider) {
                    (agent.born, agent.stands) = (current, current);
                }
                Outside::Repointed
            }
            Action::MigratorRestarts => {
                self.restart_due = true;
                Outside::Restarted
            }
            Action::MigratorRetires => {
                let born = self.row(self.current).map(|row| row.born);
                self.leave(|agent| Some(agent.born) == born);
                Outside::Retired
            }
            _ => {
                self.leave(|agent| !agent.outsider);
                Outside::CalledOff
            }
        };
        self.outside = Some(next);
    }
}
