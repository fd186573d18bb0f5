//! The decisions, as tables of answers and the steps that follow.

use super::*;

type Answer = super::Answer<()>;

const EMPTY: Facts = Facts {
    file_differs: false,
    holds: false,
    has_next: false,
    next_ready: false,
    has_passport: false,
    fetch: false,
    jitter: 0.0,
};
const CALM: Facts = Facts { holds: true, ..EMPTY };
/// A newer credential beside the one in hand, written down.
const BESIDE: Facts = Facts { has_next: true, next_ready: true, ..CALM };

fn refused(action: Option<Action>) -> Answer {
    let why = "superseded".to_owned();
    Answer::Refused(Refusal { action, retry_after: None, why })
}

const BEATEN: Answer = Answer::Beaten { pace: None, rotate: None };
const REGISTERED: Answer = Answer::Registered { token: None, pace: None };

const ROTATED: Answer = Answer::Rotated { token: () };

/// A heartbeat's answer that orders a rotation.
fn ordered(serial: i64) -> Answer {
    Answer::Beaten { pace: None, rotate: Some(serial) }
}

fn failed() -> Answer {
    Answer::Failed { why: "refused".to_owned(), retry_after: None }
}

fn step(call: Call, bearer: Bearer, millis: u64) -> Next {
    Next::Call { call, bearer, wait: Duration::from_millis(millis), reread: false }
}

/// The same, with the file read again after the wait.
fn later(call: Call, bearer: Bearer, millis: u64) -> Next {
    Next::Call { call, bearer, wait: Duration::from_millis(millis), reread: true }
}

fn enrolled(managed: bool) -> Session {
    let mut session = Session::new(managed, Guards::ON);
    session.first(CALM);
    session.after(&REGISTERED, CALM);
    session.after(&BEATEN, CALM);
    session
}

#[test]
fn registers_then_beats_at_once_then_at_the_pace_that_was_named() {
    let mut session = Session::new(true, Guards::ON);
    assert_eq!(session.first(CALM), step(Call::Register, Bearer::Held, 0));
    let registered = Answer::Registered { token: None, pace: Some(7) };
    assert_eq!(session.after(&registered, CALM), step(Call::Heartbeat, Bearer::Held, 0));
    let paces = [(None, 7), (Some(10), 10), (Some(0), 1), (Some(9_999), 300)];
    for (pace, seconds) in paces {
        let next = session.after(&Answer::Beaten { pace, rotate: None }, CALM);
        assert_eq!(next, step(Call::Heartbeat, Bearer::Held, seconds * 1_000), "{pace:?}");
    }
}

#[test]
fn without_a_named_pace_it_is_thirty_seconds() {
    let mut session = enrolled(true);
    let next = session.after(&BEATEN, CALM);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 30_000));
}

#[test]
fn no_answer_is_asked_again_ever_later_and_for_ever() {
    let mut session = Session::new(true, Guards::ON);
    session.first(CALM);
    for millis in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert_eq!(session.after(&failed(), CALM), step(Call::Register, Bearer::Held, millis));
    }
    for _ in 0..100_000 {
        assert!(matches!(session.after(&failed(), CALM), Next::Call { .. }));
    }
    session.after(&REGISTERED, CALM);
    let next = session.after(&failed(), CALM);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 500), "an answer clears the count");
}

#[test]
fn a_wait_the_platform_asks_for_is_kept_within_reason() {
    for (asked, waited) in [(0, 500), (12, 12_000), (86_400, 300_000)] {
        let mut session = enrolled(true);
        let retry_after = Some(Duration::from_secs(asked));
        let answer = Answer::Failed { why: String::new(), retry_after };
        let next = session.after(&answer, CALM);
        assert_eq!(next, step(Call::Heartbeat, Bearer::Held, waited), "{asked} s");
    }
}

#[test]
fn jitter_only_shortens_and_by_a_quarter_at_most() {
    for (nth, full) in [(1, 500), (3, 2_000), (40, 30_000)] {
        assert_eq!(backoff(nth, 0.0), Duration::from_millis(full));
        assert_eq!(backoff(nth, 1.0), Duration::from_millis(full * 3 / 4));
    }
}

#[test]
fn rr_05_rr_06_a_changed_file_is_tried_at_once_and_only_once() {
    let changed = Facts { file_differs: true, ..CALM };
    for call in [Call::Heartbeat, Call::Rotate { serial: 3 }] {
        let mut session = enrolled(true);
        if call != Call::Heartbeat {
            assert_eq!(session.after(&ordered(3), CALM), step(call, Bearer::Held, 0));
        }
        let next = session.after(&refused(None), changed);
        assert_eq!(next, step(call, Bearer::Held, 0));
        let next = session.after(&refused(None), changed);
        assert_eq!(next, later(Call::Register, Bearer::Held, 500), "no second retry");
    }
}

#[test]
fn a_rotation_is_asked_for_written_then_used_at_once() {
    let mut session = enrolled(true);
    let next = session.after(&ordered(7), CALM);
    assert_eq!(next, step(Call::Rotate { serial: 7 }, Bearer::Held, 0));
    let next = session.after(&ROTATED, BESIDE);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Next, 0));
    let next = session.after(&BEATEN, CALM);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 30_000));
}

#[test]
fn what_cannot_be_written_is_not_used_nor_asked_for_again() {
    let unwritten = Facts { next_ready: false, ..BESIDE };
    let mut session = enrolled(true);
    session.after(&ordered(7), CALM);
    let old = step(Call::Heartbeat, Bearer::Held, 30_000);
    assert_eq!(session.after(&ROTATED, unwritten), old);
    for _ in 0..3 {
        assert_eq!(session.after(&ordered(7), unwritten), old, "it is in memory");
    }
    let newer = session.after(&ordered(8), unwritten);
    assert_eq!(newer, step(Call::Rotate { serial: 8 }, Bearer::Held, 0));
    assert_eq!(session.after(&ROTATED, unwritten), old);
    let next = session.after(&ordered(8), BESIDE);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Next, 0), "there is room again");
}

#[test]
fn a_refused_rotation_returns_to_the_old_one_and_asks_again_ever_later() {
    let mut session = enrolled(true);
    let (pace, rotate) = (30_000, step(Call::Rotate { serial: 7 }, Bearer::Held, 0));
    let mut beats = Vec::new();
    let mut next = session.after(&ordered(7), CALM);
    for _ in 0..6 {
        assert_eq!(next, rotate);
        session.after(&ROTATED, BESIDE);
        let refused_with = Facts { next_ready: false, ..BESIDE };
        let back = session.after(&refused(Some(Action::Exit)), refused_with);
        assert_eq!(back, step(Call::Heartbeat, Bearer::Held, 0));
        let mut count = 0;
        next = session.after(&ordered(7), CALM);
        while next == step(Call::Heartbeat, Bearer::Held, pace) {
            count += 1;
            next = session.after(&ordered(7), CALM);
        }
        beats.push(count);
    }
    assert_eq!(beats, [0, 1, 3, 7, 15, 15]);
    session.after(&ROTATED, BESIDE);
    session.after(&refused(None), Facts { next_ready: false, ..BESIDE });
    assert_eq!(
        session.after(&ordered(8), CALM),
        step(Call::Rotate { serial: 8 }, Bearer::Held, 0),
        "a newer order is a new matter"
    );
}

#[test]
fn a_rotation_that_fails_keeps_the_heartbeats_going() {
    for answer in [failed(), Answer::Rejected { why: "a newer serial exists".to_owned() }] {
        let mut session = enrolled(true);
        session.after(&Answer::Beaten { pace: Some(2), rotate: Some(7) }, CALM);
        let Next::Call { call, bearer, wait, .. } = session.after(&answer, CALM) else {
            panic!("it goes on");
        };
        assert_eq!((call, bearer), (Call::Heartbeat, Bearer::Held));
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
        let again = session.after(&ordered(7), CALM);
        assert_eq!(again, step(Call::Rotate { serial: 7 }, Bearer::Held, 0));
    }
}

#[test]
fn what_a_crash_left_beside_is_used_once_the_file_was_accepted() {
    for answer in [REGISTERED, BEATEN] {
        let mut session = Session::new(true, Guards::ON);
        assert_eq!(session.first(BESIDE), step(Call::Register, Bearer::Held, 0));
        let next = session.after(&answer, BESIDE);
        assert_eq!(next, step(Call::Heartbeat, Bearer::Next, 0));
    }
}

#[test]
fn a_credential_that_arrives_late_is_tried_by_one_that_held_nothing() {
    let mut session = Session::new(true, Guards::ON);
    session.first(CALM);
    let arrived = Facts { file_differs: true, ..CALM };
    let next = session.after(&refused(None), arrived);
    assert_eq!(next, step(Call::Register, Bearer::Held, 0));
}

#[test]
fn file_then_every_other_credential_then_the_weightiest_advice() {
    let mut session = Session::new(true, Guards::ON);
    let facts = Facts { file_differs: true, has_passport: true, ..BESIDE };
    session.first(facts);
    let turns: Vec<Next> = [None, Some(Action::Exit), None]
        .into_iter()
        .map(|action| session.after(&refused(action), facts))
        .collect();
    let expected = [Bearer::Held, Bearer::Next, Bearer::Passport];
    assert_eq!(turns, expected.map(|bearer| step(Call::Register, bearer, 0)));
    let next = session.after(&refused(Some(Action::Reread)), facts);
    let expected = later(Call::Register, Bearer::Held, 500);
    assert_eq!(next, expected, "an exit meant for an older credential ends nobody");
}

#[test]
fn an_exit_that_nothing_speaks_against_ends_the_agent() {
    for other in [None, Some(Action::Exit)] {
        let mut session = enrolled(true);
        session.after(&refused(Some(Action::Exit)), BESIDE);
        let next = session.after(&refused(other), BESIDE);
        assert_eq!(next, Next::Exit { why: "superseded".to_owned() }, "{other:?}");
    }
}

#[test]
fn losing_the_answer_keeps_the_place() {
    let mut session = enrolled(true);
    session.after(&refused(None), BESIDE);
    assert_eq!(session.after(&failed(), BESIDE), step(Call::Heartbeat, Bearer::Next, 500));
}

#[test]
fn one_that_holds_nothing_begins_with_its_passport() {
    let passport = Facts { has_passport: true, ..EMPTY };
    let mut session = Session::new(true, Guards::ON);
    assert_eq!(session.first(passport), step(Call::Register, Bearer::Passport, 0));
    let again = session.after(&failed(), passport);
    assert_eq!(again, step(Call::Register, Bearer::Passport, 500), "its answer was lost");
    let next = session.after(&refused(None), passport);
    assert_eq!(next, later(Call::Register, Bearer::Passport, 500), "and never without it");
}

#[test]
fn every_action_after_a_refused_heartbeat() {
    let table = [
        (Some(Action::Reread), later(Call::Heartbeat, Bearer::Held, 500)),
        (Some(Action::Register), later(Call::Register, Bearer::Held, 0)),
        (Some(Action::Wait), later(Call::Heartbeat, Bearer::Held, 30_000)),
        (Some(Action::Exit), Next::Exit { why: "superseded".to_owned() }),
        (None, later(Call::Register, Bearer::Held, 500)),
    ];
    for managed in [true, false] {
        for (action, expected) in table.clone() {
            let next = enrolled(managed).after(&refused(action), CALM);
            assert_eq!(next, expected, "{action:?}, managed: {managed}");
        }
    }
}

#[test]
fn waiting_takes_as_long_as_it_was_told() {
    let answer = Answer::Refused(Refusal {
        action: Some(Action::Wait),
        retry_after: Some(Duration::from_secs(5)),
        why: String::new(),
    });
    let next = enrolled(true).after(&answer, CALM);
    assert_eq!(next, later(Call::Heartbeat, Bearer::Held, 5_000));
    let next = enrolled(true).after(&answer, EMPTY);
    assert_eq!(next, later(Call::Register, Bearer::Held, 5_000), "nothing to beat with");
}

#[test]
fn register_and_heartbeat_never_chase_each_other_without_a_pause() {
    let mut session = enrolled(true);
    let mut waits = Vec::new();
    for _ in 0..4 {
        if let Next::Call { wait, .. } = session.after(&refused(Some(Action::Register)), CALM) {
            waits.push(wait.as_millis());
        }
        session.after(&REGISTERED, CALM);
    }
    assert_eq!(waits, [0, 1_000, 2_000, 4_000]);
}

#[test]
fn an_unmanaged_agent_refused_at_register_takes_turns() {
    let mut session = Session::new(false, Guards::ON);
    session.first(CALM);
    let turns: Vec<Next> = (0..4).map(|_| session.after(&refused(None), CALM)).collect();
    let expected = [
        later(Call::Register, Bearer::Nothing, 500),
        later(Call::Register, Bearer::Held, 1_000),
        later(Call::Register, Bearer::Nothing, 2_000),
        later(Call::Register, Bearer::Held, 4_000),
    ];
    assert_eq!(turns, expected);
}

#[test]
fn a_managed_agent_always_presents_what_it_holds() {
    let mut session = Session::new(true, Guards::ON);
    session.first(CALM);
    for _ in 0..8 {
        let next = session.after(&refused(None), CALM);
        assert!(matches!(next, Next::Call { bearer: Bearer::Held, call: Call::Register, .. }));
    }
}

#[test]
fn a_rejected_call_is_asked_again_slowly() {
    let mut session = Session::new(true, Guards::ON);
    session.first(CALM);
    let rejected = Answer::Rejected { why: "invalid request body".to_owned() };
    for _ in 0..3 {
        let next = session.after(&rejected, CALM);
        assert_eq!(next, step(Call::Register, Bearer::Held, 30_000));
    }
}

#[test]
fn unknown_advice_is_none() {
    assert_eq!(Action::from_wire("exit"), Some(Action::Exit));
    assert_eq!(Action::from_wire("wait"), Some(Action::Wait));
    assert_eq!(Action::from_wire("register"), Some(Action::Register));
    assert_eq!(Action::from_wire("reread-credential"), Some(Action::Reread));
    assert_eq!(Action::from_wire("self-destruct"), None);
}

/// Secrets are to be fetched.
const WANTING: Facts = Facts { fetch: true, ..CALM };

#[test]
fn secrets_are_fetched_after_a_heartbeat_and_the_next_one_tells_at_once() {
    let mut session = Session::new(true, Guards::ON);
    session.first(WANTING);
    let next = session.after(&REGISTERED, WANTING);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 0), "enrolled first");
    let beside = Facts { fetch: true, ..BESIDE };
    assert_eq!(session.after(&BEATEN, beside), step(Call::Heartbeat, Bearer::Next, 0));
    assert_eq!(session.after(&ordered(3), WANTING), step(Call::Secrets, Bearer::Held, 0));
    assert_eq!(session.after(&Answer::Fetched, CALM), step(Call::Heartbeat, Bearer::Held, 0));
    assert_eq!(session.after(&BEATEN, CALM), step(Call::Heartbeat, Bearer::Held, 30_000));
}

#[test]
fn heartbeats_do_not_wait_for_secrets_that_do_not_come() {
    let mut session = Session::new(true, Guards::ON);
    session.first(CALM);
    session.after(&BEATEN, CALM);
    for waited in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert_eq!(session.after(&BEATEN, WANTING), step(Call::Secrets, Bearer::Held, 0));
        let next = session.after(&failed(), WANTING);
        assert_eq!(next, step(Call::Heartbeat, Bearer::Held, waited));
    }
    session.after(&BEATEN, WANTING);
    let rejected = Answer::Rejected { why: "not found".to_owned() };
    let next = session.after(&rejected, WANTING);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 30_000), "not registered anew for that");
    session.after(&BEATEN, WANTING);
    session.after(&Answer::Fetched, CALM);
    session.after(&BEATEN, WANTING);
    let next = session.after(&failed(), WANTING);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 500), "fetched once: from the beginning");
}

#[test]
fn refused_secrets_are_a_refusal_like_any_other() {
    let mut session = Session::new(true, Guards::ON);
    session.first(WANTING);
    session.after(&BEATEN, WANTING);
    let changed = Facts { file_differs: true, ..WANTING };
    assert_eq!(session.after(&refused(None), changed), step(Call::Secrets, Bearer::Held, 0));
    let beside = Facts { fetch: true, next_ready: false, ..BESIDE };
    assert_eq!(session.after(&refused(None), beside), step(Call::Secrets, Bearer::Next, 0));
    let next = session.after(&refused(Some(Action::Reread)), WANTING);
    let Next::Call { call, reread, .. } = next else { panic!("it lives on") };
    assert_eq!((call, reread), (Call::Heartbeat, true));
    session.after(&BEATEN, WANTING);
    let next = session.after(&refused(Some(Action::Exit)), WANTING);
    assert_eq!(next, Next::Exit { why: "superseded".to_owned() });
}
