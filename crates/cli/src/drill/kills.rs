//! The table of kills: in each phase of a migration each of those that take part in it is killed with `kill -9`, while
//! a caller goes on sending turns. Whatever is killed, it ends migrated or rolled back; nothing is left over on either
//! backend, and no turn is lost or doubled.
//!
//! Source and target are instances of two providers of one fleet, which is a process of its own beside the platform.
//! Whoever of these two is killed is started again.
//!
//! Some phases are over within milliseconds. A cell is played again when its blow fell into another phase than it
//! should have; when that does not help, the cell says which one it was. Before the target's backend is asked for it
//! there is no target, and nothing is struck.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use ligand_api::migration::{Migrate, Migration};
use ligand_domain::migration::Stage;
use ligand_domain::time::Timestamp;

use super::DrillArgs;
use super::api::Api;
use super::kills_table::{Cell, Victim, drawn, judge};
use super::moving::{self, Count, EAST, WEST};
use super::scene::{Ended, Outcome, Scene};
use super::stack::Stack;
use crate::error::CommandResult;
use crate::migrate::picture::{is_over, phases};
use crate::output::{self, Format};
use crate::{clock, labels};

/// What can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Table {
    /// Each phase of a migration, and each of those that take part in it
    Migrate,
}

/// One phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row(Stage);

impl Row {
    /// Which it is.
    #[cfg(test)]
    pub(super) fn stage(self) -> Stage {
        self.0
    }
}

/// From its name.
pub(super) fn row(text: &str) -> Result<Row, String> {
    let found = phases().find(|stage| stage.as_str() == text).map(Row);
    let names = || phases().map(Stage::as_str).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("there is no phase `{text}`; there are {}", names()))
}

/// What a cell is called where a drill has its name.
pub(super) const CELL: &str = "";
/// Times that a blow is tried before it counts wherever it fell.
const TRIES: usize = 4;
/// Files of the workspace's data, and how large each is: a copy is to take a while.
const FILES: usize = 12;
const FILE: usize = 256 << 10;
/// How long what is slow here takes.
const SLOW: &str = "0.7";
/// For how long the fleet is away.
const AWAY: Duration = Duration::from_millis(500);
/// A turn that keeps the migration waiting, in ms.
const LONG: u64 = 900;
/// How often the phase is looked at before the blow, and afterwards.
const CLOSE: Duration = Duration::from_micros(300);
const LOOSE: Duration = Duration::from_millis(15);
/// How long one may take to be over after the blow.
const ENDS: Duration = Duration::from_secs(60);

/// `ligand drill --table migrate`.
pub(super) fn table(args: &DrillArgs) -> CommandResult {
    let chosen = phases().filter(|stage| args.rows.is_empty() || args.rows.contains(&Row(*stage)));
    let chosen: Vec<Stage> = chosen.collect();
    let cells = chosen.iter().flat_map(|phase| Victim::ALL.map(|victim| (*phase, victim)));
    let queue: Mutex<Vec<(Stage, Victim)>> = Mutex::new(cells.rev().collect());
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop());
    std::thread::scope(|scope| {
        for _ in 0..args.at_once {
            scope.spawn(|| {
                while let Some((phase, victim)) = next() {
                    let cell = played(phase, victim, args);
                    if args.output == Format::Table {
                        // A reader that left is noticed at the end.
                        let _ = output::line(&cell.line());
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push(cell);
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_default();
    args.output.answer(&done, || drawn(&chosen, &done))?;
    judge(&done)
}

/// One cell, on a thread and a stack of its own.
fn played(phase: Stage, victim: Victim, args: &DrillArgs) -> Cell {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let played = runtime.context("start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            let limit = args.limit(CELL);
            let late = || anyhow::anyhow!("it was not done within {} s", limit.as_secs());
            match tokio::time::timeout(limit, tries(phase, victim, args.keep)).await {
                Ok(Ok(cell)) => Ok(cell),
                Ok(Err(Ended::CannotRun(error))) => Err(error),
                Ok(Err(Ended::Broken)) => Err(anyhow::anyhow!("something it needs did not come")),
                Err(_) => Err(late()),
            }
        })
    });
    played.unwrap_or_else(|error| {
        let error = Some(format!("{error:#}"));
        Cell { error, ..Cell::of(phase, victim) }
    })
}

async fn tries(phase: Stage, victim: Victim, keep: bool) -> Outcome<Cell> {
    if victim == Victim::Target && phase.as_str() == "prepare" {
        return Ok(Cell { skipped: Some("nothing there yet"), ..Cell::of(phase, victim) });
    }
    let mut tried = 1;
    loop {
        let mut stack = Stack::prepare("kills", keep)?;
        let cell = once(phase, victim, &mut stack).await?;
        let hit = cell.hit && cell.struck_in == cell.phase;
        if hit || !cell.sound() || tried == TRIES {
            return match cell.hit {
                true => Ok(cell),
                false => Err(anyhow::anyhow!("there was nothing to kill").into()),
            };
        }
        tried += 1;
    }
}

/// What makes its phase last long enough to be met.
fn script(phase: Stage) -> String {
    let east = match phase.as_str() {
        "provision" => format!("sleep {SLOW}"),
        "probe" => "export LIGAND_ECHO_DELAY_MS=700".to_owned(),
        _ => ":".to_owned(),
    };
    format!("export LIGAND_ECHO_EFFECTS=effects\ncase $HOME in */{EAST}/*) {east};; esac")
}

async fn once(phase: Stage, victim: Victim, stack: &mut Stack) -> Outcome<Cell> {
    let scene = Scene::begin(false);
    let agent = moving::agent(&script(phase), &stack.program());
    let url = stack.fleet(&agent).await?;
    let mut api = stack.serve(&moving::settings_of_fleet(&url)).await?;
    let id = api.managed("worker").await?;
    let source = api.online(&scene, &id, 0).await?;
    fill(stack, &id)?;
    let caller = api.caller(&id, "turn");
    if phase.as_str() == "hold" {
        api.enqueue(&id, "long", LONG).await?;
    }
    clock::pause(Duration::from_millis(200)).await;
    let grace = u64::from(phase.as_str() == "retire");
    let body = Migrate { grace_seconds: Some(grace), ..moving::to(EAST) };
    let begun = clock::instant();
    api.client.migrate(&id, &body).await?;
    met(&api, &id, phase).await?;
    if victim == Victim::Target && phase.as_str() == "provision" {
        let started =
            async || Ok((!labels::below(&stack.tree(EAST, &id)).is_empty()).then_some(()));
        scene.until("the target is started", started).await?;
    }
    let struck = clock::now();
    let hit = strike(stack, &id, victim, source)?;
    match victim {
        Victim::Platform => api = stack.serve_again().await?,
        Victim::Fleet => {
            clock::pause(AWAY).await;
            stack.fleet_again().await?;
        }
        Victim::Source | Victim::Target => {}
    }
    let it = ends(&api, &id).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let serves = serves(&api, &id).await?;
    let turns = caller.end().await?;
    let longest = turns.iter().map(|turn| turn.took.as_secs_f64()).fold(0.0, f64::max);
    let Count { turns, shown, lost, doubled, .. } = moving::count(&api, stack, &id, &turns).await?;
    Ok(Cell {
        hit,
        struck_in: phase_at(&it, struck),
        state: it.state.clone(),
        cause: it.cause.clone(),
        seconds,
        longest,
        turns,
        interrupted: shown,
        lost,
        doubled,
        leaks: left(&api, stack, &id).await?,
        serves,
        ..Cell::of(phase, victim)
    })
}

fn fill(stack: &Stack, id: &str) -> Outcome {
    let directory = stack.tree(WEST, id).join("workspace/data");
    fs::create_dir_all(&directory).context("make room for its data")?;
    for number in 0..FILES {
        // No two chunks of it are the same.
        let mut content: Vec<u8> = vec![0; FILE];
        for (at, byte) in content.iter_mut().enumerate() {
            *byte = (at.wrapping_mul(31).wrapping_add(at >> 9) ^ number.wrapping_mul(97)) as u8;
        }
        fs::write(directory.join(number.to_string()), content).context("write its data")?;
    }
    Ok(())
}

/// Until it has entered this phase, or is over.
async fn met(api: &Api, id: &str, phase: Stage) -> Outcome {
    let until = clock::now().after(ENDS);
    loop {
        let now = moving::newest(api, id).await?;
        let entered = now.phases.iter().any(|entered| entered.phase == phase.as_str());
        if entered || is_over(&now) {
            return Ok(());
        }
        if clock::now() >= until {
            let late =
                anyhow::anyhow!("it never came to {}: {}", phase.as_str(), moving::told(&now));
            return Err(late.into());
        }
        clock::pause(CLOSE).await;
    }
}

/// `kill -9`; `false`: there was nothing to kill.
fn strike(stack: &mut Stack, id: &str, victim: Victim, source: i64) -> Outcome<bool> {
    let found = match victim {
        Victim::Platform => {
            stack.kill_server()?;
            return Ok(true);
        }
        Victim::Fleet => {
            stack.fleet.end();
            return Ok(true);
        }
        Victim::Source => {
            let mut all = labels::below(&stack.tree(WEST, id));
            all.retain(|process| process.generation == Some(source));
            all
        }
        Victim::Target => labels::below(&stack.tree(EAST, id)),
    };
    labels::kill(&found);
    Ok(!found.is_empty())
}

/// Until it is over.
async fn ends(api: &Api, id: &str) -> Outcome<Migration> {
    let until = clock::now().after(ENDS);
    loop {
        let now = moving::newest(api, id).await?;
        if is_over(&now) || clock::now() >= until {
            return Ok(now);
        }
        clock::pause(LOOSE).await;
    }
}

/// Whether the workspace comes to be online, and answers. That its agent has just died is not known at once.
async fn serves(api: &Api, id: &str) -> Outcome<bool> {
    let until = clock::now().after(ENDS);
    loop {
        let (settled, _) = api.settled(id).await?;
        if settled && api.client.send(id, "are you there?", ENDS).await.is_ok() {
            return Ok(true);
        }
        if clock::now() >= until {
            return Ok(false);
        }
        clock::pause(LOOSE).await;
    }
}

/// What is left over, once nothing changes it any more.
async fn left(api: &Api, stack: &Stack, id: &str) -> Outcome<Vec<String>> {
    let until = clock::now().after(Duration::from_secs(15));
    loop {
        let mut left = moving::leaks(api, stack, id).await?;
        let now = api.why(id).await?.workspace;
        let own = (now.generation, moving::backend_of(&now));
        let strays = stack.fleet_has(id).await?.into_iter().filter(|it| *it != own);
        left.extend(strays.map(|(generation, at)| {
            format!("generation {generation} in the fleet's list at {at}")
        }));
        if left.is_empty() || clock::now() >= until {
            return Ok(left);
        }
        clock::pause(LOOSE).await;
    }
}

/// The phase that it was in at a time. Servers and drill read one clock.
fn phase_at(it: &Migration, at: Timestamp) -> String {
    let before = |entered: &&ligand_api::migration::MigrationPhase| {
        Timestamp::parse(&entered.at).is_some_and(|begun| begun <= at)
    };
    let last = it.phases.iter().rev().find(before);
    last.map_or("prepare", |entered| entered.phase.as_str()).to_owned()
}
