//! How long what happened is kept.

use std::time::Duration;

use super::layers::Layers;

/// How long events and activity are kept, unless said otherwise.
const EVENT_DAYS: u64 = 7;
/// How long decisions about what is over are kept.
const JOURNAL_DAYS: u64 = 90;
/// How often what is too old is looked for.
const CLEANUP_HOURS: u64 = 6;
/// More than a century is for ever.
const MOST_DAYS: u64 = 36_500;

/// How long what happened is kept, and how often what is older is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, and activity.
    pub events: Duration,
    /// Decisions about generations that are over.
    pub journal: Duration,
    /// Between two looks at what is too old.
    pub every: Duration,
}

impl Retention {
    pub(super) fn resolve(said: &mut Layers<'_>) -> Self {
        let mut number = |name, variable, default| said.number(name, variable, default);
        Self {
            events: days(number("event_retention_days", "ACTIVITY_RETENTION_DAYS", EVENT_DAYS)),
            journal: days(number(
                "journal_retention_days",
                "LIGAND_JOURNAL_RETENTION_DAYS",
                JOURNAL_DAYS,
            )),
            every: hours(number(
                "cleanup_interval_hours",
                "ACTIVITY_CLEANUP_INTERVAL_HOURS",
                CLEANUP_HOURS,
            )),
        }
    }
}

fn days(days: u64) -> Duration {
    hours(days.min(MOST_DAYS) * 24)
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours.min(MOST_DAYS * 24) * 3600)
}
