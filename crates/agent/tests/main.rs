//! The real binary against a platform that is played. One test binary: a new file is named here.
//!
//! `fake` plays the platform, `agent` starts and watches the agent; the others hold the tests.

mod agent;
mod enrol;
mod fake;
mod program;
mod rotate;
mod serve;
mod standby;
mod start;
mod turns;
