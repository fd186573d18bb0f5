//! Workspaces on their way from one provider to another.
//!
//! The platform moves its workspaces itself: the fleet asks it to, by the name that it has for the provider, and
//! follows what it says. Secrets, turns and queues never pass through here. One workspace is a transfer of one.

pub(crate) mod http;
mod reconcile;
mod store;

use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

pub use reconcile::TransferReconciler;

/// Where a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Nothing further is begun, as somebody asked for.
    Paused,
    /// Nothing further is begun: too many failed.
    Stopped,
    /// Nothing further is begun, and what can still be undone is.
    Aborted,
    Done,
}

impl State {
    const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Stopped, Self::Aborted, Self::Done];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Aborted => "aborted",
            Self::Done => "done",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// Many workspaces on their way.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    id: Uuid,
    from: String,
    to: String,
    concurrency: i64,
    stop_after: i64,
    /// Failures that a person has seen, and went on all the same.
    forgiven: i64,
    state: State,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    workspace: WorkspaceId,
    org: String,
    state: String,
    migration: Option<String>,
    phase: Option<String>,
    cause: Option<String>,
    attempts: i64,
}
