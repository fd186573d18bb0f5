//! The control plane.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`routes`] | the table of contents of the API |
//! | [`serve`] | everything is built, run and stopped |
//! | [`config`] | settings: the only reader of environment and file |
//! | [`app`] | what every room shares |
//! | [`replicas`] | what servers on one database tell each other |
//! | [`db`], [`http`], [`reconcile`], [`backend`] | engines: they know nothing of nouns |
//! | [`registry`] | register, heartbeat, card: who is let in |
//! | [`discovery`] | peers, and where they answer |
//! | [`templates`] | what a workspace's configuration begins with |
//! | [`programs`] | what agents' programs are to do, where that is not as usual |
//! | [`briefings`] | what agents are told after a restart |
//! | [`transfer`] | a workspace's data on its way to another backend |
//! | [`workspaces`] | intent, observation, instances, convergence |
//! | [`access`] | credentials, and the gates in front of handlers |
//! | [`credentials`] | revoking and rotating them |
//! | [`org_tokens`] | tokens of the organisation |
//! | [`files`] | files of workspaces, and restarts that they ask for |
//! | [`terminal`] | shells in instances |
//! | [`secrets`] | what programs get and nobody else sees |
//! | [`canvas`] | where the canvas was left |
//! | [`messages`] | turns sent to agents |
//! | [`migrations`] | workspaces that go from one backend to another, and drains |
//! | [`mcp`] | tools that agents call |
//! | [`cards`] | what agents say of themselves, for whoever calls them here |
//! | [`activity`] | what goes through workspaces |
//! | [`delegations`] | tasks that workspaces give to each other |
//! | [`spend`] | budgets, and what turns used |
//! | [`journal`] | decisions and events |
//! | [`liveness`] | the brake, the pace of heartbeats, sweeps |
//! | [`operator`] | health, metrics, reports |
//!
//! A noun is a folder with `http.rs` (what callers may ask), `store.rs` (its SQL) and `reconcile.rs` (what
//! happens because time passed). Decisions are not here: they are in `ligand-domain`. Nouns use each other
//! through `mod.rs` only. Nothing here prints.

pub mod access;
pub mod activity;
pub mod app;
pub mod backend;
pub mod briefings;
pub mod canvas;
pub mod cards;
pub mod config;
pub mod credentials;
pub mod db;
pub mod delegations;
pub mod discovery;
pub mod error;
pub mod files;
pub mod http;
pub mod journal;
pub mod liveness;
pub mod mcp;
pub mod messages;
pub mod migrations;
pub mod operator;
pub mod org_tokens;
pub mod programs;
pub mod reconcile;
pub mod registry;
pub mod replicas;
pub mod routes;
pub mod secrets;
pub mod serve;
pub mod spend;
pub mod templates;
pub mod terminal;
pub mod transfer;
pub mod workspaces;
