//! Wishes about a workspace's life, turns, and what is said of it from outside, in the database.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use uuid::Uuid;

use super::Done;
use crate::db::{Tx, on};
use crate::workspaces::Compute;

/// It should stop until somebody says so. Where it answered is over: no turn begins there any more.
pub(crate) async fn want_rest(
    tx: &mut Tx,
    id: WorkspaceId,
    intent: Intent,
    evidence: &str,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET intent = $1, evidence = $2, url = '', next_attempt_at = NULL,
            updated_at = $3 WHERE id = $4 AND status <> 'removed'")
        .bind(intent.as_str()).bind(evidence).bind(now.micros()).bind(id.uuid())
        .execute(c).await.map(|_| ()))
}

/// An external workspace should go on where it runs: it answers where its agent last said.
pub(crate) async fn want_agent(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET intent = 'running', updated_at = $1,
            url = COALESCE((SELECT i.url FROM instances i WHERE i.workspace_id = workspaces.id
                AND i.generation = workspaces.current_generation AND i.ended_at IS NULL), url)
            WHERE id = $2 AND status <> 'removed'")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Nothing of it runs any more.
pub(crate) async fn rests(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET url = '', active_tasks = 0, current_task = '' WHERE id = $1")
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// A turn began or ended.
pub(crate) async fn touch_turn(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_turn_at = $1 WHERE id = $2")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// One that may hibernate by itself.
pub(crate) struct Idling {
    pub(crate) id: WorkspaceId,
    pub(crate) current: Generation,
    /// When its current instance was first admitted.
    pub(crate) serving_since: Timestamp,
}

/// Workspaces that may hibernate by themselves, those without a turn for longest first.
pub(crate) async fn idling(tx: &mut Tx, limit: i64) -> Done<Vec<Idling>> {
    let rows: Vec<(Uuid, i64, i64)> = on!(tx, c => sqlx::query_as(
            "SELECT w.id, w.current_generation, COALESCE(i.registered_at, i.created_at) FROM workspaces w
             JOIN instances i ON i.workspace_id = w.id AND i.generation = w.current_generation
             WHERE w.hibernation_idle_minutes > 0 AND w.intent = 'running' AND w.backend IS NOT NULL
               AND w.candidate_generation IS NULL
               AND w.status IN ('online', 'degraded') AND w.active_tasks <= 0
             ORDER BY COALESCE(w.last_turn_at, 0), w.id LIMIT $1")
        .bind(limit).fetch_all(c).await)?;
    let read = |(id, current, since)| Idling {
        id: WorkspaceId::from_uuid(id),
        current: Generation::new(current),
        serving_since: Timestamp::from_micros(since),
    };
    Ok(rows.into_iter().map(read).collect())
}

/// The start of the newest instance failed, says somebody who watched it. `false`: there is none that was
/// started and not admitted.
pub(crate) async fn condemn(tx: &mut Tx, of: (WorkspaceId, Generation), why: &str) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE instances SET condemned = $1
            WHERE workspace_id = $2 AND generation = $3 AND phase = 'started' AND ended_at IS NULL")
        .bind(why).bind(of.0.uuid()).bind(of.1.number())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Its start failed: the reason, and what is kept of the log. When the next one begins stays as it is.
pub(crate) async fn note_report(tx: &mut Tx, id: WorkspaceId, error: &str, kept: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_error = $1, last_sample_error = $2 WHERE id = $3")
        .bind(error).bind(kept).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// How often it failed, and when the next attempt begins. Why it failed was noted before.
pub(crate) async fn set_attempt(
    tx: &mut Tx,
    id: WorkspaceId,
    failures: ligand_domain::backoff::Failures,
    next: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET failures = $1, failures_since = $2, next_attempt_at = $3 WHERE id = $4")
        .bind(failures.count).bind(failures.since.micros()).bind(next.micros()).bind(id.uuid())
        .execute(c).await.map(|_| ()))
}

/// Note which compute it runs on. `false`: there is no such workspace.
pub(crate) async fn set_compute(
    tx: &mut Tx,
    id: WorkspaceId,
    compute: &Compute,
    now: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET compute_instance = $1, compute_provider = $2, updated_at = $3
            WHERE id = $4 AND status <> $5")
        .bind(&compute.instance).bind(&compute.provider).bind(now.micros()).bind(id.uuid())
        .bind(Status::Removed.as_str())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Where an administrator named its compute, that is the newest instance from now on.
pub(crate) async fn compute_follows(tx: &mut Tx, id: WorkspaceId, handle: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET compute_instance = $1 WHERE id = $2 AND compute_instance IS NOT NULL")
        .bind(handle).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Where an administrator named its compute, that is this from now on, or nothing that has such a name.
pub(crate) async fn move_compute(tx: &mut Tx, id: WorkspaceId, to: Option<&Compute>) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET compute_instance = $1, compute_provider = $2
            WHERE id = $3 AND compute_instance IS NOT NULL")
        .bind(to.map(|it| it.instance.clone())).bind(to.map(|it| it.provider.clone())).bind(id.uuid())
        .execute(c).await.map(|_| ()))
}

/// What everybody may be told of a failure, where operators are told more.
pub(crate) async fn set_sample_error(tx: &mut Tx, id: WorkspaceId, error: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_sample_error = $1 WHERE id = $2")
        .bind(error).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// How long it may be idle.
pub(crate) async fn set_idle_minutes(tx: &mut Tx, id: WorkspaceId, minutes: Option<i64>) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET hibernation_idle_minutes = $1 WHERE id = $2")
        .bind(minutes).bind(id.uuid()).execute(c).await.map(|_| ()))
}
