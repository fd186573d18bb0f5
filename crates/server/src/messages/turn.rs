//! One exchange with an agent: a message goes there, its answer comes back, however long it takes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use ligand_api::journal::Event;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use ligand_domain::message::{self, Outcome, RENEW};
use ligand_domain::time::Timestamp;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot};

use super::row::Lease;
use super::store;
use crate::app::App;
use crate::backend::{Key, Push};
use crate::error::Result;
use crate::http::route::Route;
use crate::workspaces::{self, Workspace};

/// Longest answer of an agent that is not a stream.
const MAX_ANSWER: usize = 10 << 20;
/// Most of an answer that is kept; of a longer one its end.
pub(super) const KEPT: usize = 1 << 20;
/// Pieces of a stream that its caller may lag behind.
const LAG: usize = 16;
/// Headers of a caller that reach the agent. Never a credential.
const FORWARDED: [&str; 6] =
    ["a2a-version", "a2a-extensions", "accept", "last-event-id", "traceparent", "tracestate"];

/// Where an answer goes, while somebody waits for it.
pub(super) type Reply = Option<oneshot::Sender<Result<Response>>>;

/// Those headers that go with a message.
pub(super) fn forwarded(headers: &HeaderMap) -> BTreeMap<String, String> {
    let value = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    FORWARDED.into_iter().filter_map(value).collect()
}

/// One message on its way.
pub(super) struct Turn {
    pub(super) app: App,
    pub(super) target: Workspace,
    pub(super) route: Route,
    /// The target's agent remembers what it was given.
    pub(super) remembers: bool,
    /// The envelope.
    pub(super) body: String,
    pub(super) headers: BTreeMap<String, String>,
    /// The workspace that sends it.
    pub(super) sender: Option<WorkspaceId>,
    /// Its row, where it has one.
    pub(super) lease: Option<Lease>,
    /// It is to run although it may have run.
    pub(super) again: bool,
    /// It was taken from the queue.
    pub(super) queued: bool,
    /// Told now or never: a busy agent is not told later.
    pub(super) fleeting: bool,
    /// How long the exchange itself may take.
    pub(super) limit: Option<Duration>,
    pub(super) began: Timestamp,
}

/// What came back.
pub(super) enum Came {
    /// An answer.
    Answer(Answer),
    /// None.
    Lost(Lost),
}

/// The answer of an agent.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) kind: Option<HeaderValue>,
    /// All of it; of a long stream the end.
    pub(super) body: Bytes,
    pub(super) cut: bool,
    /// What Ligand's agent says of it: `processed`, `replayed`, `interrupted`.
    pub(super) turn: Option<String>,
    pub(super) started: Option<Timestamp>,
    pub(super) delivered: Timestamp,
}

/// Why there is none.
pub(super) struct Lost {
    pub(super) outcome: Outcome,
    pub(super) why: String,
    /// The status of an answer that broke off.
    pub(super) unread: Option<StatusCode>,
}

impl Lost {
    fn new(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, why: why.into(), unread: None }
    }
}

impl Turn {
    /// Make the exchange. Meanwhile its lease is held, and the workspace is not idle.
    pub(super) async fn run(&self, reply: &mut Reply) -> Came {
        let before = self.target.leisure.last_turn_at;
        workspaces::note_turn(&self.app, self.target.id, before).await;
        let came = tokio::select! {
            came = self.limited(reply) => came,
            never = self.goes_on() => match never {},
        };
        workspaces::note_turn(&self.app, self.target.id, Some(self.began)).await;
        if let (Some(caller), Came::Answer(answer)) = (self.sender, &came)
            && answer.status.as_u16() < 400
        {
            self.note_outbound(caller).await;
        }
        came
    }

    async fn limited(&self, reply: &mut Reply) -> Came {
        let Some(limit) = self.limit else { return self.exchange(reply).await };
        let late = |_| {
            let why = format!("no answer within {} s", limit.as_secs());
            Came::Lost(Lost::new(Outcome::Busy, why))
        };
        tokio::time::timeout(limit, self.exchange(reply)).await.unwrap_or_else(late)
    }

    /// However long it takes: whose turn goes on is not idle, and its lease is held.
    async fn goes_on(&self) -> std::convert::Infallible {
        loop {
            self.app.clock.tick(RENEW).await;
            workspaces::note_turn(&self.app, self.target.id, Some(self.began)).await;
            let Some(lease) = self.lease else { continue };
            let until = self.app.clock.now().after(message::LEASE);
            let renewed = async {
                let mut single = self.app.db.renewal().await?;
                store::leases::renew(&mut single, lease, until).await
            };
            match renewed.await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(message.id = %lease.id, attempt = lease.attempt, "the lease of a turn is lost; its outcome will not count");
                }
                Err(cause) => tracing::warn!(error = %cause, "a lease could not be renewed"),
            }
        }
    }

    async fn note_outbound(&self, caller: WorkspaceId) {
        let noted = async {
            let mut tx = self.app.db.begin().await?;
            workspaces::touch_outbound(&mut tx, caller, self.app.clock.now()).await?;
            tx.commit().await
        };
        if let Err(cause) = noted.await {
            tracing::warn!(workspace.id = %caller, error = %cause, "an outbound call could not be noted");
        }
    }

    /// Ends when nothing has been heard of the target for too long. Its heartbeats count: an agent that
    /// beats is at it, whichever server it beats at.
    async fn silence(&self, mut heard: broadcast::Receiver<Event>) -> String {
        let own = self.target.agent.idle_timeout_seconds;
        let own = own.and_then(|seconds| u64::try_from(seconds).ok());
        let idle = own.map_or(self.app.config.messages.idle, Duration::from_secs);
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

    fn request(&self) -> reqwest::RequestBuilder {
        let request = self.route.http.post(self.route.url.clone());
        let mut request = request.header(header::CONTENT_TYPE, "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(lease) = self.lease {
            request = request.header("ligand-message", lease.id.to_string());
            request = request.header("ligand-attempt", lease.attempt);
        }
        if self.again {
            request = request.header("ligand-again", "true");
        }
        request.body(self.body.clone())
    }

    async fn exchange(&self, reply: &mut Reply) -> Came {
        let mut silence = pin!(self.silence(self.app.hub.live()));
        let request = self.request().send();
        let sent = tokio::select! {
            sent = request => match sent {
                Ok(response) => response,
                Err(cause) => return Came::Lost(lost(&cause)),
            },
            why = &mut silence => return Came::Lost(Lost::new(Outcome::Busy, why)),
        };
        let mut answer = Answer::begun(&sent, self.app.clock.now());
        let read = if answer.status.is_success() && answer.streams() {
            let kind = answer.kind.clone().expect("it was just looked at");
            let (pipe, body) = piped();
            if let Some(reply) = reply.take() {
                let head = (answer.status, [(header::CONTENT_TYPE, kind)], body);
                let _ = reply.send(Ok(head.into_response()));
            }
            pump(sent, pipe).await
        } else {
            tokio::select! {
                read = whole(sent) => read.map(|body| (body, false)),
                why = &mut silence => Err(why),
            }
        };
        match read {
            Ok((body, cut)) => {
                (answer.body, answer.cut) = (body, cut);
                Came::Answer(answer)
            }
            Err(why) => {
                let unread = Some(answer.status);
                Came::Lost(Lost { outcome: Outcome::Broken, why, unread })
            }
        }
    }

    /// Whether the instance is dead. If it is, the reconciler hears of it at once.
    pub(super) async fn dead(&self) -> bool {
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

    /// Not to be reached is no proof of anything, but worth a question.
    pub(super) async fn suspect(&self, why: &str) {
        let (id, generation) = (self.target.id, self.target.current);
        if let Err(cause) = workspaces::suspect(&self.app, id, generation, why).await {
            tracing::warn!(error = %cause, "a guess could not be counted; the lease will tell");
        }
    }

    /// Whether the target's runtime keeps its own sessions, so that nothing is queued for it.
    pub(super) fn native_session(&self) -> bool {
        let capabilities: serde_json::Value =
            serde_json::from_str(&self.target.agent.capabilities).unwrap_or_default();
        capabilities["session"].as_bool().unwrap_or(false)
    }
}

impl Answer {
    fn begun(of: &reqwest::Response, delivered: Timestamp) -> Self {
        let text = |name: &str| of.headers().get(name)?.to_str().ok();
        let millis = text("ligand-started-at").and_then(|text| text.trim().parse::<i64>().ok());
        // By the agent's own clock: it began before it answered, whatever that clock says.
        let started =
            millis.map(|at| Timestamp::from_micros(at.saturating_mul(1000)).min(delivered));
        Self {
            status: of.status(),
            kind: of.headers().get(header::CONTENT_TYPE).cloned(),
            body: Bytes::new(),
            cut: false,
            turn: text("ligand-turn").map(|turn| turn.trim().to_lowercase()),
            started,
            delivered,
        }
    }

    /// It comes as a stream of events.
    pub(super) fn streams(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }

    /// What came of the attempt.
    pub(super) fn outcome(&self) -> Outcome {
        match self.turn.as_deref() {
            Some("interrupted") => Outcome::Interrupted,
            _ if self.status.is_success() => Outcome::Answered,
            _ => Outcome::Failed,
        }
    }

    /// What is kept of it, and whether that is only its end.
    pub(super) fn kept(&self) -> (String, bool) {
        let cut = self.body.len() > KEPT;
        let end = &self.body[self.body.len().saturating_sub(KEPT)..];
        // PostgreSQL has no such character in a text.
        (String::from_utf8_lossy(end).replace('\0', "\u{fffd}"), cut || self.cut)
    }
}

/// A body that is fed piece by piece.
fn piped() -> (mpsc::Sender<Bytes>, Body) {
    let (feed, pieces) = mpsc::channel::<Bytes>(LAG);
    let next = |mut pieces: mpsc::Receiver<Bytes>| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), pieces))
    };
    (feed, Body::from_stream(futures_util::stream::unfold(pieces, next)))
}

/// Read a stream to its end, and let its caller read along for as long as there is one. Gives its last part.
async fn pump(
    response: reqwest::Response,
    pipe: mpsc::Sender<Bytes>,
) -> std::result::Result<(Bytes, bool), String> {
    let (mut kept, mut cut, mut pipe) = (BytesMut::new(), false, Some(pipe));
    let mut pieces = pin!(response.bytes_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|cause| innermost(&cause))?;
        kept.extend_from_slice(&piece);
        if kept.len() > 2 * KEPT {
            cut = true;
            kept = BytesMut::from(&kept[kept.len() - KEPT..]);
        }
        if let Some(open) = &pipe
            && open.send(piece).await.is_err()
        {
            // Nobody reads any more; the turn goes on.
            pipe = None;
        }
    }
    Ok((kept.freeze(), cut))
}

/// Read an answer, up to [`MAX_ANSWER`].
async fn whole(response: reqwest::Response) -> std::result::Result<Bytes, String> {
    let mut answer = BytesMut::new();
    let mut chunks = pin!(response.bytes_stream());
    while let Some(chunk) = chunks.next().await {
        answer.extend_from_slice(&chunk.map_err(|cause| innermost(&cause))?);
        if answer.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
        }
    }
    Ok(answer.freeze())
}

fn innermost(cause: &reqwest::Error) -> String {
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

fn lost(cause: &reqwest::Error) -> Lost {
    let text = innermost(cause);
    // Refused or unresolved: nothing was delivered. Everything later may have been.
    let outcome = match cause.is_connect() {
        true => Outcome::Unreached,
        false if message::is_busy(cause.is_timeout(), &text) => Outcome::Busy,
        false => Outcome::Broken,
    };
    Lost::new(outcome, text)
}
