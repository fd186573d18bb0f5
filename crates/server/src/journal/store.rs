//! Journal and events in the database.

use ligand_api::journal::{Entry, Event, Recorded};
use ligand_domain::id::{EventId, Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::Kind;
use crate::db::{Tx, on};

pub(super) struct NewEntry {
    pub(super) seq: i64,
    pub(super) at: Timestamp,
    pub(super) workspace: WorkspaceId,
    pub(super) generation: Option<Generation>,
    pub(super) kind: Kind,
    pub(super) summary: String,
    pub(super) evidence: Value,
}

pub(super) struct NewEvent {
    pub(super) seq: i64,
    pub(super) id: EventId,
    pub(super) at: Timestamp,
    pub(super) event: &'static str,
    pub(super) workspace: WorkspaceId,
    pub(super) payload: Value,
}

/// Take the next `count` numbers, and give the last of them. Nobody else gets one until the commit.
pub(super) async fn take_numbers(tx: &mut Tx, count: i64) -> Result<i64, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("UPDATE sequence SET value = value + $1 WHERE id = 1 RETURNING value")
        .bind(count).fetch_one(c).await)
}

/// Take one number, unless an entry says the same since the newest one of another kind, or there is no such
/// workspace.
pub(super) async fn take_number_if_new(
    tx: &mut Tx,
    workspace: WorkspaceId,
    kind: Kind,
    summary: &str,
) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("UPDATE sequence SET value = value + 1 WHERE id = 1
            AND EXISTS (SELECT 1 FROM workspaces WHERE id = $1)
            AND NOT EXISTS (
                SELECT 1 FROM journal WHERE workspace_id = $1 AND kind = $2 AND summary = $3 AND seq > (
                    SELECT COALESCE(MAX(seq), 0) FROM journal WHERE workspace_id = $1 AND kind <> $2))
            RETURNING value")
        .bind(workspace.uuid()).bind(kind.as_str()).bind(summary).fetch_optional(c).await)
}

/// Insert an entry, or run the same statement and insert none.
pub(super) async fn insert_entry_if(
    tx: &mut Tx,
    new: NewEntry,
    really: bool,
) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("INSERT INTO journal (seq, at, workspace_id, generation, kind, summary, evidence)
            SELECT $1, $2, $3, $4, $5, $6, $7 WHERE $8")
        .bind(new.seq).bind(new.at.micros()).bind(new.workspace.uuid())
        .bind(new.generation.map(Generation::number)).bind(new.kind.as_str())
        .bind(&new.summary).bind(new.evidence.to_string()).bind(really)
        .execute(c).await.map(|_| ()))
}

pub(super) async fn insert_entry(tx: &mut Tx, new: NewEntry) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("INSERT INTO journal (seq, at, workspace_id, generation, kind, summary, evidence)
            VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(new.seq).bind(new.at.micros()).bind(new.workspace.uuid())
        .bind(new.generation.map(Generation::number)).bind(new.kind.as_str())
        .bind(&new.summary).bind(new.evidence.to_string())
        .execute(c).await.map(|_| ()))
}

pub(super) async fn insert_event(tx: &mut Tx, new: NewEvent) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("INSERT INTO events (seq, id, at, event_type, workspace_id, payload)
            VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(new.seq).bind(new.id.uuid()).bind(new.at.micros()).bind(new.event)
        .bind(new.workspace.uuid()).bind(new.payload.to_string())
        .execute(c).await.map(|_| ()))
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    seq: i64,
    at: i64,
    generation: Option<i64>,
    kind: String,
    summary: String,
    evidence: String,
}

/// The newest `limit` entries, oldest first.
pub(super) async fn entries(
    tx: &mut Tx,
    workspace: WorkspaceId,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows: Vec<EntryRow> = on!(tx, c => sqlx::query_as(
            "SELECT seq, at, generation, kind, summary, evidence FROM journal
             WHERE workspace_id = $1 ORDER BY seq DESC LIMIT $2")
        .bind(workspace.uuid()).bind(limit).fetch_all(c).await)?;
    let entry = |row: EntryRow| Entry {
        seq: row.seq,
        at: Timestamp::from_micros(row.at).to_string(),
        generation: row.generation,
        kind: row.kind,
        summary: row.summary,
        evidence: json(&row.evidence),
    };
    Ok(rows.into_iter().rev().map(entry).collect())
}

#[derive(sqlx::FromRow)]
struct EventRow {
    seq: i64,
    id: Uuid,
    at: i64,
    event_type: String,
    workspace_id: Option<Uuid>,
    payload: String,
}

/// Events after `seq`, oldest first; of one workspace, or of all.
pub(super) async fn events_after(
    tx: &mut Tx,
    seq: i64,
    of: Option<WorkspaceId>,
    limit: i64,
) -> Result<Vec<Event>, sqlx::Error> {
    let rows: Vec<EventRow> = on!(tx, c => sqlx::query_as(
            "SELECT seq, id, at, event_type, workspace_id, payload FROM events
             WHERE seq > $1 AND ($2 IS NULL OR workspace_id = $2) ORDER BY seq LIMIT $3")
        .bind(seq).bind(of.map(WorkspaceId::uuid)).bind(limit).fetch_all(c).await)?;
    let event = |row: EventRow| Event {
        seq: Some(row.seq),
        event: row.event_type,
        workspace_id: row.workspace_id,
        timestamp: Timestamp::from_micros(row.at).to_string(),
        payload: json(&row.payload),
    };
    Ok(rows.into_iter().map(event).collect())
}

/// The newest events, newest first; of one workspace, or of all.
pub(super) async fn newest_events(
    tx: &mut Tx,
    of: Option<WorkspaceId>,
    limit: i64,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let rows: Vec<EventRow> = on!(tx, c => sqlx::query_as(
            "SELECT seq, id, at, event_type, workspace_id, payload FROM events
             WHERE ($1 IS NULL OR workspace_id = $1) ORDER BY seq DESC LIMIT $2")
        .bind(of.map(WorkspaceId::uuid)).bind(limit).fetch_all(c).await)?;
    let recorded = |row: EventRow| Recorded {
        seq: row.seq,
        id: row.id,
        event_type: row.event_type,
        workspace_id: row.workspace_id,
        payload: json(&row.payload),
        created_at: Timestamp::from_micros(row.at).to_string(),
    };
    Ok(rows.into_iter().map(recorded).collect())
}

/// The last number that was given out.
pub(super) async fn last_number(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, c => sqlx::query_scalar("SELECT value FROM sequence WHERE id = 1").fetch_one(c).await)
}

pub(super) async fn purge(tx: &mut Tx, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    on!(tx, c => sqlx::query("DELETE FROM journal WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("DELETE FROM events WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// What we wrote as JSON reads back as JSON; anything else is shown as the text that it is.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
