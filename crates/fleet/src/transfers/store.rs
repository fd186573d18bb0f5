//! Transfers in the database.

use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use ligand_server::db::{Tx, on};
use uuid::Uuid;

use super::{Item, State, Transfer};

type Done<T = ()> = Result<T, sqlx::Error>;
type Row = (Uuid, String, String, i64, i64, i64, String, i64, Option<i64>);

macro_rules! columns {
    () => {
        "id, source, target, concurrency, stop_after, forgiven, state, started_at, ended_at"
    };
}

fn transfer(row: Row) -> Done<Transfer> {
    let (id, from, to, concurrency, stop_after, forgiven, state, started, ended) = row;
    let unreadable = || sqlx::Error::ColumnDecode {
        index: "state".to_owned(),
        source: "a word that is not known".into(),
    };
    Ok(Transfer {
        id,
        from,
        to,
        concurrency,
        stop_after,
        forgiven,
        state: State::parse(&state).ok_or_else(unreadable)?,
        started_at: Timestamp::from_micros(started),
        ended_at: ended.map(Timestamp::from_micros),
    })
}

pub(super) async fn insert(tx: &mut Tx, new: &Transfer) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO transfers (id, source, target, concurrency, stop_after, state, started_at, due_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $7)")
        .bind(new.id).bind(&new.from).bind(&new.to).bind(new.concurrency).bind(new.stop_after).bind(new.state.as_str())
        .bind(new.started_at.micros()).execute(c).await.map(|_| ()))
}

pub(super) async fn insert_item(tx: &mut Tx, of: Uuid, workspace: WorkspaceId, org: &str) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO transfer_items (transfer_id, workspace_id, org_id, state, attempts)
            VALUES ($1, $2, $3, 'waiting', 0)")
        .bind(of).bind(workspace.uuid()).bind(org).execute(c).await.map(|_| ()))
}

pub(super) async fn get(tx: &mut Tx, id: Uuid) -> Done<Option<Transfer>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM transfers WHERE id = $1"))
        .bind(id).fetch_optional(c).await)?;
    row.map(transfer).transpose()
}

/// The newest first; with a workspace, those that it is part of.
pub(super) async fn newest(
    tx: &mut Tx,
    workspace: Option<WorkspaceId>,
    most: i64,
) -> Done<Vec<Transfer>> {
    let rows: Vec<Row> = match workspace {
        Some(workspace) => {
            on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM transfers WHERE id IN
                    (SELECT transfer_id FROM transfer_items WHERE workspace_id = $1) ORDER BY started_at DESC, id LIMIT $2"))
                .bind(workspace.uuid()).bind(most).fetch_all(c).await)?
        }
        None => {
            on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM transfers ORDER BY started_at DESC, id LIMIT $1"))
                .bind(most).fetch_all(c).await)?
        }
    };
    rows.into_iter().map(transfer).collect()
}

type ItemRow = (Uuid, String, String, Option<String>, Option<String>, Option<String>, i64);

pub(super) async fn items(tx: &mut Tx, of: Uuid) -> Done<Vec<Item>> {
    let rows: Vec<ItemRow> = on!(tx, c => sqlx::query_as(
            "SELECT workspace_id, org_id, state, migration_id, phase, cause, attempts FROM transfer_items
             WHERE transfer_id = $1 ORDER BY org_id, workspace_id")
        .bind(of).fetch_all(c).await)?;
    let of = |(workspace, org, state, migration, phase, cause, attempts): ItemRow| Item {
        workspace: WorkspaceId::from_uuid(workspace),
        org,
        state,
        migration,
        phase,
        cause,
        attempts,
    };
    Ok(rows.into_iter().map(of).collect())
}

/// Whether a workspace is part of a transfer that is not over, and has left or may yet leave with it.
pub(super) async fn on_its_way(tx: &mut Tx, workspace: WorkspaceId) -> Done<bool> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM transfer_items i JOIN transfers t ON t.id = i.transfer_id
            WHERE i.workspace_id = $1 AND t.ended_at IS NULL
            AND (i.state = 'asked' OR i.state = 'waiting' AND t.state IN ('running', 'paused')))")
        .bind(workspace.uuid()).fetch_one(c).await)
}

/// Take one that is due: nobody else does until then.
pub(super) async fn take(tx: &mut Tx, now: Timestamp, until: Timestamp) -> Done<Option<Transfer>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE transfers SET due_at = $1 WHERE id = (SELECT id FROM transfers
                WHERE ended_at IS NULL AND due_at <= $2 ORDER BY due_at, id LIMIT 1)
             AND ended_at IS NULL AND due_at <= $2 RETURNING ", columns!()))
        .bind(until.micros()).bind(now.micros()).fetch_optional(c).await)?;
    row.map(transfer).transpose()
}

pub(super) async fn save_item(tx: &mut Tx, of: Uuid, it: &Item) -> Done {
    on!(tx, c => sqlx::query("UPDATE transfer_items SET state = $1, migration_id = $2, phase = $3, cause = $4, attempts = $5
            WHERE transfer_id = $6 AND workspace_id = $7")
        .bind(&it.state).bind(&it.migration).bind(&it.phase).bind(&it.cause).bind(it.attempts).bind(of)
        .bind(it.workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Look again then.
pub(super) async fn later(tx: &mut Tx, id: Uuid, due: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE transfers SET due_at = $1 WHERE id = $2")
        .bind(due.micros()).bind(id).execute(c).await.map(|_| ()))
}

/// It is over, if nobody asked for anything else meanwhile.
pub(super) async fn end(tx: &mut Tx, it: &Transfer, state: State, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE transfers SET state = $1, ended_at = $2 WHERE id = $3 AND state = $4 AND ended_at IS NULL")
        .bind(state.as_str()).bind(now.micros()).bind(it.id).bind(it.state.as_str())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// What a person wants of it. Whoever carries it out comes to it within moments.
pub(super) async fn want(tx: &mut Tx, it: &Transfer) -> Done {
    on!(tx, c => sqlx::query("UPDATE transfers SET state = $1, forgiven = $2, ended_at = $3 WHERE id = $4")
        .bind(it.state.as_str()).bind(it.forgiven).bind(it.ended_at.map(Timestamp::micros)).bind(it.id)
        .execute(c).await.map(|_| ()))
}

/// Read one, and keep everybody else from deciding about it until the transaction ends.
pub(super) async fn lock(tx: &mut Tx, id: Uuid) -> Done<Option<Transfer>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE transfers SET forgiven = forgiven WHERE id = $1 RETURNING ", columns!()))
        .bind(id).fetch_optional(c).await)?;
    row.map(transfer).transpose()
}
