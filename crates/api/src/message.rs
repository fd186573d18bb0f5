//! Messages: what a caller is told of a queued one, and what operators see of the ledger.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// 202: the message is accepted, and its answer can be read later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Queued {
    /// Always `true`.
    pub queued: bool,
    /// Under which its outcome is read: `GET /workspaces/{id}/a2a/queue/{queue_id}`.
    pub queue_id: Uuid,
    /// Messages that wait for this workspace, this one included; counting ends at a thousand.
    pub queue_depth: i64,
    /// For people.
    pub message: String,
}

/// One message, as its caller, its target and operators see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Message {
    /// Its id in the ledger.
    pub queue_id: Uuid,
    /// To which workspace.
    pub workspace_id: Uuid,
    /// From which; absent: from a user, or the platform.
    #[serde(default)]
    pub caller_id: Option<Uuid>,
    /// `direct`, `queue`, `delegation`, `platform`.
    pub origin: String,
    /// Its JSON-RPC method.
    #[serde(default)]
    pub method: Option<String>,
    /// By what a repeated one is recognised.
    #[serde(default)]
    pub key: Option<String>,
    /// 100 critical, 50 task, 10 info.
    pub priority: i64,
    /// `queued`, `dispatched`, `completed`, `dropped`, `failed`: the coarse word.
    pub status: String,
    /// `accepted`, `delivering`, `processed`, `acknowledged`, `expired`, `dead`, `dropped`.
    pub state: String,
    /// Attempts so far.
    pub attempt: i64,
    /// The generation of the latest attempt.
    pub generation: i64,
    /// An attempt may have run without an answer.
    pub maybe_run: bool,
    /// What it rests on that it was processed: `agent` (Ligand's agent said so) or `answer`.
    #[serde(default)]
    pub evidence: Option<String>,
    /// When it was accepted.
    pub accepted_at: String,
    /// When the next attempt may begin, while it waits.
    #[serde(default)]
    pub due_at: Option<String>,
    /// When it is given up, if it still waits then.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// When its agent had it.
    #[serde(default)]
    pub delivered_at: Option<String>,
    /// When its turn began.
    #[serde(default)]
    pub started_at: Option<String>,
    /// When it was answered.
    #[serde(default)]
    pub processed_at: Option<String>,
    /// When its caller read the answer.
    #[serde(default)]
    pub acknowledged_at: Option<String>,
    /// When it was over, however it ended.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// Why the latest attempt failed, or why it was given up.
    #[serde(default)]
    pub last_error: Option<String>,
    /// HTTP status of the answer.
    #[serde(default)]
    pub response_status: Option<i64>,
    /// The answer: JSON where it is JSON, else its text.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub response: Option<Value>,
    /// The answer was too long; this is only its end.
    #[serde(default)]
    pub response_cut: bool,
    /// What was sent. In lists it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub body: Option<Value>,
    /// The delegation that it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation_id: Option<String>,
}

/// A page of messages, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Messages {
    /// Without bodies and answers.
    pub messages: Vec<Message>,
    /// Where the next page begins (`after`); absent on the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// Answer to `POST /admin/a2a-queue/drop-stale`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Dropped {
    /// How many.
    pub dropped: u64,
}

/// `POST /registry/turns`: how far messages have come at their agent, before it can answer them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Turns {
    /// Whose agent.
    pub workspace_id: String,
    /// At most a hundred.
    pub turns: Vec<Turn>,
}

/// One turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Turn {
    /// The message, by its id in the ledger (`Ligand-Message`).
    pub message: String,
    /// The attempt that brought it (`Ligand-Attempt`).
    pub attempt: i64,
    /// `received`, `started`, `ended`.
    pub state: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// With `ended`: HTTP status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `ended`: the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// With `ended`: the media type of the answer; JSON unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Answer to `POST /registry/turns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TurnsTaken {
    /// `ok`.
    pub status: String,
    /// How many were taken down. The others are about attempts that no longer count.
    pub taken: u64,
}
