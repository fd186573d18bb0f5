//! The built-in agent: answers every turn with its own text.
//!
//! It makes a whole fleet testable without a model. The same message always gets the same answer, so that
//! a message delivered twice is seen to be one.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::vitals::Vitals;

/// Bytes of a message that are accepted.
const LARGEST_MESSAGE: usize = 16 << 20;

/// JSON-RPC 2.0, section 5.1.
const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;

struct Echo {
    card: Value,
    vitals: Arc<Vitals>,
}

/// The routes of the built-in agent.
pub(crate) fn router(card: Value, vitals: Arc<Vitals>) -> Router {
    Router::new()
        .route("/.well-known/agent-card.json", get(show_card))
        .route("/.well-known/agent.json", get(show_card))
        .route("/", post(turn).layer(DefaultBodyLimit::max(LARGEST_MESSAGE)))
        .with_state(Arc::new(Echo { card, vitals }))
}

async fn show_card(State(echo): State<Arc<Echo>>) -> Json<Value> {
    Json(echo.card.clone())
}

async fn turn(State(echo): State<Arc<Echo>>, body: Bytes) -> Json<Value> {
    let turn = echo.vitals.begin_turn();
    let reply = answer(&body);
    turn.end(false);
    Json(reply)
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

#[derive(Deserialize)]
struct Params {
    message: Message,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: Option<String>,
    context_id: Option<String>,
    parts: Vec<Part>,
}

/// A part of any shape; those without text are passed over.
#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

/// The JSON-RPC answer to a request body.
fn answer(body: &[u8]) -> Value {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return error(&Value::Null, PARSE_ERROR, "not JSON");
    };
    let id = value.get("id").cloned().unwrap_or_default();
    let Ok(request) = serde_json::from_value::<Request>(value) else {
        return error(&id, INVALID_REQUEST, "not a JSON-RPC request: `method` is missing");
    };
    let reply = match request.method.as_str() {
        "message/send" => old_reply,
        "SendMessage" => new_reply,
        method => {
            return error(&request.id, METHOD_NOT_FOUND, &format!("no method `{method}` here"));
        }
    };
    match serde_json::from_value::<Params>(request.params) {
        Ok(Params { message }) => {
            json!({ "jsonrpc": "2.0", "id": request.id, "result": reply(&message) })
        }
        Err(e) => error(&request.id, INVALID_PARAMS, &format!("params: {e}")),
    }
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

/// The result of `message/send` (A2A 0.3).
fn old_reply(message: &Message) -> Value {
    let mut reply = json!({
        "kind": "message",
        "role": "agent",
        "messageId": message.reply_id(),
        "parts": [{ "kind": "text", "text": message.echo() }],
    });
    message.keep_context(&mut reply);
    reply
}

/// The result of `SendMessage` (A2A 1.0).
fn new_reply(message: &Message) -> Value {
    let mut reply = json!({
        "messageId": message.reply_id(),
        "role": "ROLE_AGENT",
        "parts": [{ "text": message.echo() }],
    });
    message.keep_context(&mut reply);
    json!({ "message": reply })
}

impl Message {
    fn echo(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| part.text.as_deref());
        format!("echo: {}", texts.collect::<String>())
    }

    fn reply_id(&self) -> String {
        format!("echo-{}", self.message_id.as_deref().unwrap_or("unnamed"))
    }

    fn keep_context(&self, reply: &mut Value) {
        if let Some(context) = &self.context_id {
            reply["contextId"] = json!(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, message: Value) -> Value {
        let request = json!({
            "jsonrpc": "2.0", "id": 7, "method": method, "params": { "message": message },
        });
        answer(request.to_string().as_bytes())
    }

    #[test]
    fn the_older_protocol_gets_a_message() {
        let parts = json!([{ "kind": "text", "text": "a" }, { "kind": "file", "file": {} },
                           { "type": "text", "text": "b" }, { "text": "c" }]);
        let message =
            json!({ "role": "user", "messageId": "m1", "contextId": "c1", "parts": parts });
        let result = json!({
            "kind": "message", "role": "agent", "messageId": "echo-m1", "contextId": "c1",
            "parts": [{ "kind": "text", "text": "echo: abc" }],
        });
        let expected = json!({ "jsonrpc": "2.0", "id": 7, "result": result });
        assert_eq!(asked("message/send", message.clone()), expected);
        assert_eq!(asked("message/send", message), expected, "the same each time");
    }

    #[test]
    fn the_newer_protocol_gets_its_own_shape() {
        let message =
            json!({ "role": "ROLE_USER", "messageId": "m1", "parts": [{ "text": "hi" }] });
        let expected = json!({ "message": {
            "messageId": "echo-m1", "role": "ROLE_AGENT", "parts": [{ "text": "echo: hi" }],
        }});
        assert_eq!(asked("SendMessage", message)["result"], expected);
    }

    #[test]
    fn errors_have_the_codes_of_json_rpc() {
        let table = [
            ("{", PARSE_ERROR, Value::Null),
            ("[1]", INVALID_REQUEST, Value::Null),
            (r#"{"id":"x"}"#, INVALID_REQUEST, json!("x")),
            (r#"{"id":"x","method":"tasks/get"}"#, METHOD_NOT_FOUND, json!("x")),
            (r#"{"id":1,"method":"SendMessage"}"#, INVALID_PARAMS, json!(1)),
            (
                r#"{"id":1,"method":"message/send","params":{"message":{}}}"#,
                INVALID_PARAMS,
                json!(1),
            ),
        ];
        for (body, code, id) in table {
            let reply = answer(body.as_bytes());
            assert_eq!((&reply["error"]["code"], &reply["id"]), (&json!(code), &id), "{body}");
        }
    }
}
