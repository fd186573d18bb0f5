//! What happened, and why.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::message::Message;
use crate::workspace::Workspace;

/// Answer to `GET /workspaces/{id}/why`: the chain that led here, and what comes next.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Why {
    /// The workspace now.
    pub workspace: Workspace,
    /// What will happen without anybody's doing, and when.
    pub next: String,
    /// Its latest instances, newest first.
    pub instances: Vec<Instance>,
    /// Decisions with their evidence, oldest first.
    pub journal: Vec<Entry>,
    /// Its latest messages, oldest first, without bodies and answers.
    #[serde(default)]
    pub messages: Vec<Message>,
}

/// One incarnation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Instance {
    /// Its generation.
    pub generation: i64,
    /// Which backend runs it.
    pub backend: String,
    /// `planned`, `started`, `serving`, `ended`.
    pub phase: String,
    /// When it was started.
    pub started_at: Option<String>,
    /// When it was first admitted.
    pub registered_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How it ended.
    pub exit: Option<String>,
}

/// One decision.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Its place in the record of the whole platform.
    pub seq: i64,
    /// When.
    pub at: String,
    /// Which instance it concerns.
    pub generation: Option<i64>,
    /// What, in one word: `planned`, `started`, `registered`, `lost`, …
    pub kind: String,
    /// What, in a sentence.
    pub summary: String,
    /// What the decision rested on.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub evidence: Value,
}

/// One event, as the stream of the whole platform carries it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// The cursor to resume from; absent for events that are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// Its name in the contract, for example `WORKSPACE_ONLINE`.
    pub event: String,
    /// Which workspace.
    pub workspace_id: Option<Uuid>,
    /// When.
    pub timestamp: String,
    /// What else.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub payload: Value,
}

/// One kept event, as `GET /events` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Recorded {
    /// The cursor to follow on from.
    pub seq: i64,
    /// Its id.
    pub id: Uuid,
    /// Its name in the contract.
    pub event_type: String,
    /// Which workspace.
    pub workspace_id: Option<Uuid>,
    /// What else.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub payload: Value,
    /// When.
    pub created_at: String,
}
