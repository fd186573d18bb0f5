//! The conformance kit on each backend of ours, and on some of them through the protocol of providers: a test for each
//! scenario on each.
//!
//! What a ground cannot show stands in [`CANNOT`], with the reason: nothing is left out in silence. A method that
//! answers `Unsupported` fails its scenario.

mod grounds;
mod served;

use ligand_kit::{Ground, Scenario, Verdict};

use self::grounds::{OfDocker, OfFake, OfProcess};
use self::served::Served;

/// What cannot be shown where, and why. It is not tried.
const CANNOT: &[(&str, &str, &str)] = &[
    ("fake", "a_program_that_is_not_there_is_refused", "it runs no programs"),
    ("process", "too_many_calls_are_an_answer", "the machine counts no calls"),
    ("process", "an_engine_that_restarts_is_no_evidence", "the engine is the machine's kernel"),
    ("docker", "too_many_calls_are_an_answer", "the engine counts no calls"),
    ("served_fake", "a_program_that_is_not_there_is_refused", "it runs no programs"),
    ("served_process", "too_many_calls_are_an_answer", "the machine counts no calls"),
    ("served_process", "an_engine_that_restarts_is_no_evidence", "as without the protocol"),
];

fn cannot(backend: &str, scenario: &str) -> bool {
    CANNOT.iter().any(|(of, what, _)| *of == backend && *what == scenario)
}

fn run(ground: Box<dyn Ground>, scenario: &Scenario) -> Verdict {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(ligand_kit::run(ground, scenario))
}

fn scenario(name: &str) -> &'static Scenario {
    let mut all = ligand_kit::SCENARIOS.iter().chain(ligand_kit::DOOR);
    all.find(|scenario| scenario.name == name).unwrap()
}

#[track_caller]
fn holds(backend: &str, name: &str, ground: Option<Box<dyn Ground>>) {
    let Some(ground) = ground else { return };
    match run(ground, scenario(name)) {
        Verdict::Held => assert!(!cannot(backend, name), "{backend} can, after all"),
        Verdict::NotApplicable(why) => assert!(cannot(backend, name), "not tried: {why}"),
        Verdict::Failed(why) => panic!("{why}"),
    }
}

/// A test for each scenario on each backend.
macro_rules! kit {
    ($($group:ident: $($scenario:ident),+;)+) => {
        kit!(@on fake, OfFake::here(), $($($scenario),+),+);
        kit!(@on process, OfProcess::here(), $($($scenario),+),+);
        kit!(@on docker, OfDocker::here(), $($($scenario),+),+);
        kit!(@on served_fake, OfFake::here().map(Served::new), $($($scenario),+),+);
        kit!(@on served_process, OfProcess::here().map(Served::new), $($($scenario),+),+);
    };
    (@on $backend:ident, $ground:expr, $($scenario:ident),+) => {
        mod $backend {
            use super::*;

            $(#[test]
            fn $scenario() {
                let ground = $ground.map(|ground| Box::new(ground) as Box<dyn Ground>);
                holds(stringify!($backend), stringify!($scenario), ground);
            })+
        }
    };
}

ligand_kit::scenarios!(kit);

#[test]
fn a_provider_has_a_door() {
    for scenario in ligand_kit::DOOR {
        let ground = OfFake::here().map(Served::new).unwrap();
        assert_eq!(run(Box::new(ground), scenario), Verdict::Held, "{}", scenario.name);
    }
}

#[test]
fn the_kit_is_as_large_as_it_says_and_every_exception_has_a_scenario_and_a_reason() {
    let mut names: Vec<&str> = ligand_kit::SCENARIOS.iter().map(|it| it.name).collect();
    for backend in ["fake", "process", "docker", "served_fake", "served_process"] {
        let left_out = names.iter().filter(|scenario| cannot(backend, scenario)).count();
        assert!(left_out <= 2 && names.len() >= 68, "{backend}: {left_out} left out");
    }
    for (_, scenario, _) in CANNOT {
        assert!(names.contains(scenario), "there is no scenario {scenario}");
    }
    assert!(CANNOT.iter().all(|(.., why)| why.len() > 10));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ligand_kit::SCENARIOS.len());
}

#[test]
fn a_backend_that_misbehaves_fails_and_says_how() {
    use ligand_server::backend::fake::{Fault, Planned};
    let twice = scenario("starting_twice_starts_once");
    assert_eq!(run(Box::new(OfFake::new()), twice), Verdict::Held);
    let spoiled = |planned: Planned, name: &str| {
        let ground = OfFake::new();
        ground.spoil(planned);
        match run(Box::new(ground), scenario(name)) {
            Verdict::Failed(why) => why,
            other => panic!("{name}: {other:?}"),
        }
    };
    let lies = spoiled(Planned::once(Fault::SayGone), twice.name);
    assert_eq!(lies, "seen(key): found Gone, expected Running");
    let refuses = spoiled(Planned::once(Fault::Refuse("no".to_owned())), twice.name);
    assert_eq!(refuses, "no");
    // What a scenario does not look at is seen at its end: nothing may be left.
    let lingers = spoiled(Planned::once(Fault::Linger).times(0), "two_starts_at_once_start_one");
    assert!(lingers.contains("everything was destroyed"), "{lingers}");
    let loses = spoiled(Planned::once(Fault::LoseData), "what_is_imported_is_what_was_exported");
    assert!(loses.contains("found Carried"), "{loses}");
}
