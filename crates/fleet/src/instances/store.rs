//! Instances and their workspaces in the database.

use std::collections::BTreeMap;

use ligand_domain::backoff::Failures;
use ligand_domain::fleet::{Intent, Recreations, State};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Exit;
use ligand_domain::orphan::{Known, Label};
use ligand_domain::secrets::Stored;
use ligand_domain::time::Timestamp;
use ligand_server::backend::Key;
use ligand_server::db::{Tx, on};
use uuid::Uuid;

use super::Instance;
use crate::app::Fleet;

type Done<T = ()> = Result<T, sqlx::Error>;

/// A workspace of which the fleet was asked for an instance.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Workspace {
    /// Whose.
    #[sqlx(rename = "org_id")]
    pub(crate) org: String,
    /// The newest generation that was asked for.
    pub(crate) generation: i64,
    /// Where its newest instance is that is to stay; where the last one was, if there is none.
    pub(crate) provider: String,
    /// Until then its data is being taken away.
    pub(crate) erasing_until: i64,
}

pub(crate) async fn workspace(tx: &mut Tx, id: WorkspaceId) -> Done<Option<Workspace>> {
    on!(tx, c => sqlx::query_as("SELECT w.org_id, w.generation, w.erasing_until, COALESCE((SELECT i.provider FROM instances i
                WHERE i.workspace_id = w.workspace_id AND i.ended_at IS NULL AND i.intent <> 'end'
                ORDER BY i.generation DESC LIMIT 1), w.provider) AS provider
            FROM workspaces w WHERE w.workspace_id = $1")
        .bind(id.uuid()).fetch_optional(c).await)
}

/// Read a workspace, and keep everybody else from deciding about it until the transaction ends. It is there
/// afterwards, as this organisation's if it was nobody's.
pub(super) async fn claim(
    tx: &mut Tx,
    id: WorkspaceId,
    org: &str,
    provider: &str,
) -> Done<Workspace> {
    on!(&mut *tx, c => sqlx::query("INSERT INTO workspaces (workspace_id, org_id, generation, provider, pruned)
            VALUES ($1, $2, 0, $3, $4) ON CONFLICT DO NOTHING")
        .bind(id.uuid()).bind(org).bind(provider).bind(false).execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query_as("UPDATE workspaces SET version = version + 1 WHERE workspace_id = $1
            RETURNING org_id, generation, provider, erasing_until")
        .bind(id.uuid()).fetch_one(c).await)
}

/// Its newest instance is asked for: its data is wanted again.
pub(super) async fn raise(tx: &mut Tx, id: WorkspaceId, to: Generation, provider: &str) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET generation = $1, provider = $2, pruned = $3 WHERE workspace_id = $4")
        .bind(to.number()).bind(provider).bind(false).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// The fleet counts: the next generation of a workspace. Whether its data is wanted is not said by that.
pub(super) async fn count_up(tx: &mut Tx, id: WorkspaceId) -> Done<Generation> {
    let next: i64 = on!(tx, c => sqlx::query_scalar("UPDATE workspaces SET generation = generation + 1, version = version + 1
            WHERE workspace_id = $1 RETURNING generation")
        .bind(id.uuid()).fetch_one(c).await)?;
    Ok(Generation::new(next))
}

/// Its data is to be taken away, once all of its instances have ended.
pub(super) async fn prune(tx: &mut Tx, id: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET pruned = $1 WHERE workspace_id = $2")
        .bind(true).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Begin to take its data away, if that is wanted, nothing of it is left, and nobody else is at it: nothing is started
/// meanwhile.
pub(super) async fn begin_erasing(
    tx: &mut Tx,
    id: WorkspaceId,
    now: Timestamp,
    until: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET erasing_until = $1 WHERE workspace_id = $2 AND pruned AND erasing_until <= $3
            AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.workspace_id = $2 AND i.ended_at IS NULL)")
        .bind(until.micros()).bind(id.uuid()).bind(now.micros())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Begin to take its data away from one provider, if no instance of it is there that has not ended, and nobody else is
/// at it.
pub(super) async fn begin_erasing_on(
    tx: &mut Tx,
    id: WorkspaceId,
    provider: &str,
    now: Timestamp,
    until: Timestamp,
) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE workspaces SET erasing_until = $1 WHERE workspace_id = $2 AND erasing_until <= $4
            AND NOT EXISTS (SELECT 1 FROM instances i
                WHERE i.workspace_id = $2 AND i.provider = $3 AND i.ended_at IS NULL)")
        .bind(until.micros()).bind(id.uuid()).bind(provider).bind(now.micros())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Its data is gone, or it was not possible to take it away.
pub(super) async fn end_erasing(tx: &mut Tx, id: WorkspaceId, gone: bool) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET erasing_until = 0, pruned = CASE WHEN $1 THEN $2 ELSE pruned END
            WHERE workspace_id = $3")
        .bind(gone).bind(false).bind(id.uuid()).execute(c).await.map(|_| ()))
}

#[derive(sqlx::FromRow)]
struct Row {
    instance_id: String,
    org_id: String,
    workspace_id: Uuid,
    generation: i64,
    counted: bool,
    provider: String,
    runtime: String,
    wish: Vec<u8>,
    spec: Option<Vec<u8>>,
    spec_version: i64,
    intent: String,
    state: String,
    since: i64,
    evidence: String,
    exit: Option<String>,
    handle: String,
    address: Option<String>,
    last_error: Option<String>,
    failures: i64,
    failures_since: i64,
    recreations: i64,
    recreations_since: i64,
    booting_until: Option<i64>,
    confirmed_at: Option<i64>,
    ended_at: Option<i64>,
    due_at: i64,
    version: i64,
    created_at: i64,
}

macro_rules! columns {
    () => {
        "instance_id, org_id, workspace_id, generation, counted, provider, runtime, wish, spec, spec_version, \
         intent, state, since, evidence, exit, handle, address, last_error, failures, failures_since, \
         recreations, recreations_since, booting_until, confirmed_at, ended_at, due_at, version, created_at"
    };
}

fn unreadable(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: "a word that is not known".into(),
    }
}

impl TryFrom<Row> for Instance {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let at = Timestamp::from_micros;
        let exit = row.exit.and_then(|text| serde_json::from_str(&text).ok());
        let exit = exit.map(|(code, signal, said)| Exit { code, signal, said });
        Ok(Self {
            intent: Intent::parse(&row.intent).ok_or_else(|| unreadable("intent"))?,
            state: State::parse(&row.state).ok_or_else(|| unreadable("state"))?,
            id: row.instance_id,
            org: row.org_id,
            workspace: WorkspaceId::from_uuid(row.workspace_id),
            generation: Generation::new(row.generation),
            counted: row.counted,
            provider: row.provider,
            runtime: row.runtime,
            wish: row.wish,
            spec: row.spec.map(|bytes| Stored { version: row.spec_version, bytes }),
            since: at(row.since),
            evidence: row.evidence,
            exit,
            handle: row.handle,
            address: row.address,
            last_error: row.last_error,
            failures: Failures { count: row.failures, since: at(row.failures_since) },
            recreations: Recreations { count: row.recreations, since: at(row.recreations_since) },
            booting_until: row.booting_until.map(at),
            confirmed_at: row.confirmed_at.map(at),
            ended_at: row.ended_at.map(at),
            due: at(row.due_at),
            version: row.version,
            created_at: at(row.created_at),
        })
    }
}

fn all(rows: Vec<Row>) -> Done<Vec<Instance>> {
    rows.into_iter().map(Instance::try_from).collect()
}

/// One of an organisation's, ended or not.
pub(super) async fn get(tx: &mut Tx, org: &str, id: &str) -> Done<Option<Instance>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM instances WHERE instance_id = $1 AND org_id = $2"))
        .bind(id).bind(org).fetch_optional(c).await)?;
    row.map(Instance::try_from).transpose()
}

/// Everything of one workspace, the oldest generation first.
pub(super) async fn of_workspace(tx: &mut Tx, id: WorkspaceId) -> Done<Vec<Instance>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM instances WHERE workspace_id = $1 ORDER BY generation"))
        .bind(id.uuid()).fetch_all(c).await)?;
    all(rows)
}

/// Everything of an organisation that has not ended.
pub(super) async fn open(tx: &mut Tx, org: &str) -> Done<Vec<Instance>> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(concat!("SELECT ", columns!(),
            " FROM instances WHERE org_id = $1 AND ended_at IS NULL ORDER BY workspace_id, generation"))
        .bind(org).fetch_all(c).await)?;
    all(rows)
}

pub(super) async fn insert(tx: &mut Tx, new: &Instance) -> Done {
    let spec = new.spec.as_ref();
    on!(tx, c => sqlx::query("INSERT INTO instances (instance_id, org_id, workspace_id, generation, counted, provider,
            runtime, wish, spec, spec_version, intent, state, since, evidence, handle, failures, failures_since,
            recreations, recreations_since, due_at, lease_until, version, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'run', 'pending', $11, $12, '', 0, 0, 0, 0, $11, 0, 0, $11)")
        .bind(&new.id).bind(&new.org).bind(new.workspace.uuid()).bind(new.generation.number()).bind(new.counted)
        .bind(&new.provider).bind(&new.runtime).bind(&new.wish).bind(spec.map(|it| it.bytes.clone()))
        .bind(spec.map_or(0, |it| it.version)).bind(new.created_at.micros()).bind(&new.evidence)
        .execute(c).await.map(|_| ()))
}

/// One that never came to be begins anew, with another spec.
pub(super) async fn revive(
    tx: &mut Tx,
    id: &str,
    wish: &[u8],
    spec: &Stored,
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET intent = 'run', state = 'pending', since = $1, evidence = 'asked for again',
            wish = $2, spec = $3, spec_version = $4, ended_at = NULL, last_error = NULL, failures = 0, due_at = $1,
            version = version + 1 WHERE instance_id = $5 AND ended_at IS NOT NULL")
        .bind(now.micros()).bind(wish.to_vec()).bind(&spec.bytes).bind(spec.version).bind(id)
        .execute(c).await.map(|_| ()))
}

/// Change what one is meant to do. What is to end ends, and what has ended stays so.
pub(super) async fn want(tx: &mut Tx, id: &str, intent: Intent, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query("UPDATE instances SET intent = $1, due_at = $2, version = version + 1
            WHERE instance_id = $3 AND ended_at IS NULL AND intent <> 'end' AND intent <> $1")
        .bind(intent.as_str()).bind(now.micros()).bind(id).execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Everything of an organisation ends, and its data is taken away.
pub(crate) async fn end_all(fleet: &Fleet, tx: &mut Tx, org: &str) -> Done<i64> {
    let now = fleet.clock.now();
    on!(&mut *tx, c => sqlx::query("UPDATE workspaces SET pruned = $1, version = version + 1 WHERE org_id = $2")
        .bind(true).bind(org).execute(c).await.map(|_| ()))?;
    let ended = on!(tx, c => sqlx::query("UPDATE instances SET intent = 'end', due_at = $1, version = version + 1
            WHERE org_id = $2 AND ended_at IS NULL")
        .bind(now.micros()).bind(org).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(i64::try_from(ended).unwrap_or(i64::MAX))
}

pub(super) async fn make_due(tx: &mut Tx, key: Key, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET due_at = $1, version = version + 1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL AND due_at > $1")
        .bind(now.micros()).bind(key.workspace.uuid()).bind(key.generation.number())
        .execute(c).await.map(|_| ()))
}

/// An elder has ended: those that wait for it look again.
pub(super) async fn wake_heirs(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET due_at = $1, version = version + 1
            WHERE workspace_id = $2 AND ended_at IS NULL AND confirmed_at IS NULL AND due_at > $1")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Whether an older instance of its workspace has not ended.
pub(super) async fn has_elder(tx: &mut Tx, of: &Instance) -> Done<bool> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM instances
            WHERE workspace_id = $1 AND generation < $2 AND ended_at IS NULL)")
        .bind(of.workspace.uuid()).bind(of.generation.number()).fetch_one(c).await)
}

/// Whether any is due.
pub(super) async fn any_due(tx: &mut Tx, now: Timestamp) -> Done<bool> {
    on!(tx, c => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM instances
            WHERE ended_at IS NULL AND due_at <= $1 AND lease_until <= $1)")
        .bind(now.micros()).fetch_one(c).await)
}

/// Take one that is due: it is this holder's until it is saved, or until then.
pub(super) async fn take(
    tx: &mut Tx,
    holder: &[u8],
    now: Timestamp,
    until: Timestamp,
) -> Done<Option<Instance>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(concat!(
            "UPDATE instances SET lease_holder = $1, lease_until = $2 WHERE instance_id = (SELECT instance_id FROM instances
                WHERE ended_at IS NULL AND due_at <= $3 AND lease_until <= $3 ORDER BY due_at, generation LIMIT 1)
             AND ended_at IS NULL AND due_at <= $3 AND lease_until <= $3 RETURNING ", columns!()))
        .bind(holder.to_vec()).bind(until.micros()).bind(now.micros()).fetch_optional(c).await)?;
    row.map(Instance::try_from).transpose()
}

/// Write down what came of it, and let it go. `false`: it was not this holder's any more, and nothing is written.
pub(super) async fn save(tx: &mut Tx, holder: &[u8], it: &Instance) -> Done<bool> {
    let exit = it.exit.as_ref();
    let exit = exit.map(|exit| serde_json::json!([exit.code, exit.signal, exit.said]).to_string());
    let spec = it.spec.as_ref();
    on!(tx, c => sqlx::query("UPDATE instances SET generation = $1, spec = $2, spec_version = $3, state = $4, since = $5,
            evidence = $6, exit = $7, handle = $8, address = $9, last_error = $10, failures = $11, failures_since = $12,
            recreations = $13, recreations_since = $14, booting_until = $15, confirmed_at = $16, ended_at = $17,
            due_at = CASE WHEN version = $18 THEN $19 ELSE due_at END, lease_until = 0, lease_holder = NULL
            WHERE instance_id = $20 AND lease_holder = $21")
        .bind(it.generation.number()).bind(spec.map(|it| it.bytes.clone())).bind(spec.map_or(0, |it| it.version))
        .bind(it.state.as_str()).bind(it.since.micros()).bind(&it.evidence).bind(exit).bind(&it.handle).bind(&it.address)
        .bind(&it.last_error).bind(it.failures.count).bind(it.failures.since.micros()).bind(it.recreations.count)
        .bind(it.recreations.since.micros()).bind(it.booting_until.map(Timestamp::micros))
        .bind(it.confirmed_at.map(Timestamp::micros)).bind(it.ended_at.map(Timestamp::micros)).bind(it.version)
        .bind(it.due.micros()).bind(&it.id).bind(holder.to_vec())
        .execute(c).await.map(|done| done.rows_affected() == 1))
}

/// Whoever has a SQLite file is alone with it: claims in there are those of a server that died.
pub(crate) async fn release_all(tx: &mut Tx) -> Done {
    on!(&mut *tx, c => sqlx::query("UPDATE workspaces SET erasing_until = 0 WHERE erasing_until > 0")
        .execute(c).await.map(|_| ()))?;
    on!(tx, c => sqlx::query("UPDATE instances SET lease_until = 0, lease_holder = NULL WHERE lease_until > 0")
        .execute(c).await.map(|_| ()))
}

/// Instances on a provider whose rows have not ended, and whether it confirmed them.
pub(crate) async fn named_on(tx: &mut Tx, provider: &str) -> Done<BTreeMap<Label, bool>> {
    let rows: Vec<(Uuid, i64, Option<i64>)> = on!(tx, c => sqlx::query_as(
            "SELECT workspace_id, generation, confirmed_at FROM instances WHERE provider = $1 AND ended_at IS NULL")
        .bind(provider).fetch_all(c).await)?;
    let of = |(workspace, generation, confirmed): (Uuid, i64, Option<i64>)| {
        ((WorkspaceId::from_uuid(workspace), Generation::new(generation)), confirmed.is_some())
    };
    Ok(rows.into_iter().map(of).collect())
}

/// What becomes of every workspace that the fleet was ever asked about.
pub(crate) async fn workspaces_known(tx: &mut Tx) -> Done<BTreeMap<WorkspaceId, Known>> {
    let rows: Vec<(Uuid, bool)> = on!(tx, c => sqlx::query_as("SELECT workspace_id, pruned FROM workspaces")
        .fetch_all(c).await)?;
    let of = |(id, pruned): (Uuid, bool)| {
        (WorkspaceId::from_uuid(id), if pruned { Known::Removed } else { Known::Kept })
    };
    Ok(rows.into_iter().map(of).collect())
}

/// Workspaces whose newest instance that is to stay is on a provider; with their organisations.
pub(crate) async fn on_provider(tx: &mut Tx, provider: &str) -> Done<Vec<(WorkspaceId, String)>> {
    let rows: Vec<(Uuid, String)> = on!(tx, c => sqlx::query_as(
            "SELECT i.workspace_id, i.org_id FROM instances i
             WHERE i.provider = $1 AND i.ended_at IS NULL AND i.intent <> 'end' AND NOT EXISTS (SELECT 1 FROM instances newer
                WHERE newer.workspace_id = i.workspace_id AND newer.generation > i.generation
                AND newer.ended_at IS NULL AND newer.intent <> 'end')
             ORDER BY i.org_id, i.workspace_id")
        .bind(provider).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, org)| (WorkspaceId::from_uuid(id), org)).collect())
}
