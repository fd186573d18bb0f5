//! What callers see and end of a workspace's credentials.

use ligand_api::token::WorkspaceToken;
use ligand_domain::id::{CredentialId, WorkspaceId};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::db::{Tx, on};

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    prefix: String,
    kind: String,
    created_at: i64,
    last_used_at: Option<i64>,
}

/// Which part of a list.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    pub(crate) limit: i64,
    pub(crate) offset: i64,
}

/// Live ones, newest first.
pub(crate) async fn list(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
    page: Page,
) -> Result<Vec<WorkspaceToken>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(
            "SELECT id, prefix, kind, created_at, last_used_at FROM credentials
             WHERE workspace_id = $1 AND ended_at IS NULL
               AND (state <> 'pending' OR lapses_at IS NULL OR lapses_at > $2)
             ORDER BY created_at DESC, id LIMIT $3 OFFSET $4")
        .bind(workspace.uuid()).bind(now.micros()).bind(page.limit).bind(page.offset)
        .fetch_all(c).await)?;
    let view = |row: Row| WorkspaceToken {
        id: row.id,
        prefix: row.prefix,
        kind: row.kind,
        created_at: Timestamp::from_micros(row.created_at).to_string(),
        last_used_at: row.last_used_at.map(|at| Timestamp::from_micros(at).to_string()),
    };
    Ok(rows.into_iter().map(view).collect())
}

/// End one of a workspace's, and with an instance's what was minted for callers by its generation. `false` where
/// none was live.
pub(crate) async fn revoke(
    tx: &mut Tx,
    workspace: WorkspaceId,
    id: CredentialId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'revoked', ended_at = $1
            WHERE workspace_id = $3 AND ended_at IS NULL
                AND (id = $2 OR kind = 'api' AND generation = (SELECT generation FROM credentials
                    WHERE id = $2 AND workspace_id = $3 AND kind = 'instance' AND ended_at IS NULL))")
        .bind(now.micros()).bind(id.uuid()).bind(workspace.uuid())
        .execute(c).await.map(|done| done.rows_affected() > 0))
}
