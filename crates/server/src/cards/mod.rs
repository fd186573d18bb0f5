//! Agents' cards, for whoever is to call them here: `http.rs` finds the card of a workspace, `proxied.rs` writes
//! into it where the agent answers from outside.

pub mod http;
mod proxied;
