//! Migrations: a workspace goes from one backend to another, or stays where it is.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Body of `POST /admin/workspaces/{id}/migrate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Migrate {
    /// The name of the backend that is to run it.
    pub to: String,
    /// Seconds for which the source is kept after the cut-over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A migration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Migration {
    /// Its id.
    pub id: Uuid,
    /// Which workspace.
    pub workspace_id: Uuid,
    /// Its name.
    #[serde(default)]
    pub workspace: String,
    /// The backend that it leaves.
    pub from: String,
    /// The backend that it goes to.
    pub to: String,
    /// The generation that it leaves.
    pub source_generation: i64,
    /// The generation that it brings up, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_generation: Option<i64>,
    /// `running`, `paused`, `undoing`, `migrated` or `rolled-back`.
    pub state: String,
    /// `prepare`, `provision`, `pre-copy`, `hold`, `quiesce`, `restore`, `activate`, `probe`, `cut-over`, `release`,
    /// `retire`; of one that is undone, the phase that it had come to.
    pub phase: String,
    /// Every phase that it entered, oldest first.
    pub phases: Vec<MigrationPhase>,
    /// What the phase waits for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Why it was, or is being, rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The last attempt that failed, and why; it is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
    /// Why it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was asked for.
    pub started_at: String,
    /// When its phase is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Bytes of data that the source has, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// Bytes of data that were copied, or restored, in this phase.
    #[serde(default)]
    pub bytes_done: u64,
    /// The digest over its data, as it left and as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Messages that wait for it to be over.
    #[serde(default)]
    pub held_messages: i64,
    /// Milliseconds in which no turn could be served: from the hold to the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_service_ms: Option<u64>,
    /// Where the workspace answered before.
    #[serde(default)]
    pub url_before: String,
    /// Where it answers since the cut-over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_after: Option<String>,
    /// The drain that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_id: Option<Uuid>,
}

/// A phase that a migration entered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MigrationPhase {
    /// Its name; `undoing`, `migrated` and `rolled-back` among them.
    pub phase: String,
    /// When.
    pub at: String,
}

/// Answer to `GET /admin/workspaces/{id}/migrations` and `GET /admin/migrations`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Migrations {
    /// Newest first.
    pub migrations: Vec<Migration>,
}

/// Body of `POST /admin/drains`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DrainRequest {
    /// The backend that every workspace is to leave.
    pub backend: String,
    /// The backend that they go to.
    pub to: String,
    /// Migrations at once (default 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// After so many that were rolled back, no further one is begun (default 1; 0: never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after_failures: Option<u32>,
    /// Seconds for which each source is kept after its cut-over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
}

/// A drain: every workspace leaves a backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Drain {
    /// Its id.
    pub id: Uuid,
    /// The backend that is drained.
    pub backend: String,
    /// Where its workspaces go.
    pub to: String,
    /// `running`, `paused`, `stopped` (too many failed), `aborted` or `done`.
    pub state: String,
    /// Why it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Migrations at once.
    pub concurrency: u32,
    /// After so many failures no further one is begun; 0: never.
    pub stop_after_failures: u32,
    /// Seconds for which each source is kept, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Workspaces that were on the backend when it began.
    pub total: i64,
    /// Those that have left it.
    pub migrated: i64,
    /// Those among them whose source is kept for its grace yet. They take nobody's place.
    #[serde(default)]
    pub retiring: i64,
    /// Those on their way.
    pub open: i64,
    /// Those that were rolled back, or could not be begun, with the reason of each.
    pub failed: Vec<DrainFailure>,
    /// Those whose turn has not come.
    pub waiting: i64,
    /// When it was asked for.
    pub started_at: String,
    /// When it was over: none waits, none is on its way, and every source is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// A workspace that a drain did not move.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DrainFailure {
    /// Which.
    pub workspace_id: Uuid,
    /// Its name.
    pub workspace: String,
    /// Why it stayed.
    pub cause: String,
}

/// Answer to `GET /admin/drains`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Drains {
    /// Newest first.
    pub drains: Vec<Drain>,
}
