//! Leases: how long an instance may be silent before its backend is asked about it.
//!
//! A lapsed lease is a question, not an answer: it never by itself ends an instance.

use std::time::Duration;

use crate::time::Timestamp;

/// Pace that the server asks of an agent that declared `paced`, unless its operator says otherwise.
pub const PACED_BEAT: Duration = Duration::from_secs(10);
/// Beats that a paced agent may miss.
pub const PACED_BEATS: u32 = 3;
/// Pace of every other agent; they are told it but may ignore it.
pub const PLAIN_BEAT: Duration = Duration::from_secs(30);
/// Lease of an agent that beats at a pace of its own: the contract's liveness term.
pub const PLAIN_TERM: Duration = Duration::from_secs(180);
/// Default lease of a workspace that no backend runs.
pub const EXTERNAL_TERM: Duration = Duration::from_secs(90);

/// Who holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// An agent that follows `next_heartbeat_seconds`, with the pace it is asked for.
    Paced(Duration),
    /// A managed instance whose agent beats at its own pace.
    Plain,
    /// A workspace run elsewhere, with the operator's term for it.
    External(Duration),
}

impl Holder {
    /// How long silence is tolerated.
    #[must_use]
    pub fn term(self) -> Duration {
        match self {
            Self::Paced(beat) => beat * PACED_BEATS,
            Self::Plain => PLAIN_TERM,
            Self::External(term) => term,
        }
    }

    /// When the next heartbeat is asked for.
    #[must_use]
    pub fn beat(self) -> Duration {
        match self {
            Self::Paced(beat) => beat,
            Self::Plain => PLAIN_BEAT,
            Self::External(term) => PLAIN_BEAT.min(term / 3),
        }
    }
}

/// When the lease lapses: a full term after the last sign of life, or after the server started, whichever
/// is later. A server that was away has not listened, so its absence proves nothing about agents.
#[must_use]
pub fn lapses_at(last_seen: Timestamp, server_started: Timestamp, holder: Holder) -> Timestamp {
    last_seen.max(server_started).after(holder.term())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_lease_lapses_before_a_full_term_after_a_start(seen in 0..1_000_000_000i64, started in 0..1_000_000_000i64) {
            let (seen, started) = (Timestamp::from_micros(seen), Timestamp::from_micros(started));
            for holder in [Holder::Paced(PACED_BEAT), Holder::Plain, Holder::External(EXTERNAL_TERM)] {
                let at = lapses_at(seen, started, holder);
                prop_assert!(at >= started.after(holder.term()));
                prop_assert!(at >= seen.after(holder.term()));
                prop_assert!(holder.beat() * 3 <= holder.term());
            }
        }
    }
}
