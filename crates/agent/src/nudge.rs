//! Nudges: whoever wants something of this agent asks it to send its heartbeat now. A hint: the answer to the
//! heartbeat says what is wanted, and comes without a nudge too, only later. So nobody has to prove anything for it,
//! and there are only so many.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Nudges that are taken in a second.
const MOST: u32 = 10;

/// Those that came.
#[derive(Debug, Default)]
pub(crate) struct Nudges {
    notify: Notify,
    /// Since when they are counted, and how many came since.
    lately: Mutex<Option<(Instant, u32)>>,
}

impl Nudges {
    /// One came. `false`: it is one too many.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |from: Instant| now.saturating_duration_since(from) >= Duration::from_secs(1);
        let (from, count) = lately.filter(|(from, _)| !over(*from)).unwrap_or((now, 0));
        *lately = Some((from, count.saturating_add(1)));
        let taken = count < MOST;
        if taken {
            self.notify.notify_one();
        }
        taken
    }

    /// Returns at the next one; at once for one that came while nobody waited.
    pub(crate) async fn next(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine;

    #[test]
    fn there_are_only_so_many_in_a_second() {
        let (nudges, now) = (Nudges::default(), machine::now());
        let taken = |at: Instant| (0..20).filter(|_| nudges.take(at)).count();
        assert_eq!(taken(now), 10);
        assert_eq!(taken(now + Duration::from_millis(999)), 0);
        assert_eq!(taken(now + Duration::from_secs(1)), 10);
    }
}
