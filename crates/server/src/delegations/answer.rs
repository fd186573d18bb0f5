//! What an agent answered to a task.

use serde_json::Value;

/// The text of an answer, or why it is none.
///
/// # Errors
/// What the agent says went wrong.
pub(crate) fn read(answer: &str) -> Result<String, String> {
    let Some(said) = last(answer) else { return Ok(answer.to_owned()) };
    if let Some(error) = said.get("error").filter(|error| !error.is_null()) {
        let text = error["message"].as_str().or_else(|| error.as_str());
        return Err(text.map_or_else(|| error.to_string(), str::to_owned));
    }
    let result = &said["result"];
    let state = result.pointer("/status/state").and_then(Value::as_str).unwrap_or_default();
    // The protocol's names, and the same in its later spelling.
    let state = state.trim_start_matches("TASK_STATE_").to_lowercase();
    if matches!(state.as_str(), "failed" | "rejected" | "canceled" | "cancelled") {
        let said = result.pointer("/status/message/parts").and_then(text);
        return Err(said.unwrap_or_else(|| format!("the task ended as {state}")));
    }
    let artifacts = result["artifacts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = result.get("parts").and_then(text);
    let found =
        found.or_else(|| artifacts.iter().find_map(|artifact| text(artifact.get("parts")?)));
    // Later versions of the protocol put a message into a field of its own.
    let found = found.or_else(|| result.pointer("/message/parts").and_then(text));
    Ok(found.unwrap_or_else(|| answer.to_owned()))
}

/// The first text among parts.
fn text(parts: &Value) -> Option<String> {
    let parts = parts.as_array()?.iter();
    let is_text = |part: &&Value| {
        let kind = part.get("kind").or_else(|| part.get("type")).and_then(Value::as_str);
        kind.is_none_or(|kind| kind == "text")
    };
    parts.filter(is_text).find_map(|part| Some(part["text"].as_str()?.to_owned()))
}

/// What an answer says; of a stream, what its last event carries.
fn last(answer: &str) -> Option<Value> {
    let object = |text: &str| serde_json::from_str(text).ok().filter(Value::is_object);
    let mut data = answer.lines().rev().filter_map(|line| line.strip_prefix("data:"));
    object(answer).or_else(|| data.find_map(|data| object(data.trim())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_is_the_first_part_that_is_one() {
        let of = |result: Value| read(&json!({"result": result}).to_string());
        assert_eq!(
            of(json!({"parts": [{"kind": "file"}, {"kind": "text", "text": "a"}]})),
            Ok("a".to_owned())
        );
        assert_eq!(
            of(json!({"artifacts": [{}, {"parts": [{"type": "text", "text": "b"}]}]})),
            Ok("b".to_owned())
        );
        assert_eq!(of(json!({"message": {"parts": [{"text": "c"}]}})), Ok("c".to_owned()));
        let raw = json!({"result": {"x": 1}}).to_string();
        assert_eq!((read(&raw), read("plain")), (Ok(raw.clone()), Ok("plain".to_owned())));
        let stream = "data: {\"result\": {\"parts\": []}}\n\ndata: {\"result\": {\"parts\": [{\"kind\": \"text\", \"text\": \"d\"}]}}\n\n";
        assert_eq!(read(stream), Ok("d".to_owned()));
    }

    #[test]
    fn what_the_agent_calls_a_failure_is_one() {
        let of = |answer: Value| read(&answer.to_string());
        assert_eq!(
            of(json!({"error": {"code": -32601, "message": "no such method"}})),
            Err("no such method".to_owned())
        );
        assert_eq!(of(json!({"error": "no"})), Err("no".to_owned()));
        let failed = json!({"result": {"status": {"state": "failed", "message": {"parts": [{"kind": "text", "text": "why"}]}}}});
        assert_eq!(of(failed), Err("why".to_owned()));
        assert_eq!(
            of(json!({"result": {"status": {"state": "TASK_STATE_REJECTED"}}})),
            Err("the task ended as rejected".to_owned())
        );
        assert!(of(json!({"error": null, "result": {"status": {"state": "completed"}}})).is_ok());
    }
}
