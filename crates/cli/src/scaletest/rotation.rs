//! A rotation, from the heartbeat that announces it to the first one on the new credential.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::task::JoinSet;

use super::Bench;
use super::agents::{self, Agent};
use super::histogram::Histogram;
use super::http::{Connection, request};
use super::options::{Scenario, Size};
use super::report::Row;
use crate::clock;

const SIZE: Size = Size { workspaces: [2_000, 20], connections: [16, 4], seconds: [1, 1] };
/// The longest that 99 of 100 may take, in ms.
const P99: f64 = 1_000.0;
/// Whoever has not got through by then is wedged.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two tries.
const LOOK: Duration = Duration::from_millis(2);

/// What came of some rotations.
#[derive(Default)]
struct Rotated {
    wedged: u64,
    took: Histogram,
    lacking: bool,
}

/// Who takes part.
struct Field {
    server: SocketAddr,
    agents: Vec<Agent>,
    admin: String,
    next: AtomicUsize,
}

/// See the module.
pub(super) async fn rotation(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Rotation.name();
    let (count, callers, _) = bench.size(&SIZE);
    let place = match bench.site.postgres().map(str::to_owned) {
        Some(url) => bench.site.on_postgres(&url).await?,
        None => bench.site.on_sqlite()?,
    };
    let server = place.start("server", None).await?;
    bench.say(format!("{scenario}: enrolling {count} agents"));
    let agents = agents::enrol(server.address(), 0, count, agents::ENROLLING).await?.agents;
    let (admin, next) = (place.admin(), AtomicUsize::new(0));
    let field = Arc::new(Field { server: server.address(), agents, admin, next });
    bench.say(format!("{scenario}: {count} rotations"));
    let mut running = JoinSet::new();
    for _ in 0..callers {
        running.spawn(some(Arc::clone(&field)));
    }
    let mut all = Rotated::default();
    while let Some(ended) = running.join_next().await {
        let some = ended.context("a caller ended early")??;
        all.wedged += some.wedged;
        all.lacking |= some.lacking;
        all.took.merge(&some.took);
    }
    if all.lacking {
        return Ok(vec![Row::unavailable(scenario, "the server has no route that rotates")]);
    }
    let row = Row::new(scenario, "announced until the new credential is in use");
    let row =
        row.value(all.took.count() as f64, "rotations").took(&all.took).zero("wedged", all.wedged);
    let holds = row.p99_ms.is_some_and(|p99| p99 <= P99);
    Ok(vec![row.require("p99 <= 1 s", bench.judged(), holds)])
}

async fn some(field: Arc<Field>) -> Result<Rotated> {
    let mut connection = Connection::to(field.server);
    let mut rotated = Rotated::default();
    loop {
        let number = field.next.fetch_add(1, Ordering::Relaxed);
        let Some(agent) = field.agents.get(number) else { return Ok(rotated) };
        let path = format!("/admin/workspaces/{}/rotate", agent.id);
        let ask = request("POST", &path, Some(&field.admin), "");
        match connection.call(&ask).await?.status {
            200..300 => {}
            404 | 405 => return Ok(Rotated { lacking: true, ..rotated }),
            other => anyhow::bail!("a rotation was answered {other}"),
        }
        let turned = tokio::time::timeout(PATIENCE, turn(&mut connection, agent)).await;
        match turned {
            Ok(took) => rotated.took.add(took?),
            Err(_) => rotated.wedged += 1,
        }
    }
}

/// What an agent does: beat, hear of it, fetch the new credential, use it.
async fn turn(connection: &mut Connection, agent: &Agent) -> Result<Duration> {
    let mut said = Vec::new();
    let serial = loop {
        agent.beat(1, &mut said);
        let answer = connection.call(&said).await?;
        anyhow::ensure!(answer.status == 200, "a heartbeat was answered {}", answer.status);
        let body: Value = serde_json::from_slice(answer.body)?;
        match body["rotate"].as_i64() {
            Some(serial) => break serial,
            None => clock::pause(LOOK).await,
        }
    };
    let begun = clock::instant();
    let body = format!(r#"{{"workspace_id":"{}","serial":{serial}}}"#, agent.id);
    let ask = request("POST", "/registry/rotate", Some(&agent.token), &body);
    let token = loop {
        let answer = connection.call(&ask).await?;
        let body: Value = serde_json::from_slice(answer.body)?;
        match body["auth_token"].as_str() {
            Some(token) => break token.to_owned(),
            None => clock::pause(LOOK).await,
        }
    };
    let renewed = Agent { id: agent.id, token: token.into() };
    loop {
        renewed.beat(2, &mut said);
        if connection.call(&said).await?.status == 200 {
            return Ok(begun.elapsed());
        }
        clock::pause(LOOK).await;
    }
}
