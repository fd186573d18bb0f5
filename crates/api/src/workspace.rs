//! Workspaces as callers see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A workspace. Which optional fields are there depends on who asks: the open read shows the least, the
/// list the most. An absent field is not the same as `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Workspace {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Option<String>,
    /// Resource tier, 1..4.
    pub tier: i64,
    /// What was last observed.
    pub status: String,
    /// The agent's card; `null` before it registered.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub agent_card: Option<Value>,
    /// Where the agent answers; empty while it does not.
    pub url: String,
    /// Its place in the hierarchy.
    pub parent_id: Option<Uuid>,
    /// Turns in progress, as the agent reports.
    pub active_tasks: i64,
    /// Turns it takes at once.
    pub max_concurrent_tasks: i64,
    /// Share of recent work that failed.
    pub last_error_rate: f64,
    /// Seconds since the agent started.
    pub uptime_seconds: i64,
    /// Which recipe runs it.
    pub runtime: String,
    /// Place on a canvas.
    pub x: f64,
    /// Place on a canvas.
    pub y: f64,
    /// Folded on a canvas.
    pub collapsed: bool,
    /// The last admitted heartbeat or register.
    #[serde(default)]
    pub last_heartbeat_at: Option<String>,
    /// The generation that counts now.
    #[serde(default)]
    pub generation: i64,
    /// What a user asked for.
    #[serde(default)]
    pub intent: String,
    /// Since when it has its status.
    #[serde(default)]
    pub since: String,
    /// One recent error, or why it failed. List only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sample_error: Option<String>,
    /// What it is doing. List only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_task: Option<String>,
    /// A host directory it works in. List only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub workspace_dir: Option<Option<String>>,
    /// Cents spent this month. List only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_spend: Option<i64>,
    /// The same, under the name that browsers read. List only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_used: Option<i64>,
    /// Cents it may spend a month. List only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<i64>))]
    pub budget_limit: Option<Option<i64>>,
    /// When it last called another workspace. Single read only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub last_outbound_at: Option<Option<String>>,
    /// Which backend runs it; `null` for an external one. With a credential only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub backend: Option<Option<String>>,
    /// What its status rests on. With a credential only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Why the last attempt failed. With a credential only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub last_error: Option<Option<String>>,
    /// The longest start that a template of its runtime declares. Only where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision_timeout_ms: Option<u64>,
    /// When the next attempt begins. With a credential only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub next_attempt_at: Option<Option<String>>,
    /// It hibernates after so many minutes without a turn. With a credential only, where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernation_idle_minutes: Option<i64>,
    /// The compute that an administrator named. With a credential only, where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Whose compute that is. With a credential only, where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The migration that is under way. With a credential only, at one workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Moving>,
}

/// A migration that is under way, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Moving {
    /// Its phase; `undoing` while it is rolled back.
    pub phase: String,
    /// The backend that it goes to.
    pub to: String,
    /// Since when it is in that phase.
    pub since: String,
}

/// Body of `POST /workspaces`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Create {
    /// 1..255 bytes, one line, none of `{}[]\|>*&!`.
    pub name: String,
    /// Up to 1000 bytes, same characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Directory under the templates root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// 1..4; 0 or absent is 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<i64>,
    /// Model that the runtime is told to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which recipe runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The command that the agent supervises; needs the admin token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Which backend runs it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// No backend runs it: the operator does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
    /// Where an external agent answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A host directory it works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_dir: Option<String>,
    /// `none`, `read_only` or `read_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_access: Option<String>,
    /// Its place in the hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Cents it may spend a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_limit: Option<i64>,
    /// Secrets by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, String>>,
    /// Turns it takes at once; below 1 is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_tasks: Option<i64>,
    /// It hibernates after so many minutes without a turn; absent, or below 1: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernation_idle_minutes: Option<i64>,
    /// Place on a canvas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canvas: Option<Canvas>,
    /// What it remembers from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<Object>>))]
    pub initial_memories: Option<Vec<Value>>,
}

/// Place on a canvas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Canvas {
    /// Pixels from the left.
    #[serde(default)]
    pub x: f64,
    /// Pixels from the top.
    #[serde(default)]
    pub y: f64,
}

/// Answer to a create.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Created {
    /// The new workspace.
    pub id: Uuid,
    /// Its status at the moment of the answer.
    pub status: String,
    /// Managed: what the workspace may do in its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_access: Option<String>,
    /// Managed: the namespace of its shared notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awareness_namespace: Option<String>,
    /// Managed: a credential for callers on the workspace's behalf. Shown here and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
    /// External without a URL: all that its operator needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
}

/// What the operator of an external agent needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Connection {
    /// The workspace.
    pub workspace_id: String,
    /// Where the platform is reached.
    pub platform_url: String,
    /// Its credential. Shown here and never again.
    pub auth_token: String,
    /// Where to register.
    pub registry_endpoint: String,
    /// Where to send heartbeats.
    pub heartbeat_endpoint: String,
    /// A command to try it with.
    pub curl_register_template: String,
    /// A program to begin with.
    pub python_snippet: String,
}

/// Answer to a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Restarted {
    /// `provisioning`, or `noop` for a runtime that no backend restarts.
    pub status: String,
    /// Where its configuration comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_dir: Option<String>,
    /// Whether the session is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_session: Option<bool>,
    /// Of a runtime that no backend restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Answer to a patch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Patched {
    /// `updated`.
    pub status: String,
    /// The change takes effect at the next restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_restart: Option<bool>,
}

/// Answer to a delete.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Deleted {
    /// `removed`, `purged`; `removing` when the backend is still at it after 30 s (202).
    pub status: String,
    /// How many descendants went with it.
    pub cascade_deleted: i64,
}

/// Answer to a delete that would take children along and was not confirmed (409).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ConfirmDelete {
    /// `confirmation_required`.
    pub status: String,
    /// What to do.
    pub message: String,
    /// Who would go.
    pub children: Vec<Child>,
    /// How many.
    pub children_count: i64,
}

/// A child, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Child {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// Answer to a pause.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Paused {
    /// `paused`; `pausing` when the backend is still at it after 30 s (202).
    pub status: String,
    /// How many workspaces it concerns, descendants included.
    pub paused_count: i64,
}

/// Answer to a resume.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Resumed {
    /// `provisioning`; `awaiting_agent` for one that no backend runs.
    pub status: String,
    /// How many workspaces it concerns, descendants included.
    pub resumed_count: i64,
}

/// Answer to a hibernation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Hibernated {
    /// `hibernated`; `hibernating` when the backend is still at it after 30 s (202).
    pub status: String,
}

/// Answer to a wake.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Woken {
    /// `provisioning`.
    pub status: String,
}

/// Answer to a recovery.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Recovered {
    /// `provisioning`.
    pub status: String,
    /// Which.
    pub workspace_id: String,
    /// How many failures in a row do not count any more.
    pub failures_forgotten: i64,
}

/// A workspace's state in a few words.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct State {
    /// Which.
    pub workspace_id: String,
    /// What was last observed; absent where there is no such workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whether it is paused; absent where it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Whether it is deleted, or never was.
    pub deleted: bool,
}

/// Answer to an administrator's restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Dispatched {
    /// `restart_dispatched`.
    pub status: String,
    /// Which.
    pub workspace_id: String,
}

/// Body of a report that a start failed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BootstrapFailed {
    /// Why.
    #[serde(default)]
    pub error: Option<String>,
    /// The end of what its machine printed; the last 8192 bytes are kept.
    #[serde(default)]
    pub log_tail: Option<String>,
}

/// Answer to a report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Noted {
    /// Always.
    pub ok: bool,
    /// It was not being started: nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_change: Option<bool>,
}

/// What a machine printed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Console {
    /// As it was printed.
    pub output: String,
}

/// Body that names the compute of a workspace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SetCompute {
    /// Its provider's name for it.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// `aws`, `gcp`, `hetzner` or `local`.
    #[serde(default)]
    pub provider: Option<String>,
}

/// Answer to that.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Repointed {
    /// `repointed`.
    pub status: String,
    /// Which.
    pub workspace_id: String,
    /// Its provider's name for it.
    pub instance_id: String,
    /// Whose it is.
    pub provider: String,
}
