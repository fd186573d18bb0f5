//! The tools that the platform offers a workspace's agent, over the Model Context Protocol: find peers, hand tasks
//! to them. `http.rs` answers calls, `rpc.rs` is their envelope, `tools.rs` is what can be called. Nothing is
//! remembered between calls; which revision of the protocol one speaks is decided by `ligand_domain::mcp`.

pub mod http;
mod rpc;
mod tools;
