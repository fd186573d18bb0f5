//! The fleet's tests. One binary: a new file is named here.
#![expect(clippy::unwrap_used, reason = "what cannot go on in a test has failed")]

#[path = "../../server/tests/support/calls_of_platforms.rs"]
mod calls_of_platforms;
mod clients;
mod instances;
mod openapi;
mod processes;
mod support;
mod tenants;
mod transfers;
mod watch;
