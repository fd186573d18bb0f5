use super::*;
use proptest::prelude::*;

const FACTS: Facts =
    Facts { promised: true, remembers: true, maybe_run: false, failures: 0, not_queued: false };

#[test]
fn every_state_has_a_name_and_the_contract_knows_it() {
    for state in State::ALL {
        assert_eq!(State::parse(state.as_str()), Some(state));
        let queue = ["queued", "dispatched", "completed", "dropped", "failed"];
        assert!(queue.contains(&state.in_queue()));
        assert!(!state.may_become(state));
    }
    assert!(State::parse("queued").is_none());
}

#[test]
fn what_is_done_is_never_undone() {
    for to in State::ALL {
        assert!(!State::Acknowledged.may_become(to));
        assert_eq!(State::Processed.may_become(to), to == State::Acknowledged);
    }
}

/// QU-01.
#[test]
fn qu_01_priorities_are_ordered() {
    assert_eq!((CRITICAL, TASK, INFO), (100, 50, 10));
}

/// A2-13: which failures are those of a busy agent.
#[test]
fn a2_13_a_busy_agent_is_slow_or_hangs_up() {
    assert!(is_busy(true, ""));
    for text in [
        "context deadline exceeded",
        "request failed: context canceled",
        "EOF",
        "unexpected EOF",
        "Connection reset by peer (os error 104)",
        "connection closed before message completed",
    ] {
        assert!(is_busy(false, text), "{text}");
    }
    for text in ["", "connection refused", "no such host", "invalid HTTP version parsed"] {
        assert!(!is_busy(false, text), "{text}");
    }
}

/// QU-13: the fifth failure is the last.
#[test]
fn qu_13_the_fifth_failure_ends_it() {
    for outcome in [Outcome::Failed, Outcome::Unreached, Outcome::Broken] {
        for failures in 0..4 {
            let next = after_attempt(outcome, Facts { failures, ..FACTS });
            let maybe_run = outcome == Outcome::Broken;
            assert_eq!(next, Next::Again { failures: failures + 1, maybe_run });
        }
        let last = after_attempt(outcome, Facts { failures: 4, ..FACTS });
        assert!(matches!(last, Next::Dead { .. }), "{last:?}");
    }
}

/// QU-06: a busy agent's message is never failed for that, however often.
#[test]
fn qu_06_a_busy_agent_costs_no_attempt() {
    let busy = after_attempt(Outcome::Busy, Facts { failures: 4, maybe_run: true, ..FACTS });
    assert_eq!(busy, Next::Again { failures: 4, maybe_run: true });
}

#[test]
fn a_runtime_that_does_not_remember_is_asked_twice_at_most() {
    let foreign = Facts { remembers: false, ..FACTS };
    let again = Next::Again { failures: 0, maybe_run: true };
    assert_eq!((after_attempt(Outcome::Busy, foreign), after_lapse(foreign)), (again, again));
    let once = Facts { maybe_run: true, ..foreign };
    let dead = Next::Dead { maybe_run: true };
    assert_eq!((after_attempt(Outcome::Busy, once), after_lapse(once)), (dead, dead));
    assert_eq!(after_attempt(Outcome::Broken, once), dead);
}

#[test]
fn a_caller_that_was_promised_nothing_is_not_served_behind_its_back() {
    let direct = Facts { promised: false, ..FACTS };
    assert_eq!(after_lapse(direct), Next::Dead { maybe_run: true });
    assert_eq!(after_attempt(Outcome::Unreached, direct), Next::Dead { maybe_run: false });
    assert_eq!(after_attempt(Outcome::Failed, direct), Next::Dead { maybe_run: false });
    let session = Facts { not_queued: true, ..direct };
    assert_eq!(after_attempt(Outcome::Busy, session), Next::Dead { maybe_run: true });
}

#[test]
fn a_repeated_message_is_never_run_beside_the_first() {
    for state in State::ALL {
        for promised in [true, false] {
            let repeat = repeated(Known { state, same: true, promised });
            let expected = match (state, promised) {
                (State::Accepted | State::Delivering, true) => Repeat::Queued,
                (State::Accepted | State::Delivering, false) => Repeat::Join,
                (State::Processed | State::Acknowledged, _) => Repeat::Replay,
                (State::Expired | State::Dead | State::Dropped, _) => Repeat::Anew,
            };
            assert_eq!(repeat, expected);
            assert_eq!(repeated(Known { state, same: false, promised }), Repeat::Another);
        }
    }
}

#[test]
fn a_late_outcome_is_taken_by_a_mutant_alone() {
    assert!(!takes_any_attempt(Guards::ON));
    #[cfg(feature = "mutants")]
    assert!(takes_any_attempt(Guards::without(Guard::LeaseAttempt)));
}

proptest! {
    #[test]
    fn waits_grow_and_stay_bounded(attempts in -5i64..1000, jitter in 0.0f64..1.0) {
        let wait = delay(attempts, jitter);
        prop_assert!(wait <= LAST_DELAY && wait >= FIRST_DELAY.mul_f64(0.7));
        prop_assert!(delay(attempts + 1, 0.0) >= delay(attempts, 0.0));
    }
}
