//! What an agent tells of its turns while it has not answered them yet, or could not.

use ligand_api::message as api;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::message::{self, Evidence, State};
use ligand_domain::time::Timestamp;

use super::row::Lease;
use super::store::leases::{self, End, Word};
use super::turn::KEPT;
use super::{Done, outcome, store};
use crate::app::App;
use crate::journal::Work;

/// One report about a turn.
pub(crate) struct Told {
    lease: Lease,
    at: Timestamp,
    what: What,
}

enum What {
    Received,
    Started,
    Ended { status: u16, kind: String, response: String, cut: bool },
}

impl Told {
    /// Read one.
    ///
    /// # Errors
    /// Which field is wrong, and what was expected.
    pub(crate) fn read(turn: api::Turn, generation: Generation) -> Result<Self, String> {
        let id =
            turn.message.parse().map_err(|_| "message: expected the id of a message".to_owned())?;
        let what = match turn.state.as_str() {
            "received" => What::Received,
            "started" => What::Started,
            "ended" => {
                let status = turn.status.filter(|status| (100..600).contains(status));
                let status = status.ok_or("status: expected the HTTP status of the answer")?;
                let kind = turn.content_type.unwrap_or_else(|| "application/json".to_owned());
                let (response, cut) = end_of(turn.response.unwrap_or_default());
                What::Ended { status, kind, response, cut }
            }
            _ => return Err("state: expected received, started or ended".to_owned()),
        };
        let at = Timestamp::from_micros(turn.at_ms.max(0).saturating_mul(1000));
        let lease = Lease { id, attempt: turn.attempt, generation, holder: uuid::Uuid::nil() };
        Ok(Self { lease, at, what })
    }
}

/// As much of an answer as is kept.
fn end_of(mut text: String) -> (String, bool) {
    if text.len() <= KEPT {
        return (text.replace('\0', "\u{fffd}"), false);
    }
    let from = text.ceil_char_boundary(text.len() - KEPT);
    text.drain(..from);
    (text.replace('\0', "\u{fffd}"), true)
}

/// Take down what the agent of a workspace tells, where it is about the attempt that counts. Gives how many were.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn told(
    app: &App,
    work: &mut Work<'_>,
    of: WorkspaceId,
    all: &[Told],
) -> Done<u64> {
    let mut taken = 0;
    for told in all {
        let Some(row) = store::get(&mut work.tx, told.lease.id).await? else { continue };
        if row.workspace != of {
            continue;
        }
        let any_attempt = message::takes_any_attempt(app.config.guards);
        // By the agent's own clock; it cannot have been later than now.
        let at = told.at.min(work.now);
        let counts = match &told.what {
            What::Received => {
                leases::reached(&mut work.tx, told.lease, any_attempt, (at, None)).await?
            }
            What::Started => {
                leases::reached(&mut work.tx, told.lease, any_attempt, (at, Some(at))).await?
            }
            What::Ended { status, kind, response, cut } => {
                let good = (200..300).contains(status);
                let error = (!good).then(|| format!("its agent answered {status}"));
                let end = End {
                    to: if good { State::Processed } else { State::Dead },
                    origin: row.origin,
                    maybe_run: row.maybe_run && !good,
                    failures: row.failures,
                    due: row.times.due,
                    expires: None,
                    delivered: Some(at),
                    started: None,
                    status: Some(i64::from(*status)),
                    kind: Some(kind),
                    response: Some(response),
                    cut: *cut,
                    evidence: Some(Evidence::Agent),
                    error: error.as_deref(),
                };
                let word = Word { lease: told.lease, origin: None, any_attempt, any_holder: true };
                let now = work.now;
                let ended = leases::end(&mut work.tx, word, &end, now).await?;
                if ended {
                    outcome::over(work, &row, end.to, end.error).await?;
                }
                ended
            }
        };
        if counts {
            taken += 1;
        } else {
            app.metrics.messages.with_label_values(&["late"]).inc();
        }
    }
    Ok(taken)
}

/// Those who wait for these hear of it.
pub(crate) fn tell(app: &App, of: WorkspaceId, all: &[Told]) {
    for told in all {
        app.post.waiting.tell(told.lease.id);
    }
    app.post.room(app, of);
}
