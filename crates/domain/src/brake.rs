//! The brake on replacement: when much of the fleet falls silent at once, the fault is hardly in the agents.
//!
//! A network that is gone for a minute silences healthy agents by the hundred, and replacing them all would
//! turn a pause into a storm. So replacement *on silence* stops while that lasts, and goes on slowly
//! afterwards. What a backend reports (an exit, an instance that is gone) is no guess: it is replaced all the
//! same, at a bounded rate.

use std::time::Duration;

use crate::guards::{Guard, Guards};
use crate::time::Timestamp;

/// Silences within this time belong together.
pub const WINDOW: Duration = Duration::from_secs(60);
/// So few silent workspaces are never a mass silence.
pub const FEW: i64 = 5;
/// More than this percentage of the running workspaces is one.
pub const PERCENT: i64 = 30;
/// The brake lets go by itself after this long.
pub const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Replacements a minute while the brake is not free, in a small fleet.
pub const LEAST_RATE: i64 = 20;
/// And in a large one: this percentage of it.
pub const RATE_PERCENT: i64 = 10;

/// The fleet, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Workspaces that a backend runs and whose current instance serves, the silent ones included.
    pub running: i64,
    /// Those of them that are silent now.
    pub silent: i64,
    /// Those of the silent that turned so since [`State::counts_from`].
    pub turned: i64,
}

impl Census {
    /// Replacements that may begin within a minute while the brake is not free.
    #[must_use]
    pub fn rate(self) -> i64 {
        LEAST_RATE.max(self.running.saturating_mul(RATE_PERCENT) / 100)
    }

    fn mass_silence(self) -> bool {
        let share = self.turned.saturating_mul(100) > self.running.saturating_mul(PERCENT);
        share && self.turned > FEW
    }
}

/// Where the brake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing is held up.
    #[default]
    Free,
    /// Nothing is replaced on silence.
    Engaged {
        /// Since when.
        since: Timestamp,
        /// It lets go by itself then.
        until: Timestamp,
        /// The most that were silent at once.
        peak: i64,
    },
    /// Replacement goes on, at a bounded rate.
    Easing {
        /// Since when. What was silent before does not engage it again.
        since: Timestamp,
    },
}

impl State {
    /// As reports and stores say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Engaged { .. } => "engaged",
            Self::Easing { .. } => "easing",
        }
    }

    /// Silences from then on count as one.
    #[must_use]
    pub fn counts_from(self, now: Timestamp) -> Timestamp {
        let window = now.before(WINDOW);
        match self {
            Self::Free | Self::Engaged { .. } => window,
            Self::Easing { since } => window.max(since),
        }
    }

    /// Where it stands after a look at the fleet.
    #[must_use]
    pub fn next(self, census: Census, now: Timestamp, guards: Guards) -> Self {
        if !guards.hold(Guard::Brake) {
            return Self::Free;
        }
        let engaged = Self::Engaged { since: now, until: now.after(LONGEST), peak: census.silent };
        match self {
            Self::Free if census.mass_silence() => engaged,
            Self::Free => Self::Free,
            Self::Engaged { since, until, peak } => {
                let peak = peak.max(census.silent);
                let half_back = census.silent.saturating_mul(2) <= peak;
                if now >= until || half_back {
                    return Self::Easing { since: now };
                }
                Self::Engaged { since, until, peak }
            }
            Self::Easing { .. } if census.mass_silence() => engaged,
            Self::Easing { since } => {
                let over = census.silent <= census.rate() && now.since(since) >= WINDOW;
                if over { Self::Free } else { self }
            }
        }
    }

    /// An operator says that it goes on.
    #[must_use]
    pub fn released(self, now: Timestamp) -> Self {
        match self {
            Self::Engaged { .. } => Self::Easing { since: now },
            Self::Free | Self::Easing { .. } => self,
        }
    }
}

/// Why something would be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It is silent: a guess.
    Silent,
    /// Its backend reported its end, or its start was given up.
    Reported,
}

/// Replacements that began in the present minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permits {
    /// When that minute began.
    pub window: Timestamp,
    /// How many.
    pub used: i64,
}

/// May it be replaced now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; these are the permits afterwards.
    Go(Permits),
    /// No: it is tried again then.
    Wait(Timestamp),
}

/// Ask for one replacement.
#[must_use]
pub fn ask(
    state: State,
    permits: Permits,
    census: Census,
    because: Because,
    now: Timestamp,
) -> Verdict {
    match (state, because) {
        (State::Free, _) => Verdict::Go(permits),
        (State::Engaged { until, .. }, Because::Silent) => Verdict::Wait(until),
        (State::Engaged { .. }, Because::Reported) | (State::Easing { .. }, _) => {
            let over = now >= permits.window.after(WINDOW);
            let permits = if over { Permits { window: now, used: 0 } } else { permits };
            if permits.used >= census.rate() {
                return Verdict::Wait(permits.window.after(WINDOW));
            }
            Verdict::Go(Permits { used: permits.used + 1, ..permits })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(1_000_000 + seconds))
    }

    fn census(running: i64, silent: i64) -> Census {
        Census { running, silent, turned: silent }
    }

    fn after(state: State, census: Census, seconds: u64) -> State {
        state.next(census, at(seconds), Guards::ON)
    }

    #[test]
    fn more_than_thirty_percent_and_more_than_five_engage_it() {
        assert_eq!(after(State::Free, census(100, 30), 0), State::Free);
        assert_eq!(after(State::Free, census(100, 31), 0).as_str(), "engaged");
        assert_eq!(after(State::Free, census(5, 5), 0), State::Free);
        assert_eq!(after(State::Free, census(6, 6), 0).as_str(), "engaged");
        // Silent for long is not turning silent.
        let old = Census { turned: 5, ..census(100, 80) };
        assert_eq!(after(State::Free, old, 0), State::Free);
    }

    #[test]
    fn it_eases_when_half_are_back_when_told_to_and_after_its_time() {
        let engaged = after(State::Free, census(100, 60), 0);
        let more = after(engaged, census(100, 80), 10);
        assert_eq!(after(more, census(100, 41), 20).as_str(), "engaged");
        assert_eq!(after(more, census(100, 40), 20), State::Easing { since: at(20) });
        assert_eq!(after(more, census(100, 80), 899).as_str(), "engaged");
        assert_eq!(after(more, census(100, 80), 900), State::Easing { since: at(900) });
        assert_eq!(more.released(at(30)), State::Easing { since: at(30) });
        assert_eq!(State::Free.released(at(30)), State::Free);
    }

    #[test]
    fn what_was_silent_before_does_not_engage_it_again() {
        let easing = State::Easing { since: at(30) };
        assert_eq!(easing.counts_from(at(40)), at(30));
        assert_eq!(easing.counts_from(at(120)), at(60));
        let old = Census { turned: 0, ..census(100, 80) };
        assert_eq!(after(easing, old, 40), easing);
        assert_eq!(after(easing, census(100, 80), 40).as_str(), "engaged", "a second wave");
        let few = Census { turned: 0, ..census(100, 20) };
        assert_eq!(after(easing, few, 89), easing);
        assert_eq!(after(easing, few, 90), State::Free);
    }

    #[test]
    fn while_it_holds_only_reports_go_and_those_at_a_rate() {
        let engaged = after(State::Free, census(100, 60), 0);
        let fleet = census(100, 60);
        let asked = |permits, because| ask(engaged, permits, fleet, because, at(1));
        assert_eq!(asked(Permits::default(), Because::Silent), Verdict::Wait(at(900)));
        let mut permits = Permits::default();
        for _ in 0..20 {
            let Verdict::Go(next) = asked(permits, Because::Reported) else { panic!("refused") };
            permits = next;
        }
        assert_eq!(asked(permits, Because::Reported), Verdict::Wait(at(61)));
        assert_eq!(census(1_000, 0).rate(), 100);
        let free = ask(State::Free, permits, fleet, Because::Silent, at(1));
        assert_eq!(free, Verdict::Go(permits));
    }

    proptest! {
        #[test]
        fn it_always_lets_go(running in 0..10_000i64, shares in proptest::collection::vec(0..=100i64, 1..200)) {
            let mut state = State::Free;
            let mut engaged_for = 0;
            for (minute, share) in (0u64..).zip(shares) {
                let fleet = census(running, running * share / 100);
                state = state.next(fleet, at(minute * 60), Guards::ON);
                let engaged = matches!(state, State::Engaged { .. });
                engaged_for = if engaged { engaged_for + 1 } else { 0 };
                prop_assert!(engaged_for <= 15);
                if engaged {
                    prop_assert!(running > FEW);
                }
            }
        }
    }
}
