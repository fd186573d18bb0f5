//! Messages over HTTP.

pub mod admin;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use ligand_api::error::ErrorBody;
use ligand_api::message::{Message as View, Queued};
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::State as Stands;

use super::row::Look;
use super::{Message, direct, store};
use crate::access::Sender;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{self, TooLong};
use crate::http::path::WorkspacePath;

/// Send one message to a workspace's agent, and wait for its answer, or have it accepted (`Prefer: respond-async`).
#[utoipa::path(post, path = "/workspaces/{id}/a2a", tag = "messages", params(("id" = String, Path, description = "workspace id")), request_body = Object, responses(
    (status = 200, description = "the agent's answer, as it gave it"), (status = 202, body = Queued), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 402, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody), (status = 502, body = ErrorBody), (status = 503, body = ErrorBody)))]
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
    direct::send(&app, id, sender, &head.headers, &body).await
}

/// What became of a message, for its caller and its target. Once its caller has read the answer it is acknowledged.
#[utoipa::path(get, path = "/workspaces/{id}/a2a/queue/{queue_id}", tag = "messages", params(
    ("id" = String, Path, description = "workspace id"), ("queue_id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = View), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn outcome(
    sender: Sender,
    Path((id, queue_id)): Path<(String, String)>,
    State(app): State<App>,
) -> Result<Json<View>> {
    let unknown = || Error::not_found("message not found");
    let id: WorkspaceId = id.parse().map_err(|_| unknown())?;
    let queue_id: MessageId = queue_id.parse().map_err(|_| unknown())?;
    let found = super::get(&mut app.db.read().await?, queue_id).await?;
    let mut message = found.filter(|message| message.workspace == id).ok_or_else(unknown)?;
    if !may_read(sender, &message) {
        return Err(unknown());
    }
    if message.state == Stands::Processed && is_callers(sender, &message) {
        let now = app.clock.now();
        let mut tx = app.db.begin().await?;
        if store::queue::acknowledge(&mut tx, message.id, now).await? {
            message.state = Stands::Acknowledged;
            message.times.acknowledged = Some(now);
        }
        tx.commit().await?;
    }
    Ok(Json(message.view(Look::Outcome)))
}

fn may_read(sender: Sender, message: &Message) -> bool {
    match sender {
        Sender::User => true,
        Sender::Workspace(id) => id == message.workspace || message.caller == Some(id),
    }
}

fn is_callers(sender: Sender, message: &Message) -> bool {
    match sender {
        Sender::User => message.caller.is_none(),
        Sender::Workspace(id) => message.caller == Some(id),
    }
}
