//! Briefings: what agents are told after a restart.
//!
//! A generation that follows another one is noted in the transaction that plans it, with the end of the session
//! before it as it was known then. When its agent is online it is told, once. Being told late is worth nothing,
//! and being told twice may cost a turn: so whoever tells takes the note away first, and what is not told within
//! its budget is forgotten. A server that dies before loses nothing; one that dies while it tells loses that one.

mod reconcile;
mod store;

use ligand_domain::converge::Cause;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;

pub use self::reconcile::BriefingReconciler;
use crate::db::Tx;
use crate::workspaces::Workspace;

type Done<T = ()> = Result<T, sqlx::Error>;

/// A restart that an agent is to be told of.
struct Briefing {
    workspace: WorkspaceId,
    restarted_at: Timestamp,
    previous_end: Option<Timestamp>,
}

/// This generation is planned: its agent is told, if there was one before or somebody asked for the restart.
pub(crate) async fn expect(
    tx: &mut Tx,
    workspace: &Workspace,
    generation: Generation,
    cause: &Cause,
    now: Timestamp,
) -> Done {
    let followed = workspace.current > Generation::NONE;
    let asked_for = workspace.restart_due() && *cause != Cause::First;
    if !followed && !asked_for {
        return Ok(());
    }
    let previous_end = workspace.agent.last_heartbeat_at.filter(|_| followed);
    store::expect(tx, (workspace.id, generation), now, previous_end).await
}
