//! The agent protocol: how an instance takes up its identity and keeps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Features that Ligand's own agent declares in this version.
pub const AGENT_FEATURES: [&str; 5] = ["paced", "receipt", "rotate", "standby", "turns"];

/// Body of `POST /registry/register`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Register {
    /// The workspace's id.
    pub id: String,
    /// Where the agent answers turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The agent's card, kept as sent.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub agent_card: Value,
    /// `push` or `poll`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<String>,
    /// `workspace` or `platform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What a Ligand agent can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ligand: Option<Declaration>,
}

/// What an agent says about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Declaration {
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// `paced`, `receipt`, `turns`, `standby`, `rotate`; unknown ones are ignored.
    #[serde(default)]
    pub features: Vec<String>,
    /// For each secret that it was given the proof that its program holds it, keyed with the credential that is
    /// presented; without one there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<std::collections::BTreeMap<String, String>>,
    /// What its program does; absent: it runs, as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramState>,
}

/// Answer to a register.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Registered {
    /// `registered`.
    pub status: String,
    /// The credential, when one was minted. Shown here and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// `push` or `poll`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<String>,
    /// The generation that was admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the first heartbeat is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_heartbeat_seconds: Option<u64>,
}

/// Body of `POST /registry/heartbeat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The workspace's id.
    pub workspace_id: String,
    /// Share of recent work that failed, 0..1.
    #[serde(default)]
    pub error_rate: f64,
    /// One recent error.
    #[serde(default)]
    pub sample_error: String,
    /// Turns in progress.
    #[serde(default)]
    pub active_tasks: i64,
    /// Seconds since the agent started.
    #[serde(default)]
    pub uptime_seconds: i64,
    /// What it is doing.
    #[serde(default)]
    pub current_task: String,
    /// Cents spent this month; 0 leaves the stored value alone.
    #[serde(default)]
    pub monthly_spend: i64,
    /// `wedged`, or empty.
    #[serde(default)]
    pub runtime_state: String,
    /// What the runtime does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_metadata: Option<RuntimeMetadata>,
    /// Fills a card that is still missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub agent_card: Option<Value>,
    /// What a Ligand agent has to say about its own work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ligand: Option<AgentReport>,
}

/// What an agent could not do that it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AgentReport {
    /// Why the last rotation of its credential failed. The old credential stays in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_error: Option<String>,
    /// What a register's declaration may carry too; here where that could not, or the last answer asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<std::collections::BTreeMap<String, String>>,
    /// What its program does; absent: it runs, as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramState>,
}

/// What a runtime does by itself, so that the platform need not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RuntimeMetadata {
    /// Capability by name, for example `status_mgmt`, `session`.
    #[serde(default)]
    pub capabilities: Option<std::collections::BTreeMap<String, bool>>,
    /// Seconds without any sign of progress after which a turn is given up.
    #[serde(default)]
    pub idle_timeout_seconds: Option<i64>,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Beaten {
    /// `ok`.
    pub status: String,
    /// When the next one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_heartbeat_seconds: Option<u64>,
    /// The agent should ask for a new credential, with this serial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<i64>,
    /// The agent should send its receipt: it is not complete yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<bool>,
    /// What its program should do; absent: run, as usual. One that was started in standby waits until it is told
    /// to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramWish>,
}

/// What the platform wants of an agent's program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProgramWish {
    /// `run` or `stand-by`.
    pub state: String,
    /// With `run`: it should run with secrets that were fetched for this serial, or a later one. With `stand-by`: what
    /// an agent that stands by because of this says again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<i64>,
}

/// What an agent's program does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProgramState {
    /// `running`, `starting`, `stopping` or `standing-by`.
    pub state: String,
    /// The serial for which its secrets were fetched. With `standing-by`: that of the wish because of which it does, 0 if
    /// nobody told it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<i64>,
}

/// Body of `POST /registry/rotate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Rotate {
    /// The workspace's id.
    pub workspace_id: String,
    /// The serial that a heartbeat's answer named.
    pub serial: i64,
}

/// Answer to a request for a new credential. The old one stays valid until the new one is used.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Rotated {
    /// `rotated`.
    pub status: String,
    /// The new credential. Shown here and never again.
    pub auth_token: String,
    /// The serial that it satisfies when it is first used.
    pub serial: i64,
    /// Its generation, which is the old one's.
    #[serde(default)]
    pub generation: i64,
}

/// Body of `POST /registry/update-card`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UpdateCard {
    /// The workspace's id.
    pub workspace_id: String,
    /// The new card, kept as sent.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub agent_card: Value,
}

/// An answer that is one word.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Done {
    /// `updated`, `removed`, …
    pub status: String,
}

/// Answer to `GET /registry/discover/{id}`: where a peer answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Discovered {
    /// The peer.
    pub id: uuid::Uuid,
    /// Where it answers.
    pub url: String,
    /// Its name.
    pub name: String,
}

/// One entry of `GET /registry/{id}/peers`: a sibling, a child, or the parent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Peer {
    /// The peer.
    pub id: uuid::Uuid,
    /// Its name.
    pub name: String,
    /// What it is for; null where nobody said so.
    pub role: Option<String>,
    /// Resource tier.
    pub tier: i64,
    /// Its status.
    pub status: String,
    /// Where it answers; empty while it does not.
    pub url: String,
    /// Its place in the hierarchy.
    pub parent_id: Option<uuid::Uuid>,
    /// Turns in progress.
    pub active_tasks: i64,
    /// Its agent's card.
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub agent_card: Option<Value>,
}

/// Body of `POST /registry/check-access`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CheckAccess {
    /// Who would call.
    pub caller_id: String,
    /// Whom.
    pub target_id: String,
}

/// Answer to `POST /registry/check-access`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Access {
    /// Whether the hierarchy lets the one talk to the other.
    pub allowed: bool,
}
