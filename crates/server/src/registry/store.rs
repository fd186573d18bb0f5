//! Heartbeats in the database, many in one statement.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use ligand_domain::credential::TokenHash;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::db::{Single, Tx, on};
use crate::workspaces::Beat;

/// Rows of the statements below. Few sizes, so that each is prepared once: what is missing is filled up with
/// the last row, which changes nothing twice.
const SIZES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Most rows of one statement.
pub(super) const MOST: usize = 256;

fn size(rows: usize) -> usize {
    SIZES.into_iter().position(|size| size >= rows).expect("no batch is larger than MOST")
}

/// One text for each of [`SIZES`]; `$1` is the time, and each row has `columns` values.
fn texts(columns: usize, names: &str, rest: &str) -> Vec<Arc<str>> {
    let text = |rows: usize| {
        let mut text = format!("WITH b ({names}) AS (VALUES ");
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..columns {
                let comma = if column == 0 { "" } else { ", " };
                let _ = write!(text, "{comma}${}", 2 + row * columns + column);
            }
            text.push(')');
        }
        Arc::from(format!("{text}) {rest}"))
    };
    SIZES.into_iter().map(text).collect()
}

/// Each row is looked up by a query of its own, or a planner whose statistics lag behind a growing fleet would
/// join by reading every live credential, once a batch.
///
/// Only what needs no decision matches: an active credential of the current generation of a workspace that
/// is online, and nothing is due for it. Everything else is left to admission; so is every heartbeat during a
/// migration, whose answer may say what the program is to do.
const RENEW: &str = "UPDATE instances SET last_seen_at = $1
    WHERE instances.id IN (SELECT (
        SELECT i.id FROM credentials c
        JOIN workspaces w ON w.id = c.workspace_id AND w.current_generation = c.generation
        JOIN instances i ON i.workspace_id = c.workspace_id AND i.generation = c.generation
        WHERE c.hash = b.hash AND c.workspace_id = b.workspace_id AND c.kind = 'instance'
          AND c.state = 'active' AND c.ended_at IS NULL
          AND w.status = 'online' AND w.rotations_wanted = w.rotations_done
          AND w.register_failed_at IS NULL AND w.candidate_generation IS NULL
          AND i.phase = 'serving' AND i.ended_at IS NULL) FROM b)";

/// [`RENEW`] by itself: how many were renewed.
static COUNT: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| texts(2, "workspace_id, hash", RENEW));

/// [`RENEW`], and which were renewed.
static RECORD: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    let which = "RETURNING instances.workspace_id, instances.generation, instances.backend, instances.features";
    texts(2, "workspace_id, hash", &format!("{RENEW} {which}"))
});

static REPORT: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    texts(
        10,
        "id, generation, error_rate, sample_error, active_tasks, uptime, task, spend, capabilities, idle",
        "UPDATE workspaces SET last_heartbeat_at = $1, updated_at = $1, last_error_rate = b.error_rate,
            last_sample_error = b.sample_error, active_tasks = b.active_tasks, uptime_seconds = b.uptime,
            current_task = b.task, monthly_spend = COALESCE(b.spend, monthly_spend),
            idle_timeout_seconds = CASE WHEN b.capabilities IS NULL THEN idle_timeout_seconds ELSE b.idle END,
            capabilities = COALESCE(b.capabilities, workspaces.capabilities)
         FROM b WHERE workspaces.id = b.id AND workspaces.current_generation = b.generation
           AND workspaces.status = 'online'
         RETURNING workspaces.id",
    )
});

static USED: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    texts(
        1,
        "hash",
        "UPDATE credentials SET last_used_at = $1
         FROM b WHERE credentials.hash = b.hash",
    )
});

/// An instance whose heartbeat was recorded.
#[derive(sqlx::FromRow)]
pub(super) struct Recorded {
    pub(super) workspace_id: Uuid,
    pub(super) generation: i64,
    pub(super) backend: Option<String>,
    pub(super) features: String,
}

/// Renew the leases of all of these, or of some; gives how many. A row that comes back costs as much as its
/// renewal, so whoever needs no row is counted. At most [`MOST`], each workspace once.
pub(super) async fn renew(
    single: &mut Single,
    beats: &[(WorkspaceId, TokenHash)],
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let Some(last) = beats.last() else { return Ok(0) };
    let size = size(beats.len());
    let rows = beats.iter().chain(std::iter::repeat(last)).take(SIZES[size]);
    on!(single, c => {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&COUNT[size]))).bind(now.micros());
        for (workspace, hash) in rows {
            query = query.bind(workspace.uuid()).bind(hash.bytes().as_slice());
        }
        query.execute(c).await.map(|done| done.rows_affected())
    })
}

/// Authenticate and record, in one statement: whoever is missing from the answer was not recorded. At most
/// [`MOST`], each workspace once.
pub(super) async fn record(
    single: &mut Single,
    beats: &[(WorkspaceId, TokenHash)],
    now: Timestamp,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let Some(last) = beats.last() else { return Ok(Vec::new()) };
    let size = size(beats.len());
    let rows = beats.iter().chain(std::iter::repeat(last)).take(SIZES[size]);
    on!(single, c => {
        let mut query = sqlx::query_as(AssertSqlSafe(Arc::clone(&RECORD[size]))).bind(now.micros());
        for (workspace, hash) in rows {
            query = query.bind(workspace.uuid()).bind(hash.bytes().to_vec());
        }
        query.fetch_all(c).await
    })
}

/// What one agent reports.
pub(super) struct Report<'a> {
    pub(super) of: (WorkspaceId, Generation),
    pub(super) hash: TokenHash,
    pub(super) beat: &'a Beat,
}

/// Take down what these report, while it is still their generation that counts; and that their credentials
/// were used. Gives those whose report was taken down. At most [`MOST`], each workspace once.
pub(super) async fn report(
    tx: &mut Tx,
    reports: &[Report<'_>],
    now: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let Some(last) = reports.last() else { return Ok(Vec::new()) };
    let size = size(reports.len());
    let rows = || reports.iter().chain(std::iter::repeat(last)).take(SIZES[size]);
    let written = on!(&mut *tx, c => {
        let mut query = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&REPORT[size]))).bind(now.micros());
        for Report { of, beat, .. } in rows() {
            query = query.bind(of.0.uuid()).bind(of.1.number()).bind(beat.error_rate).bind(&beat.sample_error)
                .bind(beat.active_tasks).bind(beat.uptime_seconds).bind(&beat.current_task)
                .bind(beat.monthly_spend).bind(&beat.capabilities).bind(beat.idle_timeout_seconds);
        }
        query.fetch_all(c).await
    })?;
    on!(tx, c => {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&USED[size]))).bind(now.micros());
        for report in rows() {
            query = query.bind(report.hash.bytes().to_vec());
        }
        query.execute(c).await.map(|_| ())
    })?;
    Ok(written)
}
