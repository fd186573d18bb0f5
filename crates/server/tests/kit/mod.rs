//! The conformance kit: what every backend must do, as scenarios, and each of them on each backend.
//!
//! A scenario is a function over a [`bench::Bench`]. A backend joins with a [`bench::Ground`]: how a server opens it,
//! and how its instances are made to do something. What a backend cannot do stands in [`CANNOT`], with the reason:
//! nothing is left out in silence. A method that answers `Unsupported` fails its scenario.

mod bench;
mod data;
mod ends;
mod files;
mod grounds;
mod logs;
mod restarts;
mod starts;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use self::bench::{Bench, Done, Ground};
use self::grounds::{OfDocker, OfFake, OfProcess};

/// What a backend cannot do, and why. It is not tried.
const CANNOT: &[(&str, &str, &str)] = &[
    ("fake", "a_program_that_is_not_there_is_refused", "it runs no programs"),
    ("process", "too_many_calls_are_an_answer", "the machine counts no calls"),
    ("process", "an_engine_that_restarts_is_no_evidence", "the engine is the machine's kernel"),
    ("docker", "too_many_calls_are_an_answer", "the engine counts no calls"),
];

/// A scenario takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a scenario came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Held,
    Cannot,
}

fn cannot(backend: &str, scenario: &str) -> bool {
    CANNOT.iter().any(|(of, what, _)| *of == backend && *what == scenario)
}

fn run(
    ground: Box<dyn Ground>,
    scenario: &str,
    body: impl AsyncFnOnce(&mut Bench) -> Done,
) -> Outcome {
    bench::begin();
    let mut bench = Bench::new(ground);
    let backend = bench.backend.kind();
    if cannot(backend, scenario) {
        return Outcome::Cannot;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let body = AssertUnwindSafe(tokio::time::timeout(PATIENCE, body(&mut bench)));
        let outcome = body.catch_unwind().await;
        let cleared = bench.clear().await;
        let outcome = outcome.unwrap_or_else(|why| std::panic::resume_unwind(why));
        cleared.expect("what a scenario started can be ended");
        outcome.expect("a scenario ends in its time")
    });
    match outcome {
        Ok(()) => Outcome::Held,
        Err(cause) => panic!("{}", cause.chain()),
    }
}

/// A test for each scenario on each backend.
macro_rules! kit {
    ($($module:ident: $($scenario:ident),+;)+) => {
        /// Every scenario.
        const SCENARIOS: &[&str] = &[$($(stringify!($scenario)),+),+];

        kit!(@on fake, OfFake, $($module: $($scenario),+;)+);
        kit!(@on process, OfProcess, $($module: $($scenario),+;)+);
        kit!(@on docker, OfDocker, $($module: $($scenario),+;)+);
    };
    (@on $backend:ident, $ground:ident, $($module:ident: $($scenario:ident),+;)+) => {
        mod $backend {
            $($(#[test]
            fn $scenario() {
                if let Some(ground) = super::$ground::here() {
                    super::run(Box::new(ground), stringify!($scenario), super::$module::$scenario);
                }
            })+)+
        }
    };
}

kit! {
    starts: starting_twice_starts_once, two_starts_at_once_start_one, a_start_whose_answer_was_lost_is_found,
        another_spec_under_the_same_key_finds_the_first, what_was_never_started_is_gone,
        generations_of_a_workspace_are_told_apart, workspaces_are_told_apart, what_runs_is_listed_by_its_label,
        nothing_is_listed_on_new_ground, what_another_owner_has_is_neither_listed_nor_touched,
        the_environment_is_exact, the_credential_is_there_before_it_starts,
        the_next_generation_has_a_credential_of_its_own, files_are_there_before_it_starts,
        files_of_the_same_name_are_replaced_and_others_stay, a_program_that_is_not_there_is_refused,
        a_backend_says_whether_it_can_be_used, too_many_calls_are_an_answer, an_engine_that_restarts_is_no_evidence;
    ends: ending_what_was_never_started_is_success, stopping_twice_is_stopping_once,
        destroying_twice_is_destroying_once, two_ends_at_once_are_one, destroying_what_runs_ends_it,
        a_stubborn_instance_is_ended_firmly, what_stopped_is_listed_until_it_is_destroyed,
        ending_an_old_generation_leaves_the_new_one, an_exit_is_seen_with_its_code, success_is_an_exit_too,
        the_reason_of_an_exit_is_kept, an_exit_is_pushed, a_killed_instance_is_pushed_with_its_signal,
        what_ended_is_found_and_not_started_again, what_was_destroyed_can_be_started_again;
    restarts: the_list_is_the_same_after_a_restart, a_start_after_a_restart_finds_what_runs,
        what_ends_after_a_restart_is_pushed, what_ended_while_no_server_ran_is_pushed,
        what_an_earlier_server_started_can_be_ended, recovering_twice_is_recovering_once,
        a_restart_forgets_no_exit;
    data: data_outlives_its_instance, erased_data_is_gone_and_erasing_twice_is_success, whose_data_is_there_is_listed,
        what_is_imported_is_what_was_exported, an_archive_with_another_digest_changes_nothing,
        what_is_no_archive_changes_nothing, an_import_takes_the_place_of_what_was_there,
        a_digest_tells_one_content_from_another, the_same_data_has_the_same_digest_on_other_ground,
        what_was_imported_is_there_for_the_next_instance, credentials_do_not_travel;
    files: a_file_that_was_written_is_read, a_file_that_is_not_there_is_missing, files_are_listed_as_deep_as_asked,
        what_is_removed_is_gone_and_removing_nothing_is_success, writing_replaces_the_whole_file,
        the_directories_of_a_workspace_are_told_apart, files_of_workspaces_are_told_apart,
        an_instance_finds_what_was_written_and_what_it_writes_is_found, files_are_written_while_nothing_runs;
    logs: the_end_of_a_log_is_as_long_as_asked, a_log_of_nothing_is_empty, a_log_outlives_its_instance,
        logs_of_workspaces_are_told_apart, a_log_is_followed_as_it_grows, a_terminal_shows_what_is_typed,
        a_terminal_of_what_does_not_run_is_missing;
}

#[test]
fn the_kit_is_as_large_as_it_says_and_every_exception_has_a_scenario_and_a_reason() {
    for backend in ["fake", "process", "docker"] {
        let left_out = SCENARIOS.iter().filter(|scenario| cannot(backend, scenario)).count();
        assert!(left_out <= 2 && SCENARIOS.len() >= 68, "{backend}: {left_out} left out");
    }
    for (_, scenario, _) in CANNOT {
        assert!(SCENARIOS.contains(scenario), "there is no scenario {scenario}");
    }
    assert!(CANNOT.iter().all(|(.., why)| why.len() > 10));
    let mut names = SCENARIOS.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SCENARIOS.len());
}

#[test]
fn a_backend_that_misbehaves_fails_and_what_cannot_be_done_is_not_tried() {
    use ligand_server::backend::fake::{Fault, Planned};
    let twice = "starting_twice_starts_once";
    assert_eq!(
        run(Box::new(OfFake::new()), twice, starts::starting_twice_starts_once),
        Outcome::Held
    );
    for (fault, scenario) in [(Fault::SayGone, "lies"), (Fault::Refuse("no".to_owned()), "refuses")]
    {
        let ground = OfFake::new();
        ground.spoil(Planned::once(fault));
        let tried = std::panic::catch_unwind(AssertUnwindSafe(|| {
            run(Box::new(ground), scenario, starts::starting_twice_starts_once)
        }));
        assert!(tried.is_err(), "{scenario}");
    }
    let never = async |_: &mut Bench| -> Done { panic!("it was tried") };
    let missing = "a_program_that_is_not_there_is_refused";
    assert_eq!(run(Box::new(OfFake::new()), missing, never), Outcome::Cannot);
}
