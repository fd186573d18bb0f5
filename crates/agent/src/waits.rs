//! How long to wait. Pure.

use std::time::Duration;

/// The first wait after a failure.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait of our own making.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait the platform can ask for: beyond this a mistaken header would look like a dead agent.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// Failures in a row that are told apart: from here on the wait is the longest.
const MOST_COUNTED: u32 = 7;

/// One more, up to where it makes a difference.
pub(crate) fn counted(count: u32) -> u32 {
    count.saturating_add(1).min(MOST_COUNTED)
}

/// What the platform asked for, within reason.
pub(crate) fn asked(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(LONGEST_ASKED)
}

/// The wait after the `nth` failure (1 is the first): doubling, capped, shortened at random.
pub(crate) fn backoff(nth: u32, jitter: f64) -> Duration {
    let doublings = nth.clamp(1, 16) - 1;
    let full = FIRST_WAIT.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_WAIT);
    shortened(full, jitter)
}

/// Shortened by up to a quarter, so that agents that fell together do not rise together.
pub(crate) fn shortened(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}
