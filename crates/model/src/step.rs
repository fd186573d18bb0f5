//! What can happen next, in words, and what it does.

use std::fmt;

use ligand_agent::session::Call;
use ligand_domain::credential::State;
use ligand_domain::guards::Guard;
use ligand_domain::instance::Phase;
use ligand_domain::sweep::{self, Holding, IDLE};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;

use crate::admit::{Site, credential, generation};
use crate::agent::{Fate, Recipe};
use crate::reconcile::{Mishap, Next, Why};
use crate::scenario::Scenario;
use crate::world::{Agent, Credential, Flaw, Knock, Mind, Token, World};

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
    /// The target of the migration starts.
    Provisions,
    /// It takes over.
    CutsOver,
    /// It is called off.
    RollsBack,
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
    const fn is_fault(self) -> bool {
        match self {
            Self::Calls(_, fate) => !matches!(fate, Fate::Answered),
            Self::Reconciles(_, mishap) => !matches!(mishap, Mishap::None),
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
    #[expect(clippy::too_many_lines, reason = "one line for each thing that can happen")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(at, fate) => {
                write!(f, "agent {at} calls")?;
                match fate {
                    Fate::Answered => Ok(()),
                    Fate::Lost => write!(f, ", and the answer is lost"),
                    Fate::Copied => write!(f, ", and the network keeps a copy of the request"),
                    Fate::Dies(most) => {
                        write!(
                            f,
                            ", hears the answer, and dies after {most} writes; it comes up again"
                        )
                    }
                }
            }
            Self::CopyArrives => write!(f, "the kept copy of the request arrives"),
            Self::CopyDropped => write!(f, "the kept copy of the request is dropped"),
            Self::Crashes(at) => write!(f, "agent {at} dies, and comes up again"),
            Self::DiskLost(at) => write!(f, "agent {at} loses its disk, and comes up again"),
            Self::DiskFills(at) => write!(f, "the disk of agent {at} takes no more"),
            Self::DiskHasRoom(at) => write!(f, "the disk of agent {at} has room again"),
            Self::Dies(at) => write!(f, "the instance of agent {at} is gone"),
            Self::IsUp(at) => write!(f, "agent {at} is up, later than unused credentials are kept"),
            Self::RestartedByHand(at) => write!(f, "the operator starts agent {at} anew"),
            Self::Reconciles(next, mishap) => {
                match next {
                    Next::Rest => write!(f, "the reconciler rests")?,
                    Next::Plan(Why::Missing) => write!(f, "the reconciler plans an instance")?,
                    Next::Plan(Why::Restart) => write!(f, "the reconciler plans the restart")?,
                    Next::Plan(Why::Unreachable) => {
                        write!(f, "the reconciler plans to replace the silent instance")?;
                    }
                    Next::Start(it) => write!(f, "the reconciler starts generation {it}")?,
                    Next::Lost(it) => write!(f, "the reconciler notes that generation {it} ended")?,
                    Next::GiveUp(it) => write!(f, "the reconciler gives generation {it} up")?,
                    Next::Silent(it) => {
                        write!(f, "the reconciler notes that generation {it} is silent")?
                    }
                    Next::Retire(it) => write!(f, "the reconciler ends generation {it}")?,
                }
                match mishap {
                    Mishap::None => Ok(()),
                    Mishap::DiesBefore => write!(f, "; the server dies before it asks the backend"),
                    Mishap::DiesMeanwhile => {
                        write!(f, "; the server dies, and the backend has yet to begin")
                    }
                    Mishap::DiesAfter => write!(f, "; the server dies before it notes the start"),
                    Mishap::GoesOn => write!(f, "; what it ends goes on running"),
                }
            }
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
            Self::Provisions => write!(f, "the migration's target starts"),
            Self::CutsOver => write!(f, "the migration cuts over"),
            Self::RollsBack => write!(f, "the migration is called off"),
            Self::StrangerRegisters => write!(f, "a stranger registers without a credential"),
            Self::Steals(at) => write!(f, "a thief takes the superseded credential {at}"),
            Self::ThiefCalls(Call::Register) => write!(f, "the thief registers"),
            Self::ThiefCalls(_) => write!(f, "the thief sends a heartbeat"),
            Self::SweeperLooks => write!(f, "the sweeper finds live credentials and no instance"),
            Self::SweeperActs => write!(f, "the sweeper acts on what it saw"),
        }
    }
}

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
            if world.wire.is_none() {
                found.push(Action::Calls(at, Fate::Copied));
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
    if let Some(migration) = world.migration {
        if !migration.provisioned {
            found.push(Action::Provisions);
        } else if migration.probed {
            found.push(Action::CutsOver);
        }
        if !scenario.strict {
            found.push(Action::RollsBack);
        }
    }
    if world.looked {
        found.push(Action::SweeperActs);
    } else if world.budget.sweeps > 0
        && world.live()
        && !world.rows.iter().any(|row| world.runs(row.born))
    {
        found.push(Action::SweeperLooks);
    }
}

fn by_time(scenario: &Scenario, world: &World, found: &mut Vec<Action>) {
    if world.opened {
        found.push(Action::DoorCloses);
    }
    if scenario.strict {
        return;
    }
    let heard = world.agents.iter().any(|agent| world.is_heard(scenario, agent));
    let row = world.row(world.current).filter(|row| row.phase == Phase::Serving && !row.silent);
    if row.is_some() && !heard && world.migration.is_none() {
        found.push(Action::LeaseLapses);
    }
    for row in &world.rows {
        let waits = row.phase == Phase::Started && row.generation > world.current && !row.overdue;
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
    let settled = serving && world.newest == world.current && !world.restart_due;
    when(left.migrations > 0 && settled && idle, Action::Migrates);
    when(left.strangers > 0, Action::StrangerRegisters);
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

fn spend(left: &mut u8) {
    *left = left.saturating_sub(1);
}

/// Take a step.
pub(crate) fn taken(scenario: &Scenario, before: &World, action: Action) -> World {
    let mut world = before.clone();
    let (site, recipe) = (scenario.site(), scenario.recipe());
    world.pay(action);
    match action {
        Action::Calls(at, fate) => world.call(&site, &recipe, usize::from(at), fate),
        Action::CopyArrives => {
            if let Some(knock) = world.wire.take() {
                let _ = world.knock(&site, knock);
            }
        }
        Action::CopyDropped => world.wire = None,
        Action::Crashes(at) | Action::RestartedByHand(at) => {
            world.crash(&site, &recipe, usize::from(at));
        }
        Action::DiskLost(at) => {
            world.lose_disk(&site, &recipe, usize::from(at));
            world.person = true;
        }
        Action::DiskFills(at) => world.agents[usize::from(at)].full = true,
        Action::DiskHasRoom(at) => world.agents[usize::from(at)].full = false,
        Action::Dies(at) => {
            let gone = world.agents[usize::from(at)].clone();
            world.leave(|agent| *agent != gone);
        }
        Action::IsUp(at) => world.is_up(usize::from(at)),
        Action::Reconciles(next, mishap) => world.take(&site, &recipe, next, mishap),
        Action::Commits => {
            let planned = world.half_planned.unwrap_or_default();
            world.commit(planned);
        }
        Action::BackendBegins => {
            if let Some((born, token)) = world.order.take() {
                world.agents.push(recipe.start(&site, born, token));
            }
        }
        Action::SecondDecides => world.second = true,
        Action::SecondActs => {
            world.second = false;
            world.plan(&site, &recipe, Why::Restart);
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
        Action::OrdersRestart => world.restart_due = true,
        Action::Revokes => world.revoke(),
        Action::PersonRevokes => {
            world.person = false;
            world.revoke();
        }
        Action::PersonDelivers => {
            world.person = false;
            world.deliver_by_hand(&site);
        }
        Action::OrdersRotation => world.wanted += 1,
        Action::Delivers => world.deliver_by_hand(&site),
        Action::Migrates => world.prepare(),
        Action::Provisions => world.provision(&site, &recipe),
        Action::CutsOver => world.cut_over(),
        Action::RollsBack => world.roll_back(),
        Action::StrangerRegisters => {
            let knock = Knock { from: None, call: Call::Register, bearer: None, key: None };
            let _ = world.knock(&site, knock);
        }
        Action::Steals(at) => world.stolen = Some(Token::Credential(at)),
        Action::ThiefCalls(call) => {
            let knock = Knock { from: None, call, bearer: world.stolen, key: None };
            let _ = world.knock(&site, knock);
        }
        Action::SweeperLooks => world.looked = true,
        Action::SweeperActs => world.sweep(&site),
    }
    world.note_superseded(&site);
    world.ask_for_person(scenario);
    world.tidied()
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

    /// Whether the platform would hear this agent as the current instance, sooner or later.
    fn is_heard(&self, scenario: &Scenario, agent: &Agent) -> bool {
        let _ = scenario;
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

    fn provision(&mut self, site: &Site, recipe: &Recipe) {
        let Some(migration) = &mut self.migration else { return };
        migration.provisioned = true;
        let born = migration.candidate;
        let at = self.passports.iter().position(|it| it.generation == born);
        let passport = at.and_then(|at| u8::try_from(at).ok());
        let copied = self.agents.iter().find(|agent| agent.born == self.current);
        let disk = match copied.map(|agent| &agent.mind) {
            Some(Mind::Ours { disk, .. }) if recipe.copies_files => disk.clone(),
            _ => ligand_agent::holdings::Disk::default(),
        };
        self.agents.push(recipe.agent(site, born, passport, disk));
    }

    /// The sweeper decides again on each credential in the statement that ends it. All are long unused here.
    fn sweep(&mut self, site: &Site) {
        self.looked = false;
        let starting = self.newest > self.current && self.row(self.newest).is_some();
        let status = if starting { Status::Provisioning } else { Status::Offline };
        let candidate = self.migration.map(|it| it.candidate);
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
