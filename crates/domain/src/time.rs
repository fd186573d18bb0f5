//! Points in time. There is no clock here: whoever knows the time passes it in.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Microseconds since 1970-01-01T00:00:00Z. One integer on the wire to both database engines, so that
/// order and arithmetic are the same on each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before everything.
    pub const EPOCH: Self = Self(0);
    /// Later than anything that will be written: "not due".
    pub const NEVER: Self = Self(i64::MAX);

    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch, as stores bind it.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, as event streams carry it.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0 / 1000
    }

    /// This point moved forward; stays at [`Self::NEVER`] instead of wrapping.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This point moved back; stops at the epoch.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)).max(0))
    }

    /// Time that has passed since `earlier`; zero when `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Read RFC 3339 text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(parsed.timestamp_micros()))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds; `never` beyond what a calendar holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(at) if *self != Self::NEVER => {
                f.write_str(&at.to_rfc3339_opts(SecondsFormat::Micros, true))
            }
            _ => f.write_str("never"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("expected an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arithmetic_stays_in_range() {
        assert_eq!(Timestamp::NEVER.after(Duration::from_secs(1)), Timestamp::NEVER);
        assert_eq!(Timestamp::EPOCH.before(Duration::from_secs(1)), Timestamp::EPOCH);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::from_micros(5)), Duration::ZERO);
        assert_eq!(Timestamp::NEVER.to_string(), "never");
    }

    proptest! {
        #[test]
        fn text_keeps_order_and_value(a in 0..4_000_000_000_000_000i64, b in 0..4_000_000_000_000_000i64) {
            let (a, b) = (Timestamp::from_micros(a), Timestamp::from_micros(b));
            prop_assert_eq!(Timestamp::parse(&a.to_string()), Some(a));
            prop_assert_eq!(a < b, a.to_string() < b.to_string());
        }
    }
}
