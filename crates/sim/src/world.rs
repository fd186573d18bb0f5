//! The steps, and which comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ligand_domain::guards::Guards;
use ligand_domain::time::Timestamp;
use ligand_server::app::Clock;
use ligand_server::backend::fake::{self, Call, Fake, FakeInstance, Fault};
use ligand_server::backend::{Backend, Backends, Key, Push, Pushes};
use ligand_server::db::{DatabaseUrl, Db};
use ligand_server::workspaces;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::Report;
use crate::agents::{Agent, Letter, What, Who};
use crate::calls::{Ground, Observer, Server, config};
use crate::dice::Dice;
use crate::door::{Door, client};
use crate::faults::{Gates, Running};
use crate::invariants;
use crate::messages::Sent;
use crate::model::{Sort, Workspace};
use crate::trace::{Failure, Trace, Violation};

/// When every world begins.
const BEGINNING: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
/// What runs instances.
pub(crate) const BACKENDS: [&str; 2] = ["fake", "spare"];
/// Servers on one database.
const REPLICAS: usize = 2;
/// Workspaces at most.
const MOST: usize = 7;
/// Deaths of a crash loop: so many that the next start is put off.
const DEATHS: u32 = 12;
/// Events are read every so many steps.
const EVENTS_EVERY: u32 = 8;
/// Jumps of time, in milliseconds: a moment, a retry, a beat, a claim, a patience, a lease, a deadline.
const JUMPS: [(u32, u64); 7] =
    [(4, 500), (6, 2_100), (6, 8_000), (4, 31_000), (2, 61_000), (1, 181_000), (1, 601_000)];

/// What a step can be.
#[derive(Debug, Clone, Copy)]
enum Act {
    Pass,
    Sweep,
    Resume,
    Crash,
    Cut,
    Agent,
    Late,
    Stranger,
    Thief,
    Time,
    Kill,
    Lose,
    Lie,
    Doom,
    Hang,
    Restart,
    Burst,
    Delete,
    Create,
    Send,
    Deliver,
    Migrate,
    Reconsider,
    Drain,
    DrainPass,
    March,
}

const ACTS: [(u32, Act); 26] = [
    (30, Act::Pass),
    (6, Act::Sweep),
    (6, Act::Resume),
    (2, Act::Crash),
    (4, Act::Cut),
    (30, Act::Agent),
    (4, Act::Late),
    (3, Act::Stranger),
    (3, Act::Thief),
    (10, Act::Time),
    (5, Act::Kill),
    (3, Act::Lose),
    (4, Act::Lie),
    (2, Act::Doom),
    (1, Act::Hang),
    (3, Act::Restart),
    (1, Act::Burst),
    (2, Act::Delete),
    (2, Act::Create),
    (5, Act::Send),
    (7, Act::Deliver),
    (6, Act::Migrate),
    (9, Act::March),
    (1, Act::Reconsider),
    (1, Act::Drain),
    (2, Act::DrainPass),
];

/// Everything there is.
pub struct World {
    seed: u64,
    pub(crate) step: u32,
    pub(crate) calls: u32,
    pub(crate) dice: Dice,
    pub(crate) ground: Ground,
    pub(crate) fakes: [Fake; 2],
    pub(crate) door: Door,
    pub(crate) sent: Vec<Sent>,
    pub(crate) gates: Gates,
    pushes: UnboundedReceiver<Push>,
    pub(crate) replicas: Vec<Server>,
    booted: u64,
    pub(crate) observer: Observer,
    pub(crate) workspaces: Vec<Workspace>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) late: Vec<Letter>,
    pub(crate) parked: Vec<Running>,
    /// Every credential that anybody was given: whose, and of which generation.
    pub(crate) minted: BTreeMap<String, (usize, i64)>,
    /// Keys of registers that were admitted, and whose answer nobody got.
    pub(crate) unanswered: BTreeSet<String>,
    /// Numbers of the events that were read.
    pub(crate) events: BTreeSet<i64>,
    /// The last number that was given to a decision or an event.
    pub(crate) recorded: i64,
    trace: Trace,
}

impl World {
    /// An empty world.
    pub async fn new(seed: u64, guards: Guards) -> Self {
        let db = Db::open(&DatabaseUrl::Memory).await.expect("a database in memory can be opened");
        let (sender, pushes) = Pushes::channel();
        let fakes = [Fake::new(sender.clone()), Fake::new(sender)];
        let gates = Gates::new(fakes[0].clone());
        let both = [gates.clone(), gates.beside(fakes[1].clone())];
        let backends = BACKENDS.iter().zip(both).map(|(name, gates)| {
            let backend: Arc<dyn Backend> = Arc::new(gates);
            ((*name).to_owned(), backend)
        });
        let backends = Backends::new(backends);
        let door = Door::open().await;
        let clock = Clock::manual(BEGINNING);
        let ground = Ground { db, clock, backends, config: config(guards), http: client() };
        let mut world = Self {
            seed,
            step: 0,
            calls: 0,
            dice: Dice::new(seed),
            observer: Observer::start(&ground, !seed),
            ground,
            fakes,
            door,
            sent: Vec::new(),
            gates,
            pushes,
            replicas: Vec::new(),
            booted: 0,
            workspaces: Vec::new(),
            agents: Vec::new(),
            late: Vec::new(),
            parked: Vec::new(),
            minted: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            events: BTreeSet::new(),
            recorded: 0,
            trace: Trace::default(),
        };
        for _ in 0..REPLICAS {
            let server = world.boot();
            world.replicas.push(server);
        }
        world
    }

    pub(crate) fn boot(&mut self) -> Server {
        self.booted += 1;
        Server::start(&self.ground, self.seed.wrapping_mul(1_000).wrapping_add(self.booted))
    }

    /// The first workspaces, one of each sort.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn settle_in(&mut self) -> Result<(), Violation> {
        for sort in [Sort::Managed, Sort::Managed, Sort::Enrolled, Sort::Open] {
            self.create(sort).await?;
        }
        Ok(())
    }

    /// One step, and the laws after it.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn step(&mut self) -> Result<(), Violation> {
        self.step += 1;
        let moment = 1 + self.dice.below(50) as u64;
        self.ground.clock.advance(Duration::from_millis(moment));
        Box::pin(self.act()).await?;
        self.sync_agents();
        if self.dice.chance(80) {
            self.hear_all().await;
        } else {
            while self.pushes.try_recv().is_ok() {}
        }
        invariants::one_instance(&self.workspaces, &self.running())?;
        self.no_message_twice()?;
        if self.parked.is_empty() {
            self.no_leak()?;
        }
        if self.step.is_multiple_of(EVENTS_EVERY) {
            self.read_events().await?;
        }
        Ok(())
    }

    async fn act(&mut self) -> Result<(), Violation> {
        match self.dice.weigh(&ACTS) {
            Act::Pass => self.pass_in_trouble().await,
            Act::Resume => self.resume().await,
            Act::Agent => self.agent().await,
            Act::Late => {
                let at = self.dice.below(self.late.len());
                if self.late.is_empty() {
                    return Ok(());
                }
                let letter = self.late.swap_remove(at);
                self.deliver(letter, true).await
            }
            Act::Stranger => self.intrude(Who::Stranger).await,
            Act::Thief => self.intrude(Who::Thief).await,
            Act::Sweep => {
                let replica = self.dice.below(self.replicas.len());
                let which = self.dice.below(self.replicas[replica].sweeps.len());
                self.sweep(replica, which).await
            }
            Act::Cut => self.cut().await,
            Act::Restart => {
                let at = self.dice.below(self.workspaces.len());
                self.restart(at).await
            }
            Act::Burst => self.burst().await,
            Act::Delete => self.delete().await,
            Act::Send => self.send().await,
            Act::Deliver => self.deliveries().await,
            Act::Migrate => self.migrate().await,
            Act::March => Box::pin(self.march()).await,
            Act::Reconsider => self.reconsider().await,
            Act::Drain if self.dice.chance(30) => self.drain().await,
            Act::Drain => Ok(()),
            Act::DrainPass => {
                let replica = self.dice.below(self.replicas.len());
                self.pass_of_drains(replica).await.map(|_| ())
            }
            Act::Create if self.workspaces.len() < MOST => self.create(Sort::Managed).await,
            Act::Create => Ok(()),
            Act::Crash => {
                let replica = self.dice.below(self.replicas.len());
                self.crash(replica);
                Ok(())
            }
            Act::Time => {
                let jump = self.dice.weigh(&JUMPS);
                self.ground.clock.advance(Duration::from_millis(jump));
                self.say(format!("{jump} ms pass"));
                Ok(())
            }
            Act::Doom if self.dice.chance(60) => self.crash_loop().await,
            act @ (Act::Kill | Act::Lose | Act::Lie | Act::Doom | Act::Hang) => {
                self.spoil(act);
                Ok(())
            }
        }
    }

    /// Something happens to instances, where nobody sees it at once.
    fn spoil(&mut self, act: Act) {
        let running = self.running();
        let instance = running.get(self.dice.below(running.len())).copied();
        let at = self.dice.below(self.workspaces.len());
        match (act, instance) {
            (Act::Kill, Some(key)) => {
                self.say(format!("{} is killed", self.title(key)));
                self.kill(key, 9);
            }
            (Act::Lose, Some(key)) => {
                self.say(format!("{} is lost", self.title(key)));
                self.fakes.iter().for_each(|fake| fake.lose(key));
            }
            (Act::Hang, Some(key)) => {
                self.say(format!("{} hangs", self.title(key)));
                let hangs = self.agents.iter_mut().filter(|it| it.instance == Some(key));
                hangs.for_each(|agent| agent.hung = true);
            }
            (Act::Lie, _) => {
                let refuse = Fault::Refuse("no space".to_owned());
                let plan = match self.dice.below(7) {
                    0 => fake::Planned::from(Fault::LoseReply),
                    1 => refuse.into(),
                    2 => fake::Planned::from(Fault::LoseReply).at(&[Call::Destroy]),
                    3 => fake::Planned::from(Fault::Silence).at(&[Call::Destroy]),
                    4 => fake::Planned::from(Fault::LoseReply).at(&[Call::Import]),
                    _ => Fault::Silence.into(),
                };
                let which = self.dice.below(BACKENDS.len());
                self.say(format!("{} plans to misbehave: {plan:?}", BACKENDS[which]));
                self.fakes[which].plan(plan);
            }
            (Act::Doom, _) => {
                self.workspaces[at].doomed = 13;
                self.say(format!(
                    "{}: its next 13 instances die at once",
                    self.workspaces[at].name
                ));
            }
            _ => {}
        }
    }

    /// Every instance that is at a backend.
    pub(crate) fn instances(&self) -> Vec<FakeInstance> {
        self.fakes.iter().flat_map(Fake::instances).collect()
    }

    /// An instance ends, wherever it is.
    pub(crate) fn kill(&self, key: Key, signal: i32) {
        self.fakes.iter().for_each(|fake| fake.kill(key, signal));
    }

    pub(crate) fn title(&self, key: Key) -> String {
        let of = self.workspaces.iter().find(|it| it.id == key.workspace);
        format!("{} generation {}", of.map_or("?", |it| it.name.as_str()), key.generation)
    }

    /// What runs at the backend.
    #[must_use]
    pub fn running(&self) -> Vec<Key> {
        let all = self.instances();
        all.iter().filter(|it| it.exit.is_none()).map(|it| it.key).collect()
    }

    async fn agent(&mut self) -> Result<(), Violation> {
        let able: Vec<usize> = (0..self.agents.len())
            .filter(|at| !self.agents[*at].gone && !self.agents[*at].hung)
            .collect();
        let Some(&at) = able.get(self.dice.below(able.len())) else { return Ok(()) };
        let what = self.duty(at, false);
        let letter = self.write(at, what, false);
        match self.dice.below(8) {
            0 => self.deliver(letter, true).await,
            1 => {
                self.say(format!("{:?} {what:?} is held up", letter.who));
                self.late.push(letter);
                Ok(())
            }
            _ => self.deliver(letter, false).await,
        }
    }

    async fn intrude(&mut self, who: Who) -> Result<(), Violation> {
        match self.forge(who) {
            Some(letter) => self.deliver(letter, true).await,
            None => Ok(()),
        }
    }

    /// The instances of one workspace register and die, until its replacement is put off.
    async fn crash_loop(&mut self) -> Result<(), Violation> {
        let managed = |at: &usize| {
            let it = &self.workspaces[*at];
            it.sort == Sort::Managed && !it.removed
        };
        let able: Vec<usize> = (0..self.workspaces.len()).filter(managed).collect();
        let Some(&at) = able.get(self.dice.below(able.len())) else { return Ok(()) };
        self.say(format!("{}: its instances register and die", self.workspaces[at].name));
        for _ in 0..DEATHS {
            let replica = self.dice.below(self.replicas.len());
            while self.pass(replica).await? {}
            self.sync_agents();
            let lives = |it: &Agent| it.workspace == at && !it.gone && !it.zombie && !it.hung;
            let agent = self.agents.iter().position(|it| lives(it) && it.instance.is_some());
            let Some(agent) = agent else { break };
            let letter = self.write(agent, What::Register, true);
            self.deliver(letter, false).await?;
            if let Some(key) = self.agents[agent].instance {
                self.kill(key, 11);
            }
            self.sync_agents();
            self.hear_all().await;
        }
        Ok(())
    }

    /// Servers hear what the backend pushed.
    pub async fn hear_all(&mut self) {
        while let Ok(push) = self.pushes.try_recv() {
            let app = &self.replicas[0].app;
            workspaces::heed(app, push).await.expect("the database answers");
        }
    }

    /// Note what happens.
    pub fn say(&mut self, line: String) {
        let seconds = self.ground.clock.now().since(BEGINNING).as_secs_f64();
        self.trace.say(format!("{:>4} {seconds:>9.3}s  {line}", self.step));
    }

    /// What the run did.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            steps: self.step,
            calls: self.calls,
            starts: self.fakes.iter().map(Fake::starts).sum(),
            seconds: self.ground.clock.now().since(BEGINNING).as_secs(),
            trace: self.trace.lines().to_vec(),
        }
    }

    /// The run as a failure.
    #[must_use]
    pub fn failure(&self, violation: Violation) -> Failure {
        Failure { seed: self.seed, step: self.step, violation, trace: self.trace.lines().to_vec() }
    }
}
