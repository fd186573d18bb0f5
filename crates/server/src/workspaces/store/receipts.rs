//! What instances proved of their secrets.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::secrets::Receipt;

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
