//! One turn, from its record to its end. It belongs to nobody's connection: a caller that goes away, or that does not
//! read, changes nothing for the program, and the end is written down all the same.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::answer::{self, Kept, Word, mark, refused, replayed};
use crate::delivery::{Answer, Delivery, Front, Missed, Opened, Slot};
use crate::machine;
use crate::records::{Head, Record};
use crate::turns::{self, Entry, Outcome};

/// Parts of an answer that wait for its reader.
const AHEAD: usize = 16;
/// A caller that reads nothing for this long is taken to be gone.
const STALLED: Duration = Duration::from_secs(60);

/// A message that has its turn.
pub(crate) struct Run {
    pub(crate) front: Arc<Front>,
    pub(crate) delivery: Delivery,
    pub(crate) slot: Slot,
}

impl Run {
    /// Decide, run, record, answer. `reply` may be dropped at any time.
    pub(crate) async fn go(self, reply: oneshot::Sender<Response>) {
        let id = self.delivery.named.id.clone();
        let response = match self.front.open(&self.delivery).await {
            Opened::Run(head) => return self.turn(head, Caller::Waiting(reply)).await,
            Opened::Replay(record) => replayed(&record, &id),
            Opened::Refuse(why, started_ms) => refused(why, &id, started_ms),
            Opened::NotReady(missed) => self.front.unanswered(missed, &id),
            Opened::Unrecorded(cause) => self.front.unrecorded(&cause),
        };
        drop(self.slot);
        let _ = reply.send(response);
    }

    async fn turn(self, head: Head, mut caller: Caller) {
        let Self { front, delivery, slot } = self;
        let Delivery { parts, body, named, ledger, received_ms } = delivery;
        let turn = front.vitals.begin_turn();
        let slow = ledger
            .as_ref()
            .map(|ledger| front.telling.started(ledger, received_ms, head.started_ms));
        let answer = match front.answerer.ask(parts, Body::from(body)).await {
            Ok(answer) => Ok(read(answer, head.started_ms, &mut caller).await),
            Err(missed) => Err(missed),
        };
        drop(slow);
        let (end, outcome) = match answer {
            Ok(Ok(whole)) => {
                let status = whole.status.as_u16();
                (End::Whole(whole), Outcome::Answered { status })
            }
            Ok(Err(why)) => {
                front.vitals.note_error(&format!("the program's answer broke off: {why}"));
                (End::Missed(Missed::Broken(why)), Outcome::Broken)
            }
            Err(Missed::Broken(why)) => (End::Missed(Missed::Broken(why)), Outcome::Broken),
            Err(missed) => (End::Missed(missed), Outcome::NotReached),
        };
        match end {
            End::Whole(whole) => {
                turn.end(whole.status.is_server_error());
                let entry = turns::entry(outcome);
                let Whole { status, headers, kept } = whole;
                let (ended, body) = kept.ended(machine::wall_ms(), status, &headers, &named.id);
                let record = Arc::new(Record { head: Head { ended: Some(ended), ..head }, body });
                front.note(&named.file, entry, &record).await;
                let given = caller.whole(status, headers, &record, entry == Entry::Ended);
                if let Some(ledger) = ledger.filter(|_| !given && entry == Entry::Ended) {
                    front.telling.ended(&ledger, &record);
                }
                if entry == Entry::Ended {
                    slot.ended(record);
                }
            }
            End::Missed(missed) => {
                turn.end(true);
                let entry = turns::entry(outcome);
                let record = Arc::new(Record { head, body: Bytes::new() });
                front.note(&named.file, entry, &record).await;
                let mut response = front.unanswered(missed.clone(), &named.id);
                if entry == Entry::Begun {
                    mark(response.headers_mut(), Word::Interrupted, record.head.started_ms);
                }
                // Whoever waits with this one looks for himself.
                drop(slot);
                caller.missed(response, missed).await;
            }
        }
    }
}

enum End {
    Whole(Whole),
    Missed(Missed),
}

/// An answer that came to its end.
struct Whole {
    status: StatusCode,
    headers: HeaderMap,
    kept: Kept,
}

/// Read an answer to its end. A stream goes to the caller as it comes; anything else once it is recorded, unless it
/// is too long for that.
async fn read(answer: Answer, started_ms: i64, caller: &mut Caller) -> Result<Whole, String> {
    let Answer { status, mut headers, mut parts } = answer;
    headers.remove(answer::TURN);
    headers.remove(answer::STARTED_AT);
    let stream = status.is_success() && answer::is_stream(&headers);
    let open = |caller: &mut Caller| {
        let mut headers = headers.clone();
        mark(&mut headers, Word::Processed, started_ms);
        caller.open(status, headers);
    };
    let mut kept = Kept::of(stream);
    if stream {
        open(caller);
    }
    while let Some(part) = parts.next().await {
        let part = part?;
        if matches!(caller, Caller::Waiting(_)) && kept.overflows(&part) {
            open(caller);
            caller.give(Bytes::copy_from_slice(kept.so_far())).await;
        }
        kept.push(&part);
        caller.give(part).await;
    }
    Ok(Whole { status, headers, kept })
}

/// Who asked, and may be gone.
enum Caller {
    /// For the head of an answer.
    Waiting(oneshot::Sender<Response>),
    /// For its parts.
    Reading(mpsc::Sender<Result<Bytes, String>>),
    Gone,
}

impl Caller {
    /// The answer begins.
    fn open(&mut self, status: StatusCode, headers: HeaderMap) {
        if let Self::Waiting(reply) = std::mem::replace(self, Self::Gone) {
            let (parts, reads) = mpsc::channel(AHEAD);
            let reads = futures_util::stream::unfold(reads, |mut reads| async move {
                reads.recv().await.map(|part| (part, reads))
            });
            let response = (status, headers, Body::from_stream(reads)).into_response();
            if reply.send(response).is_ok() {
                *self = Self::Reading(parts);
            }
        }
    }

    /// A part of it, if the caller has had the beginning.
    async fn give(&mut self, part: Bytes) {
        if let Self::Reading(parts) = self {
            let sent = tokio::time::timeout(STALLED, parts.send(Ok(part))).await;
            if !matches!(sent, Ok(Ok(()))) {
                *self = Self::Gone;
            }
        }
    }

    /// It is whole, and recorded. Says whether it was given, as far as can be told. `counts`: it is the turn's answer
    /// from now on.
    fn whole(self, status: StatusCode, headers: HeaderMap, record: &Record, counts: bool) -> bool {
        match self {
            Self::Gone => false,
            Self::Reading(parts) => !parts.is_closed(),
            Self::Waiting(reply) => {
                let mut headers = headers;
                if counts {
                    mark(&mut headers, Word::Processed, record.head.started_ms);
                }
                let body = Body::from(record.body.clone());
                reply.send((status, headers, body).into_response()).is_ok()
            }
        }
    }

    /// There is none, or no more of it.
    async fn missed(self, response: Response, missed: Missed) {
        match self {
            Self::Gone => {}
            Self::Waiting(reply) => drop(reply.send(response)),
            Self::Reading(parts) => {
                let why = match missed {
                    Missed::StandsBy => "the agent stands by".to_owned(),
                    Missed::NotReady(why) | Missed::NotReached(why) | Missed::Broken(why) => why,
                };
                let _ = tokio::time::timeout(STALLED, parts.send(Err(why))).await;
            }
        }
    }
}

impl Front {
    /// Write down what came of a turn. What cannot be written is said; the record says *begun* then.
    async fn note(&self, file: &str, entry: Entry, record: &Arc<Record>) {
        let (records, file, record) =
            (Arc::clone(&self.records), file.to_owned(), Arc::clone(record));
        let written = self.tasks.spawn_blocking(move || {
            let written = match entry {
                Entry::Ended => records.end(&file, &record),
                Entry::Nothing => records.forget(&file),
                Entry::Begun => Ok(()),
            };
            if records.crowded() {
                records.tidy(machine::wall())?;
            }
            written
        });
        if let Err(e) = written.await.map_err(std::io::Error::other).flatten() {
            let text = format!("the end of a turn cannot be written down yet: {e}");
            tracing::warn!("{text}");
            self.vitals.note_error(&text);
        }
    }

    /// Write what could not be written, and see anew what there is: somebody else may put records there.
    pub(crate) async fn look_through_records(&self) {
        let records = Arc::clone(&self.records);
        let work = self.tasks.spawn_blocking(move || {
            records.catch_up();
            records.tidy(machine::wall())
        });
        if let Err(e) = work.await.map_err(std::io::Error::other).flatten() {
            tracing::warn!("the records of turns cannot be looked through: {e}");
        }
    }

    /// Keep the records small, and write what could not be written, for ever.
    pub(crate) async fn keep_records(self: Arc<Self>) {
        const LOOK: Duration = Duration::from_secs(60);
        const LOOKS_PER_TIDY: u32 = 60;
        for nth in 0_u32.. {
            let records = Arc::clone(&self.records);
            let work = self.tasks.spawn_blocking(move || {
                records.catch_up();
                if nth % LOOKS_PER_TIDY == 0 { records.tidy(machine::wall()) } else { Ok(()) }
            });
            if let Err(e) = work.await.map_err(std::io::Error::other).flatten() {
                tracing::warn!("the records of turns cannot be looked through: {e}");
            }
            machine::sleep(LOOK).await;
        }
    }
}
