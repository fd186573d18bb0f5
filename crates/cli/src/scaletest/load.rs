//! Heartbeats as fast as they are answered: each connection sends its next one when it has the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::agents::{Agent, ENROLLING};
use super::histogram::Histogram;
use super::http::Connection;
use crate::clock;

/// Pause after a call that got no answer.
const BACK_OFF: Duration = Duration::from_millis(5);

/// Heartbeats of each agent until it is as agents are most of the time: the first makes its credential active, the
/// second comes after what the server does about a new workspace.
const SETTLING: usize = 3;

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Answered 200.
    pub(super) accepted: u64,
    /// Answered otherwise.
    pub(super) refused: u64,
    /// Not answered.
    pub(super) failed: u64,
    /// How long the accepted ones took.
    pub(super) took: Histogram,
    /// For how long the load went on.
    pub(super) lasted: Duration,
}

impl Outcome {
    /// Accepted ones a second.
    pub(super) fn rate(&self) -> f64 {
        self.accepted as f64 / self.lasted.as_secs_f64().max(f64::EPSILON)
    }

    /// Adds what came of another one: at the same time, or after it.
    pub(super) fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.took.merge(&other.took);
    }
}

/// Beats for `lasts`. The agents are shared out among the connections, so that none is spoken for twice at once
/// (but where there are fewer of them than connections).
pub(super) async fn closed(
    address: SocketAddr,
    agents: &Arc<Vec<Agent>>,
    connections: usize,
    lasts: Duration,
) -> Result<Outcome> {
    let until = clock::instant() + lasts;
    let of = |first| caller(address, Arc::clone(agents), (first, connections), until);
    together(connections, of).await
}

/// All connections at once, and what came of all of them.
pub(super) async fn together<F>(connections: usize, caller: impl Fn(usize) -> F) -> Result<Outcome>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut callers = JoinSet::new();
    let begun = clock::instant();
    for first in 0..connections {
        callers.spawn(caller(first));
    }
    let mut all = Outcome::default();
    while let Some(ended) = callers.join_next().await {
        all.merge(&ended.context("a caller ended early")?);
    }
    all.lasted = begun.elapsed();
    Ok(all)
}

/// Each agent beats a few times, so that none of what is measured afterwards is a first time.
pub(super) async fn settle(address: SocketAddr, agents: &Arc<Vec<Agent>>) -> Result<()> {
    let connections = ENROLLING.min(agents.len());
    let mut callers = JoinSet::new();
    for first in 0..connections {
        let agents = Arc::clone(agents);
        callers.spawn(async move {
            let (mut connection, mut said) = (Connection::to(address), Vec::with_capacity(512));
            for number in 0..SETTLING {
                for agent in agents.iter().skip(first).step_by(connections) {
                    agent.beat(number as u32, &mut said);
                    let status = connection.call(&said).await.context("settle")?.status;
                    ensure!(status == 200, "a first heartbeat was answered {status}");
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.context("a caller ended early")??;
    }
    Ok(())
}

async fn caller(
    address: SocketAddr,
    agents: Arc<Vec<Agent>>,
    (first, step): (usize, usize),
    until: Instant,
) -> Outcome {
    let (mut connection, mut said) = (Connection::to(address), Vec::with_capacity(512));
    let mut outcome = Outcome::default();
    let (mut at, mut number) = (first % agents.len(), 0_u32);
    let mut begun = clock::instant();
    while begun < until {
        agents[at].beat(number, &mut said);
        let status = connection.call(&said).await.map(|answer| answer.status);
        let ended = clock::instant();
        match status {
            Ok(200) => {
                outcome.accepted += 1;
                outcome.took.add(ended - begun);
            }
            Ok(_) => outcome.refused += 1,
            Err(_) => {
                outcome.failed += 1;
                clock::pause(BACK_OFF).await;
            }
        }
        (at, number) = (at + step, number + 1);
        if at >= agents.len() {
            at = first % agents.len();
        }
        begun = clock::instant();
    }
    outcome
}
