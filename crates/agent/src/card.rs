//! The card that an agent without a better one shows.

use serde_json::{Value, json};

/// A card in the shape that both versions of the protocol read.
pub(crate) fn card(name: &str, url: &str) -> Value {
    json!({
        "name": name,
        "description": "An agent kept by Ligand.",
        "version": env!("CARGO_PKG_VERSION"),
        "url": url,
        "skills": [],
        "capabilities": { "streaming": false },
    })
}
