//! Migrations in the database.

pub(super) mod drains;

use std::time::Duration;

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::migration::{Data, Probe, Stage, Wish};
use ligand_domain::orphan::Label;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::{Done, Migration};
use crate::db::{Claims, Tx, claims, on};

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, workspace_id, source_backend, target_backend, source_generation, source_born, target_generation, stage, \
         reached, since, deadline, wish, grace, reason, cause, asked_at, ended_at, failures, last_error, \
         next_attempt_at, waits_for, stopping, source_ended, source_gone, target_gone, copied, complete, restored, \
         bytes_total, bytes_done, digest, held_at, released_at, url_before, url_after, probed_serial, probe_failed, \
         lacks, drain_id"
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    workspace_id: Uuid,
    source_backend: String,
    target_backend: String,
    source_generation: i64,
    source_born: i64,
    target_generation: Option<i64>,
    stage: String,
    reached: String,
    since: i64,
    deadline: i64,
    wish: String,
    grace: i64,
    reason: Option<String>,
    cause: Option<String>,
    asked_at: i64,
    ended_at: Option<i64>,
    failures: i64,
    last_error: Option<String>,
    next_attempt_at: Option<i64>,
    waits_for: Option<String>,
    stopping: bool,
    source_ended: bool,
    source_gone: bool,
    target_gone: bool,
    copied: bool,
    complete: bool,
    restored: bool,
    bytes_total: Option<i64>,
    bytes_done: i64,
    digest: Option<String>,
    held_at: Option<i64>,
    released_at: Option<i64>,
    url_before: String,
    url_after: Option<String>,
    probed_serial: Option<i64>,
    probe_failed: Option<String>,
    lacks: Option<String>,
    drain_id: Option<Uuid>,
}

pub(super) const fn wish_text(wish: Wish) -> &'static str {
    match wish {
        Wish::Go => "go",
        Wish::Pause => "pause",
        Wish::Abort => "abort",
    }
}

fn wish(text: &str) -> Option<Wish> {
    [Wish::Go, Wish::Pause, Wish::Abort].into_iter().find(|wish| wish_text(*wish) == text)
}

fn time(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn micros(of: Duration) -> i64 {
    i64::try_from(of.as_micros()).unwrap_or(i64::MAX)
}

impl TryFrom<Row> for Migration {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let unknown = |column: &str| {
            let what = format!("migrations.{column} holds a value that this version does not know");
            sqlx::Error::Decode(what.into())
        };
        let probe = match (row.probed_serial, row.probe_failed) {
            (_, Some(why)) => Probe::Failed(why),
            (Some(serial), None) => Probe::Completed(serial),
            (None, None) => Probe::None,
        };
        Ok(Self {
            id: row.id,
            workspace: WorkspaceId::from_uuid(row.workspace_id),
            from: row.source_backend,
            to: row.target_backend,
            source: Generation::new(row.source_generation),
            source_born: Generation::new(row.source_born),
            target: row.target_generation.map(Generation::new),
            stage: Stage::parse(&row.stage).ok_or_else(|| unknown("stage"))?,
            reached: Stage::parse(&row.reached).ok_or_else(|| unknown("reached"))?,
            since: Timestamp::from_micros(row.since),
            deadline: Timestamp::from_micros(row.deadline),
            wish: wish(&row.wish).ok_or_else(|| unknown("wish"))?,
            grace: duration(row.grace),
            reason: row.reason,
            cause: row.cause,
            asked_at: Timestamp::from_micros(row.asked_at),
            ended_at: time(row.ended_at),
            failures: row.failures,
            last_error: row.last_error,
            next_attempt_at: time(row.next_attempt_at),
            waits_for: row.waits_for,
            stopping: row.stopping,
            source_ended: row.source_ended,
            source_gone: row.source_gone,
            target_gone: row.target_gone,
            data: Data { copied: row.copied, complete: row.complete, restored: row.restored },
            bytes_total: row.bytes_total,
            bytes_done: row.bytes_done,
            digest: row.digest,
            held_at: time(row.held_at),
            released_at: time(row.released_at),
            url_before: row.url_before,
            url_after: row.url_after,
            probe,
            lacks: row.lacks,
            drain: row.drain_id,
        })
    }
}

/// A new one. `false`: the workspace has one that is not over.
pub(super) async fn insert(tx: &mut Tx, new: &Migration) -> Done<bool> {
    let inserted = on!(tx, c => sqlx::query("INSERT INTO migrations (id, workspace_id, source_backend, target_backend,
            source_generation, source_born, stage, reached, since, deadline, wish, grace, reason, asked_at, url_before,
            drain_id, due_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, $8, $13, $14, $8)
            ON CONFLICT DO NOTHING")
        .bind(new.id).bind(new.workspace.uuid()).bind(&new.from).bind(&new.to).bind(new.source.number())
        .bind(new.source_born.number()).bind(new.stage.as_str()).bind(new.since.micros())
        .bind(new.deadline.micros()).bind(wish_text(new.wish)).bind(micros(new.grace)).bind(&new.reason)
        .bind(&new.url_before).bind(new.drain).execute(c).await.map(|done| done.rows_affected() == 1))?;
    if inserted {
        note_phase(tx, new.id, new.stage, new.since).await?;
    }
    Ok(inserted)
}

/// It entered a phase.
pub(super) async fn note_phase(tx: &mut Tx, id: Uuid, stage: Stage, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO migration_phases (migration_id, number, phase, at)
            SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3 FROM migration_phases WHERE migration_id = $1")
        .bind(id).bind(stage.as_str()).bind(now.micros()).execute(c).await.map(|_| ()))
}

/// Every phase that it entered, oldest first.
pub(super) async fn phases(tx: &mut Tx, id: Uuid) -> Done<Vec<(String, Timestamp)>> {
    let rows: Vec<(String, i64)> = on!(tx, c => sqlx::query_as(
            "SELECT phase, at FROM migration_phases WHERE migration_id = $1 ORDER BY number")
        .bind(id).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(phase, at)| (phase, Timestamp::from_micros(at))).collect())
}

/// Write back what a pass may change: not what a person wants of it, nor what its data came to meanwhile.
pub(super) async fn save(tx: &mut Tx, it: &Migration) -> Done {
    let (probed, failed) = match &it.probe {
        Probe::None => (None, None),
        Probe::Completed(serial) => (Some(*serial), None),
        Probe::Failed(why) => (None, Some(why.as_str())),
    };
    on!(tx, c => sqlx::query("UPDATE migrations SET target_generation = $2, stage = $3, reached = $4, since = $5,
            deadline = $6, cause = $7, ended_at = $8, failures = $9, last_error = $10, next_attempt_at = $11,
            waits_for = $12, stopping = $13, source_ended = $14, source_gone = $15, target_gone = $16, copied = $17,
            complete = $18, restored = $19, bytes_total = $20, bytes_done = $21, digest = $22, held_at = $23,
            released_at = $24, url_after = $25, probed_serial = $26, probe_failed = $27, lacks = $28, source_generation = $29, source_born = $30, url_before = $31 WHERE id = $1")
        .bind(it.id).bind(it.target.map(Generation::number)).bind(it.stage.as_str()).bind(it.reached.as_str())
        .bind(it.since.micros()).bind(it.deadline.micros()).bind(&it.cause).bind(it.ended_at.map(Timestamp::micros))
        .bind(it.failures).bind(&it.last_error).bind(it.next_attempt_at.map(Timestamp::micros)).bind(&it.waits_for)
        .bind(it.stopping).bind(it.source_ended).bind(it.source_gone).bind(it.target_gone).bind(it.data.copied)
        .bind(it.data.complete).bind(it.data.restored).bind(it.bytes_total).bind(it.bytes_done).bind(&it.digest)
        .bind(it.held_at.map(Timestamp::micros)).bind(it.released_at.map(Timestamp::micros)).bind(&it.url_after)
        .bind(probed).bind(failed).bind(&it.lacks).bind(it.source.number()).bind(it.source_born.number())
        .bind(&it.url_before).execute(c).await.map(|_| ()))
}

/// How far its data is, in this phase.
pub(super) async fn note_progress(tx: &mut Tx, id: Uuid, done: i64, total: Option<i64>) -> Done {
    on!(tx, c => sqlx::query("UPDATE migrations SET bytes_done = $2, bytes_total = COALESCE($3, bytes_total) WHERE id = $1")
        .bind(id).bind(done).bind(total).execute(c).await.map(|_| ()))
}

/// What the target of a workspace's migration does not prove; nothing, once it does.
pub(crate) async fn note_lacking(tx: &mut Tx, workspace: WorkspaceId, lacks: Option<&str>) -> Done {
    on!(tx, c => sqlx::query("UPDATE migrations SET lacks = $2
            WHERE workspace_id = $1 AND ended_at IS NULL AND COALESCE(lacks, '') <> COALESCE($2, '')")
        .bind(workspace.uuid()).bind(lacks).execute(c).await.map(|_| ()))
}

/// What it waits for, if that is something else than it was.
pub(super) async fn note_waiting(tx: &mut Tx, id: Uuid, what: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE migrations SET waits_for = $2 WHERE id = $1 AND COALESCE(waits_for, '') <> $2")
        .bind(id).bind(what).execute(c).await.map(|_| ()))
}

/// What a person wants of it, and when its phase is given up. It is due now.
pub(super) async fn want(
    tx: &mut Tx,
    id: Uuid,
    wish: Wish,
    deadline: Timestamp,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE migrations SET wish = $2, deadline = $3,
            due_at = CASE WHEN due_at > $4 THEN $4 ELSE due_at END WHERE id = $1")
        .bind(id).bind(wish_text(wish)).bind(deadline.micros()).bind(now.micros()).execute(c).await.map(|_| ()))
}

/// Its attempt failed, and is made again at this time.
pub(super) async fn note_failure(
    tx: &mut Tx,
    (id, by): (Uuid, Uuid),
    error: &str,
    next: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE migrations SET last_error = $3, failures = failures + 1, next_attempt_at = $4
            WHERE id = $1 AND claimed_by = $2 AND ended_at IS NULL")
        .bind(id).bind(by).bind(error).bind(next.micros()).execute(c).await.map(|_| ()))
}

pub(super) async fn get(tx: &mut Tx, id: Uuid) -> Done<Option<Migration>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM migrations WHERE id = $1"))
        .bind(id).fetch_optional(c).await)?;
    row.map(Migration::try_from).transpose()
}

/// Of a workspace, the one that is not over.
pub(super) async fn open_of(tx: &mut Tx, workspace: WorkspaceId) -> Done<Option<Migration>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM migrations WHERE workspace_id = $1 AND ended_at IS NULL"))
        .bind(workspace.uuid()).fetch_optional(c).await)?;
    row.map(Migration::try_from).transpose()
}

/// Of a workspace, newest first.
pub(super) async fn of(tx: &mut Tx, workspace: WorkspaceId, limit: i64) -> Done<Vec<Migration>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM migrations WHERE workspace_id = $1 ORDER BY asked_at DESC, id LIMIT $2"))
        .bind(workspace.uuid()).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Migration::try_from).collect()
}

/// All of them, or those that are not over, newest first.
pub(super) async fn list(tx: &mut Tx, open: bool, limit: i64) -> Done<Vec<Migration>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM migrations WHERE ended_at IS NULL OR NOT $1 ORDER BY asked_at DESC, id LIMIT $2"))
        .bind(open).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Migration::try_from).collect()
}

/// Whether any ended before this time.
pub(super) async fn any_over(tx: &mut Tx, before: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query_scalar("SELECT COUNT(*) > 0 FROM (SELECT 1 FROM migrations WHERE ended_at < $1 LIMIT 1) found")
        .bind(before.micros()).fetch_one(c).await)
}

/// Whether this one ended before this time.
pub(super) async fn is_over(tx: &mut Tx, id: Uuid, before: Timestamp) -> Done<bool> {
    let found: Option<bool> = on!(tx, c => sqlx::query_scalar("SELECT ended_at < $1 FROM migrations WHERE id = $2 AND ended_at IS NOT NULL")
        .bind(before.micros()).bind(id).fetch_optional(c).await)?;
    Ok(found.unwrap_or_default())
}

/// What those that are not over may have at a backend.
pub(super) async fn named(tx: &mut Tx, backend: &str) -> Done<Vec<Label>> {
    let rows: Vec<(Uuid, i64)> = on!(tx, c => sqlx::query_as(
            "SELECT workspace_id, source_born FROM migrations
                WHERE ended_at IS NULL AND source_backend = $1 AND NOT source_gone
             UNION ALL
             SELECT workspace_id, target_generation FROM migrations
                WHERE ended_at IS NULL AND target_backend = $1 AND NOT target_gone AND target_generation IS NOT NULL")
        .bind(backend).fetch_all(c).await)?;
    let label = |(id, born)| (WorkspaceId::from_uuid(id), Generation::new(born));
    Ok(rows.into_iter().map(label).collect())
}

/// Forget those of a workspace that is purged.
pub(crate) async fn purge(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM migration_phases
            WHERE migration_id IN (SELECT id FROM migrations WHERE workspace_id = $1)")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("DELETE FROM migrations WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Look at the migration of this workspace now, if there is one.
pub(crate) async fn wake(tx: &mut Tx, workspace: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE migrations SET due_at = $1
            WHERE workspace_id = $2 AND ended_at IS NULL AND due_at > $1")
        .bind(now.micros()).bind(workspace.uuid()).execute(c).await.map(|_| ()))
}

/// Who looks at which.
pub(super) static CLAIMS: Claims =
    claims!("migrations", open: "ended_at IS NULL AND ", known_by: "id, workspace_id");

/// Give back every claim, and look at those now: whoever had them is gone.
pub(crate) async fn release_all(tx: &mut Tx, now: Timestamp) -> Done {
    CLAIMS.give_back_all(tx, now).await?;
    drains::CLAIMS.give_back_all(tx, now).await
}

/// When the next can be taken.
pub(super) async fn next_due(tx: &mut Tx) -> Done<Option<Timestamp>> {
    let due: Option<i64> = on!(tx, c => sqlx::query_scalar(
            "SELECT MIN(CASE WHEN claimed_until > due_at THEN claimed_until ELSE due_at END)
             FROM migrations WHERE ended_at IS NULL")
        .fetch_one(c).await)?;
    Ok(due.map(Timestamp::from_micros))
}
