//! What a workspace tells its user.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use ligand_api::activity::{Attachment, Notify};
use ligand_api::error::ErrorBody;
use ligand_api::registry::Done;
use ligand_domain::activity::preview;
use ligand_domain::id::WorkspaceId;
use serde_json::{Value, json};

use super::http::NOTIFY;
use super::{New, RECEIVED, Recorded, key, write};
use crate::access::OfWorkspace;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::workspaces;

const NO_MESSAGE: &str = "message is required";
/// Characters of the message that stand for it.
const PREVIEW: usize = 200;

/// Tell a workspace's user something: whoever watches hears it now, whoever comes later reads it in the log. With an
/// `Idempotency-Key` it is told once.
#[utoipa::path(post, path = "/workspaces/{id}/notify", tag = "activity", params(("id" = String, Path, description = "workspace id")), request_body = Notify, responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn notify(
    caller: OfWorkspace,
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Done>> {
    let said: Notify = parse(&body, NO_MESSAGE)?;
    if said.message.is_empty() {
        return Err(Error::invalid(NO_MESSAGE, "message: expected a text"));
    }
    let attachments = said.attachments.unwrap_or_default();
    for (at, file) in attachments.iter().enumerate() {
        if file.uri.is_empty() || file.name.is_empty() {
            return Err(Error::bad_request(format!("attachment[{at}]: uri and name are required")));
        }
    }
    show(&app, caller.workspace, &said.message, &attachments, key(&headers)).await?;
    Ok(Json(Done { status: "sent".to_owned() }))
}

/// Tell a workspace's user something, once for each `key`.
///
/// # Errors
/// 404, 503.
pub(crate) async fn show(
    app: &App,
    of: WorkspaceId,
    message: &str,
    attachments: &[Attachment],
    key: Option<String>,
) -> Result<()> {
    let workspace = workspaces::present(app, of).await?;
    let mut answer = json!({"result": message});
    if !attachments.is_empty() {
        answer["parts"] = attachments.iter().map(part).collect();
    }
    let new = New {
        method: Some(NOTIFY.to_owned()),
        summary: Some(preview(message, PREVIEW)),
        response: Some(answer.to_string()),
        key,
        ..New::of(workspace.id, RECEIVED)
    };
    match write(app, new).await? {
        Recorded::New(..) => {
            let mut payload =
                json!({"message": message, "workspace_id": workspace.id, "name": workspace.name});
            if !attachments.is_empty() {
                payload["attachments"] = json!(attachments);
            }
            app.hub.broadcast("AGENT_MESSAGE", workspace.id, app.clock.now(), payload);
        }
        Recorded::Before => {}
        Recorded::Nowhere => return Err(Error::not_found("workspace not found")),
    }
    Ok(())
}

/// A file, as a part of an answer.
fn part(file: &Attachment) -> Value {
    json!({"kind": "file", "file": file})
}
