//! Ring 0: rules about the text of the repository that no compiler checks. They live in the smallest crate, so that they
//! answer in a second; they need nothing but the files.
//!
//! | file | rules |
//! | --- | --- |
//! | [`size`] | files and functions stay short |
//! | [`rooms`] | SQL, `use` and dependencies point where the architecture says |
//! | [`modules`] | no file is forgotten |
//! | [`documents`] | paths that documents name exist |
//! | [`words`] | what no line may contain |
//!
//! A rule is a pure function from a file (and the tree it stands in) to offences. Beside each rule, tests show it a bad
//! sample: a rule that cannot fail proves nothing. Here, every rule meets the repository.

mod documents;
mod modules;
mod rooms;
mod rust;
mod size;
mod tree;
mod words;

use std::sync::LazyLock;

use tree::{Rule, Tree};

static REPOSITORY: LazyLock<Tree> =
    LazyLock::new(|| Tree::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../..").as_ref()));

#[track_caller]
fn holds(rule: Rule) {
    let offences = REPOSITORY.offences(rule);
    let lines: Vec<String> = offences.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} offences:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn rust_files_are_short() {
    holds(size::files);
}

#[test]
fn functions_are_short() {
    holds(size::functions);
}

#[test]
fn sql_stands_in_stores() {
    holds(rooms::sql);
}

#[test]
fn rooms_of_the_server_know_only_what_lies_below() {
    holds(rooms::server);
}

#[test]
fn the_domain_is_pure() {
    holds(rooms::domain);
}

#[test]
fn crates_depend_in_one_direction() {
    holds(rooms::crates);
}

#[test]
fn no_rust_file_is_forgotten() {
    holds(modules::declared);
}

#[test]
fn documents_name_paths_that_exist() {
    holds(documents::paths);
}

#[test]
fn notes_to_self_name_an_address() {
    holds(words::notes);
}

#[test]
fn no_line_ends_in_blanks() {
    holds(words::blanks);
}

#[test]
fn nothing_names_somebodys_machine() {
    holds(words::places);
}
