//! The identity protocol, explored: one workspace, its instances, administrators, a stranger, a thief, a
//! sweeper, a network that loses and repeats, servers and machines that die.
//!
//! What decides is what production runs: `ligand_domain::admission::decide`, `rotation::decide`,
//! `converge::next`, the rules of credentials and leases, and the agent's `session` and `holdings`. What the
//! server does about a decision is told again in [`admit`] and [`reconcile`], on rows in memory.
//!
//! | file | what |
//! | --- | --- |
//! | [`world`] | what there is |
//! | `words` | the same in a few lines |
//! | `tidy` | one shape for worlds that differ in names only |
//! | [`admit`] | a call, as the platform handles it |
//! | `laws` | the laws that one call can break |
//! | [`reconcile`] | the steps towards what is wanted |
//! | [`migrate`] | a migration |
//! | `outside` | a migrator of somebody else's |
//! | [`agent`] | the agents |
//! | [`action`] | what can happen, in words |
//! | `possible`, `step` | when it can, and what it does |
//! | [`scenario`] | what is explored |
//! | [`property`] | what must hold |
//! | [`explore`] | the explorers |
//! | [`mutant`] | every guard, and the property that misses it |
#![warn(missing_docs)]

pub mod action;
pub mod admit;
pub mod agent;
pub mod explore;
mod laws;
pub mod migrate;
pub mod mutant;
mod outside;
mod possible;
pub mod property;
pub mod reconcile;
pub mod scenario;
mod step;
mod tidy;
mod words;
pub mod world;
