//! Registers that mint, beside transactions that insert a credential and revoke its predecessors.

use anyhow::Result;

use super::Bench;
use super::agents;
use super::histogram::Histogram;
use super::options::{Scenario, Size};
use super::report::Row;
use super::store::{Minting, durability};

/// Turns that load and baseline take.
const TURNS: usize = 3;
const SIZE: Size = Size { workspaces: [9_000, 60], connections: [32, 8], seconds: [1, 1] };
/// What is required beside the raw transactions.
const TIMES_RAW: f64 = 0.8;

/// See the module.
pub(super) async fn registrations(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Registrations.name();
    let Some(url) = bench.site.postgres().map(str::to_owned) else {
        return Ok(vec![Row::unavailable(scenario, "name a database with --database-url")]);
    };
    let (count, connections, _) = bench.size(&SIZE);
    let place = bench.site.on_postgres(&url).await?;
    let server = place.start("server", None).await?;
    let raw = Minting::create(&bench.site.schema(&url).await?, connections).await?;
    let (mut took, mut ours, mut beside, mut cores) = (Histogram::default(), 0.0, 0.0, 0.0);
    let each = count.div_ceil(TURNS);
    for turn in 0..TURNS {
        bench.say(format!("{scenario}: turn {} of {TURNS}", turn + 1));
        let before = (raw.mint(turn * each, each).await?, server.cpu()?);
        beside += before.0 / TURNS as f64;
        let enrolled = agents::enrol(server.address(), turn * each, each, connections).await?;
        cores += (server.cpu()? - before.1) * enrolled.rate / count as f64;
        ours += enrolled.rate / TURNS as f64;
        took.merge(&enrolled.took);
    }
    raw.close().await;
    let row = Row::new(scenario, "registers that mint").value(ours, "/s").beside("raw", beside);
    let row = row.took(&took).used(Some(cores), Some(server.resident()?));
    let holds = row.ratio.unwrap_or_default() >= TIMES_RAW;
    let row = row.require("ratio >= 0.8", bench.judged(), holds);
    let row = row.note(format!("{} workspaces, {connections} connections", each * TURNS));
    Ok(vec![row.note(format!("the database: {}", durability(&url).await?))])
}
