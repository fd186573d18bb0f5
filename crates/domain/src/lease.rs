//! Leases: how long an instance may be silent before its backend is asked about it.
//!
//! A lapsed lease is a question, not an answer: it never by itself ends an instance.

use std::time::Duration;

use crate::guards::{Guard, Guards};
use crate::time::Timestamp;

/// Pace that the server asks of an agent that declared `paced`, in a fleet of usual size.
pub const PACED_BEAT: Duration = Duration::from_secs(10);
/// Pace in the largest fleets.
pub const SLOWEST_BEAT: Duration = Duration::from_secs(30);
/// Beats that a paced agent may miss.
pub const PACED_BEATS: u32 = 3;
/// Pace of every other agent; they are told it but may ignore it.
pub const PLAIN_BEAT: Duration = Duration::from_secs(30);
/// Lease of an agent that beats at a pace of its own: the contract's liveness term.
pub const PLAIN_TERM: Duration = Duration::from_secs(180);
/// Default lease of a workspace that no backend runs.
pub const EXTERNAL_TERM: Duration = Duration::from_secs(90);
/// Heartbeats a second that a fleet is kept to, as long as its pace can be slowed.
pub const BEATS_A_SECOND: u64 = 1_000;
/// A pace holds at least this long before it changes again.
pub const PACE_HOLDS: Duration = Duration::from_secs(120);
/// Every replica has learned of a new pace by then.
pub const PACE_SPREADS: Duration = Duration::from_secs(30);

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

/// The pace of a fleet of this many instances: slow enough that their heartbeats can be taken down.
#[must_use]
pub fn beat_of(fleet: u64) -> Duration {
    Duration::from_secs(fleet / BEATS_A_SECOND).clamp(PACED_BEAT, SLOWEST_BEAT)
}

/// The pace that agents are asked for, and the one before: a lease is three beats of what was *told*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// What is told now.
    pub beat: Duration,
    /// What was told before.
    pub before: Duration,
    /// Since when it is told.
    pub since: Timestamp,
}

impl Default for Pace {
    fn default() -> Self {
        Self { beat: PACED_BEAT, before: PACED_BEAT, since: Timestamp::EPOCH }
    }
}

impl Pace {
    /// The slowest pace that an agent may follow which was last heard at `seen`.
    #[must_use]
    pub fn told_at(self, seen: Timestamp) -> Duration {
        let all_know = self.since.after(PACE_SPREADS);
        if seen >= all_know { self.beat } else { self.beat.max(self.before) }
    }

    /// Follow the size of the fleet: not for little, and not soon again.
    #[must_use]
    pub fn follow(self, fleet: u64, now: Timestamp) -> Self {
        let wanted = beat_of(fleet);
        let little = wanted.abs_diff(self.beat) * 5 < self.beat;
        if little || now.since(self.since) < PACE_HOLDS {
            return self;
        }
        Self { beat: wanted, before: self.beat, since: now }
    }
}

/// When the lease lapses: a full term after the last sign of life, or after the server started, whichever
/// is later. A server that was away has not listened, so its absence proves nothing about agents.
#[must_use]
pub fn lapses_at(
    last_seen: Timestamp,
    server_started: Timestamp,
    holder: Holder,
    guards: Guards,
) -> Timestamp {
    let from = match guards.hold(Guard::GraceAfterStart) {
        true => last_seen.max(server_started),
        false => last_seen,
    };
    from.after(holder.term())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_large_fleet_beats_slower() {
        let paces = [0, 10_000, 10_999, 20_000, 30_000, 1_000_000].map(|n| beat_of(n).as_secs());
        assert_eq!(paces, [10, 10, 10, 20, 30, 30]);
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn without_its_grace_a_new_server_doubts_everybody() {
        let (seen, started) = (Timestamp::EPOCH, Timestamp::EPOCH.after(Duration::from_secs(3600)));
        let of = |guards| lapses_at(seen, started, Holder::Plain, guards);
        assert!(of(Guards::ON) > started);
        assert!(of(Guards::without(Guard::GraceAfterStart)) < started);
    }

    proptest! {
        #[test]
        fn no_lease_lapses_before_a_full_term_after_a_start(seen in 0..1_000_000_000i64, started in 0..1_000_000_000i64) {
            let (seen, started) = (Timestamp::from_micros(seen), Timestamp::from_micros(started));
            for holder in [Holder::Paced(PACED_BEAT), Holder::Plain, Holder::External(EXTERNAL_TERM)] {
                let at = lapses_at(seen, started, holder, Guards::ON);
                prop_assert!(at >= started.after(holder.term()));
                prop_assert!(at >= seen.after(holder.term()));
                prop_assert!(holder.beat() * 3 <= holder.term());
            }
        }

        #[test]
        fn a_lease_is_never_shorter_than_three_beats_of_what_was_told(
            sizes in proptest::collection::vec((0..60_000u64, 0..200u64), 1..40), heard in 0..4_000u64, late in 0..30u64,
        ) {
            let at = |seconds| Timestamp::from_micros(1_000_000_000).after(Duration::from_secs(seconds));
            let (mut pace, mut clock) = (Pace::default(), 0);
            // What an agent was told at `heard`, by a replica that learns of a new pace a little late.
            let mut told = pace.beat;
            for (fleet, passes) in sizes {
                clock += passes;
                let next = pace.follow(fleet, at(clock));
                if next.since.after(Duration::from_secs(late)) <= at(heard) {
                    told = next.beat;
                }
                // Whoever looks does so while the agent may still be silent rightly.
                if clock >= heard && clock <= heard + told.as_secs() {
                    prop_assert!(next.told_at(at(heard)) >= told);
                }
                pace = next;
            }
        }
    }
}
