//! Two replicas under load, credentials that are revoked all the while, and one replica killed midway: nobody is
//! wedged, and nobody who was left alone notices more than a connection that broke.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::task::JoinSet;

use super::Bench;
use super::agents::{self, Agent};
use super::http::{Connection, request};
use super::load::Outcome;
use super::options::{Scenario, Size};
use super::report::Row;
use super::survey::survey;
use crate::clock;

const SIZE: Size = Size { workspaces: [1_000, 40], connections: [50, 8], seconds: [30, 2] };
/// Whoever is not admitted so long after the last disturbance is wedged.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two revocations.
const REVOKING: Duration = Duration::from_millis(25);
/// Pause of an agent after a call, and after one that was not admitted.
const BREATH: Duration = Duration::from_millis(5);
const BACK_OFF: Duration = Duration::from_millis(100);

/// What everybody shares.
struct Field {
    replicas: [SocketAddr; 2],
    admin: String,
    /// Whose credentials were revoked, by number.
    revoked: Vec<AtomicBool>,
    until: Instant,
}

/// What agents saw.
#[derive(Default)]
struct Seen {
    beats: Outcome,
    renewed: u64,
    wedged: u64,
}

/// See the module.
pub(super) async fn chaos(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Chaos.name();
    let Some(url) = bench.site.postgres().map(str::to_owned) else {
        return Ok(vec![Row::unavailable(scenario, "name a database with --database-url")]);
    };
    let (count, connections, lasts) = bench.size(&SIZE);
    let place = bench.site.on_postgres(&url).await?;
    let stays = place.start("a", None).await?;
    let dies = place.start("b", None).await?;
    bench.say(format!("{scenario}: enrolling {count} agents"));
    let agents = agents::enrol(stays.address(), 0, count, agents::ENROLLING).await?.agents;
    bench.say(format!(
        "{scenario}: {} s of load, revocations and a killed replica",
        lasts.as_secs()
    ));
    let (before, until) = (clock::now(), clock::instant() + lasts);
    let revoked = agents.iter().map(|_| AtomicBool::new(false)).collect();
    let replicas = [stays.address(), dies.address()];
    let field = Arc::new(Field { replicas, admin: place.admin(), revoked, until });
    let mut running = JoinSet::new();
    for first in 0..connections {
        let own: Vec<Agent> = agents.iter().skip(first).step_by(connections).cloned().collect();
        running.spawn(live(Arc::clone(&field), own, first % 2));
    }
    let kill = async {
        clock::pause(lasts / 2).await;
        dies.kill()
    };
    let (revocations, killed) = tokio::join!(revoke(&field, &agents), kill);
    killed?;
    let mut all = Seen::default();
    while let Some(ended) = running.join_next().await {
        let seen = ended.context("a caller ended early")?;
        all.beats.merge(&seen.beats);
        all.renewed += seen.renewed;
        all.wedged += seen.wedged;
    }
    all.beats.lasted = lasts;
    let spared = agents.into_iter().zip(&field.revoked);
    let spared = spared.filter(|(_, revoked)| !revoked.load(Ordering::Relaxed));
    let spared = Arc::new(spared.map(|(agent, _)| agent).collect::<Vec<_>>());
    let stands = survey(stays.address(), &spared, before).await?;
    let row = Row::new(scenario, "agents that live through it").value(count as f64, "agents");
    let row = row.took(&all.beats.took).zero("wedged", all.wedged);
    let row = row.zero("needlessly restarted", stands.replaced);
    let row = row.zero("needlessly marked offline", stands.changed);
    let row = row.note(format!(
        "{} heartbeats accepted, {} refused, {} unanswered; {} credentials minted anew; {} agents were left alone",
        all.beats.accepted, all.beats.refused, all.beats.failed, all.renewed, spared.len()
    ));
    Ok(vec![
        row.note(match revocations? {
            Some(made) => format!("{made} revocations"),
            None => {
                "the server has no route that revokes: one replica was killed, and that was all"
                    .to_owned()
            }
        }),
    ])
}

/// Revokes one after the other; `None` where the server has no such route.
async fn revoke(field: &Field, agents: &[Agent]) -> Result<Option<u64>> {
    let (mut line, mut made) = (Connection::to(field.replicas[0]), 0);
    // Half of them are left alone.
    for number in (0..agents.len()).step_by(2).cycle() {
        if clock::instant() >= field.until {
            break;
        }
        field.revoked[number].store(true, Ordering::Relaxed);
        let path = format!("/admin/workspaces/{}/revoke-auth-tokens", agents[number].id);
        match line.call(&request("POST", &path, Some(&field.admin), "")).await?.status {
            200 => made += 1,
            404 | 405 => {
                field.revoked[number].store(false, Ordering::Relaxed);
                return Ok(None);
            }
            other => anyhow::bail!("a revocation was answered {other}"),
        }
        clock::pause(REVOKING).await;
    }
    Ok(Some(made))
}

/// Some agents on one connection, until the end and then until each was admitted once more.
async fn live(field: Arc<Field>, mut own: Vec<Agent>, first: usize) -> Seen {
    let mut line = Line { to: field.replicas.map(Connection::to), at: first, said: Vec::new() };
    let mut seen = Seen::default();
    while clock::instant() < field.until && !own.is_empty() {
        for agent in &mut own {
            line.beat(agent, &mut seen).await;
            clock::pause(BREATH).await;
        }
    }
    let settled = field.until + PATIENCE;
    for agent in &mut own {
        while !line.beat(agent, &mut seen).await {
            if clock::instant() >= settled {
                seen.wedged += 1;
                break;
            }
        }
    }
    seen
}

/// A way to either replica.
struct Line {
    to: [Connection; 2],
    at: usize,
    said: Vec<u8>,
}

impl Line {
    /// A heartbeat, and what an agent does about the answer. Whether it was admitted.
    async fn beat(&mut self, agent: &mut Agent, seen: &mut Seen) -> bool {
        agent.beat(1, &mut self.said);
        let begun = clock::instant();
        let told = match self.to[self.at].call(&self.said).await {
            Ok(answer) if answer.status == 200 => {
                seen.beats.accepted += 1;
                seen.beats.took.add(begun.elapsed());
                return true;
            }
            Ok(answer) if answer.status == 401 => {
                serde_json::from_slice::<Value>(answer.body).unwrap_or_default()
            }
            Ok(_) => Value::Null,
            Err(_) => {
                seen.beats.failed += 1;
                self.at = 1 - self.at;
                clock::pause(BACK_OFF).await;
                return false;
            }
        };
        seen.beats.refused += 1;
        match told["action"].as_str() {
            // One that waits is told to register later. One that was started anew meanwhile would not wait.
            Some("register" | "wait") => seen.renewed += u64::from(self.renew(agent).await),
            _ => clock::pause(BACK_OFF).await,
        }
        false
    }

    /// A register with what the agent holds. Whether that brought it something new.
    async fn renew(&mut self, agent: &mut Agent) -> bool {
        let register = Agent::register(agent.id, Some(&agent.token));
        let answer = self.to[self.at].call(&register).await;
        let body = answer.ok().and_then(|answer| serde_json::from_slice::<Value>(answer.body).ok());
        let minted = body.and_then(|body| body["auth_token"].as_str().map(str::to_owned));
        match minted {
            Some(token) => {
                agent.token = token.into();
                true
            }
            None => {
                clock::pause(BACK_OFF).await;
                false
            }
        }
    }
}
