//! What may happen next. What comes from outside takes from the budget, so that it ends.

use ligand_agent::session::Call;
use ligand_domain::credential::State;
use ligand_domain::instance::Phase;
use ligand_domain::migration::{Program, Stage};

use crate::action::Action;
use crate::admit::credential;
use crate::agent::Fate;
use crate::migrate::Move;
use crate::outside;
use crate::reconcile::{Mishap, Next, Why};
use crate::scenario::Scenario;
use crate::world::{Agent, Credential, Mind, Retry, Token, World};

/// What may happen, each with what it takes from the budget.
pub(crate) fn possible(scenario: &Scenario, world: &World) -> Vec<Action> {
    let mut found = Vec::new();
    if world.flaw.is_some() {
        return found;
    }
    by_agents(scenario, world, &mut found);
    by_platform(scenario, world, &mut found);
    by_time(scenario, world, &mut found);
    by_people(scenario, world, &mut found);
    found
}

fn by_agents(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    let faults = world.budget.faults > 0;
    for (at, agent) in (0u8..).zip(&world.agents) {
        if agent.booting {
            found.push(Action::IsUp(at));
            continue;
        }
        let ours = match &agent.mind {
            Mind::Ours { turn: None, .. } => continue,
            Mind::Ours { turn: Some(_), .. } => true,
            Mind::Foreign { held, registered, .. } => {
                if *registered && !scenario.managed && !world.serves_with(*held) {
                    found.push(Action::RestartedByHand(at));
                }
                false
            }
        };
        found.push(Action::Calls(at, Fate::Answered));
        if agent.full {
            found.push(Action::DiskHasRoom(at));
        }
        if faults {
            found.push(Action::Calls(at, Fate::Lost));
            if world.wire.is_none() && !scenario.no_copies {
                found.push(Action::Calls(at, Fate::Copied));
            }
            let fetches = scenario.withholds && agent.program == Program::StandsBy;
            if fetches && world.candidate() == Some(agent.born) {
                found.push(Action::Calls(at, Fate::Withheld));
            }
            if ours && scenario.crashes {
                found.extend((0..3).map(|most| Action::Calls(at, Fate::Dies(most))));
            }
            if scenario.crashes {
                found.push(Action::Crashes(at));
            }
            if scenario.fills && !agent.full {
                found.push(Action::DiskFills(at));
            }
            if scenario.losses {
                found.push(if scenario.managed { Action::Dies(at) } else { Action::DiskLost(at) });
            }
        }
    }
    if world.wire.is_some() {
        found.extend([Action::CopyArrives, Action::CopyDropped]);
    }
}

fn by_platform(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    let site = scenario.site();
    let faults = world.budget.faults > 0;
    if world.half_planned.is_some() {
        found.push(Action::Commits);
    } else {
        let next = world.next(&site);
        if next != Next::Rest && !(scenario.strict && next.replaces()) {
            found.push(Action::Reconciles(next, Mishap::None));
            if faults && scenario.server_crashes && matches!(next, Next::Start(_)) {
                let mishaps = [Mishap::DiesBefore, Mishap::DiesMeanwhile, Mishap::DiesAfter];
                found.extend(mishaps.map(|mishap| Action::Reconciles(next, mishap)));
            }
            if faults && scenario.zombies && next.ends() {
                found.push(Action::Reconciles(next, Mishap::GoesOn));
            }
        }
        if faults && scenario.replicas && next == Next::Plan(Why::Restart) && !world.second {
            found.push(Action::SecondDecides);
        }
    }
    if world.order.is_some() {
        found.push(Action::BackendBegins);
    }
    if world.second {
        found.push(Action::SecondActs);
    }
    by_migration(scenario, world, found);
    if world.looked {
        found.push(Action::SweeperActs);
    } else if world.budget.sweeps > 0
        && world.live()
        && !world.rows.iter().any(|row| world.runs(row.born))
    {
        found.push(Action::SweeperLooks);
    }
}

fn by_migration(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    let Some(it) = &world.migration else { return };
    let (site, recipe) = (scenario.site(), scenario.recipe());
    let step = world.moves(&site, &recipe);
    // Undisturbed, it leads where it was to lead.
    if step != Move::Rest && !(scenario.strict && step == Move::RollBack) {
        found.push(Action::Moves(step, Mishap::None));
        let wrong = |mishap: &&Mishap| match mishap {
            Mishap::GoesOn => scenario.zombies,
            Mishap::Fails if step == Move::Probe => scenario.withholds,
            _ => scenario.server_crashes,
        };
        if world.budget.faults > 0 {
            let mishaps = step.mishaps().iter().filter(wrong);
            found.extend(mishaps.map(|mishap| Action::Moves(step, *mishap)));
        }
    }
    let early = matches!(it.stage, Stage::Before(_));
    if early && !it.late && !scenario.strict {
        found.push(Action::PhaseLate);
    }
    if it.retry == Retry::Waits {
        found.push(Action::RetryDue);
    }
    if world.budget.aborts > 0 && !it.aborted {
        found.push(Action::Aborts);
    }
}

fn by_time(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    if world.opened && !outside::comes(scenario, world) {
        found.push(Action::DoorCloses);
    }
    if scenario.strict {
        return;
    }
    let heard = world.agents.iter().any(|agent| world.is_heard(agent));
    let row = world.row(world.current).filter(|row| row.phase == Phase::Serving && !row.silent);
    if row.is_some() && !heard && world.candidate().is_none() {
        found.push(Action::LeaseLapses);
    }
    for row in &world.rows {
        let ahead = row.generation > world.current && world.candidate() != Some(row.generation);
        let waits = row.phase == Phase::Started && ahead && !row.overdue;
        let hopeful =
            world.agents.iter().any(|agent| agent.born == row.born && world.may_come(agent));
        if waits && !hopeful {
            found.push(Action::StartOverdue(row.generation));
        }
    }
    for (at, it) in (0u8..).zip(&world.credentials) {
        let token = Token::Credential(at);
        let held = world.agents.iter().any(|agent| agent.has(token));
        let due = it.lapses && !it.late && it.state == State::Pending;
        if due && (!held || world.budget.faults > 0) {
            found.push(Action::Lapses(at));
        }
    }
}

fn by_people(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    let left = &world.budget;
    let idle = world.migration.is_none();
    let serving = world.row(world.current).is_some_and(|row| row.phase == Phase::Serving);
    let mut when = |holds: bool, action: Action| {
        if holds {
            found.push(action);
        }
    };
    when(
        left.restarts > 0 && scenario.managed && serving && !world.restart_due,
        Action::OrdersRestart,
    );
    when(left.revokes > 0 && world.current > 0, Action::Revokes);
    // A runtime that always presents what it has is helped by nothing less than a new credential.
    when(world.person && !world.opened && !scenario.foreign, Action::PersonRevokes);
    when(world.person && scenario.foreign, Action::PersonDelivers);
    when(left.rotations > 0 && serving, Action::OrdersRotation);
    when(left.deliveries > 0 && serving && !scenario.managed, Action::Delivers);
    let settled = serving && !world.starts() && !world.restart_due;
    when(left.migrations > 0 && settled && idle, Action::Migrates);
    when(left.strangers > 0, Action::StrangerRegisters);
    outside::possible(scenario, world, found);
    let left = &world.budget;
    let mut when = |holds: bool, action: Action| {
        if holds {
            found.push(action);
        }
    };
    if left.thieves > 0 {
        match world.stolen {
            Some(_) => {
                when(true, Action::ThiefCalls(Call::Register));
                when(true, Action::ThiefCalls(Call::Heartbeat));
            }
            None => {
                let dead = |it: &Credential| it.state == State::Superseded;
                for (at, _) in (0u8..).zip(&world.credentials).filter(|(_, it)| dead(it)) {
                    when(true, Action::Steals(at));
                }
            }
        }
    }
}

impl World {
    /// Whether the platform would hear this agent as the current instance, sooner or later.
    fn is_heard(&self, agent: &Agent) -> bool {
        let live = |token: Option<Token>| match token {
            Some(Token::Credential(at)) => {
                let it = self.credentials[usize::from(at)];
                it.now().is_live() && it.generation == self.current
            }
            _ => false,
        };
        match &agent.mind {
            Mind::Ours { holdings, turn, .. } => {
                turn.is_some() && (live(holdings.held().copied()) || live(holdings.next().copied()))
            }
            Mind::Foreign { held, .. } => live(*held),
        }
    }

    /// Whether an instance that was started may still register.
    fn may_come(&self, agent: &Agent) -> bool {
        let newest = |it: &Credential| it.generation >= self.current && it.now().is_live();
        let by_file = self
            .credentials
            .iter()
            .enumerate()
            .any(|(at, it)| newest(it) && agent.has(credential(at)));
        let by_passport =
            agent.passport.is_some_and(|at| self.passports[usize::from(at)].state.opens());
        by_file || by_passport
    }
}

impl Next {
    /// It replaces an instance that was there.
    fn replaces(self) -> bool {
        matches!(
            self,
            Self::GiveUp(_) | Self::Lost(_) | Self::Silent(_) | Self::Plan(Why::Unreachable)
        )
    }

    /// It ends an instance.
    fn ends(self) -> bool {
        matches!(self, Self::GiveUp(_) | Self::Lost(_) | Self::Retire(_) | Self::Start(_))
    }
}
