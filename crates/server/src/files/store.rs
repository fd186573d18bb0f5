//! Restarts that written files ask for.

use ligand_domain::files::restart_at;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::db::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// A write asks for a restart.
pub(super) async fn ask(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    // The row is there and locked before it is read: two writes at once ask for one restart.
    let (due, last): (Option<i64>, Option<i64>) = on!(tx, c => sqlx::query_as(
            "INSERT INTO file_restarts (workspace_id) VALUES ($1)
             ON CONFLICT (workspace_id) DO UPDATE SET due_at = file_restarts.due_at
             RETURNING due_at, restarted_at")
        .bind(id.uuid()).fetch_one(c).await)?;
    let at = restart_at(now, due.map(Timestamp::from_micros), last.map(Timestamp::from_micros));
    on!(tx, c => sqlx::query("UPDATE file_restarts SET due_at = $1 WHERE workspace_id = $2")
        .bind(at.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Take one that is due. The outer condition repeats the inner one, or two replicas could take the same.
pub(super) async fn take(tx: &mut Tx, now: Timestamp) -> Done<Option<WorkspaceId>> {
    let id: Option<Uuid> = on!(tx, c => sqlx::query_scalar(
            "UPDATE file_restarts SET due_at = NULL, restarted_at = $1
             WHERE due_at <= $1 AND workspace_id = (
                SELECT workspace_id FROM file_restarts WHERE due_at <= $1 ORDER BY due_at LIMIT 1)
             RETURNING workspace_id")
        .bind(now.micros()).fetch_optional(c).await)?;
    Ok(id.map(WorkspaceId::from_uuid))
}

/// When the next is due.
pub(super) async fn next_due(tx: &mut Tx) -> Done<Option<Timestamp>> {
    let due: Option<i64> = on!(tx, c => sqlx::query_scalar(
            "SELECT MIN(due_at) FROM file_restarts WHERE due_at IS NOT NULL").fetch_one(c).await)?;
    Ok(due.map(Timestamp::from_micros))
}
