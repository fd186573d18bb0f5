//! What operators, load balancers and scrapers read.

pub mod http;
