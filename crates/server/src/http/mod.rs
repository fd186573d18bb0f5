//! What every handler shares, and nothing of any noun: ids in paths, bodies, addresses, counters, limits, and
//! what stands around all of them.

pub mod address;
pub mod body;
pub mod cors;
pub mod edge;
pub mod limit;
pub mod metrics;
pub mod path;
pub mod proxy;
pub mod route;
