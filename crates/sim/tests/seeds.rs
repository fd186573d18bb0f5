//! Many seeds, some at once; one seed, when told; and the same seed twice.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ligand_domain::guards::{Guard, Guards};
use ligand_sim::trace::Failure;
use ligand_sim::{Report, run, run_under};

/// Seeds of one test run, unless said otherwise.
const SEEDS: u64 = 60;

#[expect(clippy::disallowed_methods, reason = "there is no settings module here")]
fn said(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// `LIGAND_SIM_SEED=N` replays one and shows its trace; `LIGAND_SIM_SEEDS=n` says how many otherwise.
#[test]
fn the_laws_hold() {
    if let Some(seed) = said("LIGAND_SIM_SEED") {
        let outcome = run(seed);
        let trace = outcome.as_ref().map_or_else(|it| &it.trace, |report| &report.trace);
        println!("{}", trace.join("\n"));
        assert!(
            outcome.is_ok(),
            "\n{}\n",
            outcome.err().map(|it| it.to_string()).unwrap_or_default()
        );
        return;
    }
    let seeds = said("LIGAND_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(&next, seeds))).collect();
        all.into_iter().map(|worker| worker.join().expect("a worker ends")).collect()
    });
    let failures: Vec<&Failure> = outcomes.iter().filter_map(|it| it.as_ref().err()).collect();
    for failure in &failures {
        println!("\n{failure}\n");
    }
    assert!(failures.is_empty(), "a law was broken; see above");
    let sum = |of: fn(&Report) -> u64| -> u64 { outcomes.iter().flatten().map(of).sum() };
    println!(
        "{seeds} seeds: {} steps, {} calls, {} instances started, {} virtual hours",
        sum(|it| it.steps.into()),
        sum(|it| it.calls.into()),
        sum(|it| it.starts),
        sum(|it| it.seconds) / 3600,
    );
}

/// Run seeds until none is left, or one fails.
fn work(next: &AtomicU64, seeds: u64) -> Result<Report, Failure> {
    let mut done = Report::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            return Ok(done);
        }
        let report = run(seed).inspect_err(|_| next.store(seeds, Ordering::Relaxed))?;
        done.steps += report.steps;
        done.calls += report.calls;
        done.starts += report.starts;
        done.seconds += report.seconds;
    }
}

/// Without them, some seed breaks a law.
const MISSED: [Guard; 3] = [Guard::OneWriter, Guard::CutOverEvidence, Guard::CandidateInert];
/// So many seeds are tried.
const TRIED: u64 = 40;

/// `LIGAND_SIM_MUTANT=NAME` looks for a seed that misses any other rule.
#[test]
fn a_rule_that_is_gone_is_missed() {
    #[expect(clippy::disallowed_methods, reason = "there is no settings module here")]
    let asked = std::env::var("LIGAND_SIM_MUTANT").ok();
    let asked = asked.map(|name| Guard::parse(&name).expect("the name of a rule"));
    for guard in asked.map_or(MISSED.to_vec(), |guard| vec![guard]) {
        let missed = (0..TRIED).find_map(|seed| run_under(seed, Guards::without(guard)).err());
        let missed = missed.unwrap_or_else(|| panic!("nobody misses {}", guard.as_str()));
        println!("{}: seed {}: {}", guard.as_str(), missed.seed, missed.violation.law);
        if asked.is_some() {
            println!("{missed}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..4 {
        let trace = || run(seed).map(|report| report.trace);
        let (once, again) = (trace(), trace());
        assert_eq!(once, again, "seed {seed}");
        assert!(once.is_ok(), "seed {seed} breaks a law: see the other test");
    }
}
