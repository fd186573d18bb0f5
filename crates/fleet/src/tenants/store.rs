//! Organisations, members and sessions in the database.

use ligand_domain::credential::TokenHash;
use ligand_domain::secrets::Stored;
use ligand_domain::time::Timestamp;
use ligand_server::db::{Tx, on};

use super::Tenant;

type Done<T = ()> = Result<T, sqlx::Error>;

#[derive(sqlx::FromRow)]
struct Row {
    org_id: String,
    slug: String,
    name: String,
    owner_user_id: String,
    platform_url: String,
    status: String,
    boot_event: Option<String>,
    admin_token: Vec<u8>,
    admin_token_version: i64,
    admin_token_hash: Vec<u8>,
    secret_hash: Option<Vec<u8>>,
    config: Vec<u8>,
    config_version: i64,
    backends: String,
    created_at: i64,
    removed_at: Option<i64>,
}

impl From<Row> for Tenant {
    fn from(row: Row) -> Self {
        Self {
            org_id: row.org_id,
            slug: row.slug,
            name: row.name,
            owner: row.owner_user_id,
            platform_url: row.platform_url,
            status: row.status,
            boot_event: row.boot_event,
            admin_token: Stored { version: row.admin_token_version, bytes: row.admin_token },
            token_hash: row.admin_token_hash,
            secret_hash: row.secret_hash,
            config: Stored { version: row.config_version, bytes: row.config },
            backends: serde_json::from_str(&row.backends).unwrap_or_default(),
            created_at: Timestamp::from_micros(row.created_at),
            removed_at: row.removed_at.map(Timestamp::from_micros),
        }
    }
}

macro_rules! read {
    ($rest:literal) => {
        concat!(
            "SELECT org_id, slug, name, owner_user_id, platform_url, status, boot_event, admin_token, ",
            "admin_token_version, admin_token_hash, secret_hash, config, config_version, backends, created_at, ",
            "removed_at FROM tenants ",
            $rest
        )
    };
}

pub(super) async fn of_hash(tx: &mut Tx, hash: &TokenHash) -> Done<Option<Tenant>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(read!("WHERE admin_token_hash = $1"))
        .bind(hash.bytes().to_vec()).fetch_optional(c).await)?;
    Ok(row.map(Tenant::from))
}

pub(super) async fn of_slug(tx: &mut Tx, slug: &str) -> Done<Option<Tenant>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(read!("WHERE slug = $1"))
        .bind(slug).fetch_optional(c).await)?;
    Ok(row.map(Tenant::from))
}

/// One by its id, deleted or not.
pub(crate) async fn get(tx: &mut Tx, org: &str) -> Done<Option<Tenant>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(read!("WHERE org_id = $1"))
        .bind(org).fetch_optional(c).await)?;
    Ok(row.map(Tenant::from))
}

/// Every one that is not deleted, by slug, and how many of its instances have not ended.
pub(super) async fn all(tx: &mut Tx) -> Done<Vec<(Tenant, i64)>> {
    let rows: Vec<Row> = on!(&mut *tx, c => sqlx::query_as(read!("WHERE removed_at IS NULL ORDER BY slug"))
        .fetch_all(c).await)?;
    let counts: Vec<(String, i64)> = on!(tx, c => sqlx::query_as(
            "SELECT org_id, COUNT(*) FROM instances WHERE ended_at IS NULL GROUP BY org_id")
        .fetch_all(c).await)?;
    let count = |org: &str| counts.iter().find(|(id, _)| id == org).map_or(0, |(_, count)| *count);
    Ok(rows
        .into_iter()
        .map(|row| (count(&row.org_id), row))
        .map(|(n, row)| (row.into(), n))
        .collect())
}

/// Insert one. `false`: its slug, its id or its token is taken.
pub(super) async fn insert(tx: &mut Tx, new: &Tenant) -> Done<bool> {
    let backends = serde_json::json!(new.backends).to_string();
    on!(tx, c => sqlx::query("INSERT INTO tenants (org_id, slug, name, owner_user_id, platform_url, status,
            admin_token, admin_token_version, admin_token_hash, secret_hash, config, config_version, backends, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING")
        .bind(&new.org_id).bind(&new.slug).bind(&new.name).bind(&new.owner).bind(&new.platform_url).bind(&new.status)
        .bind(&new.admin_token.bytes).bind(new.admin_token.version).bind(&new.token_hash).bind(&new.secret_hash)
        .bind(&new.config.bytes).bind(new.config.version).bind(backends).bind(new.created_at.micros())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

pub(super) async fn update(tx: &mut Tx, tenant: &Tenant) -> Done {
    let backends = serde_json::json!(tenant.backends).to_string();
    on!(tx, c => sqlx::query("UPDATE tenants SET name = $1, platform_url = $2, config = $3, config_version = $4,
            backends = $5 WHERE org_id = $6")
        .bind(&tenant.name).bind(&tenant.platform_url).bind(&tenant.config.bytes).bind(tenant.config.version)
        .bind(backends).bind(&tenant.org_id).execute(c).await.map(|_| ()))
}

/// Its platform says where it answers. What an operator said stays.
pub(crate) async fn learn_platform(tx: &mut Tx, org: &str, url: &str) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE tenants SET platform_url = $1 WHERE org_id = $2 AND platform_url = ''")
        .bind(url).bind(org).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// What its platform said of its start.
pub(super) async fn booted(tx: &mut Tx, org: &str, status: &str, event: Option<&str>) -> Done {
    on!(tx, c => sqlx::query("UPDATE tenants SET status = $1, boot_event = COALESCE($2, boot_event) WHERE org_id = $3")
        .bind(status).bind(event).bind(org).execute(c).await.map(|_| ()))
}

/// Delete it: nobody is it any more. Its instances end.
pub(super) async fn remove(tx: &mut Tx, org: &str, now: Timestamp) -> Done {
    on!(&mut *tx, c => sqlx::query("UPDATE tenants SET removed_at = $1 WHERE org_id = $2")
        .bind(now.micros()).bind(org).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("DELETE FROM members WHERE org_id = $1").bind(org).execute(c).await.map(|_| ()))
}

/// Forget those that were deleted, once all of their instances have ended and their data is gone.
pub(crate) async fn purge(tx: &mut Tx) -> Done<u64> {
    let over = "IN (SELECT org_id FROM tenants WHERE removed_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM instances o WHERE o.org_id = t.org_id AND o.ended_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.org_id = t.org_id AND w.pruned)";
    for table in ["notices", "instances", "workspaces"] {
        let text = format!("DELETE FROM {table} AS t WHERE t.org_id {over}");
        on!(&mut *tx, c => sqlx::query(sqlx::AssertSqlSafe(text)).execute(c).await.map(|_| ()))?;
    }
    let text = format!("DELETE FROM tenants AS t WHERE t.org_id {over}");
    on!(tx, c => sqlx::query(sqlx::AssertSqlSafe(text)).execute(c).await.map(|done| done.rows_affected()))
}

pub(super) async fn add_member(tx: &mut Tx, org: &str, user: &str) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO members (org_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(org).bind(user).execute(c).await.map(|_| ()))
}

pub(super) async fn remove_member(tx: &mut Tx, org: &str, user: &str) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM members WHERE org_id = $1 AND user_id = $2")
        .bind(org).bind(user).execute(c).await.map(|_| ()))
}

pub(super) async fn add_session(
    tx: &mut Tx,
    hash: &TokenHash,
    user: &str,
    until: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO sessions (hash, user_id, expires_at) VALUES ($1, $2, $3)")
        .bind(hash.bytes().to_vec()).bind(user).bind(until.micros()).execute(c).await.map(|_| ()))
}

/// Whose a session is, and whether that is a member of the organisation.
pub(super) async fn session(
    tx: &mut Tx,
    hash: &TokenHash,
    slug: &str,
    now: Timestamp,
) -> Done<Option<(String, bool)>> {
    on!(tx, c => sqlx::query_as("SELECT s.user_id, EXISTS (SELECT 1 FROM members m JOIN tenants t ON t.org_id = m.org_id
            WHERE m.user_id = s.user_id AND t.slug = $1 AND t.removed_at IS NULL)
            FROM sessions s WHERE s.hash = $2 AND s.expires_at > $3")
        .bind(slug).bind(hash.bytes().to_vec()).bind(now.micros()).fetch_optional(c).await)
}

/// Forget sessions that are over.
pub(super) async fn end_sessions(tx: &mut Tx, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM sessions WHERE expires_at <= $1")
        .bind(now.micros()).execute(c).await.map(|_| ()))
}
