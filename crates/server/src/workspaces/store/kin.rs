//! Where many workspaces stand in the hierarchy.

use std::collections::BTreeMap;

use ligand_domain::access::{Lineage, MAX_HOPS};
use ligand_domain::id::WorkspaceId;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::Done;
use crate::db::{Tx, list, on};

/// Those of these workspaces that there are, each with its ancestors, nearest first.
pub(crate) async fn lineages(
    tx: &mut Tx,
    ids: &[WorkspaceId],
) -> Done<BTreeMap<WorkspaceId, Lineage>> {
    let hops = i64::try_from(MAX_HOPS).unwrap_or(i64::MAX);
    let mut lines = BTreeMap::new();
    for some in ids.chunks(list::MOST) {
        let text = format!(
            "WITH RECURSIVE b (id) AS (VALUES {}), line (root, id, parent_id, hops) AS (
                SELECT w.id, w.id, w.parent_id, CAST(0 AS BIGINT) FROM workspaces w WHERE w.id IN (SELECT b.id FROM b)
                UNION ALL
                SELECT line.root, w.id, w.parent_id, line.hops + 1 FROM line JOIN workspaces w ON w.id = line.parent_id
                WHERE line.hops < $1)
             SELECT root, id FROM line ORDER BY root, hops",
            list::rows(2, some.len())
        );
        let rows: Vec<(Uuid, Uuid)> = on!(&mut *tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(text)).bind(hops);
            for id in list::members(some) {
                query = query.bind(id.uuid());
            }
            query.fetch_all(c).await
        })?;
        for (root, id) in rows {
            let (root, id) = (WorkspaceId::from_uuid(root), WorkspaceId::from_uuid(id));
            let line =
                lines.entry(root).or_insert_with(|| Lineage { id: root, ancestors: Vec::new() });
            if id != root || !line.ancestors.is_empty() {
                line.ancestors.push(id);
            }
        }
    }
    Ok(lines)
}
