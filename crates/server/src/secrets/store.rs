//! Secrets in the database, as they are stored: nothing here knows a key or a value.

use ligand_domain::id::WorkspaceId;
use ligand_domain::secrets::{Scope, Stored};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::db::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// A stored secret.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) key: String,
    encrypted_value: Vec<u8>,
    encryption_version: i64,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
}

impl Row {
    pub(super) fn stored(&self) -> Stored {
        Stored { version: self.encryption_version, bytes: self.encrypted_value.clone() }
    }
}

/// What is written.
pub(super) struct New<'a> {
    pub(super) id: Uuid,
    pub(super) key: &'a str,
    pub(super) stored: &'a Stored,
    /// Which key it is encrypted with.
    pub(super) key_name: Option<String>,
    pub(super) now: Timestamp,
}

/// Keep everybody else from writing global secrets, and from loading them for a start, until the transaction ends.
/// Whoever holds it may lock workspaces afterwards, never the other way round.
pub(super) async fn hold_global(tx: &mut Tx) -> Done {
    on!(tx, c => sqlx::query("UPDATE global_secrets_lock SET version = version + 1 WHERE id = 1")
        .execute(c).await.map(|_| ()))
}

/// The global ones, by name.
pub(super) async fn global(tx: &mut Tx) -> Done<Vec<Row>> {
    on!(tx, c => sqlx::query_as("SELECT key, encrypted_value, encryption_version, created_at, updated_at
            FROM global_secrets ORDER BY key").fetch_all(c).await)
}

/// A workspace's own, by name.
pub(super) async fn own(tx: &mut Tx, workspace: WorkspaceId) -> Done<Vec<Row>> {
    on!(tx, c => sqlx::query_as("SELECT key, encrypted_value, encryption_version, created_at, updated_at
            FROM workspace_secrets WHERE workspace_id = $1 ORDER BY key")
        .bind(workspace.uuid()).fetch_all(c).await)
}

/// Whether a workspace gets any.
pub(super) async fn any(tx: &mut Tx, workspace: WorkspaceId) -> Done<bool> {
    let found: Option<i64> = on!(tx, c => sqlx::query_scalar("SELECT CAST(1 AS BIGINT) FROM global_secrets
            UNION ALL SELECT CAST(1 AS BIGINT) FROM workspace_secrets WHERE workspace_id = $1 LIMIT 1")
        .bind(workspace.uuid()).fetch_optional(c).await)?;
    Ok(found.is_some())
}

/// Set one of a workspace. Its row has to be locked.
pub(super) async fn put(tx: &mut Tx, workspace: WorkspaceId, new: &New<'_>) -> Done {
    let updated = on!(tx, c => sqlx::query("UPDATE workspace_secrets SET encrypted_value = $1, encryption_version = $2,
            key_name = $3, updated_at = $4 WHERE workspace_id = $5 AND key = $6")
        .bind(&new.stored.bytes).bind(new.stored.version).bind(&new.key_name).bind(new.now.micros())
        .bind(workspace.uuid()).bind(new.key).execute(c).await.map(|done| done.rows_affected()))?;
    if updated > 0 {
        return Ok(());
    }
    on!(tx, c => sqlx::query("INSERT INTO workspace_secrets (id, workspace_id, key, encrypted_value,
            encryption_version, key_name, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)")
        .bind(new.id).bind(workspace.uuid()).bind(new.key).bind(&new.stored.bytes).bind(new.stored.version)
        .bind(&new.key_name).bind(new.now.micros()).execute(c).await.map(|_| ()))
}

/// Set a global one. [`hold_global`] comes first.
pub(super) async fn put_global(tx: &mut Tx, new: &New<'_>) -> Done {
    let updated = on!(tx, c => sqlx::query("UPDATE global_secrets SET encrypted_value = $1, encryption_version = $2,
            key_name = $3, updated_at = $4 WHERE key = $5")
        .bind(&new.stored.bytes).bind(new.stored.version).bind(&new.key_name).bind(new.now.micros())
        .bind(new.key).execute(c).await.map(|done| done.rows_affected()))?;
    if updated > 0 {
        return Ok(());
    }
    on!(tx, c => sqlx::query("INSERT INTO global_secrets (id, key, encrypted_value, encryption_version, key_name,
            created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)")
        .bind(new.id).bind(new.key).bind(&new.stored.bytes).bind(new.stored.version).bind(&new.key_name)
        .bind(new.now.micros()).execute(c).await.map(|_| ()))
}

/// Delete one of a workspace. `false`: there was none.
pub(super) async fn delete(tx: &mut Tx, workspace: WorkspaceId, key: &str) -> Done<bool> {
    on!(tx, c => sqlx::query("DELETE FROM workspace_secrets WHERE workspace_id = $1 AND key = $2")
        .bind(workspace.uuid()).bind(key).execute(c).await.map(|done| done.rows_affected() > 0))
}

/// Delete a global one. `false`: there was none.
pub(super) async fn delete_global(tx: &mut Tx, key: &str) -> Done<bool> {
    on!(tx, c => sqlx::query("DELETE FROM global_secrets WHERE key = $1")
        .bind(key).execute(c).await.map(|done| done.rows_affected() > 0))
}

/// Every secret of a workspace is gone.
pub(super) async fn purge(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM workspace_secrets WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Whom a secret that was written reaches.
#[derive(Clone, Copy)]
pub(super) enum Reached<'a> {
    /// The workspace whose own it is. Its row is locked.
    One(WorkspaceId),
    /// All that have none of their own of this name. [`hold_global`] comes first.
    AllWithout(&'a str),
}

/// What a backend runs or would run, unless it is paused: that reads everything when it is resumed.
macro_rules! reached {
    ($whom:literal) => {
        concat!("backend IS NOT NULL AND intent NOT IN ('removed', 'paused') AND ", $whom)
    };
}
macro_rules! all_without {
    () => {
        reached!("NOT EXISTS (SELECT 1 FROM workspace_secrets s WHERE s.workspace_id = workspaces.id AND s.key = $1)")
    };
}
/// A restart, whatever failed before.
macro_rules! restart {
    ($whom:expr) => {
        concat!(
            "UPDATE workspaces SET restarts_wanted = restarts_wanted + 1, failures = 0, failures_since = 0,
                next_attempt_at = NULL, updated_at = $2, due_at = CASE WHEN due_at > $2 THEN $2 ELSE due_at END
             WHERE ",
            $whom,
            " RETURNING id"
        )
    };
}

/// Ask those whom a secret reaches to restart, and give which they are.
pub(super) async fn restart(
    tx: &mut Tx,
    whom: Reached<'_>,
    now: Timestamp,
) -> Done<Vec<WorkspaceId>> {
    let reached: Vec<Uuid> = match whom {
        Reached::One(id) => on!(tx, c => sqlx::query_scalar(restart!(reached!("id = $1")))
            .bind(id.uuid()).bind(now.micros()).fetch_all(c).await)?,
        Reached::AllWithout(key) => {
            // Rows are locked in one order, or two writers would wait for each other. Where one writes at a time,
            // nobody waits.
            if let Tx::Postgres(_) = tx {
                let text = concat!(
                    "SELECT id FROM workspaces WHERE ",
                    all_without!(),
                    " ORDER BY id FOR UPDATE"
                );
                let _: Vec<Uuid> =
                    on!(tx, c => sqlx::query_scalar(text).bind(key).fetch_all(c).await)?;
            }
            on!(tx, c => sqlx::query_scalar(restart!(all_without!()))
                .bind(key).bind(now.micros()).fetch_all(c).await)?
        }
    };
    Ok(reached.into_iter().map(WorkspaceId::from_uuid).collect())
}

/// A secret that is not under the current key.
#[derive(sqlx::FromRow)]
pub(super) struct Stale {
    pub(super) id: Uuid,
    /// `None`: a global one.
    pub(super) workspace_id: Option<Uuid>,
    pub(super) key: String,
    encrypted_value: Vec<u8>,
    encryption_version: i64,
}

impl Stale {
    pub(super) fn stored(&self) -> Stored {
        Stored { version: self.encryption_version, bytes: self.encrypted_value.clone() }
    }

    pub(super) fn scope(&self) -> Scope {
        if self.workspace_id.is_some() { Scope::Workspace } else { Scope::Global }
    }
}

/// Those that are not under the key of this name, in the order of their ids, from `after` on.
pub(super) async fn stale(
    tx: &mut Tx,
    key_name: &str,
    after: Uuid,
    limit: i64,
) -> Done<Vec<Stale>> {
    on!(tx, c => sqlx::query_as("SELECT id, workspace_id, key, encrypted_value, encryption_version FROM (
                SELECT id, workspace_id, key, encrypted_value, encryption_version, key_name FROM workspace_secrets
                UNION ALL SELECT id, NULL, key, encrypted_value, encryption_version, key_name FROM global_secrets
            ) AS s WHERE s.id > $1 AND (s.key_name IS NULL OR s.key_name <> $2) ORDER BY s.id LIMIT $3")
        .bind(after).bind(key_name).bind(limit).fetch_all(c).await)
}

/// How many those are.
pub(super) async fn count_stale(tx: &mut Tx, key_name: &str) -> Done<i64> {
    on!(tx, c => sqlx::query_scalar("SELECT (SELECT COUNT(*) FROM workspace_secrets WHERE key_name IS NULL OR key_name <> $1)
            + (SELECT COUNT(*) FROM global_secrets WHERE key_name IS NULL OR key_name <> $1)")
        .bind(key_name).fetch_one(c).await)
}

/// How many are stored in plain text.
pub(super) async fn count_plain(tx: &mut Tx) -> Done<i64> {
    on!(tx, c => sqlx::query_scalar("SELECT (SELECT COUNT(*) FROM workspace_secrets WHERE encryption_version = 0)
            + (SELECT COUNT(*) FROM global_secrets WHERE encryption_version = 0)")
        .fetch_one(c).await)
}

/// Store the same value otherwise, unless somebody has set another one meanwhile. `false`: somebody has.
pub(super) async fn restore(
    tx: &mut Tx,
    of: &Stale,
    stored: &Stored,
    key_name: Option<&str>,
) -> Done<bool> {
    let text = match of.scope() {
        Scope::Workspace => {
            "UPDATE workspace_secrets SET encrypted_value = $1, encryption_version = $2, key_name = $3
             WHERE id = $4 AND encrypted_value = $5"
        }
        Scope::Global => {
            "UPDATE global_secrets SET encrypted_value = $1, encryption_version = $2, key_name = $3
             WHERE id = $4 AND encrypted_value = $5"
        }
    };
    on!(tx, c => sqlx::query(text).bind(&stored.bytes).bind(stored.version).bind(key_name)
        .bind(of.id).bind(&of.encrypted_value).execute(c).await.map(|done| done.rows_affected() > 0))
}
