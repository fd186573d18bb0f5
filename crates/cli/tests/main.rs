//! One test binary: the built program against a fake server. A new file is named here.
#![expect(clippy::unwrap_used, reason = "what cannot go on in a test has failed")]

mod create;
mod doctor;
mod events;
mod exits;
mod fake;
mod help;
mod run;
mod sample;
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
