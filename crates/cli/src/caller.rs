//! A caller that goes on sending turns, each under a name of its own, and each until it has an answer, or a promise of
//! one. Drills and measurements count by it what was lost, and what ran twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock;

/// How long a caller goes on asking about one turn.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after an answer that is none it asks again.
const AGAIN: Duration = Duration::from_millis(50);

/// Where turns go.
#[derive(Clone)]
pub(crate) struct To {
    pub(crate) http: reqwest::Client,
    /// `http://host:port/workspaces/ID/a2a`.
    pub(crate) url: String,
    pub(crate) bearer: String,
    /// How long each turn takes, in ms.
    pub(crate) lasts: u64,
}

/// What became of one turn, as its caller knows it.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) name: String,
    /// Until it was answered, or accepted for later.
    pub(crate) took: Duration,
    /// Under which id the ledger has it, where it was accepted for later.
    pub(crate) queued: Option<String>,
    /// It was neither answered nor accepted in time; the last thing that was said.
    pub(crate) unanswered: Option<String>,
    /// Its sender was told that it was interrupted: it may have run.
    pub(crate) interrupted: bool,
}

/// See the module. Dropping it ends it.
pub(crate) struct Caller {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<Vec<Turn>>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl Caller {
    /// Begin: a turn each `pace`, whether the one before it was answered or not. `name` tells its turns from those of
    /// others.
    #[expect(clippy::disallowed_methods, reason = "it lives as long as its holder, who aborts it")]
    pub(crate) fn begin(to: To, name: String, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(send(to, name, pace, Arc::clone(&stop)));
        Self { stop, sending }
    }

    /// Send no further one, wait for those that are under way, and tell of all.
    pub(crate) async fn end(mut self) -> anyhow::Result<Vec<Turn>> {
        self.stop.store(true, Ordering::SeqCst);
        (&mut self.sending).await.context("the caller ended early")
    }
}

async fn send(to: To, name: String, pace: Duration, stop: Arc<AtomicBool>) -> Vec<Turn> {
    let mut under_way = JoinSet::new();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        under_way.spawn(turn(to.clone(), format!("{name}-{number}")));
        clock::pause(pace).await;
    }
    under_way.join_all().await
}

async fn turn(to: To, name: String) -> Turn {
    let begun = clock::instant();
    let mut turn =
        Turn { name, took: Duration::ZERO, queued: None, unanswered: None, interrupted: false };
    while begun.elapsed() < PATIENCE {
        let sent = to.once(&turn.name).await;
        turn.took = begun.elapsed();
        match sent {
            Ok(Sent::Answered) => return Turn { unanswered: None, ..turn },
            Ok(Sent::Accepted(queued)) => {
                return Turn { unanswered: None, queued: Some(queued), ..turn };
            }
            Ok(Sent::Interrupted) => return Turn { unanswered: None, interrupted: true, ..turn },
            Ok(Sent::Refused(why)) => turn.unanswered = Some(why),
            // The server is away: nothing was promised, and the same message is sent again.
            Err(_) => turn.unanswered = Some("nobody answered".to_owned()),
        }
        clock::pause(AGAIN).await;
    }
    turn
}

/// How a turn was answered.
enum Sent {
    /// With its answer.
    Answered,
    /// With its id in the ledger: its answer comes later.
    Accepted(String),
    /// Its agent was ended amid it, and says so.
    Interrupted,
    /// With anything else.
    Refused(String),
}

impl To {
    /// Send it, and wait a while for its answer. Sent again it is the same one.
    async fn once(&self, name: &str) -> anyhow::Result<Sent> {
        let message = json!({
            "messageId": name, "role": "user", "parts": [{"kind": "text", "text": name}],
            "metadata": {"ligand_echo_delay_ms": self.lasts},
        });
        let params = json!({ "message": message });
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params});
        let request = self.http.post(&self.url).json(&body);
        let request = request.bearer_auth(&self.bearer).header("prefer", "wait=15");
        let answer = request.send().await.context("send a turn")?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.context("read the answer to a turn")?;
        Ok(match (status, body["queue_id"].as_str()) {
            (200, _) if body["result"].is_object() => Sent::Answered,
            (202, Some(queued)) => Sent::Accepted(queued.to_owned()),
            (409, _) => Sent::Interrupted,
            _ => Sent::Refused(format!("{status} {body}")),
        })
    }
}

/// How often each turn ran, by the file in which the built-in agent counts them.
pub(crate) fn effects(file: &Path) -> BTreeMap<String, usize> {
    let mut ran = BTreeMap::new();
    for line in fs::read_to_string(file).unwrap_or_default().lines() {
        *ran.entry(line.to_owned()).or_default() += 1;
    }
    ran
}
