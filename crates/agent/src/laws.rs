//! The laws of identity, by chance: the agent's decisions against a small platform that keeps the admission
//! rules, with lost answers, late copies, full disks and crashes between any two writes.
//!
//! What happens is drawn from a list of bytes, so that a failure shrinks to a short list.

use proptest::prelude::*;

use crate::guards::Guards;
use crate::holdings::{Disk, Holdings, Passport, Slot, Write};
use crate::session::{Action, Answer, Bearer, Call, Facts, Next, Refusal, Session};

/// Steps without a fault after which the agent must be well.
const ENOUGH: usize = 60;

type Value = u16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Active,
    Superseded,
    Revoked,
}

#[derive(Debug, Clone)]
struct Credential {
    value: Value,
    state: State,
    generation: u16,
    /// The register's key, or the passport, that minted it.
    by: Option<Value>,
    used: bool,
}

/// The platform, as far as one workspace without a backend, or with one, sees it.
#[derive(Debug, Default)]
struct Platform {
    credentials: Vec<Credential>,
    generation: u16,
    minted: Value,
    serial: i64,
    applied: i64,
    /// The rotation's value that was not used yet.
    rotation: Option<Value>,
    managed: bool,
}

impl Platform {
    fn mint(&mut self, state: State, generation: u16, by: Option<Value>) -> Value {
        self.minted += 1;
        let value = 1_000 + self.minted;
        self.credentials.push(Credential { value, state, generation, by, used: false });
        value
    }

    fn of(&mut self, bearer: Option<Value>) -> Option<&mut Credential> {
        self.credentials.iter_mut().find(|it| Some(it.value) == bearer)
    }

    fn valid(&mut self, bearer: Option<Value>) -> bool {
        let current = self.generation;
        let live = |it: &mut Credential| matches!(it.state, State::Pending | State::Active);
        self.of(bearer).is_some_and(|it| it.generation == current && live(it))
    }

    fn live(&self) -> bool {
        self.credentials.iter().any(|it| matches!(it.state, State::Pending | State::Active))
    }

    fn use_it(&mut self, bearer: Option<Value>) {
        for it in &mut self.credentials {
            if Some(it.value) == bearer {
                (it.state, it.used) = (State::Active, true);
            } else if matches!(it.state, State::Pending | State::Active) {
                it.state = State::Superseded;
            }
        }
        if self.rotation == bearer {
            (self.rotation, self.applied) = (None, self.serial);
        }
    }

    fn revoke(&mut self) {
        for it in &mut self.credentials {
            if matches!(it.state, State::Pending | State::Active) {
                it.state = State::Revoked;
            }
        }
        self.rotation = None;
    }

    /// A bootstrap credential that was never used does not stay for ever.
    fn lapse(&mut self) {
        for it in self.credentials.iter_mut().filter(|it| it.by.is_some() && !it.used) {
            it.state = State::Revoked;
        }
    }

    fn refuse(&mut self, bearer: Option<Value>) -> Answer<Value> {
        let (live, managed, current) = (self.live(), self.managed, self.generation);
        let action = self.of(bearer).map(|it| match it.state {
            _ if it.generation < current && managed => Action::Exit,
            State::Superseded if it.generation == current => Action::Reread,
            _ if live && managed => Action::Wait,
            _ => Action::Register,
        });
        Answer::Refused(Refusal { action, retry_after: None, why: String::new() })
    }

    fn answer(&mut self, call: Call, bearer: Option<Value>, key: Option<Value>) -> Answer<Value> {
        let valid = self.valid(bearer);
        match call {
            Call::Register if valid => {
                self.use_it(bearer);
                Answer::Registered { token: None, pace: None }
            }
            Call::Register => self.register(bearer, key),
            Call::Heartbeat if valid => {
                self.use_it(bearer);
                let due = self.applied < self.serial;
                Answer::Beaten { pace: None, rotate: due.then_some(self.serial) }
            }
            Call::Rotate { serial } if valid && serial == self.serial => {
                if let Some(it) = self.rotation.and_then(|old| self.of(Some(old))) {
                    it.state = State::Revoked;
                }
                let token = self.mint(State::Pending, self.generation, None);
                self.rotation = Some(token);
                Answer::Rotated { token }
            }
            Call::Rotate { .. } if valid => Answer::Rejected { why: String::new() },
            Call::Secrets if valid => Answer::Fetched,
            Call::Heartbeat | Call::Rotate { .. } | Call::Secrets => self.refuse(bearer),
        }
    }

    fn register(&mut self, bearer: Option<Value>, key: Option<Value>) -> Answer<Value> {
        let current = self.generation;
        let unused = |it: &&mut Credential| it.generation == current && it.by == key && !it.used;
        if let Some(it) = self.credentials.iter_mut().filter(|it| it.by.is_some()).find(unused) {
            it.state = State::Revoked;
            let token = self.mint(State::Pending, current, key);
            return Answer::Registered { token: Some(token), pace: None };
        }
        let holder = self.of(bearer).map(|it| (it.state, it.generation));
        let generation = match holder {
            _ if self.live() => return self.refuse(bearer),
            Some((State::Revoked, generation)) if generation == current => current,
            Some(_) => return self.refuse(bearer),
            None => current + 1,
        };
        self.generation = generation;
        let token = self.mint(State::Pending, generation, key);
        Answer::Registered { token: Some(token), pace: None }
    }
}

/// What may go wrong in a run.
#[derive(Debug, Clone, Copy)]
enum Faults {
    /// Lost answers, late copies, crashes; rotations; the disk takes nothing for a while.
    Rotations,
    /// The same without a full disk; nothing that was brought and not used ever lapses.
    FirstRegister,
    /// Everything is revoked; what was not used lapses.
    Revocations,
    /// A backend replaces the credential in the file.
    Deliveries,
}

/// One agent and its platform.
struct World {
    faults: Faults,
    guards: Guards,
    platform: Platform,
    disk: Disk<Value>,
    holdings: Holdings<Value>,
    session: Session,
    next: Next,
    /// A copy that the network kept.
    late: Option<(Call, Option<Value>, Option<Value>)>,
    keys: Value,
    worked: Option<Value>,
    full: bool,
    /// It has worked since the last fault.
    well: bool,
}

impl World {
    fn new(faults: Faults, guards: Guards) -> Self {
        let managed = matches!(faults, Faults::Deliveries);
        let mut platform = Platform { managed, generation: 1, ..Platform::default() };
        let mut disk = Disk::default();
        if managed {
            disk.token = Some(platform.mint(State::Pending, 1, None));
        }
        let holdings = Holdings::open(disk.clone(), None, guards);
        let mut session = Session::new(managed, guards);
        let next = session.first(holdings.facts(false, 0.0));
        Self {
            faults,
            guards,
            platform,
            disk,
            holdings,
            session,
            next,
            late: None,
            keys: 0,
            worked: None,
            full: false,
            well: false,
        }
    }

    fn crash(&mut self) {
        // A crash between an answer and its record: the next start cannot know.
        self.worked = self.worked.filter(|value| self.disk.token == Some(*value));
        self.holdings = Holdings::open(self.disk.clone(), None, self.guards);
        self.session = Session::new(self.platform.managed, self.guards);
        self.next = self.session.first(self.holdings.facts(false, 0.0));
    }

    /// The plan, or its first `most` steps: true if a crash came between.
    fn write(&mut self, most: usize) -> Result<bool, String> {
        let plan = self.holdings.plan();
        if self.full {
            return Ok(false);
        }
        for (nth, write) in plan.iter().enumerate() {
            if nth == most {
                self.crash();
                return Ok(true);
            }
            if let Write::Put(Slot::Token, value) = write
                && ![self.holdings.file(), Some(value), None].contains(&self.disk.token.as_ref())
            {
                self.holdings.overtaken(self.disk.token);
                continue;
            }
            let there = |disk: &Disk<Value>| {
                let slots = [disk.token, disk.next, disk.aside];
                self.worked.is_some() && slots.contains(&self.worked)
            };
            let before = there(&self.disk);
            self.disk.apply(write);
            if before && !there(&self.disk) {
                return Err(format!("{write:?} deletes {:?}, which worked last", self.worked));
            }
            self.holdings.done(write);
        }
        Ok(false)
    }

    /// One call of the agent, its answer, and what is written after it.
    fn step(&mut self, fault: u8) -> Result<(), String> {
        let Next::Call { call, bearer, reread, .. } = self.next.clone() else {
            return Err("it ended".to_owned());
        };
        if reread {
            self.holdings.reread(|| self.disk.token);
        }
        if call == Call::Register {
            self.keys += 1;
            let drawn = self.keys;
            self.holdings.key_or(|| drawn);
        }
        if self.write(if fault == 1 { 0 } else { usize::MAX })? {
            return Ok(());
        }
        let presented = self.holdings.presented(bearer).copied();
        let key = self.holdings.key().copied();
        let sent = self.platform.answer(call, presented, key);
        if fault == 2 {
            self.late = Some((call, presented, key));
        }
        let lost = Answer::Failed { why: String::new(), retry_after: None };
        let answer = if fault == 3 { lost } else { sent };
        let good = matches!(answer, Answer::Beaten { .. } | Answer::Registered { token: None, .. });
        if good && matches!(bearer, Bearer::Held | Bearer::Next) {
            self.worked = presented;
        }
        let file = self.disk.token;
        let differs = self.holdings.learn(&answer, bearer, || file);
        if self.write(match fault {
            4 => 0,
            5 => 1,
            _ => usize::MAX,
        })? {
            return Ok(());
        }
        self.well = matches!(answer, Answer::Beaten { rotate: None, .. })
            && self.disk.token == presented
            && self.holdings.plan().is_empty();
        self.next = self.session.after(&answer, self.holdings.facts(differs, 0.0));
        Ok(())
    }

    /// Something that is not the agent's doing.
    fn happens(&mut self, what: u8) {
        match (what, self.faults) {
            (0, _) => {
                if let Some((call, bearer, key)) = self.late.take() {
                    self.platform.answer(call, bearer, key);
                }
            }
            (1, Faults::Rotations) if self.worked.is_some() => self.platform.serial += 1,
            (2, Faults::Rotations) if self.worked.is_some() => self.full = !self.full,
            (1, Faults::Revocations) => self.platform.revoke(),
            (2, Faults::Revocations) => self.platform.lapse(),
            (1, Faults::Deliveries) => {
                self.platform.revoke();
                let generation = self.platform.generation;
                self.disk.token = Some(self.platform.mint(State::Pending, generation, None));
            }
            _ => {}
        }
    }
}

/// A run: faults as drawn, then none. Says which law was broken.
fn run(faults: Faults, guards: Guards, drawn: &[u8]) -> Result<(), String> {
    let mut world = World::new(faults, guards);
    for byte in drawn {
        world.happens(byte & 7);
        world.step(byte >> 3 & 7)?;
    }
    world.happens(0);
    world.full = false;
    for nth in 0..ENOUGH {
        if matches!(faults, Faults::Revocations) && nth == ENOUGH / 2 {
            world.platform.lapse();
        }
        world.step(0)?;
    }
    if world.well { Ok(()) } else { Err(format!("never well again: {:?}", world.platform)) }
}

const ALL: [Faults; 4] =
    [Faults::Rotations, Faults::FirstRegister, Faults::Revocations, Faults::Deliveries];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_it_is_well_again_when_nothing_does(
        drawn in prop::collection::vec(any::<u8>(), 0..24)
    ) {
        for faults in ALL {
            let outcome = run(faults, Guards::ON, &drawn);
            prop_assert!(outcome.is_ok(), "{faults:?}: {outcome:?}");
        }
    }

    #[test]
    fn nothing_but_exit_ends_it(answers in prop::collection::vec(any_answer(), 1..200), managed: bool) {
        let mut session = Session::new(managed, Guards::ON);
        let mut told = false;
        let (first, _) = answers[0].clone();
        session.first(first);
        for (facts, answer) in answers {
            let refusal = if let Answer::Refused(refusal) = &answer { Some(refusal) } else { None };
            told |= refusal.is_some_and(|it| it.action == Some(Action::Exit));
            match session.after(&answer, facts) {
                Next::Exit { .. } => {
                    prop_assert!(told, "it was never told to");
                    return Ok(());
                }
                Next::Call { wait, .. } => prop_assert!(wait.as_secs() <= 300),
            }
            told &= matches!(answer, Answer::Refused(_) | Answer::Failed { .. });
        }
    }
}

fn any_answer() -> impl Strategy<Value = (Facts, Answer<Value>)> {
    let facts =
        any::<(bool, bool, bool, bool, bool, bool)>().prop_map(|(a, b, c, d, e, f)| Facts {
            file_differs: a,
            holds: b,
            has_next: c,
            next_ready: c && d,
            has_passport: e,
            fetch: f,
            jitter: 0.0,
        });
    let advice = prop::option::of(prop::sample::select(vec![
        Action::Reread,
        Action::Register,
        Action::Wait,
        Action::Exit,
    ]));
    let refused = (advice, any::<u64>()).prop_map(|(action, seconds)| {
        let retry_after = Some(std::time::Duration::from_secs(seconds));
        Answer::Refused(Refusal { action, retry_after, why: String::new() })
    });
    let pace = any::<Option<u64>>;
    let answer = prop_oneof![
        4 => refused,
        1 => pace().prop_map(|pace| Answer::Registered { token: None, pace }),
        2 => (pace(), any::<Option<i64>>()).prop_map(|(pace, rotate)| Answer::Beaten { pace, rotate }),
        1 => Just(Answer::Rotated { token: 1 }),
        1 => Just(Answer::Fetched),
        1 => Just(Answer::Rejected { why: String::new() }),
        1 => Just(Answer::Failed { why: String::new(), retry_after: None }),
    ];
    (facts, answer)
}

/// Three orders while the agent is away: one rotation, to the newest.
#[test]
fn of_many_rotations_only_the_newest_is_applied() {
    let mut world = World::new(Faults::Rotations, Guards::ON);
    for _ in 0..4 {
        world.step(0).expect("enrolled");
    }
    assert!(world.well);
    let before = world.platform.minted;
    world.platform.serial += 3;
    for _ in 0..6 {
        world.step(0).expect("alive");
    }
    assert!(world.well);
    assert_eq!((world.platform.applied, world.platform.minted), (3, before + 1));
}

#[test]
fn a_copied_credential_is_never_presented_beside_a_passport() {
    let copied = Disk { token: Some(1), next: Some(2), key: Some(3), ..Disk::default() };
    let passport = Passport { value: 9, origin: 7 };
    let open =
        |disk: &Disk<Value>| Holdings::open(disk.clone(), Some(passport.clone()), Guards::ON);
    let steps = open(&copied).plan().len();
    for most in 0..=steps {
        let mut disk = copied.clone();
        for write in open(&disk).plan().iter().take(most) {
            disk.apply(write);
        }
        let held = open(&disk);
        for bearer in [Bearer::Held, Bearer::Next] {
            assert_eq!(held.presented(bearer), None, "after {most} steps");
        }
        assert_eq!(held.key(), None);
        assert!(disk.token == Some(1) || disk.aside == Some(1), "it is not lost");
    }
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::*;
    use crate::guards::Guard;

    /// Whether chance finds what `guard` prevents.
    fn caught(guard: Guard, faults: Faults) -> bool {
        let mut seed = 1_u64;
        (0..20_000).any(|_| {
            let drawn: Vec<u8> = (0..24)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed.to_be_bytes()[0]
                })
                .collect();
            run(faults, Guards::without(guard), &drawn).is_err()
        })
    }

    #[test]
    fn every_guard_is_missed() {
        let table = [
            (Guard::KeyKept, Faults::FirstRegister),
            (Guard::WriteBeforeUse, Faults::Rotations),
            (Guard::RotateBeside, Faults::Rotations),
            (Guard::WithoutBearer, Faults::Revocations),
            (Guard::RereadOnce, Faults::Deliveries),
        ];
        for (guard, faults) in table {
            assert!(caught(guard, faults), "{guard:?}");
        }
        let copied = Disk { token: Some(1), ..Disk::default() };
        let passport = Some(Passport { value: 9, origin: 7 });
        let off = Guards::without(Guard::PassportBeforeFile);
        assert_eq!(Holdings::open(copied, passport, off).held(), Some(&1));
    }
}
