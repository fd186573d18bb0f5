//! One turn: `POST /workspaces/{id}/a2a`, the direct path.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use ligand_api::error::ErrorBody;
use ligand_api::journal::Event;
use ligand_domain::access::may_talk;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;
use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};

use super::payload::normalise;
use crate::access::Sender;
use crate::app::App;
use crate::backend::{Key, Push};
use crate::error::{Error, Result};
use crate::http::body::{self, TooLong};
use crate::http::path::WorkspacePath;
use crate::http::route::{NoRoute, Route};
use crate::workspaces::{self, Roused, Workspace};

/// Longest answer of an agent that is not a stream.
const MAX_ANSWER: usize = 10 << 20;
/// A turn without a deadline of its own, from an agent, ends here.
const AGENT_CEILING: Duration = Duration::from_secs(30 * 60);
/// An agent that says nothing at all for this long has lost the turn.
const IDLE: Duration = Duration::from_secs(300);
/// What a busy agent's caller is asked to wait.
const BUSY_RETRY: u64 = 30;
/// What the caller of a hibernated workspace is asked to wait.
const WAKING_RETRY: u64 = 15;
/// How often a turn that goes on is noted as that.
const GOES_ON: Duration = Duration::from_secs(20);
/// Headers of a caller that reach the agent. Never a credential.
const FORWARDED: [&str; 6] =
    ["a2a-version", "a2a-extensions", "accept", "last-event-id", "traceparent", "tracestate"];

/// Send one message to a workspace's agent, and wait for its answer.
#[utoipa::path(post, path = "/workspaces/{id}/a2a", tag = "messages", params(("id" = String, Path, description = "workspace id")), request_body = Object, responses(
    (status = 200, description = "the agent's answer, as it gave it"), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 402, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 502, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn send(
    WorkspacePath(id): WorkspacePath,
    sender: Sender,
    State(app): State<App>,
    request: Request,
) -> Result<Response> {
    let (head, body) = request.into_parts();
    let body = body::read(body).await.map_err(|cause| match cause {
        TooLong::Yes => Error::invalid(
            "invalid JSON",
            format!("the body is longer than {} bytes", body::MAX_BODY),
        ),
        TooLong::Broken(cause) => Error::invalid("failed to read request body", cause),
    })?;
    let target = may_send(&app, sender, id).await?;
    let route = address_of(&app, &target).await?;
    let fresh = || uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid().to_string();
    let message = normalise(&body, fresh).map_err(|why| Error::invalid("invalid JSON", why))?;
    // Whoever waits for the answer may go away; the turn goes on all the same.
    let began = app.clock.now();
    let headers = head.headers;
    let turn = Turn { app: app.clone(), target, route, message, headers, sender, began };
    let (answer, waiting) = tokio::sync::oneshot::channel();
    app.spawn(async move {
        let _ = answer.send(turn.run().await);
    });
    let gone = || {
        Error::Internal("failed to create proxy request", anyhow::anyhow!("the turn was dropped"))
    };
    waiting.await.map_err(|_| gone())?
}

/// Tell an agent something on the platform's own behalf, by the way that a user's message takes. Its answer is
/// waited for and thrown away.
///
/// # Errors
/// As [`send`].
pub(crate) async fn tell(
    app: &App,
    id: WorkspaceId,
    message: Value,
    within: Duration,
) -> Result<()> {
    ask(app, Sender::User, id, message, within).await.map(drop)
}

/// Send a message on somebody's behalf, by the way that a message of theirs takes, and give the answer as it came.
/// `sender` must have been let in as that; `message` is a whole envelope.
///
/// # Errors
/// As [`send`].
pub(crate) async fn ask(
    app: &App,
    sender: Sender,
    id: WorkspaceId,
    message: Value,
    within: Duration,
) -> Result<Response> {
    let target = may_send(app, sender, id).await?;
    let route = address_of(app, &target).await?;
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("x-timeout"),
        HeaderValue::from(within.as_secs()),
    )]);
    let began = app.clock.now();
    let turn = Turn { app: app.clone(), target, route, message, headers, sender, began };
    turn.run().await
}

/// The checks that need no agent.
async fn may_send(app: &App, sender: Sender, id: WorkspaceId) -> Result<Workspace> {
    let mut tx = app.db.read().await?;
    if let Sender::Workspace(caller) = sender
        && caller != id
    {
        let caller = workspaces::lineage(&mut tx, caller).await?;
        let target = workspaces::lineage(&mut tx, id).await?;
        if !may_talk(caller.as_ref(), target.as_ref()) {
            let text = "access denied: workspaces cannot communicate per hierarchy rules";
            return Err(Error::refused(StatusCode::FORBIDDEN, text));
        }
    }
    let found = workspaces::get(&mut tx, id).await.map_err(Error::internal("lookup failed"))?;
    let target = found
        .filter(|workspace| workspace.status != Status::Removed)
        .ok_or_else(|| Error::not_found("workspace not found"))?;
    if target.budget_limit.is_some_and(|limit| target.monthly_spend >= limit) {
        return Err(Error::refused(
            StatusCode::PAYMENT_REQUIRED,
            "workspace budget limit exceeded",
        ));
    }
    Ok(target)
}

/// Where the agent answers. An address that its backend reported is trusted; any other is judged anew, by
/// every address that its name resolves to.
async fn address_of(app: &App, target: &Workspace) -> Result<Route> {
    if target.agent.url.is_empty() {
        let mut body = ErrorBody::new("workspace has no URL");
        body.status = Some(target.status.as_str().to_owned());
        if matches!(target.status, Status::Hibernated | Status::Hibernating) {
            body = waking(app, target).await?;
        }
        return Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)));
    }
    let of = (target.id, target.current);
    let instance = workspaces::instance_of(&mut app.db.read().await?, of.0, of.1).await?;
    let reported = instance.is_some_and(|instance| instance.url_reported);
    Route::to(app, &target.agent.url, reported).await.map_err(|cause| match cause {
        NoRoute::Unsafe(why) => {
            let body = ErrorBody::new("workspace URL is not publicly routable").detail(why);
            Error::Refused(StatusCode::BAD_GATEWAY, Box::new(body))
        }
        NoRoute::Broken(cause) => Error::Internal("failed to create proxy request", cause),
    })
}

/// What the caller of a hibernated workspace is told: it is being woken, unless something keeps it asleep.
async fn waking(app: &App, target: &Workspace) -> Result<ErrorBody> {
    let mut body = ErrorBody::new("workspace is hibernated");
    body.status = Some(target.status.as_str().to_owned());
    match workspaces::rouse(app, target.id, "a message came").await? {
        Roused::Begun | Roused::Awake => {
            body.detail = Some("it is being woken; send the message again".to_owned());
            Ok(ErrorBody { waking: Some(true), retry_after: Some(WAKING_RETRY), ..body })
        }
        Roused::Gone => Err(Error::not_found("workspace not found")),
        Roused::NoBackend => Ok(body.detail("it cannot be woken: no backend here runs it")),
        Roused::Under(why) => Ok(body.detail(format!("it cannot be woken: {why}"))),
    }
}

/// One message on its way.
struct Turn {
    app: App,
    target: Workspace,
    route: Route,
    message: Value,
    headers: HeaderMap,
    sender: Sender,
    began: Timestamp,
}

/// Why an agent gave no answer.
enum Lost {
    /// It took too long, or hung up: it may have begun.
    Busy(String),
    /// It was never reached.
    Unreached(String),
}

impl Turn {
    async fn run(self) -> Result<Response> {
        let before = self.target.leisure.last_turn_at;
        workspaces::note_turn(&self.app, self.target.id, before).await;
        let outcome = tokio::select! {
            outcome = self.timed() => outcome,
            never = self.goes_on() => match never {},
        };
        self.note_end().await;
        match outcome? {
            Ok(answer) => {
                self.note_outbound().await;
                Ok(answer)
            }
            Err(lost) => Err(self.explain(lost).await),
        }
    }

    async fn timed(&self) -> Result<std::result::Result<Response, Lost>> {
        let Some(limit) = self.deadline() else { return self.exchange().await };
        tokio::time::timeout(limit, self.exchange()).await.unwrap_or_else(|_| {
            Ok(Err(Lost::Busy(format!("no answer within {} s", limit.as_secs()))))
        })
    }

    /// However long it takes: whose turn goes on is not idle.
    async fn goes_on(&self) -> std::convert::Infallible {
        loop {
            self.app.clock.tick(GOES_ON).await;
            self.note_end().await;
        }
    }

    async fn note_end(&self) {
        workspaces::note_turn(&self.app, self.target.id, Some(self.began)).await;
    }

    fn deadline(&self) -> Option<Duration> {
        let asked = self
            .headers
            .get("x-timeout")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match (asked.filter(|seconds| *seconds > 0), self.sender) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, Sender::Workspace(_)) => Some(AGENT_CEILING),
            (None, Sender::User) => None,
        }
    }

    /// Ends when nothing has been heard of the target for too long. Its heartbeats count: an agent that
    /// beats is at it, whichever server it beats at.
    async fn silence(&self, mut heard: broadcast::Receiver<Event>) -> String {
        let own = self.target.agent.idle_timeout_seconds;
        let own = own.and_then(|seconds| u64::try_from(seconds).ok());
        let idle = own.map_or(IDLE, Duration::from_secs);
        let target = Some(self.target.id.uuid());
        let (mut patience, mut beat_at) = (idle, self.target.agent.last_heartbeat_at);
        loop {
            let news = async {
                loop {
                    match heard.recv().await {
                        Ok(event) if event.workspace_id == target => return,
                        // What was missed may have been about it: no reason to give up.
                        Err(RecvError::Lagged(_)) => return,
                        Ok(_) => {}
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            if tokio::time::timeout(patience, news).await.is_ok() {
                patience = idle;
                continue;
            }
            // Another server may have taken its heartbeats: only the row tells.
            let last = self.last_beat().await;
            let quiet = last.map(|at| self.app.clock.now().since(at));
            match quiet.filter(|quiet| last > beat_at && *quiet < idle) {
                Some(quiet) => (patience, beat_at) = (idle.saturating_sub(quiet), last),
                None => return format!("no sign of progress for {} s", idle.as_secs()),
            }
        }
    }

    async fn last_beat(&self) -> Option<Timestamp> {
        let mut tx = self.app.db.read().await.ok()?;
        let found = workspaces::get(&mut tx, self.target.id).await.ok()?;
        found?.agent.last_heartbeat_at
    }

    async fn exchange(&self) -> Result<std::result::Result<Response, Lost>> {
        let mut request = self.route.http.post(self.route.url.clone()).json(&self.message);
        for name in FORWARDED {
            if let Some(value) = self.headers.get(name) {
                request = request.header(name, value);
            }
        }
        let mut silence = pin!(self.silence(self.app.hub.live()));
        let sent = tokio::select! {
            sent = request.send() => match sent {
                Ok(response) => response,
                Err(cause) => return Ok(Err(lost(&cause))),
            },
            why = &mut silence => return Ok(Err(Lost::Busy(why))),
        };
        let status = sent.status();
        let kind = sent.headers().get(header::CONTENT_TYPE).cloned();
        let streams =
            kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if streams && status.is_success() {
            let kind = kind.expect("it was just looked at");
            let body = Body::from_stream(sent.bytes_stream());
            return Ok(Ok((status, [(header::CONTENT_TYPE, kind)], body).into_response()));
        }
        let answer = tokio::select! {
            answer = whole(sent) => answer,
            why = &mut silence => Err(why),
        };
        let answer = answer.map_err(|why| unread(status, why))?;
        if status.is_success() {
            return Ok(Ok(
                (status, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
            ));
        }
        let said = serde_json::from_slice::<Value>(&answer).ok();
        let said = said.as_ref().and_then(|body| body["error"].as_str());
        let text = said.or_else(|| status.canonical_reason()).unwrap_or("agent error").to_owned();
        Err(Error::refused(status, text))
    }

    async fn note_outbound(&self) {
        let Sender::Workspace(caller) = self.sender else { return };
        let noted = async {
            let mut tx = self.app.db.begin().await?;
            workspaces::touch_outbound(&mut tx, caller, self.app.clock.now()).await?;
            tx.commit().await
        };
        if let Err(cause) = noted.await {
            tracing::warn!(workspace.id = %caller, error = %cause, "an outbound call could not be noted");
        }
    }

    /// What to tell the caller. If the instance is dead that is the better answer, and the reconciler hears
    /// of it at once.
    async fn explain(&self, lost: Lost) -> Error {
        let dead = self.dead().await;
        let refused = |status, body: ErrorBody| Error::Refused(status, Box::new(body));
        match lost {
            _ if dead => refused(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorBody {
                    restarting: Some(true),
                    ..ErrorBody::new("workspace agent is being restarted")
                },
            ),
            Lost::Busy(why) => refused(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorBody {
                    busy: Some(true),
                    retry_after: Some(BUSY_RETRY),
                    ..ErrorBody::new("workspace agent is busy").detail(why)
                },
            ),
            Lost::Unreached(why) => {
                self.suspect(&why).await;
                refused(
                    StatusCode::BAD_GATEWAY,
                    ErrorBody::new("failed to reach workspace agent").detail(why),
                )
            }
        }
    }

    /// Not to be reached is no proof of anything, but worth a question.
    async fn suspect(&self, why: &str) {
        let (id, generation) = (self.target.id, self.target.current);
        if let Err(cause) = workspaces::suspect(&self.app, id, generation, why).await {
            tracing::warn!(error = %cause, "a guess could not be counted; the lease will tell");
        }
    }

    async fn dead(&self) -> bool {
        let looked = workspaces::look(&self.app, &self.target).await;
        let dead = matches!(looked, Ok(Seen::Stopped(_) | Seen::Gone));
        if dead {
            let generation = self.target.current;
            let push = Push(Key { workspace: self.target.id, generation });
            if let Err(cause) = workspaces::heed(&self.app, push).await {
                tracing::warn!(error = %cause, "a dead instance could not be reported; its lease will tell");
            }
        }
        dead
    }
}

/// The agent answered, and its answer was lost.
fn unread(status: StatusCode, why: String) -> Error {
    let confirmed = status.is_success() || status.is_redirection();
    let body = ErrorBody {
        delivery_confirmed: Some(confirmed),
        ..ErrorBody::new("failed to read agent response")
    };
    Error::Refused(StatusCode::BAD_GATEWAY, Box::new(body.detail(why)))
}

/// Read an answer, up to [`MAX_ANSWER`].
async fn whole(response: reqwest::Response) -> std::result::Result<Bytes, String> {
    let mut answer = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        answer.extend_from_slice(&chunk.map_err(|cause| cause.to_string())?);
        if answer.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
        }
    }
    Ok(answer.freeze())
}

fn lost(cause: &reqwest::Error) -> Lost {
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    // Refused or unresolved: nothing was delivered. Everything later may have been.
    if cause.is_connect() { Lost::Unreached(text) } else { Lost::Busy(text) }
}
