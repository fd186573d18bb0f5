//! Activity in the database.

use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::New;
use crate::db::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// Take the next number of a workspace; nobody else gets one until the commit. `None`: there is no such workspace.
pub(super) async fn take_number(tx: &mut Tx, workspace: WorkspaceId) -> Done<Option<i64>> {
    on!(tx, c => sqlx::query_scalar("INSERT INTO activity_heads (workspace_id, last) SELECT id, 1 FROM workspaces WHERE id = $1
            ON CONFLICT (workspace_id) DO UPDATE SET last = activity_heads.last + 1 RETURNING last")
        .bind(workspace.uuid()).fetch_optional(c).await)
}

/// The one that was logged under this key.
pub(super) async fn by_key(tx: &mut Tx, workspace: WorkspaceId, key: &str) -> Done<Option<Uuid>> {
    on!(tx, c => sqlx::query_scalar("SELECT id FROM activity WHERE workspace_id = $1 AND idempotency_key = $2")
        .bind(workspace.uuid()).bind(key).fetch_optional(c).await)
}

pub(super) async fn insert(
    tx: &mut Tx,
    (id, number): (Uuid, i64),
    new: &New,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO activity (id, workspace_id, number, at, activity_type, source_id, target_id,
            method, summary, request_body, response_body, tool_trace, duration_ms, status, error_detail, idempotency_key)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)")
        .bind(id).bind(new.workspace.uuid()).bind(number).bind(now.micros()).bind(&new.kind)
        .bind(new.source.map(WorkspaceId::uuid)).bind(new.target.map(WorkspaceId::uuid))
        .bind(&new.method).bind(&new.summary).bind(&new.request).bind(&new.response).bind(&new.tool_trace)
        .bind(new.duration_ms).bind(&new.status).bind(&new.error_detail).bind(&new.key)
        .execute(c).await.map(|_| ()))
}

/// What became of it since.
pub(super) async fn restate(
    tx: &mut Tx,
    id: Uuid,
    status: &str,
    error_detail: Option<&str>,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE activity SET status = $1, error_detail = $2 WHERE id = $3")
        .bind(status).bind(error_detail).bind(id).execute(c).await.map(|_| ()))
}

/// The number of one of a workspace's own.
pub(super) async fn number_of(tx: &mut Tx, workspace: WorkspaceId, id: Uuid) -> Done<Option<i64>> {
    on!(tx, c => sqlx::query_scalar("SELECT number FROM activity WHERE workspace_id = $1 AND id = $2")
        .bind(workspace.uuid()).bind(id).fetch_optional(c).await)
}

/// Which of a workspace's are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) kind: Option<String>,
    /// `canvas`: of nobody in particular; `agent`: of a workspace.
    pub(super) source: Option<&'static str>,
    pub(super) peer: Option<Uuid>,
    /// From before then.
    pub(super) before: Option<Timestamp>,
    /// After this number, and then oldest first.
    pub(super) after: Option<i64>,
    pub(super) limit: i64,
}

/// One, with what is known of the workspace that it came from.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) workspace_id: Uuid,
    pub(super) at: i64,
    pub(super) activity_type: String,
    pub(super) source_id: Option<Uuid>,
    pub(super) target_id: Option<Uuid>,
    pub(super) method: Option<String>,
    pub(super) summary: Option<String>,
    pub(super) request_body: Option<String>,
    pub(super) response_body: Option<String>,
    pub(super) tool_trace: Option<String>,
    pub(super) duration_ms: Option<i64>,
    pub(super) status: String,
    pub(super) error_detail: Option<String>,
    pub(super) peer_name: Option<String>,
    pub(super) peer_role: Option<String>,
}

macro_rules! listed {
    ($order:literal) => {
        concat!(
            "SELECT a.id, a.workspace_id, a.at, a.activity_type, a.source_id, a.target_id, a.method, a.summary, a.request_body,
                a.response_body, a.tool_trace, a.duration_ms, a.status, a.error_detail, p.name AS peer_name, p.role AS peer_role
             FROM activity a LEFT JOIN workspaces p ON p.id = a.source_id
             WHERE a.workspace_id = $1 AND a.number > $2 AND a.at < $3
               AND ($4 IS NULL OR a.activity_type = $4)
               AND ($5 IS NULL OR ($5 = 'canvas' AND a.source_id IS NULL) OR ($5 = 'agent' AND a.source_id IS NOT NULL))
               AND ($6 IS NULL OR a.source_id = $6 OR a.target_id = $6)
             ORDER BY a.number ",
            $order,
            " LIMIT $7"
        )
    };
}

/// Newest first; after a number, oldest first, so that whoever goes on from the last one misses none.
pub(super) async fn list(tx: &mut Tx, workspace: WorkspaceId, wanted: &Wanted) -> Done<Vec<Row>> {
    let text = if wanted.after.is_some() { listed!("ASC") } else { listed!("DESC") };
    let before = wanted.before.unwrap_or(Timestamp::NEVER);
    on!(tx, c => sqlx::query_as(text)
        .bind(workspace.uuid()).bind(wanted.after.unwrap_or(0)).bind(before.micros()).bind(&wanted.kind)
        .bind(wanted.source).bind(wanted.peer).bind(wanted.limit).fetch_all(c).await)
}

/// What stands for a text in a pattern.
fn literally(text: &str) -> String {
    let escape = |c| matches!(c, '%' | '_' | '!').then_some('!').into_iter().chain([c]);
    let escaped: String = text.chars().flat_map(escape).collect();
    format!("%{escaped}%")
}

/// The newest that have this text somewhere, in letters of any size. SQLite knows of no sizes but those of a to z.
pub(super) async fn search(
    tx: &mut Tx,
    workspace: WorkspaceId,
    text: &str,
    limit: i64,
) -> Done<Vec<Row>> {
    let (small, simple) = (literally(&text.to_lowercase()), literally(&text.to_ascii_lowercase()));
    on!(tx, c => sqlx::query_as("SELECT id, workspace_id, at, activity_type, source_id, target_id, method, summary, request_body,
                response_body, tool_trace, duration_ms, status, error_detail, NULL AS peer_name, NULL AS peer_role
            FROM (SELECT *, LOWER(COALESCE(summary, '') || ' ' || activity_type || ' ' || COALESCE(method, '') || ' ' || status
                    || ' ' || COALESCE(request_body, '') || ' ' || COALESCE(response_body, '')) AS said
                FROM activity WHERE workspace_id = $1) searched
            WHERE said LIKE $2 ESCAPE '!' OR said LIKE $3 ESCAPE '!' ORDER BY number DESC LIMIT $4")
        .bind(workspace.uuid()).bind(small).bind(simple).bind(limit).fetch_all(c).await)
}

/// Take away what is from before `at`, at most `limit`. Gives how many.
pub(super) async fn forget(tx: &mut Tx, at: Timestamp, limit: i64) -> Done<u64> {
    on!(tx, c => sqlx::query("DELETE FROM activity WHERE id IN (SELECT id FROM activity WHERE at < $1 ORDER BY at LIMIT $2)")
        .bind(at.micros()).bind(limit).execute(c).await.map(|done| done.rows_affected()))
}
