//! The card that an agent without a better one shows.

use serde_json::{Value, json};

/// A card in the shape that both versions of the protocol read. `echo`: it is the built-in agent's, which speaks both
/// and streams; of a program nothing is known.
pub(crate) fn card(name: &str, url: &str, echo: bool) -> Value {
    let mut card = json!({
        "name": name,
        "description": "An agent kept by Ligand.",
        "version": env!("CARGO_PKG_VERSION"),
        "url": url,
        "skills": [],
        "capabilities": { "streaming": echo },
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
    });
    if echo {
        let speaks = |version: &str| json!({ "url": url, "protocolBinding": "JSONRPC", "protocolVersion": version });
        card["supportedInterfaces"] = json!([speaks("1.0"), speaks("0.3")]);
        card["protocolVersion"] = json!("0.3.0");
        card["preferredTransport"] = json!("JSONRPC");
    }
    card
}
