//! `ligand scaletest`, in its short form and with few of everything: that it measures, not what.

use serde_json::Value;

use crate::run::{Home, Ran, run};
use crate::stack::{Stack, service};

/// Scenarios that need PostgreSQL.
const ON_POSTGRES: [&str; 3] = ["heartbeats-postgres", "registrations", "chaos"];
/// Scenarios that another engine changes.
const ON_EITHER: [&str; 4] = ["revocation", "rotation", "enqueue", "watch"];

fn measure(home: &Home, more: &[&str]) -> Ran {
    let few =
        ["scaletest", "--short", "--workspaces", "16", "--connections", "4", "--seconds", "1"];
    let scratch = home.path().display().to_string();
    run(home, &[("TMPDIR", &scratch)], &[&few, more].concat())
}

#[track_caller]
fn rows(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(told["machine"].as_str().unwrap().contains("cores"), "{told:#}");
    told["rows"].as_array().unwrap().clone()
}

#[track_caller]
fn holds(rows: &[Value], postgres: bool) {
    for row in rows {
        let scenario = row["scenario"].as_str().unwrap();
        let lacking = ON_POSTGRES.contains(&scenario) && !postgres;
        if row["verdict"] == "not_available" {
            assert!(lacking, "{row:#}");
            continue;
        }
        assert!(!lacking, "{row:#}");
        assert_ne!(row["verdict"], "missed", "{row:#}");
        assert_eq!(row["broken"], false, "{row:#}");
        let value = row["value"].as_f64();
        // The server may weigh less with sixteen agents than it did before, and no faster pace may hold.
        // What the server adds to a turn may be lost among all that is added here.
        if !(["memory", "proxy"].contains(&scenario)
            || row["measure"].as_str().unwrap().starts_with("highest"))
        {
            assert!(value.is_some_and(|value| value > 0.0), "{row:#}");
        }
    }
}

#[test]
fn every_scenario_is_measured_on_what_there_is() {
    let home = Home::new();
    let ran = measure(&home, &["--output", "json"]);
    let rows = rows(&ran);
    holds(&rows, false);
    let named = |name: &str| rows.iter().find(|row| row["scenario"] == name).unwrap();
    for name in ON_POSTGRES {
        assert_eq!(named(name)["notes"][0], "name a database with --database-url");
    }
    let beats = named("heartbeats-sqlite");
    assert_eq!(beats["baseline"]["what"], "bare");
    assert!(beats["ratio"].as_f64().unwrap() > 0.0 && beats["p99_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(named("hold")["value"], 16.0);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left over");
}

#[test]
fn replicas_are_measured_on_postgres() {
    let Some(server) = service("LIGAND_TEST_POSTGRES_URL") else { return };
    let scenarios = [ON_POSTGRES.as_slice(), &ON_EITHER].concat().join(",");
    let args = ["--database-url", &server, "--scenario", &scenarios, "--output", "json"];
    let rows = rows(&measure(&Home::new(), &args));
    // The queue is measured on both engines.
    assert_eq!(rows.len(), 8);
    holds(&rows, true);
}

#[test]
fn a_table_is_for_people() {
    let ran = measure(&Home::new(), &["--scenario", "reconnect"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("SCENARIO "), "{}", ran.stdout);
    assert!(lines[1].contains("0 lost, 0 marked offline, 0 restarted  met"), "{}", ran.stdout);
    assert!(lines.last().unwrap().starts_with("machine: "), "{}", ran.stdout);
}

#[test]
fn a_server_that_runs_is_loaded_and_left_as_it_was() {
    let stack = Stack::platform();
    let few =
        ["scaletest", "--short", "--workspaces", "4", "--connections", "2", "--output", "json"];
    let rows = rows(&stack.cli(&[few.as_slice(), &["--server", stack.url()]].concat()));
    assert_eq!(rows.len(), 1);
    assert!(rows[0]["value"].as_f64().unwrap() > 0.0, "{rows:#?}");
    assert_eq!(stack.ask("GET /workspaces").as_array().unwrap().len(), 0);
}

#[test]
fn a_server_elsewhere_is_not_loaded_by_mistake() {
    let ran = run(&Home::new(), &[], &["scaletest", "--server", "http://192.0.2.1:8080"]);
    assert_eq!(ran.code, 2, "{}", ran.transcript());
    assert!(ran.stderr.contains("--yes-load-this-server"), "{}", ran.stderr);
}
