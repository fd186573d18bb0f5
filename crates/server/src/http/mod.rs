//! What every handler shares, and nothing of any noun: ids in paths, bodies, counters.

pub mod body;
pub mod metrics;
pub mod path;
