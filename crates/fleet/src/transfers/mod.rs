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

/// Many workspaces on their way.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    id: Uuid,
    from: String,
    to: String,
    concurrency: i64,
    stop_after: i64,
    state: String,
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
