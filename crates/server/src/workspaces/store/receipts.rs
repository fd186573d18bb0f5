//! What instances proved of their secrets, and who has to load them anew.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::secrets::Receipt;
use ligand_domain::time::Timestamp;

use super::Done;
use crate::db::{Tx, on};

/// What an instance has shown.
pub(crate) async fn set_receipt(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    receipt: Receipt,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET receipt = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(receipt.as_str()).bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))
}

/// What its current instance does not hold. Nobody answers for it meanwhile.
pub(crate) async fn note_unproven(tx: &mut Tx, id: WorkspaceId, error: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_error = $1, url = '' WHERE id = $2")
        .bind(error).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Something that its instance has loaded was changed: restart it, whatever failed before. `false`: no backend runs
/// it, or it is removed.
pub(crate) async fn want_reload(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET restarts_wanted = restarts_wanted + 1, failures = 0,
            failures_since = 0, next_attempt_at = NULL, updated_at = $1,
            due_at = CASE WHEN due_at > $1 THEN $1 ELSE due_at END
            WHERE id = $2 AND backend IS NOT NULL AND status <> 'removed'")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|done| done.rows_affected() == 1))
}
