//! Agents that are to be told, in the database.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::{Briefing, Done};
use crate::db::{Tx, on};

/// There is one at most for a workspace: the newest start's. Its workspace is locked.
pub(super) async fn expect(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    now: Timestamp,
    previous_end: Option<Timestamp>,
) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM briefings WHERE workspace_id = $1")
        .bind(of.0.uuid()).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("INSERT INTO briefings (workspace_id, generation, restarted_at, previous_end)
            VALUES ($1, $2, $3, $4)")
        .bind(of.0.uuid()).bind(of.1.number()).bind(now.micros()).bind(previous_end.map(Timestamp::micros))
        .execute(c).await.map(|_| ()))
}

/// Workspaces whose new agent was admitted: each is told as soon as it is online, or it is too late.
pub(super) async fn admitted(tx: &mut Tx, limit: i64) -> Done<Vec<(WorkspaceId, bool, Timestamp)>> {
    let rows: Vec<(Uuid, bool, i64)> = on!(tx, c => sqlx::query_as("SELECT b.workspace_id,
            w.status = 'online' AND w.intent = 'running' AND w.restarts_wanted = w.restarts_loaded,
            COALESCE(i.registered_at, i.created_at)
            FROM briefings b JOIN workspaces w ON w.id = b.workspace_id
            JOIN instances i ON i.workspace_id = w.id AND i.generation = w.current_generation
            WHERE b.generation <= w.current_generation AND w.current_generation = w.newest_generation
            ORDER BY 3, 1 LIMIT $1")
        .bind(limit).fetch_all(c).await)?;
    let row = |(id, online, at)| (WorkspaceId::from_uuid(id), online, Timestamp::from_micros(at));
    Ok(rows.into_iter().map(row).collect())
}

/// Take it away, to tell it or to forget it. `None`: somebody else did.
pub(super) async fn take(tx: &mut Tx, workspace: WorkspaceId) -> Done<Option<Briefing>> {
    let row: Option<(i64, Option<i64>)> = on!(tx, c => sqlx::query_as(
            "DELETE FROM briefings WHERE workspace_id = $1 RETURNING restarted_at, previous_end")
        .bind(workspace.uuid()).fetch_optional(c).await)?;
    Ok(row.map(|(restarted_at, previous_end)| Briefing {
        workspace,
        restarted_at: Timestamp::from_micros(restarted_at),
        previous_end: previous_end.map(Timestamp::from_micros),
    }))
}
