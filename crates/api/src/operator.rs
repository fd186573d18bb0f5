//! What operators and load balancers read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer to `GET /health`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`, or `unavailable` (503) when the database does not answer.
    pub status: String,
    /// Of this binary.
    pub version: String,
    /// `ok` or `unavailable`.
    pub database: String,
    /// Seconds since the server started.
    pub uptime: u64,
}

/// Answer to `GET /admin/liveness`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Liveness {
    /// `ok`, or `stalled` when a reconciler has not run for long.
    pub status: String,
    /// When the server started.
    pub started_at: String,
    /// Which rules about credentials apply: `strict`, or `compat`, which lets callers pass without one.
    #[serde(default)]
    pub auth: String,
    /// Live workspace credentials on the whole platform.
    pub credentials_live: i64,
    /// Secrets that are stored in plain text.
    #[serde(default)]
    pub secrets_plain: i64,
    /// Whether the server has a key to encrypt secrets with.
    #[serde(default)]
    pub secrets_key: bool,
    /// By name.
    pub reconcilers: BTreeMap<String, Reconciler>,
    /// Where the brake on replacement stands.
    #[serde(default)]
    pub brake: Option<Brake>,
    /// By name.
    #[serde(default)]
    pub backends: BTreeMap<String, Backend>,
}

/// What one backend says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Backend {
    /// Whether it can run instances now.
    pub usable: bool,
    /// What it is and what is to be known about it; or why it cannot.
    pub says: String,
}

/// Where the brake on replacement stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Brake {
    /// `free`; `engaged`: nothing is replaced for being silent; `easing`: replacement goes on at a bounded
    /// rate.
    pub state: String,
    /// Workspaces whose current instance serves, the silent ones included.
    pub running: i64,
    /// Those of them that are silent.
    pub silent: i64,
    /// Since when it stands so, if it is not free.
    pub since: Option<String>,
    /// While it is engaged: when it lets go by itself.
    pub next_attempt_at: Option<String>,
    /// While it is not free: replacements that may begin in a minute.
    pub per_minute: Option<i64>,
}

/// What one reconciler did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Reconciler {
    /// What it brings in line with what.
    pub does: String,
    /// How often it looks, in seconds, if it looks now and then.
    #[serde(default)]
    pub every_seconds: Option<u64>,
    /// Passes since the server started.
    pub passes: u64,
    /// Rows it looked at.
    pub looked_at: u64,
    /// Steps it took.
    pub steps: u64,
    /// Rows that failed and will be tried again.
    pub failed: u64,
    /// When its last pass ended.
    pub last_pass_at: Option<String>,
    /// The latest failure.
    pub last_error: Option<String>,
    /// When that was.
    #[serde(default)]
    pub last_error_at: Option<String>,
}

/// Answer to `POST /admin/workspaces/{id}/revoke-auth-tokens`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Revoked {
    /// `revoked`.
    pub status: String,
    /// Whose credentials.
    pub workspace_id: String,
}

/// Answer to `POST /admin/workspaces/{id}/rotate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RotationRequested {
    /// `rotation_requested`.
    pub status: String,
    /// Whose credential.
    pub workspace_id: String,
    /// The serial that its agent is asked to rotate to.
    pub serial: i64,
}

/// Answer to `POST /workspaces/{id}/external/rotate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExternalRotated {
    /// `rotated`.
    pub status: String,
    /// Whose credential.
    pub workspace_id: String,
    /// The new credential. Shown here and never again.
    pub auth_token: String,
    /// What the operator of the agent needs.
    pub connection: crate::workspace::Connection,
}
