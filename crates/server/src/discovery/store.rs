//! Peers in the database.

use ligand_api::registry::Peer;
use ligand_domain::id::WorkspaceId;
use uuid::Uuid;

use crate::db::{Tx, on};

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    name: String,
    role: Option<String>,
    tier: i64,
    status: String,
    url: String,
    parent_id: Option<Uuid>,
    active_tasks: i64,
    agent_card: Option<String>,
}

/// Siblings, children and the parent of a workspace, in this order; `None` where there is no such workspace.
/// The siblings of a root are the other roots.
pub(super) async fn peers(tx: &mut Tx, of: WorkspaceId) -> Result<Option<Vec<Peer>>, sqlx::Error> {
    let parent: Option<(Option<Uuid>,)> = on!(&mut *tx, c => sqlx::query_as("SELECT parent_id FROM workspaces WHERE id = $1")
        .bind(of.uuid()).fetch_optional(c).await)?;
    let Some((parent,)) = parent else { return Ok(None) };
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(
            "SELECT id, name, role, tier, status, url, parent_id, active_tasks, agent_card FROM workspaces
             WHERE id <> $1 AND status <> 'removed'
               AND (parent_id = $1 OR id = $2 OR parent_id = $2 OR ($2 IS NULL AND parent_id IS NULL))
             ORDER BY CASE WHEN parent_id = $1 THEN 1 WHEN id = $2 THEN 2 ELSE 0 END, created_at, id")
        .bind(of.uuid()).bind(parent).fetch_all(c).await)?;
    Ok(Some(rows.into_iter().map(Peer::from).collect()))
}

impl From<Row> for Peer {
    fn from(row: Row) -> Self {
        let card = row.agent_card.as_deref().and_then(|card| serde_json::from_str(card).ok());
        Self {
            id: row.id,
            name: row.name,
            role: row.role.filter(|role| !role.is_empty()),
            tier: row.tier,
            status: row.status,
            url: row.url,
            parent_id: row.parent_id,
            active_tasks: row.active_tasks,
            agent_card: card,
        }
    }
}
