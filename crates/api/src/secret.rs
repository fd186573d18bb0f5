//! Secrets, and the model that is kept as one. Values are in what is sent to be kept, and in the one answer that
//! delivers them, which is a plain map.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Secret {
    /// Its name: the variable that programs read.
    pub key: String,
    /// `true`: what has none is not listed.
    pub has_value: bool,
    /// `workspace` or `global`.
    pub scope: String,
    /// When it was first set.
    pub created_at: String,
    /// When it was last set.
    pub updated_at: String,
}

/// Body of a request that sets a secret.
// No `Debug`: it holds the value.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SetSecret {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Answer to a request that set or deleted a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SecretChanged {
    /// `saved` or `deleted`.
    pub status: String,
    /// Its name.
    pub key: String,
    /// `global`, for one that every workspace gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The model that a workspace's runtime is told to use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Model {
    /// Its name; empty: the runtime's own default.
    pub model: String,
    /// `workspace_secrets` or `default`.
    pub source: String,
}

/// Body of a request that sets the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SetModel {
    /// Its name; empty clears it.
    pub model: String,
}

/// Answer to a request that set the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ModelChanged {
    /// `saved` or `cleared`.
    pub status: String,
    /// Its name, where one was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Body of a request to encrypt stored secrets anew.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Reencrypt {
    /// Where the last answer left off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Uuid>,
}

/// Answer to it: one batch is done, and committed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Reencrypted {
    /// How many of this batch are under the current key now.
    pub reencrypted: u64,
    /// Those of this batch that no key opens. They stay as they are.
    pub unreadable: Vec<UnreadableSecret>,
    /// How many are not under the current key yet, those that no key opens included.
    pub left: u64,
    /// Where to go on; absent: there is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Uuid>,
}

/// A stored secret that no key opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UnreadableSecret {
    /// Its name.
    pub key: String,
    /// Whose it is; absent: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Uuid>,
    /// Why it cannot be read.
    pub why: String,
}
