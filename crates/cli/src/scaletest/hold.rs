//! Many agents on one server: what they weigh, and what their heartbeats cost at a pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::Bench;
use super::agents::{self, Agent};
use super::http::Connection;
use super::load::{self, Outcome};
use super::options::{Scenario, Size};
use super::process::{Process, own_cpu};
use super::report::Row;
use super::site::Place;
use super::survey::survey;
use crate::clock;

const SIZE: Size = Size { workspaces: [100_000, 200], connections: [4_000, 20], seconds: [60, 2] };
/// Time between two heartbeats of an agent: in full, and in the short form.
const PACE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1)];
/// How long the server rests before it is weighed.
const REST: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(100)];
/// The most that an idle workspace may weigh, in bytes.
const WEIGHT: f64 = 2048.0;
/// Share of what was offered that must have been accepted for a pace to hold.
const HELD: f64 = 0.98;
/// Faster paces that are tried.
const FASTER: [f64; 6] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// A server with its agents. What it weighed is known before any of them calls again.
pub(super) struct Fleet {
    server: Process,
    agents: Arc<Vec<Agent>>,
    empty: u64,
    full: u64,
    rate: f64,
    _place: Place,
}

impl Fleet {
    async fn raise(bench: &mut Bench) -> Result<Self> {
        let (count, ..) = bench.size(&SIZE);
        let rest = REST[usize::from(bench.args.short())];
        let place = bench.site.on_sqlite()?;
        let server = place.start("server", None).await?;
        clock::pause(rest).await;
        let empty = server.resident()?;
        bench.say(format!("enrolling {count} agents"));
        let enrolled = agents::enrol(server.address(), 0, count, agents::ENROLLING).await?;
        clock::pause(rest).await;
        let full = server.resident()?;
        let (agents, rate) = (Arc::new(enrolled.agents), enrolled.rate);
        Ok(Self { server, agents, empty, full, rate, _place: place })
    }
}

async fn fleet(bench: &mut Bench) -> Result<Fleet> {
    match bench.fleet.take() {
        Some(fleet) => Ok(fleet),
        None => Fleet::raise(bench).await,
    }
}

/// What a workspace weighs that nobody talks to.
pub(super) async fn memory(bench: &mut Bench) -> Result<Vec<Row>> {
    let fleet = fleet(bench).await?;
    let count = fleet.agents.len();
    let weight = fleet.full.saturating_sub(fleet.empty) as f64 / count as f64;
    let row = Row::new(Scenario::Memory.name(), "resident memory of an idle workspace");
    let row = row.value(weight, "B").used(None, Some(fleet.full));
    let row = row.require("<= 2 KiB", bench.judged(), weight <= WEIGHT);
    let row = row.note(format!(
        "{count} workspaces on SQLite, registered at {:.0} a second; the server without any: {:.1} MiB",
        fleet.rate,
        fleet.empty as f64 / 1_048_576.0
    ));
    bench.fleet = Some(fleet);
    Ok(vec![row])
}

/// What holding them costs.
pub(super) async fn hold(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Hold.name();
    let fleet = fleet(bench).await?;
    let (count, connections, lasts) = bench.size(&SIZE);
    let pace = PACE[usize::from(bench.args.short())];
    // The first heartbeat of each makes its credential active; what is held is what comes after.
    bench.say(format!("{scenario}: the first heartbeats of {count} agents"));
    load::settle(fleet.server.address(), &fleet.agents).await?;
    bench.say(format!("{scenario}: {count} agents, a heartbeat every {} s each", pace.as_secs()));
    let began = clock::now();
    let paced = Paced { server: fleet.server.address(), connections, pace, lasts };
    let held = paced.measure(&fleet).await?;
    let stands = survey(fleet.server.address(), &fleet.agents, began).await?;
    let row =
        Row::new(scenario, format!("agents held, a heartbeat every {} s each", pace.as_secs()));
    let row = row.value(stands.online as f64, "agents").took(&held.outcome.took);
    let row = row.used(Some(held.cores), Some(fleet.server.resident()?));
    let row = row.zero("refused or failed", held.outcome.refused + held.outcome.failed);
    let row = row.zero("marked offline", stands.changed.max(count as u64 - stands.online));
    let holds = held.cores <= 1.0 && held.share >= HELD;
    let row = row.require("<= 1 core", bench.judged(), holds);
    let row = row.note(format!(
        "{connections} connections; {:.0} heartbeats a second, {:.1} % of those offered; the load generator took {:.2} cores",
        held.outcome.rate(),
        held.share * 100.0,
        held.generator
    ));
    let fastest = ramp(bench, &fleet, paced).await?;
    bench.fleet = Some(fleet);
    Ok(vec![row, fastest])
}

/// The highest pace that the server holds with one core.
async fn ramp(bench: &mut Bench, fleet: &Fleet, paced: Paced) -> Result<Row> {
    let scenario = Scenario::Hold.name();
    let lasts = paced.lasts / 6;
    let (mut best, mut failed) = (None, None);
    for faster in FASTER {
        let pace = paced.pace.div_f64(faster);
        bench.say(format!("{scenario}: a heartbeat every {:.1} s each", pace.as_secs_f64()));
        let held = Paced { pace, lasts, ..paced }.measure(fleet).await?;
        if held.cores > 1.0 || held.share < HELD {
            failed = Some((pace, held));
            break;
        }
        best = Some((pace, held));
    }
    let said = |(pace, held): &(Duration, Held)| {
        format!(
            "a heartbeat every {:.2} s each: {:.0} a second, {:.1} % of those offered, {:.2} cores",
            pace.as_secs_f64(),
            held.outcome.rate(),
            held.share * 100.0,
            held.cores
        )
    };
    let row = Row::new(scenario, "highest pace of those tried that one core holds");
    let row = match &best {
        Some((_, held)) => row
            .value(held.outcome.rate(), "/s")
            .took(&held.outcome.took)
            .used(Some(held.cores), Some(fleet.server.resident()?)),
        None => row.note("none of the faster ones"),
    };
    let row = best.iter().fold(row, |row, it| row.note(format!("held: {}", said(it))));
    Ok(failed.iter().fold(row, |row, it| row.note(format!("not held: {}", said(it)))))
}

/// Heartbeats at a pace, whether or not the last one was answered in time.
#[derive(Clone, Copy)]
struct Paced {
    server: SocketAddr,
    connections: usize,
    pace: Duration,
    lasts: Duration,
}

/// What came of it.
struct Held {
    outcome: Outcome,
    /// Of what was offered, how much was accepted.
    share: f64,
    cores: f64,
    generator: f64,
}

impl Paced {
    async fn measure(self, fleet: &Fleet) -> Result<Held> {
        let before = (fleet.server.cpu()?, own_cpu()?);
        let outcome = self.run(&fleet.agents).await?;
        let seconds = outcome.lasted.as_secs_f64();
        let offered =
            fleet.agents.len() as f64 / self.pace.as_secs_f64() * self.lasts.as_secs_f64();
        Ok(Held {
            share: (outcome.accepted as f64 / offered).min(1.0),
            cores: (fleet.server.cpu()? - before.0) / seconds,
            generator: (own_cpu()? - before.1) / seconds,
            outcome,
        })
    }

    async fn run(self, agents: &Arc<Vec<Agent>>) -> Result<Outcome> {
        let connections = self.connections.min(agents.len());
        let begun = clock::instant();
        let mut running = JoinSet::new();
        for first in 0..connections {
            let phase = self.pace.mul_f64(first as f64 / agents.len() as f64);
            let of = (first, connections);
            running.spawn(self.one(Arc::clone(agents), of, begun + phase, begun + self.lasts));
        }
        let mut all = Outcome::default();
        while let Some(ended) = running.join_next().await {
            all.merge(&ended.context("a caller ended early")?);
        }
        all.lasted = begun.elapsed();
        Ok(all)
    }

    /// The agents of one connection, one after the other. A time counts from when the heartbeat was due: one that
    /// had to wait for the one before it has waited.
    async fn one(
        self,
        agents: Arc<Vec<Agent>>,
        (first, step): (usize, usize),
        mut due: Instant,
        until: Instant,
    ) -> Outcome {
        let (mut connection, mut said) = (Connection::to(self.server), Vec::with_capacity(512));
        let mut outcome = Outcome::default();
        let share = agents.len().saturating_sub(first).div_ceil(step);
        let apart = self.pace.div_f64(share as f64);
        let (mut at, mut number) = (first, 0);
        while due < until {
            clock::pause(due.saturating_duration_since(clock::instant())).await;
            if clock::instant() >= until {
                break;
            }
            agents[at].beat(number, &mut said);
            match connection.call(&said).await.map(|answer| answer.status) {
                Ok(200) => {
                    outcome.accepted += 1;
                    outcome.took.add(clock::instant().saturating_duration_since(due));
                }
                Ok(_) => outcome.refused += 1,
                Err(_) => outcome.failed += 1,
            }
            at = if at + step < agents.len() { at + step } else { first };
            number += 1;
            due += apart;
        }
        outcome
    }
}
