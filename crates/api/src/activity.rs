//! What went through a workspace: calls and their answers, what agents say that they did, what users were told.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// One thing that happened, as `GET /workspaces/{id}/activity` lists it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Activity {
    /// Its id, and the cursor to go on from.
    pub id: Uuid,
    /// Whose it is.
    pub workspace_id: Uuid,
    /// `a2a_receive`, `a2a_send`, `delegation`, `task_update`, …
    pub activity_type: String,
    /// The workspace that it came from; `null`: a user, or the platform.
    pub source_id: Option<Uuid>,
    /// The workspace that it went to.
    pub target_id: Option<Uuid>,
    /// The method that was called.
    pub method: Option<String>,
    /// In a sentence.
    pub summary: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i64>,
    /// `ok`, `error`, or what its author says.
    pub status: String,
    /// Why it failed.
    pub error_detail: Option<String>,
    /// When.
    pub created_at: String,
    /// What was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub request_body: Option<Value>,
    /// What was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub response_body: Option<Value>,
    /// The tools that were used for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub tool_trace: Option<Value>,
    /// Who sent it, where it is a message that came in: `canvas_user`, `peer_agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The message, where one came in, as pollers read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Inbound>,
}

/// A message that came in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Inbound {
    /// `canvas_user` or `peer_agent`.
    pub source: String,
    /// The workspace that sent it; empty for a user.
    pub source_id: String,
    /// Its text.
    pub text: String,
    /// The message as it was sent.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub message: Value,
    /// The name of the workspace that sent it.
    pub peer_name: String,
    /// Its role.
    pub peer_role: String,
    /// Where more about it can be read; empty for a user.
    pub agent_card_url: String,
}

/// Body of `POST /workspaces/{id}/activity`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogActivity {
    /// `a2a_send`, `a2a_receive`, `task_update`, `agent_log`, `skill_promotion`, `memory_write` or `error`.
    #[serde(default)]
    pub activity_type: String,
    /// What was called.
    #[serde(default)]
    pub method: Option<String>,
    /// In a sentence.
    #[serde(default)]
    pub summary: Option<String>,
    /// The workspace that it went to.
    #[serde(default)]
    pub target_id: Option<String>,
    /// The workspace that it came from: the one in the path, which it is unless said.
    #[serde(default)]
    pub source_id: Option<String>,
    /// `ok`, unless said.
    #[serde(default)]
    pub status: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub error_detail: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: Option<i64>,
    /// What was sent.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub request_body: Option<Value>,
    /// What was answered.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub response_body: Option<Value>,
    /// In place of a `request_body`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub metadata: Option<Value>,
}

/// Body of `POST /workspaces/{id}/notify`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Notify {
    /// What the user is told.
    #[serde(default)]
    pub message: String,
    /// Files that go with it, which were uploaded before.
    #[serde(default)]
    pub attachments: Option<Vec<Attachment>>,
}

/// A file that goes with a message.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Attachment {
    /// Where it is.
    #[serde(default)]
    pub uri: String,
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// What it is.
    #[serde(default, rename = "mimeType", skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// One thing that a search found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Found {
    /// `activity`.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub workspace_id: Uuid,
    /// What kind of activity.
    pub label: String,
    /// In a sentence.
    pub content: String,
    /// The method that was called.
    pub method: String,
    /// How it ended.
    pub status: String,
    /// When.
    pub created_at: String,
    /// What was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub request_body: Option<Value>,
    /// What was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub response_body: Option<Value>,
}
