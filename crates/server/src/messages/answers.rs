//! What a caller is told: the agent's answer, why there is none, or that the message is accepted.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ligand_api::error::ErrorBody;
use ligand_api::message::Queued;
use ligand_domain::id::MessageId;
use ligand_domain::message::{self, Next, State};
use serde_json::Value;

use super::outcome::{self, Settled, refusal};
use super::row::Message;
use super::turn::{Came, Lost, Reply, Turn};
use super::{payload, store};
use crate::error::{Error, Result};

/// What a busy agent's caller is asked to wait.
pub(super) const BUSY_RETRY: u64 = 30;
/// The contract's text for a turn that cannot be made.
pub(super) const FAILED: &str = "failed to create proxy request";

impl Turn {
    /// Make the exchange, write down what came of it, and answer whoever waits.
    pub(super) async fn serve(self, mut reply: Reply) {
        let came = self.run(&mut reply).await;
        let (mut dead, mut native) = (false, false);
        if let Came::Lost(lost) = &came {
            dead = self.dead().await;
            native = self.native_session();
            if lost.outcome == message::Outcome::Unreached && !dead {
                self.suspect(&lost.why).await;
            }
        }
        let settled = outcome::settle(&self, &came, dead || native || self.fleeting).await;
        outcome::note_outcome(&self, &came);
        if let Some(reply) = reply {
            let _ = reply.send(self.respond(came, settled, (dead, native)).await);
        }
        self.app.post.room(&self.app, self.target.id);
    }

    async fn respond(
        &self,
        came: Came,
        settled: Settled,
        (dead, native): (bool, bool),
    ) -> Result<Response> {
        let lost = match came {
            Came::Answer(answer) if answer.status.is_success() => {
                let kind = HeaderValue::from_static("application/json");
                let kind = answer.kind.clone().filter(|_| answer.streams()).unwrap_or(kind);
                return Ok(
                    (answer.status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
                );
            }
            Came::Answer(answer) => return Err(Error::refused(answer.status, refusal(&answer))),
            Came::Lost(lost) => lost,
        };
        if let Some(status) = lost.unread {
            return Err(unread(status, lost.why));
        }
        if dead {
            let body = ErrorBody::new("workspace agent is being restarted");
            let body = ErrorBody { restarting: Some(true), ..body };
            return Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)));
        }
        match (lost.outcome, settled, self.lease) {
            (message::Outcome::Busy, _, _) if native => {
                let body = ErrorBody {
                    busy: Some(true),
                    retry_after: Some(BUSY_RETRY),
                    native_session: Some(true),
                    ..ErrorBody::new("workspace agent is busy").detail(lost.why)
                };
                Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)))
            }
            (message::Outcome::Busy, Settled::As(Next::Again { .. }), Some(lease)) => {
                let depth = async {
                    store::queue::depth(&mut self.app.db.read().await?, self.target.id).await
                };
                let text = "workspace agent is busy; the message is queued";
                Ok(queued(lease.id, depth.await.unwrap_or(1), text))
            }
            (message::Outcome::Busy, _, _) => Err(busy(&lost.why)),
            (_, _, _) => Err(unreached(&lost)),
        }
    }
}

fn unreached(lost: &Lost) -> Error {
    let body = ErrorBody::new("failed to reach workspace agent").detail(lost.why.as_str());
    Error::Refused(StatusCode::BAD_GATEWAY, Box::new(body))
}

pub(super) fn busy(why: &str) -> Error {
    let body = ErrorBody::new("workspace agent is busy").detail(why);
    let body = ErrorBody { busy: Some(true), retry_after: Some(BUSY_RETRY), ..body };
    Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body))
}

pub(super) fn dropped() -> Error {
    Error::Internal(FAILED, anyhow::anyhow!("the turn was dropped"))
}

pub(super) fn another() -> Error {
    let body = ErrorBody::new("the message id was used for another message");
    let body = body
        .detail("messageId, or Idempotency-Key: expected another one, or the same message again");
    Error::Refused(StatusCode::UNPROCESSABLE_ENTITY, Box::new(body))
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

/// Whether a name is another message's.
pub(super) fn taken(cause: &sqlx::Error) -> bool {
    cause.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

pub(super) fn queued(id: MessageId, depth: i64, text: &str) -> Response {
    let body =
        Queued { queued: true, queue_id: id.uuid(), queue_depth: depth, message: text.to_owned() };
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

pub(super) fn applied(mut response: Response) -> Response {
    let applied = HeaderValue::from_static("respond-async");
    response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    response
}

/// What was recorded, for a call that repeats the message.
pub(super) fn replayed(message: &Message, id: &Value) -> Result<Response> {
    let mut response = recorded(message, id)?;
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(HeaderName::from_static("idempotent-replayed"), replayed);
    Ok(response)
}

/// What became of a message that is over, as an answer.
pub(super) fn recorded(message: &Message, id: &Value) -> Result<Response> {
    if !message.state.is_done() {
        let status = match (message.response_status, message.state) {
            (Some(status), _) if status >= 300 => u16::try_from(status).ok(),
            (_, State::Expired) => Some(504),
            (_, _) => None,
        };
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let why = message.last_error.clone().unwrap_or_else(|| message.state.as_str().to_owned());
        return Err(Error::refused(status.unwrap_or(StatusCode::BAD_GATEWAY), why));
    }
    if message.response_cut {
        let body = ErrorBody::new("the answer was too long to be kept");
        let body = body.detail(format!("its end is at a2a/queue/{}", message.id));
        return Err(Error::Refused(StatusCode::GONE, Box::new(body)));
    }
    let streams =
        message.response_type.as_deref().is_some_and(|kind| kind.starts_with("text/event-stream"));
    let kind = if streams { "text/event-stream" } else { "application/json" };
    let text = message.response.as_deref().unwrap_or_default();
    let text = payload::readdressed(text, streams, id);
    let status = message.response_status.and_then(|status| u16::try_from(status).ok());
    let status =
        status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    Ok((status, [(header::CONTENT_TYPE, kind)], text).into_response())
}
