//! Which credentials are old.

use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::db::{Tx, on};

/// Ask for a rotation wherever the credential in use was minted by then, its agent can rotate, and no
/// rotation is on its way: at most `limit` of them, in one statement. Gives each with its serial.
pub(super) async fn rotate_old(
    tx: &mut Tx,
    minted_by: Timestamp,
    limit: i64,
) -> Result<Vec<(WorkspaceId, i64)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = on!(tx, c => sqlx::query_as(
            "UPDATE workspaces SET rotations_wanted = rotations_wanted + 1
             WHERE intent = 'running' AND rotations_wanted = rotations_done AND id IN (
                 SELECT c.workspace_id FROM credentials c
                 JOIN workspaces w ON w.id = c.workspace_id AND w.current_generation = c.generation
                 JOIN instances i ON i.workspace_id = c.workspace_id AND i.generation = c.generation
                 WHERE c.kind = 'instance' AND c.state = 'active' AND c.ended_at IS NULL AND c.created_at <= $1
                   AND i.ended_at IS NULL AND (' ' || i.features || ' ') LIKE '% rotate %'
                   AND w.intent = 'running' AND w.rotations_wanted = w.rotations_done
                 LIMIT $2)
             RETURNING id, rotations_wanted")
        .bind(minted_by.micros()).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, serial)| (WorkspaceId::from_uuid(id), serial)).collect())
}
