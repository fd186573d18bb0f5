//! What is sent to an agent: a JSON-RPC envelope with a message that can be recognised again.

use serde_json::{Map, Value, json};

/// Make a body into what agents understand. A full envelope keeps its id and its message id; a bare one is
/// wrapped. `fresh` gives a new id, and is asked only where one is missing.
///
/// # Errors
/// What is wrong with it, when it is not a JSON object.
pub(super) fn normalise(body: &[u8], mut fresh: impl FnMut() -> String) -> Result<Value, String> {
    let mut body = match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => body,
        Ok(_) => return Err("expected a JSON object".to_owned()),
        Err(cause) => return Err(cause.to_string()),
    };
    if !body.contains_key("jsonrpc") {
        let take =
            |body: &mut Map<String, Value>, key: &str| body.remove(key).unwrap_or(Value::Null);
        let (method, params) = (take(&mut body, "method"), take(&mut body, "params"));
        body = Map::new();
        body.insert("jsonrpc".to_owned(), json!("2.0"));
        body.insert("id".to_owned(), json!(fresh()));
        body.insert("method".to_owned(), method);
        body.insert("params".to_owned(), params);
    }
    if let Some(Value::Object(message)) =
        body.get_mut("params").and_then(|params| params.get_mut("message"))
        && !message.contains_key("messageId")
    {
        message.insert("messageId".to_owned(), json!(fresh()));
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Value, String> {
        let mut n = 0;
        normalise(body.as_bytes(), || {
            n += 1;
            format!("fresh-{n}")
        })
    }

    #[test]
    fn a_bare_message_is_wrapped_and_numbered() {
        let sent =
            check(r#"{"method":"message/send","params":{"message":{"role":"user"}},"extra":1}"#);
        let expected = json!({"jsonrpc": "2.0", "id": "fresh-1", "method": "message/send",
            "params": {"message": {"role": "user", "messageId": "fresh-2"}}});
        assert_eq!(sent, Ok(expected));
    }

    #[test]
    fn an_envelope_is_left_as_it_is() {
        let body = r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"message":{"messageId":"mine"}},"x":1}"#;
        assert_eq!(check(body), Ok(serde_json::from_str(body).unwrap()));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        assert_eq!(check("[]"), Err("expected a JSON object".to_owned()));
        assert!(check("{").unwrap_err().contains("EOF"));
    }
}
