//! The only door to time. Whatever formats or decides gets `now` as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ligand_domain::time::Timestamp;

/// Now.
#[expect(clippy::disallowed_methods, reason = "verbs take their time here and pass it on")]
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.after(since_epoch)
}

/// A point to measure from.
#[expect(clippy::disallowed_methods, reason = "what measures takes its time here")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "verbs that poll or back off do it here")]
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
