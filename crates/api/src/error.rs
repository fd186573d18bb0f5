//! The one error body.

use serde::{Deserialize, Serialize};

/// Every refusal and failure that has a body. `error` is the contract's text; the rest is additional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What is wrong, in the contract's words where the contract has words for it.
    pub error: String,
    /// What exactly: names the field and what was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Stable, for programs: `superseded`, `revoked`, `lapsed`, `platform_unavailable`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What a former holder of a credential should do: `reread-credential`, `register`, `wait`, `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Seconds to wait before asking again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The workspace's status, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The agent is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<bool>,
    /// The instance is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarting: Option<bool>,
    /// The workspace is being woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waking: Option<bool>,
    /// Turns in progress, where they are why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_tasks: Option<i64>,
    /// The workspace that somebody else changed meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// Workspaces below it that would be concerned too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descendants: Option<Vec<crate::workspace::Child>>,
    /// The agent is busy, and keeps its own sessions: nothing is queued for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_session: Option<bool>,
    /// The agent had accepted the message before its answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_confirmed: Option<bool>,
    /// The secrets that cannot be read, each as `global:NAME` or `workspace:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_keys: Option<Vec<String>>,
}

impl ErrorBody {
    /// A body with the contract's text alone.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), ..Self::default() }
    }

    /// The same, saying what exactly.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same, with a stable code.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}
