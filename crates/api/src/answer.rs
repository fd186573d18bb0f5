//! What an agent's answer to a message says, for whoever wants its words alone.

use serde_json::Value;

/// The texts of an answer, in the places where agents put them, in both versions of the protocol. `None` where
/// there is none.
#[must_use]
pub fn said(answer: &Value) -> Option<String> {
    let result = answer.get("result")?;
    // Version 1.0 puts a task under its name.
    let result = result.get("task").unwrap_or(result);
    let artifacts = result.get("artifacts").and_then(Value::as_array).into_iter().flatten();
    let places = [result.get("parts"), result.pointer("/message/parts")];
    let places = places.into_iter().chain(artifacts.map(|artifact| artifact.get("parts")));
    let mut said: Vec<&str> = places.flatten().flat_map(texts).collect();
    if said.is_empty() {
        // What it says of its status repeats its artifacts; it counts where nothing else is said.
        said = result.pointer("/status/message/parts").into_iter().flat_map(texts).collect();
    }
    (!said.is_empty()).then(|| said.join("\n"))
}

/// The texts among the parts of a message.
pub fn texts(parts: &Value) -> impl Iterator<Item = &str> {
    let parts = parts.as_array().into_iter().flatten();
    parts.filter_map(|part| part.get("text").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(result: &Value, expected: Option<&str>) {
        assert_eq!(said(&json!({ "result": result })).as_deref(), expected);
    }

    #[test]
    fn texts_are_found_where_agents_put_them() {
        let parts = json!([{ "kind": "text", "text": "a" }, { "kind": "data" }, { "text": "b" }]);
        check(&json!({ "parts": parts }), Some("a\nb"));
        check(&json!({ "message": { "parts": parts } }), Some("a\nb"));
        check(
            &json!({ "artifacts": [{ "parts": parts }, { "parts": parts }] }),
            Some("a\nb\na\nb"),
        );
        check(&json!({ "task": { "artifacts": [{ "parts": parts }] } }), Some("a\nb"));
        check(&json!({ "status": { "message": { "parts": parts } } }), Some("a\nb"));
        check(
            &json!({
                "artifacts": [{ "parts": parts }],
                "status": { "message": { "parts": [{ "text": "done" }] } },
            }),
            Some("a\nb"),
        );
        check(&json!({ "parts": [{ "kind": "data" }] }), None);
        check(&json!("text"), None);
    }
}
