//! A card, rewritten for callers that reach its agent through the platform: it names no address but the
//! platform's, and asks for no credential but the platform's.

use std::net::IpAddr;

use ligand_domain::address::{self, Setting};
use reqwest::Url;
use serde_json::{Map, Value, json};

/// The one binding that is passed on.
const BINDING: &str = "JSONRPC";
/// The name of our scheme of authorization among a card's.
const SCHEME: &str = "platform";
/// What a card of the older protocol speaks that does not say which version of it.
const OLDER: &str = "0.3.0";
/// What else a card may name that is nobody's business outside, or does not hold there: a signature is over the
/// card as it was.
const DROPPED: [&str; 5] =
    ["signatures", "additionalInterfaces", "securitySchemes", "security", "securityRequirements"];

/// The card as it is shown here. `inner` is where the platform itself calls the agent, `place` where others do.
///
/// Cards come in two shapes, and in both at once: version 0.3 says `url`, version 1.0 `supportedInterfaces`. The
/// shape stays. Of several interfaces those that carry JSON-RPC stay, since that is what is passed on.
pub(super) fn proxied(
    mut card: Map<String, Value>,
    inner: &str,
    place: &str,
) -> Map<String, Value> {
    let modern = card.get("supportedInterfaces").is_some_and(Value::is_array);
    let older = !modern || card.contains_key("url");
    let mut hosts: Vec<String> = [Some(inner), card.get("url").and_then(Value::as_str)]
        .into_iter()
        .flatten()
        .filter_map(authority)
        .collect();
    for list in ["supportedInterfaces", "additionalInterfaces"] {
        let listed = card.get(list).and_then(Value::as_array).into_iter().flatten();
        hosts.extend(listed.filter_map(|it| authority(it.get("url")?.as_str()?)));
    }
    for name in DROPPED {
        card.remove(name);
    }
    if older {
        card.insert("url".to_owned(), json!(place));
        card.insert("preferredTransport".to_owned(), json!(BINDING));
        let said = card.get("protocolVersion").is_some_and(Value::is_string);
        if !said {
            card.insert("protocolVersion".to_owned(), json!(OLDER));
        }
    }
    if let Some(Value::Array(interfaces)) = card.get_mut("supportedInterfaces") {
        passed_on(interfaces, place);
    }
    complete(&mut card);
    only_without_extension(&mut card);
    without_places(&mut card, &hosts, place);
    authorized(&mut card, modern, older);
    card
}

/// Those of its interfaces that carry JSON-RPC, at our place. An agent is always called so, whatever it says.
fn passed_on(interfaces: &mut Vec<Value>, place: &str) {
    interfaces.retain(|it| it.get("protocolBinding").is_none_or(|binding| *binding == BINDING));
    interfaces.retain(Value::is_object);
    if interfaces.is_empty() {
        interfaces.push(json!({"protocolVersion": "1.0"}));
    }
    for interface in interfaces {
        (interface["url"], interface["protocolBinding"]) = (json!(place), json!(BINDING));
    }
}

/// What readers of the older version refuse to be without. Register does not ask for it.
fn complete(card: &mut Map<String, Value>) {
    for (name, usual) in [
        ("description", json!("")),
        ("version", json!("")),
        ("capabilities", json!({})),
        ("defaultInputModes", json!(["text/plain"])),
        ("defaultOutputModes", json!(["text/plain"])),
        ("skills", json!([])),
    ] {
        if card.get(name).is_none_or(Value::is_null) {
            card.insert(name.to_owned(), usual);
        }
    }
}

/// There is no other card to be had with a credential: the agent would give one with its own places.
fn only_without_extension(card: &mut Map<String, Value>) {
    card.remove("supportsAuthenticatedExtendedCard");
    if let Some(Value::Object(capabilities)) = card.get_mut("capabilities") {
        capabilities.remove("extendedAgentCard");
    }
}

/// What a caller must bring, in the words of each version.
fn authorized(card: &mut Map<String, Value>, modern: bool, older: bool) {
    let mut scheme = Map::new();
    if modern {
        scheme.insert("httpAuthSecurityScheme".to_owned(), json!({"scheme": "Bearer"}));
        let required = json!([{"schemes": {SCHEME: {"list": []}}}]);
        card.insert("securityRequirements".to_owned(), required);
    }
    if older {
        scheme.insert("type".to_owned(), json!("http"));
        scheme.insert("scheme".to_owned(), json!("bearer"));
        card.insert("security".to_owned(), json!([{SCHEME: []}]));
    }
    card.insert("securitySchemes".to_owned(), json!({SCHEME: scheme}));
}

/// Take away every other address that leads to where the agent is, or to any place that only its own network
/// knows: of an icon, of documents, of whatever an extension adds.
fn without_places(object: &mut Map<String, Value>, hosts: &[String], place: &str) {
    object.retain(|_, value| !is_inner(value, hosts, place));
    for value in object.values_mut() {
        match value {
            Value::Object(inner) => without_places(inner, hosts, place),
            Value::Array(items) => {
                items.retain(|item| !is_inner(item, hosts, place));
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    without_places(item, hosts, place);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn is_inner(value: &Value, hosts: &[String], place: &str) -> bool {
    let Some(text) = value.as_str().filter(|text| *text != place && text.contains("://")) else {
        return false;
    };
    authority(text).is_some_and(|it| hosts.contains(&it)) || is_private(text)
}

/// Host and port of an address.
fn authority(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
    Some(format!("{host}:{}", url.port_or_known_default().unwrap_or_default()))
}

/// Whether an address names this machine, or a number that no agent elsewhere could advertise.
fn is_private(text: &str) -> bool {
    let Some(url) = Url::parse(text).ok() else { return false };
    let Some(host) = url.host_str().map(|host| host.trim_matches(['[', ']'])) else { return false };
    let number = host.parse::<IpAddr>();
    host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
        || number.is_ok_and(|ip| address::judge(ip, Setting::to_advertise(false)).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: &str = "http://10.0.0.7:8000/a2a";
    const PLACE: &str = "https://ligand.example/workspaces/1/a2a";

    /// A card with what every card has, and more.
    fn with(more: Value) -> Value {
        let mut card = json!({"name": "a", "description": "d", "version": "1", "skills": [],
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"]});
        for (key, value) in more.as_object().unwrap() {
            card[key] = value.clone();
        }
        card
    }

    fn seen(more: Value) -> Value {
        let Value::Object(card) = with(more) else { unreachable!() };
        Value::Object(proxied(card, INNER, PLACE))
    }

    #[test]
    fn a_card_of_the_older_protocol_names_the_platform() {
        let card = seen(
            json!({"name": "a", "url": "http://agent.internal/", "preferredTransport": "GRPC",
            "additionalInterfaces": [{"url": "http://10.0.0.7:9000", "transport": "GRPC"}],
            "supportsAuthenticatedExtendedCard": true, "signatures": [{"signature": "s"}],
            "capabilities": {"streaming": true}, "securitySchemes": {"own": {"type": "apiKey"}}, "security": [{"own": []}]}),
        );
        assert_eq!(
            card,
            with(json!({"url": PLACE, "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0",
                "capabilities": {"streaming": true}, "security": [{"platform": []}],
                "securitySchemes": {"platform": {"type": "http", "scheme": "bearer"}}}))
        );
    }

    #[test]
    fn a_card_of_the_newer_protocol_keeps_its_versions() {
        let card = seen(
            json!({"name": "a", "capabilities": {"streaming": true, "extendedAgentCard": true},
            "supportedInterfaces": [
                {"url": "http://10.0.0.7:9000", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
                {"url": "http://10.0.0.7:8000/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"},
                {"url": "http://10.0.0.7:8000/", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"}]}),
        );
        assert_eq!(
            card,
            with(json!({"capabilities": {"streaming": true},
                "supportedInterfaces": [
                    {"url": PLACE, "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"},
                    {"url": PLACE, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"}],
                "securityRequirements": [{"schemes": {"platform": {"list": []}}}],
                "securitySchemes": {"platform": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}}))
        );
    }

    #[test]
    fn what_a_card_must_have_it_has() {
        let card = proxied(
            json!({"name": "a", "version": null}).as_object().unwrap().clone(),
            INNER,
            PLACE,
        );
        for field in [
            "description",
            "version",
            "capabilities",
            "defaultInputModes",
            "defaultOutputModes",
            "skills",
            "url",
        ] {
            assert!(card.get(field).is_some_and(|it| !it.is_null()), "{field}: {card:?}");
        }
    }

    #[test]
    fn a_card_in_both_shapes_stays_in_both() {
        let card = seen(json!({"url": "http://x.example", "protocolVersion": "0.3",
            "supportedInterfaces": [{"url": "http://x.example", "protocolBinding": "GRPC"}]}));
        assert_eq!((&card["url"], &card["protocolVersion"]), (&json!(PLACE), &json!("0.3")));
        let only = json!([{"url": PLACE, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]);
        assert_eq!(card["supportedInterfaces"], only);
        assert!(card["security"].is_array() && card["securityRequirements"].is_array());
    }

    #[test]
    fn no_inner_address_is_left_wherever_it_stands() {
        let card = seen(json!({"description": "see http://agent.internal/ for more",
            "url": "http://agent.internal", "iconUrl": "http://agent.internal/icon.png",
            "documentationUrl": "https://docs.example/a",
            "provider": {"organization": "o", "url": "http://localhost:3000"},
            "capabilities": {"extensions": [{"uri": "https://x.example/ext", "params": {"at": "http://[::1]:1/", "all": ["http://10.1.2.3/x", "b"]}}]}}));
        assert_eq!(card["documentationUrl"], "https://docs.example/a");
        assert_eq!(card["provider"], json!({"organization": "o"}));
        let extension = json!({"uri": "https://x.example/ext", "params": {"all": ["b"]}});
        assert_eq!(card["capabilities"]["extensions"][0], extension);
        assert!(card.get("iconUrl").is_none());
    }
}
