//! Instances in the database.

use ligand_domain::id::{Generation, InstanceId, WorkspaceId};
use ligand_domain::instance::Phase;
use ligand_domain::time::Timestamp;

use super::Done;
use super::rows::{InstanceRow, instance_columns};
use crate::db::{Tx, on};
use crate::workspaces::Instance;

/// A new row, before anything is asked of a backend; or, with `Serving`, of an instance that nobody started.
pub(crate) async fn insert_instance(
    tx: &mut Tx,
    id: InstanceId,
    of: (WorkspaceId, Generation),
    backend: Option<&str>,
    phase: Phase,
    now: Timestamp,
) -> Done {
    let registered = (phase == Phase::Serving).then_some(now.micros());
    on!(tx, c => sqlx::query("INSERT INTO instances (id, workspace_id, generation, born, backend, phase, last_seen_at, registered_at, created_at)
            VALUES ($1, $2, $3, $3, $4, $5, $6, $6, $7)")
        .bind(id.uuid()).bind(of.0.uuid()).bind(of.1.number()).bind(backend).bind(phase.as_str())
        .bind(registered).bind(now.micros()).execute(c).await.map(|_| ()))
}

/// The instances that have not ended, oldest first.
pub(crate) async fn alive(tx: &mut Tx, workspace: WorkspaceId) -> Done<Vec<Instance>> {
    let rows: Vec<InstanceRow> = on!(tx, c => sqlx::query_as(concat!("SELECT ", instance_columns!(),
            " FROM instances WHERE workspace_id = $1 AND ended_at IS NULL ORDER BY generation"))
        .bind(workspace.uuid()).fetch_all(c).await)?;
    rows.into_iter().map(Instance::try_from).collect()
}

/// One, in whatever phase.
pub(crate) async fn instance_of(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
) -> Done<Option<Instance>> {
    let row: Option<InstanceRow> = on!(tx, c => sqlx::query_as(concat!("SELECT ", instance_columns!(),
            " FROM instances WHERE workspace_id = $1 AND generation = $2"))
        .bind(workspace.uuid()).bind(generation.number()).fetch_optional(c).await)?;
    row.map(Instance::try_from).transpose()
}

/// The newest `limit`, newest first, ended or not.
pub(crate) async fn latest(tx: &mut Tx, workspace: WorkspaceId, limit: i64) -> Done<Vec<Instance>> {
    let rows: Vec<InstanceRow> = on!(tx, c => sqlx::query_as(concat!("SELECT ", instance_columns!(),
            " FROM instances WHERE workspace_id = $1 ORDER BY generation DESC LIMIT $2"))
        .bind(workspace.uuid()).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(Instance::try_from).collect()
}

/// A backend confirmed a start. Its agent may have been admitted already: the phase never goes back.
pub(crate) async fn started(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    handle: &str,
    address: Option<&str>,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET phase = CASE WHEN phase = 'planned' THEN 'started' ELSE phase END,
            handle = $1, url = COALESCE($2, url), url_reported = $3, started_at = $4
            WHERE workspace_id = $5 AND generation = $6 AND ended_at IS NULL")
        .bind(handle).bind(address).bind(address.is_some()).bind(now.micros())
        .bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))?;
    // Admitted before this was known: then the workspace still has the address that the agent gave.
    on!(tx, c => sqlx::query("UPDATE workspaces SET url = COALESCE($1, url)
            WHERE id = $2 AND current_generation = $3 AND status <> 'removed'")
        .bind(address).bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))
}

/// Its backend says on which machine it is.
pub(crate) async fn note_host(tx: &mut Tx, of: (WorkspaceId, Generation), host: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET reported_host = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(host).bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))
}

/// What serves under this generation is not where the backend said: nothing that it reported counts any more.
pub(crate) async fn moved(tx: &mut Tx, of: (WorkspaceId, Generation)) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET url_reported = FALSE, url = '', reported_host = NULL
            WHERE workspace_id = $1 AND generation = $2 AND ended_at IS NULL")
        .bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))
}

/// An administrator says which instance of its backend it is: another one than before is somewhere else.
pub(crate) async fn repointed(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    handle: &str,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE instances SET handle = $1, url_reported = FALSE, reported_host = NULL
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL AND COALESCE(handle, '') <> $1")
        .bind(handle).bind(of.0.uuid()).bind(of.1.number())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Its agent was admitted: it serves.
pub(crate) async fn observe_instance(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    features: Option<&str>,
    url: Option<&str>,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET phase = 'serving', last_seen_at = $1,
            registered_at = COALESCE(registered_at, $1), features = COALESCE($2, features),
            url = CASE WHEN url_reported THEN url ELSE COALESCE($3, url) END
            WHERE workspace_id = $4 AND generation = $5 AND ended_at IS NULL")
        .bind(now.micros()).bind(features).bind(url).bind(of.0.uuid()).bind(of.1.number())
        .execute(c).await.map(|_| ()))
}

/// It called, and was not let in for a reason that is not its own: it is alive.
pub(crate) async fn heard(tx: &mut Tx, of: (WorkspaceId, Generation), now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET last_seen_at = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(now.micros()).bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))
}

/// The agent of a planned instance was admitted without its credential: it is the new generation's now.
/// The label at the backend keeps the number it was born with.
pub(crate) async fn bind_newest(
    tx: &mut Tx,
    workspace: WorkspaceId,
    from: Generation,
    to: Generation,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE instances SET generation = $1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(to.number()).bind(workspace.uuid()).bind(from.number())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// It ended, and how.
pub(crate) async fn end(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    exit: &str,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET phase = 'ended', ended_at = $1, exit = $2
            WHERE workspace_id = $3 AND generation = $4 AND ended_at IS NULL")
        .bind(now.micros()).bind(exit).bind(of.0.uuid()).bind(of.1.number())
        .execute(c).await.map(|_| ()))
}

/// A planned generation will never be admitted: somebody else overtook it, or its migration was rolled back.
pub(crate) async fn abandon(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    why: &str,
    now: Timestamp,
) -> Done {
    end(tx, of, why, now).await?;
    on!(tx, c => sqlx::query("UPDATE workspaces SET abandoned_generation = $1 WHERE id = $2")
        .bind(of.1.number()).bind(of.0.uuid()).execute(c).await.map(|_| ()))
}
