//! Calls of a control plane: who asks, how much of an answer is read, and what a failure is.

use futures_util::StreamExt as _;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Fleet;
use crate::backend::{BackendError, ErrorKind};
use crate::config::Secret;

/// What says whose platform asks.
const IDENTITY: &str = "X-Molecule-Admin-Token";
/// Longest error of a control plane that is repeated.
const MOST_SAID: usize = 512;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Provision,
    Find,
    Status,
    Stop,
    Halt,
    List,
    Data,
    Logs,
    Console,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Find => "find",
            Self::Status => "status",
            Self::Stop => "terminate",
            Self::Halt => "stop",
            Self::List => "list",
            Self::Data => "data",
            Self::Logs => "logs",
            Self::Console => "console",
        }
    }

    /// How much of an answer is read.
    fn most(self) -> usize {
        match self {
            Self::Provision | Self::Find | Self::Status | Self::Stop | Self::Halt | Self::Data => {
                64 << 10
            }
            Self::Console => 256 << 10,
            Self::Logs => 4 << 20,
            Self::List => 64 << 20,
        }
    }

    /// Whether only fleets of ours have it.
    fn is_additional(self) -> bool {
        match self {
            Self::Provision | Self::Status | Self::Stop | Self::Console => false,
            Self::Find | Self::Halt | Self::List | Self::Data | Self::Logs => true,
        }
    }
}

/// Whether this is how somebody answers who has no such route.
pub(super) fn is_foreign(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

impl Fleet {
    /// Who asks about workspaces. A secret that is empty is not sent at all.
    pub(super) fn as_platform(&self, request: RequestBuilder) -> RequestBuilder {
        self.identified(bearing(request, self.settings.shared_secret.as_ref()))
    }

    /// Who asks as an administrator.
    pub(super) fn as_administrator(&self, request: RequestBuilder) -> RequestBuilder {
        let own = self.settings.admin.as_ref().filter(|secret| !secret.reveal().is_empty());
        self.identified(bearing(request, own.or(self.settings.shared_secret.as_ref())))
    }

    fn identified(&self, request: RequestBuilder) -> RequestBuilder {
        match self.settings.identity.as_ref().filter(|secret| !secret.reveal().is_empty()) {
            Some(secret) => request.header(IDENTITY, secret.reveal()),
            None => request,
        }
    }
}

fn bearing(request: RequestBuilder, secret: Option<&Secret>) -> RequestBuilder {
    match secret.filter(|secret| !secret.reveal().is_empty()) {
        Some(secret) => request.bearer_auth(secret.reveal()),
        None => request,
    }
}

/// Send, and give the head of the answer.
pub(super) async fn send(call: Call, request: RequestBuilder) -> Result<Response, BackendError> {
    request.send().await.map_err(|cause| lost(call, &cause))
}

/// Send, and read as much of the answer as is allowed for.
pub(super) async fn read(
    call: Call,
    request: RequestBuilder,
) -> Result<(StatusCode, Vec<u8>), BackendError> {
    let response = send(call, request).await?;
    let status = response.status();
    Ok((status, text(call, response).await?))
}

/// The body, as far as it is read.
pub(super) async fn text(call: Call, response: Response) -> Result<Vec<u8>, BackendError> {
    let (mut body, mut parts) = (Vec::new(), response.bytes_stream());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|cause| lost(call, &cause))?;
        let room = call.most().saturating_sub(body.len());
        body.extend_from_slice(&part[..part.len().min(room)]);
        if body.len() >= call.most() {
            break;
        }
    }
    Ok(body)
}

/// There was no answer, or not all of it. What was asked for may have been done.
fn lost(call: Call, cause: &reqwest::Error) -> BackendError {
    let mut why = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(cause);
    // An address may hold what is nobody's business, so only what lies below is told.
    while let Some(cause) = next.and_then(std::error::Error::source) {
        why = format!("{why}: {cause}");
        next = Some(cause);
    }
    let when = match (cause.is_timeout(), cause.is_connect()) {
        (true, _) => "no answer in time",
        (_, true) => "no connection",
        _ => "the answer was lost",
    };
    transient(format!("control plane: send {}: {when}{why}", call.name()))
}

fn transient(what: String) -> BackendError {
    BackendError { kind: ErrorKind::Transient, what, source: None }
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

/// It said no. Its own word for why is repeated, the rest of what it sent never.
pub(super) fn refused(call: Call, status: StatusCode, body: &[u8]) -> BackendError {
    let body = match call {
        Call::Stop | Call::Halt => &body[..body.len().min(MOST_SAID)],
        _ => body,
    };
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let code = refusal.as_ref().and_then(|refusal| refusal.code.clone());
    let error = refusal.and_then(|refusal| refusal.error).filter(|error| !error.is_empty());
    let why = match error {
        Some(error) => error.chars().take(MOST_SAID).collect(),
        None => format!("<unstructured body, {} bytes>", body.len()),
    };
    // What a console printed may stand in the answer to a failure.
    let why = if call == Call::Console { String::new() } else { format!(": {why}") };
    let what = format!("control plane: {} failed ({}){why}", call.name(), status.as_u16());
    let kind = match (status.as_u16(), code.as_deref()) {
        (404, Some("missing")) => ErrorKind::Missing,
        _ if is_foreign(status) && call.is_additional() => ErrorKind::Unsupported,
        (408 | 425 | 429, _) => ErrorKind::Transient,
        (400..500, _) if call == Call::Provision || call.is_additional() => ErrorKind::Broken,
        _ => ErrorKind::Transient,
    };
    BackendError { kind, what, source: None }
}

/// An answer that is to be understood.
pub(super) fn parse<T: DeserializeOwned>(call: Call, body: &[u8]) -> Result<T, BackendError> {
    serde_json::from_slice(body).map_err(|cause| {
        // Where, and not what: the answer may hold anything.
        let at = format!("line {}, column {}", cause.line(), cause.column());
        transient(format!(
            "control plane: decode {} response: not what was expected at {at}",
            call.name()
        ))
    })
}
