//! The conformance kit: what every backend must do, as scenarios.
//!
//! A scenario is a function over a [`bench::Bench`]; it comes to a [`Verdict`], and leaves nothing behind. It needs no
//! test framework: the server's tests run the same scenarios as `ligand provider check`. A backend joins with a
//! [`Ground`]: how a server opens it, and how its instances are made to do something.
//!
//! | file | what |
//! | --- | --- |
//! | [`bench`] | what scenarios work with, and what a ground is |
//! | [`remote`] | the ground that a provider at an address is |
//! | `flaw` | what ends a scenario before its end |
//! | `starts`, `ends`, `restarts`, `data`, `files`, `logs` | the scenarios |
//! | `door` | what only who is called over HTTP can do wrong |

#[macro_use]
mod flaw;
pub mod bench;
mod data;
mod door;
mod ends;
mod files;
mod logs;
pub mod remote;
mod restarts;
mod starts;

use futures_util::future::LocalBoxFuture;

use self::bench::Bench;
pub use self::bench::{Doing, Ground, Name};
pub use self::flaw::{Done, Flaw};

/// What a scenario came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend does what it must.
    Held,
    /// It does not, and how that showed.
    Failed(String),
    /// It was not tried, and why not.
    NotApplicable(String),
}

/// One thing that a backend must do.
pub struct Scenario {
    /// What it is about.
    pub group: &'static str,
    /// What must be so.
    pub name: &'static str,
    body: for<'a> fn(&'a mut Bench) -> LocalBoxFuture<'a, Done>,
}

/// Calls a macro with every scenario, as `group: name, …; …`: for whoever makes a test of each.
#[macro_export]
macro_rules! scenarios {
    ($then:ident) => {
        $then! {
            starts: starting_twice_starts_once, two_starts_at_once_start_one,
                a_start_whose_answer_was_lost_is_found, another_spec_under_the_same_key_finds_the_first,
                what_was_never_started_is_gone, generations_of_a_workspace_are_told_apart,
                workspaces_are_told_apart, what_runs_is_listed_by_its_label, nothing_is_listed_on_new_ground,
                what_another_owner_has_is_neither_listed_nor_touched, the_environment_is_exact,
                the_credential_is_there_before_it_starts, the_next_generation_has_a_credential_of_its_own,
                files_are_there_before_it_starts, files_of_the_same_name_are_replaced_and_others_stay,
                a_program_that_is_not_there_is_refused, a_backend_says_whether_it_can_be_used,
                too_many_calls_are_an_answer, an_engine_that_restarts_is_no_evidence;
            ends: ending_what_was_never_started_is_success, stopping_twice_is_stopping_once,
                destroying_twice_is_destroying_once, two_ends_at_once_are_one, destroying_what_runs_ends_it,
                a_stubborn_instance_is_ended_firmly, what_stopped_is_listed_until_it_is_destroyed,
                ending_an_old_generation_leaves_the_new_one, an_exit_is_seen_with_its_code,
                success_is_an_exit_too, the_reason_of_an_exit_is_kept, an_exit_is_pushed,
                a_killed_instance_is_pushed_with_its_signal, what_ended_is_found_and_not_started_again,
                what_was_destroyed_can_be_started_again;
            restarts: the_list_is_the_same_after_a_restart, a_start_after_a_restart_finds_what_runs,
                what_ends_after_a_restart_is_pushed, what_ended_while_no_server_ran_is_pushed,
                what_an_earlier_server_started_can_be_ended, recovering_twice_is_recovering_once,
                a_restart_forgets_no_exit;
            data: data_outlives_its_instance, erased_data_is_gone_and_erasing_twice_is_success,
                whose_data_is_there_is_listed, what_is_imported_is_what_was_exported,
                an_archive_with_another_digest_changes_nothing, what_is_no_archive_changes_nothing,
                an_import_takes_the_place_of_what_was_there, a_digest_tells_one_content_from_another,
                the_same_data_has_the_same_digest_on_other_ground,
                what_was_imported_is_there_for_the_next_instance, credentials_do_not_travel;
            files: a_file_that_was_written_is_read, a_file_that_is_not_there_is_missing,
                files_are_listed_as_deep_as_asked, what_is_removed_is_gone_and_removing_nothing_is_success,
                writing_replaces_the_whole_file, the_directories_of_a_workspace_are_told_apart,
                files_of_workspaces_are_told_apart,
                an_instance_finds_what_was_written_and_what_it_writes_is_found,
                files_are_written_while_nothing_runs;
            logs: the_end_of_a_log_is_as_long_as_asked, a_log_of_nothing_is_empty, a_log_outlives_its_instance,
                logs_of_workspaces_are_told_apart, a_log_is_followed_as_it_grows,
                a_terminal_shows_what_is_typed, a_terminal_of_what_does_not_run_is_missing;
        }
    };
}

macro_rules! listed {
    ($($group:ident: $($name:ident),+;)+) => {
        &[$($(Scenario {
            group: stringify!($group),
            name: stringify!($name),
            body: |bench| Box::pin($group::$name(bench)),
        }),+),+]
    };
}

/// Every scenario that any backend can be put to.
pub const SCENARIOS: &[Scenario] = scenarios!(listed);

/// Those that only who is called over HTTP can be put to.
pub const DOOR: &[Scenario] = listed! {
    door: nobody_is_let_in_without_the_token, what_is_not_there_is_unsupported;
};

/// Put a backend to one scenario. Whatever comes of it, what it started is ended.
pub async fn run(ground: Box<dyn Ground>, scenario: &Scenario) -> Verdict {
    let patience = ground.patience();
    let mut bench = match Bench::new(ground).await {
        Ok(bench) => bench,
        Err(flaw) => return verdict(Err(flaw)),
    };
    let late = |what: &str| Flaw::broken(format!("{what} longer than {} s", patience.as_secs()));
    let outcome = tokio::time::timeout(patience, (scenario.body)(&mut bench)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(late("it took")));
    let cleared = tokio::time::timeout(patience, bench.clear()).await;
    let cleared = cleared.unwrap_or_else(|_| Err(late("ending what it started took")));
    let cleared =
        cleared.map_err(|flaw| Flaw::broken(format!("it is not cleared: {}", flaw.text())));
    // What a scenario failed of is told first; one that was not tried leaves nothing either.
    match outcome {
        Err(flaw @ (Flaw::Failed(_) | Flaw::Broken(_))) => verdict(Err(flaw)),
        other => verdict(cleared.and(other)),
    }
}

fn verdict(outcome: Done) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Held,
        Err(Flaw::Lacks(why)) => Verdict::NotApplicable(why),
        Err(flaw) => Verdict::Failed(flaw.text()),
    }
}
