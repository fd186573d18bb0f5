//! The built-in agent: answers every turn with its own text, in both versions of A2A.
//!
//! It makes a whole fleet testable without a model. The same message always gets the same answer, so that
//! a message delivered twice is seen to be one. Tests may slow it down, have it count what it really did, and
//! have it stream as much as they like: [`Wishes`].

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Echoing;
use crate::delivery::{Answer, Missed};
use crate::echo_tasks::{Task, Tasks};
use crate::machine;
use crate::vitals::legible;

/// Bytes of a message that are accepted.
const LARGEST_MESSAGE: usize = 16 << 20;
/// Limits of what a message may wish for.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
const MOST_CHUNKS: u32 = 10_000;

/// JSON-RPC 2.0, section 5.1; A2A, the errors of its own.
const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;
const INTERNAL_ERROR: i64 = -32_603;
const TASK_NOT_FOUND: i64 = -32_001;
const TASK_NOT_CANCELABLE: i64 = -32_002;

/// The built-in agent.
pub(crate) struct Echo {
    pub(crate) card: Value,
    settings: Echoing,
    tasks: Tasks,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// 0.3.
    Old,
    /// 1.0.
    New,
}

/// What a method asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Send,
    Stream,
    Get,
    Cancel,
}

fn method(name: &str) -> Option<(Asks, Dialect)> {
    Some(match name {
        "message/send" => (Asks::Send, Dialect::Old),
        "message/stream" => (Asks::Stream, Dialect::Old),
        "tasks/get" => (Asks::Get, Dialect::Old),
        "tasks/cancel" => (Asks::Cancel, Dialect::Old),
        "SendMessage" => (Asks::Send, Dialect::New),
        "SendStreamingMessage" => (Asks::Stream, Dialect::New),
        "GetTask" => (Asks::Get, Dialect::New),
        "CancelTask" => (Asks::Cancel, Dialect::New),
        _ => return None,
    })
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
    #[serde(default)]
    configuration: Configuration,
}

/// Whether the answer is wanted at once, in the words of either version.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    blocking: Option<bool>,
    return_immediately: Option<bool>,
}

#[derive(Deserialize)]
struct OfTask {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: Option<String>,
    context_id: Option<String>,
    parts: Vec<Part>,
    #[serde(default)]
    metadata: Option<Wishes>,
}

/// A part of any shape; those without text are passed over.
#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

/// What a message may ask of the echo in its `metadata`. Some clients write every number as a fraction.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Wishes {
    /// How long this turn takes, in milliseconds.
    ligand_echo_delay_ms: Option<f64>,
    /// In how many parts a stream brings the text, each of them all of it.
    ligand_echo_chunks: Option<f64>,
}

/// A JSON-RPC error.
struct Fault(i64, String);

impl Echo {
    pub(crate) fn new(card: Value, settings: Echoing) -> Self {
        Self { card, settings, tasks: Tasks::default() }
    }

    pub(crate) async fn ask(&self, body: Body) -> Result<Answer, Missed> {
        let body = to_bytes(body, LARGEST_MESSAGE).await;
        let body = body.map_err(|e| Missed::Broken(e.to_string()))?;
        Ok(self.answer(&body).await)
    }

    /// The answer to a request body.
    async fn answer(&self, body: &[u8]) -> Answer {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return error(&Value::Null, &Fault(PARSE_ERROR, "not JSON".to_owned()));
        };
        let id = value.get("id").cloned().unwrap_or_default();
        let Ok(request) = serde_json::from_value::<Request>(value) else {
            let text = "not a JSON-RPC request: `method` is missing";
            return error(&id, &Fault(INVALID_REQUEST, text.to_owned()));
        };
        self.called(request).await.unwrap_or_else(|fault| error(&id, &fault))
    }

    async fn called(&self, Request { id, method: name, params }: Request) -> Result<Answer, Fault> {
        let (asks, dialect) = method(&name)
            .ok_or_else(|| Fault(METHOD_NOT_FOUND, format!("no method `{name}` here")))?;
        let result = match asks {
            Asks::Send => self.send(read(params)?, dialect).await?,
            Asks::Stream => return self.stream(id, read(params)?, dialect),
            Asks::Get => self.task(read(params)?)?.show(dialect),
            Asks::Cancel => {
                let task = self.task(read(params)?)?;
                if !task.cancel() {
                    let text = "it has ended, and cannot be cancelled";
                    return Err(Fault(TASK_NOT_CANCELABLE, text.to_owned()));
                }
                task.show(dialect)
            }
        };
        Ok(whole(&json!({ "jsonrpc": "2.0", "id": id, "result": result })))
    }

    fn task(&self, OfTask { id }: OfTask) -> Result<Task, Fault> {
        let unknown = || Fault(TASK_NOT_FOUND, format!("there is no task `{}`", legible(&id)));
        self.tasks.get(&id).ok_or_else(unknown)
    }

    async fn send(&self, params: Params, dialect: Dialect) -> Result<Value, Fault> {
        let Params { message, configuration } = params;
        self.effect(&message)?;
        let delay = self.delay(&message);
        if configuration.blocking == Some(false) || configuration.return_immediately == Some(true) {
            let shown = self.begin(&message, delay).show(dialect);
            return Ok(match dialect {
                Dialect::Old => shown,
                Dialect::New => json!({ "task": shown }),
            });
        }
        machine::sleep(delay).await;
        Ok(message.reply(dialect))
    }

    /// A task that works, its text in parts, and its end.
    fn stream(&self, id: Value, params: Params, dialect: Dialect) -> Result<Answer, Fault> {
        let Params { message, .. } = params;
        self.effect(&message)?;
        // The conversion saturates: what is no count is none.
        let chunks = message.wishes().ligand_echo_chunks.unwrap_or(1.0) as u32;
        let chunks = chunks.clamp(1, MOST_CHUNKS);
        let delay = self.delay(&message);
        let task = self.begin(&message, delay);
        let event = move |result: Value| {
            let event = json!({ "jsonrpc": "2.0", "id": id, "result": result });
            Ok::<_, String>(Bytes::from(format!("data: {event}\n\n")))
        };
        let first = event(task.event(dialect));
        let steps = stream::unfold((task, 0), move |(task, nth)| async move {
            let told = if nth < chunks && task.lasts(delay / chunks).await {
                task.artifact_event(dialect, nth, chunks)
            } else if nth <= chunks {
                task.complete();
                return Some((task.status_event(dialect), (task, u32::MAX)));
            } else {
                return None;
            };
            Some((told, (task, nth + 1)))
        });
        let kind = HeaderValue::from_static("text/event-stream");
        let parts = stream::iter([first]).chain(steps.map(event)).boxed();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
        Ok(Answer { status: StatusCode::OK, headers, parts })
    }

    fn begin(&self, message: &Message, delay: Duration) -> Task {
        self.tasks.begin(message.id(), message.context(), message.echo(), machine::now() + delay)
    }

    fn delay(&self, message: &Message) -> Duration {
        let wished = message.wishes().ligand_echo_delay_ms;
        let wished = wished.map(|millis| Duration::from_millis(millis as u64));
        wished.unwrap_or(self.settings.delay).min(LONGEST_DELAY)
    }

    /// Count the turn, where it is to be counted.
    fn effect(&self, message: &Message) -> Result<(), Fault> {
        let Some(path) = &self.settings.effects else { return Ok(()) };
        append(path, &legible(message.id()))
            .map_err(|e| Fault(INTERNAL_ERROR, format!("cannot count in {}: {e}", path.display())))
    }
}

fn read<T: serde::de::DeserializeOwned>(params: Value) -> Result<T, Fault> {
    serde_json::from_value(params).map_err(|e| Fault(INVALID_PARAMS, format!("params: {e}")))
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

fn whole(reply: &Value) -> Answer {
    let kind = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    let parts = stream::iter([Ok(Bytes::from(reply.to_string()))]).boxed();
    Answer { status: StatusCode::OK, headers, parts }
}

fn error(id: &Value, Fault(code, message): &Fault) -> Answer {
    let error = json!({ "code": code, "message": message });
    whole(&json!({ "jsonrpc": "2.0", "id": id, "error": error }))
}

impl Message {
    fn echo(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| part.text.as_deref());
        format!("echo: {}", texts.collect::<String>())
    }

    fn id(&self) -> &str {
        self.message_id.as_deref().unwrap_or("unnamed")
    }

    /// A task has one in any case.
    fn context(&self) -> String {
        self.context_id.clone().unwrap_or_else(|| format!("context-{}", self.id()))
    }

    fn wishes(&self) -> Wishes {
        self.metadata.unwrap_or_default()
    }

    /// The answer to one that waits for it.
    fn reply(&self, dialect: Dialect) -> Value {
        let mut reply = match dialect {
            Dialect::Old => json!({
                "kind": "message",
                "role": "agent",
                "parts": [{ "kind": "text", "text": self.echo() }],
            }),
            Dialect::New => json!({ "role": "ROLE_AGENT", "parts": [{ "text": self.echo() }] }),
        };
        reply["messageId"] = json!(format!("echo-{}", self.id()));
        if let Some(context) = &self.context_id {
            reply["contextId"] = json!(context);
        }
        match dialect {
            Dialect::Old => reply,
            Dialect::New => json!({ "message": reply }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        Echo::new(Value::Null, Echoing::default())
    }

    async fn text(answer: Answer) -> String {
        let parts = answer.parts.map(|part| String::from_utf8_lossy(&part.expect("whole")).into());
        parts.collect::<Vec<String>>().await.concat()
    }

    async fn called(echo: &Echo, body: &str) -> Value {
        serde_json::from_str(&text(echo.answer(body.as_bytes()).await).await).expect("JSON")
    }

    async fn asked(echo: &Echo, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        called(echo, &request.to_string()).await
    }

    async fn sent(method: &str, message: Value) -> Value {
        asked(&echo(), method, json!({ "message": message })).await
    }

    /// The results of a stream.
    async fn streamed(echo: &Echo, method: &str, message: Value) -> Vec<Value> {
        let params = json!({ "message": message });
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let answer = echo.answer(request.to_string().as_bytes()).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/event-stream");
        let text = text(answer).await;
        let events = text.split_terminator("\n\n").map(|event| {
            let data = event.strip_prefix("data: ").expect("one line of data");
            let mut value: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!((&value["jsonrpc"], &value["id"]), (&json!("2.0"), &json!(7)));
            value["result"].take()
        });
        events.collect()
    }

    #[tokio::test]
    async fn the_older_protocol_gets_a_message() {
        let parts = json!([{ "kind": "text", "text": "a" }, { "kind": "file", "file": {} },
                           { "type": "text", "text": "b" }, { "text": "c" }]);
        let message =
            json!({ "role": "user", "messageId": "m1", "contextId": "c1", "parts": parts });
        let result = json!({
            "kind": "message", "role": "agent", "messageId": "echo-m1", "contextId": "c1",
            "parts": [{ "kind": "text", "text": "echo: abc" }],
        });
        let expected = json!({ "jsonrpc": "2.0", "id": 7, "result": result });
        assert_eq!(sent("message/send", message.clone()).await, expected);
        assert_eq!(sent("message/send", message).await, expected, "the same each time");
    }

    #[tokio::test]
    async fn the_newer_protocol_gets_its_own_shape() {
        let message =
            json!({ "role": "ROLE_USER", "messageId": "m1", "parts": [{ "text": "hi" }] });
        let expected = json!({ "message": {
            "messageId": "echo-m1", "role": "ROLE_AGENT", "parts": [{ "text": "echo: hi" }],
        }});
        assert_eq!(sent("SendMessage", message).await["result"], expected);
    }

    #[tokio::test]
    async fn errors_have_the_codes_of_json_rpc() {
        let table = [
            ("{", PARSE_ERROR, Value::Null),
            ("[1]", INVALID_REQUEST, Value::Null),
            (r#"{"id":"x"}"#, INVALID_REQUEST, json!("x")),
            (r#"{"id":"x","method":"tasks/list"}"#, METHOD_NOT_FOUND, json!("x")),
            (r#"{"id":"x","method":"tasks/get","params":{"id":"y"}}"#, TASK_NOT_FOUND, json!("x")),
            (r#"{"id":1,"method":"SendMessage"}"#, INVALID_PARAMS, json!(1)),
            (
                r#"{"id":1,"method":"message/send","params":{"message":{}}}"#,
                INVALID_PARAMS,
                json!(1),
            ),
        ];
        for (body, code, id) in table {
            let reply = called(&echo(), body).await;
            assert_eq!((&reply["error"]["code"], &reply["id"]), (&json!(code), &id), "{body}");
        }
    }

    #[tokio::test]
    async fn a_stream_brings_a_task_its_text_and_its_end() {
        let metadata = json!({ "ligand_echo_chunks": 2 });
        let message = json!({ "messageId": "m", "parts": [{ "text": "a" }], "metadata": metadata });
        let echo = echo();
        let old = streamed(&echo, "message/stream", message.clone()).await;
        let ids = |mut value: Value| {
            value["taskId"] = json!("task-m");
            value["contextId"] = json!("context-m");
            value
        };
        let part = |part: Value, append: bool, last: bool| {
            ids(json!({ "artifact": { "artifactId": "echo", "parts": [part] },
                        "append": append, "lastChunk": last }))
        };
        let with_kind = |mut value: Value, kind: &str| {
            value["kind"] = json!(kind);
            value
        };
        let text = json!({ "kind": "text", "text": "echo: a" });
        let end = json!({ "status": { "state": "completed" }, "final": true });
        assert_eq!(old[0]["kind"], "task");
        assert_eq!(old[0]["status"]["state"], "working");
        assert_eq!(old[1], with_kind(part(text.clone(), false, false), "artifact-update"));
        assert_eq!(old[2], with_kind(part(text, true, true), "artifact-update"));
        assert_eq!(old[3..], [with_kind(ids(end), "status-update")]);

        let new = streamed(&echo, "SendStreamingMessage", message).await;
        let text = json!({ "text": "echo: a" });
        assert_eq!(new[0]["task"]["status"]["state"], "TASK_STATE_WORKING");
        assert_eq!(new[1]["artifactUpdate"], part(text.clone(), false, false));
        assert_eq!(new[2]["artifactUpdate"], part(text, true, true));
        let end = ids(json!({ "status": { "state": "TASK_STATE_COMPLETED" } }));
        assert_eq!(new[3..], [json!({ "statusUpdate": end })]);
        let task = asked(&echo, "GetTask", json!({ "id": "task-m" })).await;
        assert_eq!(task["result"]["status"]["state"], "TASK_STATE_COMPLETED");
        assert_eq!(task["result"]["artifacts"][0]["parts"][0], json!({ "text": "echo: a" }));
    }

    #[tokio::test]
    async fn who_does_not_wait_gets_a_task_that_can_be_looked_at_and_cancelled() {
        let echo = echo();
        let slow = json!({ "ligand_echo_delay_ms": 600_000.0 });
        let message = json!({ "messageId": "m", "contextId": "c", "parts": [], "metadata": slow });
        let configuration = json!({ "blocking": false });
        let params = json!({ "message": message, "configuration": configuration });
        let task = asked(&echo, "message/send", params).await["result"].take();
        let expected = json!({ "kind": "task", "id": "task-m", "contextId": "c",
                               "status": { "state": "working" } });
        assert_eq!(task, expected);
        let id = json!({ "id": "task-m" });
        assert_eq!(asked(&echo, "tasks/get", id.clone()).await["result"], expected);
        let told = asked(&echo, "tasks/cancel", id.clone()).await;
        assert_eq!(told["result"]["status"]["state"], "canceled");
        let told = asked(&echo, "CancelTask", id.clone()).await;
        assert_eq!(told["error"]["code"], TASK_NOT_CANCELABLE);

        let configuration = json!({ "returnImmediately": true });
        let message = json!({ "messageId": "n", "parts": [{ "text": "x" }] });
        let params = json!({ "message": message, "configuration": configuration });
        let task = asked(&echo, "SendMessage", params).await;
        assert_eq!(task["result"]["task"]["id"], "task-n");
        let task = asked(&echo, "GetTask", json!({ "id": "task-n" })).await;
        assert_eq!(task["result"]["status"]["state"], "TASK_STATE_COMPLETED", "no delay: done");
    }

    #[tokio::test]
    async fn a_stream_that_is_cancelled_ends_at_once() {
        let echo = echo();
        let slow = json!({ "ligand_echo_delay_ms": 600_000 });
        let message = json!({ "messageId": "m", "parts": [], "metadata": slow });
        let cancel = async {
            while echo.tasks.get("task-m").is_none() {
                tokio::task::yield_now().await;
            }
            asked(&echo, "tasks/cancel", json!({ "id": "task-m" })).await
        };
        let (events, told) = tokio::join!(streamed(&echo, "message/stream", message), cancel);
        assert_eq!(told["result"]["status"]["state"], "canceled");
        assert_eq!(events.last().expect("an end")["status"]["state"], "canceled");
        assert_eq!(events.len(), 2);
    }

    #[tokio::test]
    async fn turns_are_counted_where_they_are_to_be_counted() {
        let dir = crate::testing::Scratch::new();
        let effects = dir.path().join("effects");
        let settings = Echoing { effects: Some(effects.clone()), delay: Duration::ZERO };
        let echo = Echo::new(Value::Null, settings);
        for id in ["a", "b\nc"] {
            let message = json!({ "messageId": id, "parts": [] });
            asked(&echo, "SendMessage", json!({ "message": message })).await;
        }
        streamed(&echo, "message/stream", json!({ "parts": [] })).await;
        let counted = std::fs::read_to_string(effects).expect("written");
        assert_eq!(counted, "a\nb c\nunnamed\n");
    }
}
