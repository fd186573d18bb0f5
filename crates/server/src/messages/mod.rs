//! Messages to agents. `http.rs` is the direct path: a caller's request goes to the agent, and the agent's
//! answer comes back.

pub mod http;
mod payload;

pub(crate) use self::http::{ask, tell};
