//! What the fleet decides: which instance a call means, the next step of an instance, and how often one is replaced.
//!
//! The fleet runs instances for platforms of two sorts. Ligand's own names the generation of everything that it asks
//! for: it owns replacement, and the fleet replaces nothing for it. Any other platform names none: the fleet
//! *counts* for it, there is one instance at a time, and the fleet replaces what dies, so often and no oftener.

use std::time::Duration;

use crate::id::Generation;
use crate::instance::Seen;
use crate::time::Timestamp;

/// Replacements of a counted instance within [`WINDOW`].
pub const BUDGET: i64 = 3;
/// The time in which they are counted.
pub const WINDOW: Duration = Duration::from_secs(600);
/// How long each of them waits.
const WAITS: [Duration; BUDGET as usize] =
    [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];
/// How long an instance may take until it registers.
const BOOT: Duration = Duration::from_secs(600);
/// The same, for a runtime that takes long.
const SLOW_BOOT: Duration = Duration::from_secs(1500);
const SLOW_RUNTIME: &str = "hermes";
/// Something that runs is looked at this often, if nobody says that it ended.
pub const LOOK: Duration = Duration::from_secs(30);

/// What an instance is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Run.
    Run,
    /// Be there, and not run.
    Stop,
    /// Be gone.
    End,
}

impl Intent {
    const ALL: [Self; 3] = [Self::Run, Self::Stop, Self::End];

    /// Text form in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Stop => "stop",
            Self::End => "end",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|intent| intent.as_str() == text)
    }
}

/// What was last seen of an instance, as the wire says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its provider has not confirmed it.
    Pending,
    /// It runs: the only state that means alive.
    Running,
    /// It ended.
    Stopped,
    /// Its provider does not have it.
    Gone,
    /// Its provider could not be asked.
    Unknown,
}

impl State {
    const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Stopped, Self::Gone, Self::Unknown];

    /// Text form, in stores and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// What a provider's answer comes to.
    #[must_use]
    pub const fn of(seen: &Seen) -> Self {
        match seen {
            Seen::Running => Self::Running,
            Seen::Stopped(_) => Self::Stopped,
            Seen::Gone => Self::Gone,
            Seen::Unknown(_) => Self::Unknown,
        }
    }
}

/// A call for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Which one; `None` where the fleet counts.
    pub generation: Option<Generation>,
    /// Where.
    pub provider: &'a str,
    /// By which the same wish is recognised.
    pub wish: &'a [u8],
}

/// An instance of the same workspace that has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its name.
    pub id: String,
    /// Which.
    pub generation: Generation,
    /// Where.
    pub provider: String,
    /// What was wished for.
    pub wish: Vec<u8>,
    /// What it is meant to do.
    pub intent: Intent,
    /// Whether its provider ever confirmed it.
    pub confirmed: bool,
    /// Whether it is over.
    pub ended: bool,
}

/// What a call for an instance comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placing {
    /// It means this one.
    Same(String),
    /// It means this one, which never came to be: its start begins anew.
    Again(String),
    /// It means one that is not there yet.
    New {
        /// Which one it is.
        generation: Generation,
        /// These are to end first.
        ends: Vec<String>,
    },
    /// That generation is over.
    Over,
    /// A newer one was asked for since.
    Superseded(Generation),
    /// That generation is on this provider.
    Elsewhere(String),
}

/// Which instance a call means: `newest` is the newest generation that was asked for, `rows` are all that there are.
#[must_use]
pub fn place(asked: Asked<'_>, newest: Generation, rows: &[Existing]) -> Placing {
    let Some(generation) = asked.generation else {
        let live = || rows.iter().filter(|row| !row.ended && row.intent == Intent::Run);
        let same = |row: &&Existing| row.wish == asked.wish && row.provider == asked.provider;
        return match live().find(same) {
            Some(row) => Placing::Same(row.id.clone()),
            None => {
                let ends = live().map(|row| row.id.clone()).collect();
                Placing::New { generation: newest.next(), ends }
            }
        };
    };
    match rows.iter().find(|row| row.generation == generation) {
        Some(row) if row.ended && !row.confirmed && row.provider == asked.provider => {
            Placing::Again(row.id.clone())
        }
        Some(row) if row.ended || row.intent == Intent::End => Placing::Over,
        Some(row) if row.provider != asked.provider => Placing::Elsewhere(row.provider.clone()),
        Some(row) => Placing::Same(row.id.clone()),
        None if generation < newest => Placing::Superseded(newest),
        None => Placing::New { generation, ends: Vec::new() },
    }
}

/// What is known of an instance that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What it is meant to do.
    pub intent: Intent,
    /// Whether its provider confirmed it.
    pub confirmed: bool,
    /// Whether the fleet counts, and replaces.
    pub counted: bool,
    /// Whether an older instance of its workspace has not ended.
    pub elder: bool,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The older one goes first: where the fleet counts there is one at a time.
    AwaitElder,
    /// Find it or start it.
    Start,
    /// Look what it does.
    Look,
    /// Stop it.
    Stop,
    /// Stop it, take it away.
    End,
}

/// The next step of an instance.
#[must_use]
pub const fn next(facts: Facts) -> Step {
    match facts.intent {
        Intent::End => Step::End,
        Intent::Stop => Step::Stop,
        Intent::Run if facts.confirmed => Step::Look,
        Intent::Run if facts.counted && facts.elder => Step::AwaitElder,
        Intent::Run => Step::Start,
    }
}

/// Replacements of one instance, and when counting began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recreations {
    /// How many.
    pub count: i64,
    /// The first of them.
    pub since: Timestamp,
}

/// What is known of the life of an instance that is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Whether the fleet replaces it.
    pub counted: bool,
    /// How often it did.
    pub recreations: Recreations,
    /// Until then it may take to register; `None` once that was judged.
    pub booting_until: Option<Timestamp>,
}

/// What becomes of an instance that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Runs,
    /// It runs, and its time to register is over: the platform is told, and knows whether it has.
    Late,
    /// Nothing is done on the strength of "I do not know".
    Doubt,
    /// It does not run, and its platform replaces it.
    Down,
    /// It does not run, and is replaced then.
    Recreate {
        /// Not before.
        at: Timestamp,
        /// With this one.
        recreations: Recreations,
    },
    /// It was replaced too often. The next attempt is then.
    Spent {
        /// When the window is over.
        until: Timestamp,
    },
}

/// Judge what a provider says of an instance that is meant to run.
#[must_use]
pub fn judge(seen: &Seen, life: Life, now: Timestamp) -> Verdict {
    match seen {
        Seen::Unknown(_) => Verdict::Doubt,
        Seen::Running => match life.booting_until {
            Some(until) if life.counted && until <= now => Verdict::Late,
            _ => Verdict::Runs,
        },
        Seen::Stopped(_) | Seen::Gone if !life.counted => Verdict::Down,
        Seen::Stopped(_) | Seen::Gone => life.recreations.one_more(now),
    }
}

impl Recreations {
    fn one_more(self, now: Timestamp) -> Verdict {
        let over = self.since.after(WINDOW);
        let before =
            if self.count == 0 || over <= now { Self { count: 0, since: now } } else { self };
        let nth = usize::try_from(before.count).ok();
        match nth.and_then(|nth| WAITS.get(nth)) {
            Some(wait) => Verdict::Recreate {
                at: now.after(*wait),
                recreations: Self { count: before.count + 1, since: before.since },
            },
            None => Verdict::Spent { until: over },
        }
    }
}

/// How long an instance of this runtime may take until it registers.
#[must_use]
pub fn boot_deadline(runtime: &str) -> Duration {
    if runtime == SLOW_RUNTIME { SLOW_BOOT } else { BOOT }
}

/// Whether a further workspace of a transfer may be asked for: `open` are on their way, `failed` have failed, and after
/// `stop_after` failures (0: never) nothing is begun.
#[must_use]
pub const fn may_ask(open: i64, failed: i64, concurrency: i64, stop_after: i64) -> bool {
    let stopped = stop_after > 0 && failed >= stop_after;
    !stopped && open < concurrency
}

/// What is wrong with the short name of an organisation; nothing, if it can be one.
#[must_use]
pub fn slug_mistake(slug: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
    let good = (1..=63).contains(&slug.len())
        && slug.chars().all(fits)
        && edge(slug.chars().next())
        && edge(slug.chars().last());
    (!good).then_some("slug: expected 1 to 63 small letters, digits and hyphens, none at an end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Exit;
    use proptest::prelude::*;

    fn row(generation: i64, wish: u8, intent: Intent) -> Existing {
        Existing {
            id: format!("i-{generation}"),
            generation: Generation::new(generation),
            provider: "a".to_owned(),
            wish: vec![wish],
            intent,
            confirmed: true,
            ended: false,
        }
    }

    fn asked(generation: Option<i64>, wish: &[u8]) -> Asked<'_> {
        Asked { generation: generation.map(Generation::new), provider: "a", wish }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(seconds + 1_000_000))
    }

    #[test]
    fn a_generation_is_one_instance_whatever_is_asked_twice() {
        let newest = Generation::new(3);
        let rows = [row(2, 1, Intent::End), row(3, 1, Intent::Run)];
        let of = |generation, rows: &[_]| place(asked(Some(generation), &[9]), newest, rows);
        assert_eq!(of(3, &rows), Placing::Same("i-3".to_owned()));
        assert_eq!(of(2, &rows), Placing::Over);
        assert_eq!(of(1, &rows), Placing::Superseded(newest));
        let new = Placing::New { generation: Generation::new(4), ends: Vec::new() };
        assert_eq!(of(4, &rows), new, "the older one is its platform's business");
        let never = Existing { confirmed: false, ended: true, ..row(3, 1, Intent::End) };
        assert_eq!(of(3, std::slice::from_ref(&never)), Placing::Again("i-3".to_owned()));
        assert_eq!(of(3, &[Existing { confirmed: true, ..never }]), Placing::Over);
        let other = Asked { provider: "b", ..asked(Some(3), &[1]) };
        assert_eq!(place(other, newest, &rows), Placing::Elsewhere("a".to_owned()));
    }

    #[test]
    fn where_the_fleet_counts_the_same_wish_is_the_same_instance() {
        let newest = Generation::new(3);
        let rows = [row(2, 1, Intent::End), row(3, 1, Intent::Run)];
        assert_eq!(place(asked(None, &[1]), newest, &rows), Placing::Same("i-3".to_owned()));
        let replaced =
            Placing::New { generation: Generation::new(4), ends: vec!["i-3".to_owned()] };
        assert_eq!(place(asked(None, &[2]), newest, &rows), replaced);
        let ended = [Existing { ended: true, ..row(3, 1, Intent::Run) }];
        let new = Placing::New { generation: Generation::new(4), ends: Vec::new() };
        assert_eq!(place(asked(None, &[1]), newest, &ended), new);
    }

    #[test]
    fn one_at_a_time_where_the_fleet_counts() {
        let facts = Facts { intent: Intent::Run, confirmed: false, counted: true, elder: true };
        assert_eq!(next(facts), Step::AwaitElder);
        assert_eq!(next(Facts { counted: false, ..facts }), Step::Start);
        assert_eq!(next(Facts { elder: false, ..facts }), Step::Start);
        assert_eq!(next(Facts { confirmed: true, ..facts }), Step::Look);
        assert_eq!(next(Facts { intent: Intent::Stop, ..facts }), Step::Stop);
        assert_eq!(next(Facts { intent: Intent::End, ..facts }), Step::End);
    }

    #[test]
    fn replacements_have_a_budget_that_comes_back() {
        let mut life =
            Life { counted: true, recreations: Recreations::default(), booting_until: None };
        let mut waits = Vec::new();
        for _ in 0..BUDGET {
            let Verdict::Recreate { at: then, recreations } = judge(&Seen::Gone, life, at(0))
            else {
                panic!("within the budget it is replaced");
            };
            waits.push(then.since(at(0)).as_secs());
            life.recreations = recreations;
        }
        assert_eq!(waits, [1, 10, 60]);
        let stopped = Seen::Stopped(Exit::default());
        assert_eq!(judge(&stopped, life, at(599)), Verdict::Spent { until: at(600) });
        let fresh = Recreations { count: 1, since: at(600) };
        let again = Verdict::Recreate { at: at(601), recreations: fresh };
        assert_eq!(judge(&stopped, life, at(600)), again);
        life.counted = false;
        assert_eq!(judge(&stopped, life, at(0)), Verdict::Down, "its platform replaces it");
    }

    #[test]
    fn silence_after_a_start_is_told_once_and_doubt_does_nothing() {
        let life = Life {
            counted: true,
            recreations: Recreations::default(),
            booting_until: Some(at(600)),
        };
        assert_eq!(judge(&Seen::Running, life, at(599)), Verdict::Runs);
        assert_eq!(judge(&Seen::Running, life, at(600)), Verdict::Late);
        let told = Life { booting_until: None, ..life };
        assert_eq!(judge(&Seen::Running, told, at(9999)), Verdict::Runs);
        assert_eq!(judge(&Seen::Unknown(String::new()), life, at(9999)), Verdict::Doubt);
        assert_eq!(boot_deadline("hermes"), Duration::from_secs(25 * 60));
        assert_eq!(boot_deadline("langgraph"), Duration::from_secs(10 * 60));
    }

    #[test]
    fn a_transfer_stops_after_its_failures() {
        assert!(may_ask(0, 0, 2, 1) && !may_ask(2, 0, 2, 1));
        assert!(!may_ask(0, 1, 2, 1) && may_ask(0, 9, 2, 0));
    }

    #[test]
    fn a_slug_can_stand_in_an_address() {
        assert!(["a", "acme-2", "9"].iter().all(|slug| slug_mistake(slug).is_none()));
        let long = "a".repeat(64);
        assert!(
            ["", "-a", "a-", "Acme", "a_b", &long].iter().all(|slug| slug_mistake(slug).is_some())
        );
    }

    #[test]
    fn states_survive_their_text() {
        assert!(Intent::ALL.iter().all(|it| Intent::parse(it.as_str()) == Some(*it)));
        assert!(State::ALL.iter().all(|it| State::parse(it.as_str()) == Some(*it)));
    }

    proptest! {
        #[test]
        fn no_two_live_instances_where_the_fleet_counts(wishes in proptest::collection::vec(0..3u8, 1..20)) {
            let (mut rows, mut newest): (Vec<Existing>, _) = (Vec::new(), Generation::NONE);
            for wish in wishes {
                if let Placing::New { generation, ends } = place(asked(None, &[wish]), newest, &rows) {
                    rows.iter_mut().filter(|row| ends.contains(&row.id)).for_each(|row| row.intent = Intent::End);
                    rows.push(row(generation.number(), wish, Intent::Run));
                    newest = generation;
                }
                let live = rows.iter().filter(|row| row.intent == Intent::Run);
                prop_assert_eq!(live.map(|row| row.wish[0]).collect::<Vec<_>>(), [wish]);
            }
        }
    }
}
