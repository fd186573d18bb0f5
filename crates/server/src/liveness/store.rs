//! The fleet's row, and what sweeps take away, in the database.

use std::collections::BTreeMap;
use std::time::Duration;

use ligand_domain::brake::{Permits, State};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::lease::Pace;
use ligand_domain::orphan::Label;
use ligand_domain::time::Timestamp;
use uuid::Uuid;

use super::{Done, Row};
use crate::db::{Tx, on};

#[derive(sqlx::FromRow)]
struct Stored {
    brake: String,
    brake_since: i64,
    brake_until: i64,
    brake_peak: i64,
    permits_window: i64,
    permits_used: i64,
    pace: i64,
    pace_before: i64,
    pace_since: i64,
}

macro_rules! columns {
    () => {
        "brake, brake_since, brake_until, brake_peak, permits_window, permits_used, pace, pace_before, pace_since"
    };
}

impl TryFrom<Stored> for Row {
    type Error = sqlx::Error;

    fn try_from(row: Stored) -> Result<Self, sqlx::Error> {
        let (since, until) = (Timestamp::from_micros(row.brake_since), row.brake_until);
        let brake = match row.brake.as_str() {
            "free" => State::Free,
            "engaged" => {
                let until = Timestamp::from_micros(until);
                State::Engaged { since, until, peak: row.brake_peak }
            }
            "easing" => State::Easing { since },
            _ => return Err(sqlx::Error::Decode("liveness.brake holds an unknown value".into())),
        };
        let seconds = |n: i64| Duration::from_secs(u64::try_from(n).unwrap_or_default());
        Ok(Self {
            brake,
            permits: Permits {
                window: Timestamp::from_micros(row.permits_window),
                used: row.permits_used,
            },
            pace: Pace {
                beat: seconds(row.pace),
                before: seconds(row.pace_before),
                since: Timestamp::from_micros(row.pace_since),
            },
        })
    }
}

pub(super) async fn get(tx: &mut Tx) -> Done<Row> {
    let row: Stored = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM liveness WHERE id = 1"))
        .fetch_one(c).await)?;
    row.try_into()
}

/// Read it, and keep everybody else from changing it until the transaction ends.
pub(super) async fn lock(tx: &mut Tx) -> Done<Row> {
    let row: Stored = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE liveness SET version = version + 1 WHERE id = 1 RETURNING ", columns!()))
        .fetch_one(c).await)?;
    row.try_into()
}

/// Write it back.
pub(super) async fn set(tx: &mut Tx, row: &Row) -> Done {
    let (since, until, peak) = match row.brake {
        State::Free => (Timestamp::EPOCH, Timestamp::EPOCH, 0),
        State::Engaged { since, until, peak } => (since, until, peak),
        State::Easing { since } => (since, Timestamp::EPOCH, 0),
    };
    let seconds = |beat: Duration| i64::try_from(beat.as_secs()).unwrap_or(i64::MAX);
    on!(tx, c => sqlx::query("UPDATE liveness SET brake = $1, brake_since = $2, brake_until = $3, brake_peak = $4,
            permits_window = $5, permits_used = $6, pace = $7, pace_before = $8, pace_since = $9 WHERE id = 1")
        .bind(row.brake.as_str()).bind(since.micros()).bind(until.micros()).bind(peak)
        .bind(row.permits.window.micros()).bind(row.permits.used).bind(seconds(row.pace.beat))
        .bind(seconds(row.pace.before)).bind(row.pace.since.micros()).execute(c).await.map(|_| ()))
}

/// What makes a live instance credential stale, but for what its backend has: `ligand_domain::sweep::stale`,
/// as a statement. `$1`: idle since, `$2`: whether the current generation is fair game too (a mutant).
macro_rules! stale {
    () => {
        "credentials.kind = 'instance' AND credentials.ended_at IS NULL
         AND COALESCE(credentials.last_used_at, credentials.created_at) <= $1
         AND EXISTS (SELECT 1 FROM workspaces w WHERE w.id = credentials.workspace_id
             AND w.backend IS NOT NULL AND w.status NOT IN ('removed', 'provisioning')
             AND ($2 OR credentials.generation < w.current_generation))"
    };
}

/// Which credentials a sweep may match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stale {
    /// Idle since then.
    pub(super) idle_since: Timestamp,
    /// Whether the current generation is not spared: only ever in a mutant.
    pub(super) current_too: bool,
}

/// Workspaces on this backend that hold a stale credential.
pub(super) async fn holders(tx: &mut Tx, backend: &str, stale: Stale) -> Done<Vec<WorkspaceId>> {
    let ids: Vec<Uuid> = on!(tx, c => sqlx::query_scalar(concat!(
            "SELECT id FROM workspaces WHERE backend = $3
                AND id IN (SELECT workspace_id FROM credentials WHERE ", stale!(), ") ORDER BY id"))
        .bind(stale.idle_since.micros()).bind(stale.current_too).bind(backend).fetch_all(c).await)?;
    Ok(ids.into_iter().map(WorkspaceId::from_uuid).collect())
}

/// End a workspace's stale credentials. The statement repeats everything that made them so: one that was
/// minted or used since is not matched.
pub(super) async fn end_stale(
    tx: &mut Tx,
    workspace: WorkspaceId,
    stale: Stale,
    now: Timestamp,
) -> Done<u64> {
    on!(tx, c => sqlx::query(concat!(
            "UPDATE credentials SET state = CASE WHEN state = 'pending' THEN 'lapsed' ELSE 'superseded' END, ended_at = $3
             WHERE workspace_id = $4 AND ", stale!()))
        .bind(stale.idle_since.micros()).bind(stale.current_too).bind(now.micros()).bind(workspace.uuid())
        .execute(c).await.map(|done| done.rows_affected()))
}

/// End every live instance credential of a workspace, whatever became of it since it was looked at: the
/// defect that [`end_stale`] is there to prevent, for a mutant.
pub(super) async fn end_blindly(tx: &mut Tx, workspace: WorkspaceId, now: Timestamp) -> Done<u64> {
    on!(tx, c => sqlx::query("UPDATE credentials SET state = 'revoked', ended_at = $1
            WHERE workspace_id = $2 AND kind = 'instance' AND ended_at IS NULL")
        .bind(now.micros()).bind(workspace.uuid()).execute(c).await.map(|done| done.rows_affected()))
}

/// A credential that lapsed: whose, and of which generation.
pub(super) type Lapsed = (WorkspaceId, Option<Generation>);

/// End credentials that were never used within their time, a bounded number at once.
pub(super) async fn lapse(tx: &mut Tx, now: Timestamp, limit: i64) -> Done<Vec<Lapsed>> {
    let rows: Vec<(Uuid, Option<i64>)> = on!(tx, c => sqlx::query_as(
            "UPDATE credentials SET state = 'lapsed', ended_at = $1
             WHERE state = 'pending' AND lapses_at <= $1 AND id IN (
                SELECT id FROM credentials WHERE state = 'pending' AND lapses_at <= $1 ORDER BY lapses_at LIMIT $2)
             RETURNING workspace_id, generation")
        .bind(now.micros()).bind(limit).fetch_all(c).await)?;
    let lapsed = |(id, generation): (Uuid, Option<i64>)| {
        (WorkspaceId::from_uuid(id), generation.map(Generation::new))
    };
    Ok(rows.into_iter().map(lapsed).collect())
}

/// Workspaces that said they are busy, and were not heard of since then: they are not. A bounded number at
/// once.
pub(super) async fn unbusy(
    tx: &mut Tx,
    silent_since: Timestamp,
    limit: i64,
) -> Done<Vec<WorkspaceId>> {
    macro_rules! phantom {
        () => {
            "active_tasks > 0 AND status <> 'removed' AND COALESCE(last_heartbeat_at, created_at) <= $1
             AND COALESCE(last_outbound_at, 0) <= $1"
        };
    }
    let ids: Vec<Uuid> = on!(tx, c => sqlx::query_scalar(concat!(
            "UPDATE workspaces SET active_tasks = 0, current_task = ''
             WHERE id IN (SELECT id FROM workspaces WHERE ", phantom!(), " ORDER BY id LIMIT $2) AND ", phantom!(), "
             RETURNING id"))
        .bind(silent_since.micros()).bind(limit).fetch_all(c).await)?;
    Ok(ids.into_iter().map(WorkspaceId::from_uuid).collect())
}

/// Every instance on this backend that a row names which has not ended, by the number that the backend knows it by,
/// and whether the backend confirmed it.
pub(super) async fn named(tx: &mut Tx, backend: &str) -> Done<BTreeMap<Label, bool>> {
    let rows: Vec<(Uuid, i64, bool)> = on!(tx, c => sqlx::query_as(
            "SELECT workspace_id, born, started_at IS NOT NULL FROM instances WHERE backend = $1 AND ended_at IS NULL")
        .bind(backend).fetch_all(c).await)?;
    let named =
        |(id, born, confirmed)| ((WorkspaceId::from_uuid(id), Generation::new(born)), confirmed);
    Ok(rows.into_iter().map(named).collect())
}

/// Every workspace that has a row, and whether it is removed.
pub(super) async fn removed(tx: &mut Tx) -> Done<BTreeMap<WorkspaceId, bool>> {
    let rows: Vec<(Uuid, bool)> = on!(tx, c => sqlx::query_as("SELECT id, status = 'removed' FROM workspaces")
        .fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, removed)| (WorkspaceId::from_uuid(id), removed)).collect())
}

/// Whether credentials of it are remembered: those of a purged workspace are, for ever.
pub(super) async fn remembered(tx: &mut Tx, id: WorkspaceId) -> Done<bool> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM credentials WHERE workspace_id = $1)")
        .bind(id.uuid()).fetch_one(c).await)
}
