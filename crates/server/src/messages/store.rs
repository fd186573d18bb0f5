//! Messages in the database: reading them. What moves them is in `store/`.

pub(super) mod leases;
pub(super) mod queue;

use ligand_domain::id::{Generation, MessageId, WorkspaceId};
use ligand_domain::message::{Origin, State};
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::Done;
use super::row::{Message, Times};
use crate::db::{Tx, on};

macro_rules! columns {
    () => {
        "id, workspace_id, caller_id, origin, method, key, digest, priority, body, headers, state, attempt, \
         failures, generation, holder, maybe_run, again, accepted_at, due_at, expires_at, delivered_at, \
         started_at, processed_at, acknowledged_at, ended_at, response_status, response_type, response, \
         response_cut, evidence, last_error, delegation_id"
    };
}
pub(super) use columns;

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: Uuid,
    workspace_id: Uuid,
    caller_id: Option<Uuid>,
    origin: String,
    method: Option<String>,
    key: Option<String>,
    digest: Vec<u8>,
    priority: i64,
    body: String,
    headers: String,
    state: String,
    attempt: i64,
    failures: i64,
    generation: i64,
    holder: Option<Uuid>,
    maybe_run: bool,
    again: bool,
    accepted_at: i64,
    due_at: i64,
    expires_at: Option<i64>,
    delivered_at: Option<i64>,
    started_at: Option<i64>,
    processed_at: Option<i64>,
    acknowledged_at: Option<i64>,
    ended_at: Option<i64>,
    response_status: Option<i64>,
    response_type: Option<String>,
    response: Option<String>,
    response_cut: bool,
    evidence: Option<String>,
    last_error: Option<String>,
    delegation_id: Option<String>,
}

impl TryFrom<Row> for Message {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Done<Self> {
        let unknown =
            |what: &str, text: &str| sqlx::Error::Decode(format!("{what}: {text}").into());
        let at = |micros: Option<i64>| micros.map(Timestamp::from_micros);
        Ok(Self {
            id: MessageId::from_uuid(row.id),
            workspace: WorkspaceId::from_uuid(row.workspace_id),
            caller: row.caller_id.map(WorkspaceId::from_uuid),
            origin: Origin::parse(&row.origin).ok_or_else(|| unknown("origin", &row.origin))?,
            method: row.method,
            key: row.key,
            digest: row.digest,
            priority: row.priority,
            body: row.body,
            headers: row.headers,
            state: State::parse(&row.state).ok_or_else(|| unknown("state", &row.state))?,
            attempt: row.attempt,
            failures: row.failures,
            generation: Generation::new(row.generation),
            holder: row.holder,
            maybe_run: row.maybe_run,
            again: row.again,
            times: Times {
                accepted: Timestamp::from_micros(row.accepted_at),
                due: Timestamp::from_micros(row.due_at),
                expires: at(row.expires_at),
                delivered: at(row.delivered_at),
                started: at(row.started_at),
                processed: at(row.processed_at),
                acknowledged: at(row.acknowledged_at),
                ended: at(row.ended_at),
            },
            response_status: row.response_status,
            response_type: row.response_type,
            response: row.response,
            response_cut: row.response_cut,
            evidence: row.evidence,
            last_error: row.last_error,
            delegation_id: row.delegation_id,
        })
    }
}

fn all(rows: Vec<Row>) -> Done<Vec<Message>> {
    rows.into_iter().map(Message::try_from).collect()
}

/// Read one.
pub(super) async fn get(tx: &mut Tx, id: MessageId) -> Done<Option<Message>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM messages WHERE id = $1"))
        .bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Message::try_from).transpose()
}

/// Read the one that is known under this name.
pub(super) async fn by_key(
    tx: &mut Tx,
    workspace: WorkspaceId,
    key: &str,
) -> Done<Option<Message>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "SELECT ", columns!(), " FROM messages WHERE workspace_id = $1 AND key = $2"))
        .bind(workspace.uuid()).bind(key).fetch_optional(c).await)?;
    row.map(Message::try_from).transpose()
}

/// The latest of a workspace, oldest first.
pub(super) async fn recent(tx: &mut Tx, workspace: WorkspaceId, limit: i64) -> Done<Vec<Message>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!(
            "SELECT ", columns!(), " FROM messages WHERE workspace_id = $1 ORDER BY accepted_at DESC, id DESC LIMIT $2"))
        .bind(workspace.uuid()).bind(limit).fetch_all(c).await)?;
    let mut recent = all(rows)?;
    recent.reverse();
    Ok(recent)
}

/// Which messages an operator looks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sought {
    pub(super) workspace: Option<WorkspaceId>,
    pub(super) state: Option<State>,
    /// Where the last page ended.
    pub(super) after: Option<(Timestamp, MessageId)>,
    pub(super) limit: i64,
}

/// A page, newest first.
pub(super) async fn list(tx: &mut Tx, sought: Sought) -> Done<Vec<Message>> {
    let (at, id) =
        sought.after.map_or((i64::MAX, Uuid::max()), |(at, id)| (at.micros(), id.uuid()));
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!(
            "SELECT ", columns!(), " FROM messages
             WHERE ($1 IS NULL OR workspace_id = $1) AND ($2 IS NULL OR state = $2)
               AND (accepted_at < $3 OR (accepted_at = $3 AND id < $4))
             ORDER BY accepted_at DESC, id DESC LIMIT $5"))
        .bind(sought.workspace.map(WorkspaceId::uuid)).bind(sought.state.map(State::as_str))
        .bind(at).bind(id).bind(sought.limit).fetch_all(c).await)?;
    all(rows)
}
