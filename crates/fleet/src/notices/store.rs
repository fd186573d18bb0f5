//! What is to be told, in the database.

use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use ligand_server::db::{Tx, on};
use uuid::Uuid;

use super::Notice;

type Done<T = ()> = Result<T, sqlx::Error>;

pub(super) async fn insert(tx: &mut Tx, new: &Notice) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO notices (id, org_id, workspace_id, provider, error, attempts, due_at, created_at)
            VALUES ($1, $2, $3, $4, $5, 0, $6, $6)")
        .bind(new.id).bind(&new.org).bind(new.workspace.uuid()).bind(&new.provider).bind(&new.error)
        .bind(new.created_at.micros()).execute(c).await.map(|_| ()))
}

/// Take one that is due: nobody else does until then.
pub(super) async fn take(tx: &mut Tx, now: Timestamp, until: Timestamp) -> Done<Option<Notice>> {
    let row: Option<(Uuid, String, Uuid, String, String, i64, i64)> = on!(tx, c => sqlx::query_as(
            "UPDATE notices SET due_at = $1, attempts = attempts + 1
             WHERE id = (SELECT id FROM notices WHERE due_at <= $2 ORDER BY due_at, id LIMIT 1) AND due_at <= $2
             RETURNING id, org_id, workspace_id, provider, error, attempts, created_at")
        .bind(until.micros()).bind(now.micros()).fetch_optional(c).await)?;
    Ok(row.map(|(id, org, workspace, provider, error, attempts, created_at)| Notice {
        id,
        org,
        workspace: WorkspaceId::from_uuid(workspace),
        provider,
        error,
        attempts,
        created_at: Timestamp::from_micros(created_at),
    }))
}

pub(super) async fn failed(tx: &mut Tx, id: Uuid, why: &str, due: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE notices SET last_error = $1, due_at = $2 WHERE id = $3")
        .bind(why).bind(due.micros()).bind(id).execute(c).await.map(|_| ()))
}

pub(super) async fn remove(tx: &mut Tx, id: Uuid) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM notices WHERE id = $1").bind(id).execute(c).await.map(|_| ()))
}
