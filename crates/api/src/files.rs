//! The files of a workspace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is found in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Relative to the directory that was asked about.
    pub path: String,
    /// In bytes; of a directory, 0.
    pub size: u64,
    /// Whether it is a directory.
    pub dir: bool,
}

/// A file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Content {
    /// Below its directory.
    pub path: String,
    /// Its text, or what `encoding` says.
    pub content: String,
    /// In bytes.
    pub size: u64,
    /// `base64` where the file is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// A file to write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Write {
    /// Its text, or what `encoding` says.
    pub content: String,
    /// `base64`, or none for text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// Files to write at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WriteAll {
    /// Texts by path.
    pub files: BTreeMap<String, String>,
}

/// A file was written, or taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Done {
    /// `saved` or `deleted`.
    pub status: String,
    /// Below its directory.
    pub path: String,
}

/// Files were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Replaced {
    /// `replaced`.
    pub status: String,
    /// Whose.
    pub workspace: String,
    /// How many.
    pub files: usize,
    /// `container` where an instance runs, else `volume`.
    pub source: String,
}

/// A file that a parent shares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Shared {
    /// Below the parent's configuration.
    pub path: String,
    /// Its text.
    pub content: String,
}

/// A file that came with a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Uploaded {
    /// `workspace:` and the path under which the agent finds it.
    pub uri: String,
    /// As it was sent.
    pub name: String,
    /// What it is, by its sender or its name.
    #[serde(rename = "mimeType")]
    pub mime_type: String,
    /// In bytes.
    pub size: u64,
}

/// Files that came with a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Uploads {
    /// In the order in which they were sent.
    pub files: Vec<Uploaded>,
}
