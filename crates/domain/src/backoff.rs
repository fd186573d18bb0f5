//! When a replacement is tried again.
//!
//! Quick deaths are answered quickly: the first [`AT_ONCE`] replacements inside [`WINDOW`] go at once.
//! Whoever keeps dying waits, [`FIRST_DELAY`] doubling to [`LAST_DELAY`], with jitter so that workspaces
//! that fell together do not rise together.

use std::time::Duration;

use crate::time::Timestamp;

/// Replacements that go at once.
pub const AT_ONCE: i64 = 10;
/// The window in which they are counted.
pub const WINDOW: Duration = Duration::from_secs(300);
/// The first delay.
pub const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
pub const LAST_DELAY: Duration = Duration::from_secs(300);
/// Time `online` that clears the count.
pub const CLEARED_AFTER: Duration = Duration::from_secs(600);

/// Replacements that followed a failure, and when counting began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// How many.
    pub count: i64,
    /// The first of them.
    pub since: Timestamp,
}

impl Failures {
    /// One more failure at `now`. `steady_since` is when the workspace last became `online`, where it was
    /// online until now: long enough clears the count.
    #[must_use]
    pub fn one_more(self, now: Timestamp, steady_since: Option<Timestamp>) -> Self {
        let steady = steady_since.is_some_and(|since| now.since(since) >= CLEARED_AFTER);
        let quiet = self.count <= AT_ONCE && now.since(self.since) >= WINDOW;
        if self.count == 0 || steady || quiet {
            return Self { count: 1, since: now };
        }
        Self { count: self.count + 1, since: self.since }
    }

    /// When the next attempt may begin. `jitter` is uniform in 0..1.
    #[must_use]
    pub fn next_attempt(self, now: Timestamp, jitter: f64) -> Timestamp {
        if self.count <= AT_ONCE { now } else { now.after(delay(self.count - AT_ONCE, jitter)) }
    }

    /// When a start that was refused outright (a bad recipe, no space) may be tried again: there is no
    /// reason to hurry ten times into the same wall.
    #[must_use]
    pub fn after_refusal(self, now: Timestamp, jitter: f64) -> Timestamp {
        now.after(delay(self.count, jitter))
    }
}

/// The `nth` delay (1 is the first): doubling, capped, then shortened by up to a quarter at random.
fn delay(nth: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(nth.clamp(1, 16) - 1).unwrap_or(0);
    let full = FIRST_DELAY.saturating_mul(2u32.saturating_pow(doublings)).min(LAST_DELAY);
    full.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(seconds + 1_000_000))
    }

    #[test]
    fn ten_at_once_then_doubling() {
        let mut failures = Failures::default();
        let mut waits = Vec::new();
        for _ in 0..14 {
            failures = failures.one_more(at(5), None);
            waits.push(failures.next_attempt(at(5), 0.0).since(at(5)).as_secs());
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8]);
    }

    #[test]
    fn ten_minutes_online_clear_the_count() {
        let many = Failures { count: 14, since: at(0) };
        assert_eq!(many.one_more(at(700), Some(at(0))).count, 1);
        assert_eq!(many.one_more(at(700), Some(at(500))).count, 15);
    }

    #[test]
    fn rare_failures_do_not_add_up() {
        let few = Failures { count: 3, since: at(0) };
        assert_eq!(few.one_more(at(301), None).count, 1);
        assert_eq!(few.one_more(at(299), None).count, 4);
    }

    proptest! {
        #[test]
        fn every_attempt_comes_and_none_waits_longer_than_the_cap(count in 1..1_000i64, jitter in 0.0..1.0f64) {
            let failures = Failures { count, since: at(0) };
            for next in [failures.next_attempt(at(9), jitter), failures.after_refusal(at(9), jitter)] {
                prop_assert!(next >= at(9) && next.since(at(9)) <= LAST_DELAY);
            }
        }
    }
}
