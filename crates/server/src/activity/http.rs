//! The log over HTTP: read, polled by agents that nobody can call, and written by agents.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use ligand_api::activity::{Activity, Inbound, LogActivity};
use ligand_api::error::ErrorBody;
use ligand_api::registry::Done;
use ligand_domain::activity::LOGGED;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::store::{self, Row, Wanted};
use super::{New, RECEIVED, Recorded, key, told, write};
use crate::access::OfWorkspace;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};

const BAD_BODY: &str = "invalid request body";
const LISTED: i64 = 100;
const MOST_LISTED: i64 = 500;
/// What a workspace tells its user.
pub(super) const NOTIFY: &str = "notify";

/// Which part of the log.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// Of this type.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    kind: Option<String>,
    /// `canvas`: from users; `agent`: from workspaces.
    source: Option<String>,
    /// How many; 1 to 500, else 100.
    limit: Option<String>,
    /// What came after the one with this id, oldest first. 410 where it is not known (any more): begin anew, without.
    since_id: Option<String>,
    /// To or from this workspace.
    peer_id: Option<String>,
    /// From before this time (RFC 3339).
    before_ts: Option<String>,
}

/// What is said, and is no empty text: clients send those for nothing.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

impl Part {
    fn wanted(&self) -> Result<Wanted> {
        let source = match given(self.source.as_ref()) {
            None => None,
            Some("canvas") => Some("canvas"),
            Some("agent") => Some("agent"),
            Some(_) => return Err(Error::bad_request("source must be 'canvas' or 'agent'")),
        };
        let peer = given(self.peer_id.as_ref()).map(|text| text.parse::<WorkspaceId>());
        let peer =
            peer.transpose().map_err(|_| Error::bad_request("peer_id must be a valid UUID"))?;
        let untimely = || Error::bad_request("before_ts must be an RFC 3339 time");
        let before = given(self.before_ts.as_ref());
        let before = before.map(|text| Timestamp::parse(text).ok_or_else(untimely)).transpose()?;
        Ok(Wanted {
            kind: given(self.kind.as_ref()).map(str::to_owned),
            source,
            peer: peer.map(WorkspaceId::uuid),
            before,
            after: None,
            limit: limit(self.limit.as_ref(), LISTED, MOST_LISTED),
        })
    }
}

/// How many are asked for: more than the most is the most, and what is no number is not said.
pub(super) fn limit(said: Option<&String>, usual: i64, most: i64) -> i64 {
    let said = given(said).and_then(|text| text.parse::<i64>().ok());
    said.filter(|limit| *limit > 0).map_or(usual, |limit| limit.min(most))
}

/// What went through a workspace, newest first; after a cursor, oldest first.
#[utoipa::path(get, path = "/workspaces/{id}/activity", tag = "activity", params(("id" = String, Path, description = "workspace id"), Part), responses(
    (status = 200, body = Vec<Activity>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 410, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(part): Query<Part>,
) -> Result<Json<Vec<Activity>>> {
    let (id, mut wanted) = (caller.workspace, part.wanted()?);
    let failed = "query failed";
    let mut tx = app.db.read().await.map_err(Error::internal(failed))?;
    if let Some(cursor) = given(part.since_id.as_ref()) {
        let number = match cursor.parse::<Uuid>() {
            Ok(at) => store::number_of(&mut tx, id, at).await.map_err(Error::internal(failed))?,
            Err(_) => None,
        };
        wanted.after = Some(number.ok_or_else(lost)?);
    }
    let rows = store::list(&mut tx, id, &wanted).await.map_err(Error::internal(failed))?;
    drop(tx);
    let platform = app.config.external_platform_url.clone();
    let platform = platform.unwrap_or_else(|| app.config.platform_url());
    Ok(Json(rows.into_iter().map(|row| view(row, &platform)).collect()))
}

/// A cursor that leads nowhere. What came after it is not known: the reader begins anew.
fn lost() -> Error {
    let detail = "since_id: there is no such activity of this workspace, or it is not kept any more; \
        ask again without it";
    let body = ErrorBody::new("cursor not found").detail(detail).code("cursor_lost");
    Error::Refused(StatusCode::GONE, Box::new(body))
}

pub(super) fn json(text: Option<&str>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

fn view(row: Row, platform: &str) -> Activity {
    let request = json(row.request_body.as_deref());
    let data = inbound(&row, request.as_ref(), platform);
    Activity {
        id: row.id,
        workspace_id: row.workspace_id,
        activity_type: row.activity_type,
        source_id: row.source_id,
        target_id: row.target_id,
        method: row.method,
        summary: row.summary,
        duration_ms: row.duration_ms,
        status: row.status,
        error_detail: row.error_detail,
        created_at: Timestamp::from_micros(row.at).to_string(),
        request_body: request,
        response_body: json(row.response_body.as_deref()),
        tool_trace: json(row.tool_trace.as_deref()),
        source: data.as_ref().map(|data| data.source.clone()),
        data,
    }
}

/// What pollers read of a message that came in. What a workspace told its user did not: it would answer itself.
fn inbound(row: &Row, request: Option<&Value>, platform: &str) -> Option<Inbound> {
    if row.activity_type != RECEIVED || row.method.as_deref() == Some(NOTIFY) {
        return None;
    }
    let message = told::message(request?)?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let card = |peer: Uuid| format!("{platform}/registry/discover/{peer}");
    Some(Inbound {
        source: if row.source_id.is_some() { "peer_agent" } else { "canvas_user" }.to_owned(),
        source_id: row.source_id.map(|id| id.to_string()).unwrap_or_default(),
        text: told::text(message),
        message: message.clone(),
        peer_name: text(&row.peer_name),
        peer_role: text(&row.peer_role),
        agent_card_url: row.source_id.map(card).unwrap_or_default(),
    })
}

/// Log what an agent did. With an `Idempotency-Key` it is logged once.
#[utoipa::path(post, path = "/workspaces/{id}/activity", tag = "activity", params(("id" = String, Path, description = "workspace id")), request_body = LogActivity, responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn log(
    caller: OfWorkspace,
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Done>> {
    let said: LogActivity = parse(&body, BAD_BODY)?;
    let new = New { key: key(&headers), ..logged(caller.workspace, said)? };
    match write(&app, new).await? {
        Recorded::New(..) | Recorded::Before => Ok(Json(Done { status: "logged".to_owned() })),
        Recorded::Nowhere => Err(Error::not_found("workspace not found")),
    }
}

fn logged(workspace: WorkspaceId, said: LogActivity) -> Result<New> {
    if !LOGGED.contains(&said.activity_type.as_str()) {
        let text = format!("activity_type must be one of: {}", LOGGED.join(", "));
        return Err(Error::bad_request(text));
    }
    let own = workspace.to_string();
    let spoofed = || {
        let text = "source_id must match authenticated workspace";
        Error::refused(StatusCode::FORBIDDEN, text)
    };
    if let Some(source) = given(said.source_id.as_ref())
        && source.parse::<WorkspaceId>().map_or(true, |source| source.to_string() != own)
    {
        return Err(spoofed());
    }
    let target = given(said.target_id.as_ref()).map(|text| text.parse::<WorkspaceId>());
    let no_target = |_| Error::invalid(BAD_BODY, "target_id: expected a UUID");
    let body =
        |body: Option<Value>| body.filter(|body| !body.is_null()).map(|body| body.to_string());
    let status = given(said.status.as_ref()).unwrap_or("ok").to_owned();
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(New {
        source: Some(workspace),
        target: target.transpose().map_err(no_target)?,
        method: text(said.method),
        summary: text(said.summary),
        request: body(said.request_body).or_else(|| body(said.metadata)),
        response: body(said.response_body),
        duration_ms: said.duration_ms,
        status,
        error_detail: text(said.error_detail),
        ..New::of(workspace, &said.activity_type)
    })
}
