//! The calls to the platform, and what their answers mean.

use std::collections::BTreeMap;
use std::time::Duration;

use ligand_api::error::ErrorBody;
use ligand_api::registry::{Beaten, Heartbeat, Register, Registered, Rotate, Rotated};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::identity::Token;
use crate::session::{Action, Refusal};
use crate::vitals::legible;

/// Time for a whole call. An agent whose platform is slower than this asks again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Calls without an answer after which the HTTP client is made anew: a resolver or a connection pool that
/// went wrong with the network must not outlive it.
const REBUILD_AFTER: u32 = 10;
/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 1 << 20;
/// The same of secrets: more than an environment can hold.
const LONGEST_SECRETS: usize = 16 << 20;

type Answer = crate::session::Answer<Token>;

/// The HTTP client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up HTTP: {0}")]
pub(crate) struct NoClient(String);

impl From<reqwest::Error> for NoClient {
    fn from(error: reqwest::Error) -> Self {
        Self(error.to_string())
    }
}

/// One platform, as the agent sees it.
pub(crate) struct Platform {
    http: Client,
    base: Url,
    org: Option<HeaderValue>,
    unanswered: u32,
}

impl Platform {
    /// A platform at `base`; `org` goes with every call.
    pub(crate) fn new(base: Url, org: Option<HeaderValue>) -> Result<Self, NoClient> {
        let http = client(&base)?;
        Ok(Self { http, base, org, unanswered: 0 })
    }

    /// `POST /registry/register`.
    pub(crate) async fn register(
        &mut self,
        body: &Register,
        bearer: Option<&Token>,
        key: &str,
    ) -> Answer {
        let request = self.post("registry/register", bearer).header("Idempotency-Key", key);
        match self.call::<Registered>(request.json(body)).await {
            Ok(registered) => accepted(registered),
            Err(answer) => answer,
        }
    }

    /// `POST /registry/heartbeat`; and what the answer says beside what concerns the credential.
    pub(crate) async fn heartbeat(
        &mut self,
        body: &Heartbeat,
        bearer: Option<&Token>,
    ) -> (Answer, Beaten) {
        let request = self.post("registry/heartbeat", bearer);
        match self.call::<Beaten>(request.json(body)).await {
            Ok(beaten) => {
                let Beaten { next_heartbeat_seconds: pace, rotate, .. } = beaten;
                (Answer::Beaten { pace, rotate }, beaten)
            }
            Err(answer) => (answer, Beaten::default()),
        }
    }

    /// `GET /workspaces/{id}/secrets/values`.
    pub(crate) async fn secrets(
        &mut self,
        workspace: &str,
        bearer: Option<&Token>,
    ) -> Result<BTreeMap<String, String>, Answer> {
        let path = format!("workspaces/{workspace}/secrets/values");
        let request = self.request(Method::GET, &path, bearer);
        self.call_for(request, LONGEST_SECRETS).await
    }

    /// `POST /registry/rotate`.
    pub(crate) async fn rotate(&mut self, body: &Rotate, bearer: Option<&Token>) -> Answer {
        let request = self.post("registry/rotate", bearer);
        match self.call::<Rotated>(request.json(body)).await {
            Ok(rotated) => brought(body.serial, &rotated),
            Err(answer) => answer,
        }
    }

    fn post(&self, path: &str, bearer: Option<&Token>) -> RequestBuilder {
        self.request(Method::POST, path, bearer)
    }

    fn request(&self, method: Method, path: &str, bearer: Option<&Token>) -> RequestBuilder {
        let base = self.base.as_str().trim_end_matches('/');
        let mut request = self.http.request(method, format!("{base}/{path}")).timeout(PATIENCE);
        if let Some(org) = &self.org {
            request = request.header("X-Molecule-Org-Id", org);
        }
        match bearer {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        }
    }

    /// Send, and read a 200; every other end is the `Err`.
    async fn call<T: DeserializeOwned>(&mut self, request: RequestBuilder) -> Result<T, Answer> {
        self.call_for(request, LONGEST_ANSWER).await
    }

    /// The same, for an answer of up to `most` bytes.
    async fn call_for<T: DeserializeOwned>(
        &mut self,
        request: RequestBuilder,
        most: usize,
    ) -> Result<T, Answer> {
        let outcome = async {
            let response = request.send().await?;
            let (status, retry_after) = (response.status(), retry_after(&response));
            Ok::<_, reqwest::Error>((status, retry_after, read(response, most).await?))
        };
        match outcome.await {
            Ok((status, retry_after, body)) => {
                self.unanswered = 0;
                judge(status, retry_after, &body)
            }
            Err(e) => {
                self.without_answer();
                Err(Answer::Failed { why: cause(e), retry_after: None })
            }
        }
    }

    fn without_answer(&mut self) {
        self.unanswered += 1;
        if self.unanswered >= REBUILD_AFTER {
            self.unanswered = 0;
            match client(&self.base) {
                Ok(fresh) => self.http = fresh,
                Err(e) => tracing::warn!("keeping the old HTTP client: {e}"),
            }
        }
    }
}

/// A client without time limits of its own.
pub(crate) fn builder() -> Result<ClientBuilder, NoClient> {
    ligand_api::http::builder().map_err(|e| NoClient(e.to_string()))
}

/// A client for the platform at `base`, without a limit on a whole call.
pub(crate) fn client(base: &Url) -> Result<Client, NoClient> {
    let mut builder = builder()?.connect_timeout(PATIENCE / 2);
    // A proxy of the environment is for the world outside; a platform on this machine is not behind it.
    if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

async fn read(mut response: Response, most: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = most - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == most {
            break;
        }
    }
    Ok(body)
}

/// Only the form in seconds: the other one compares the clocks of two machines.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A credential that cannot go into a header was not received: the register is repeated under its key.
fn accepted(registered: Registered) -> Answer {
    let pace = registered.next_heartbeat_seconds;
    let minted = registered.auth_token.filter(|text| !text.is_empty());
    let token = minted.as_deref().map(Token::parse);
    match token {
        Some(None) => {
            let why = "the credential it gave cannot be used".to_owned();
            Answer::Failed { why, retry_after: None }
        }
        Some(Some(token)) => Answer::Registered { token: Some(token), pace },
        None => Answer::Registered { token: None, pace },
    }
}

/// A credential of an older serial than was asked for leads back; it is not taken.
fn brought(asked: i64, rotated: &Rotated) -> Answer {
    let rejected = |why: &str| Answer::Rejected { why: why.to_owned() };
    match Token::parse(&rotated.auth_token) {
        _ if rotated.serial < asked => rejected("the credential it gave is of an older rotation"),
        Some(token) => Answer::Rotated { token },
        None => rejected("the credential it gave cannot be used"),
    }
}

/// What an answer means. A 200 that cannot be read is none: the credential in it would be lost for good if
/// it were taken for a success.
fn judge<T: DeserializeOwned>(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Result<T, Answer> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|e| {
            // Not the parser's own words: they may quote the body, and a credential may be in it.
            let why = format!("its answer is not understood (column {})", e.column());
            Answer::Failed { why, retry_after: None }
        });
    }
    let told = serde_json::from_slice::<ErrorBody>(body).unwrap_or_default();
    let why = words(status, &told);
    let retry_after = retry_after.or(told.retry_after.map(Duration::from_secs));
    let again = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(if status == StatusCode::UNAUTHORIZED {
        let action = told.action.as_deref().and_then(Action::from_wire);
        Answer::Refused(Refusal { action, retry_after, why })
    } else if again {
        Answer::Failed { why, retry_after }
    } else {
        Answer::Rejected { why }
    })
}

fn words(status: StatusCode, told: &ErrorBody) -> String {
    let mut text = match told.error.as_str() {
        "" => status.canonical_reason().unwrap_or("no reason given").to_lowercase(),
        error => legible(error),
    };
    if let Some(detail) = &told.detail {
        text = format!("{text}: {}", legible(detail));
    }
    match &told.code {
        Some(code) => format!("{text} [{}, {}]", status.as_u16(), legible(code)),
        None => format!("{text} [{}]", status.as_u16()),
    }
}

/// The chain of causes without the URL, which the reader knows.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    legible(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        judge::<Registered>(status, None, body.as_bytes()).expect_err("not a success")
    }

    #[test]
    fn a_client_with_its_own_roots_can_be_made() {
        let base = Url::parse("https://platform.invalid").expect("a URL");
        assert!(Platform::new(base, None).is_ok());
    }

    #[test]
    fn statuses_are_told_apart() {
        for status in [408, 429, 500, 502, 503] {
            assert!(matches!(judged(status, ""), Answer::Failed { .. }), "{status}");
        }
        for status in [301, 400, 403, 404, 409, 413] {
            assert!(matches!(judged(status, ""), Answer::Rejected { .. }), "{status}");
        }
        assert!(matches!(judged(200, "<html>"), Answer::Failed { .. }), "a portal is no platform");
    }

    #[test]
    fn a_credential_that_cannot_be_used_was_not_received() {
        let registered = |token: Option<&str>| {
            accepted(Registered { auth_token: token.map(str::to_owned), ..Registered::default() })
        };
        assert!(matches!(registered(Some("abc")), Answer::Registered { token: Some(_), .. }));
        assert!(matches!(registered(None), Answer::Registered { token: None, .. }));
        assert!(matches!(registered(Some("")), Answer::Registered { token: None, .. }));
        assert!(matches!(registered(Some("a b")), Answer::Failed { .. }));
    }

    #[test]
    fn a_rotation_that_leads_back_is_not_taken() {
        let rotated = |serial, token: &str| {
            let status = "rotated".to_owned();
            brought(3, &Rotated { status, auth_token: token.to_owned(), serial, generation: 1 })
        };
        assert!(matches!(rotated(3, "abc"), Answer::Rotated { .. }));
        assert!(matches!(rotated(4, "abc"), Answer::Rotated { .. }));
        assert!(matches!(rotated(2, "abc"), Answer::Rejected { .. }));
        for bad in ["", " ", "a b"] {
            assert!(matches!(rotated(3, bad), Answer::Rejected { .. }));
        }
    }

    #[test]
    fn a_refusal_carries_its_advice() {
        let body = r#"{"error":"invalid token","detail":"replaced","code":"superseded",
                       "action":"wait","retry_after":7,"new_field":1}"#;
        let expected = Refusal {
            action: Some(Action::Wait),
            retry_after: Some(Duration::from_secs(7)),
            why: "invalid token: replaced [401, superseded]".to_owned(),
        };
        let Answer::Refused(refusal) = judged(401, body) else { panic!("refused") };
        assert_eq!(refusal, expected);
        let Answer::Refused(bare) = judged(401, "nonsense") else { panic!("refused") };
        assert_eq!((bare.action, bare.why.as_str()), (None, "unauthorized [401]"));
    }
}
