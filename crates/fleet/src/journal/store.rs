//! Decisions in the database.

use ligand_api::fleet::Decision;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use ligand_server::db::{Tx, on};
use uuid::Uuid;

use super::About;

type Done<T = ()> = Result<T, sqlx::Error>;

pub(super) async fn insert(
    tx: &mut Tx,
    id: Uuid,
    at: Timestamp,
    about: About<'_>,
    (kind, what): (&str, &str),
) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO journal (id, at, org_id, workspace_id, instance_id, kind, what)
            VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(id).bind(at.micros()).bind(about.org).bind(about.workspace.map(WorkspaceId::uuid))
        .bind(about.instance).bind(kind).bind(what).execute(c).await.map(|_| ()))
}

#[derive(sqlx::FromRow)]
struct Row {
    at: i64,
    org_id: Option<String>,
    workspace_id: Option<Uuid>,
    instance_id: Option<String>,
    kind: String,
    what: String,
}

/// The newest first.
pub(super) async fn newest(
    tx: &mut Tx,
    workspace: Option<WorkspaceId>,
    most: i64,
) -> Done<Vec<Decision>> {
    let rows: Vec<Row> = match workspace {
        Some(workspace) => {
            on!(tx, c => sqlx::query_as("SELECT at, org_id, workspace_id, instance_id, kind, what FROM journal
                    WHERE workspace_id = $1 ORDER BY at DESC, id LIMIT $2")
                .bind(workspace.uuid()).bind(most).fetch_all(c).await)?
        }
        None => {
            on!(tx, c => sqlx::query_as("SELECT at, org_id, workspace_id, instance_id, kind, what FROM journal
                    ORDER BY at DESC, id LIMIT $1").bind(most).fetch_all(c).await)?
        }
    };
    let of = |row: Row| Decision {
        at: Timestamp::from_micros(row.at).to_string(),
        org_id: row.org_id,
        workspace_id: row.workspace_id,
        instance_id: row.instance_id,
        kind: row.kind,
        what: row.what,
    };
    Ok(rows.into_iter().map(of).collect())
}

pub(super) async fn forget(tx: &mut Tx, before: Timestamp) -> Done<u64> {
    on!(tx, c => sqlx::query("DELETE FROM journal WHERE at < $1")
        .bind(before.micros()).execute(c).await.map(|done| done.rows_affected()))
}
