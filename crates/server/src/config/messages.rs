//! Messages: how long one is recognised, and how long one may wait.

use std::time::Duration;

use super::layers::Layers;

/// How long a repeated message is recognised, unless said otherwise.
const DEDUPE_HOURS: u64 = 24;
/// How long a message may wait for its delivery, unless said otherwise.
const EXPIRE_HOURS: u64 = 7 * 24;
/// An agent that says nothing for this long has lost its turn, unless said otherwise.
const IDLE_SECONDS: u64 = 300;
/// More than a year is for ever.
const MOST_HOURS: u64 = 366 * 24;

/// How long messages are recognised, and how long they may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages {
    /// A message that is over is kept so long, and a repeated one is recognised by it.
    pub dedupe: Duration,
    /// A message that waits longer than this is given up.
    pub expire_after: Duration,
    /// An agent that says nothing at all for this long has lost its turn, unless it declared another time.
    pub idle: Duration,
}

/// `[messages]` of the settings file.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFile {
    dedupe_hours: Option<u64>,
    expire_hours: Option<u64>,
}

impl Messages {
    pub(super) fn resolve(said: &mut Layers<'_>, file: InFile) -> Self {
        let hours = |hours: u64| Duration::from_secs(hours.clamp(1, MOST_HOURS) * 3600);
        let dedupe = said.of_file("messages.dedupe_hours", file.dedupe_hours, DEDUPE_HOURS);
        let expire = said.of_file("messages.expire_hours", file.expire_hours, EXPIRE_HOURS);
        let idle =
            said.number("a2a_idle_timeout_seconds", "A2A_IDLE_TIMEOUT_SECONDS", IDLE_SECONDS);
        Self { dedupe: hours(dedupe), expire_after: hours(expire), idle: Duration::from_secs(idle) }
    }
}
