//! Requests on their way to the program, or to the echo: those that name a message are run once
//! ([`turns`](crate::turns)), and to their end, whoever waits for the answer; all others pass through.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{BoxStream, StreamExt as _};
use ligand_api::error::ErrorBody;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::answer::{refused, replayed, stands_by};
use crate::echo::Echo;
use crate::guards::Guards;
use crate::nudge::Nudges;
use crate::records::{Found, Head, Record, Records};
use crate::relay::Relay;
use crate::run::Run;
use crate::telling::{Ledger, Telling};
use crate::turns::{self, Known, Named, Refusal, Step};
use crate::vitals::{Program, Turn, Vitals};

/// Bytes of a request that are looked at for a message's name. A longer one passes through as it comes.
const LARGEST_MESSAGE: usize = 16 << 20;

/// An answer as it comes: its head, and its parts.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) parts: BoxStream<'static, Result<Bytes, String>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The program does not run at present.
    NotReady(String),
    /// It is not to run at present.
    StandsBy,
    /// It does, and could not be reached: it never had the request.
    NotReached(String),
    /// It had the request.
    Broken(String),
}

/// Who answers.
pub(crate) enum Answerer {
    Program(Relay),
    Echo(Echo),
}

impl Answerer {
    pub(crate) async fn ask(&self, parts: Parts, body: Body) -> Result<Answer, Missed> {
        match self {
            Self::Program(relay) => relay.ask(parts, body).await,
            Self::Echo(echo) => echo.ask(body).await,
        }
    }

    /// Whether a request would reach anybody at all.
    fn ready(&self, program: Program) -> Result<(), Missed> {
        match self {
            _ if program.stands_by() => Err(Missed::StandsBy),
            Self::Program(relay) => relay.port().map(drop),
            Self::Echo(_) => Ok(()),
        }
    }
}

/// Everything that a request meets.
pub(crate) struct Front {
    pub(crate) answerer: Answerer,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) records: Arc<Records>,
    pub(crate) telling: Arc<Telling>,
    pub(crate) guards: Guards,
    pub(crate) tasks: TaskTracker,
    pub(crate) running: Arc<Running>,
    pub(crate) nudges: Arc<Nudges>,
}

/// A request that names a message.
pub(crate) struct Delivery {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) named: Named,
    pub(crate) ledger: Option<Ledger>,
    /// When it was here as a whole, in milliseconds since 1970.
    pub(crate) received_ms: i64,
}

/// The handler of all that is not the agent's own.
pub(crate) async fn take(State(front): State<Arc<Front>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let ledger = Ledger::of(&parts.headers);
    if parts.method != Method::POST || !(ledger.is_some() || json(&parts.headers)) {
        return front.pass(parts, body).await;
    }
    match gather(body).await {
        Gathered::Whole(bytes) => {
            let name = ledger.as_ref().map(|ledger| ledger.message.as_str());
            match turns::named(&bytes, name) {
                None => front.pass(parts, Body::from(bytes)).await,
                Some(named) => {
                    let received_ms = crate::machine::wall_ms();
                    let delivery = Delivery { parts, body: bytes, named, ledger, received_ms };
                    front.once(delivery).await
                }
            }
        }
        Gathered::TooLong(body) if ledger.is_none() => front.pass(parts, body).await,
        Gathered::TooLong(_) => {
            let text = format!("the message is longer than {LARGEST_MESSAGE} bytes");
            (StatusCode::PAYLOAD_TOO_LARGE, Json(ErrorBody::new(text))).into_response()
        }
        Gathered::Broken(why) => {
            let body = ErrorBody::new("the request broke off").detail(why);
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

/// Whether a body may be JSON: one that says nothing of itself may.
fn json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().contains("json"))
}

enum Gathered {
    Whole(Bytes),
    /// What was read of it, and the rest as it comes.
    TooLong(Body),
    Broken(String),
}

async fn gather(body: Body) -> Gathered {
    let (mut parts, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => bytes.extend_from_slice(&part),
            Err(e) => return Gathered::Broken(e.to_string()),
        }
        if bytes.len() > LARGEST_MESSAGE {
            let begun = futures_util::stream::iter([Ok(Bytes::from(bytes))]);
            return Gathered::TooLong(Body::from_stream(begun.chain(parts)));
        }
    }
    Gathered::Whole(Bytes::from(bytes))
}

/// What the disk and the decision say to a message.
pub(crate) enum Opened {
    /// *Begun* is written down.
    Run(Head),
    Replay(Arc<Record>),
    Refuse(Refusal, Option<i64>),
    NotReady(Missed),
    /// Nothing can be said of it, or nothing be written down.
    Unrecorded(io::Error),
}

impl Front {
    /// A request that names no message: passed on, and its answer passed back as it comes.
    async fn pass(&self, parts: Parts, body: Body) -> Response {
        // Begun before it is looked whether it may: who stands by waits for the turns that it sees.
        let turn = (parts.method == Method::POST).then(|| self.vitals.begin_turn());
        if self.vitals.program().stands_by() {
            drop(turn);
            return stands_by(&Value::Null);
        }
        match self.answerer.ask(parts, body).await {
            Ok(answer) => passed(answer, Arc::clone(&self.vitals), turn),
            Err(missed) => {
                finish(turn, true);
                self.unanswered(missed, &Value::Null)
            }
        }
    }

    /// Whether no turn is running.
    pub(crate) fn quiet(&self) -> bool {
        self.running.is_empty() && self.vitals.active_turns() == 0
    }

    /// What the caller is told when there is no answer.
    pub(crate) fn unanswered(&self, missed: Missed, id: &Value) -> Response {
        let (status, detail) = match missed {
            Missed::StandsBy => return stands_by(id),
            Missed::NotReady(detail) => (StatusCode::SERVICE_UNAVAILABLE, detail),
            Missed::NotReached(detail) | Missed::Broken(detail) => {
                self.vitals.note_error(&format!("the agent's program does not answer: {detail}"));
                (StatusCode::BAD_GATEWAY, detail)
            }
        };
        let body = ErrorBody::new("the agent's program does not answer").detail(detail);
        (status, Json(body)).into_response()
    }

    /// A request that names a message: its turn is run once, and by a task of its own.
    async fn once(self: Arc<Self>, delivery: Delivery) -> Response {
        loop {
            match self.running.enter(&delivery.named, self.guards) {
                Entered::First(slot) => {
                    let (reply, answer) = oneshot::channel();
                    let run = Run { front: Arc::clone(&self), delivery, slot };
                    self.tasks.spawn(run.go(reply));
                    return answer.await.unwrap_or_else(|_| {
                        let stopping = Missed::NotReady("the agent is stopping".to_owned());
                        self.unanswered(stopping, &Value::Null)
                    });
                }
                Entered::Joined(end) => {
                    if let Some(record) = end.await {
                        return replayed(&record, &delivery.named.id);
                    }
                    // It came to no answer: what is on disk decides.
                }
                Entered::Refused(why) => return refused(why, &delivery.named.id, None),
            }
        }
    }

    /// Look the message up, decide, and write down that it begins, if it does.
    pub(crate) async fn open(&self, delivery: &Delivery) -> Opened {
        let named = &delivery.named;
        let head = Head {
            version: 1,
            name: named.shown.clone(),
            digest: named.digest.clone(),
            started_ms: crate::machine::wall_ms(),
            ended: None,
        };
        let (ready, guards) = (self.answerer.ready(self.vitals.program()), self.guards);
        let again = delivery.ledger.as_ref().is_some_and(|ledger| ledger.again);
        let (records, file) = (Arc::clone(&self.records), named.file.clone());
        let looked = self.tasks.spawn_blocking(move || {
            let found = match records.read(&file) {
                Ok(found) => found,
                Err(e) => return Opened::Unrecorded(e),
            };
            if ready == Err(Missed::StandsBy) {
                // Not even what is recorded: it may be on its way elsewhere, or not be here yet.
                return Opened::NotReady(Missed::StandsBy);
            }
            let (known, same) = found.known(&head.digest);
            match turns::step(known, same, again, guards) {
                Step::Run => match ready.map(|()| records.begin(&file, &head)) {
                    Err(missed) => Opened::NotReady(missed),
                    Ok(Ok(())) => Opened::Run(head),
                    Ok(Err(e)) => Opened::Unrecorded(e),
                },
                Step::Replay | Step::Join => match found {
                    Found::Record(record) => Opened::Replay(record),
                    Found::Nothing | Found::Damaged => Opened::Refuse(Refusal::Interrupted, None),
                },
                Step::Refuse(why) => Opened::Refuse(why, found.started_ms()),
            }
        });
        looked.await.unwrap_or_else(|e| Opened::Unrecorded(io::Error::other(e)))
    }

    /// The message was not run, because that could not be written down.
    pub(crate) fn unrecorded(&self, cause: &io::Error) -> Response {
        let text = format!("the record of a turn cannot be kept: {cause}");
        tracing::warn!("{text}");
        self.vitals.note_error(&text);
        let hint = "nothing was run; the agent needs to write in its directory of credentials (CONFIGS_DIR)";
        let body = ErrorBody::new("the turn cannot be recorded and was not run");
        let body = body.detail(format!("{cause}; {hint}"));
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }
}

/// The answer, byte by byte as it comes. The turn ends with its last byte.
fn passed(answer: Answer, vitals: Arc<Vitals>, turn: Option<Turn>) -> Response {
    let Answer { status, headers, parts } = answer;
    let body = futures_util::stream::unfold((parts, turn), move |(mut parts, turn)| {
        let vitals = Arc::clone(&vitals);
        async move {
            match parts.next().await {
                Some(Ok(bytes)) => Some((Ok(bytes), (parts, turn))),
                None => {
                    finish(turn, status.is_server_error());
                    None
                }
                Some(Err(e)) => {
                    vitals.note_error(&format!("the program's answer broke off: {e}"));
                    finish(turn, true);
                    Some((Err(e), (parts, None)))
                }
            }
        }
    });
    (status, headers, Body::from_stream(body)).into_response()
}

fn finish(turn: Option<Turn>, failed: bool) {
    if let Some(turn) = turn {
        turn.end(failed);
    }
}

/// The turns that are running, by their messages.
#[derive(Default)]
pub(crate) struct Running(Mutex<HashMap<String, Entry>>);

struct Entry {
    digest: String,
    end: watch::Receiver<Option<Arc<Record>>>,
}

enum Entered<F> {
    First(Slot),
    /// Gives the answer, or nothing when there is none.
    Joined(F),
    Refused(Refusal),
}

impl Running {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn enter(
        self: &Arc<Self>,
        named: &Named,
        guards: Guards,
    ) -> Entered<impl Future<Output = Option<Arc<Record>>> + Send + use<>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.get(&named.file) else {
            let (sender, end) = watch::channel(None);
            let digest = named.digest.clone();
            table.insert(named.file.clone(), Entry { digest, end });
            let running = Arc::clone(self);
            return Entered::First(Slot { running, file: named.file.clone(), end: sender });
        };
        let same = entry.digest == named.digest;
        if let Step::Refuse(why) = turns::step(Known::UnderWay, same, false, guards) {
            return Entered::Refused(why);
        }
        let mut end = entry.end.clone();
        Entered::Joined(async move {
            let ended = end.wait_for(Option::is_some).await;
            ended.ok().and_then(|record| record.clone())
        })
    }
}

/// The right to run a message's turn. Whoever waits for its end is told when the value goes.
pub(crate) struct Slot {
    running: Arc<Running>,
    file: String,
    end: watch::Sender<Option<Arc<Record>>>,
}

impl Slot {
    /// This is the answer.
    pub(crate) fn ended(self, record: Arc<Record>) {
        self.end.send_replace(Some(record));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(&self.file);
    }
}
