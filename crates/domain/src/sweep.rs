//! What a sweep may take away: garbage, defined.
//!
//! A sweep never hurts anything fresh. What is garbage is said here once; the statement that takes it away
//! repeats it, so that what decides and what acts are one.

use std::time::Duration;

use crate::guards::{Guard, Guards};
use crate::id::Generation;
use crate::time::Timestamp;
use crate::workspace::Status;

/// A credential that was not used for this long is idle.
pub const IDLE: Duration = Duration::from_secs(300);
/// An agent that has not been heard of for this long is not busy, whatever it said last.
pub const PHANTOM: Duration = Duration::from_secs(600);

/// A live instance credential, and its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The generation of the credential.
    pub generation: Generation,
    /// When it was last used, or minted where it never was.
    pub used_at: Timestamp,
    /// Where its workspace stands.
    pub status: Status,
    /// Whether a backend runs the workspace.
    pub managed: bool,
    /// The workspace's current generation.
    pub current: Generation,
}

/// Whether a live instance credential is left over, where the backend has no instance of its workspace.
///
/// Left over means: older than the current generation, idle, and its workspace neither removed (its
/// credentials ended with it) nor being started. The current generation, the newest and a migration's
/// candidate are spared because none of them is older than the current one.
#[must_use]
pub fn stale(holding: Holding, now: Timestamp, guards: Guards) -> bool {
    let older = holding.generation < holding.current;
    let starting = matches!(holding.status, Status::Removed | Status::Provisioning);
    let idle = holding.used_at <= now.before(IDLE);
    holding.managed && !starting && idle && (older || !guards.hold(Guard::SweepSparesCurrent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_16_17_20_only_what_is_older_idle_managed_and_at_rest_is_stale() {
        let now = Timestamp::EPOCH.after(Duration::from_secs(1_000_000));
        let stale_one = Holding {
            generation: Generation::new(1),
            used_at: now.before(IDLE),
            status: Status::Online,
            managed: true,
            current: Generation::new(2),
        };
        assert!(stale(stale_one, now, Guards::ON));
        for spared in [
            Holding { generation: Generation::new(2), ..stale_one },
            Holding { generation: Generation::new(3), ..stale_one },
            Holding { used_at: now.before(IDLE - Duration::from_secs(1)), ..stale_one },
            Holding { status: Status::Provisioning, ..stale_one },
            Holding { status: Status::Removed, ..stale_one },
            Holding { managed: false, ..stale_one },
        ] {
            assert!(!stale(spared, now, Guards::ON), "{spared:?}");
        }
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn without_the_guard_the_current_credential_is_swept() {
        let now = Timestamp::EPOCH.after(Duration::from_secs(1_000_000));
        let current = Holding {
            generation: Generation::new(2),
            used_at: now.before(IDLE),
            status: Status::Online,
            managed: true,
            current: Generation::new(2),
        };
        assert!(!stale(current, now, Guards::ON));
        assert!(stale(current, now, Guards::without(Guard::SweepSparesCurrent)));
    }
}
