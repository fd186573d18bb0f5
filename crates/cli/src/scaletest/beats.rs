//! Heartbeats a second, on either engine. Load and baseline take turns, so that both meet what else the machine
//! does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::Bench;
use super::agents::{self, Agent};
use super::load::{self, Outcome, closed};
use super::options::{Scenario, Size};
use super::process::{Process, own_cpu};
use super::report::Row;
use super::store::{Classic, durability};

/// Turns that load and baseline take.
const TURNS: u32 = 3;
const SIZE: Size = Size { workspaces: [5_000, 50], connections: [128, 16], seconds: [15, 1] };
/// What is required beside the classic shape, and beside a bare handler.
const TIMES_CLASSIC: f64 = 15.0;
const TIMES_BARE: f64 = 0.5;
/// The longest that 99 of 100 heartbeats may take on PostgreSQL, in ms.
const P99: f64 = 50.0;

/// What a load was, and what it cost.
struct Measured {
    ours: Outcome,
    beside: Outcome,
    server_cores: f64,
    generator_cores: f64,
    resident: u64,
}

/// On PostgreSQL.
pub(super) async fn on_postgres(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::HeartbeatsPostgres.name();
    let Some(url) = bench.site.postgres().map(str::to_owned) else {
        return Ok(vec![Row::unavailable(scenario, "name a database with --database-url")]);
    };
    let (workspaces, connections, lasts) = bench.size(&SIZE);
    let place = bench.site.on_postgres(&url).await?;
    let server = place.start("server", None).await?;
    let agents = enrol(bench, &server, workspaces).await?;
    let classic = Classic::create(&bench.site.schema(&url).await?, workspaces).await?;
    let mut measured = Measured::none();
    for turn in 1..=TURNS {
        bench.say(format!("{scenario}: turn {turn} of {TURNS}"));
        measured.beside(classic.closed(connections, lasts / TURNS).await?);
        measured.turn(&server, &agents, connections, lasts / TURNS).await?;
    }
    classic.close().await;
    let row = measured.row(scenario, "classic", (workspaces, connections));
    let (ratio, p99) = (row.ratio.unwrap_or_default(), row.p99_ms.unwrap_or(f64::INFINITY));
    let holds = ratio >= TIMES_CLASSIC && p99 <= P99;
    let row = row.require("ratio >= 15, p99 <= 50 ms", bench.judged(), holds);
    let times = [0.5, 0.99].map(|share| measured.beside.took.percentile(share).unwrap_or_default());
    let row = row.note(format!(
        "the classic shape is six statements for each, over 25 connections and without HTTP: p50 {:.1} ms, p99 {:.1} ms",
        times[0], times[1]
    ));
    Ok(vec![row.note(format!("the database: {}", durability(&url).await?))])
}

/// On SQLite.
pub(super) async fn on_sqlite(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::HeartbeatsSqlite.name();
    let (workspaces, connections, lasts) = bench.size(&SIZE);
    let place = bench.site.on_sqlite()?;
    let server = place.start("server", None).await?;
    let agents = enrol(bench, &server, workspaces).await?;
    let bare = bench.site.process(&["scaletest-bare"]).await?;
    let mut measured = Measured::none();
    for turn in 1..=TURNS {
        bench.say(format!("{scenario}: turn {turn} of {TURNS}"));
        measured.beside(closed(bare.address(), &agents, connections, lasts / TURNS).await?);
        measured.turn(&server, &agents, connections, lasts / TURNS).await?;
    }
    let row = measured.row(scenario, "bare", (workspaces, connections));
    let holds = row.ratio.unwrap_or_default() >= TIMES_BARE;
    Ok(vec![row.require("ratio >= 0.5", bench.judged(), holds)])
}

/// Agents as they are most of the time: the first heartbeat of each, which makes its credential active, and
/// what the server does about new workspaces are over.
async fn enrol(bench: &mut Bench, server: &Process, count: usize) -> Result<Arc<Vec<Agent>>> {
    bench.say(format!("enrolling {count} agents"));
    let address = server.address();
    let agents = Arc::new(agents::enrol(address, 0, count, agents::ENROLLING).await?.agents);
    load::settle(address, &agents).await?;
    Ok(agents)
}

impl Measured {
    fn none() -> Self {
        let (ours, beside) = (Outcome::default(), Outcome::default());
        Self { ours, beside, server_cores: 0.0, generator_cores: 0.0, resident: 0 }
    }

    fn beside(&mut self, outcome: Outcome) {
        self.beside.merge(&outcome);
        self.beside.lasted += outcome.lasted;
    }

    /// A turn of the load. What it costs is its share of all turns.
    async fn turn(
        &mut self,
        server: &Process,
        agents: &Arc<Vec<Agent>>,
        connections: usize,
        lasts: Duration,
    ) -> Result<()> {
        let before = (server.cpu()?, own_cpu()?);
        let outcome = closed(server.address(), agents, connections, lasts).await?;
        let seconds = outcome.lasted.as_secs_f64() * f64::from(TURNS);
        self.server_cores += (server.cpu()? - before.0) / seconds;
        self.generator_cores += (own_cpu()? - before.1) / seconds;
        self.resident = self.resident.max(server.resident()?);
        self.ours.merge(&outcome);
        self.ours.lasted += outcome.lasted;
        Ok(())
    }

    fn row(
        &self,
        scenario: &'static str,
        what: &'static str,
        (workspaces, connections): (usize, usize),
    ) -> Row {
        let row = Row::new(scenario, "authenticated heartbeats").value(self.ours.rate(), "/s");
        let row = row.beside(what, self.beside.rate()).took(&self.ours.took);
        let row = row.used(Some(self.server_cores), Some(self.resident));
        let row = row.zero("refused or failed", self.ours.refused + self.ours.failed);
        row.note(format!(
            "{workspaces} workspaces, {connections} connections; the load generator took {:.2} cores",
            self.generator_cores
        ))
    }
}
