//! The server's tests. One binary: a new file is named here or in its folder's `mod.rs`.
#![expect(clippy::unwrap_used, reason = "what cannot go on in a test has failed")]

mod backends;
mod coalescing;
mod docker;
mod docker_data;
mod guards;
mod http;
mod kit;
mod process;
mod replicas;
mod store;
mod support;
mod transfer;
