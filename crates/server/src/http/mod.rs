//! What every handler shares, and nothing of any noun: ids in paths, bodies, addresses, counters.

pub mod address;
pub mod body;
pub mod metrics;
pub mod path;
