//! What may be asked of a workspace's life: pause, resume, hibernate, wake, recover; which one is idle; and what
//! is kept of a report about a start that failed.
//!
//! These decide for handlers and for the monitor of idle workspaces. What follows from the intent that they
//! write is [`crate::converge`]'s.

use std::time::Duration;

use crate::time::Timestamp;
use crate::workspace::{Intent, Status};

/// What a workspace is, as far as these decisions need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What a user asked for.
    pub intent: Intent,
    /// What was last observed.
    pub status: Status,
    /// Whether a backend runs its instances.
    pub managed: bool,
    /// Turns in progress, as its agent reports.
    pub active_tasks: i64,
}

/// Why a workspace is not hibernated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awake {
    /// It does not serve, or nothing here could wake it again.
    NotServing,
    /// So many turns are in progress.
    Busy(i64),
}

impl Standing {
    /// Whether it can be paused: it is not paused already, and not removed.
    #[must_use]
    pub const fn may_pause(self) -> bool {
        match self.intent {
            Intent::Running | Intent::Hibernated => true,
            Intent::Paused | Intent::Removed => false,
        }
    }

    /// Whether it can be resumed. A pause whose instance has not ended yet is one already.
    #[must_use]
    pub fn may_resume(self) -> bool {
        self.intent == Intent::Paused
    }

    /// Whether it can be woken. One that is on its way to sleep is woken too.
    #[must_use]
    pub fn may_wake(self) -> bool {
        self.intent == Intent::Hibernated
    }

    /// Whether it may be hibernated now; `force` ends turns in progress.
    ///
    /// # Errors
    /// What keeps it awake.
    pub fn may_hibernate(self, force: bool) -> Result<(), Awake> {
        if self.intent != Intent::Running || !self.status.serves() || !self.managed {
            return Err(Awake::NotServing);
        }
        if self.active_tasks > 0 && !force {
            return Err(Awake::Busy(self.active_tasks));
        }
        Ok(())
    }

    /// What becomes of a wish to recover it.
    #[must_use]
    pub fn recovery(self) -> Recovery {
        match (self.intent, self.status) {
            (Intent::Removed, _) => Recovery::Gone,
            (Intent::Paused, _) => Recovery::Paused,
            (Intent::Hibernated, _) => Recovery::Hibernated,
            (Intent::Running, _) if !self.managed => Recovery::Elsewhere,
            (Intent::Running, Status::Online) => Recovery::Well,
            (
                Intent::Running,
                Status::Provisioning
                | Status::Degraded
                | Status::Offline
                | Status::Failed
                | Status::Removed
                | Status::Paused
                | Status::Hibernated
                | Status::Hibernating
                | Status::AwaitingAgent,
            ) => Recovery::Restarts,
        }
    }
}

/// What becomes of a wish to recover a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Its failures are forgotten, and another instance is started at once.
    Restarts,
    /// It is online: there is nothing to recover.
    Well,
    /// It is paused, and is resumed instead.
    Paused,
    /// It is hibernated, and is woken instead.
    Hibernated,
    /// No backend runs it.
    Elsewhere,
    /// It is removed.
    Gone,
}

/// What idleness is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leisure {
    /// It hibernates after so many minutes without a turn. `None`, 0 and less: never.
    pub minutes: Option<i64>,
    /// When a turn last began or ended; one in progress keeps this near the present.
    pub last_turn_at: Option<Timestamp>,
}

impl Leisure {
    /// When it will have been idle for long enough, if nothing happens. `serving_since` is when its current
    /// instance was first admitted: one that was never called is idle from then on.
    #[must_use]
    pub fn over_at(self, serving_since: Timestamp) -> Option<Timestamp> {
        let minutes = self.minutes.and_then(|minutes| u64::try_from(minutes).ok())?;
        let from = self.last_turn_at.map_or(serving_since, |at| at.max(serving_since));
        (minutes > 0).then(|| from.after(Duration::from_secs(minutes.saturating_mul(60))))
    }
}

/// Whether a workspace is idle: it may be hibernated without force, and no turn began or ended for the time
/// that was set for it.
#[must_use]
pub fn idle(
    standing: Standing,
    leisure: Leisure,
    serving_since: Timestamp,
    now: Timestamp,
) -> bool {
    let over = leisure.over_at(serving_since).is_some_and(|at| at <= now);
    over && standing.may_hibernate(false).is_ok()
}

/// Longest part of a report that is kept, in bytes.
pub const MOST_REPORTED: usize = 8192;
/// Stands where the beginning of a log was cut off.
pub const CUT: &str = "[…] ";
/// What a report without a reason says.
pub const NO_REASON: &str = "the start failed; no reason was given";

/// The end of a log: at most the last `most` bytes, with [`CUT`] in front where something is missing.
#[must_use]
pub fn tail(log: &str, most: usize) -> String {
    if log.len() <= most {
        return log.to_owned();
    }
    let mut from = log.len() - most;
    while !log.is_char_boundary(from) {
        from += 1;
    }
    format!("{CUT}{}", &log[from..])
}

/// The beginning of a text: at most `most` bytes of it.
#[must_use]
pub fn head(text: &str, most: usize) -> &str {
    let mut to = text.len().min(most);
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    &text[..to]
}

/// What is kept of a report: the reason, and as much of the log's end as fits in [`MOST_REPORTED`].
#[must_use]
pub fn report(error: &str, log: &str) -> String {
    let error = if error.trim().is_empty() { NO_REASON } else { error };
    let error = head(error, MOST_REPORTED);
    let room = MOST_REPORTED.saturating_sub(error.len() + 1 + CUT.len());
    if log.is_empty() || room == 0 {
        return error.to_owned();
    }
    format!("{error}\n{}", tail(log, room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTENTS: [Intent; 4] =
        [Intent::Running, Intent::Paused, Intent::Hibernated, Intent::Removed];

    fn at(minutes: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(60 * (minutes + 1_000_000)))
    }

    fn serving() -> Standing {
        Standing { intent: Intent::Running, status: Status::Online, managed: true, active_tasks: 0 }
    }

    #[test]
    fn idle_means_no_turn_for_that_long_and_never_unless_it_was_set() {
        let set = |minutes, last: Option<u64>| Leisure { minutes, last_turn_at: last.map(at) };
        let judge = |leisure, now| idle(serving(), leisure, at(0), at(now));
        assert!(judge(set(Some(5), None), 5), "never called, and there for long enough");
        assert!(!judge(set(Some(5), None), 4));
        assert!(!judge(set(Some(5), Some(3)), 7), "a turn counts, however well it beats");
        assert!(judge(set(Some(5), Some(3)), 8));
        for never in [None, Some(0), Some(-3)] {
            assert!(!judge(set(never, None), 1_000_000), "{never:?}");
        }
        assert!(!judge(set(Some(i64::MAX), None), 1_000_000));
    }

    #[test]
    fn a_tail_keeps_the_end_and_says_that_something_is_missing() {
        assert_eq!(tail("short", 8192), "short");
        assert_eq!(tail("abcdef", 3), format!("{CUT}def"));
        assert_eq!(tail("ä€", 4), format!("{CUT}€"), "never half a character");
        assert_eq!(report(" ", ""), NO_REASON);
        assert_eq!(report("no disk", "line"), "no disk\nline");
        let long = report("no disk", &"x".repeat(9000));
        assert!(long.len() <= MOST_REPORTED && long.starts_with("no disk\n"), "{}", long.len());
        assert_eq!(report(&"e".repeat(9000), "log").len(), MOST_REPORTED);
    }

    proptest! {
        #[test]
        fn every_wish_has_one_answer(intent in 0..4usize, status in 0..10usize, managed: bool, active_tasks in -1..3i64, force: bool) {
            let (intent, status) = (INTENTS[intent], Status::ALL[status]);
            let standing = Standing { intent, status, managed, active_tasks };
            if standing.may_hibernate(force).is_ok() {
                prop_assert!(status.serves() && managed && intent == Intent::Running);
                prop_assert!(force || active_tasks <= 0);
                prop_assert!(standing.may_hibernate(true).is_ok(), "force never forbids");
            }
            let verbs = [standing.may_pause(), standing.may_resume()];
            prop_assert_eq!(verbs.iter().any(|may| *may), intent != Intent::Removed);
            prop_assert!(!(verbs[0] && verbs[1]), "what can be paused cannot be resumed");
            prop_assert!(!standing.may_wake() || standing.may_pause());
            if standing.recovery() == Recovery::Restarts {
                prop_assert!(intent == Intent::Running && managed && status != Status::Online);
            }
        }

        #[test]
        fn nobody_is_idle_who_is_busy_stopped_or_was_called(minutes in 1..100i64, last in 0..300u64, now in 0..300u64, intent in 0..4usize, status in 0..10usize, active_tasks in 0..2i64) {
            let standing = Standing { intent: INTENTS[intent], status: Status::ALL[status], active_tasks, ..serving() };
            let leisure = Leisure { minutes: Some(minutes), last_turn_at: Some(at(last)) };
            if idle(standing, leisure, at(0), at(now)) {
                prop_assert_eq!(standing.may_hibernate(false), Ok(()));
                prop_assert!(at(now).since(at(last)) >= Duration::from_secs(60 * u64::try_from(minutes).unwrap()));
            }
        }

        #[test]
        fn a_report_always_fits(error in ".{0,300}", log in ".{0,9000}") {
            prop_assert!(report(&error, &log).len() <= MOST_REPORTED);
            prop_assert!(tail(&log, 100).len() <= 100 + CUT.len());
        }
    }
}
