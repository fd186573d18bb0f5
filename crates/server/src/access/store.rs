//! Credentials in the database. A secret never comes here: its hash does.

pub(super) mod callers;
pub(super) mod passports;

use ligand_domain::credential::{Kind, State, TokenHash};
use ligand_domain::id::{CredentialId, Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::Held;
use crate::db::{Tx, list, on};

/// `last_used_at` is exact to this: not every request pays for a write.
const TOUCH_EVERY_US: i64 = 10_000_000;

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    workspace_id: Uuid,
    kind: String,
    generation: Option<i64>,
    state: String,
    hash: Vec<u8>,
    idempotency_hash: Option<Vec<u8>>,
    created_at: i64,
    lapses_at: Option<i64>,
    first_used_at: Option<i64>,
    serial: i64,
}

impl TryFrom<Row> for Held {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let unknown = |what: &str| sqlx::Error::Decode(format!("credentials: {what}").into());
        Ok(Self {
            id: CredentialId::from_uuid(row.id),
            workspace: WorkspaceId::from_uuid(row.workspace_id),
            kind: Kind::parse(&row.kind).ok_or_else(|| unknown("unknown kind"))?,
            generation: row.generation.map(Generation::new),
            state: State::parse(&row.state).ok_or_else(|| unknown("unknown state"))?,
            hash: row.hash,
            idempotency_hash: row.idempotency_hash,
            created_at: Timestamp::from_micros(row.created_at),
            lapses_at: row.lapses_at.map(Timestamp::from_micros),
            first_used_at: row.first_used_at.map(Timestamp::from_micros),
            serial: row.serial,
        })
    }
}

pub(super) async fn insert(tx: &mut Tx, new: &Held, prefix: &str) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("INSERT INTO credentials
            (id, workspace_id, kind, generation, state, hash, prefix, idempotency_hash, lapses_at, created_at, serial)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                COALESCE((SELECT rotations_wanted FROM workspaces WHERE id = $2), 0))")
        .bind(new.id.uuid()).bind(new.workspace.uuid()).bind(new.kind.as_str())
        .bind(new.generation.map(Generation::number)).bind(new.state.as_str())
        .bind(&new.hash).bind(prefix).bind(&new.idempotency_hash)
        .bind(new.lapses_at.map(Timestamp::micros)).bind(new.created_at.micros())
        .execute(c).await.map(|_| ()))
}

#[derive(sqlx::FromRow)]
struct Live {
    #[sqlx(flatten)]
    row: Row,
    last_used_at: Option<i64>,
}

/// A live credential of a workspace that is not removed, unless it is a candidate's; and whether it is time to note its use.
pub(super) async fn find_live(
    tx: &mut Tx,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<(Held, bool)>, sqlx::Error> {
    let live: Option<Live> = on!(tx, c => sqlx::query_as(
            "SELECT c.id, c.workspace_id, c.kind, c.generation, c.state, c.hash, c.idempotency_hash,
                c.created_at, c.lapses_at, c.first_used_at, c.serial, c.last_used_at
             FROM credentials c JOIN workspaces w ON w.id = c.workspace_id
             WHERE c.hash = $1 AND c.ended_at IS NULL AND w.status <> 'removed'
               AND (c.state <> 'pending' OR c.lapses_at IS NULL OR c.lapses_at > $2)
               AND (w.candidate_generation IS NULL OR c.generation IS NULL OR c.generation <> w.candidate_generation)")
        .bind(hash.bytes().as_slice()).bind(now.micros()).fetch_optional(c).await)?;
    let Some(Live { row, last_used_at }) = live else { return Ok(None) };
    let unnoted = last_used_at.unwrap_or(0) <= now.micros() - TOUCH_EVERY_US;
    Ok(Some((Held::try_from(row)?, unnoted)))
}

/// The generation of the candidate whose credential this is, while its migration is under way.
pub(super) async fn candidate(
    tx: &mut Tx,
    workspace: WorkspaceId,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<Generation>, sqlx::Error> {
    let generation: Option<i64> = on!(tx, c => sqlx::query_scalar(
            "SELECT c.generation FROM credentials c
             JOIN workspaces w ON w.id = c.workspace_id AND w.candidate_generation = c.generation
             WHERE c.hash = $1 AND c.workspace_id = $2 AND c.kind = 'instance' AND c.ended_at IS NULL
               AND w.status <> 'removed' AND (c.state <> 'pending' OR c.lapses_at IS NULL OR c.lapses_at > $3)")
        .bind(hash.bytes().as_slice()).bind(workspace.uuid()).bind(now.micros()).fetch_optional(c).await)?;
    Ok(generation.map(Generation::new))
}

/// Those of these credentials that count no more.
pub(super) async fn ended(
    tx: &mut Tx,
    hashes: &[TokenHash],
    now: Timestamp,
) -> Result<Vec<TokenHash>, sqlx::Error> {
    let live = "SELECT 1 FROM credentials c JOIN workspaces w ON w.id = c.workspace_id
        WHERE c.hash = b.hash AND c.ended_at IS NULL AND w.status <> 'removed'
          AND (c.state <> 'pending' OR c.lapses_at IS NULL OR c.lapses_at > $1)";
    list::without(tx, hashes, live, Some(now)).await
}

/// Whether a credential still counts. Under the lock of its workspace that stays so.
pub(super) async fn is_live(
    tx: &mut Tx,
    id: CredentialId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM credentials WHERE id = $1 AND ended_at IS NULL
               AND (state <> 'pending' OR lapses_at IS NULL OR lapses_at > $2))")
        .bind(id.uuid()).bind(now.micros()).fetch_one(c).await)
}

/// What an admission looks at: the presented credential, the one that its `Idempotency-Key` brought, and
/// every live one.
pub(crate) async fn for_admission(
    tx: &mut Tx,
    workspace: WorkspaceId,
    presented: Option<&TokenHash>,
    key: Option<&TokenHash>,
) -> Result<Vec<Held>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(
            "SELECT id, workspace_id, kind, generation, state, hash, idempotency_hash, created_at, lapses_at, first_used_at, serial
             FROM credentials
             WHERE workspace_id = $1 AND (hash = $2 OR idempotency_hash = $3 OR ended_at IS NULL)
             ORDER BY created_at")
        .bind(workspace.uuid()).bind(presented.map(|hash| hash.bytes().to_vec()))
        .bind(key.map(|hash| hash.bytes().to_vec())).fetch_all(c).await)?;
    rows.into_iter().map(Held::try_from).collect()
}

/// Note a request made with it, unless one was noted a moment ago.
pub(super) async fn touch(
    tx: &mut Tx,
    id: CredentialId,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET last_used_at = $1
            WHERE id = $2 AND COALESCE(last_used_at, 0) <= $3")
        .bind(now.micros()).bind(id.uuid()).bind(now.micros() - TOUCH_EVERY_US)
        .execute(c).await.map(|_| ()))
}

/// Note an admitted call made with it. Only its first use makes a pending one active.
///
/// # Errors
/// When the database does not answer, or when it has ended since it was looked up: the caller asks again, and
/// is told so.
pub(crate) async fn mark_used(
    tx: &mut Tx,
    id: CredentialId,
    first: bool,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET last_used_at = $1,
                state = CASE WHEN $2 THEN 'active' ELSE state END,
                first_used_at = CASE WHEN $2 THEN COALESCE(first_used_at, $1) ELSE first_used_at END
            WHERE id = $3 AND ended_at IS NULL")
        .bind(now.micros()).bind(first).bind(id.uuid()).execute(c).await
        .and_then(|done| (done.rows_affected() > 0).then_some(()).ok_or(sqlx::Error::RowNotFound)))
}

/// End one credential.
pub(crate) async fn end_one(
    tx: &mut Tx,
    id: CredentialId,
    state: State,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = $1, ended_at = $2 WHERE id = $3 AND ended_at IS NULL")
        .bind(state.as_str()).bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

pub(super) async fn end_all(
    tx: &mut Tx,
    workspace: WorkspaceId,
    state: State,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = $1, ended_at = $2 WHERE workspace_id = $3 AND ended_at IS NULL")
        .bind(state.as_str()).bind(now.micros()).bind(workspace.uuid())
        .execute(c).await.map(|done| done.rows_affected()))
}

/// Whatever instances hold: their own, and those that they asked for, which belong to a generation too.
pub(super) async fn end_instances(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'revoked', ended_at = $1
            WHERE workspace_id = $2 AND (kind = 'instance' OR generation IS NOT NULL) AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// The same, because a newer instance takes their place.
pub(super) async fn supersede_instances(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'superseded', ended_at = $1
            WHERE workspace_id = $2 AND (kind = 'instance' OR generation IS NOT NULL) AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Everything that belongs to one generation.
pub(super) async fn end_generation(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'revoked', ended_at = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).bind(generation.number())
        .execute(c).await.map(|_| ()))
}

/// Everything that belongs to generations before this one: they are over.
pub(crate) async fn supersede_before(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'superseded', ended_at = $1
            WHERE workspace_id = $2 AND generation < $3 AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).bind(generation.number())
        .execute(c).await.map(|_| ()))
}

/// Whether a generation has a credential that was used and still counts.
pub(crate) async fn is_active(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
) -> Result<bool, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM credentials
            WHERE workspace_id = $1 AND generation = $2 AND kind = 'instance' AND state = 'active' AND ended_at IS NULL)")
        .bind(workspace.uuid()).bind(generation.number()).fetch_one(c).await)
}

/// What a start leaves: its credentials that were never used, and those that were asked for with them. A
/// current generation's callers keep theirs: its agent may come back.
pub(super) async fn lapse_pending(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'lapsed', ended_at = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL
                AND (kind = 'instance' AND state = 'pending'
                    OR kind = 'api' AND generation <> (SELECT current_generation FROM workspaces WHERE id = $2))")
        .bind(now.micros()).bind(workspace.uuid()).bind(generation.number())
        .execute(c).await.map(|done| done.rows_affected()))
}

/// Of the values of one rotation that nobody used, the newest `most` stay, that of `newest` among them.
pub(crate) async fn keep_newest(
    tx: &mut Tx,
    of: (WorkspaceId, Generation, i64),
    newest: &TokenHash,
    most: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'superseded', ended_at = $1
            WHERE workspace_id = $2 AND generation = $3 AND serial = $4 AND kind = 'instance' AND state = 'pending'
                AND id NOT IN (SELECT id FROM credentials
                    WHERE workspace_id = $2 AND generation = $3 AND serial = $4 AND kind = 'instance' AND state = 'pending'
                    ORDER BY CASE WHEN hash = $5 THEN 0 ELSE 1 END, created_at DESC, id LIMIT $6)")
        .bind(now.micros()).bind(of.0.uuid()).bind(of.1.number()).bind(of.2)
        .bind(newest.bytes().as_slice()).bind(most).execute(c).await.map(|_| ()))
}

pub(super) async fn live_in(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("SELECT COUNT(*) FROM credentials WHERE workspace_id = $1 AND ended_at IS NULL
                AND (state <> 'pending' OR lapses_at IS NULL OR lapses_at > $2)")
        .bind(workspace.uuid()).bind(now.micros()).fetch_one(c).await)
}

pub(super) async fn live_anywhere(tx: &mut Tx, now: Timestamp) -> Result<i64, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("SELECT COUNT(*) FROM credentials WHERE ended_at IS NULL
                AND (state <> 'pending' OR lapses_at IS NULL OR lapses_at > $1)")
        .bind(now.micros()).fetch_one(c).await)
}

/// Whether a workspace of this id ever had a credential or a passport. Where there is no such workspace, that is the
/// tombstone of a purged one.
pub(crate) async fn ever_issued(tx: &mut Tx, workspace: WorkspaceId) -> Result<bool, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM credentials WHERE workspace_id = $1)
                OR EXISTS (SELECT 1 FROM passports WHERE workspace_id = $1)")
        .bind(workspace.uuid()).fetch_one(c).await)
}
