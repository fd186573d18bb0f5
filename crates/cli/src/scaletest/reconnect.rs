//! A server is killed and started again, and all of its agents come back at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::Bench;
use super::agents::{self, Agent};
use super::histogram::Histogram;
use super::http::Connection;
use super::options::{Scenario, Size};
use super::report::Row;
use super::survey::survey;
use crate::clock;

const SIZE: Size = Size { workspaces: [50_000, 100], connections: [8_000, 20], seconds: [1, 1] };
/// The longest it may take until all are healthy, in seconds.
const LONGEST: f64 = 30.0;
/// Whoever is not back by then is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause after a call that got no answer, doubling to the second one.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// See the module.
pub(super) async fn reconnect(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Reconnect.name();
    let (count, connections, _) = bench.size(&SIZE);
    let place = bench.site.on_sqlite()?;
    let server = place.start("server", None).await?;
    let address = server.address();
    bench.say(format!("{scenario}: enrolling {count} agents"));
    let enrolled = agents::enrol(address, 0, count, agents::ENROLLING).await?;
    let agents = Arc::new(enrolled.agents);
    bench.say(format!("{scenario}: {connections} connections"));
    let lines = (0..connections.min(count)).map(|_| Connection::to(address)).collect();
    // All have their connection before it breaks.
    let (lines, _, _) = once(&agents, lines).await?;
    bench.say(format!("{scenario}: killing the server"));
    let before = clock::now();
    server.kill()?;
    let begun = clock::instant();
    let (server, back) = tokio::join!(place.start("server", Some(address)), once(&agents, lines));
    let (server, (_, lost, took)) = (server?, back?);
    let healthy = begun.elapsed().as_secs_f64();
    let cpu = server.cpu()?;
    let stands = survey(address, &agents, before).await?;
    let row = Row::new(scenario, "from kill -9 until every agent is healthy again");
    let row =
        row.value(healthy, "s").took(&took).used(Some(cpu / healthy), Some(server.resident()?));
    let row = row.zero("lost", lost + (count as u64 - stands.online));
    let row = row.zero("marked offline", stands.changed).zero("restarted", stands.replaced);
    let row = row.require("<= 30 s", bench.judged(), healthy <= LONGEST);
    Ok(vec![row.note(format!("{count} agents, {connections} connections, SQLite"))])
}

/// Every agent is answered once; gives the connections, how many were not, and how long each took.
async fn once(
    agents: &Arc<Vec<Agent>>,
    lines: Vec<Connection>,
) -> Result<(Vec<Connection>, u64, Histogram)> {
    let mut running = JoinSet::new();
    let step = lines.len();
    for (first, line) in lines.into_iter().enumerate() {
        running.spawn(some(Arc::clone(agents), line, (first, step)));
    }
    let (mut lines, mut lost, mut took) = (Vec::with_capacity(step), 0, Histogram::default());
    while let Some(ended) = running.join_next().await {
        let (line, missing, times) = ended.context("a caller ended early")?;
        lines.push(line);
        lost += missing;
        took.merge(&times);
    }
    Ok((lines, lost, took))
}

async fn some(
    agents: Arc<Vec<Agent>>,
    mut line: Connection,
    (first, step): (usize, usize),
) -> (Connection, u64, Histogram) {
    let (mut lost, mut took, mut said) = (0, Histogram::default(), Vec::with_capacity(512));
    let begun = clock::instant();
    for agent in agents.iter().skip(first).step_by(step) {
        let mut pause = BACK_OFF[0];
        loop {
            agent.beat(1, &mut said);
            if line.call(&said).await.is_ok_and(|answer| answer.status == 200) {
                took.add(begun.elapsed());
                break;
            }
            if begun.elapsed() > PATIENCE {
                lost += 1;
                break;
            }
            clock::pause(pause).await;
            pause = (pause * 2).min(BACK_OFF[1]);
        }
    }
    (line, lost, took)
}
