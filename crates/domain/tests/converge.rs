//! A toy platform that takes the steps of `converge::next` against a toy backend, under random faults.
//! Once the faults stop, every workspace that is meant to run serves, and no other instance is left.

use std::time::Duration;

use ligand_domain::backoff::Failures;
use ligand_domain::converge::{
    DEBOUNCE, GivenUp, LONGEST_DECLARED, START_DEADLINE, Step, UNREACHABLE_PATIENCE, Workspace,
    may_plan, next, start_deadline,
};
use ligand_domain::guards::Guards;
use ligand_domain::id::Generation;
use ligand_domain::instance::{Exit, Instance, Seen};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use proptest::prelude::*;

/// What the weather does between two looks.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Dies,
    Hides,
    Registers,
    Restart,
    Pause,
    Hibernate,
    Resume,
    Minutes(u64),
}

/// Intents under which nothing is to run.
const IDLE: [Intent; 3] = [Intent::Paused, Intent::Hibernated, Intent::Removed];

struct Toy {
    workspace: Workspace,
    instances: Vec<Instance>,
    failures: Failures,
    now: Timestamp,
}

impl Toy {
    fn new() -> Self {
        let workspace = Workspace {
            intent: Intent::Running,
            status: Status::Provisioning,
            since: Timestamp::EPOCH,
            managed: true,
            current: Generation::NONE,
            newest: Generation::NONE,
            restart_due: false,
            next_attempt_at: None,
            start_deadline: START_DEADLINE,
            unsure: false,
            unproven: false,
            unheard_until: None,
            migrating: false,
        };
        let now = Timestamp::from_micros(1_000_000_000);
        Self { workspace, instances: Vec::new(), failures: Failures::default(), now }
    }

    fn at(&mut self, generation: Generation) -> &mut Instance {
        self.instances
            .iter_mut()
            .find(|i| i.generation == generation)
            .expect("a step names a live instance")
    }

    fn fail(&mut self, status: Status) {
        self.failures = self.failures.one_more(self.now, None);
        self.workspace.next_attempt_at = Some(self.failures.next_attempt(self.now, 0.5));
        self.become_(status);
    }

    fn become_(&mut self, status: Status) {
        if status != Status::Degraded {
            self.workspace.unsure = false;
        }
        self.workspace.status = status;
        self.workspace.since = self.now;
    }

    fn end(&mut self, generation: Generation) {
        self.instances.retain(|i| i.generation != generation);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Rest(_) => {}
            Step::Plan(_) => {
                let above = self.workspace.newest <= self.workspace.current
                    || !self.instances.iter().any(|i| i.generation == self.workspace.newest);
                assert!(above, "planned while a start is in flight");
                self.workspace.newest = self.workspace.newest.next();
                self.workspace.restart_due = false;
                self.become_(Status::Provisioning);
                let lease_until = self.now;
                let generation = self.workspace.newest;
                let seen = Seen::Gone;
                self.instances.push(Instance { generation, started_at: None, lease_until, seen });
            }
            Step::Start(generation) => {
                self.instances.retain(|i| i.generation >= generation);
                let now = self.now;
                let instance = self.at(generation);
                instance.started_at = Some(now);
                instance.seen = Seen::Running;
            }
            Step::Lost(generation, _) => {
                self.end(generation);
                self.fail(Status::Offline);
            }
            Step::GiveUp(generation, _) => {
                self.end(generation);
                self.fail(Status::Failed);
            }
            Step::Silent(_) => {
                self.workspace.unsure = false;
                self.become_(Status::Offline);
            }
            Step::Unsure(_) => {
                self.workspace.unsure = true;
                self.become_(Status::Degraded);
            }
            Step::Heard(_) => {
                self.workspace.unsure = false;
                self.become_(Status::Online);
            }
            Step::Unheard => self.become_(Status::AwaitingAgent),
            Step::Retire(generation) => self.end(generation),
            Step::Settle(status) => {
                assert!(self.instances.is_empty(), "settled while something runs");
                self.become_(status);
            }
        }
    }

    /// Ask and act until there is nothing to do. Returns when to look again.
    fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..64 {
            match next(&self.workspace, &self.instances, self.now) {
                Step::Rest(again) => return again,
                step => self.take(step),
            }
        }
        panic!("no rest after 64 steps: {:?} {:?}", self.workspace, self.instances);
    }

    fn register(&mut self) {
        let newest = self.workspace.newest;
        let lease_until = self.now.after(Duration::from_secs(30));
        let running = self.workspace.intent == Intent::Running;
        if let Some(instance) =
            self.instances.iter_mut().find(|i| i.generation == newest && i.seen == Seen::Running)
        {
            instance.lease_until = lease_until;
            self.workspace.current = newest;
            if running && !self.workspace.restart_due {
                self.become_(Status::Online);
            }
        }
    }

    /// Faults stop: backends answer, agents register and beat.
    fn quiet(&mut self) {
        self.workspace.intent = Intent::Running;
        for _ in 0..60 {
            for instance in &mut self.instances {
                if matches!(instance.seen, Seen::Unknown(_)) {
                    instance.seen = Seen::Running;
                }
            }
            self.register();
            let again = self.settle();
            let online = self.workspace.status == Status::Online;
            if online && !self.workspace.restart_due && self.instances.len() == 1 {
                return;
            }
            self.now = again.unwrap_or(self.now).max(self.now.after(Duration::from_secs(1)));
        }
    }

    fn suffer(&mut self, fault: Fault) {
        let newest = self.workspace.newest;
        let last =
            self.instances.iter_mut().find(|i| i.generation == newest && i.started_at.is_some());
        match fault {
            Fault::Dies => {
                if let Some(i) = last {
                    i.seen = Seen::Stopped(Exit::default());
                }
            }
            Fault::Hides => {
                if let Some(i) = last {
                    i.seen = Seen::Unknown("no answer".to_owned());
                }
            }
            Fault::Registers => self.register(),
            Fault::Restart => self.workspace.restart_due = true,
            Fault::Pause => self.workspace.intent = Intent::Paused,
            Fault::Hibernate => self.workspace.intent = Intent::Hibernated,
            // As a person's resume does: a restart is due, and nothing of the past holds it up.
            Fault::Resume if self.workspace.intent != Intent::Running => {
                self.workspace.intent = Intent::Running;
                self.workspace.restart_due = true;
                self.workspace.next_attempt_at = None;
                self.become_(Status::Provisioning);
            }
            Fault::Resume => {}
            Fault::Minutes(n) => self.now = self.now.after(Duration::from_secs(60 * n)),
        }
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::Dies),
        1 => Just(Fault::Hides),
        4 => Just(Fault::Registers),
        2 => Just(Fault::Restart),
        1 => Just(Fault::Pause),
        1 => Just(Fault::Hibernate),
        1 => Just(Fault::Resume),
        2 => (0..20u64).prop_map(Fault::Minutes),
    ]
}

proptest! {
    #[test]
    fn once_faults_stop_the_workspace_serves(faults in proptest::collection::vec(fault(), 0..40)) {
        let mut toy = Toy::new();
        for fault in faults {
            toy.suffer(fault);
            toy.settle();
        }
        toy.quiet();
        prop_assert_eq!(toy.workspace.status, Status::Online);
        prop_assert_eq!(toy.instances.len(), 1);
        prop_assert_eq!(toy.instances[0].generation, toy.workspace.current);
    }

    #[test]
    fn a_workspace_that_should_not_run_has_no_instance_and_says_so(
        faults in proptest::collection::vec(fault(), 0..40),
        later in proptest::collection::vec(fault(), 0..20),
        wish in 0..3usize,
    ) {
        let mut toy = Toy::new();
        // The last step before it is not waited for: it is told in the middle of whatever goes on.
        for fault in faults {
            toy.settle();
            toy.suffer(fault);
        }
        let wishes = [
            (Intent::Removed, None),
            (Intent::Paused, Some(Status::Paused)),
            (Intent::Hibernated, Some(Status::Hibernated)),
        ];
        let (intent, status) = wishes[wish];
        toy.workspace.intent = intent;
        toy.settle();
        prop_assert!(toy.instances.is_empty());
        prop_assert!(status.is_none_or(|status| toy.workspace.status == status));
        let newest = toy.workspace.newest;
        for fault in later {
            toy.suffer(fault);
            toy.workspace.intent = intent;
            prop_assert_eq!(toy.settle(), None, "there is nothing to wait for");
        }
        prop_assert!(toy.instances.is_empty());
        prop_assert_eq!(toy.workspace.newest, newest);
    }

    #[test]
    fn what_no_backend_runs_is_never_ended_by_a_pause(hibernates: bool, seconds in 0..1000u64) {
        let mut toy = Toy::new();
        (toy.workspace.managed, toy.workspace.current) = (false, Generation::new(1));
        (toy.workspace.newest, toy.workspace.status) = (Generation::new(1), Status::Online);
        let lease = toy.now.before(Duration::from_secs(seconds));
        let external = [serving(Seen::Unknown("not ours".to_owned()), lease)];
        let (intent, status) = match hibernates {
            true => (Intent::Hibernated, Status::Hibernated),
            false => (Intent::Paused, Status::Paused),
        };
        toy.workspace.intent = intent;
        prop_assert_eq!(next(&toy.workspace, &external, toy.now), Step::Settle(status));
        toy.workspace.status = status;
        prop_assert_eq!(next(&toy.workspace, &external, toy.now), Step::Rest(None));
    }

    #[test]
    fn what_is_resumed_gets_exactly_one_instance(
        faults in proptest::collection::vec(fault(), 0..40),
        which in 0..2_usize,
        restart: bool,
    ) {
        let mut toy = Toy::new();
        for fault in faults {
            toy.settle();
            toy.suffer(fault);
        }
        toy.workspace.intent = IDLE[which];
        toy.settle();
        let newest = toy.workspace.newest;
        toy.workspace.restart_due |= restart;
        // Whoever asks for it does not wait for what failed before.
        toy.workspace.intent = Intent::Running;
        toy.workspace.next_attempt_at = None;
        toy.settle();
        prop_assert_eq!(toy.instances.len(), 1);
        prop_assert_eq!(toy.instances[0].generation, newest.next());
        prop_assert_eq!(toy.workspace.newest, newest.next(), "what restarts were due is loaded by the same one");
        toy.quiet();
        prop_assert_eq!(toy.workspace.status, Status::Online);
        prop_assert_eq!(toy.workspace.current, newest.next());
        prop_assert_eq!(toy.instances.len(), 1);
    }
}

/// Whatever is there, under an intent to run nothing: the only step is to end it, the newest first.
#[test]
fn under_an_intent_to_run_nothing_instances_are_ended_newest_first() {
    let seen = [
        Seen::Running,
        Seen::Gone,
        Seen::Stopped(Exit::default()),
        Seen::Unknown("no answer".to_owned()),
    ];
    for intent in IDLE {
        for (current, seen) in [0, 1, 2, 3].into_iter().zip(seen.iter().cycle()) {
            let mut toy = Toy::new();
            toy.workspace.intent = intent;
            toy.workspace.restart_due = true;
            (toy.workspace.current, toy.workspace.newest) =
                (Generation::new(current), Generation::new(3));
            let of = |number| Instance {
                generation: Generation::new(number),
                ..serving(seen.clone(), toy.now)
            };
            let mut all = vec![of(2), of(3), of(1)];
            for newest in [3, 2, 1] {
                let newest = Generation::new(newest);
                assert_eq!(next(&toy.workspace, &all, toy.now), Step::Retire(newest));
                all.retain(|instance| instance.generation != newest);
            }
            let settled = match intent {
                Intent::Paused => Step::Settle(Status::Paused),
                Intent::Hibernated => Step::Settle(Status::Hibernated),
                Intent::Running | Intent::Removed => Step::Rest(None),
            };
            assert_eq!(next(&toy.workspace, &all, toy.now), settled);
        }
    }
}

fn serving(seen: Seen, lease_until: Timestamp) -> Instance {
    Instance {
        generation: Generation::new(1),
        started_at: Some(Timestamp::EPOCH),
        lease_until,
        seen,
    }
}

#[test]
fn silence_is_a_question_and_unknown_is_no_answer() {
    let mut toy = Toy::new();
    toy.workspace.current = Generation::new(1);
    toy.workspace.newest = Generation::new(1);
    toy.workspace.status = Status::Online;
    let lapsed = toy.now.before(Duration::from_secs(1));
    let unknown = [serving(Seen::Unknown("down".to_owned()), lapsed)];
    assert_eq!(next(&toy.workspace, &unknown, toy.now), Step::Unsure(Generation::new(1)));
    for (status, unsure) in [(Status::Degraded, true), (Status::Offline, false)] {
        (toy.workspace.status, toy.workspace.unsure) = (status, unsure);
        for minutes in [0, 5, 500] {
            let later = toy.now.after(Duration::from_secs(60 * minutes));
            let step = next(&toy.workspace, &unknown, later);
            assert!(matches!(step, Step::Rest(Some(_))), "{minutes}");
        }
    }
    let running = [serving(Seen::Running, lapsed)];
    toy.workspace.since = toy.now;
    assert!(matches!(next(&toy.workspace, &running, toy.now), Step::Rest(Some(_))));
    let later = toy.now.after(Duration::from_secs(61));
    assert!(matches!(next(&toy.workspace, &running, later), Step::Plan(_)));
}

#[test]
fn what_was_doubted_is_believed_once_it_is_heard() {
    let mut toy = Toy::new();
    (toy.workspace.current, toy.workspace.newest) = (Generation::new(1), Generation::new(1));
    (toy.workspace.status, toy.workspace.unsure) = (Status::Degraded, true);
    let heard = [serving(Seen::Unknown("down".to_owned()), toy.now.after(DEBOUNCE))];
    assert_eq!(next(&toy.workspace, &heard, toy.now), Step::Heard(Generation::new(1)));
    // The backend answers: silence that it confirms is silence.
    let lapsed = [serving(Seen::Running, toy.now)];
    assert_eq!(next(&toy.workspace, &lapsed, toy.now), Step::Silent(Generation::new(1)));
}

#[test]
fn co_04_a_guess_about_a_fresh_instance_is_left_to_a_later_look() {
    let mut toy = Toy::new();
    (toy.workspace.current, toy.workspace.newest) = (Generation::new(1), Generation::new(1));
    (toy.workspace.status, toy.workspace.since) = (Status::Offline, Timestamp::EPOCH);
    let fresh = |seen| [Instance { started_at: Some(toy.now), ..serving(seen, toy.now) }];
    let settles = toy.now.after(DEBOUNCE);
    let silent = fresh(Seen::Running);
    assert_eq!(next(&toy.workspace, &silent, toy.now), Step::Rest(Some(settles)));
    assert!(matches!(next(&toy.workspace, &silent, settles), Step::Plan(_)), "never forgotten");
    // A report is not a guess, and a person does not guess.
    assert!(matches!(next(&toy.workspace, &fresh(Seen::Gone), toy.now), Step::Lost(..)));
    toy.workspace.restart_due = true;
    assert!(matches!(next(&toy.workspace, &silent, toy.now), Step::Plan(_)));
    assert!(DEBOUNCE <= UNREACHABLE_PATIENCE, "patience is never shorter than the debounce");
}

#[test]
fn pt_09_the_deadline_is_the_operators_then_the_recipes_then_the_templates_then_the_runtimes() {
    let seconds = |runtime, declared: Option<u64>, recipe: Option<u64>, operator: Option<u64>| {
        let duration = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let (declared, recipe) = (duration(declared), duration(recipe));
        start_deadline(runtime, declared, recipe, duration(operator)).as_secs()
    };
    assert_eq!(seconds("echo", None, None, None), 600);
    assert_eq!(seconds("hermes", None, None, None), 1800);
    assert_eq!(seconds("hermes", Some(90), None, None), 90);
    assert_eq!(seconds("echo", Some(7200), None, None), 7200);
    assert_eq!(seconds("echo", Some(u64::MAX), None, None), LONGEST_DECLARED.as_secs());
    assert_eq!(seconds("hermes", Some(90), Some(60), None), 60);
    assert_eq!(seconds("hermes", Some(90), Some(60), Some(5)), 5);
    let late = GivenUp::Late(Duration::from_secs(5)).to_string();
    assert_eq!(late, "the instance did not register within 5 s");
}

#[test]
fn what_was_never_heard_of_is_awaited_after_its_term() {
    let mut toy = Toy::new();
    let until = toy.now.after(Duration::from_secs(90));
    (toy.workspace.managed, toy.workspace.status) = (false, Status::Online);
    toy.workspace.unheard_until = Some(until);
    assert_eq!(next(&toy.workspace, &[], toy.now), Step::Rest(Some(until)));
    assert_eq!(next(&toy.workspace, &[], until), Step::Unheard);
    toy.workspace.status = Status::AwaitingAgent;
    assert_eq!(next(&toy.workspace, &[], until), Step::Rest(None));
}

#[test]
fn two_that_decide_by_the_same_generations_plan_once() {
    let of = |current, newest| (Generation::new(current), Generation::new(newest));
    let may = |decided, found, in_flight| may_plan(decided, found, in_flight, Guards::ON);
    assert!(may(of(1, 1), of(1, 1), false));
    assert!(!may(of(1, 1), of(1, 2), false), "somebody planned another, and gave it up");
    assert!(!may(of(1, 2), of(2, 2), false), "the newest was admitted");
    assert!(!may(of(1, 2), of(1, 2), true), "a start is in flight");
}
