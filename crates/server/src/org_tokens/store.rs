//! Tokens of the organisation in the database. A secret never comes here: its hash does.

use ligand_api::token::OrgToken as View;
use ligand_domain::credential::TokenHash;
use ligand_domain::id::{OrgTokenId, WorkspaceId};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::OrgToken;
use crate::db::{Tx, list, on};

/// `last_used_at` is exact to this: not every request pays for a write.
const TOUCH_EVERY_US: i64 = 10_000_000;
/// Most tokens in a list.
const LISTED: i64 = 500;

pub(super) struct New<'a> {
    pub(super) id: OrgTokenId,
    pub(super) hash: TokenHash,
    pub(super) prefix: &'a str,
    pub(super) name: Option<String>,
    pub(super) created_by: Option<String>,
    pub(super) org_id: Option<WorkspaceId>,
    pub(super) created_at: Timestamp,
}

pub(super) async fn insert(tx: &mut Tx, new: &New<'_>) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("INSERT INTO org_tokens (id, hash, prefix, name, created_by, org_id, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(new.id.uuid()).bind(new.hash.bytes().as_slice()).bind(new.prefix).bind(&new.name)
        .bind(&new.created_by).bind(new.org_id.map(WorkspaceId::uuid)).bind(new.created_at.micros())
        .execute(c).await.map(|_| ()))
}

/// A live one, and whether it is time to note its use.
pub(super) async fn find_live(
    tx: &mut Tx,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<(OrgToken, bool)>, sqlx::Error> {
    let row: Option<(Uuid, String, Option<Uuid>, Option<i64>)> = on!(tx, c => sqlx::query_as(
            "SELECT id, prefix, org_id, last_used_at FROM org_tokens WHERE hash = $1 AND revoked_at IS NULL")
        .bind(hash.bytes().as_slice()).fetch_optional(c).await)?;
    Ok(row.map(|(id, prefix, org_id, last_used_at)| {
        let org_id = org_id.map(WorkspaceId::from_uuid);
        let unnoted = last_used_at.unwrap_or(0) <= now.micros() - TOUCH_EVERY_US;
        (OrgToken { id: OrgTokenId::from_uuid(id), prefix, org_id }, unnoted)
    }))
}

/// Those of these that are live no more.
pub(super) async fn ended(
    tx: &mut Tx,
    hashes: &[TokenHash],
) -> Result<Vec<TokenHash>, sqlx::Error> {
    let live = "SELECT 1 FROM org_tokens t WHERE t.hash = b.hash AND t.revoked_at IS NULL";
    list::without(tx, hashes, live, None).await
}

/// Note a request made with it, unless one was noted a moment ago.
pub(super) async fn touch(tx: &mut Tx, id: OrgTokenId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE org_tokens SET last_used_at = $1
            WHERE id = $2 AND COALESCE(last_used_at, 0) <= $3")
        .bind(now.micros()).bind(id.uuid()).bind(now.micros() - TOUCH_EVERY_US)
        .execute(c).await.map(|_| ()))
}

/// Note a request made with it, under the lock of its row. `false` when it is revoked.
pub(super) async fn hold(tx: &mut Tx, id: OrgTokenId, now: Timestamp) -> Result<bool, sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE org_tokens SET last_used_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|done| done.rows_affected() > 0))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    prefix: String,
    name: Option<String>,
    created_by: Option<String>,
    created_at: i64,
    last_used_at: Option<i64>,
    org_id: Option<Uuid>,
}

/// Live ones, newest first.
pub(super) async fn list(tx: &mut Tx) -> Result<Vec<View>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(
            "SELECT id, prefix, name, created_by, created_at, last_used_at, org_id FROM org_tokens
             WHERE revoked_at IS NULL ORDER BY created_at DESC, id LIMIT $1")
        .bind(LISTED).fetch_all(c).await)?;
    let view = |row: Row| View {
        id: row.id,
        prefix: row.prefix,
        name: row.name,
        created_by: row.created_by,
        created_at: Timestamp::from_micros(row.created_at).to_string(),
        last_used_at: row.last_used_at.map(|at| Timestamp::from_micros(at).to_string()),
        org_id: row.org_id.map(|id| WorkspaceId::from_uuid(id).to_string()),
    };
    Ok(rows.into_iter().map(view).collect())
}

/// End one. `false` where none was live.
pub(super) async fn revoke(
    tx: &mut Tx,
    id: OrgTokenId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE org_tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|done| done.rows_affected() > 0))
}
