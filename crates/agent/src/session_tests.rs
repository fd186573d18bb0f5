//! The decisions, as tables of answers and the steps that follow.

use super::*;

const CALM: Facts = Facts { file_differs: false, has_previous: false, holds: true, jitter: 0.0 };

fn refused(action: Option<Action>) -> Answer {
    let why = "superseded".to_owned();
    Answer::Refused(Refusal { action, retry_after: None, why })
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
    let mut session = Session::new(managed);
    session.first();
    session.after(&Answer::Registered { token: None, pace: None }, CALM);
    session.after(&Answer::Beaten { pace: None }, CALM);
    session
}

#[test]
fn registers_then_beats_at_once_then_at_the_pace_that_was_named() {
    let mut session = Session::new(true);
    assert_eq!(session.first(), step(Call::Register, Bearer::Held, 0));
    let registered = Answer::Registered { token: None, pace: Some(7) };
    assert_eq!(session.after(&registered, CALM), step(Call::Heartbeat, Bearer::Held, 0));
    let paces = [(None, 7), (Some(10), 10), (Some(0), 1), (Some(9_999), 300)];
    for (pace, seconds) in paces {
        let next = session.after(&Answer::Beaten { pace }, CALM);
        assert_eq!(next, step(Call::Heartbeat, Bearer::Held, seconds * 1_000), "{pace:?}");
    }
}

#[test]
fn without_a_named_pace_it_is_thirty_seconds() {
    let mut session = enrolled(true);
    let next = session.after(&Answer::Beaten { pace: None }, CALM);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 30_000));
}

#[test]
fn no_answer_is_asked_again_ever_later_and_for_ever() {
    let mut session = Session::new(true);
    session.first();
    for millis in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert_eq!(session.after(&failed(), CALM), step(Call::Register, Bearer::Held, millis));
    }
    for _ in 0..100_000 {
        assert!(matches!(session.after(&failed(), CALM), Next::Call { .. }));
    }
    session.after(&Answer::Registered { token: None, pace: None }, CALM);
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
fn a_changed_file_is_tried_at_once_and_only_once() {
    let mut session = enrolled(true);
    let changed = Facts { file_differs: true, ..CALM };
    let next = session.after(&refused(None), changed);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Held, 0));
    let next = session.after(&refused(None), changed);
    assert_eq!(next, later(Call::Register, Bearer::Held, 500), "no second retry");
}

#[test]
fn a_credential_that_arrives_late_is_tried_by_one_that_held_nothing() {
    let mut session = Session::new(true);
    session.first();
    let arrived = Facts { file_differs: true, ..CALM };
    let next = session.after(&refused(None), arrived);
    assert_eq!(next, step(Call::Register, Bearer::Held, 0));
}

#[test]
fn file_then_previous_then_what_the_newest_credential_was_told() {
    let mut session = enrolled(true);
    let facts = Facts { file_differs: true, has_previous: true, ..CALM };
    session.after(&refused(Some(Action::Exit)), facts);
    let next = session.after(&refused(Some(Action::Reread)), facts);
    assert_eq!(next, step(Call::Heartbeat, Bearer::Previous, 0));
    let next = session.after(&refused(Some(Action::Exit)), facts);
    let expected = later(Call::Heartbeat, Bearer::Held, 500);
    assert_eq!(next, expected, "an exit meant for an older credential ends nobody");
}

#[test]
fn losing_the_answer_keeps_the_place() {
    let mut session = enrolled(true);
    let facts = Facts { has_previous: true, ..CALM };
    session.after(&refused(None), facts);
    assert_eq!(session.after(&failed(), facts), step(Call::Heartbeat, Bearer::Previous, 500));
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
    let nothing = Facts { holds: false, ..CALM };
    let next = enrolled(true).after(&answer, nothing);
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
        session.after(&Answer::Registered { token: None, pace: None }, CALM);
    }
    assert_eq!(waits, [0, 1_000, 2_000, 4_000]);
}

#[test]
fn an_unmanaged_agent_refused_at_register_takes_turns() {
    let mut session = Session::new(false);
    session.first();
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
    let mut session = Session::new(true);
    session.first();
    for _ in 0..8 {
        let next = session.after(&refused(None), CALM);
        assert!(matches!(next, Next::Call { bearer: Bearer::Held, call: Call::Register, .. }));
    }
}

#[test]
fn a_rejected_call_is_asked_again_slowly() {
    let mut session = Session::new(true);
    session.first();
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
