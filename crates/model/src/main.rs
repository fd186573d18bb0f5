//! `cargo run -p ligand-model`: explores every scenario, or those that are named. `-- mutants`: takes every
//! guard away in turn. `-- far`: one fault more everywhere.
#![expect(clippy::print_stdout, reason = "the tables are what the program is for")]

use std::process::ExitCode;

use ligand_model::explore::explore;
use ligand_model::mutant::{Either, Proof, Verdict, hunt, proof};
use ligand_model::scenario;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let done = match asked.first().map(String::as_str) {
        Some("mutants") => mutants(),
        Some("far") => scenarios(true, &asked[1..]),
        _ => scenarios(false, &asked),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scenarios(far: bool, only: &[String]) -> bool {
    println!("{:<30} {:>9} {:>6} {:>9}  verdict", "scenario", "states", "depth", "seconds");
    let mut well = true;
    for scenario in scenario::all(far) {
        if !only.is_empty() && !only.iter().any(|it| it == scenario.name) {
            continue;
        }
        let report = explore(&scenario);
        let verdict = if report.broken.is_some() { "BROKEN" } else { "holds" };
        let (name, seconds) = (scenario.name, report.time.as_secs_f64());
        println!("{name:<30} {:>9} {:>6} {seconds:>9.2}  {verdict}", report.states, report.depth);
        if let Some(broken) = report.broken {
            println!("{}", broken.told());
            well = false;
        }
    }
    well
}

fn mutants() -> bool {
    println!("{:<24} {:<34} {:>5} {:>8}  scenario", "without", "is caught by", "steps", "seconds");
    let mut well = true;
    for guard in Either::all() {
        let (verdict, time) = hunt(guard);
        let (name, seconds) = (guard.as_str(), time.as_secs_f64());
        match verdict {
            Verdict::Caught(broken) => {
                let Proof::Explored(scenario, property) = proof(guard) else { continue };
                let property = property.name();
                println!(
                    "{name:<24} {property:<34} {:>5} {seconds:>8.2}  {scenario}",
                    broken.steps.len()
                );
            }
            Verdict::CaughtAlone(says) => println!("{name:<24} {says}"),
            Verdict::Elsewhere(why) => println!("{name:<24} not here: {why}"),
            Verdict::Missed(why) => {
                println!("{name:<24} MISSED: {why}");
                well = false;
            }
        }
    }
    well
}
