//! Every drill, as a person runs it; and every drill again on a build that lacks the rule it is about.

use std::process::Output;
use std::sync::Mutex;

use serde_json::Value;

use crate::run::{Home, Ran, binary, run};
use crate::stack::say;

/// Drills that run at the same time. They mostly wait.
const AT_ONCE: usize = 4;

#[expect(clippy::disallowed_methods, reason = "tests are told so what they may use")]
fn mutants() -> Option<String> {
    let found = std::env::var("LIGAND_TEST_MUTANTS").ok().filter(|path| !path.is_empty());
    if found.is_none() {
        say("skipped: LIGAND_TEST_MUTANTS is not set; scripts/test sets it");
    }
    found
}

/// The drills, as the program lists them.
fn listed() -> Vec<Value> {
    let ran = run(&Home::new(), &[], &["drill", "--list", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Runs one, with its scratch directory below a home of its own.
fn drill(name: &str) -> Ran {
    let home = Home::new();
    let scratch = home.path().display().to_string();
    let ran = run(&home, &[("TMPDIR", &scratch)], &["drill", name]);
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{name} leaves {left:?}");
    ran
}

#[test]
fn every_drill_passes() {
    let names: Vec<String> =
        listed().iter().map(|drill| drill["name"].as_str().unwrap().to_owned()).collect();
    at_once(names, |name| {
        let ran = drill(&name);
        assert_eq!(ran.code, 0, "{name}\n{}", ran.transcript());
        assert!(ran.stdout.contains("verdict: PASS"), "{name}: {}", ran.stdout);
    });
}

/// Does `work` for all of them, a few at the same time; the last first, which takes longest.
fn at_once<T: Send>(all: Vec<T>, work: impl Fn(T) + Sync) {
    let queue = Mutex::new(all);
    let next = || queue.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

#[test]
fn every_drill_fails_on_a_build_that_lacks_its_rule() {
    let Some(mutants) = mutants() else { return };
    let listed = listed();
    let pairs: Vec<(&str, &str)> = listed
        .iter()
        .flat_map(|drill| {
            let rules = drill["mutants"].as_array().unwrap();
            rules.iter().map(|rule| (drill["name"].as_str().unwrap(), rule.as_str().unwrap()))
        })
        .collect();
    let missed = Mutex::new(Vec::new());
    at_once(pairs, |(drill, rule)| {
        let output = without(&mutants, drill, rule);
        if output.status.code() != Some(6) {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            missed.lock().unwrap().push(format!("{drill} without {rule}:\n{text}"));
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "the rule is not missed by its drill:\n{}", missed.join("\n"));
}

/// The whole of it takes longer: `just kills`.
#[test]
fn rows_of_the_table_of_kills_are_sound() {
    let home = Home::new();
    let scratch = home.path().display().to_string();
    let vars = [("TMPDIR", scratch.as_str())];
    let args = ["drill", "--table", "migrate", "--rows", "hold,activate", "--at-once", "2"];
    let ran = run(&home, &vars, &args);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert!(ran.stdout.contains("0 lost, 0 doubled, 0 leaks"), "{}", ran.stdout);
    let ran = run(&home, &vars, &["drill", "--table", "migrate", "--rows", "lunch"]);
    assert_eq!(ran.code, 2, "{}", ran.transcript());
    assert!(ran.stderr.contains("pre-copy"), "{}", ran.stderr);
}

/// Who is killed amid a turn runs it again where agents do not remember turns.
#[test]
fn the_table_of_kills_shows_what_a_rule_that_is_missing_comes_to() {
    let Some(mutants) = mutants() else { return };
    let home = Home::new();
    let scratch = home.path().display().to_string();
    let vars = [("TMPDIR", scratch.as_str()), ("LIGAND_MUTANT", "turn-once")];
    let args = ["drill", "--table", "migrate", "--rows", "provision,pre-copy,hold"];
    let output = binary(&mutants, &home, &vars, &args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(6), "{told}");
    assert!(told.contains("BROKEN") && !told.contains(" 0 doubled"), "{told}");
}

/// The plain build is watched, and killed a little late; this one ends itself at the commit.
#[test]
fn the_server_survives_its_end_right_after_each_commit() {
    let Some(mutants) = mutants() else { return };
    let home = Home::new();
    let scratch = home.path().display().to_string();
    let vars = [("TMPDIR", scratch.as_str())];
    let output =
        binary(&mutants, &home, &vars, &["drill", "crash-at-every-step"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    // Each entry that a restart writes was one to end at.
    for kind in ["restart-requested", "planned", "retired", "started", "registered"] {
        let at = told.lines().any(|line| line.contains("restart, killed") && line.contains(kind));
        assert!(at, "{kind}: {told}");
    }
}

fn without(mutants: &str, drill: &str, rule: &str) -> Output {
    let home = Home::new();
    let scratch = home.path().display().to_string();
    let vars = [("TMPDIR", scratch.as_str()), ("LIGAND_MUTANT", rule)];
    binary(mutants, &home, &vars, &["drill", drill]).output().unwrap()
}

#[test]
fn a_mutant_says_which_rule_it_lacks_and_refuses_a_name_that_is_none() {
    let Some(mutants) = mutants() else { return };
    let home = Home::new();
    let vars = [("LIGAND_MUTANT", "gravity")];
    let output = binary(&mutants, &home, &vars, &["up", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("one-writer") && said.contains("key-kept"), "{said}");
    let vars = [("LIGAND_MUTANT", "one-writer")];
    let data = home.path().join("data").display().to_string();
    let args = ["up", "--once", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let output = binary(&mutants, &home, &vars, &args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the rule one-writer is switched off"), "{said}");
}

/// A release has no way to switch a rule off: not even the name of the variable is in it.
#[cfg(not(feature = "mutants"))]
#[test]
fn a_build_without_the_feature_knows_nothing_of_mutants() {
    let knows = |path: &str| {
        let bytes = std::fs::read(path).unwrap();
        bytes.split(|byte| *byte == b'L').any(|rest| rest.starts_with(b"IGAND_MUTANT"))
    };
    assert!(!knows(env!("CARGO_BIN_EXE_ligand")), "the variable is in the plain build");
    // The search itself finds what is there.
    if let Some(mutants) = mutants() {
        assert!(knows(&mutants), "the variable is not in the build that takes it");
    }
}

#[test]
fn a_drill_that_is_not_there_is_a_usage_error_that_names_those_that_are() {
    let ran = run(&Home::new(), &[], &["drill", "fire"]);
    assert_eq!(ran.code, 2, "{}", ran.transcript());
    assert!(ran.stderr.contains("zombie-source"), "{}", ran.stderr);
}

#[test]
fn a_drill_without_a_place_to_write_is_not_a_broken_law() {
    let home = Home::new();
    let nowhere = home.path().join("nowhere").display().to_string();
    let ran = run(&home, &[("TMPDIR", &nowhere)], &["drill", "stolen-id", "--output", "json"]);
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["verdict"], "not-run");
}
