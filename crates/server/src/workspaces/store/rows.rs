//! Rows as the database has them, and what they mean. A row that means nothing is reported as corruption.

use ligand_domain::admission::Bootstrap;
use ligand_domain::backoff::Failures;
use ligand_domain::id::{Generation, InstanceId, WorkspaceId};
use ligand_domain::instance::{Features, Phase};
use ligand_domain::lifecycle::Leisure;
use ligand_domain::rotation::Serials;
use ligand_domain::secrets::Receipt;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use uuid::Uuid;

use crate::workspaces::{Compute, Identity, Instance, Reported, Workspace};

/// The columns of [`Row`], named: a prepared statement must not change its shape under a new column.
macro_rules! columns {
    () => {
        "id, name, role, tier, runtime, model, command, backend, workspace_dir, workspace_access, parent_id, \
         budget_limit, monthly_spend, max_concurrent_tasks, x, y, collapsed, intent, restarts_wanted, \
         restarts_loaded, status, since, evidence, current_generation, newest_generation, last_error, \
         next_attempt_at, failures, failures_since, released_at, bootstrap, bootstrap_until, url, agent_card, \
         delivery_mode, CASE WHEN current_generation = 0 THEN last_heartbeat_at ELSE \
            (SELECT i.last_seen_at FROM instances i WHERE i.workspace_id = workspaces.id \
             AND i.generation = workspaces.current_generation) END AS last_heartbeat_at, last_outbound_at, last_error_rate, last_sample_error, active_tasks, \
         uptime_seconds, current_task, capabilities, idle_timeout_seconds, register_failed_at, unsure_at, created_at, \
         candidate_generation, abandoned_generation, revoked_at, refused_at, refused_why, rotations_wanted, rotations_done, \
         hibernation_idle_minutes, last_turn_at, compute_instance, compute_provider, purge_wanted_at"
    };
}
pub(super) use columns;

/// The columns of [`InstanceRow`].
macro_rules! instance_columns {
    () => {
        "id, workspace_id, generation, born, backend, phase, handle, url, url_reported, features, last_seen_at, \
         started_at, registered_at, ended_at, exit, dismissed_at, condemned, receipt, reported_host, \
         created_at"
    };
}
pub(super) use instance_columns;

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: Uuid,
    name: String,
    role: Option<String>,
    tier: i64,
    runtime: String,
    model: Option<String>,
    command: Option<String>,
    backend: Option<String>,
    workspace_dir: Option<String>,
    workspace_access: String,
    parent_id: Option<Uuid>,
    budget_limit: Option<i64>,
    monthly_spend: i64,
    max_concurrent_tasks: i64,
    x: f64,
    y: f64,
    collapsed: bool,
    intent: String,
    restarts_wanted: i64,
    restarts_loaded: i64,
    status: String,
    since: i64,
    evidence: String,
    current_generation: i64,
    newest_generation: i64,
    last_error: Option<String>,
    next_attempt_at: Option<i64>,
    failures: i64,
    failures_since: i64,
    released_at: Option<i64>,
    bootstrap: String,
    bootstrap_until: Option<i64>,
    url: String,
    agent_card: Option<String>,
    delivery_mode: Option<String>,
    last_heartbeat_at: Option<i64>,
    last_outbound_at: Option<i64>,
    last_error_rate: f64,
    last_sample_error: String,
    active_tasks: i64,
    uptime_seconds: i64,
    current_task: String,
    capabilities: String,
    idle_timeout_seconds: Option<i64>,
    register_failed_at: Option<i64>,
    unsure_at: Option<i64>,
    created_at: i64,
    candidate_generation: Option<i64>,
    abandoned_generation: Option<i64>,
    revoked_at: Option<i64>,
    refused_at: Option<i64>,
    refused_why: Option<String>,
    rotations_wanted: i64,
    rotations_done: i64,
    hibernation_idle_minutes: Option<i64>,
    last_turn_at: Option<i64>,
    compute_instance: Option<String>,
    compute_provider: Option<String>,
    purge_wanted_at: Option<i64>,
}

fn corrupt(table: &str, column: &str) -> sqlx::Error {
    sqlx::Error::Decode(
        format!("{table}.{column} holds a value that this version does not know").into(),
    )
}

fn time(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

fn bootstrap(text: &str) -> Option<Bootstrap> {
    [Bootstrap::Sealed, Bootstrap::Open].into_iter().find(|it| bootstrap_text(*it) == text)
}

pub(super) fn bootstrap_text(bootstrap: Bootstrap) -> &'static str {
    match bootstrap {
        Bootstrap::Sealed => "sealed",
        Bootstrap::Open => "open",
    }
}

impl TryFrom<Row> for Workspace {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let unknown = |column| corrupt("workspaces", column);
        let command = row.command.as_deref().map(serde_json::from_str);
        let agent = Reported {
            url: row.url,
            card: row.agent_card,
            delivery_mode: row.delivery_mode,
            register_failed_at: time(row.register_failed_at),
            last_heartbeat_at: time(row.last_heartbeat_at),
            last_outbound_at: time(row.last_outbound_at),
            error_rate: row.last_error_rate,
            sample_error: row.last_sample_error,
            active_tasks: row.active_tasks,
            uptime_seconds: row.uptime_seconds,
            current_task: row.current_task,
            capabilities: row.capabilities,
            idle_timeout_seconds: row.idle_timeout_seconds,
        };
        Ok(Self {
            id: WorkspaceId::from_uuid(row.id),
            name: row.name,
            role: row.role,
            tier: row.tier,
            runtime: row.runtime,
            model: row.model,
            command: command.transpose().map_err(|_| unknown("command"))?,
            backend: row.backend,
            workspace_dir: row.workspace_dir,
            workspace_access: row.workspace_access,
            parent: row.parent_id.map(WorkspaceId::from_uuid),
            budget_limit: row.budget_limit,
            monthly_spend: row.monthly_spend,
            max_concurrent_tasks: row.max_concurrent_tasks,
            canvas: (row.x, row.y, row.collapsed),
            intent: Intent::parse(&row.intent).ok_or_else(|| unknown("intent"))?,
            restarts_wanted: row.restarts_wanted,
            restarts_loaded: row.restarts_loaded,
            status: Status::parse(&row.status).ok_or_else(|| unknown("status"))?,
            since: Timestamp::from_micros(row.since),
            evidence: row.evidence,
            current: Generation::new(row.current_generation),
            newest: Generation::new(row.newest_generation),
            last_error: row.last_error,
            next_attempt_at: time(row.next_attempt_at),
            failures: Failures {
                count: row.failures,
                since: Timestamp::from_micros(row.failures_since),
            },
            released_at: time(row.released_at),
            bootstrap: bootstrap(&row.bootstrap).ok_or_else(|| unknown("bootstrap"))?,
            bootstrap_until: time(row.bootstrap_until),
            agent,
            identity: Identity {
                candidate: row.candidate_generation.map(Generation::new),
                abandoned: row.abandoned_generation.map(Generation::new),
                revoked_at: time(row.revoked_at),
                refused: time(row.refused_at).zip(row.refused_why),
                serials: Serials { wanted: row.rotations_wanted, done: row.rotations_done },
            },
            unsure: row.unsure_at.is_some(),
            purge: row.purge_wanted_at.is_some(),
            leisure: Leisure {
                minutes: row.hibernation_idle_minutes,
                last_turn_at: time(row.last_turn_at),
            },
            compute: row
                .compute_instance
                .zip(row.compute_provider)
                .map(|(instance, provider)| Compute { instance, provider }),
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct InstanceRow {
    id: Uuid,
    workspace_id: Uuid,
    generation: i64,
    born: i64,
    backend: Option<String>,
    phase: String,
    handle: Option<String>,
    url: String,
    url_reported: bool,
    features: String,
    last_seen_at: Option<i64>,
    started_at: Option<i64>,
    registered_at: Option<i64>,
    ended_at: Option<i64>,
    exit: Option<String>,
    dismissed_at: Option<i64>,
    condemned: Option<String>,
    receipt: Option<String>,
    reported_host: Option<String>,
    created_at: i64,
}

impl TryFrom<InstanceRow> for Instance {
    type Error = sqlx::Error;

    fn try_from(row: InstanceRow) -> Result<Self, sqlx::Error> {
        let receipt = row.receipt.as_deref();
        let receipt =
            receipt.map(|text| Receipt::parse(text).ok_or_else(|| corrupt("instances", "receipt")));
        Ok(Self {
            id: InstanceId::from_uuid(row.id),
            workspace: WorkspaceId::from_uuid(row.workspace_id),
            generation: Generation::new(row.generation),
            born: Generation::new(row.born),
            backend: row.backend,
            phase: Phase::parse(&row.phase).ok_or_else(|| corrupt("instances", "phase"))?,
            handle: row.handle,
            url: row.url,
            url_reported: row.url_reported,
            features: Features::from_names(row.features.split_ascii_whitespace()),
            last_seen_at: time(row.last_seen_at),
            started_at: time(row.started_at),
            registered_at: time(row.registered_at),
            ended_at: time(row.ended_at),
            exit: row.exit,
            receipt: receipt.transpose()?,
            dismissed: row.dismissed_at.is_some(),
            condemned: row.condemned,
            host: row.reported_host,
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}
