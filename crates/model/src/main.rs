//! `cargo run -p ligand-model`: explores every scenario. With `mutants`: takes every guard away in turn.
#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use std::process::ExitCode;

use ligand_model::explore::explore;
use ligand_model::scenario;

fn main() -> ExitCode {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mut failed = false;
    if only.first().is_some_and(|it| it == "scan") {
        use ligand_agent::guards as a;
        use ligand_domain::guards as d;
        for g in d::Guard::ALL {
            for mut s in scenario::all(false) {
                s.guards = d::Guards::without(g);
                let r = explore(&s);
                if let Some(b) = r.broken { println!("{} | {} | {} | {} | {:?}", g.as_str(), s.name, b.property, b.steps.len(), r.time); }
            }
        }
        for g in a::Guard::ALL {
            for mut s in scenario::all(false) {
                s.agent_guards = a::Guards::without(g);
                let r = explore(&s);
                if let Some(b) = r.broken { println!("{} | {} | {} | {} | {:?}", g.as_str(), s.name, b.property, b.steps.len(), r.time); }
            }
        }
        return ExitCode::SUCCESS;
    }
    for scenario in scenario::all(false) {
        if !only.is_empty() && !only.iter().any(|it| it == scenario.name) {
            continue;
        }
        let report = explore(&scenario);
        let verdict = if report.broken.is_some() { "BROKEN" } else { "holds" };
        println!("{:<28} {:>9} {:>4} {:>8.2?} {verdict}", scenario.name, report.states, report.depth, report.time);
        if let Some(broken) = report.broken {
            println!("{}", broken.told());
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
