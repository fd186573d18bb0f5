//! What workspaces may spend, what they say that they spent, and the tokens that answers say were used. Turning away
//! who has spent too much is the message's business.

pub mod http;
mod store;

use ligand_domain::id::WorkspaceId;
use ligand_domain::spend::{Usage, day};
use ligand_domain::time::Timestamp;

use crate::app::App;
use crate::db::Tx;

/// Count what a turn used towards the day. What fails is logged and lost.
pub async fn count(app: &App, workspace: WorkspaceId, used: Usage) {
    let now = app.clock.now();
    let counted = async {
        let mut tx = app.db.begin().await?;
        count_in(&mut tx, workspace, used, now).await?;
        tx.commit().await
    };
    if let Err(cause) = counted.await {
        tracing::warn!(workspace.id = %workspace, error = %cause, "what a turn used could not be counted");
    }
}

/// [`count`], in the caller's transaction.
pub(crate) async fn count_in(
    tx: &mut Tx,
    workspace: WorkspaceId,
    used: Usage,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    store::count(tx, workspace, used, (day(now).0, now)).await
}
