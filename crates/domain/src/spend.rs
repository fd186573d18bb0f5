//! What turns cost, as far as answers say what they used.

use crate::time::Timestamp;

/// Most tokens that one answer may say it read, or wrote.
pub const MOST_TOKENS: i64 = 10_000_000;
/// Dollars for a million tokens, read and written. One price for every model: a figure to compare days by.
const PRICE: (i64, i64) = (3, 15);
const DAY: i64 = 24 * 3600 * 1_000_000;

/// Tokens that were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Read by a model.
    pub input: i64,
    /// Written by it.
    pub output: i64,
}

impl Usage {
    /// What an answer says, within bounds; `None` where that is nothing.
    #[must_use]
    pub fn said(input: i64, output: i64) -> Option<Self> {
        let bounded = |tokens: i64| tokens.clamp(0, MOST_TOKENS);
        let usage = Self { input: bounded(input), output: bounded(output) };
        (usage != Self::default()).then_some(usage)
    }

    /// In dollars, with six digits.
    #[must_use]
    pub fn cost(self) -> String {
        let read = self.input.saturating_mul(PRICE.0);
        let micros = read.saturating_add(self.output.saturating_mul(PRICE.1));
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// The day (UTC) of a point in time: its beginning, and its end.
#[must_use]
pub fn day(of: Timestamp) -> (Timestamp, Timestamp) {
    let start = of.micros() - of.micros().rem_euclid(DAY);
    (Timestamp::from_micros(start), Timestamp::from_micros(start.saturating_add(DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_no_usage_and_too_much_is_bounded() {
        assert_eq!(Usage::said(0, 0), None);
        assert_eq!(Usage::said(-5, 0), None);
        assert_eq!(Usage::said(-5, 1), Some(Usage { input: 0, output: 1 }));
        let most = Usage { input: MOST_TOKENS, output: MOST_TOKENS };
        assert_eq!(Usage::said(i64::MAX, MOST_TOKENS + 1), Some(most));
    }

    #[test]
    fn costs_have_six_digits() {
        assert_eq!(Usage::default().cost(), "0.000000");
        assert_eq!(Usage { input: 1, output: 1 }.cost(), "0.000018");
        assert_eq!(Usage { input: 1_000_000, output: 2_000_000 }.cost(), "33.000000");
    }

    #[test]
    fn a_day_begins_at_midnight() {
        let at = |text| Timestamp::parse(text).unwrap();
        let whole = (at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z"));
        assert_eq!(day(at("2026-03-01T00:00:00Z")), whole);
        assert_eq!(day(at("2026-03-01T23:59:59.999999Z")), whole);
    }
}
