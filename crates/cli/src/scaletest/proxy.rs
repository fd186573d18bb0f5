//! What the way through the platform adds to a turn: the same message to the same agent, straight to it and through
//! the server, in turns. The agent is a process of this program, run by the backend `process`, which echoes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Bench;
use super::agents;
use super::histogram::Histogram;
use super::kills::{Line, Nest};
use super::options::{Scenario, Size};
use super::report::Row;
use crate::clock;

const SIZE: Size = Size { workspaces: [1, 1], connections: [1, 1], seconds: [20, 1] };
/// What half of the turns and 99 of 100 may take longer, in ms.
const P50: f64 = 1.0;
const P99: f64 = 5.0;
/// Turns of each kind that are made before any is counted.
const FIRST: usize = 20;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both ways to one agent.
#[derive(Clone)]
struct Ways {
    http: reqwest::Client,
    direct: String,
    proxied: String,
    admin: String,
}

/// See the module.
pub(super) async fn proxy(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Proxy.name();
    let (count, callers, lasts) = bench.size(&SIZE);
    let place = bench.site.on_sqlite()?;
    let (server, instances) = place.start_with_instances("server").await?;
    let (address, admin) = (server.address(), place.admin());
    let nest = Nest::of(server, instances);
    bench.say(format!("{scenario}: {count} instances"));
    let mut line = Line::to(address, admin.clone());
    let builder = ligand_api::http::builder().context("make a client")?;
    let http = builder.no_proxy().tcp_nodelay(true).timeout(PATIENCE).build()?;
    let mut all = Vec::new();
    for number in 0..count {
        let id = line.create(number).await?;
        ensure!(line.online(&id, 0).await?.is_some(), "a workspace did not come online");
        let direct = line.url(&id).await?;
        let proxied = format!("http://{address}/workspaces/{id}/a2a");
        all.push(Ways { http: http.clone(), direct, proxied, admin: admin.clone() });
    }
    for ways in &all {
        for _ in 0..FIRST {
            ways.turn(false).await?;
            ways.turn(true).await?;
        }
    }
    bench.say(format!("{scenario}: {} s of turns", lasts.as_secs()));
    let until = clock::instant() + lasts;
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let ways = all[caller % all.len()].clone();
        running.spawn(async move {
            let mut took = [Histogram::default(), Histogram::default()];
            while clock::instant() < until {
                for (way, took) in took.iter_mut().enumerate() {
                    took.add(ways.turn(way == 1).await?);
                }
            }
            anyhow::Ok(took)
        });
    }
    let [mut direct, mut proxied] = [Histogram::default(), Histogram::default()];
    while let Some(ended) = running.join_next().await {
        let [one, other] = ended.context("a caller ended early")??;
        direct.merge(&one);
        proxied.merge(&other);
    }
    let resident = nest.resident()?;
    Ok(vec![row(scenario, &direct, &proxied, bench.judged()).used(None, resident)])
}

fn row(scenario: &'static str, direct: &Histogram, proxied: &Histogram, judged: bool) -> Row {
    let at = |took: &Histogram, share| took.percentile(share).unwrap_or_default();
    let added = |share| at(proxied, share) - at(direct, share);
    let (half, most) = (added(0.5), added(0.99));
    let row = Row::new(scenario, "added to a turn").value(half, "ms");
    let mut row = row.beside("direct", at(direct, 0.5));
    (row.p50_ms, row.p99_ms) = (Some(half), Some(most));
    let row = row.require("p50 <= 1 ms", judged, half <= P50);
    let row = row.require("p99 <= 5 ms", judged, most <= P99);
    row.note(format!(
        "{} turns each way; direct p50 {:.2} ms, p99 {:.2} ms; through the server p50 {:.2} ms, p99 {:.2} ms",
        direct.count(),
        at(direct, 0.5),
        at(direct, 0.99),
        at(proxied, 0.5),
        at(proxied, 0.99),
    ))
}

impl Ways {
    /// One turn, either way; gives how long it took.
    async fn turn(&self, proxied: bool) -> Result<Duration> {
        let message = json!({
            "kind": "message", "messageId": agents::fresh(), "role": "user",
            "parts": [{"kind": "text", "text": "What is there to do today?"}],
        });
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message},
        });
        let mut request = self.http.post(if proxied { &self.proxied } else { &self.direct });
        if proxied {
            request = request.bearer_auth(&self.admin);
        }
        let begun = clock::instant();
        let answer = request.json(&body).send().await.context("send a turn")?;
        let status = answer.status();
        let said: Value = answer.json().await.context("read a turn's answer")?;
        let took = begun.elapsed();
        ensure!(
            status.is_success() && !said["result"].is_null(),
            "a turn was answered {status}: {said}"
        );
        Ok(took)
    }
}
