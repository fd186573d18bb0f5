//! Leases: who delivers a message, and what came of it.

use std::ops::DerefMut;

use ligand_domain::id::{Generation, MessageId, WorkspaceId};
use ligand_domain::message::{Evidence, Origin, State};
use ligand_domain::time::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::{Done, Row, columns};
use crate::db::{On, Single, Tx, on};
use crate::messages::row::{Lease, Message};

/// A message that is about to be delivered by whoever writes it down.
pub(in crate::messages) struct Direct<'a> {
    pub(in crate::messages) lease: Lease,
    pub(in crate::messages) workspace: WorkspaceId,
    pub(in crate::messages) caller: Option<WorkspaceId>,
    pub(in crate::messages) method: Option<&'a str>,
    pub(in crate::messages) key: Option<&'a str>,
    pub(in crate::messages) digest: &'a [u8],
    pub(in crate::messages) body: &'a str,
    pub(in crate::messages) headers: &'a str,
    pub(in crate::messages) until: Timestamp,
}

/// Write it down, leased, unless its workspace is held. `false`: it is held. A name that is taken is a violation of
/// the index.
pub(in crate::messages) async fn open(
    single: &mut Single,
    new: &Direct<'_>,
    now: Timestamp,
) -> Done<bool> {
    on!(single, c => sqlx::query("INSERT INTO messages (id, workspace_id, caller_id, origin, method, key, digest, body,
                headers, state, attempt, generation, holder, leased_until, accepted_at, due_at)
            SELECT $1, $2, $3, 'direct', $4, $5, $6, $7, $8, 'delivering', $9, $10, $11, $12, $13, $13
            WHERE NOT EXISTS (SELECT 1 FROM message_holds WHERE workspace_id = $2 AND until > $13)")
        .bind(new.lease.id.uuid()).bind(new.workspace.uuid()).bind(new.caller.map(WorkspaceId::uuid))
        .bind(new.method).bind(new.key).bind(new.digest).bind(new.body).bind(new.headers)
        .bind(new.lease.attempt).bind(new.lease.generation.number()).bind(new.lease.holder)
        .bind(new.until.micros()).bind(now.micros())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Open one anew that was over, as [`open`]. `false`: it is held, or somebody else did.
pub(in crate::messages) async fn reopen(
    tx: &mut Tx,
    (lease, until): (Lease, Timestamp),
    was: State,
    now: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE messages SET state = 'delivering', origin = 'direct', attempt = $1, failures = 0,
                generation = $2, holder = $3, leased_until = $4, accepted_at = $5, due_at = $5, expires_at = NULL,
                ended_at = NULL, delivered_at = NULL, started_at = NULL, response_status = NULL, response = NULL,
                response_type = NULL, again = $6
            WHERE id = $7 AND state = $8 AND attempt = $1 - 1
              AND NOT EXISTS (SELECT 1 FROM message_holds h WHERE h.workspace_id = messages.workspace_id AND h.until > $5)")
        .bind(lease.attempt).bind(lease.generation.number()).bind(lease.holder).bind(until.micros())
        .bind(now.micros()).bind(false).bind(lease.id.uuid()).bind(was.as_str())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Hold on to a lease. `false`: it is somebody else's.
pub(in crate::messages) async fn renew(
    single: &mut Single,
    lease: Lease,
    until: Timestamp,
) -> Done<bool> {
    on!(single, c => sqlx::query("UPDATE messages SET leased_until = $1
            WHERE id = $2 AND state = 'delivering' AND attempt = $3 AND generation = $4 AND holder = $5")
        .bind(until.micros()).bind(lease.id.uuid()).bind(lease.attempt).bind(lease.generation.number())
        .bind(lease.holder).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// What is written down of an attempt that is over.
pub(in crate::messages) struct End<'a> {
    pub(in crate::messages) to: State,
    /// Where it comes from, from now on.
    pub(in crate::messages) origin: Origin,
    pub(in crate::messages) maybe_run: bool,
    pub(in crate::messages) failures: i64,
    /// When the next attempt may begin, if there is one.
    pub(in crate::messages) due: Timestamp,
    pub(in crate::messages) expires: Option<Timestamp>,
    pub(in crate::messages) delivered: Option<Timestamp>,
    pub(in crate::messages) started: Option<Timestamp>,
    pub(in crate::messages) status: Option<i64>,
    pub(in crate::messages) kind: Option<&'a str>,
    pub(in crate::messages) response: Option<&'a str>,
    pub(in crate::messages) cut: bool,
    pub(in crate::messages) evidence: Option<Evidence>,
    pub(in crate::messages) error: Option<&'a str>,
}

/// By whose word it ends.
#[derive(Clone, Copy)]
pub(in crate::messages) struct Word {
    pub(in crate::messages) lease: Lease,
    /// The origin that was decided on; a done message is done whatever its origin.
    pub(in crate::messages) origin: Option<Origin>,
    /// A mutant: any attempt's word counts.
    pub(in crate::messages) any_attempt: bool,
    /// The agent's own word, which no server passes on.
    pub(in crate::messages) any_holder: bool,
}

/// Write down what came of an attempt, if it still holds the lease. `false`: it does not.
pub(in crate::messages) async fn end<P, S>(
    on: &mut On<P, S>,
    word: Word,
    end: &End<'_>,
    now: Timestamp,
) -> Done<bool>
where
    P: DerefMut<Target = PgConnection> + Send,
    S: DerefMut<Target = SqliteConnection> + Send,
{
    let over = (!end.to.is_open()).then_some(now.micros());
    let done = end.to.is_done().then_some(now.micros());
    let lease = word.lease;
    on!(on, c => sqlx::query("UPDATE messages SET state = $1, origin = CASE WHEN $1 = 'processed' THEN origin ELSE $2 END,
                maybe_run = $3, failures = $4, due_at = $5, expires_at = COALESCE(expires_at, $6),
                delivered_at = COALESCE(delivered_at, $7), started_at = COALESCE($8, started_at), processed_at = $9,
                ended_at = $10, response_status = $11, response_type = $12, response = $13, response_cut = $14,
                evidence = $15, last_error = $16, leased_until = NULL
            WHERE id = $17 AND state = 'delivering' AND (attempt = $18 OR $19) AND generation = $20
              AND (holder = $21 OR $22) AND ($23 IS NULL OR origin = $23)")
        .bind(end.to.as_str()).bind(end.origin.as_str()).bind(end.maybe_run).bind(end.failures)
        .bind(end.due.micros()).bind(end.expires.map(Timestamp::micros))
        .bind(end.delivered.map(Timestamp::micros)).bind(end.started.map(Timestamp::micros)).bind(done).bind(over)
        .bind(end.status).bind(end.kind).bind(end.response).bind(end.cut)
        .bind(end.evidence.map(Evidence::as_str)).bind(end.error)
        .bind(lease.id.uuid()).bind(lease.attempt).bind(word.any_attempt).bind(lease.generation.number())
        .bind(lease.holder).bind(word.any_holder).bind(word.origin.map(Origin::as_str))
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Promise its delivery to the caller of a direct call that goes on. `false`: it is over, or somebody else's.
pub(in crate::messages) async fn promise(
    tx: &mut Tx,
    lease: Lease,
    expires: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE messages SET origin = 'queue', expires_at = $1
            WHERE id = $2 AND state = 'delivering' AND attempt = $3 AND generation = $4 AND holder = $5
              AND origin = 'direct'")
        .bind(expires.micros()).bind(lease.id.uuid()).bind(lease.attempt).bind(lease.generation.number())
        .bind(lease.holder).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Lease the next message of a workspace, whose row is locked: that of the highest priority, of these the oldest.
/// `None`: none is due, or as many are under way as may be.
pub(in crate::messages) async fn claim(
    tx: &mut Tx,
    (workspace, generation): (WorkspaceId, Generation),
    most: i64,
    (holder, until): (Uuid, Timestamp),
    now: Timestamp,
) -> Done<Option<Message>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE messages SET state = 'delivering', attempt = attempt + 1, generation = $1, holder = $2,
                leased_until = $3
             WHERE id = (SELECT m.id FROM messages m WHERE m.workspace_id = $4 AND m.state = 'accepted'
                    AND m.due_at <= $5 AND (m.expires_at IS NULL OR m.expires_at > $5)
                    ORDER BY m.priority DESC, m.accepted_at, m.id LIMIT 1)
               AND state = 'accepted'
               AND (SELECT COUNT(*) FROM messages d WHERE d.workspace_id = $4 AND d.state = 'delivering') < $6
               AND NOT EXISTS (SELECT 1 FROM message_holds h WHERE h.workspace_id = $4 AND h.until > $5)
             RETURNING ", columns!()))
        .bind(generation.number()).bind(holder).bind(until.micros()).bind(workspace.uuid()).bind(now.micros())
        .bind(most).fetch_optional(c).await)?;
    row.map(Message::try_from).transpose()
}

/// Every lease ends now.
pub(in crate::messages) async fn lapse_all(tx: &mut Tx, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE messages SET leased_until = $1 WHERE state = 'delivering' AND leased_until > $1")
        .bind(now.micros()).execute(c).await.map(|_| ()))
}

/// Messages whose lease lapsed.
pub(in crate::messages) async fn lapsed(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Done<Vec<MessageId>> {
    let ids: Vec<Uuid> = on!(tx, c => sqlx::query_scalar(
            "SELECT id FROM messages WHERE state = 'delivering' AND leased_until <= $1 LIMIT $2")
        .bind(now.micros()).bind(limit).fetch_all(c).await)?;
    Ok(ids.into_iter().map(MessageId::from_uuid).collect())
}

/// Take a lapsed lease away from whoever had it, and lock the message. `None`: it is renewed, or over.
pub(in crate::messages) async fn take_lapsed(
    tx: &mut Tx,
    id: MessageId,
    now: Timestamp,
) -> Done<Option<Message>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE messages SET leased_until = 0 WHERE id = $1 AND state = 'delivering' AND leased_until <= $2
             RETURNING ", columns!()))
        .bind(id.uuid()).bind(now.micros()).fetch_optional(c).await)?;
    row.map(Message::try_from).transpose()
}

/// Its agent has it, or began with it, as it says itself. `false`: that attempt no longer counts.
pub(in crate::messages) async fn reached(
    tx: &mut Tx,
    lease: Lease,
    any_attempt: bool,
    (received, started): (Timestamp, Option<Timestamp>),
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE messages SET delivered_at = COALESCE(delivered_at, $1),
                started_at = COALESCE(started_at, $2), evidence = 'agent'
            WHERE id = $3 AND state = 'delivering' AND (attempt = $4 OR $5) AND generation = $6")
        .bind(received.micros()).bind(started.map(Timestamp::micros)).bind(lease.id.uuid()).bind(lease.attempt)
        .bind(any_attempt).bind(lease.generation.number()).execute(c).await.map(|done| done.rows_affected() == 1))
}
