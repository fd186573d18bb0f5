//! What messages and answers say, as far as a log is concerned with it.

use std::borrow::Cow;

use ligand_domain::spend::Usage;
use serde_json::Value;

/// The message of a call, if it carries one.
pub(super) fn message(request: &Value) -> Option<&Value> {
    request.get("params")?.get("message").filter(|message| message.is_object())
}

/// The text of a message: of all its parts that are texts, a line each.
pub(super) fn text(message: &Value) -> String {
    let parts = message["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = parts.iter().filter_map(|part| part["text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}

/// The last thing that an answer says: of a stream, what its last event carries.
pub(super) fn last(answer: &Value) -> Cow<'_, Value> {
    let Some(text) = answer.as_str() else { return Cow::Borrowed(answer) };
    let mut data = text.lines().rev().filter_map(|line| line.strip_prefix("data:"));
    let parsed = data.find_map(|data| serde_json::from_str(data.trim()).ok());
    parsed.map_or(Cow::Borrowed(answer), Cow::Owned)
}

/// The tools that an answer says were used for it.
pub(super) fn tool_trace(answer: &Value) -> Option<&Value> {
    answer.pointer("/result/metadata/tool_trace").filter(|trace| !trace.is_null())
}

/// The tokens that an answer says were used for it.
pub(super) fn usage(answer: &Value) -> Option<Usage> {
    let said = answer.pointer("/result/usage").filter(|usage| usage.is_object());
    let said = said.or_else(|| answer.get("usage"))?;
    // Some write whole numbers with a point.
    let tokens = |name: &str| {
        let number = &said[name];
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the cast saturates, and it is bounded"
        )]
        number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).unwrap_or_default()
    };
    Usage::said(tokens("input_tokens"), tokens("output_tokens"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_is_the_results_or_else_the_envelopes() {
        let used = |input, output| Some(Usage { input, output });
        let inner = json!({"result": {"usage": {"input_tokens": 3, "output_tokens": 4}}, "usage": {"input_tokens": 9}});
        assert_eq!(usage(&inner), used(3, 4));
        assert_eq!(usage(&json!({"usage": {"input_tokens": 9.0}})), used(9, 0));
        assert_eq!(usage(&json!({"usage": {"input_tokens": 0, "output_tokens": 0}})), None);
        assert_eq!(usage(&json!({"result": "done"})), None);
    }

    #[test]
    fn of_a_stream_the_last_event_counts() {
        let stream = json!(
            "event: a\ndata: {\"result\": 1}\n\ndata: {\"usage\": {\"input_tokens\": 2}}\n\n: ping\n"
        );
        assert_eq!(usage(&last(&stream)), Some(Usage { input: 2, output: 0 }));
        assert_eq!(*last(&json!("text")), json!("text"));
        assert_eq!(*last(&json!({"a": 1})), json!({"a": 1}));
    }

    #[test]
    fn the_text_is_that_of_the_parts_that_have_one() {
        let parts =
            json!([{"kind": "text", "text": "a"}, {"kind": "file"}, {"type": "text", "text": "b"}]);
        let request = json!({"params": {"message": {"parts": parts}}});
        assert_eq!(text(message(&request).unwrap()), "a\nb");
        assert_eq!(message(&json!({"params": {"message": "hi"}})), None);
        assert_eq!(message(&json!([])), None);
    }
}
