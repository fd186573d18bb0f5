//! A revocation holds for the next heartbeat, on every replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::Bench;
use super::agents::{self, Agent};
use super::histogram::Histogram;
use super::http::{Connection, request};
use super::options::{Scenario, Size};
use super::report::Row;
use crate::clock;

const SIZE: Size = Size { workspaces: [10_000, 40], connections: [16, 4], seconds: [1, 1] };

/// What came of some trials.
#[derive(Default)]
struct Trials {
    done: u64,
    /// Heartbeats that were let in after the revocation was confirmed.
    accepted: u64,
    /// Heartbeats that were answered otherwise than 200 or 401, before or after.
    other: u64,
    took: Histogram,
    /// The server does not know the route.
    lacking: bool,
}

/// Who takes part: the replicas, the agents, and who is next.
struct Field {
    replicas: Vec<SocketAddr>,
    agents: Vec<Agent>,
    admin: String,
    next: AtomicUsize,
}

/// See the module.
pub(super) async fn revocation(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Revocation.name();
    let (count, callers, _) = bench.size(&SIZE);
    let (place, names): (_, &[&str]) = match bench.site.postgres().map(str::to_owned) {
        Some(url) => (bench.site.on_postgres(&url).await?, &["a", "b"]),
        None => (bench.site.on_sqlite()?, &["a"]),
    };
    let mut servers = Vec::new();
    for name in names {
        servers.push(place.start(name, None).await?);
    }
    bench.say(format!("{scenario}: enrolling {count} agents"));
    let agents = agents::enrol(servers[0].address(), 0, count, agents::ENROLLING).await?.agents;
    let replicas = servers.iter().map(super::process::Process::address).collect();
    let field = Field { replicas, agents, admin: place.admin(), next: AtomicUsize::new(0) };
    bench.say(format!("{scenario}: {count} trials"));
    let trials = all(Arc::new(field), callers).await?;
    if trials.lacking {
        return Ok(vec![Row::unavailable(scenario, "the server has no route that revokes")]);
    }
    let row = Row::new(scenario, "revocations, each tried on every replica");
    let row = row.value(trials.done as f64, "trials").took(&trials.took);
    let row = row.zero("accepted after the reply", trials.accepted);
    let row = row.zero("answered neither 200 nor 401", trials.other);
    let on = match names.len() {
        1 => "one server on SQLite; with --database-url two replicas on PostgreSQL",
        _ => "two replicas on PostgreSQL",
    };
    Ok(vec![row.note(format!("{on}; times are those of the revocation"))])
}

async fn all(field: Arc<Field>, callers: usize) -> Result<Trials> {
    let mut running = JoinSet::new();
    for _ in 0..callers {
        running.spawn(some(Arc::clone(&field)));
    }
    let mut all = Trials::default();
    while let Some(ended) = running.join_next().await {
        let some = ended.context("a caller ended early")??;
        all.done += some.done;
        all.accepted += some.accepted;
        all.other += some.other;
        all.lacking |= some.lacking;
        all.took.merge(&some.took);
    }
    Ok(all)
}

async fn some(field: Arc<Field>) -> Result<Trials> {
    let mut replicas: Vec<Connection> =
        field.replicas.iter().map(|at| Connection::to(*at)).collect();
    let (mut trials, mut said) = (Trials::default(), Vec::new());
    loop {
        let number = field.next.fetch_add(1, Ordering::Relaxed);
        let Some(agent) = field.agents.get(number) else { return Ok(trials) };
        for replica in &mut replicas {
            // Whatever a replica remembers of the credential, it remembers from now on.
            agent.beat(1, &mut said);
            trials.other += u64::from(replica.call(&said).await?.status != 200);
        }
        let path = format!("/admin/workspaces/{}/revoke-auth-tokens", agent.id);
        let revoke = request("POST", &path, Some(&field.admin), "");
        let at = number % replicas.len();
        let begun = clock::instant();
        match replicas[at].call(&revoke).await?.status {
            200 => trials.took.add(begun.elapsed()),
            404 | 405 => return Ok(Trials { lacking: true, ..trials }),
            other => anyhow::bail!("a revocation was answered {other}"),
        }
        for replica in &mut replicas {
            agent.beat(2, &mut said);
            match replica.call(&said).await?.status {
                200 => trials.accepted += 1,
                401 => {}
                _ => trials.other += 1,
            }
        }
        trials.done += 1;
    }
}
