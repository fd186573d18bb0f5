//! How workspaces stand, asked for one by one as anybody may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use ligand_domain::time::Timestamp;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::agents::{self, Agent};
use super::http::{Connection, request};

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Those that are online.
    pub(super) online: u64,
    /// Those whose status has changed since: they were taken for dead in between.
    pub(super) changed: u64,
    /// Those that are beyond their first generation.
    pub(super) replaced: u64,
}

/// The part of a workspace that counts here.
#[derive(Deserialize)]
struct Stands {
    status: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    since: String,
}

impl Survey {
    fn count(&mut self, stands: &Stands, since: Timestamp) {
        self.online += u64::from(stands.status == "online");
        let changed = Timestamp::parse(&stands.since).is_none_or(|at| at > since);
        self.changed += u64::from(changed);
        self.replaced += u64::from(stands.generation > 1);
    }
}

/// Looks at all of them.
pub(super) async fn survey(
    server: SocketAddr,
    agents: &Arc<Vec<Agent>>,
    since: Timestamp,
) -> Result<Survey> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..agents::ENROLLING {
        running.spawn(some(server, Arc::clone(agents), Arc::clone(&next), since));
    }
    let mut all = Survey::default();
    while let Some(ended) = running.join_next().await {
        let some = ended.context("a caller ended early")??;
        all.online += some.online;
        all.changed += some.changed;
        all.replaced += some.replaced;
    }
    Ok(all)
}

async fn some(
    server: SocketAddr,
    agents: Arc<Vec<Agent>>,
    next: Arc<AtomicUsize>,
    since: Timestamp,
) -> Result<Survey> {
    let (mut connection, mut survey) = (Connection::to(server), Survey::default());
    while let Some(agent) = agents.get(next.fetch_add(1, Ordering::Relaxed)) {
        let path = format!("/workspaces/{}", agent.id);
        let answer = connection.call(&request("GET", &path, None, "")).await?;
        ensure!(answer.status == 200, "a read was answered {}", answer.status);
        let stands: Stands =
            serde_json::from_slice(answer.body).context("understand a workspace")?;
        survey.count(&stands, since);
    }
    Ok(survey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_since_is_counted() {
        let mut survey = Survey::default();
        let since = Timestamp::parse("2026-01-01T00:00:10Z").unwrap();
        for (status, generation, at) in
            [("online", 1, "00:00:09"), ("online", 2, "00:00:11"), ("offline", 1, "00:00:12")]
        {
            let since_text = format!("2026-01-01T{at}Z");
            survey.count(&Stands { status: status.into(), generation, since: since_text }, since);
        }
        assert_eq!(survey, Survey { online: 2, changed: 2, replaced: 1 });
    }
}
