//! A migration's way, and what turns it round.

use super::*;
use crate::instance::Exit;

fn now() -> Timestamp {
    Timestamp::from_micros(1_000_000_000)
}

fn at(stage: Stage) -> Migration {
    let begun = stage != Stage::Before(Before::Prepare);
    Migration {
        stage,
        since: now(),
        deadline: now().after(Duration::from_secs(60)),
        wish: Wish::Go,
        source: Generation::new(3),
        candidate: begun.then(|| Generation::new(4)),
        grace: Duration::from_secs(30),
        next_attempt_at: None,
    }
}

/// Everything is as a cut-over wants it.
fn ready() -> Facts {
    Facts {
        intent: Intent::Running,
        current: Generation::new(3),
        newest: Generation::new(4),
        candidate: Some(Generation::new(4)),
        in_flight: false,
        serves: true,
        serial: 2,
        source: Source {
            seen: Seen::Running,
            stands_by: true,
            program: Program::StandsBy,
            ended: false,
            gone: false,
        },
        target: Target {
            seen: Some(Seen::Running),
            started: true,
            registered: true,
            active: true,
            program: Program::Runs(2),
            proved: true,
            gone: false,
        },
        data: Data { copied: true, complete: true, restored: true },
        held: true,
        turns: 0,
        probe: Probe::Completed(2),
    }
}

fn step(stage: Stage, facts: &Facts) -> Step {
    next(&at(stage), facts, now(), Guards::ON)
}

#[test]
fn each_phase_leads_to_the_next_and_the_last_to_the_cut_over() {
    for pair in Before::ALL.windows(2) {
        let expected =
            if pair[0] == Before::Prepare { Step::Prepare } else { Step::Enter(pair[1]) };
        assert_eq!(step(Stage::Before(pair[0]), &ready()), expected);
    }
    assert_eq!(step(Stage::Before(Before::CutOver), &ready()), Step::CutOver);
}

#[test]
fn what_ends_before_the_cut_over_turns_it_round() {
    let ends: [fn(&mut Facts); 6] = [
        |facts| facts.intent = Intent::Paused,
        |facts| facts.newest = Generation::new(5),
        |facts| facts.candidate = None,
        |facts| facts.current = Generation::new(5),
        |facts| facts.source.seen = Seen::Stopped(Exit::default()),
        |facts| facts.target.seen = Some(Seen::Gone),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        for phase in Before::ALL.into_iter().skip(1) {
            let mut facts = ready();
            end(&mut facts);
            let got = step(Stage::Before(phase), &facts);
            assert!(matches!(got, Step::RollBack(_)), "{number} at {phase:?}: {got:?}");
        }
    }
}

#[test]
fn nothing_turns_it_round_after_the_cut_over() {
    let mut facts = ready();
    facts.intent = Intent::Removed;
    facts.target.seen = Some(Seen::Gone);
    for after in [After::Release, After::Retire] {
        let it = Migration { wish: Wish::Abort, ..at(Stage::After(after)) };
        let got = next(&it, &facts, Timestamp::NEVER, Guards::ON);
        assert!(!matches!(got, Step::RollBack(_) | Step::Resume | Step::DestroyTarget), "{got:?}");
    }
}

#[test]
fn the_cut_over_demands_all_of_its_evidence() {
    assert_eq!(may_cut_over(&at(Stage::Before(Before::CutOver)), &ready(), Guards::ON), Ok(()));
    let lacks: [fn(&mut Facts); 8] = [
        |facts| facts.target.registered = false,
        |facts| facts.target.active = false,
        |facts| facts.target.proved = false,
        |facts| facts.target.program = Program::Runs(1),
        |facts| facts.data.restored = false,
        |facts| facts.probe = Probe::Completed(1),
        |facts| facts.newest = Generation::new(5),
        |facts| facts.current = Generation::new(4),
    ];
    for (number, lack) in lacks.into_iter().enumerate() {
        let mut facts = ready();
        lack(&mut facts);
        let it = at(Stage::Before(Before::CutOver));
        assert!(may_cut_over(&it, &facts, Guards::ON).is_err(), "{number}");
    }
}

#[test]
fn a_secret_that_comes_while_the_target_starts_is_loaded_before_the_cut_over() {
    let mut facts = ready();
    facts.serial = 3;
    assert_eq!(step(Stage::Before(Before::Activate), &facts), Step::Run(3));
    assert_eq!(step(Stage::Before(Before::Probe), &facts), Step::Enter(Before::Activate));
}

#[test]
fn a_pause_holds_only_where_the_source_serves() {
    for phase in Before::ALL {
        let it = Migration { wish: Wish::Pause, ..at(Stage::Before(phase)) };
        let mut facts = ready();
        facts.data = Data::default();
        let rests = matches!(next(&it, &facts, now(), Guards::ON), Step::Rest(_));
        assert_eq!(rests, phase.pauses(), "{phase:?}");
        let late = next(&it, &facts, it.deadline, Guards::ON);
        assert_eq!(matches!(late, Step::RollBack(_)), !phase.pauses(), "{phase:?}");
    }
}

#[test]
fn a_source_does_not_wait_for_a_target_that_cannot_be_destroyed() {
    let it = Migration { next_attempt_at: Some(now().after(LOOK_AGAIN)), ..at(Stage::Undoing) };
    let mut facts = ready();
    assert_eq!(step(Stage::Undoing, &facts), Step::DestroyTarget);
    assert_eq!(next(&it, &facts, now(), Guards::ON), Step::Resume);
    (facts.held, facts.source.program) = (false, Program::Unknown);
    assert!(matches!(next(&it, &facts, now(), Guards::ON), Step::Rest(_)));
    facts.target.gone = true;
    assert_eq!(next(&it, &facts, now(), Guards::ON), Step::Finish);
}

#[test]
fn a_source_that_works_after_the_last_copy_turns_it_round() {
    let mut facts = ready();
    facts.source.program = Program::Unknown;
    for phase in Before::ALL.into_iter().filter(|phase| *phase >= Before::Quiesce) {
        let got = step(Stage::Before(phase), &facts);
        assert_eq!(got, Step::RollBack(Cause::SourceRuns), "{phase:?}");
    }
    let it = at(Stage::Before(Before::CutOver));
    assert!(may_cut_over(&it, &facts, Guards::ON).is_err());
    // One that was stopped says nothing any more.
    (facts.source.ended, facts.source.seen) = (true, Seen::Gone);
    assert_eq!(may_cut_over(&it, &facts, Guards::ON), Ok(()));
    (facts.source.ended, facts.data.complete) = (false, false);
    facts.source.seen = Seen::Running;
    assert_eq!(step(Stage::Before(Before::Quiesce), &facts), Step::StandBy);
}

#[test]
fn a_source_that_ended_while_it_stood_by_is_not_waited_for() {
    let mut facts = ready();
    (facts.target.gone, facts.held) = (true, false);
    assert_eq!(step(Stage::Undoing, &facts), Step::Resume);
    facts.source.seen = Seen::Gone;
    assert_eq!(step(Stage::Undoing, &facts), Step::Finish);
}

#[test]
fn a_probe_is_completed_by_a_result_that_did_not_fail() {
    assert_eq!(probed(true, None, None), Ok(()), "a message");
    for done in ["completed", "input-required", "TASK_STATE_COMPLETED"] {
        assert_eq!(probed(true, None, Some(done)), Ok(()), "{done}");
    }
    for not in ["failed", "rejected", "canceled", "working", "submitted", "auth-required", ""] {
        assert!(probed(true, None, Some(not)).is_err(), "{not}");
    }
    assert!(probed(false, None, None).is_err());
    assert!(probed(false, Some(-32603), None).is_err());
    let why = probed(true, None, Some("what it was told\n")).unwrap_err();
    assert_eq!(why, "its task is unknown, not completed");
}

#[test]
fn what_is_written_before_the_cut_over_is_loaded_first() {
    let mut facts = ready();
    facts.serial = 3;
    let late = step(Stage::Before(Before::CutOver), &facts);
    assert_eq!(late, Step::Enter(Before::Activate));
}

#[test]
fn every_stage_has_a_name_of_its_own() {
    for stage in Stage::all() {
        assert_eq!(Stage::parse(stage.as_str()), Some(stage));
    }
    assert_eq!(Stage::all().len(), 14);
}
