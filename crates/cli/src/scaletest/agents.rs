//! Agents that exist as an id and a token: so much memory each, that a hundred thousand fit beside the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use ligand_api::registry::Registered;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::histogram::Histogram;
use super::http::{Connection, request};
use crate::clock;

/// Connections while agents are enrolled, or looked at.
pub(super) const ENROLLING: usize = 32;

/// A simulated agent. No `Debug`, so that no token is ever printed.
#[derive(Clone)]
pub(super) struct Agent {
    /// Its workspace.
    pub(super) id: Uuid,
    /// Its credential.
    pub(super) token: Box<str>,
}

impl Agent {
    /// Writes a heartbeat into a buffer. What is said differs from beat to beat, as it does with agents.
    pub(super) fn beat(&self, number: u32, into: &mut Vec<u8>) {
        use std::io::Write as _;
        let (id, token, up) = (self.id, &self.token, 1_000_000 + number % 1_000_000);
        // The id and `up` always have the same length: so has the body.
        const LENGTH: usize = r#"{"workspace_id":"","error_rate":0.0,"sample_error":"","active_tasks":0,"uptime_seconds":,"current_task":""}"#.len() + 36 + 7;
        into.clear();
        // Writing into memory does not fail.
        let _ = write!(
            into,
            "POST /registry/heartbeat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {LENGTH}\r\n\r\n{{\"workspace_id\":\"{id}\",\"error_rate\":0.0,\"sample_error\":\"\",\"active_tasks\":0,\"uptime_seconds\":{up},\"current_task\":\"\"}}"
        );
    }

    /// The register of this workspace.
    pub(super) fn register(id: Uuid, bearer: Option<&str>) -> Vec<u8> {
        let body = format!(
            r#"{{"id":"{id}","agent_card":{{"name":"scaletest"}},"delivery_mode":"poll","ligand":{{"version":"scaletest","features":["rotate"]}}}}"#
        );
        request("POST", "/registry/register", bearer, &body)
    }
}

/// The id of the `number`th agent of a measurement: spread like random ones, and the same every time.
pub(super) fn id(number: usize) -> Uuid {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let (high, low) = (mix(2 * number as u64 + 1), mix(2 * number as u64 + 2));
    let both = (u128::from(high) << 64) | u128::from(low);
    uuid::Builder::from_random_bytes(both.to_be_bytes()).into_uuid()
}

/// An id that nobody else in this run has: of a message, or of a row.
pub(super) fn fresh() -> Uuid {
    // Far from the numbers of agents.
    static NEXT: AtomicUsize = AtomicUsize::new(1 << 40);
    id(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Agents that were let in, and how long each took.
pub(super) struct Enrolled {
    /// All of them.
    pub(super) agents: Vec<Agent>,
    /// How long each register took.
    pub(super) took: Histogram,
    /// How many a second.
    pub(super) rate: f64,
}

/// Registers unknown ids, which a server with open registration answers with a credential. `from` is the
/// number of the first.
///
/// # Errors
/// With the first register that was not admitted.
pub(super) async fn enrol(
    address: SocketAddr,
    from: usize,
    count: usize,
    connections: usize,
) -> Result<Enrolled> {
    let next = Arc::new(AtomicUsize::new(from));
    let mut callers = JoinSet::new();
    let begun = clock::instant();
    for _ in 0..connections.min(count).max(1) {
        callers.spawn(register_many(address, Arc::clone(&next), from + count));
    }
    let (mut agents, mut took) = (Vec::with_capacity(count), Histogram::default());
    while let Some(ended) = callers.join_next().await {
        let (some, times) = ended.context("a caller ended early")??;
        agents.extend(some);
        took.merge(&times);
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    Ok(Enrolled { agents, took, rate })
}

async fn register_many(
    address: SocketAddr,
    next: Arc<AtomicUsize>,
    end: usize,
) -> Result<(Vec<Agent>, Histogram)> {
    let mut connection = Connection::to(address);
    let (mut agents, mut took) = (Vec::new(), Histogram::default());
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return Ok((agents, took));
        }
        let id = id(number);
        let begun = clock::instant();
        let answer = connection.call(&Agent::register(id, None)).await.context("register")?;
        took.add(begun.elapsed());
        let (status, text) = (answer.status, String::from_utf8_lossy(answer.body));
        ensure!(status == 200, "a register was answered {status}: {text}");
        let registered: Registered =
            serde_json::from_slice(answer.body).context("understand the answer to a register")?;
        let minted = || anyhow!("a register of an unknown id minted nothing");
        agents.push(Agent { id, token: registered.auth_token.ok_or_else(minted)?.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ligand_api::registry::{Heartbeat, Register};

    #[test]
    fn what_agents_say_is_understood() {
        let agent = Agent { id: id(7), token: "t".into() };
        let mut said = Vec::new();
        for number in [0, 999_999, u32::MAX] {
            agent.beat(number, &mut said);
            let text = std::str::from_utf8(&said).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}\r\n", body.len()))
                    || head.ends_with(&format!("content-length: {}", body.len()))
            );
            assert!(head.contains("Bearer t\r\n"));
            let beat: Heartbeat = serde_json::from_str(body).unwrap();
            assert_eq!(beat.workspace_id, agent.id.to_string());
        }
        let register = String::from_utf8(Agent::register(agent.id, None)).unwrap();
        let (_, body) = register.split_once("\r\n\r\n").unwrap();
        let register: Register = serde_json::from_str(body).unwrap();
        assert_eq!(register.id, agent.id.to_string());
    }

    #[test]
    fn ids_are_of_their_own() {
        let ids: std::collections::BTreeSet<Uuid> = (0..10_000).map(id).collect();
        assert_eq!(ids.len(), 10_000);
        assert_eq!(id(3), id(3));
    }
}
