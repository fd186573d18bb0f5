//! Workspaces and instances in the database.

mod data;
mod doubt;
mod identity;
mod instances;
mod kin;
mod lifecycle;
mod receipts;
mod rows;

use ligand_domain::access::{Lineage, MAX_HOPS};
use ligand_domain::backoff::Failures;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use uuid::Uuid;

pub(crate) use self::data::{keep_digest, kept_digest};
pub(crate) use self::doubt::{
    count_guess, dismiss, hold, let_go, look_by, note_silent, serving, set_unsure,
};
pub(crate) use self::identity::{
    clear_candidate, close_bootstrap, count_rotation, note_refused, place, placed_on, revoked,
    rotated, set_candidate,
};
pub(crate) use self::instances::{
    abandon, alive, bind_newest, end, heard, insert_instance, instance_of, latest, moved,
    note_host, observe_instance, repointed, started,
};
pub(crate) use self::kin::lineages;
pub(crate) use self::lifecycle::{
    Idling, compute_follows, condemn, idling, move_compute, note_report, rests, set_attempt,
    set_compute, set_idle_minutes, set_sample_error, touch_turn, want_agent, want_rest,
};
pub(crate) use self::receipts::{note_unproven, set_receipt};
use self::rows::{Row, columns};
use super::Workspace;
use crate::db::{Claims, Tx, claims, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// Rows that are looked at for the one that can be taken next: more than all servers' passes have at once.
const LOOKED_AT: i64 = 64;

/// Read one.
pub(crate) async fn get(tx: &mut Tx, id: WorkspaceId) -> Done<Option<Workspace>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(), " FROM workspaces WHERE id = $1"))
        .bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Workspace::try_from).transpose()
}

/// Read one and keep everybody else from changing it until the transaction ends, on either engine.
pub(crate) async fn lock(tx: &mut Tx, id: WorkspaceId) -> Done<Option<Workspace>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE workspaces SET version = version + 1 WHERE id = $1 RETURNING ", columns!()))
        .bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Workspace::try_from).transpose()
}

/// Every workspace that is not removed, oldest first.
pub(super) async fn list(tx: &mut Tx) -> Done<Vec<Workspace>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!(
            "SELECT ", columns!(), " FROM workspaces WHERE status <> 'removed' ORDER BY created_at, id"))
        .fetch_all(c).await)?;
    rows.into_iter().map(Workspace::try_from).collect()
}

/// Insert a new one. What agents report starts empty.
pub(super) async fn insert(tx: &mut Tx, new: &Workspace, template: Option<&str>) -> Done {
    let command = new.command.as_ref().map(|words| serde_json::json!(words).to_string());
    on!(tx, c => sqlx::query("INSERT INTO workspaces (id, name, role, tier, runtime, model, template, command,
            backend, workspace_dir, workspace_access, parent_id, budget_limit, max_concurrent_tasks, x, y,
            intent, status, since, evidence, bootstrap, url, due_at, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                $17, $18, $19, $20, $21, $22, $19, $19, $19)")
        .bind(new.id.uuid()).bind(&new.name).bind(&new.role).bind(new.tier).bind(&new.runtime)
        .bind(&new.model).bind(template).bind(command).bind(&new.backend).bind(&new.workspace_dir)
        .bind(&new.workspace_access).bind(new.parent.map(WorkspaceId::uuid)).bind(new.budget_limit)
        .bind(new.max_concurrent_tasks).bind(new.canvas.0).bind(new.canvas.1)
        .bind(new.intent.as_str()).bind(new.status.as_str()).bind(new.created_at.micros())
        .bind(&new.evidence).bind(rows::bootstrap_text(new.bootstrap)).bind(&new.agent.url)
        .execute(c).await.map(|_| ()))
}

/// A workspace that registered itself under an unknown id.
pub(crate) async fn insert_registered(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO workspaces (id, name, tier, runtime, workspace_access, intent, status,
            since, evidence, bootstrap, due_at, created_at, updated_at)
            VALUES ($1, $2, 1, 'external', 'none', 'running', 'online', $3, 'registered itself', 'open', $3, $3, $3)")
        .bind(id.uuid()).bind(id.to_string()).bind(now.micros()).execute(c).await.map(|_| ()))
}

/// Move the status, with what it rests on.
pub(crate) async fn set_status(
    tx: &mut Tx,
    id: WorkspaceId,
    to: Status,
    evidence: &str,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET
                since = CASE WHEN status = $1 THEN since ELSE $3 END,
                status = $1, evidence = $2, unsure_at = NULL, updated_at = $3
            WHERE id = $4 AND status <> 'removed'")
        .bind(to.as_str()).bind(evidence).bind(now.micros()).bind(id.uuid())
        .execute(c).await.map(|_| ()))
}

/// Move the generations.
pub(crate) async fn set_generations(
    tx: &mut Tx,
    id: WorkspaceId,
    current: Generation,
    newest: Generation,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET current_generation = $1, newest_generation = $2 WHERE id = $3")
        .bind(current.number()).bind(newest.number()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// The newest instance loads everything that was asked for until now; where the old one answers is over.
pub(super) async fn mark_loaded(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET restarts_loaded = restarts_wanted, url = '', next_attempt_at = NULL WHERE id = $1")
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Ask for a restart, whatever it was meant to do until now. A person's wish clears the count of failures. While a
/// migration brings up its next generation, it goes on where it is: what it reads is read by that one.
pub(super) async fn want_restart(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET intent = 'running', restarts_wanted = restarts_wanted + 1,
            url = CASE WHEN candidate_generation IS NULL THEN '' ELSE url END, failures = 0,
            failures_since = 0, next_attempt_at = NULL, updated_at = $1 WHERE id = $2 AND status <> 'removed'")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Note a failure, and when the next attempt begins.
pub(super) async fn set_failure(
    tx: &mut Tx,
    id: WorkspaceId,
    failures: Failures,
    error: &str,
    next: Option<Timestamp>,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET failures = $1, failures_since = $2, last_error = $3,
            last_sample_error = $3, next_attempt_at = $4 WHERE id = $5")
        .bind(failures.count).bind(failures.since.micros()).bind(error)
        .bind(next.map(Timestamp::micros)).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Nobody answers for it.
pub(super) async fn clear_url(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET url = '' WHERE id = $1")
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Note why the last attempt of the platform failed, when it will simply be made again by whoever has the
/// claim.
pub(super) async fn set_error(tx: &mut Tx, id: WorkspaceId, by: Uuid, error: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_error = $1 WHERE id = $2 AND claimed_by = $3")
        .bind(error).bind(id.uuid()).bind(by).execute(c).await.map(|_| ()))
}

/// What a register reports.
pub(crate) struct Register<'a> {
    pub(crate) url: Option<&'a str>,
    pub(crate) card: &'a str,
    pub(crate) delivery_mode: Option<&'a str>,
}

/// Take down what a register reports, unless the workspace is removed. The last attempt succeeded.
pub(crate) async fn observe_register(
    tx: &mut Tx,
    id: WorkspaceId,
    register: Register<'_>,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET url = COALESCE($1, url), agent_card = $2,
            delivery_mode = COALESCE($3, delivery_mode), last_heartbeat_at = $4, updated_at = $4,
            last_error = NULL, next_attempt_at = NULL, register_failed_at = NULL
            WHERE id = $5 AND status <> 'removed'")
        .bind(register.url).bind(register.card).bind(register.delivery_mode).bind(now.micros())
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// A register was let in and failed all the same. `false`: there is no such workspace any more.
pub(crate) async fn register_failed(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET register_failed_at = $1 WHERE id = $2 AND status <> 'removed'")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// What a register brings came another way: that one failed does not count any more.
pub(crate) async fn register_succeeded(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET register_failed_at = NULL WHERE id = $1")
        .bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// What a heartbeat reports.
#[derive(Clone)]
pub(crate) struct Beat {
    pub(crate) error_rate: f64,
    pub(crate) sample_error: String,
    pub(crate) active_tasks: i64,
    pub(crate) uptime_seconds: i64,
    pub(crate) current_task: String,
    /// `None` leaves the stored value alone.
    pub(crate) monthly_spend: Option<i64>,
    /// `None` leaves the stored value alone.
    pub(crate) capabilities: Option<String>,
    pub(crate) idle_timeout_seconds: Option<i64>,
    /// Fills a card that is missing.
    pub(crate) card: Option<String>,
}

/// Take down what a heartbeat reports, unless the workspace is removed.
pub(crate) async fn observe_beat(
    tx: &mut Tx,
    id: WorkspaceId,
    beat: &Beat,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_heartbeat_at = $1, updated_at = $1, last_error_rate = $2,
            last_sample_error = $3, active_tasks = $4, uptime_seconds = $5, current_task = $6,
            monthly_spend = COALESCE($7, monthly_spend), capabilities = COALESCE($8, capabilities),
            idle_timeout_seconds = CASE WHEN $8 IS NULL THEN idle_timeout_seconds ELSE $9 END,
            agent_card = COALESCE(agent_card, $10)
            WHERE id = $11 AND status <> 'removed'")
        .bind(now.micros()).bind(beat.error_rate).bind(&beat.sample_error).bind(beat.active_tasks)
        .bind(beat.uptime_seconds).bind(&beat.current_task).bind(beat.monthly_spend)
        .bind(&beat.capabilities).bind(beat.idle_timeout_seconds).bind(&beat.card).bind(id.uuid())
        .execute(c).await.map(|_| ()))
}

/// It was down, and is heard again: where its backend says it answers is where it answers.
pub(crate) async fn heard_again(tx: &mut Tx, id: WorkspaceId, url: Option<&str>) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET url = COALESCE($1, url), last_error = NULL, next_attempt_at = NULL WHERE id = $2")
        .bind(url).bind(id.uuid()).execute(c).await.map(|_| ()))
}

pub(crate) async fn save_card(tx: &mut Tx, id: WorkspaceId, card: &str, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET agent_card = $1, updated_at = $2 WHERE id = $3")
        .bind(card).bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Note that a workspace called another one.
pub(crate) async fn touch_outbound(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET last_outbound_at = $1 WHERE id = $2")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Write back the settings that a patch may change.
pub(super) async fn save_settings(tx: &mut Tx, workspace: &Workspace, now: Timestamp) -> Done {
    let (x, y, collapsed) = workspace.canvas;
    on!(tx, c => sqlx::query("UPDATE workspaces SET name = $1, role = $2, tier = $3, runtime = $4, parent_id = $5,
            workspace_dir = $6, x = $7, y = $8, collapsed = $9, updated_at = $10, bootstrap = $12 WHERE id = $11")
        .bind(&workspace.name).bind(&workspace.role).bind(workspace.tier).bind(&workspace.runtime)
        .bind(workspace.parent.map(WorkspaceId::uuid)).bind(&workspace.workspace_dir)
        .bind(x).bind(y).bind(collapsed).bind(now.micros()).bind(workspace.id.uuid())
        .bind(rows::bootstrap_text(workspace.bootstrap))
        .execute(c).await.map(|_| ()))
}

/// Set what it may spend in a month. `false`: there is no such workspace any more.
pub(crate) async fn set_budget(
    tx: &mut Tx,
    id: WorkspaceId,
    limit: Option<i64>,
    now: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET budget_limit = $1, updated_at = $2 WHERE id = $3 AND status <> 'removed'")
        .bind(limit).bind(now.micros()).bind(id.uuid()).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Children that are not removed.
pub(super) async fn children(tx: &mut Tx, id: WorkspaceId) -> Done<Vec<(WorkspaceId, String)>> {
    let rows: Vec<(Uuid, String)> = on!(tx, c => sqlx::query_as(
            "SELECT id, name FROM workspaces WHERE parent_id = $1 AND status <> 'removed' ORDER BY created_at, id")
        .bind(id.uuid()).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, name)| (WorkspaceId::from_uuid(id), name)).collect())
}

/// Removed for good: intent and status, once and for ever. `false`: it was already.
pub(super) async fn mark_removed(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET intent = $1, status = $2, since = $3, evidence = 'deleted',
            url = '', next_attempt_at = NULL, updated_at = $3 WHERE id = $4 AND status <> $2")
        .bind(Intent::Removed.as_str()).bind(Status::Removed.as_str()).bind(now.micros()).bind(id.uuid())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Every trace of a workspace that is removed, or is being, is to go: the reconciler looks at it now. What an
/// earlier attempt failed by is no answer to this one.
pub(super) async fn want_purge(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET purge_wanted_at = COALESCE(purge_wanted_at, $1), last_error = NULL,
            due_at = CASE WHEN due_at > $1 THEN $1 ELSE due_at END WHERE id = $2")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Nothing of a removed workspace runs any more, whatever kept it from ending before.
pub(super) async fn mark_released(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET released_at = $1, last_error = NULL WHERE id = $2 AND released_at IS NULL")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Take every trace of a removed workspace away, but for the hashes of its credentials.
pub(super) async fn purge(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET parent_id = NULL WHERE parent_id = $1").bind(id.uuid()).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("DELETE FROM instances WHERE workspace_id = $1").bind(id.uuid()).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("DELETE FROM workspaces WHERE id = $1").bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// A workspace and its ancestors, nearest first.
pub(crate) async fn lineage(tx: &mut Tx, id: WorkspaceId) -> Done<Option<Lineage>> {
    let hops = i64::try_from(MAX_HOPS).unwrap_or(i64::MAX);
    let rows: Vec<Uuid> = on!(tx, c => sqlx::query_scalar(
            "WITH RECURSIVE line (id, parent_id, hops) AS (
                SELECT id, parent_id, CAST(0 AS BIGINT) FROM workspaces WHERE id = $1
                UNION ALL
                SELECT w.id, w.parent_id, line.hops + 1 FROM line JOIN workspaces w ON w.id = line.parent_id
                WHERE line.hops < $2)
             SELECT id FROM line ORDER BY hops")
        .bind(id.uuid()).bind(hops).fetch_all(c).await)?;
    let mut line = rows.into_iter().map(WorkspaceId::from_uuid);
    Ok(line.next().map(|id| Lineage { id, ancestors: line.collect() }))
}

/// Make the reconciler look at it now. Only a hint is missing then: see `Bells`.
pub(crate) async fn wake(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET due_at = $1 WHERE id = $2 AND due_at > $1")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Who looks at which.
pub(super) static CLAIMS: Claims = claims!("workspaces", open: "", known_by: "id");

/// Give back every claim, and look at those workspaces now: whoever had them is gone.
pub(crate) async fn release_all(tx: &mut Tx, now: Timestamp) -> Done {
    CLAIMS.give_back_all(tx, now).await
}

/// When the next workspace can be taken: it is due, and nobody has it. Only the first few by time are looked at,
/// which an index gives: those that somebody has are fewer, and where they are not, the next look comes early.
pub(super) async fn next_due(tx: &mut Tx) -> Done<Option<Timestamp>> {
    let due: Vec<i64> = on!(tx, c => sqlx::query_scalar(
            "SELECT CASE WHEN claimed_until > due_at THEN claimed_until ELSE due_at END
             FROM workspaces ORDER BY due_at LIMIT $1")
        .bind(LOOKED_AT).fetch_all(c).await)?;
    Ok(due.into_iter().min().map(Timestamp::from_micros))
}
