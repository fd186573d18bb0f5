//! One test binary. A new file is named here.
//!
//! Against a fake server (`fake`, `run`, `sample`): what each verb says. Against a stack of its own (`stack`,
//! `http`): what the whole does, with real processes, sockets and signals.
#![expect(clippy::unwrap_used, reason = "what cannot go on in a test has failed")]

mod bad_requests;
mod bad_start;
mod conservation;
mod crashes;
mod create;
mod docker;
mod doctor;
mod drills;
mod engines;
mod events;
mod exits;
mod fake;
mod files;
mod fleet;
mod help;
mod http;
mod instances;
mod lifecycle;
mod messages;
mod migrate;
mod modes;
mod provider;
mod python;
mod run;
mod sample;
mod scaletest;
mod secrecy;
mod shell;
#[expect(dead_code, reason = "tests of the server use the rest of it")]
mod socket;
mod stack;
mod why;
mod workspaces;

#[test]
fn no_test_file_is_forgotten() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let listed = include_str!("main.rs");
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "main") {
            assert!(listed.contains(&format!("mod {name};")), "{name}.rs is not compiled");
        }
    }
}
