//! The whole bounded space of a scenario: by stateright for what no step may do, and as an explicit graph for
//! the way back to health. Both walk the same model.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model};

use crate::action::Action;
use crate::possible::possible;
use crate::property::Property;
use crate::scenario::Scenario;
use crate::step;
use crate::world::{Flaw, World};

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(possible(self, world));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let next = step::taken(self, world, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        let always = stateright::Property::<Self>::always;
        let name = |flaw| Property::Never(flaw).name();
        vec![
            always(name(Flaw::OlderWriter), |_, it| it.flaw != Some(Flaw::OlderWriter)),
            always(name(Flaw::Returned), |_, it| it.flaw != Some(Flaw::Returned)),
            always(name(Flaw::Stranger), |_, it| it.flaw != Some(Flaw::Stranger)),
            always(name(Flaw::BlindCutover), |_, it| it.flaw != Some(Flaw::BlindCutover)),
            always(name(Flaw::LeftBehind), |_, it| it.flaw != Some(Flaw::LeftBehind)),
            always(name(Flaw::Swept), |_, it| it.flaw != Some(Flaw::Swept)),
            always(name(Flaw::Exiled), |_, it| it.flaw != Some(Flaw::Exiled)),
            always(name(Flaw::TwoFlights), |_, it| it.flaw != Some(Flaw::TwoFlights)),
            always(name(Flaw::OldRotation), |_, it| it.flaw != Some(Flaw::OldRotation)),
        ]
    }
}

/// A property that does not hold, and the shortest way to where it does not.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Which.
    pub property: Property,
    /// The steps.
    pub steps: Vec<Action>,
    /// Where they lead.
    pub world: World,
}

impl Broken {
    /// The steps in words, one a line, and where they lead.
    #[must_use]
    pub fn told(&self) -> String {
        let numbered = self.steps.iter().enumerate();
        let steps: String = numbered.map(|(at, it)| format!("  {:>2}. {it}\n", at + 1)).collect();
        let world = &self.world;
        format!("{} does not hold after {} steps:\n{steps}{world}", self.property, self.steps.len())
    }
}

/// What an exploration came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// Steps to the farthest of them.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// The first property that does not hold.
    pub broken: Option<Broken>,
}

/// For tables: no decision looks at it.
#[expect(
    clippy::disallowed_methods,
    reason = "how long an exploration takes is read from the machine"
)]
pub(crate) fn started() -> Instant {
    Instant::now()
}

/// Explore a scenario: first what no step may do, then the way back.
#[must_use]
pub fn explore(scenario: &Scenario) -> Report {
    let begun = started();
    let (states, depth, broken) = steps(scenario, HasDiscoveries::AnyFailures);
    if broken.is_some() {
        return Report { states, depth, time: begun.elapsed(), broken };
    }
    let graph = Graph::of(scenario);
    assert_eq!(graph.parents.len(), states, "both explorers walk the same space");
    let broken = graph.wedged().map(|at| graph.way(scenario, at));
    Report { states, depth, time: begun.elapsed(), broken }
}

/// The shortest way to where one property does not hold, whatever else breaks before.
#[must_use]
pub fn breaks(scenario: &Scenario, property: Property) -> Option<Broken> {
    if property == Property::NoWedge {
        let graph = Graph::of(scenario);
        return graph.wedged().map(|at| graph.way(scenario, at));
    }
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property.name()]));
    steps(scenario, wanted).2.filter(|broken| broken.property == property)
}

/// Walk with stateright until it has found enough: states, depth, and the shortest of what is broken.
fn steps(scenario: &Scenario, enough: HasDiscoveries) -> (usize, usize, Option<Broken>) {
    let only = match &enough {
        HasDiscoveries::AnyOf(names) => names.clone(),
        _ => BTreeSet::new(),
    };
    let checker = scenario.checker().finish_when(enough).threads(1).spawn_bfs().join();
    let broken = checker.discoveries().into_iter().filter_map(|(name, path)| {
        let property = Property::ALL.into_iter().find(|it| it.name() == name)?;
        let world = path.last_state().clone();
        let wanted = only.is_empty() || only.contains(name);
        wanted.then(|| Broken { property, steps: path.into_actions(), world })
    });
    let first = broken.min_by_key(|it| (it.steps.len(), it.property));
    (checker.unique_state_count(), checker.max_depth(), first)
}

/// The explicit graph. A state is its number in the order of discovery.
struct Graph {
    parents: Vec<u32>,
    healthy: Vec<bool>,
    /// The steps that the world takes by itself, grouped by where they begin.
    free: Vec<(u32, u32)>,
}

impl Graph {
    fn of(scenario: &Scenario) -> Self {
        let hasher = RandomState::new();
        let mut numbers: HashMap<u64, u32> = HashMap::new();
        let mut graph = Self { parents: Vec::new(), healthy: Vec::new(), free: Vec::new() };
        let mut frontier: Vec<(u32, World)> = Vec::new();
        for world in scenario.init_states() {
            let number = graph.add(scenario, &world, 0);
            numbers.insert(hasher.hash_one(&world), number);
            frontier.push((number, world));
        }
        while !frontier.is_empty() {
            for (from, world) in std::mem::take(&mut frontier) {
                for action in possible(scenario, &world) {
                    let Some(next) = scenario.next_state(&world, action) else { continue };
                    let free = next.budget == world.budget;
                    let to = match numbers.entry(hasher.hash_one(&next)) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(new) => {
                            let number = *new.insert(graph.add(scenario, &next, from));
                            frontier.push((number, next));
                            number
                        }
                    };
                    if free {
                        graph.free.push((from, to));
                    }
                }
            }
        }
        graph
    }

    fn add(&mut self, scenario: &Scenario, world: &World, parent: u32) -> u32 {
        self.parents.push(parent);
        self.healthy.push(world.healthy(scenario));
        u32::try_from(self.parents.len() - 1).expect("fewer than four thousand million states")
    }

    /// The first state from which nothing leads to lasting health.
    fn wedged(&self) -> Option<u32> {
        // Lasting: healthy, and so is whatever follows by itself.
        let mut lasting = self.healthy.clone();
        self.spread(&mut lasting, false);
        // From where a lasting one can be reached.
        let mut saved = lasting;
        self.spread(&mut saved, true);
        saved.iter().position(|saved| !saved).and_then(|at| u32::try_from(at).ok())
    }

    /// Carry a mark backwards: whatever leads to a state that has it gets it.
    fn spread(&self, marks: &mut [bool], mark: bool) {
        let mut into: Vec<u32> = vec![0; self.parents.len() + 1];
        for (_, to) in &self.free {
            into[*to as usize + 1] += 1;
        }
        for at in 1..into.len() {
            into[at] += into[at - 1];
        }
        let mut next = into.clone();
        let mut from_of = vec![0; self.free.len()];
        for (from, to) in &self.free {
            from_of[next[*to as usize] as usize] = *from;
            next[*to as usize] += 1;
        }
        let marked = marks.iter().enumerate().filter(|(_, it)| **it == mark);
        let mut queue: Vec<usize> = marked.map(|(at, _)| at).collect();
        while let Some(at) = queue.pop() {
            let leading = &from_of[into[at] as usize..into[at + 1] as usize];
            for from in leading.iter().map(|from| *from as usize) {
                if marks[from] != mark {
                    marks[from] = mark;
                    queue.push(from);
                }
            }
        }
    }

    /// The shortest way to a state, found again by its number.
    fn way(&self, scenario: &Scenario, at: u32) -> Broken {
        let mut numbers = vec![at];
        while let Some(last) = numbers.last().copied().filter(|last| *last != 0) {
            numbers.push(self.parents[last as usize]);
        }
        let length = numbers.len() - 1;
        let (steps, world) = self.walk(scenario, length, at);
        Broken { property: Property::NoWedge, steps, world }
    }

    /// States have no names but their numbers, so the walk is made again in the same order.
    fn walk(&self, scenario: &Scenario, length: usize, target: u32) -> (Vec<Action>, World) {
        let hasher = RandomState::new();
        let mut seen: HashMap<u64, ()> = HashMap::new();
        let start = scenario.start();
        seen.insert(hasher.hash_one(&start), ());
        let mut count = 0;
        let mut layer: Vec<(Vec<Action>, World)> = vec![(Vec::new(), start)];
        for _ in 0..length {
            for (steps, world) in std::mem::take(&mut layer) {
                for action in possible(scenario, &world) {
                    let Some(next) = scenario.next_state(&world, action) else { continue };
                    if seen.insert(hasher.hash_one(&next), ()).is_some() {
                        continue;
                    }
                    count += 1;
                    let mut steps = steps.clone();
                    steps.push(action);
                    if count == target {
                        return (steps, next);
                    }
                    layer.push((steps, next));
                }
            }
        }
        layer.into_iter().next().unwrap_or_else(|| (Vec::new(), scenario.start()))
    }
}
