//! What came of an attempt, written down by whoever holds its lease.

use bytes::Bytes;
use ligand_domain::delegation::{self, Status};
use ligand_domain::guards::Guards;
use ligand_domain::message::{self, Evidence, Next, Origin, Outcome, State};
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::row::{Lease, Message};
use super::store::leases::{End, Word, end};
use super::turn::{Answer, Came, Lost, Turn};
use super::{Done, store};
use crate::activity;
use crate::app::App;
use crate::delegations;
use crate::journal::{Kind, Work};

/// How often a decision is made anew because somebody promised something meanwhile.
const TRIES: usize = 4;

/// What was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// This.
    As(Next),
    /// Nothing: the attempt does not count any more.
    Late,
    /// Nothing: the database did not take it, or there is no row.
    Unwritten,
}

/// Write down what came of a turn.
pub(super) async fn settle(turn: &Turn, came: &Came, not_queued: bool) -> Settled {
    let Some(lease) = turn.lease else { return Settled::Unwritten };
    let settled = match came {
        // The fast path: nobody was promised anything, and nobody else has to hear of it.
        Came::Answer(answer) if !turn.queued && answer.outcome() == Outcome::Answered => {
            answered(turn, lease, answer).await
        }
        Came::Answer(_) | Came::Lost(_) => decided(turn, lease, came, not_queued).await,
    };
    let settled = settled.unwrap_or_else(|cause| {
        tracing::warn!(message.id = %lease.id, error = %cause, "what came of a message was not written down; its lease will lapse");
        Settled::Unwritten
    });
    count(&turn.app, settled);
    turn.app.post.waiting.tell(lease.id);
    if let Settled::As(Next::Again { .. }) = settled {
        turn.app.post.busy().insert(turn.target.id);
        turn.app.post.queued().insert(turn.target.id);
    }
    settled
}

fn count(app: &App, settled: Settled) {
    let as_what = match settled {
        Settled::As(Next::Processed) => "processed",
        Settled::As(Next::Again { .. }) => "queued",
        Settled::As(Next::Dead { .. }) => "dead",
        Settled::Late => "late",
        Settled::Unwritten => "unwritten",
    };
    app.metrics.messages.with_label_values(&[as_what]).inc();
}

fn word(lease: Lease, origin: Option<Origin>, guards: Guards) -> Word {
    let any_attempt = message::takes_any_attempt(guards);
    Word { lease, origin, any_attempt, any_holder: false }
}

/// It is done: one statement, which does not wait for the disk.
async fn answered(turn: &Turn, lease: Lease, answer: &Answer) -> Done<Settled> {
    let (text, cut) = answer.kept();
    let now = turn.app.clock.now();
    let done = done(answer, &text, cut);
    let mut single = turn.app.db.renewal().await?;
    let taken = end(&mut single, word(lease, None, turn.app.config.guards), &done, now).await?;
    drop(single);
    Ok(if taken { Settled::As(Next::Processed) } else { late(lease, turn) })
}

fn late(lease: Lease, turn: &Turn) -> Settled {
    tracing::warn!(message.id = %lease.id, attempt = lease.attempt, workspace.id = %turn.target.id,
        "an outcome came after its lease was over; it changes nothing");
    Settled::Late
}

fn done<'a>(answer: &'a Answer, text: &'a str, cut: bool) -> End<'a> {
    let agent = matches!(answer.turn.as_deref(), Some("processed" | "replayed"));
    End {
        to: State::Processed,
        // Wherever it came from, it stays so.
        origin: Origin::Direct,
        maybe_run: false,
        failures: 0,
        due: Timestamp::EPOCH,
        expires: None,
        delivered: Some(answer.delivered),
        started: answer.started,
        status: Some(i64::from(answer.status.as_u16())),
        kind: answer.kind.as_ref().and_then(|kind| kind.to_str().ok()),
        response: Some(text),
        cut,
        evidence: Some(if agent { Evidence::Agent } else { Evidence::Answer }),
        error: None,
    }
}

/// Everything else is decided on what the row says now, and on the disk before anybody hears of it.
async fn decided(turn: &Turn, lease: Lease, came: &Came, not_queued: bool) -> Done<Settled> {
    let app = &turn.app;
    let (outcome, why) = match came {
        Came::Answer(answer) => (answer.outcome(), cause(answer)),
        Came::Lost(lost) => (lost.outcome, lost.why.clone()),
    };
    for _ in 0..TRIES {
        let mut work = Work::begin(app).await?;
        let Some(row) = store::get(&mut work.tx, lease.id).await? else { return Ok(Settled::Late) };
        let next = match came {
            // Whoever gave a task wants to know, rather than have it tried again.
            Came::Answer(answer)
                if row.origin == Origin::Delegation
                    && outcome == Outcome::Failed
                    && !delegation::is_transient(answer.status.as_u16()) =>
            {
                Next::Dead { maybe_run: row.maybe_run }
            }
            Came::Answer(_) | Came::Lost(_) => {
                message::after_attempt(outcome, row.facts(turn.remembers, not_queued))
            }
        };
        let text = match came {
            Came::Answer(answer) => Some(answer.kept()),
            Came::Lost(_) => None,
        };
        let mut new = move_to(app, &row, next, &why, work.now);
        if let (Came::Answer(answer), Some((text, cut))) = (came, &text) {
            new = with_answer(new, answer, text, *cut);
        }
        let counts = word(lease, Some(row.origin), app.config.guards);
        let now = work.now;
        if end(&mut work.tx, counts, &new, now).await? {
            let (to, error) = (new.to, new.error.map(str::to_owned));
            over(&mut work, &row, to, error.as_deref()).await?;
            work.commit().await?;
            return Ok(Settled::As(next));
        }
        let still = row.state == State::Delivering && row.attempt == lease.attempt;
        if !still || row.holder != Some(lease.holder) {
            break;
        }
    }
    Ok(late(lease, turn))
}

fn with_answer<'a>(mut new: End<'a>, answer: &'a Answer, text: &'a str, cut: bool) -> End<'a> {
    let done = done(answer, text, cut);
    if new.to == State::Processed {
        return done;
    }
    (new.delivered, new.started) = (done.delivered, done.started);
    if !new.to.is_open() {
        (new.status, new.kind, new.response, new.cut) =
            (done.status, done.kind, done.response, cut);
    }
    new
}

/// The error that an agent's answer stands for.
pub(super) fn refusal(answer: &Answer) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let said = said.as_ref().and_then(|body| body["error"].as_str());
    said.or_else(|| answer.status.canonical_reason()).unwrap_or("agent error").to_owned()
}

/// The same for the ledger, which also hears what the agent's JSON-RPC error says.
fn cause(answer: &Answer) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let said = said.as_ref().and_then(|body| body["error"]["message"].as_str());
    said.map_or_else(|| refusal(answer), str::to_owned)
}

/// What a message becomes, as it is written down.
fn move_to<'a>(app: &App, row: &Message, next: Next, why: &'a str, now: Timestamp) -> End<'a> {
    let mut new = End {
        to: State::Processed,
        origin: row.origin,
        maybe_run: row.maybe_run,
        failures: row.failures,
        due: now,
        expires: None,
        delivered: None,
        started: None,
        status: None,
        kind: None,
        response: None,
        cut: false,
        evidence: None,
        error: Some(why),
    };
    match next {
        Next::Processed => new.error = None,
        Next::Again { failures, maybe_run } => {
            new.to = State::Accepted;
            (new.failures, new.maybe_run) = (failures, maybe_run);
            new.due = now.after(message::delay(row.attempt, app.ids.jitter()));
            if row.origin == Origin::Direct {
                // From here on its caller is told that it is accepted.
                new.origin = Origin::Queue;
                new.expires = Some(now.after(app.config.messages.expire_after));
            }
        }
        Next::Dead { maybe_run } => (new.to, new.maybe_run) = (State::Dead, maybe_run),
    }
    new
}

/// Whoever delivered a message is gone: what becomes of it.
pub(super) async fn lapsed(
    app: &App,
    work: &mut Work<'_>,
    row: &Message,
    remembers: bool,
) -> Done<bool> {
    let next = message::after_lapse(row.facts(remembers, false));
    let why = "the server that delivered it ended, or lost its lease";
    let mut new = move_to(app, row, next, why, work.now);
    if new.to == State::Accepted {
        new.due = work.now;
    }
    let holder = row.holder.unwrap_or_default();
    let lease = Lease { id: row.id, attempt: row.attempt, generation: row.generation, holder };
    let now = work.now;
    let word = Word { lease, origin: Some(row.origin), any_attempt: false, any_holder: false };
    if !end(&mut work.tx, word, &new, now).await? {
        return Ok(false);
    }
    over(work, row, new.to, Some(why)).await?;
    Ok(true)
}

/// A message may be over: then others hear of it.
pub(super) async fn over(
    work: &mut Work<'_>,
    was: &Message,
    to: State,
    error: Option<&str>,
) -> Done {
    if to.is_open() {
        return delegations::moved(work, was, Status::Queued).await;
    }
    if to != State::Processed && was.origin.is_promised() {
        let summary = format!("a message was given up: {}", error.unwrap_or("it is over"));
        let evidence =
            json!({"message": was.id.to_string(), "state": to.as_str(), "attempt": was.attempt});
        work.note(was.workspace, Some(was.generation), Kind::MessageGivenUp, summary, evidence);
    }
    if was.delegation_id.is_some()
        && let Some(now) = store::get(&mut work.tx, was.id).await?
    {
        super::ended(work, &now).await?;
    }
    Ok(())
}

/// What callers and operators can see of an exchange besides the ledger: activity, usage, events. The one place where
/// that is recorded; taken from the queue, or told by the platform itself, it is not.
pub(super) fn note_outcome(turn: &Turn, came: &Came) {
    if turn.queued || turn.fleeting {
        return;
    }
    let end = match came {
        Came::Answer(answer) => {
            activity::End::Answered(answer.status.as_u16(), answer.body.clone())
        }
        // What it answered is lost; that it did is not.
        Came::Lost(Lost { unread: Some(status), .. })
            if status.is_success() || status.is_redirection() =>
        {
            activity::End::Answered(status.as_u16(), Bytes::new())
        }
        Came::Lost(lost) => activity::End::Failed(lost.why.clone()),
    };
    let noted = activity::Turn {
        target: turn.target.id,
        name: turn.target.name.clone(),
        sender: turn.sender,
        request: turn.body.clone(),
        began: turn.began,
        end,
    };
    activity::turn(&turn.app, noted);
}
