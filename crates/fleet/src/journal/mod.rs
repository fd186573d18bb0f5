//! Decisions of the fleet, written with what they change.

pub(crate) mod http;
mod store;

use ligand_domain::id::WorkspaceId;
use ligand_server::db::Tx;

use crate::app::Fleet;

/// What a decision is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About<'a> {
    /// Whose.
    pub(crate) org: Option<&'a str>,
    /// Which workspace.
    pub(crate) workspace: Option<WorkspaceId>,
    /// Which instance.
    pub(crate) instance: Option<&'a str>,
}

/// Note a decision with the transaction that carries it out. The words never hold a secret.
pub(crate) async fn note(
    fleet: &Fleet,
    tx: &mut Tx,
    about: About<'_>,
    kind: &'static str,
    what: &str,
) -> Result<(), sqlx::Error> {
    let id = fleet.ids.event().uuid();
    store::insert(tx, id, fleet.clock.now(), about, (kind, what)).await
}

/// Forget what is older than is kept. Gives how much it was.
pub(crate) async fn forget(fleet: &Fleet, kept: std::time::Duration) -> Result<u64, sqlx::Error> {
    let mut tx = fleet.db.begin().await?;
    let gone = store::forget(&mut tx, fleet.clock.now().before(kept)).await?;
    tx.commit().await?;
    Ok(gone)
}
