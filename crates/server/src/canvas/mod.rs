//! Where the canvas was left: one viewport for everybody.

pub mod http;
mod store;
