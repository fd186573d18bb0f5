//! Tasks that workspaces give to each other.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Body of `POST /workspaces/{id}/delegate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Delegate {
    /// Who is to do it.
    #[serde(default)]
    pub target_id: String,
    /// What.
    #[serde(default)]
    pub task: String,
    /// What is given twice under the same key is given once.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// Answer to `POST /workspaces/{id}/delegate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Delegated {
    /// Its id.
    pub delegation_id: String,
    /// `delegated`; for one that was given before, where it stands.
    pub status: String,
    /// Who is to do it.
    pub target_id: String,
    /// It was given before, under the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent_hit: Option<bool>,
    /// What its caller should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One line of `GET /workspaces/{id}/delegations`: a task that was given, or what came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Delegation {
    /// Of this line.
    pub id: Uuid,
    /// `delegation`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `delegate`: a task that was given. `delegate_result`: what came of it.
    pub method: String,
    /// Who gave it.
    pub source_id: Uuid,
    /// Who is to do it.
    pub target_id: Uuid,
    /// In a sentence.
    pub summary: String,
    /// `pending`, `dispatched`, `queued`, `completed`, `failed`.
    pub status: String,
    /// When.
    pub created_at: String,
    /// Which delegation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation_id: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of what its target answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_preview: Option<String>,
    /// The message that carries it, where the platform does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<Uuid>,
    /// When its target had done it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<String>,
    /// When its caller read or acknowledged the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<String>,
}

/// Body of `POST /workspaces/{id}/delegations/record`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RecordDelegation {
    /// Who is to do it.
    #[serde(default)]
    pub target_id: String,
    /// What.
    #[serde(default)]
    pub task: String,
    /// Its id, which its caller made.
    #[serde(default)]
    pub delegation_id: String,
}

/// Body of `POST /workspaces/{id}/delegations/{delegation_id}/update`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UpdateDelegation {
    /// `completed` or `failed`.
    #[serde(default)]
    pub status: String,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// The beginning of what its target answered.
    #[serde(default)]
    pub response_preview: Option<String>,
}

/// Answer to a record, an update or an acknowledgement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DelegationChanged {
    /// `recorded`, or where it stands.
    pub status: String,
    /// Which.
    pub delegation_id: String,
    /// When its outcome was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<String>,
}
