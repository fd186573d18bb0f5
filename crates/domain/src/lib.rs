//! Pure decisions of the control plane.
//!
//! Everything here is a function over values: no IO, no clock, no randomness, no async. Time and entropy
//! arrive as arguments, so the model checker, the simulator and production run the same code.
//!
//! | file | what it decides |
//! | --- | --- |
//! | [`admission`] | whether a register, heartbeat or card update is let in, and as what |
//! | [`refusal`] | what a caller who is not let in may be told |
//! | [`rotation`] | whether a running agent may have a new credential |
//! | [`workspace`] | statuses, and which event moves them |
//! | [`converge`] | the next step that brings a workspace in line with its intent |
//! | [`lifecycle`] | pause, resume, hibernate, wake, recover; who is idle |
//! | [`lease`] | how long silence is tolerated, and how often agents are asked to report |
//! | [`brake`] | when replacement on silence stops |
//! | [`sweep`] | what is garbage in the database |
//! | [`orphan`] | what is left over at a backend |
//! | [`template`] | where a workspace's configuration comes from, and what it says |
//! | [`briefing`] | what an agent is told after a restart |
//! | [`backoff`] | when a failed replacement is tried again |
//! | [`credential`] | what a credential is, and its states |
//! | [`instance`] | one incarnation of a workspace, and what its agent can do |
//! | [`migration`] | the next step that takes a workspace to another backend, or back |
//! | [`message`] | what becomes of a message, and of one that is repeated |
//! | [`access`] | which workspaces may talk to each other |
//! | [`address`] | which addresses an agent may advertise |
//! | [`gate`] | what a request's own words decide |
//! | [`fleet`] | which instance of the fleet a call means, and how often one is replaced |
//! | [`files`] | which paths of a workspace's files may be named |
//! | [`mcp`] | which revision of the Model Context Protocol a call speaks |
//! | [`delegation`] | where a task stands that one workspace gave to another |
//! | [`activity`] | what may be logged, and how much of it is kept |
//! | [`spend`] | what turns cost |
//! | [`rate`] | how many requests may come in a time |
//! | [`secrets`] | how secrets are stored, who gets them, and whether a receipt is complete |
//! | [`guards`] | the rules that carry load, by name |
//! | [`id`], [`time`] | the vocabulary |
//!
//! What is *not* here: SQL, HTTP, processes, logging, and any `Utc::now`.
#![warn(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod access;
pub mod activity;
pub mod address;
pub mod admission;
pub mod backoff;
pub mod brake;
pub mod briefing;
pub mod converge;
pub mod credential;
pub mod delegation;
pub mod files;
pub mod fleet;
pub mod gate;
pub mod guards;
pub mod id;
pub mod instance;
pub mod lease;
pub mod lifecycle;
pub mod mcp;
pub mod message;
pub mod migration;
pub mod newcomer;
pub mod orphan;
pub mod rate;
pub mod refusal;
pub mod rotation;
pub mod secrets;
pub mod spend;
pub mod sweep;
pub mod template;
pub mod time;
pub mod workspace;
