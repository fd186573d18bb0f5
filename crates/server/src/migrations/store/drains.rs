//! Drains in the database.

use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use crate::db::{Claims, Tx, claims, on};
use crate::migrations::Done;
use crate::migrations::drains::{Drain, Member, Standing, State};
use crate::migrations::store::{duration, micros};

macro_rules! columns {
    () => {
        "id, source_backend, target_backend, concurrency, stop_after, grace, forgiven, state, cause, asked_at, ended_at"
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    source_backend: String,
    target_backend: String,
    concurrency: i64,
    stop_after: i64,
    grace: Option<i64>,
    forgiven: i64,
    state: String,
    cause: Option<String>,
    asked_at: i64,
    ended_at: Option<i64>,
}

fn unknown(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds a value that this version does not know").into())
}

impl TryFrom<Row> for Drain {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id,
            from: row.source_backend,
            to: row.target_backend,
            concurrency: row.concurrency,
            stop_after: row.stop_after,
            grace: row.grace.map(duration),
            forgiven: row.forgiven,
            state: State::parse(&row.state).ok_or_else(|| unknown("drains.state"))?,
            cause: row.cause,
            asked_at: Timestamp::from_micros(row.asked_at),
            ended_at: row.ended_at.map(Timestamp::from_micros),
        })
    }
}

/// A new one. `false`: its backend is being drained already.
pub(in crate::migrations) async fn insert(tx: &mut Tx, new: &Drain) -> Done<bool> {
    on!(tx, c => sqlx::query("INSERT INTO drains (id, source_backend, target_backend, concurrency, stop_after, state,
            asked_at, due_at, grace) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8) ON CONFLICT DO NOTHING")
        .bind(new.id).bind(&new.from).bind(&new.to).bind(new.concurrency).bind(new.stop_after)
        .bind(new.state.as_str()).bind(new.asked_at.micros()).bind(new.grace.map(micros))
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// One of those that are to leave.
pub(in crate::migrations) async fn insert_member(
    tx: &mut Tx,
    drain: Uuid,
    number: i64,
    (workspace, name): (WorkspaceId, &str),
) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO drain_members (drain_id, workspace_id, number, name, state)
            VALUES ($1, $2, $3, $4, $5)")
        .bind(drain).bind(workspace.uuid()).bind(number).bind(name).bind(Standing::Waiting.as_str())
        .execute(c).await.map(|_| ()))
}

pub(in crate::migrations) async fn get(tx: &mut Tx, id: Uuid) -> Done<Option<Drain>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM drains WHERE id = $1"))
        .bind(id).fetch_optional(c).await)?;
    row.map(Drain::try_from).transpose()
}

/// Newest first.
pub(in crate::migrations) async fn list(tx: &mut Tx, limit: i64) -> Done<Vec<Drain>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM drains ORDER BY asked_at DESC, id LIMIT $1"))
        .bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Drain::try_from).collect()
}

/// Write back where it stands.
pub(in crate::migrations) async fn save(tx: &mut Tx, it: &Drain) -> Done {
    on!(tx, c => sqlx::query("UPDATE drains SET state = $2, cause = $3, ended_at = $4, forgiven = $5 WHERE id = $1")
        .bind(it.id).bind(it.state.as_str()).bind(&it.cause).bind(it.ended_at.map(Timestamp::micros))
        .bind(it.forgiven).execute(c).await.map(|_| ()))
}

type Found = (Uuid, String, String, Option<Uuid>, Option<String>);

/// Everything that is to leave, in its order.
pub(in crate::migrations) async fn members(tx: &mut Tx, drain: Uuid) -> Done<Vec<Member>> {
    let rows: Vec<Found> = on!(tx, c => sqlx::query_as(
            "SELECT workspace_id, name, state, migration_id, cause FROM drain_members
             WHERE drain_id = $1 ORDER BY number")
        .bind(drain).fetch_all(c).await)?;
    let member = |(workspace, name, state, migration, cause): Found| {
        Ok(Member {
            workspace: WorkspaceId::from_uuid(workspace),
            name,
            standing: Standing::parse(&state).ok_or_else(|| unknown("drain_members.state"))?,
            migration,
            cause,
        })
    };
    rows.into_iter().map(member).collect()
}

/// Where one of them stands.
pub(in crate::migrations) async fn save_member(tx: &mut Tx, drain: Uuid, of: &Member) -> Done {
    on!(tx, c => sqlx::query("UPDATE drain_members SET state = $3, migration_id = $4, cause = $5
            WHERE drain_id = $1 AND workspace_id = $2")
        .bind(drain).bind(of.workspace.uuid()).bind(of.standing.as_str()).bind(of.migration).bind(&of.cause)
        .execute(c).await.map(|_| ()))
}

/// Who looks at which.
pub(in crate::migrations) static CLAIMS: Claims =
    claims!("drains", open: "ended_at IS NULL AND ", known_by: "id");

/// Look at it now.
pub(in crate::migrations) async fn wake(tx: &mut Tx, id: Uuid, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE drains SET due_at = $1 WHERE id = $2 AND ended_at IS NULL AND due_at > $1")
        .bind(now.micros()).bind(id).execute(c).await.map(|_| ()))
}

/// When the next can be taken.
pub(in crate::migrations) async fn next_due(tx: &mut Tx) -> Done<Option<Timestamp>> {
    let due: Option<i64> = on!(tx, c => sqlx::query_scalar(
            "SELECT MIN(CASE WHEN claimed_until > due_at THEN claimed_until ELSE due_at END)
             FROM drains WHERE ended_at IS NULL")
        .fetch_one(c).await)?;
    Ok(due.map(Timestamp::from_micros))
}
