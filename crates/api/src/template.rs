//! Templates as callers see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A template: a directory of files that a workspace's configuration begins with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Template {
    /// Its directory: what a create or a restart names.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Resource tier that it is meant for; 0: it does not say.
    pub tier: i64,
    /// Which recipe runs it; empty: it does not say.
    pub runtime: String,
    /// Which model it uses; empty: it does not say.
    pub model: String,
    /// Models to choose from, as it declares them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Vec<Object>>))]
    pub models: Option<Vec<Value>>,
    /// Names that the environment must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_env: Vec<String>,
    /// What it can do, by name.
    pub skills: Vec<String>,
    /// How many those are.
    pub skill_count: usize,
    /// How long a start of it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision_timeout_seconds: Option<u64>,
}

/// Body of `POST /templates/import`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Import {
    /// Its name; in lower case, with hyphens for blanks, its id.
    pub name: String,
    /// Content by path. Paths are relative and hold no `..`.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// Answer to an import.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Imported {
    /// `imported`.
    pub status: String,
    /// Its directory.
    pub id: String,
    /// Its name, as sent.
    pub name: String,
}

/// Answer to an import of what is there already (409).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TemplateExists {
    /// `template already exists`.
    pub error: String,
    /// Its directory.
    pub id: String,
}
