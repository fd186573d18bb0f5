//! Tokens of workspaces and of the organisation. Only the answer that mints one holds it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Answer to a list of a workspace's tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkspaceTokens {
    /// Live ones, newest first.
    pub tokens: Vec<WorkspaceToken>,
    /// How many are listed here.
    pub count: usize,
}

/// One token of a workspace, without its text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkspaceToken {
    /// Its name.
    pub id: Uuid,
    /// The first characters of its text.
    pub prefix: String,
    /// When it was minted.
    pub created_at: String,
    /// When it was last presented, to about ten seconds.
    pub last_used_at: Option<String>,
    /// `instance`: its agent's own; `api`: a caller's.
    #[serde(default)]
    pub kind: String,
}

/// Answer that mints a workspace's token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MintedToken {
    /// Its text, shown this once.
    pub auth_token: String,
    /// Whose it is.
    pub workspace_id: String,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Answer that ends a workspace's token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenRevoked {
    /// `revoked`.
    pub status: String,
}

/// What a mint of an organisation's token may say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MintOrgToken {
    /// What it is for; at most 100 characters.
    #[serde(default)]
    pub name: Option<String>,
}

/// Answer that mints an organisation's token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MintedOrgToken {
    /// Its name.
    pub id: Uuid,
    /// The first characters of its text.
    pub prefix: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its text, shown this once.
    pub auth_token: String,
    /// That it is shown this once.
    pub warning: String,
}

/// Answer to a list of the organisation's tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OrgTokens {
    /// Live ones, newest first, at most 500.
    pub tokens: Vec<OrgToken>,
    /// How many are listed.
    pub count: usize,
}

/// One token of the organisation, without its text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OrgToken {
    /// Its name.
    pub id: Uuid,
    /// The first characters of its text.
    pub prefix: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who minted it: `admin-token`, `session`, or `org-token:` and the prefix of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// When it was minted.
    pub created_at: String,
    /// When it was last presented, to about ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// The workspace at the root of what it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
}

/// Answer that ends an organisation's token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OrgTokenRevoked {
    /// Which.
    pub revoked: String,
}
