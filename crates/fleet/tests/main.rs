//! The fleet's tests. One binary: a new file is named here.
#![expect(clippy::unwrap_used, reason = "what cannot go on in a test has failed")]

mod instances;
mod processes;
mod support;
mod tenants;
mod transfers;
mod watch;
