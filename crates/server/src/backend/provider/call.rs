//! One call of a provider: where it goes, how long it may take, what its failure means.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::wire::{self, Failure, HEADER, LARGEST, VERSION};
use crate::backend::{BackendError, ErrorKind};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that says nothing for so long is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest wait for an answer to what takes no time.
pub(super) const PROMPT: Duration = Duration::from_secs(30);
/// Longest wait for what may take time: a start that fetches an image, data that is taken away.
pub(super) const LONG: Duration = Duration::from_secs(300);
/// However long a provider wishes not to be called: it is asked again after this.
const QUIET: Duration = Duration::from_secs(60);
/// Of a failure, this much is passed on.
const SAID: usize = 400;
/// Of a failure's body, this much is read.
const READ: usize = 64 << 10;
/// What is shorter is no secret: it would blot out half of every sentence.
const SECRET: usize = 4;

/// Where a provider is, and what it lets us in by.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: Url,
    token: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({})", self.url)
    }
}

impl Address {
    /// From settings. What goes there are credentials: it takes TLS, or this machine.
    ///
    /// # Errors
    /// A sentence that says what was expected. It holds neither value.
    pub fn new(url: &str, token: &str) -> Result<Self, String> {
        let expected = "expected an address like https://HOST/PATH, or http://127.0.0.1:PORT";
        let url = Url::parse(url.trim()).map_err(|_| expected.to_owned())?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str().ok_or(expected)?;
        match url.scheme() {
            "https" if bare => {}
            "http" if bare && is_here(host) => {}
            "http" if bare => {
                return Err(format!("{expected}: credentials go there, which takes TLS"));
            }
            _ => return Err(format!("{expected}, without a user, a query or a fragment")),
        }
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected a token of visible characters".to_owned());
        }
        Ok(Self { url, token: token.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    fn below(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }
}

fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What calls a provider.
pub(super) struct Caller {
    at: Address,
    http: Client,
    /// Not before this: the provider said so.
    quiet: Mutex<Option<Instant>>,
}

impl Caller {
    pub(super) fn new(at: Address) -> Result<Self, BackendError> {
        let unusable =
            |what: String| BackendError::broken(format!("set up the HTTP client: {what}"));
        let http = ligand_api::http::builder().map_err(|cause| unusable(cause.to_string()))?;
        let http = http.connect_timeout(CONNECT).tcp_keepalive(KEEP_ALIVE).no_proxy().build();
        let http = http.map_err(|cause| unusable(cause.to_string()))?;
        Ok(Self { at, http, quiet: Mutex::new(None) })
    }

    /// A call that ends within `limit`; one without a limit is a stream that its reader ends.
    pub(super) fn request(
        &self,
        method: Method,
        path: &[&str],
        limit: Option<Duration>,
    ) -> RequestBuilder {
        let request = self.http.request(method, self.at.below(path));
        let request = request.bearer_auth(&self.at.token).header(HEADER, VERSION);
        match limit {
            Some(limit) => request.timeout(limit),
            None => request,
        }
    }

    /// A call without the token: whoever is let in by that has no door.
    pub(super) async fn stranger(&self, path: &[&str]) -> Result<u16, BackendError> {
        let request = self.http.get(self.at.below(path)).header(HEADER, VERSION).timeout(PROMPT);
        let answer = request.send().await.map_err(|cause| lost("call", &cause))?;
        Ok(answer.status().as_u16())
    }

    /// The answer, if it was done. Whatever of `secrets` a failure repeats is blotted out.
    pub(super) async fn answer(
        &self,
        what: &str,
        request: RequestBuilder,
        secrets: &[&str],
    ) -> Result<Response, BackendError> {
        self.in_time(what)?;
        let answer = request.send().await.map_err(|cause| lost(what, &cause))?;
        let status = answer.status();
        let ours = answer.headers().get(HEADER).is_some();
        if ours && (status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS) {
            return Ok(answer);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.hush(answer.headers());
        }
        if status.is_success() {
            let why = format!("{what}: what answers there is no provider: no header `{HEADER}`");
            return Err(BackendError::broken(why));
        }
        let body = bounded(answer, READ).await.unwrap_or_default();
        let mut secrets = secrets.to_vec();
        secrets.push(&self.at.token);
        Err(failure(what, status, &body, &secrets))
    }

    /// The same, where nothing but success is awaited.
    pub(super) async fn done(
        &self,
        what: &str,
        request: RequestBuilder,
    ) -> Result<(), BackendError> {
        self.answer(what, request, &[]).await.map(drop)
    }

    /// The same, read.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        what: &str,
        request: RequestBuilder,
        secrets: &[&str],
    ) -> Result<T, BackendError> {
        let body = bounded(self.answer(what, request, secrets).await?, LARGEST).await;
        let body = body.map_err(|why| transient(format!("{what}: {why}")))?;
        // What the cause quotes may be a secret: its place is enough.
        serde_json::from_slice(&body).map_err(|cause| {
            let (line, column) = (cause.line(), cause.column());
            transient(format!(
                "{what}: the answer is not understood (line {line}, column {column})"
            ))
        })
    }

    /// The same, as bytes.
    pub(super) async fn bytes(
        &self,
        what: &str,
        request: RequestBuilder,
    ) -> Result<Bytes, BackendError> {
        let body = bounded(self.answer(what, request, &[]).await?, LARGEST).await;
        body.map_err(|why| transient(format!("{what}: {why}")))
    }

    fn in_time(&self, what: &str) -> Result<(), BackendError> {
        let quiet = *self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        match quiet.map(|until| until.saturating_duration_since(now())) {
            Some(left) if left > Duration::ZERO => {
                let left = left.as_secs_f64();
                Err(transient(format!(
                    "{what}: the provider asked not to be called for {left:.1} s"
                )))
            }
            _ => Ok(()),
        }
    }

    /// It is asked for less: for as long as it says, within reason.
    fn hush(&self, headers: &HeaderMap) {
        let said = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = Duration::from_secs(said.unwrap_or(1)).min(QUIET);
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = Some(now() + wait);
    }
}

fn now() -> Instant {
    Instant::now()
}

pub(super) fn transient(what: String) -> BackendError {
    BackendError { kind: ErrorKind::Transient, what, source: None }
}

/// No answer. What the client says of it names the address, which is no secret, and never a header.
pub(super) fn lost(what: &str, cause: &reqwest::Error) -> BackendError {
    let how = if cause.is_timeout() {
        "the provider did not answer in its time"
    } else if cause.is_connect() {
        "no provider answers there"
    } else {
        "the connection to the provider broke off"
    };
    transient(format!("{what}: {how}"))
}

/// A body that is no longer than this.
pub(super) async fn bounded(answer: Response, most: usize) -> Result<Bytes, String> {
    let mut body = Vec::new();
    let mut parts = answer.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| "the answer broke off".to_owned())?;
        if body.len() + part.len() > most {
            return Err(format!("the answer is longer than {most} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(Bytes::from(body))
}

fn failure(what: &str, status: StatusCode, body: &[u8], secrets: &[&str]) -> BackendError {
    let said = serde_json::from_slice::<Failure>(body).ok();
    let named = said.as_ref().map_or("", |said| said.kind.as_str());
    let kind = wire::kind_of(named, status.as_u16());
    let says = match (&said, status) {
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "the provider does not accept the token".to_owned()
        }
        (Some(said), _) => blotted(&said.error, secrets),
        (None, _) if status.is_redirection() => {
            format!("the provider redirects ({status}), which is not followed")
        }
        (None, _) => format!("the provider answers {status}"),
    };
    BackendError { kind, what: format!("{what}: {says}"), source: None }
}

/// As one line, not too long, and without what nobody is to see.
fn blotted(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    // The longest first: one may be a part of another.
    let mut secrets: Vec<&&str> = secrets.iter().filter(|it| it.len() >= SECRET).collect();
    secrets.sort_by_key(|it| std::cmp::Reverse(it.len()));
    for secret in secrets {
        text = text.replace(*secret, "[hidden]");
    }
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(SAID).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_tls_or_this_machine() {
        for good in
            ["https://a.example/x", "http://127.0.0.1:1", "http://localhost", "http://[::1]:8"]
        {
            assert!(Address::new(good, "t").is_ok(), "{good}");
        }
        for bad in [
            "http://a.example",
            "http://10.0.0.1",
            "ftp://a",
            "a",
            "https://u:p@a.example",
            "https://a/?b",
        ] {
            let why = Address::new(bad, "hunter2").unwrap_err();
            assert!(why.starts_with("expected an address"), "{why}");
        }
        for bad in ["", " ", "a b", "a\n\u{7f}"] {
            assert!(Address::new("https://a.example", bad).is_err(), "{bad:?}");
        }
        let address = Address::new("https://a.example/base/", "hunter2").unwrap();
        assert_eq!(address.below(&["a", "b/c"]).as_str(), "https://a.example/base/v1/a/b%2Fc");
        assert!(!format!("{address:?}").contains("hunter2"));
    }

    #[test]
    fn a_failure_repeats_no_secret() {
        let body = br#"{"error":"cannot run with hunter2-long and\nhunter2","kind":"broken"}"#;
        let failed =
            failure("start", StatusCode::BAD_REQUEST, body, &["hunter2", "hunter2-long", "a"]);
        assert_eq!(failed.chain(), "start: cannot run with [hidden] and [hidden]");
        assert_eq!(failed.kind, ErrorKind::Broken);
        let denied = failure("start", StatusCode::UNAUTHORIZED, b"{}", &[]);
        assert_eq!(denied.what, "start: the provider does not accept the token");
        let moved = failure("start", StatusCode::FOUND, b"", &[]);
        assert!(moved.what.ends_with("which is not followed"), "{}", moved.what);
    }
}
