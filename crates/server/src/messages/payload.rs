//! What is sent to an agent: a JSON-RPC envelope with a message that can be recognised again.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Longest name of a message; a longer one names nothing.
const MAX_KEY: usize = 512;

/// A message, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payload {
    /// The whole envelope.
    pub(super) envelope: Value,
    /// By what it is recognised, if it comes again.
    pub(super) key: Option<String>,
    /// SHA-256 of what is said under that name.
    pub(super) digest: Vec<u8>,
    /// It carries a message, and is no mere question about one.
    pub(super) carries: bool,
}

impl Payload {
    /// Read a body. `named` is the name that its caller gave it otherwise; one in the message itself is the message's.
    ///
    /// # Errors
    /// What is wrong with it, when it is not a JSON object.
    pub(super) fn read(
        body: &[u8],
        named: Option<&str>,
        fresh: impl FnMut() -> String,
    ) -> Result<Self, String> {
        let body = object(body)?;
        let own = message_id(&Value::Object(body.clone()));
        let digest = digest(&body);
        let envelope = normalise(body, fresh);
        let named = named.map(str::trim).filter(|name| (1..=MAX_KEY).contains(&name.len()));
        let key = own.or_else(|| named.map(str::to_owned)).or_else(|| message_id(&envelope));
        let carries = named.is_some()
            || envelope["params"]["message"].is_object()
            || !is_question(method(&envelope));
        Ok(Self { key: key.filter(|_| carries), envelope, digest, carries })
    }

    /// One that the platform made.
    pub(super) fn of(envelope: Value) -> Self {
        let key = message_id(&envelope);
        let digest = envelope.as_object().map(digest).unwrap_or_default();
        Self { envelope, key, digest, carries: true }
    }

    /// Its method; empty where it names none.
    pub(super) fn method(&self) -> &str {
        method(&self.envelope)
    }
}

/// Calls about a task, or about the agent itself: their answers are worth something now, or never.
fn is_question(method: &str) -> bool {
    const ABOUT: [&str; 8] = [
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "PushNotificationConfig",
        "ExtendedAgentCard",
        "AuthenticatedExtendedCard",
        "agent/",
    ];
    method.starts_with("tasks/") || ABOUT.iter().any(|about| method.contains(about))
}

/// The method of an envelope; empty where it names none.
pub(super) fn method(envelope: &Value) -> &str {
    envelope["method"].as_str().filter(|it| can_be_kept(it)).unwrap_or_default()
}

/// The name of a message; none where it is missing, empty, too long, or no text.
pub(super) fn message_id(envelope: &Value) -> Option<String> {
    let id = envelope["params"]["message"]["messageId"].as_str()?;
    ((1..=MAX_KEY).contains(&id.len()) && can_be_kept(id)).then(|| id.to_owned())
}

/// The delegation that a message carries.
pub(super) fn delegation_id(envelope: &Value) -> Option<String> {
    let id = envelope["params"]["message"]["metadata"]["delegation_id"].as_str()?;
    (!id.is_empty() && can_be_kept(id)).then(|| id.to_owned())
}

/// PostgreSQL has no place for a NUL in a text; within a body it stays escaped.
fn can_be_kept(name: &str) -> bool {
    !name.contains('\0')
}

/// Of what is said: neither under which name, nor by which call.
fn digest(body: &Map<String, Value>) -> Vec<u8> {
    let mut said = body.get("params").and_then(|params| params.get("message")).cloned();
    if let Some(Value::Object(message)) = &mut said {
        message.remove("messageId");
    }
    let said = said.unwrap_or_else(|| json!([body.get("method"), body.get("params")]));
    Sha256::digest(said.to_string()).to_vec()
}

fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err("expected a JSON object".to_owned()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Make a body into what agents understand. A full envelope keeps its id and its message id; a bare one is
/// wrapped. `fresh` gives a new id, and is asked only where one is missing.
fn normalise(mut body: Map<String, Value>, mut fresh: impl FnMut() -> String) -> Value {
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
    Value::Object(body)
}

/// A recorded answer, for another call about the same message: it carries that call's id. A stream carries it in each
/// of its events.
pub(super) fn readdressed(answer: &str, streams: bool, id: &Value) -> String {
    if streams {
        let line = |line: &str| match line.strip_prefix("data:") {
            Some(data) => format!("data: {}", readdressed(data.trim_start(), false, id)),
            None => line.to_owned(),
        };
        return answer.split('\n').map(line).collect::<Vec<_>>().join("\n");
    }
    match serde_json::from_str(answer) {
        Ok(Value::Object(mut body))
            if body.contains_key("jsonrpc") && body.get("id") != Some(id) =>
        {
            body.insert("id".to_owned(), id.clone());
            Value::Object(body).to_string()
        }
        _ => answer.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, named: Option<&str>) -> Result<Payload, String> {
        let mut n = 0;
        Payload::read(body.as_bytes(), named, || {
            n += 1;
            format!("fresh-{n}")
        })
    }

    fn check(body: &str) -> Result<Value, String> {
        read(body, None).map(|payload| payload.envelope)
    }

    /// A2-06, A2-21: a bare message is wrapped, and gets the ids that it lacks.
    #[test]
    fn a2_06_a2_21_a_bare_message_is_wrapped_and_numbered() {
        let sent =
            check(r#"{"method":"message/send","params":{"message":{"role":"user"}},"extra":1}"#);
        let expected = json!({"jsonrpc": "2.0", "id": "fresh-1", "method": "message/send",
            "params": {"message": {"role": "user", "messageId": "fresh-2"}}});
        assert_eq!(sent, Ok(expected));
        let nameless = read(r#"{"params":{"message":{}}}"#, None).unwrap();
        assert_eq!((&nameless.envelope["method"], nameless.method()), (&Value::Null, ""));
    }

    #[test]
    fn a2_02_an_envelope_is_left_as_it_is() {
        let body = r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"message":{"messageId":"mine"}},"x":1}"#;
        assert_eq!(check(body), Ok(serde_json::from_str(body).unwrap()));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        assert_eq!(check("[]"), Err("expected a JSON object".to_owned()));
        assert!(check("{").unwrap_err().contains("EOF"));
    }

    /// QU-02, QU-03: the name of a message is its id, if that is one.
    #[test]
    fn qu_02_qu_03_the_key_is_the_message_id() {
        let id = |message: Value| message_id(&json!({"params": {"message": message}}));
        assert_eq!(id(json!({"messageId": "m"})), Some("m".to_owned()));
        for none in [json!({}), json!({"messageId": ""}), json!({"messageId": 7}), json!("m")] {
            assert_eq!(id(none), None);
        }
        assert_eq!(message_id(&json!([])), None);
    }

    #[test]
    fn qu_04_a_delegation_is_named_in_the_metadata() {
        let of = |metadata: Value| {
            delegation_id(&json!({"params": {"message": {"metadata": metadata}}}))
        };
        assert_eq!(of(json!({"delegation_id": "d"})), Some("d".to_owned()));
        assert_eq!(
            (of(json!({})), of(json!({"delegation_id": 1})), of(json!(null))),
            (None, None, None)
        );
    }

    #[test]
    fn a_name_is_the_messages_own_or_the_callers_or_a_fresh_one() {
        let message = |id: &str| format!(r#"{{"params":{{"message":{{{id}"role":"user"}}}}}}"#);
        let own = read(&message(r#""messageId":"m","#), Some("k")).unwrap();
        let named = read(&message(""), Some("k")).unwrap();
        let fresh = read(&message(""), None).unwrap();
        assert_eq!((own.key.as_deref(), named.key.as_deref()), (Some("m"), Some("k")));
        assert_eq!(fresh.key.as_deref(), Some("fresh-2"));
        assert!(own.digest == named.digest && named.digest == fresh.digest);
        assert_ne!(
            read(r#"{"params":{"message":{"role":"agent"}}}"#, None).unwrap().digest,
            own.digest
        );
        let question =
            read(r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":"t"}}"#, None)
                .unwrap();
        assert!(!question.carries && question.key.is_none());
    }

    #[test]
    fn a_recorded_answer_carries_the_id_of_the_call() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert_eq!(readdressed(answer, false, &json!(1)), answer);
        let other: Value = serde_json::from_str(&readdressed(answer, false, &json!("x"))).unwrap();
        assert_eq!(other, json!({"jsonrpc": "2.0", "id": "x", "result": {}}));
        assert_eq!(readdressed("plain", false, &json!(2)), "plain");
        let stream = format!("event: e\ndata: {answer}\n\n: ping\n");
        let again = readdressed(&stream, true, &json!(2));
        assert!(
            again.starts_with("event: e\ndata: {\"id\":2,") && again.ends_with("\n\n: ping\n"),
            "{again}"
        );
    }
}
