//! What admissions leave in a workspace's row.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;

use super::Done;
use crate::db::{Tx, on};

/// What was minted for the registration that it was opened for is in use.
pub(crate) async fn close_bootstrap(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET bootstrap_until = NULL WHERE id = $1")
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Its credentials were revoked: it may be taken up once without one until this time.
pub(crate) async fn revoked(
    tx: &mut Tx,
    id: WorkspaceId,
    now: Timestamp,
    open_until: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET revoked_at = $1, bootstrap_until = $2 WHERE id = $3 AND status <> 'removed'")
        .bind(now.micros()).bind(open_until.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// The migration whose candidate this was is over.
pub(crate) async fn clear_candidate(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET candidate_generation = NULL WHERE id = $1")
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// A migration brings up this generation.
pub(crate) async fn set_candidate(tx: &mut Tx, id: WorkspaceId, candidate: Generation) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET candidate_generation = $1 WHERE id = $2")
        .bind(candidate.number()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// It is run elsewhere now: by this backend, at this address, in a generation that has loaded so many restarts.
pub(crate) async fn place(
    tx: &mut Tx,
    id: WorkspaceId,
    (backend, url): (&str, &str),
    loaded: i64,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET backend = $1, url = $2,
            restarts_loaded = CASE WHEN $3 > restarts_loaded THEN $3 ELSE restarts_loaded END,
            failures = 0, failures_since = 0, last_error = NULL, next_attempt_at = NULL, register_failed_at = NULL
            WHERE id = $4")
        .bind(backend).bind(url).bind(loaded).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Workspaces that are placed on a backend and not removed, oldest first.
pub(crate) async fn placed_on(tx: &mut Tx, backend: &str) -> Done<Vec<(WorkspaceId, String)>> {
    let rows: Vec<(uuid::Uuid, String)> = on!(tx, c => sqlx::query_as(
            "SELECT id, name FROM workspaces WHERE backend = $1 AND status <> 'removed' ORDER BY created_at, id")
        .bind(backend).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, name)| (WorkspaceId::from_uuid(id), name)).collect())
}

/// Ask for one more rotation. Gives its serial.
pub(crate) async fn count_rotation(tx: &mut Tx, id: WorkspaceId) -> Done<i64> {
    on!(tx, c => sqlx::query_scalar("UPDATE workspaces SET rotations_wanted = rotations_wanted + 1
            WHERE id = $1 RETURNING rotations_wanted")
        .bind(id.uuid()).fetch_one(c).await)
}

/// A credential that satisfies rotations up to this one is in use.
pub(crate) async fn rotated(tx: &mut Tx, id: WorkspaceId, serial: i64) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET rotations_done = $1 WHERE id = $2 AND rotations_done < $1")
        .bind(serial).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// A call was refused. A register is remembered, and where the workspace only waits for its agent, `shown`
/// says so. The statement is the same where there is no such workspace.
pub(crate) async fn note_refused(
    tx: &mut Tx,
    id: WorkspaceId,
    registers: bool,
    why: &str,
    shown: &str,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET refused_at = $1, refused_why = $2,
                last_error = CASE WHEN backend IS NULL AND status = 'awaiting_agent' THEN $3 ELSE last_error END
            WHERE id = $4 AND status <> 'removed' AND $5")
        .bind(now.micros()).bind(why).bind(shown).bind(id.uuid()).bind(registers)
        .execute(c).await.map(|_| ()))
}
