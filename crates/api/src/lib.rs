//! What crosses the wire.
//!
//! Server, agents, command line and published clients are upgraded at different times. So: fields are only
//! ever added; readers ignore what they do not know; nothing is flattened or untagged; times are RFC 3339
//! text. Bodies and codes that published clients read are kept to the letter of the contract; what Ligand
//! adds are new fields and new routes.
//!
//! | file | what |
//! | --- | --- |
//! | [`registry`] | register, heartbeat, card: the agent protocol |
//! | [`workspace`] | create, read, change, restart, delete |
//! | [`answer`] | what an agent's answer says |
//! | [`fleet`] | instances on provider accounts, for many platforms |
//! | [`files`] | the files of a workspace, and those that go with messages |
//! | [`message`] | messages that were accepted, and the ledger of all of them |
//! | [`journal`] | `why`, and events |
//! | [`migration`] | migrations and drains |
//! | [`activity`], [`spend`] | what went through a workspace; what it may spend, and spent |
//! | [`delegation`] | tasks that workspaces give to each other |
//! | [`template`] | templates, and what an import brings |
//! | [`operator`] | health, reconciler reports |
//! | [`secret`] | secrets, and the model |
//! | [`token`] | tokens of workspaces and of the organisation |
//! | [`canvas`] | where the canvas was left |
//! | [`error`] | the one error body |
//! | [`http`], [`client`] | the HTTP client that all parts share; the typed client (features of the same names) |
#![warn(missing_docs)]

pub mod activity;
pub mod answer;
pub mod canvas;
#[cfg(feature = "client")]
pub mod client;
pub mod delegation;
pub mod error;
pub mod files;
pub mod fleet;
#[cfg(feature = "http")]
pub mod http;
pub mod journal;
pub mod message;
pub mod migration;
pub mod operator;
pub mod registry;
pub mod secret;
pub mod spend;
pub mod template;
pub mod token;
pub mod workspace;
