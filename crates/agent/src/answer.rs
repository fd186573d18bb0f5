//! Answers: what is kept of them, and what is made of a record for whoever asks again.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::records::{Ended, Head, LONGEST_ANSWER, Record};
use crate::turns::Refusal;

/// What the answer is: the turn's own, a recorded one, or none because the turn was interrupted.
pub(crate) const TURN: HeaderName = HeaderName::from_static("ligand-turn");
/// When the turn began, in milliseconds since 1970.
pub(crate) const STARTED_AT: HeaderName = HeaderName::from_static("ligand-started-at");

/// Of a stream that is too long, about as many bytes are kept of its end.
const TAIL: usize = LONGEST_ANSWER / 2;
/// A longer JSON-RPC id is not written down: an answer is given the asker's anyway.
const LONGEST_ID: usize = 1024;
/// JSON-RPC 2.0, section 5.1: for servers to define.
const REFUSED: i64 = -32_000;

/// The word in [`TURN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The turn's own answer. Of a stream it holds once the stream has ended.
    Processed,
    Replayed,
    Interrupted,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Replayed => "replayed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Say in the headers what the answer is.
pub(crate) fn mark(headers: &mut HeaderMap, word: Word, started_ms: i64) {
    headers.insert(TURN, HeaderValue::from_static(word.as_str()));
    headers.insert(STARTED_AT, HeaderValue::from(started_ms));
}

pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// What is kept of an answer while it comes.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    stream: bool,
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    pub(crate) fn of(stream: bool) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Whether `more` would be too much.
    pub(crate) fn overflows(&self, more: &[u8]) -> bool {
        self.cut || self.bytes.len() + more.len() > LONGEST_ANSWER
    }

    /// All of it so far, as long as nothing was too much.
    pub(crate) fn so_far(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        self.cut |= self.overflows(more);
        if self.cut && !self.stream {
            self.bytes = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(more);
        if self.cut && self.bytes.len() > LONGEST_ANSWER {
            self.bytes.drain(..self.bytes.len() - TAIL);
        }
    }

    /// The answer as it is recorded, with the head that it came with and the id that it carries.
    pub(crate) fn ended(
        mut self,
        at_ms: i64,
        status: StatusCode,
        headers: &HeaderMap,
        id: &Value,
    ) -> (Ended, Bytes) {
        if self.cut {
            // What is left begins in the middle of an event.
            let whole = end_of_event(&self.bytes).unwrap_or(self.bytes.len());
            self.bytes.drain(..whole);
        }
        let text = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let ended = Ended {
            at_ms,
            status: status.as_u16(),
            kind: text(header::CONTENT_TYPE),
            encoding: text(header::CONTENT_ENCODING),
            id: if id.to_string().len() > LONGEST_ID { Value::Null } else { id.clone() },
            cut: self.cut,
            length: self.bytes.len() as u64,
        };
        (ended, Bytes::from(self.bytes))
    }
}

/// Where the first event of a stream is over.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    let after = |mark: &[u8]| {
        let at = bytes.windows(mark.len()).position(|window| window == mark)?;
        Some(at + mark.len())
    };
    [after(b"\n\n"), after(b"\r\n\r\n")].into_iter().flatten().min()
}

/// The recorded answer, for a request with this JSON-RPC id. Of a turn without one there is nothing to give.
pub(crate) fn replayed(record: &Record, id: &Value) -> Response {
    let Head { started_ms, ended, .. } = &record.head;
    let Some(ended) = ended else { return refused(Refusal::Interrupted, id, Some(*started_ms)) };
    let mut headers = HeaderMap::new();
    for (name, value) in
        [(header::CONTENT_TYPE, &ended.kind), (header::CONTENT_ENCODING, &ended.encoding)]
    {
        if let Some(value) = value.as_ref().and_then(|value| value.parse().ok()) {
            headers.insert(name, value);
        }
    }
    let status = StatusCode::from_u16(ended.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let stream = is_stream(&headers);
    mark(&mut headers, Word::Replayed, *started_ms);
    if ended.cut && !stream {
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_TYPE);
        let text = "the turn has ended; its answer was too long to be kept";
        return (status, headers, Json(error(id, text, "answer-not-kept"))).into_response();
    }
    let body = match ended.encoding {
        None if ended.id != *id => renamed(&record.body, stream, id),
        _ => record.body.clone(),
    };
    let missing: &[u8] = if ended.cut { b": the beginning was not kept\n\n" } else { b"" };
    let body = if missing.is_empty() { body } else { [missing, &body].concat().into() };
    (status, headers, Body::from(body)).into_response()
}

/// The same answer under another JSON-RPC id. What carries none stays as it is.
fn renamed(body: &Bytes, stream: bool, id: &Value) -> Bytes {
    if !stream {
        return with_id(body, id).map_or_else(|| body.clone(), Bytes::from);
    }
    let Ok(text) = std::str::from_utf8(body) else { return body.clone() };
    let mut out = String::with_capacity(text.len());
    let (mut lines, mut data) = (String::new(), Vec::new());
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        if let Some(value) = bare.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value));
        }
        lines.push_str(line);
        if bare.is_empty() {
            flush(&mut out, &lines, &data, id);
            lines.clear();
            data.clear();
        }
    }
    flush(&mut out, &lines, &data, id);
    Bytes::from(out)
}

/// One event, given as its lines and its data, under another id.
fn flush(out: &mut String, lines: &str, data: &[&str], id: &Value) {
    let fresh = with_id(data.join("\n").as_bytes(), id);
    let Some(fresh) = fresh.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return out.push_str(lines);
    };
    let mut fresh = Some(fresh);
    for line in lines.split_inclusive('\n') {
        if !line.starts_with("data:") {
            out.push_str(line);
        } else if let Some(fresh) = fresh.take() {
            out.push_str("data: ");
            out.push_str(&fresh);
            out.push('\n');
        }
    }
}

/// A JSON-RPC answer under another id, the rest of it byte for byte; `None` for anything else.
fn with_id(body: &[u8], id: &Value) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
    let old = fields.get_mut("id")?;
    *old = serde_json::value::to_raw_value(id).ok()?;
    serde_json::to_vec(&fields).ok()
}

/// What a message is told that is not run.
pub(crate) fn refused(why: Refusal, id: &Value, started_ms: Option<i64>) -> Response {
    match why {
        Refusal::Interrupted => {
            let text = "the turn was begun before and did not end; it may have had its effect, and is not run again";
            let body = Json(error(id, text, "turn-interrupted"));
            let mut response = (StatusCode::CONFLICT, body).into_response();
            let headers = response.headers_mut();
            headers.insert(TURN, HeaderValue::from_static(Word::Interrupted.as_str()));
            if let Some(started_ms) = started_ms {
                headers.insert(STARTED_AT, HeaderValue::from(started_ms));
            }
            response
        }
        Refusal::Another => {
            let text = "messageId: a message of other content had it before; each message was expected to have its own";
            let body = Json(error(id, text, "message-id-reused"));
            (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
        }
    }
}

/// What every message is told while the agent stands by: it has left no trace, and may come again.
pub(crate) fn stands_by(id: &Value) -> Response {
    let text = "the agent stands by: it was told not to run its program for now";
    let again = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, again, Json(error(id, text, "stands-by"))).into_response()
}

fn error(id: &Value, message: &str, code: &str) -> Value {
    let error = json!({ "code": REFUSED, "message": message, "data": { "code": code } });
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = "event: x\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"b\":1.50,\"a\":2}}\n\n: c\n\ndata: plain\n\ndata: {\"id\":1,\ndata: \"result\":3}\n\n";

    #[test]
    fn another_id_is_put_in_and_nothing_else_changes() {
        let old = Bytes::from_static(br#"{"jsonrpc":"2.0","result":{"b":1.50,"a":2},"id":1}"#);
        let new = renamed(&old, false, &json!("two"));
        assert_eq!(&new[..], br#"{"id":"two","jsonrpc":"2.0","result":{"b":1.50,"a":2}}"#);
        for other in [&b"plain"[..], b"[1]", b"{\"a\":1}", b"\xff"] {
            let other = Bytes::copy_from_slice(other);
            assert_eq!(renamed(&other, false, &json!(2)), other);
        }
    }

    #[test]
    fn the_events_of_a_stream_are_given_another_id_one_by_one() {
        let new = renamed(&Bytes::from(EVENTS), true, &json!(2));
        let expected = "event: x\ndata: {\"id\":2,\"jsonrpc\":\"2.0\",\"result\":{\"b\":1.50,\"a\":2}}\n\n: c\n\ndata: plain\n\ndata: {\"id\":2,\"result\":3}\n\n";
        assert_eq!(String::from_utf8_lossy(&new), expected);
    }

    #[test]
    fn of_a_long_stream_whole_events_are_kept_from_its_end() {
        let mut kept = Kept::of(true);
        let mut sent = 0;
        while sent <= 3 * LONGEST_ANSWER {
            let event = format!("data: {sent} {}\n\n", "x".repeat(50_000));
            kept.push(event.as_bytes());
            sent += event.len();
        }
        kept.push(b"data: last\n\n");
        let (ended, bytes) = kept.ended(0, StatusCode::OK, &HeaderMap::new(), &Value::Null);
        assert!(ended.cut && bytes.len() <= LONGEST_ANSWER && bytes.len() > TAIL / 2);
        assert!(bytes.starts_with(b"data: ") && bytes.ends_with(b"\n\ndata: last\n\n"));
        assert_eq!(ended.length, bytes.len() as u64);
    }

    #[test]
    fn of_another_long_answer_nothing_is_kept_but_that_it_ended() {
        let mut kept = Kept::of(false);
        kept.push(&vec![b'x'; LONGEST_ANSWER]);
        assert_eq!(kept.so_far().len(), LONGEST_ANSWER);
        assert!(kept.overflows(b"y"));
        kept.push(b"y");
        kept.push(b"y");
        let (ended, bytes) = kept.ended(0, StatusCode::OK, &HeaderMap::new(), &Value::Null);
        assert!(ended.cut && bytes.is_empty());
    }
}
