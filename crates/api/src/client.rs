//! The typed client: what the command line speaks.

mod files;
mod messages;
mod migrations;
mod terminal;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::messages::{Prefer, Sought, Streamed};
pub use self::migrations::Order;
use crate::error::ErrorBody;
use crate::journal::{Event, Why};
use crate::operator::{Health, Liveness};
use crate::secret::{Reencrypt, Reencrypted, Secret, SecretChanged, SetSecret};
use crate::workspace::{
    Create, Created, Deleted, Hibernated, Paused, Recovered, Restarted, Resumed, Woken, Workspace,
};

pub use self::terminal::Terminal;

/// Longest wait for an answer that is not a turn.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A line of an event stream longer than this is not ours.
const MAX_EVENT: usize = 4 << 20;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("no server answers at {server}")]
    Unreachable {
        /// Where.
        server: String,
        /// What the network says.
        #[source]
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{}", said(.status, .body))]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        body: Box<ErrorBody>,
    },
    /// The answer is not what this version understands.
    #[error("the answer of {server} could not be read: {cause}")]
    Unreadable {
        /// Where.
        server: String,
        /// What was wrong with it.
        cause: String,
    },
}

fn said(status: &StatusCode, body: &ErrorBody) -> String {
    match &body.detail {
        Some(detail) => format!("{} ({detail}) [{}]", body.error, status.as_u16()),
        None => format!("{} [{}]", body.error, status.as_u16()),
    }
}

/// One server, and what we prove ourselves with.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
    organisation: Option<String>,
}

/// What a call gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Client {
    /// A client of `server` (`http://host:port`).
    ///
    /// # Errors
    /// When the TLS set-up of the machine cannot be used.
    pub fn new(server: &str, token: Option<String>) -> Result<Self> {
        let server = server.trim_end_matches('/').to_owned();
        let builder = crate::http::builder().map_err(|cause| unreadable(&server, &cause))?;
        // A proxy of the environment is for the world outside; a server on this machine is not behind it.
        let here =
            ["://localhost", "://127.0.0.1", "://[::1]"].iter().any(|host| server.contains(host));
        let builder = if here { builder.no_proxy() } else { builder };
        let http = builder
            .connect_timeout(CONNECT)
            .build()
            .map_err(|source| Error::Unreachable { server: server.clone(), source })?;
        Ok(Self { http, server, token, organisation: None })
    }

    /// The same, for the server of this organisation: it goes with every call.
    #[must_use]
    pub fn of(self, organisation: Option<String>) -> Self {
        Self { organisation, ..self }
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// `GET /health`; says so even when the server is not well.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn health(&self) -> Result<Health> {
        let response = self.answer(self.request(Method::GET, "/health").timeout(CONNECT)).await?;
        self.read(response).await
    }

    /// `GET /admin/liveness`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn liveness(&self) -> Result<Liveness> {
        self.get("/admin/liveness").await
    }

    /// `GET /openapi.json`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn openapi(&self) -> Result<Value> {
        self.get("/openapi.json").await
    }

    /// `GET /workspaces`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self) -> Result<Vec<Workspace>> {
        self.get("/workspaces").await
    }

    /// `GET /workspaces/{id}`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn workspace(&self, id: &str) -> Result<Workspace> {
        self.get(&format!("/workspaces/{id}")).await
    }

    /// `GET /workspaces/{id}/why`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn why(&self, id: &str) -> Result<Why> {
        self.get(&format!("/workspaces/{id}/why")).await
    }

    /// `POST /workspaces`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, body: &Create) -> Result<Created> {
        self.post("/workspaces", body).await
    }

    /// `POST /workspaces/{id}/restart`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn restart(&self, id: &str) -> Result<Restarted> {
        self.post(&format!("/workspaces/{id}/restart"), &serde_json::json!({})).await
    }

    /// `POST /workspaces/{id}/pause`.
    ///
    /// # Errors
    /// [`Error`]; 409 where descendants would be paused too and `cascade` is not set.
    pub async fn pause(&self, id: &str, cascade: bool) -> Result<Paused> {
        self.post(&format!("/workspaces/{id}/pause?cascade={cascade}"), &serde_json::json!({}))
            .await
    }

    /// `POST /workspaces/{id}/resume`.
    ///
    /// # Errors
    /// [`Error`]; 409 where descendants are paused too and `cascade` is not set.
    pub async fn resume(&self, id: &str, cascade: bool) -> Result<Resumed> {
        self.post(&format!("/workspaces/{id}/resume?cascade={cascade}"), &serde_json::json!({}))
            .await
    }

    /// `POST /workspaces/{id}/hibernate`.
    ///
    /// # Errors
    /// [`Error`]; 409 where turns are in progress and `force` is not set.
    pub async fn hibernate(&self, id: &str, force: bool) -> Result<Hibernated> {
        self.post(&format!("/workspaces/{id}/hibernate?force={force}"), &serde_json::json!({}))
            .await
    }

    /// `POST /workspaces/{id}/wake`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn wake(&self, id: &str) -> Result<Woken> {
        self.post(&format!("/workspaces/{id}/wake"), &serde_json::json!({})).await
    }

    /// `POST /workspaces/{id}/recover`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn recover(&self, id: &str) -> Result<Recovered> {
        self.post(&format!("/workspaces/{id}/recover"), &serde_json::json!({})).await
    }

    /// `DELETE /workspaces/{id}`.
    ///
    /// # Errors
    /// [`Error`]; 409 where children would go too and `confirm` is not set.
    pub async fn delete(&self, id: &str, confirm: bool, purge: bool) -> Result<Deleted> {
        let path = format!("/workspaces/{id}?confirm={confirm}&purge={purge}");
        let request = self.request(Method::DELETE, &path).timeout(PATIENCE);
        let response = self.accept(request).await?;
        self.read(response).await
    }

    /// `GET /workspaces/{id}/logs`: the last `lines` lines.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn logs(&self, id: &str, lines: usize) -> Result<Bytes> {
        let request = self.request(Method::GET, &format!("/workspaces/{id}/logs?lines={lines}"));
        let response = self.accept(request.timeout(PATIENCE)).await?;
        response.bytes().await.map_err(|e| self.unreadable(&e))
    }

    /// The secrets of a workspace, or the global ones; never a value.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn secrets(&self, workspace: Option<&str>) -> Result<Vec<Secret>> {
        self.get(&secrets_of(workspace)).await
    }

    /// Set a secret of a workspace, or a global one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_secret(
        &self,
        workspace: Option<&str>,
        key: &str,
        value: &str,
    ) -> Result<SecretChanged> {
        let body = SetSecret { key: key.to_owned(), value: value.to_owned() };
        self.post(&secrets_of(workspace), &body).await
    }

    /// Delete a secret of a workspace, or a global one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_secret(&self, workspace: Option<&str>, key: &str) -> Result<SecretChanged> {
        let path = format!("{}/{key}", secrets_of(workspace));
        let response = self.accept(self.request(Method::DELETE, &path).timeout(PATIENCE)).await?;
        self.read(response).await
    }

    /// `POST /admin/secrets/reencrypt`: one batch, from where the last one left off.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn reencrypt(&self, after: Option<uuid::Uuid>) -> Result<Reencrypted> {
        self.post("/admin/secrets/reencrypt", &Reencrypt { after }).await
    }

    /// `GET /events/stream`: events as they come, from `after` on. Ends when the server stops.
    ///
    /// # Errors
    /// [`Error`], at once or as an item.
    pub async fn events(
        &self,
        after: Option<i64>,
    ) -> Result<impl Stream<Item = Result<Event>> + use<>> {
        let query = after.map(|seq| format!("?after={seq}")).unwrap_or_default();
        let request = self.request(Method::GET, &format!("/events/stream{query}"));
        let response = self.accept(request.header("accept", "text/event-stream")).await?;
        let server = self.server.clone();
        Ok(Lines::of(response, server).all())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.accept(self.request(Method::GET, path).timeout(PATIENCE)).await?;
        self.read(response).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let request = self.request(Method::POST, path).timeout(PATIENCE).json(body);
        let response = self.accept(request).await?;
        self.read(response).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.server));
        if let Some(organisation) = &self.organisation {
            request = request.header("X-Molecule-Org-Id", organisation);
        }
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let server = self.server.clone();
        request.send().await.map_err(|source| Error::Unreachable { server, source })
    }

    /// The answer, if it is a 2xx.
    async fn accept(&self, request: RequestBuilder) -> Result<Response> {
        let response = self.answer(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// What an answer that is none says.
    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let bytes = match response.bytes().await {
            Ok(bytes) => bytes,
            Err(cause) => return self.unreadable(&cause),
        };
        let body = serde_json::from_slice::<ErrorBody>(&bytes).unwrap_or_else(|_| {
            ErrorBody::new(status.canonical_reason().unwrap_or("refused").to_lowercase())
        });
        Error::Refused { status, body: Box::new(body) }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        let bytes = response.bytes().await.map_err(|e| self.unreadable(&e))?;
        serde_json::from_slice(&bytes).map_err(|e| self.unreadable(&e))
    }

    fn unreadable(&self, cause: &dyn std::fmt::Display) -> Error {
        unreadable(&self.server, cause)
    }
}

fn secrets_of(workspace: Option<&str>) -> String {
    workspace
        .map_or_else(|| "/settings/secrets".to_owned(), |id| format!("/workspaces/{id}/secrets"))
}

fn unreadable(server: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::Unreadable { server: server.to_owned(), cause: cause.to_string() }
}

/// The lines of an event stream.
struct Lines {
    chunks: futures_util::stream::BoxStream<'static, reqwest::Result<Bytes>>,
    rest: Vec<u8>,
    server: String,
}

impl Lines {
    fn of(response: Response, server: String) -> Self {
        Self { chunks: response.bytes_stream().boxed(), rest: Vec::new(), server }
    }

    /// Every event.
    fn all<T: DeserializeOwned>(self) -> impl Stream<Item = Result<T>> + use<T> {
        futures_util::stream::unfold(self, |mut lines| async move {
            let event = lines.event().await?;
            Some((event, lines))
        })
    }

    /// The next event; `None` at the end. Only `data` matters: the cursor is inside it.
    async fn event<T: DeserializeOwned>(&mut self) -> Option<Result<T>> {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if let Some(data) = line.trim_ascii_end().strip_prefix(b"data:") {
                    let event = serde_json::from_slice(data);
                    return Some(event.map_err(|e| self.unreadable(e.to_string())));
                }
            }
            if self.rest.len() > MAX_EVENT {
                return Some(Err(self.unreadable("a line without end".to_owned())));
            }
            match self.chunks.next().await? {
                Ok(chunk) => self.rest.extend_from_slice(&chunk),
                Err(e) => return Some(Err(self.unreadable(e.to_string()))),
            }
        }
    }

    fn unreadable(&self, cause: String) -> Error {
        Error::Unreadable { server: self.server.clone(), cause }
    }
}
