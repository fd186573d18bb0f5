//! The envelope of a call, and of its answer: JSON-RPC 2.0 over HTTP.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ligand_domain::mcp::{CAPABILITIES_KEY, Revision, Said, Unclear, VERSION_KEY, spoken};
use serde_json::{Map, Value, json};

/// How a name that is no plain text stands in a header.
const ENCODED: (&str, &str) = ("=?base64?", "?=");

/// A call, or a note, which asks for no answer.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    /// What the answer carries; `None` for a note.
    pub(super) id: Option<Value>,
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
}

/// Why a call has no result.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    status: StatusCode,
    code: i64,
    message: String,
    data: Option<Value>,
}

impl Fault {
    const fn new(code: i64, message: String) -> Self {
        Self { status: StatusCode::OK, code, message, data: None }
    }

    fn parse(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, ..Self::new(-32_700, message.into()) }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(-32_600, message.into())
    }

    /// There is no such method. A call that stands alone sees it in the status too.
    pub(super) fn method(method: &str, revision: Revision) -> Self {
        let fault = Self::new(-32_601, format!("method not found: {method}"));
        match revision.stands_alone() {
            true => Self { status: StatusCode::NOT_FOUND, ..fault },
            false => fault,
        }
    }

    /// Its arguments make no sense: names the argument and what was expected.
    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(-32_602, message.into())
    }

    /// A tool failed.
    pub(super) fn tool(message: impl Into<String>) -> Self {
        Self::new(-32_000, message.into())
    }

    fn mismatch(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, ..Self::new(-32_020, message.into()) }
    }

    /// The answer that says so.
    pub(super) fn answer(self, id: Option<Value>) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(data) = self.data {
            error["data"] = data;
        }
        let id = id.unwrap_or(Value::Null);
        (self.status, Json(json!({"jsonrpc": "2.0", "id": id, "error": error}))).into_response()
    }
}

impl From<Unclear> for Fault {
    fn from(why: Unclear) -> Self {
        match why {
            Unclear::Unsupported(requested) => {
                let supported = Revision::ALL.map(Revision::as_str);
                let data = json!({"requested": requested, "supported": supported});
                let message = "unsupported protocol version".to_owned();
                let fault = Self::new(-32_022, message);
                Self { status: StatusCode::BAD_REQUEST, data: Some(data), ..fault }
            }
            Unclear::NoHeader => Self::mismatch(format!(
                "MCP-Protocol-Version: expected the header to say what {VERSION_KEY} says"
            )),
            Unclear::Differ { header, body } => Self::mismatch(format!(
                "MCP-Protocol-Version says {header}, and {VERSION_KEY} says {body}: expected the same"
            )),
            Unclear::Incomplete(missing) => {
                let message = format!("_meta: expected {}", missing.join(", "));
                Self { status: StatusCode::BAD_REQUEST, ..Self::params(message) }
            }
        }
    }
}

/// Read a call. What is wrong with it is said with its id, where that can be read.
pub(super) fn read(body: &[u8]) -> Result<Call, (Fault, Option<Value>)> {
    let body = serde_json::from_slice(body)
        .map_err(|e| (Fault::parse(format!("parse error: {e}")), None))?;
    let Value::Object(mut body) = body else {
        return Err((Fault::invalid("expected one JSON-RPC object; batches are not taken"), None));
    };
    let id = match body.remove("id") {
        Some(id @ (Value::String(_) | Value::Number(_))) => Some(id),
        Some(Value::Null) | None => None,
        Some(_) => return Err((Fault::invalid("id: expected a text or a number"), None)),
    };
    if body.get("jsonrpc") != Some(&json!("2.0")) {
        return Err((Fault::invalid("jsonrpc: expected \"2.0\""), id));
    }
    let Some(Value::String(method)) = body.remove("method") else {
        return Err((Fault::invalid("method: expected a text"), id));
    };
    let params = match body.remove("params") {
        Some(Value::Object(params)) => params,
        Some(Value::Null) | None => Map::new(),
        Some(_) => return Err((Fault::params("params: expected an object"), id)),
    };
    Ok(Call { id, method, params })
}

impl Call {
    /// The revision that it speaks, by its headers and its own words.
    pub(super) fn revision(&self, headers: &HeaderMap) -> Result<Revision, Fault> {
        let header = text(headers, "mcp-protocol-version")?;
        if self.id.is_none() {
            // A note is not answered, so it is not judged by what it says of itself either.
            return Ok(header.and_then(Revision::parse).unwrap_or(Revision::V2024_11_05));
        }
        let meta = self.params.get("_meta").and_then(Value::as_object);
        let said = |key| meta.and_then(|meta| meta.get(key));
        let revision = spoken(Said {
            header,
            body: said(VERSION_KEY).and_then(Value::as_str),
            capable: said(CAPABILITIES_KEY).is_some_and(Value::is_object),
            discovers: self.method == "server/discover",
        })?;
        if revision.stands_alone() {
            self.is_as_headers_say(headers)?;
        }
        Ok(revision)
    }

    /// What stands between reads headers alone: they must not say something else than the body does.
    fn is_as_headers_say(&self, headers: &HeaderMap) -> Result<(), Fault> {
        match text(headers, "mcp-method")? {
            Some(method) if method == self.method => {}
            Some(_) | None => {
                return Err(Fault::mismatch(format!("Mcp-Method: expected {}", self.method)));
            }
        }
        let name = self.params.get("name").and_then(Value::as_str);
        let Some(name) = name.filter(|_| self.method == "tools/call") else { return Ok(()) };
        match text(headers, "mcp-name")?.and_then(decoded) {
            Some(said) if said == name => Ok(()),
            Some(_) | None => Err(Fault::mismatch(format!("Mcp-Name: expected {name}"))),
        }
    }
}

/// A header that comes once, as text.
fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let (first, more) = (values.next(), values.next());
    if more.is_some() {
        return Err(Fault::mismatch(format!("{name}: expected one value")));
    }
    let said = first.map(|value| value.to_str()).transpose();
    said.map_err(|_| Fault::mismatch(format!("{name}: expected plain text")))
}

fn decoded(said: &str) -> Option<String> {
    let inner = said.strip_prefix(ENCODED.0).and_then(|rest| rest.strip_suffix(ENCODED.1));
    let Some(inner) = inner else { return Some(said.to_owned()) };
    String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn refused(body: &str) -> (i64, Option<Value>) {
        let (fault, id) = read(body.as_bytes()).unwrap_err();
        (fault.code, id)
    }

    #[test]
    fn what_is_no_call_is_refused_with_its_id_where_it_has_one() {
        assert_eq!(refused("{"), (-32_700, None));
        assert_eq!(refused(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#), (-32_600, None));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#), (-32_600, None));
        assert_eq!(refused(r#"{"id":"a","method":"ping"}"#), (-32_600, Some(json!("a"))));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":7,"method":1}"#), (-32_600, Some(json!(7))));
        let listed = r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}"#;
        assert_eq!(refused(listed), (-32_602, Some(json!(7))));
    }

    #[test]
    fn a_note_has_no_id() {
        let note = read(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).unwrap();
        assert_eq!((note.id, note.params.len()), (None, 0));
    }

    /// A call that stands alone, with these headers.
    fn call(headers: &[(&'static str, &str)]) -> Result<Revision, i64> {
        let new = Revision::V2026_07_28.as_str();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a b\u{e9}",
            "_meta": {VERSION_KEY: new, CAPABILITIES_KEY: {}}}});
        let call = read(call.to_string().as_bytes()).unwrap();
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(*name, HeaderValue::from_str(value).unwrap());
        }
        call.revision(&all).map_err(|fault| fault.code)
    }

    #[test]
    fn headers_repeat_what_the_call_says() {
        const NAME: &str = "=?base64?YSBiw6k=?=";
        let version = ("mcp-protocol-version", "2026-07-28");
        let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", NAME));
        assert_eq!(call(&[version, method, name]), Ok(Revision::V2026_07_28));
        for wrong in [
            &[method, name][..],
            &[("mcp-protocol-version", "2025-11-25"), method, name],
            &[version, name],
            &[version, method],
            &[version, ("mcp-method", "tools/list"), name],
            &[version, method, ("mcp-name", "other")],
            &[version, method, ("mcp-name", "=?base64?%?=")],
            &[version, method, method, name],
        ] {
            assert_eq!(call(wrong), Err(-32_020), "{wrong:?}");
        }
    }
}
