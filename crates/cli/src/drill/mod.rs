//! `ligand drill`: incidents as scenarios on real processes, with real sockets and `kill -9`, on scratch data.
//!
//! A drill starts a server of its own, does to it what went wrong somewhere once, and judges by what anybody
//! can see from outside: answers, `why`, events.
//!
//! | file | what |
//! | --- | --- |
//! | [`catalogue`] | every drill: its incident, the laws that it tries, who carries it out |
//! | [`scene`] | what was seen, and what had to hold |
//! | [`stack`], [`beside`] | the processes |
//! | [`proxy`] | a network that fails as it is told to |
//! | [`inbox`] | an agent that answers as it is told to |
//! | [`api`] | the platform, asked from outside |
//! | [`moving`] | a second backend, and what is counted when a migration is over |
//! | [`kills`], [`kills_table`] | everything killed in every phase of a migration |
//! | [`verdict`] | the outcome, as text and as data |
//! | the others | the drills, by family |

mod api;
mod beside;
mod candidates;
mod catalogue;
mod crash;
mod crash_moving;
mod credentials;
mod enrolment;
mod inbox;
mod kills;
mod kills_table;
mod migration;
mod moving;
mod outage;
mod proxy;
mod queue;
mod replacement;
mod rotation;
mod scene;
mod stack;
mod streams;
mod verdict;

use std::time::Duration;

use anyhow::Context as _;

use self::catalogue::Drill;
use self::scene::{Ended, Scene};
use self::stack::Stack;
use self::verdict::{Told, Verdict};
use crate::error::{CommandError, CommandResult, Kind};
use crate::output::{self, Format};
use crate::serve::Stop;

/// Below the help.
pub(crate) const AFTER: &str = "\
Exit codes:
   0  every law held
   1  a drill could not be carried out; this says nothing about any law
   2  there is no such drill
   6  a law was broken; the lines marked FAIL say which";

/// Re-enact an incident on real processes and scratch data, and judge what happens
///
/// Each drill starts a server of its own below the temporary directory (TMPDIR), does to it what once went
/// wrong somewhere, and says which law held. It touches no other server, and leaves nothing behind.
#[derive(clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct DrillArgs {
    /// Which drills; --list names them
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "list", "table"])]
    names: Vec<String>,
    /// Every drill, one after the other
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Show the drills: incident, laws, and the rule without which each one fails
    #[arg(long, conflicts_with_all = ["names", "all"])]
    list: bool,
    /// Kill each of platform, fleet, source and target in each phase, and print what came of it
    #[arg(long, value_enum, value_name = "TABLE", conflicts_with_all = ["names", "all", "list"])]
    table: Option<kills::Table>,
    /// Of a table only this row, or several with commas
    #[arg(long, value_name = "PHASE", requires = "table", value_delimiter = ',', value_parser = kills::row)]
    rows: Vec<kills::Row>,
    /// Of a table so many cells at the same time
    #[arg(long, value_name = "N", requires = "table", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    at_once: u8,
    /// Leave the scratch directories, with data and logs
    #[arg(long)]
    keep: bool,
    /// Longest time that one drill, or one cell, may take [default: 90; a cell: 150; crash-at-every-step: 400]
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// How to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

impl DrillArgs {
    /// How long a drill may take.
    fn limit(&self, name: &str) -> Duration {
        let own = match name {
            "crash-at-every-step" => 400,
            kills::CELL => 150,
            _ => 90,
        };
        Duration::from_secs(self.limit.unwrap_or(own))
    }
}

/// `ligand drill`.
pub(crate) fn drill(args: DrillArgs) -> CommandResult {
    if args.list {
        let rows: Vec<&Drill> = catalogue::ALL.iter().collect();
        return args.output.answer(&rows, || verdict::list(&rows));
    }
    if let Some(kills::Table::Migrate) = args.table {
        return kills::table(&args);
    }
    let chosen = chosen(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(CommandError::internal)?;
    runtime.block_on(Box::pin(run(&chosen, &args)))
}

fn chosen(args: &DrillArgs) -> CommandResult<Vec<&'static Drill>> {
    if args.all {
        return Ok(catalogue::ALL.iter().collect());
    }
    let find = |name: &String| {
        let found = catalogue::ALL.iter().find(|drill| drill.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = catalogue::ALL.iter().map(|drill| drill.name).collect();
            CommandError::usage(format!("there is no drill `{name}`"))
                .hint(format!("there are {}", names.join(", ")))
        })
    };
    args.names.iter().map(find).collect()
}

async fn run(chosen: &[&'static Drill], args: &DrillArgs) -> CommandResult {
    let mut stop = Stop::listen()?;
    let mut told = Vec::new();
    for drill in chosen {
        let once = one(drill, args);
        let done = tokio::select! {
            done = once => done,
            // What ran is dropped, and ended by that.
            () = stop.asked() => return Err(CommandError::failed("ended before the verdict")),
        };
        args.output.item(&done, || done.last_line())?;
        told.push(done);
    }
    if told.len() > 1 && args.output == Format::Table {
        output::line(&verdict::summary(&told))?;
    }
    conclude(&told)
}

fn conclude(told: &[Told]) -> CommandResult {
    let with = |verdict: Verdict| {
        let of = told.iter().filter(move |told| told.verdict == verdict);
        of.map(|told| told.drill).collect::<Vec<_>>().join(", ")
    };
    let (broken, not_run) = (with(Verdict::Fail), with(Verdict::NotRun));
    if !broken.is_empty() {
        let error = anyhow::anyhow!("a law was broken in: {broken}");
        return Err(CommandError::new(Kind::Broken, error)
            .hint("`ligand drill NAME --keep` leaves data and logs to look at"));
    }
    if !not_run.is_empty() {
        return Err(CommandError::failed(format!("could not be carried out: {not_run}"))
            .hint("`ligand drill NAME --keep` leaves data and logs to look at"));
    }
    Ok(())
}

/// One drill, from an empty directory to its verdict.
async fn one(drill: &'static Drill, args: &DrillArgs) -> Told {
    let aloud = args.output == Format::Table;
    if aloud {
        // A reader that left is noticed at the end.
        let _ = output::line(&verdict::opening(drill));
    }
    let scene = Scene::begin(aloud);
    let limit = args.limit(drill.name);
    let ended = match Stack::prepare(drill.name, args.keep) {
        Err(error) => Err(Ended::CannotRun(error)),
        Ok(mut stack) => {
            let late = || anyhow::anyhow!("it was not done within {} s", limit.as_secs());
            let played = tokio::time::timeout(limit, (drill.play)(&scene, &mut stack)).await;
            let ended = played.unwrap_or_else(|_| Err(Ended::CannotRun(late())));
            if ended.is_err() && aloud {
                for line in stack.last_words().lines() {
                    output::note(line);
                }
            }
            ended
        }
    };
    let error = match ended {
        Ok(()) if !scene.judged() => Some("nothing was judged".to_owned()),
        Err(Ended::CannotRun(error)) if !scene.broken() => Some(format!("{error:#}")),
        Ok(()) | Err(_) => None,
    };
    Told::of(drill, scene, error)
}
