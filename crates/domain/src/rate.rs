//! How many requests may come in a time: a fixed window, which begins with the first request after the last
//! one ended.

use std::time::Duration;

use crate::time::Timestamp;

/// How much may come, in how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many requests.
    pub most: u32,
    /// In so long.
    pub per: Duration,
}

/// What a caller is told about its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many may come.
    pub limit: u32,
    /// How many may still come.
    pub remaining: u32,
    /// Whole seconds until a new window may begin, rounded up.
    pub reset: u64,
    /// This one was within the limit.
    pub within: bool,
}

/// One caller's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    began: Timestamp,
    count: u32,
}

impl Window {
    /// A window that begins now.
    #[must_use]
    pub const fn begin(now: Timestamp) -> Self {
        Self { began: now, count: 0 }
    }

    /// Whether it has ended, and may be forgotten.
    #[must_use]
    pub fn over(&self, rate: Rate, now: Timestamp) -> bool {
        // A clock that was set back ends it too: nobody waits for time to be caught up.
        now < self.began || now.since(self.began) >= rate.per
    }

    /// Count one more.
    pub fn count(&mut self, rate: Rate, now: Timestamp) -> Standing {
        if self.over(rate, now) {
            *self = Self::begin(now);
        }
        let within = self.count < rate.most;
        self.count = self.count.saturating_add(1).min(rate.most);
        Standing { within, ..self.look(rate, now) }
    }

    /// Where it stands. `within`: whether one more would be.
    #[must_use]
    pub fn look(&self, rate: Rate, now: Timestamp) -> Standing {
        let Self { began, count } = if self.over(rate, now) { Self::begin(now) } else { *self };
        let left = rate.per.saturating_sub(now.since(began));
        Standing {
            limit: rate.most,
            remaining: rate.most.saturating_sub(count),
            reset: left.as_secs() + u64::from(left.subsec_nanos() > 0),
            within: count < rate.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { most: 3, per: Duration::from_secs(60) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_window_is_full_until_it_ends() {
        let mut window = Window::begin(at(10));
        let told: Vec<_> = (10..14).map(|s| window.count(RATE, at(s))).collect();
        let remaining: Vec<_> = told.iter().map(|it| (it.within, it.remaining, it.reset)).collect();
        assert_eq!(remaining, [(true, 2, 60), (true, 1, 59), (true, 0, 58), (false, 0, 57)]);
        assert!(!window.look(RATE, at(69)).within);
        assert_eq!(
            window.count(RATE, at(70)).remaining,
            2,
            "a new one begins with its first request"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let mut window = Window::begin(at(1000));
        for _ in 0..4 {
            window.count(RATE, at(1000));
        }
        assert!(window.count(RATE, at(500)).within);
    }

    proptest! {
        #[test]
        fn no_window_lets_more_pass_than_it_may(steps in prop::collection::vec(0_i64..30, 1..200)) {
            let (mut now, mut window) = (0, Window::begin(at(0)));
            let mut passed: Vec<i64> = Vec::new();
            for step in steps {
                now += step;
                if window.count(RATE, at(now)).within {
                    passed.push(now);
                }
            }
            // Two windows may touch: twice the limit in any span of one window's length.
            for from in &passed {
                let near = passed.iter().filter(|it| (*from..*from + 60).contains(*it)).count();
                prop_assert!(near <= 2 * RATE.most as usize);
            }
        }
    }
}
