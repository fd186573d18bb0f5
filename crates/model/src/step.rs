//! What a step does.

use ligand_agent::session::Call;
use ligand_domain::credential::State;
use ligand_domain::guards::Guard;
use ligand_domain::migration::Program;
use ligand_domain::sweep::{self, Holding, IDLE};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;

use crate::action::Action;
use crate::admit::{Site, credential, generation};
use crate::agent::Recipe;
use crate::reconcile::Why;
use crate::scenario::Scenario;
use crate::world::{Agent, Credential, Flaw, Knock, Mind, Retry, Token, World};

fn spend(left: &mut u8) {
    *left = left.saturating_sub(1);
}

/// Take a step.
pub(crate) fn taken(scenario: &Scenario, before: &World, action: Action) -> World {
    let mut world = before.clone();
    let (site, recipe) = (scenario.site(), scenario.recipe());
    world.pay(action);
    match action {
        Action::Reconciles(next, mishap) => world.take(&site, &recipe, next, mishap),
        Action::Moves(step, mishap) => world.go(&site, &recipe, step, mishap),
        Action::Commits
        | Action::BackendBegins
        | Action::SecondDecides
        | Action::SecondActs
        | Action::LeaseLapses
        | Action::StartOverdue(_)
        | Action::Lapses(_)
        | Action::DoorCloses
        | Action::PhaseLate
        | Action::RetryDue
        | Action::WaitIsOver
        | Action::SweeperLooks
        | Action::SweeperActs => by_itself(&mut world, &site, &recipe, action),
        Action::Calls(..)
        | Action::CopyArrives
        | Action::CopyDropped
        | Action::Crashes(_)
        | Action::RestartedByHand(_)
        | Action::DiskLost(_)
        | Action::DiskFills(_)
        | Action::DiskHasRoom(_)
        | Action::Dies(_)
        | Action::IsUp(_) => at_agents(&mut world, &site, &recipe, action),
        _ => by_people(&mut world, &site, &recipe, action),
    }
    world.note_superseded(&site);
    world.ask_for_person(scenario);
    world.tidied()
}

/// With an agent, or what it sent.
fn at_agents(world: &mut World, site: &Site, recipe: &Recipe, action: Action) {
    match action {
        Action::Calls(at, fate) => world.call(site, recipe, usize::from(at), fate),
        Action::CopyArrives => {
            if let Some(knock) = world.wire.take() {
                let _ = world.knock(site, knock);
            }
        }
        Action::CopyDropped => world.wire = None,
        Action::Crashes(at) | Action::RestartedByHand(at) => {
            world.crash(site, recipe, usize::from(at));
        }
        Action::DiskLost(at) => {
            world.lose_disk(site, recipe, usize::from(at));
            world.person = true;
        }
        Action::DiskFills(at) => world.agents[usize::from(at)].full = true,
        Action::DiskHasRoom(at) => world.agents[usize::from(at)].full = false,
        Action::Dies(at) => {
            let gone = world.agents[usize::from(at)].clone();
            world.leave(|agent| *agent != gone);
        }
        Action::IsUp(at) => world.is_up(usize::from(at)),
        _ => unreachable!("it is another's"),
    }
}

/// At the platform, and with time.
fn by_itself(world: &mut World, site: &Site, recipe: &Recipe, action: Action) {
    match action {
        Action::Commits => {
            let planned = world.half_planned.unwrap_or_default();
            world.commit(planned);
        }
        Action::BackendBegins => {
            if let Some((born, token)) = world.order.take() {
                world.agents.push(recipe.start(site, born, token));
            }
        }
        Action::SecondDecides => world.second = true,
        Action::SecondActs => {
            world.second = false;
            world.plan(site, recipe, Why::Restart);
        }
        Action::LeaseLapses => {
            let current = world.current;
            world
                .rows
                .iter_mut()
                .filter(|row| row.generation == current)
                .for_each(|row| row.silent = true);
        }
        Action::StartOverdue(it) => {
            world
                .rows
                .iter_mut()
                .filter(|row| row.generation == it)
                .for_each(|row| row.overdue = true);
        }
        Action::Lapses(at) => world.credentials[usize::from(at)].late = true,
        Action::DoorCloses => world.opened = false,
        Action::WaitIsOver => world.just_revoked = false,
        Action::PhaseLate => world.migration.iter_mut().for_each(|it| it.late = true),
        Action::RetryDue => world.migration.iter_mut().for_each(|it| it.retry = Retry::Due),
        Action::SweeperLooks => world.looked = true,
        Action::SweeperActs => world.sweep(site),
        _ => unreachable!("it is another's"),
    }
}

/// By administrators, operators, strangers and thieves, and what migrations do.
fn by_people(world: &mut World, site: &Site, recipe: &Recipe, action: Action) {
    match action {
        Action::OrdersRestart => {
            world.restart_due = true;
            world.serial += 1;
            world.agents.iter_mut().for_each(|agent| agent.turned = false);
        }
        Action::Revokes => world.revoke(site),
        Action::PersonRevokes => {
            world.person = false;
            world.revoke(site);
        }
        Action::PersonDelivers => {
            world.person = false;
            world.deliver_by_hand(site);
        }
        Action::OrdersRotation => world.wanted += 1,
        Action::Delivers => world.deliver_by_hand(site),
        Action::Migrates => world.migrate(),
        Action::Aborts => world.migration.iter_mut().for_each(|it| it.aborted = true),
        Action::OutsiderStarts
        | Action::MigratorRevokes
        | Action::Repoints
        | Action::MigratorRestarts
        | Action::MigratorRetires
        | Action::MigratorCallsOff => world.outside(site, recipe, action),
        Action::StrangerRegisters => {
            let program = Program::Unknown;
            let knock =
                Knock { from: None, call: Call::Register, bearer: None, key: None, program };
            let _ = world.knock(site, knock);
        }
        Action::Steals(at) => world.stolen = Some(Token::Credential(at)),
        Action::ThiefCalls(call) => {
            let program = Program::Unknown;
            let knock = Knock { from: None, call, bearer: world.stolen, key: None, program };
            let _ = world.knock(site, knock);
        }
        _ => unreachable!("it is another's"),
    }
}

impl World {
    fn pay(&mut self, action: Action) {
        let held = |at: u8| self.agents.iter().any(|agent| agent.has(Token::Credential(at)));
        let left: &mut u8 = match action {
            Action::Lapses(at) if held(at) => &mut self.budget.faults,
            _ if action.is_fault() => &mut self.budget.faults,
            Action::OrdersRestart => &mut self.budget.restarts,
            Action::Revokes => &mut self.budget.revokes,
            Action::OrdersRotation => &mut self.budget.rotations,
            Action::Delivers => &mut self.budget.deliveries,
            Action::Migrates => &mut self.budget.migrations,
            Action::Aborts => &mut self.budget.aborts,
            Action::OutsiderStarts => &mut self.budget.moves,
            Action::StrangerRegisters => &mut self.budget.strangers,
            Action::ThiefCalls(_) => &mut self.budget.thieves,
            Action::SweeperLooks => &mut self.budget.sweeps,
            _ => return,
        };
        spend(left);
    }

    /// Whether a value is the one that the current instance serves with.
    pub(crate) fn serves_with(&self, token: Option<Token>) -> bool {
        let Some(Token::Credential(at)) = token else { return false };
        let it = self.credentials[usize::from(at)];
        it.state == State::Active && it.generation == self.current
    }

    fn is_up(&mut self, at: usize) {
        self.agents[at].booting = false;
        for it in 0..self.credentials.len() {
            let own = self.agents[at].has(credential(it));
            let row = &mut self.credentials[it];
            row.late |= own && row.lapses && row.state == State::Pending;
        }
    }

    /// Where nobody but a person can tell the holder from a stranger, the state says so.
    fn ask_for_person(&mut self, scenario: &Scenario) {
        if scenario.managed {
            return;
        }
        let shut = scenario.sealed && !self.live() && !self.opened;
        let outdated = |agent: &Agent| match agent.mind {
            Mind::Foreign { held: Some(Token::Credential(at)), .. } => {
                let it = self.credentials[usize::from(at)];
                !it.now().is_live() && it.generation < self.current
            }
            _ => false,
        };
        self.person |= shut || self.agents.iter().any(outdated);
    }

    fn deliver_by_hand(&mut self, site: &Site) {
        for it in self.credentials.iter_mut().filter(|it| it.state.is_live()) {
            it.state = State::Revoked;
        }
        let new = Credential::pending(self.current);
        let token = self.mint(site, ligand_domain::credential::Origin::Start, new);
        for at in 0..self.agents.len() {
            self.put_file(at, token);
        }
    }

    /// The sweeper decides again on each credential in the statement that ends it. All are long unused here.
    fn sweep(&mut self, site: &Site) {
        self.looked = false;
        let starting = self.newest > self.current && self.row(self.newest).is_some();
        let status = if starting { Status::Provisioning } else { Status::Offline };
        let candidate = self.candidate();
        for at in 0..self.credentials.len() {
            let own = self.credentials[at].generation;
            let (own_generation, current) = (generation(own), generation(self.current));
            let used_at = Timestamp::EPOCH;
            let managed = site.managed;
            let holding = Holding { generation: own_generation, used_at, status, managed, current };
            let now = Timestamp::EPOCH.after(IDLE);
            let stale = sweep::stale(holding, now, site.guards);
            let ends = stale || !site.guards.hold(Guard::SweepInOneStatement);
            if ends && self.credentials[at].state.is_live() {
                self.credentials[at].state = State::Revoked;
                if own >= self.current || Some(own) == candidate {
                    self.broken(Flaw::Swept);
                }
            }
        }
    }
}
