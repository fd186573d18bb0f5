//! The queue: messages that wait, workspaces that are held, and what operators do.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::{Origin, State};
use ligand_domain::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Done, Row, all, columns};
use crate::db::{Tx, list, on};
use crate::messages::row::Message;

/// A message that is accepted.
pub(in crate::messages) struct Accepted {
    pub(in crate::messages) id: MessageId,
    pub(in crate::messages) workspace: WorkspaceId,
    pub(in crate::messages) caller: Option<WorkspaceId>,
    pub(in crate::messages) origin: Origin,
    pub(in crate::messages) method: Option<String>,
    pub(in crate::messages) key: Option<String>,
    pub(in crate::messages) digest: Vec<u8>,
    pub(in crate::messages) priority: i64,
    pub(in crate::messages) body: String,
    pub(in crate::messages) headers: String,
    pub(in crate::messages) maybe_run: bool,
    pub(in crate::messages) now: Timestamp,
    pub(in crate::messages) due: Timestamp,
    pub(in crate::messages) expires: Timestamp,
    pub(in crate::messages) delegation_id: Option<String>,
}

/// Sizes of the statement below: few, so that each is prepared once; missing rows are filled up with the last, which
/// is written once.
const SIZES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Values of each row.
const COLUMNS: usize = 15;
/// Counting a queue ends here.
const DEPTH: i64 = 1000;

static ACCEPT: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    let text = |rows: usize| {
        let names = "id, workspace_id, caller_id, origin, method, key, digest, priority, body, headers, maybe_run,
            accepted_at, due_at, expires_at, delegation_id";
        let mut text = format!("WITH b ({names}) AS (VALUES ");
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..COLUMNS {
                let _ = write!(
                    text,
                    "{}${}",
                    if column == 0 { "" } else { ", " },
                    1 + row * COLUMNS + column
                );
            }
            text.push(')');
        }
        let _ = write!(
            text,
            ") INSERT INTO messages ({names}, state)
            SELECT b.id, b.workspace_id, b.caller_id, b.origin, b.method, b.key, b.digest, b.priority, b.body, b.headers,
                b.maybe_run, b.accepted_at, b.due_at, b.expires_at, b.delegation_id, 'accepted'
            FROM b JOIN workspaces w ON w.id = b.workspace_id
            WHERE w.status <> 'removed' AND (w.budget_limit IS NULL OR w.monthly_spend < w.budget_limit
                OR b.origin <> 'queue')
            ON CONFLICT DO NOTHING RETURNING id"
        );
        Arc::from(text)
    };
    SIZES.into_iter().map(text).collect()
});

/// Accept messages, in one statement. Gives those that were: the others have a name that is taken, or a workspace
/// that takes none. As many as fit into the largest of the sizes.
pub(in crate::messages) async fn accept_all(
    tx: &mut Tx,
    new: &[&Accepted],
) -> Done<Vec<MessageId>> {
    let Some(last) = new.last() else { return Ok(Vec::new()) };
    let size =
        SIZES.into_iter().position(|size| size >= new.len()).expect("no batch is larger than this");
    let rows = new.iter().chain(std::iter::repeat(last)).take(SIZES[size]);
    let ids: Vec<Uuid> = on!(tx, c => {
        let mut query = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&ACCEPT[size])));
        for row in rows {
            query = query.bind(row.id.uuid()).bind(row.workspace.uuid()).bind(row.caller.map(WorkspaceId::uuid))
                .bind(row.origin.as_str()).bind(row.method.as_deref()).bind(row.key.as_deref())
                .bind(row.digest.as_slice()).bind(row.priority).bind(row.body.as_str()).bind(row.headers.as_str())
                .bind(row.maybe_run).bind(row.now.micros()).bind(row.due.micros()).bind(row.expires.micros())
                .bind(row.delegation_id.as_deref());
        }
        query.fetch_all(c).await
    })?;
    Ok(ids.into_iter().map(MessageId::from_uuid).collect())
}

/// Accept one. `false`: its name is taken, or its workspace takes none.
pub(in crate::messages) async fn accept(tx: &mut Tx, new: &Accepted) -> Done<bool> {
    Ok(!accept_all(tx, &[new]).await?.is_empty())
}

/// Messages that wait for a workspace.
pub(in crate::messages) async fn depth(tx: &mut Tx, workspace: WorkspaceId) -> Done<i64> {
    Ok(depths(tx, &[workspace]).await?.get(&workspace).copied().unwrap_or_default())
}

/// Messages that wait for each of these workspaces, in one statement: each is counted by its own step into the index.
pub(in crate::messages) async fn depths(
    tx: &mut Tx,
    of: &[WorkspaceId],
) -> Done<HashMap<WorkspaceId, i64>> {
    let mut depths = HashMap::new();
    for some in of.chunks(list::MOST) {
        let text = format!(
            "WITH b (id) AS (VALUES {}) SELECT b.id, (SELECT COUNT(*) FROM (
                SELECT 1 FROM messages WHERE workspace_id = b.id AND state = 'accepted' LIMIT $1) waiting) FROM b",
            list::rows(2, some.len())
        );
        let found: Vec<(Uuid, i64)> = on!(&mut *tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(text)).bind(DEPTH);
            for id in list::members(some) {
                query = query.bind(id.uuid());
            }
            query.fetch_all(c).await
        })?;
        depths.extend(found.into_iter().map(|(id, depth)| (WorkspaceId::from_uuid(id), depth)));
    }
    Ok(depths)
}

/// Messages that are being delivered to a workspace.
pub(in crate::messages) async fn in_flight(tx: &mut Tx, workspace: WorkspaceId) -> Done<i64> {
    on!(tx, c => sqlx::query_scalar("SELECT COUNT(*) FROM messages WHERE workspace_id = $1 AND state = 'delivering'")
        .bind(workspace.uuid()).fetch_one(c).await)
}

/// A workspace for which a message waits.
#[derive(sqlx::FromRow)]
pub(in crate::messages) struct Waits {
    pub(in crate::messages) id: Uuid,
    /// A message is due, and nothing holds it.
    pub(in crate::messages) due: bool,
    /// Its agent can take one more.
    pub(in crate::messages) ready: bool,
    /// It sleeps, and nothing keeps it from being woken.
    pub(in crate::messages) sleeps: bool,
}

/// Workspaces for which a message waits. Each is looked up by its own step into the index, however long its queue.
pub(in crate::messages) async fn waiting(tx: &mut Tx, now: Timestamp) -> Done<Vec<Waits>> {
    on!(tx, c => sqlx::query_as("WITH RECURSIVE q (id) AS (
                SELECT (SELECT workspace_id FROM messages WHERE state = 'accepted' ORDER BY workspace_id LIMIT 1)
                UNION ALL
                SELECT (SELECT m.workspace_id FROM messages m WHERE m.state = 'accepted' AND m.workspace_id > q.id
                    ORDER BY m.workspace_id LIMIT 1)
                FROM q WHERE q.id IS NOT NULL)
            SELECT w.id,
                w.url <> '' AND w.status IN ('online', 'degraded') AND w.intent = 'running'
                    AND (SELECT COUNT(*) FROM messages d WHERE d.workspace_id = w.id AND d.state = 'delivering')
                        < w.max_concurrent_tasks AS ready,
                w.intent = 'hibernated' AS sleeps,
                EXISTS (SELECT 1 FROM messages m WHERE m.workspace_id = w.id AND m.state = 'accepted' AND m.due_at <= $1
                    AND (m.expires_at IS NULL OR m.expires_at > $1))
                AND NOT EXISTS (SELECT 1 FROM message_holds h WHERE h.workspace_id = w.id AND h.until > $1) AS due
            FROM q JOIN workspaces w ON w.id = q.id WHERE w.status <> 'removed'")
        .bind(now.micros()).fetch_all(c).await)
}

/// Messages that expired while they waited, and those to workspaces that are no more.
pub(in crate::messages) async fn hopeless(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Done<Vec<MessageId>> {
    let ids: Vec<Uuid> = on!(tx, c => sqlx::query_scalar("SELECT m.id FROM messages m
            JOIN workspaces w ON w.id = m.workspace_id
            WHERE m.state = 'accepted' AND (m.expires_at <= $1 OR w.status = 'removed') LIMIT $2")
        .bind(now.micros()).bind(limit).fetch_all(c).await)?;
    Ok(ids.into_iter().map(MessageId::from_uuid).collect())
}

/// End one that waits, if it still does: it expired, or its workspace is no more.
pub(in crate::messages) async fn give_up(
    tx: &mut Tx,
    id: MessageId,
    now: Timestamp,
) -> Done<Option<Message>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE messages SET state = CASE WHEN expires_at <= $1 THEN 'expired' ELSE 'dead' END, ended_at = $1,
                last_error = CASE WHEN expires_at <= $1 THEN COALESCE(last_error || '; ', '') || 'it was not delivered in time'
                    ELSE 'its workspace was deleted' END
             WHERE id = $2 AND state = 'accepted' AND (expires_at <= $1 OR EXISTS (
                SELECT 1 FROM workspaces w WHERE w.id = messages.workspace_id AND w.status = 'removed'))
             RETURNING ", columns!()))
        .bind(now.micros()).bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Message::try_from).transpose()
}

/// What waits for a workspace is due.
pub(in crate::messages) async fn due(tx: &mut Tx, workspace: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE messages SET due_at = $1 WHERE workspace_id = $2 AND state = 'accepted' AND due_at > $1")
        .bind(now.micros()).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Hold a workspace until then.
pub(in crate::messages) async fn hold(
    tx: &mut Tx,
    workspace: WorkspaceId,
    reason: &str,
    until: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO message_holds (workspace_id, reason, until) VALUES ($1, $2, $3)
            ON CONFLICT (workspace_id) DO UPDATE SET reason = $2, until = $3")
        .bind(workspace.uuid()).bind(reason).bind(until.micros()).execute(c).await.map(|_| ()))
}

/// Hold it no longer.
pub(in crate::messages) async fn release(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM message_holds WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Until when a workspace is held.
pub(in crate::messages) async fn held(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Done<Option<Timestamp>> {
    let until: Option<i64> = on!(tx, c => sqlx::query_scalar(
            "SELECT until FROM message_holds WHERE workspace_id = $1 AND until > $2")
        .bind(workspace.uuid()).bind(now.micros()).fetch_optional(c).await)?;
    Ok(until.map(Timestamp::from_micros))
}

/// Accept one again that was over, for this caller or operator. `false`: it is not as it was.
pub(in crate::messages) async fn reaccept(
    tx: &mut Tx,
    id: MessageId,
    was: State,
    (again, expires): (bool, Timestamp),
    now: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE messages SET state = 'accepted', failures = 0, accepted_at = $1, due_at = $1,
                expires_at = $2, ended_at = NULL, delivered_at = NULL, started_at = NULL, response_status = NULL,
                response = NULL, response_type = NULL, again = $3,
                origin = CASE WHEN origin = 'direct' THEN 'queue' ELSE origin END
            WHERE id = $4 AND state = $5")
        .bind(now.micros()).bind(expires.micros()).bind(again).bind(id.uuid()).bind(was.as_str())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Its answer was read by its caller.
pub(in crate::messages) async fn acknowledge(
    tx: &mut Tx,
    id: MessageId,
    now: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE messages SET state = 'acknowledged', acknowledged_at = $1
            WHERE id = $2 AND state = 'processed'")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Take an open one away; its lease ends with it. `None`: it is over.
pub(in crate::messages) async fn drop_one(
    tx: &mut Tx,
    id: MessageId,
    why: &str,
    now: Timestamp,
) -> Done<Option<Message>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE messages SET state = 'dropped', ended_at = $1, leased_until = NULL,
                maybe_run = CASE WHEN state = 'delivering' THEN $2 ELSE maybe_run END,
                last_error = COALESCE(last_error || '; ', '') || $3
             WHERE id = $4 AND state IN ('accepted', 'delivering') RETURNING ", columns!()))
        .bind(now.micros()).bind(true).bind(why).bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Message::try_from).transpose()
}

/// Take away what has waited since before then; of one workspace, or of all.
pub(in crate::messages) async fn drop_stale(
    tx: &mut Tx,
    of: Option<WorkspaceId>,
    before: Timestamp,
    why: &str,
    now: Timestamp,
) -> Done<Vec<Message>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE messages SET state = 'dropped', ended_at = $1, last_error = COALESCE(last_error || '; ', '') || $2
             WHERE state = 'accepted' AND accepted_at < $3 AND ($4 IS NULL OR workspace_id = $4) RETURNING ", columns!()))
        .bind(now.micros()).bind(why).bind(before.micros()).bind(of.map(WorkspaceId::uuid)).fetch_all(c).await)?;
    all(rows)
}

/// Take away what was over before then. Gives how many.
pub(in crate::messages) async fn forget(tx: &mut Tx, before: Timestamp, limit: i64) -> Done<u64> {
    on!(tx, c => sqlx::query("DELETE FROM messages WHERE id IN (
                SELECT id FROM messages WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)")
        .bind(before.micros()).bind(limit).execute(c).await.map(|done| done.rows_affected()))
}

/// Take away one that was over before then, whose name is wanted for another. `false`: there is none.
pub(in crate::messages) async fn forget_one(
    tx: &mut Tx,
    id: MessageId,
    before: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("DELETE FROM messages WHERE id = $1 AND ended_at < $2")
        .bind(id.uuid()).bind(before.micros()).execute(c).await.map(|done| done.rows_affected() == 1))
}
