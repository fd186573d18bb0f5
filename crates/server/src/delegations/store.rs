//! Delegations in the database.

use ligand_domain::delegation::Status;
use ligand_domain::id::WorkspaceId;
use ligand_domain::message::State;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::db::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// A delegation, with where its message stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) caller: WorkspaceId,
    pub(super) delegation_id: String,
    pub(super) target: WorkspaceId,
    pub(super) task: String,
    /// What was written down last.
    pub(super) written: Status,
    pub(super) message: Option<Uuid>,
    /// Where its message stands, as long as that is remembered.
    pub(super) carried: Option<(State, i64)>,
    pub(super) activity: Option<Uuid>,
    pub(super) result: Option<Uuid>,
    pub(super) error: Option<String>,
    pub(super) response: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) processed_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) acknowledged_at: Option<Timestamp>,
}

impl Row {
    /// Where it stands.
    pub(super) fn status(&self) -> Status {
        self.written.now(self.carried)
    }
}

#[derive(sqlx::FromRow)]
struct Stored {
    id: Uuid,
    workspace_id: Uuid,
    delegation_id: String,
    target_id: Uuid,
    task: String,
    status: String,
    message_id: Option<Uuid>,
    activity_id: Option<Uuid>,
    result_id: Option<Uuid>,
    error: Option<String>,
    response: Option<String>,
    created_at: i64,
    processed_at: Option<i64>,
    ended_at: Option<i64>,
    acknowledged_at: Option<i64>,
    state: Option<String>,
    attempt: Option<i64>,
}

impl TryFrom<Stored> for Row {
    type Error = sqlx::Error;

    fn try_from(row: Stored) -> Result<Self, sqlx::Error> {
        let unknown = |what| sqlx::Error::Decode(format!("{what} holds an unknown value").into());
        let state = row
            .state
            .as_deref()
            .map(|text| State::parse(text).ok_or_else(|| unknown("messages.state")));
        let at = |micros: Option<i64>| micros.map(Timestamp::from_micros);
        Ok(Self {
            id: row.id,
            caller: WorkspaceId::from_uuid(row.workspace_id),
            delegation_id: row.delegation_id,
            target: WorkspaceId::from_uuid(row.target_id),
            task: row.task,
            written: Status::parse(&row.status).ok_or_else(|| unknown("delegations.status"))?,
            message: row.message_id,
            carried: state.transpose()?.zip(row.attempt),
            activity: row.activity_id,
            result: row.result_id,
            error: row.error,
            response: row.response,
            created_at: Timestamp::from_micros(row.created_at),
            processed_at: at(row.processed_at),
            ended_at: at(row.ended_at),
            acknowledged_at: at(row.acknowledged_at),
        })
    }
}

macro_rules! read {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.workspace_id, d.delegation_id, d.target_id, d.task, d.status, d.message_id, d.activity_id, d.result_id,
                d.error, d.response, d.created_at, d.processed_at, d.ended_at,
                COALESCE(d.acknowledged_at, m.acknowledged_at) AS acknowledged_at, m.state, m.attempt
             FROM delegations d LEFT JOIN messages m ON m.id = d.message_id WHERE d.workspace_id = $1 ",
            $rest
        )
    };
}

/// One of a caller's.
pub(super) async fn get(
    tx: &mut Tx,
    caller: WorkspaceId,
    delegation_id: &str,
) -> Done<Option<Row>> {
    let row: Option<Stored> = on!(tx, c => sqlx::query_as(read!("AND d.delegation_id = $2"))
        .bind(caller.uuid()).bind(delegation_id).fetch_optional(c).await)?;
    row.map(Row::try_from).transpose()
}

/// The one that a caller gave under this key.
pub(super) async fn by_key(tx: &mut Tx, caller: WorkspaceId, key: &str) -> Done<Option<Row>> {
    let row: Option<Stored> = on!(tx, c => sqlx::query_as(read!("AND d.idempotency_key = $2"))
        .bind(caller.uuid()).bind(key).fetch_optional(c).await)?;
    row.map(Row::try_from).transpose()
}

/// A caller's newest, newest first.
pub(super) async fn newest(tx: &mut Tx, caller: WorkspaceId, limit: i64) -> Done<Vec<Row>> {
    let rows: Vec<Stored> = on!(tx, c => sqlx::query_as(read!("ORDER BY d.created_at DESC, d.id LIMIT $2"))
        .bind(caller.uuid()).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Row::try_from).collect()
}

/// A new one.
pub(super) struct New<'a> {
    pub(super) id: Uuid,
    pub(super) caller: WorkspaceId,
    pub(super) delegation_id: &'a str,
    pub(super) target: WorkspaceId,
    pub(super) task: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) status: Status,
}

/// `false`: its caller has one of this id or key, or is no more.
pub(super) async fn insert(tx: &mut Tx, new: &New<'_>, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("INSERT INTO delegations (id, workspace_id, delegation_id, target_id, task, idempotency_key, status, created_at)
            SELECT $1, id, $3, $4, $5, $6, $7, $8 FROM workspaces WHERE id = $2 AND status <> 'removed'
            ON CONFLICT DO NOTHING")
        .bind(new.id).bind(new.caller.uuid()).bind(new.delegation_id).bind(new.target.uuid()).bind(new.task)
        .bind(new.key).bind(new.status.as_str()).bind(now.micros())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// What carries it, and where it is logged.
pub(super) async fn carried_by(
    tx: &mut Tx,
    id: Uuid,
    message: Option<Uuid>,
    activity: Option<Uuid>,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE delegations SET message_id = $1, activity_id = $2 WHERE id = $3")
        .bind(message).bind(activity).bind(id).execute(c).await.map(|_| ()))
}

/// Where its outcome is logged.
pub(super) async fn logged_as(tx: &mut Tx, id: Uuid, result: Uuid) -> Done {
    on!(tx, c => sqlx::query("UPDATE delegations SET result_id = $1 WHERE id = $2")
        .bind(result).bind(id).execute(c).await.map(|_| ()))
}

/// The key is free for another.
pub(super) async fn release_key(tx: &mut Tx, id: Uuid) -> Done {
    on!(tx, c => sqlx::query("UPDATE delegations SET idempotency_key = NULL WHERE id = $1")
        .bind(id).execute(c).await.map(|_| ()))
}

/// How a delegation ended.
pub(super) struct Ended<'a> {
    pub(super) status: Status,
    pub(super) error: Option<&'a str>,
    pub(super) response: Option<&'a str>,
    pub(super) processed_at: Option<Timestamp>,
}

/// Write down how it ended, unless something else was written down since it was read.
pub(super) async fn end(tx: &mut Tx, row: &Row, ended: &Ended<'_>, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE delegations SET status = $1, error = $2, response = $3, processed_at = $4, ended_at = $5,
            acknowledged_at = NULL WHERE id = $6 AND status = $7")
        .bind(ended.status.as_str()).bind(ended.error).bind(ended.response)
        .bind(ended.processed_at.map(Timestamp::micros)).bind(now.micros())
        .bind(row.id).bind(row.written.as_str())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Its caller knows how it ended. `false`: it is not over, or was known before.
pub(super) async fn acknowledge(tx: &mut Tx, id: Uuid, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE delegations SET acknowledged_at = $1
            WHERE id = $2 AND ended_at IS NOT NULL AND acknowledged_at IS NULL")
        .bind(now.micros()).bind(id).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Take away those that ended before `at`, at most `limit`. Gives how many.
pub(super) async fn forget(tx: &mut Tx, at: Timestamp, limit: i64) -> Done<u64> {
    on!(tx, c => sqlx::query("DELETE FROM delegations WHERE id IN (
                SELECT id FROM delegations WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)")
        .bind(at.micros()).bind(limit).execute(c).await.map(|done| done.rows_affected()))
}
