//! A workspace's statuses, and what moves them.
//!
//! Intent is what a user asked for; status is what was last observed. A status never claims more than its
//! evidence, and only the right instance may move it.

use std::time::Duration;

use crate::id::Generation;
use crate::time::Timestamp;

/// What a user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// One instance should serve.
    Running,
    /// None should, until resumed.
    Paused,
    /// None should, until a message comes.
    Hibernated,
    /// Never again. Terminal.
    Removed,
}

impl Intent {
    const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Hibernated, Self::Removed];

    /// Text form on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Hibernated => "hibernated",
            Self::Removed => "removed",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|intent| intent.as_str() == text)
    }
}

/// What was last observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// An instance is being brought up.
    Provisioning,
    /// It registered, and its lease has not lapsed.
    Online,
    /// It serves, badly: many errors, or wedged.
    Degraded,
    /// It was serving and is gone, or silent.
    Offline,
    /// Its start was refused or given up; the row says why, and when it is tried again.
    Failed,
    /// Deleted. Terminal.
    Removed,
    /// Stopped by a user.
    Paused,
    /// Stopped for idleness.
    Hibernated,
    /// On the way to [`Status::Hibernated`].
    Hibernating,
    /// Run elsewhere, and not heard of.
    AwaitingAgent,
}

impl Status {
    /// Every status, in the order of the contract.
    pub const ALL: [Self; 10] = [
        Self::Provisioning,
        Self::Online,
        Self::Degraded,
        Self::Offline,
        Self::Failed,
        Self::Removed,
        Self::Paused,
        Self::Hibernated,
        Self::Hibernating,
        Self::AwaitingAgent,
    ];

    /// Text form on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Failed => "failed",
            Self::Removed => "removed",
            Self::Paused => "paused",
            Self::Hibernated => "hibernated",
            Self::Hibernating => "hibernating",
            Self::AwaitingAgent => "awaiting_agent",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether turns may be sent to it.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Online | Self::Degraded)
    }
}

/// What decides whether an admitted agent may move the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What a user asked for.
    pub intent: Intent,
    /// The generation that counts now.
    pub current: Generation,
    /// The newest generation that was planned.
    pub newest: Generation,
    /// Whether a restart was asked for that no instance has loaded yet.
    pub restart_due: bool,
}

impl Standing {
    /// Whether a newer instance is wanted or on its way.
    #[must_use]
    pub fn replacement_under_way(self) -> bool {
        self.restart_due || self.newest > self.current
    }

    /// Whether an agent of `generation` may move the status: only while the workspace is meant to run, and
    /// while a replacement is under way only its newest generation. Everybody else is recorded as evidence
    /// and changes nothing.
    #[must_use]
    pub fn may_move(self, generation: Generation) -> bool {
        if self.intent != Intent::Running {
            return false;
        }
        if self.newest > self.current {
            generation == self.newest
        } else {
            !self.restart_due && generation == self.current
        }
    }
}

/// What a heartbeat reports that can move a status.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vitals {
    /// Share of recent work that failed, 0..1.
    pub error_rate: f64,
    /// `runtime_state` is `wedged`.
    pub wedged: bool,
    /// `runtime_state` is empty. Any other text blocks recovery, as the contract says.
    pub state_empty: bool,
    /// The runtime judges its own status (capability `status_mgmt`).
    pub native_status: bool,
    /// A register of its was let in and failed, and that is recent: see [`failed_lately`].
    pub register_failed: bool,
}

/// How long a failed register counts against an agent that goes on beating.
pub const REGISTER_FAILURE_COUNTS: Duration = Duration::from_secs(300);

/// Whether a register that failed at `at` still counts.
#[must_use]
pub fn failed_lately(at: Option<Timestamp>, now: Timestamp) -> bool {
    at.is_some_and(|at| now.since(at) < REGISTER_FAILURE_COUNTS)
}

/// Errors at or above which an online workspace is degraded.
pub const DEGRADE_AT: f64 = 0.5;
/// Errors below which a degraded workspace recovers. Between the two nothing changes.
pub const RECOVER_BELOW: f64 = 0.1;

/// Why a heartbeat moves a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It says that it is wedged.
    Wedged,
    /// Too many errors.
    Errors,
    /// Its last register failed.
    RegisterFailed,
    /// Few errors, and not wedged.
    Recovered,
    /// It was down, and is heard again.
    HeardAgain,
}

/// One move of a status by a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// From here; the store moves only what still stands there.
    pub from: Status,
    /// To here.
    pub to: Status,
    /// Why.
    pub reason: Reason,
}

/// What a heartbeat does to a status that it may move. The branches are independent, all judged against
/// the status before the heartbeat: wedged with many errors is announced twice.
#[must_use]
pub fn on_heartbeat(status: Status, vitals: Vitals) -> Vec<Move> {
    let moved = |to, reason| Move { from: status, to, reason };
    match status {
        Status::Online => {
            let errors = !vitals.native_status && vitals.error_rate >= DEGRADE_AT;
            let wedged = vitals.wedged.then(|| moved(Status::Degraded, Reason::Wedged));
            let errors = errors.then(|| moved(Status::Degraded, Reason::Errors));
            let failed = vitals.register_failed;
            let failed = failed.then(|| moved(Status::Degraded, Reason::RegisterFailed));
            wedged.into_iter().chain(errors).chain(failed).collect()
        }
        Status::Degraded => {
            let well = vitals.error_rate < RECOVER_BELOW && vitals.state_empty;
            let recovers = well && !vitals.native_status && !vitals.register_failed;
            recovers.then(|| moved(Status::Online, Reason::Recovered)).into_iter().collect()
        }
        Status::Provisioning | Status::Offline | Status::Failed | Status::AwaitingAgent => {
            vec![moved(Status::Online, Reason::HeardAgain)]
        }
        Status::Removed | Status::Paused | Status::Hibernated | Status::Hibernating => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn well() -> Vitals {
        Vitals { state_empty: true, ..Vitals::default() }
    }

    fn goes(status: Status, vitals: Vitals) -> Vec<Status> {
        on_heartbeat(status, vitals).into_iter().map(|m| m.to).collect()
    }

    #[test]
    fn hb_05_good_beats_leave_online_alone() {
        assert!(goes(Status::Online, Vitals { error_rate: 0.49, ..well() }).is_empty());
    }

    #[test]
    fn wedged_and_failing_is_announced_twice() {
        let bad = Vitals { error_rate: 0.9, wedged: true, ..Vitals::default() };
        assert_eq!(goes(Status::Online, bad), [Status::Degraded, Status::Degraded]);
        let native = Vitals { native_status: true, ..bad };
        assert_eq!(goes(Status::Online, native), [Status::Degraded]);
    }

    #[test]
    fn recovery_needs_few_errors_and_an_empty_state() {
        assert_eq!(goes(Status::Degraded, well()), [Status::Online]);
        assert!(goes(Status::Degraded, Vitals { error_rate: 0.1, ..well() }).is_empty());
        assert!(goes(Status::Degraded, Vitals { state_empty: false, ..well() }).is_empty());
        assert!(goes(Status::Degraded, Vitals { native_status: true, ..well() }).is_empty());
    }

    #[test]
    fn a_failed_register_degrades_and_blocks_recovery_whatever_the_runtime_judges() {
        let failed = Vitals { register_failed: true, native_status: true, ..well() };
        let moves = on_heartbeat(Status::Online, failed);
        assert_eq!(moves.iter().map(|m| m.reason).collect::<Vec<_>>(), [Reason::RegisterFailed]);
        assert!(
            goes(Status::Degraded, Vitals { register_failed: true, ..well() }).is_empty(),
            "it has to register first"
        );
        assert_eq!(
            goes(Status::Offline, failed),
            [Status::Online],
            "it is heard again all the same"
        );
        let at = Timestamp::from_micros(1_000_000);
        assert!(failed_lately(Some(at), at.after(Duration::from_secs(299))));
        assert!(!failed_lately(Some(at), at.after(Duration::from_secs(300))));
        assert!(!failed_lately(None, at));
    }

    #[test]
    fn texts_survive() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        for intent in Intent::ALL {
            assert_eq!(Intent::parse(intent.as_str()), Some(intent));
        }
    }

    proptest! {
        #[test]
        fn nothing_leaves_a_stopped_status(error_rate in 0.0..2.0f64, wedged: bool, native_status: bool, register_failed: bool) {
            let vitals = Vitals { error_rate, wedged, state_empty: !wedged, native_status, register_failed };
            for status in [Status::Removed, Status::Paused, Status::Hibernated, Status::Hibernating] {
                prop_assert!(on_heartbeat(status, vitals).is_empty());
            }
        }

        #[test]
        fn only_one_generation_may_move_a_status(current in 0..5i64, ahead in 0..3i64, restart_due: bool, generation in 0..9i64) {
            let standing = Standing {
                intent: Intent::Running,
                current: Generation::new(current),
                newest: Generation::new(current + ahead),
                restart_due,
            };
            let generation = Generation::new(generation);
            if standing.may_move(generation) {
                prop_assert_eq!(generation, standing.newest);
            }
            for intent in [Intent::Removed, Intent::Paused, Intent::Hibernated] {
                let moves = Standing { intent, ..standing }.may_move(generation);
                prop_assert!(!moves);
            }
        }
    }
}
