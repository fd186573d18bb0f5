//! What goes through workspaces: calls and their answers, what agents say that they did, what users are told.
//!
//! A log and no ledger: what is recorded here changes nothing, and a record that fails is logged and lost. Others
//! record with [`turn`], [`record`], or [`put`] where it belongs to a transaction of theirs. Of one workspace records
//! are numbered in the order of commits, so that whoever polls with a cursor misses none.

pub mod http;
pub mod notify;
pub mod search;
mod store;
mod told;

use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::activity::{MOST_BODY, MOST_TEXT, kept};
use ligand_domain::id::WorkspaceId;
use ligand_domain::spend::Usage;
use ligand_domain::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::db::Tx;
use crate::db::group::{Group, Item};
use crate::journal::Work;
use crate::spend;

/// What a message is recorded as that came to a workspace.
pub const RECEIVED: &str = "a2a_receive";
/// What the workspace is recorded as doing that gives a task to another.
pub const DELEGATION: &str = "delegation";

/// Most lines of one transaction.
const BATCH: usize = 64;
/// What watchers hear of it.
const LOGGED: &str = "ACTIVITY_LOGGED";

/// Something to be recorded.
#[derive(Debug, Clone)]
pub struct New {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What kind: [`RECEIVED`], [`DELEGATION`], or what an agent calls it.
    pub kind: String,
    /// Where it came from; `None`: a user, or the platform.
    pub source: Option<WorkspaceId>,
    /// Where it went.
    pub target: Option<WorkspaceId>,
    /// The method that was called.
    pub method: Option<String>,
    /// In a sentence.
    pub summary: Option<String>,
    /// What was sent, as JSON.
    pub request: Option<String>,
    /// What was answered, as JSON.
    pub response: Option<String>,
    /// The tools that were used, as JSON.
    pub tool_trace: Option<String>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// `ok`, `error`, or what its author says.
    pub status: String,
    /// Why it failed.
    pub error_detail: Option<String>,
    /// What is recorded twice under the same key is recorded once.
    pub key: Option<String>,
}

impl New {
    /// Of this kind, and nothing more to say: `ok`.
    #[must_use]
    pub fn of(workspace: WorkspaceId, kind: &str) -> Self {
        Self {
            workspace,
            kind: kind.to_owned(),
            source: None,
            target: None,
            method: None,
            summary: None,
            request: None,
            response: None,
            tool_trace: None,
            duration_ms: None,
            status: "ok".to_owned(),
            error_detail: None,
            key: None,
        }
    }

    /// Nothing in it is longer than it may be, and what is JSON stays JSON.
    fn bounded(mut self) -> Self {
        let text = |text: &mut Option<String>| {
            *text = text.take().map(|text| kept(&text, MOST_TEXT));
        };
        let json = |body: &mut Option<String>| {
            if let Some(long) = body.as_ref().filter(|body| body.len() > MOST_BODY) {
                *body = Some(json!({"truncated": true, "bytes": long.len()}).to_string());
            }
        };
        [&mut self.method, &mut self.summary, &mut self.error_detail].into_iter().for_each(text);
        [&mut self.request, &mut self.response, &mut self.tool_trace].into_iter().for_each(json);
        self.status = kept(&self.status, MOST_TEXT);
        self
    }
}

/// What came of recording something.
#[derive(Debug, Clone)]
pub enum Recorded {
    /// It was recorded, under this id; [`announce`] it when the transaction is through.
    New(Uuid, Box<New>),
    /// It had been recorded before, under the same key.
    Before,
    /// There is no such workspace.
    Nowhere,
}

/// Record something, in its own transaction, and tell watchers. What fails is logged and lost.
pub async fn record(app: &App, new: New) {
    let workspace = new.workspace;
    if let Err(cause) = write(app, new).await {
        tracing::warn!(workspace.id = %workspace, error = %cause, "an activity could not be recorded");
    }
}

/// The same, for those who want to know what came of it.
///
/// # Errors
/// When the database does not answer.
pub async fn write(app: &App, new: New) -> Result<Recorded, sqlx::Error> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let recorded = put(app, &mut tx, new, now).await?;
    tx.commit().await?;
    if let Recorded::New(_, new) = &recorded {
        announce(app, new, now);
    }
    Ok(recorded)
}

/// Record something in a transaction of somebody else's. At most one workspace's per transaction: whoever takes the
/// numbers of two may wait for somebody who takes them in another order.
///
/// # Errors
/// When the database does not answer.
pub async fn put(
    app: &App,
    tx: &mut Tx,
    new: New,
    now: Timestamp,
) -> Result<Recorded, sqlx::Error> {
    let Some(number) = store::take_number(tx, new.workspace).await? else {
        return Ok(Recorded::Nowhere);
    };
    // Under the lock of the number: nobody records the same at the same time.
    if let Some(key) = &new.key
        && store::by_key(tx, new.workspace, key).await?.is_some()
    {
        return Ok(Recorded::Before);
    }
    let new = new.bounded();
    let id = uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid();
    store::insert(tx, (id, number), &new, now).await?;
    Ok(Recorded::New(id, Box::new(new)))
}

/// What became of something that was recorded.
///
/// # Errors
/// When the database does not answer.
pub async fn restate(
    tx: &mut Tx,
    id: Uuid,
    status: &str,
    error_detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    store::restate(tx, id, status, error_detail).await
}

/// Record something in a transaction of somebody else's, as [`put`] does, and tell watchers after its commit. Gives
/// its id, if it was recorded.
///
/// # Errors
/// When the database does not answer.
pub async fn note_in(work: &mut Work<'_>, new: New) -> Result<Option<Uuid>, sqlx::Error> {
    let (app, now) = (work.app(), work.now);
    match put(app, &mut work.tx, new, now).await? {
        Recorded::New(id, new) => {
            work.tell(LOGGED, new.workspace, payload(&new));
            Ok(Some(id))
        }
        Recorded::Before | Recorded::Nowhere => Ok(None),
    }
}

/// Tell watchers that something was recorded.
pub fn announce(app: &App, new: &New, now: Timestamp) {
    if app.hub.is_watched() {
        app.hub.broadcast(LOGGED, new.workspace, now, payload(new));
    }
}

fn payload(new: &New) -> Value {
    let mut payload = json!({
        "activity_type": new.kind, "method": new.method, "summary": new.summary, "status": new.status,
        "source_id": new.source, "target_id": new.target, "duration_ms": new.duration_ms,
    });
    if let Some(trace) = new.tool_trace.as_deref() {
        payload["tool_trace"] = serde_json::from_str(trace).unwrap_or_default();
    }
    payload
}

/// A turn, as it ended.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Whose agent was called.
    pub target: WorkspaceId,
    /// The name of that workspace.
    pub name: String,
    /// The workspace that called; `None`: a user, or the platform.
    pub sender: Option<WorkspaceId>,
    /// What the agent was sent, as JSON.
    pub request: String,
    /// When.
    pub began: Timestamp,
    /// What came of it.
    pub end: End,
}

/// How a turn ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The agent answered: with this status, and this body.
    Answered(u16, Bytes),
    /// It did not, for this reason.
    Failed(String),
}

/// Record a turn in the background: in the log, and what it used. Whoever watches hears of the answer to a user.
pub fn turn(app: &App, turn: Turn) {
    let of = app.clone();
    app.spawn(async move { note(&of, turn).await });
}

async fn note(app: &App, turn: Turn) {
    let (new, used) = seen(app, turn);
    let workspace = new.workspace;
    let written = app.log.0.ask(app, Line { id: app.ids.bytes(), new, used }).await;
    if written != Some(true) {
        tracing::warn!(workspace.id = %workspace, "a turn could not be recorded");
    }
}

/// What there is to record of a turn. Watchers of a user's turn hear its answer.
fn seen(app: &App, turn: Turn) -> (New, Option<Usage>) {
    let now = app.clock.now();
    let request: Value = serde_json::from_str(&turn.request).unwrap_or_default();
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    let taken = now.since(turn.began).as_millis();
    let duration_ms = i64::try_from(taken).unwrap_or(i64::MAX);
    let name = if turn.name.is_empty() { turn.target.to_string() } else { turn.name.clone() };
    let mut new = New {
        source: turn.sender,
        target: Some(turn.target),
        method: Some(method.clone()),
        summary: Some(format!("{method} → {name}")),
        request: Some(turn.request),
        duration_ms: Some(duration_ms),
        ..New::of(turn.target, RECEIVED)
    };
    let mut used = None;
    match &turn.end {
        End::Failed(why) => {
            "error".clone_into(&mut new.status);
            new.error_detail = Some(why.clone());
        }
        End::Answered(status, body) => {
            let answer = said(body);
            let told = told::last(&answer);
            if *status >= 400 {
                "error".clone_into(&mut new.status);
            } else {
                used = told::usage(&told);
                if turn.sender.is_none() && app.hub.is_watched() {
                    let payload = json!({"response_body": answer, "method": method, "duration_ms": duration_ms});
                    app.hub.broadcast("A2A_RESPONSE", turn.target, now, payload);
                }
            }
            new.tool_trace = told::tool_trace(&told).map(Value::to_string);
            new.response = (!body.is_empty()).then(|| answer.to_string());
        }
    }
    (new, used)
}

/// Turns on their way to the database, many in one transaction: there is one with every message, and nobody waits for
/// it.
pub struct Log(Group<Line>);

impl Default for Log {
    fn default() -> Self {
        Self(Group::new(BATCH))
    }
}

/// A turn, and what it used.
struct Line {
    id: [u8; 16],
    new: New,
    used: Option<Usage>,
}

impl Item for Line {
    /// No two of them exclude each other.
    type Key = [u8; 16];
    type Answer = bool;

    fn key(&self) -> Self::Key {
        self.id
    }

    fn run(app: App, batch: Vec<Self>) -> BoxFuture<'static, Vec<bool>> {
        async move {
            let count = batch.len();
            let written = write_all(&app, batch).await;
            if let Err(cause) = &written {
                tracing::warn!(error = %cause, "activity could not be recorded");
            }
            vec![written.is_ok(); count]
        }
        .boxed()
    }
}

async fn write_all(app: &App, mut batch: Vec<Line>) -> Result<(), sqlx::Error> {
    // In one order everywhere, so that batches do not wait for each other.
    batch.sort_by_key(|line| line.new.workspace);
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let mut recorded = Vec::new();
    for Line { new, used, .. } in batch {
        let workspace = new.workspace;
        if let Recorded::New(_, new) = put(app, &mut tx, new, now).await? {
            recorded.push(new);
        }
        if let Some(used) = used {
            spend::count_in(&mut tx, workspace, used, now).await?;
        }
    }
    tx.commit().await?;
    recorded.iter().for_each(|new| announce(app, new, now));
    Ok(())
}

/// An answer as JSON; what is none is shown as the text that it is.
fn said(body: &[u8]) -> Value {
    let text = || Value::String(kept(&String::from_utf8_lossy(body), MOST_BODY));
    serde_json::from_slice(body).unwrap_or_else(|_| text())
}

/// Take away what is from before `at`, a bounded number at a time. Gives how many.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(tx: &mut Tx, at: Timestamp, limit: i64) -> Result<u64, sqlx::Error> {
    store::forget(tx, at, limit).await
}

/// The key under which a call is made once, if it names one.
pub(crate) fn key(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("idempotency-key")?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| kept(text, 255))
}
