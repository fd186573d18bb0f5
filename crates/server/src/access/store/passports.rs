//! Passports in the database, by hash.

use ligand_domain::credential::{PassportTimes, TokenHash};
use ligand_domain::id::{Generation, PassportId, WorkspaceId};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::access::HeldPassport;
use crate::db::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    generation: i64,
    expires_at: i64,
    redeemed_at: Option<i64>,
    spent_at: Option<i64>,
    ended_at: Option<i64>,
}

impl From<Row> for HeldPassport {
    fn from(row: Row) -> Self {
        let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
        Self {
            id: PassportId::from_uuid(row.id),
            generation: Generation::new(row.generation),
            times: PassportTimes {
                until: Timestamp::from_micros(row.expires_at),
                redeemed: time(row.redeemed_at),
                spent: time(row.spent_at),
                ended: time(row.ended_at),
            },
        }
    }
}

/// A passport to be.
pub(crate) struct New<'a> {
    pub(crate) id: PassportId,
    pub(crate) of: (WorkspaceId, Generation),
    pub(crate) hash: TokenHash,
    pub(crate) backend: Option<&'a str>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

pub(crate) async fn insert(tx: &mut Tx, new: &New<'_>) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO passports (id, workspace_id, generation, hash, backend, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(new.id.uuid()).bind(new.of.0.uuid()).bind(new.of.1.number())
        .bind(new.hash.bytes().as_slice()).bind(new.backend).bind(new.created_at.micros())
        .bind(new.expires_at.micros()).execute(c).await.map(|_| ()))
}

/// The passport of this workspace that a bearer is, in whatever state.
pub(crate) async fn presented(
    tx: &mut Tx,
    workspace: WorkspaceId,
    hash: Option<&TokenHash>,
) -> Done<Option<HeldPassport>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(
            "SELECT id, generation, expires_at, redeemed_at, spent_at, ended_at
             FROM passports WHERE workspace_id = $1 AND hash = $2")
        .bind(workspace.uuid()).bind(hash.map(|hash| hash.bytes().to_vec()))
        .fetch_optional(c).await)?;
    Ok(row.map(HeldPassport::from))
}

/// Note that it was presented.
pub(crate) async fn redeem(tx: &mut Tx, id: PassportId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE passports SET redeemed_at = COALESCE(redeemed_at, $1) WHERE id = $2")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// A credential of its generation is in use: it opens nothing any more.
pub(crate) async fn spend(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE passports SET spent_at = $1
            WHERE workspace_id = $2 AND generation = $3 AND spent_at IS NULL AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).bind(generation.number())
        .execute(c).await.map(|_| ()))
}

/// Those of one generation end with it.
pub(crate) async fn end_of(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE passports SET ended_at = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).bind(generation.number())
        .execute(c).await.map(|_| ()))
}

/// End those that were never used up.
pub(crate) async fn end_all(tx: &mut Tx, workspace: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE passports SET ended_at = $1
            WHERE workspace_id = $2 AND spent_at IS NULL AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}
