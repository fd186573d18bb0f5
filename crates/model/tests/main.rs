//! The identity protocol, explored to the last state of every scenario; and every guard taken away in turn.

use ligand_model::explore::explore;
use ligand_model::mutant::{Either, Proof, Verdict, hunt, proof};
use ligand_model::scenario;

/// `LIGAND_MODEL_FAR=1`: one fault more in every scenario, which takes minutes.
#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests")]
fn far() -> bool {
    std::env::var("LIGAND_MODEL_FAR").is_ok_and(|it| it == "1")
}

fn holds(names: impl Fn(&str) -> bool) {
    let mut explored = 0;
    for scenario in scenario::all(far()).into_iter().filter(|it| names(it.name)) {
        let report = explore(&scenario);
        if let Some(broken) = report.broken {
            panic!("in {}: {}", scenario.name, broken.told());
        }
        // A slip that lets nothing happen would prove everything.
        assert!(report.states >= 10, "{} has {} states", scenario.name, report.states);
        explored += 1;
    }
    assert!(explored > 0, "no such scenario");
}

fn is_external(name: &str) -> bool {
    name.starts_with("external")
}

fn is_migration(name: &str) -> bool {
    name.starts_with("migration")
}

#[test]
fn every_scenario_of_managed_workspaces_keeps_the_laws() {
    holds(|name| !is_external(name) && !is_migration(name));
}

#[test]
fn every_scenario_of_external_workspaces_keeps_the_laws() {
    holds(|name| is_external(name) && name != "external-sealed");
}

#[test]
fn a_sealed_external_workspace_keeps_the_laws() {
    holds(|name| name == "external-sealed");
}

#[test]
fn every_scenario_of_migrations_keeps_the_laws() {
    holds(is_migration);
}

#[test]
fn every_guard_is_missed_by_a_named_property_when_it_is_gone() {
    let mut missed = Vec::new();
    for guard in Either::all() {
        match hunt(guard).0 {
            Verdict::Missed(why) => missed.push(format!("{}: {why}", guard.as_str())),
            Verdict::Caught(_) | Verdict::CaughtAlone(_) => {}
            Verdict::Elsewhere(why) => assert!(why.len() > 20, "{}: say why", guard.as_str()),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn a_trace_is_told_in_words() {
    let guard = Either::all().into_iter().find(|it| it.as_str() == "pending-is-live");
    let guard = guard.expect("it is a guard");
    assert!(matches!(proof(guard), Proof::Explored(..)));
    let (Verdict::Caught(broken), _) = hunt(guard) else { panic!("it is caught") };
    let told = broken.told();
    for words in ["no-stranger does not hold after", "an administrator", "a stranger registers"] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn scenarios_have_names_of_their_own() {
    let names: Vec<&str> = scenario::all(false).iter().map(|it| it.name).collect();
    for name in &names {
        assert_eq!(names.iter().filter(|it| *it == name).count(), 1, "{name}");
    }
}

/// Which secrets never reach a program is said at both ends, since the agent knows nothing of the platform's decisions.
#[test]
fn both_ends_keep_the_same_names_to_themselves() {
    use ligand_agent::values as agent;
    use ligand_domain::secrets as platform;
    assert_eq!(agent::TAKEN, platform::TAKEN);
    assert_eq!(agent::AGENTS_OWN, platform::AGENTS_OWN);
    for name in platform::TAKEN.into_iter().chain(["LIGAND_X", "API_KEY", "PATH", "TIER"]) {
        assert_eq!(agent::deliverable(name), platform::deliverable(name), "{name}");
    }
}
