//! Delegations over HTTP.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ligand_api::delegation::{
    Delegate, Delegated, Delegation, DelegationChanged, RecordDelegation, UpdateDelegation,
};
use ligand_api::error::ErrorBody;
use ligand_domain::activity::preview;
use ligand_domain::delegation::Status;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;

use super::store::{self, Row};
use super::{Given, Outcome, Task, acknowledge, finish, give};
use crate::access::{By, OfWorkspace};
use crate::activity;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::http::path;
use crate::journal::Work;

const BAD_BODY: &str = "invalid request body";
const BAD_DELEGATION: &str = "invalid delegation request";
const NOT_RECORDED: &str = "failed to record delegation";
/// Lines in a list: the contract's number.
const LISTED: usize = 50;
/// Characters of an answer in a list.
const SHOWN: usize = 300;
/// Longest id or key of a caller's own.
const LONGEST: usize = 255;

fn target(text: &str) -> Result<WorkspaceId> {
    text.trim().parse().map_err(|_| Error::bad_request("target_id must be a valid UUID"))
}

fn no_workspace() -> Error {
    Error::not_found("workspace not found")
}

/// Give a task to another workspace. It is carried as a message; what came of it is in the list, and told to watchers
/// of the workspace that gave it.
#[utoipa::path(post, path = "/workspaces/{id}/delegate", tag = "delegations", params(("id" = String, Path, description = "who gives it")), request_body = Delegate, responses(
    (status = 202, body = Delegated), (status = 200, description = "it was given before, under the same key", body = Delegated),
    (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn delegate(
    caller: OfWorkspace,
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Response> {
    let said: Delegate = parse(&body, BAD_DELEGATION)?;
    for (field, value) in [("target_id", &said.target_id), ("task", &said.task)] {
        if value.trim().is_empty() {
            return Err(Error::invalid(BAD_DELEGATION, format!("{field}: expected a text")));
        }
    }
    let target = target(&said.target_id)?;
    if target == caller.workspace {
        return Err(Error::bad_request("self-delegation not permitted"));
    }
    let key =
        said.idempotency_key.filter(|key| !key.is_empty()).or_else(|| activity::key(&headers));
    if key.as_ref().is_some_and(|key| key.len() > LONGEST || key.contains('\0')) {
        let detail = format!("idempotency_key: expected a text of at most {LONGEST} bytes");
        return Err(Error::invalid(BAD_DELEGATION, detail));
    }
    let task = Task { caller: caller.workspace, target, text: said.task.replace('\0', ""), key };
    let answer = |delegation_id, status: &str, target: WorkspaceId| Delegated {
        delegation_id,
        status: status.to_owned(),
        target_id: target.to_string(),
        ..Delegated::default()
    };
    match give(&app, &task).await? {
        Given::New(id) => {
            Ok((StatusCode::ACCEPTED, Json(answer(id, "delegated", target))).into_response())
        }
        Given::Before(row) => {
            let answer = answer(row.delegation_id.clone(), row.status().as_str(), row.target);
            Ok(Json(Delegated { idempotent_hit: Some(true), ..answer }).into_response())
        }
        Given::Nobody => Err(no_workspace()),
    }
}

/// The newest tasks that a workspace gave, and what came of them. Read by the workspace itself, outcomes are
/// acknowledged.
#[utoipa::path(get, path = "/workspaces/{id}/delegations", tag = "delegations", params(("id" = String, Path, description = "who gave them")), responses(
    (status = 200, body = Vec<Delegation>), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list(
    caller: OfWorkspace,
    State(app): State<App>,
) -> Result<Json<Vec<Delegation>>> {
    let failed = "query failed";
    let mut tx = app.db.read().await.map_err(Error::internal(failed))?;
    let most = i64::try_from(LISTED).unwrap_or(i64::MAX);
    let rows = store::newest(&mut tx, caller.workspace, most).await;
    let mut rows = rows.map_err(Error::internal(failed))?;
    drop(tx);
    if caller.by == By::Itself {
        read(&app, &mut rows).await;
    }
    let mut lines: Vec<Delegation> = rows.iter().flat_map(lines).collect();
    // Times of one length sort as texts.
    lines.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    lines.truncate(LISTED);
    Ok(Json(lines))
}

/// Its caller reads how these ended.
async fn read(app: &App, rows: &mut [Row]) {
    let news = |row: &&mut Row| row.status().is_over() && row.acknowledged_at.is_none();
    let mut news: Vec<&mut Row> = rows.iter_mut().filter(news).collect();
    if news.is_empty() {
        return;
    }
    let known: Vec<Row> = news.iter().map(|row| (**row).clone()).collect();
    match acknowledge(app, &known).await {
        Ok(()) => news.iter_mut().for_each(|row| row.acknowledged_at = Some(app.clock.now())),
        Err(cause) => {
            tracing::warn!(error = %cause, "that outcomes were read was not written down; they are told again");
        }
    }
}

/// A task that was given, and what came of it.
fn lines(row: &Row) -> Vec<Delegation> {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let status = row.status();
    let over = status.is_over();
    let given = Delegation {
        id: row.activity.unwrap_or(row.id),
        kind: activity::DELEGATION.to_owned(),
        method: super::DELEGATE.to_owned(),
        source_id: row.caller.uuid(),
        target_id: row.target.uuid(),
        summary: super::given(&row.task),
        status: status.as_str().to_owned(),
        created_at: row.created_at.to_string(),
        delegation_id: Some(row.delegation_id.clone()),
        error: row.error.clone().filter(|_| over),
        response_preview: row.response.as_deref().filter(|_| over).map(|it| preview(it, SHOWN)),
        queue_id: row.message,
        processed_at: text(row.processed_at.filter(|_| over)),
        acknowledged_at: text(row.acknowledged_at.filter(|_| over)),
    };
    if !over && status != Status::Queued {
        return vec![given];
    }
    let came = Delegation {
        id: row.result.filter(|_| over).unwrap_or(row.id),
        method: super::RESULT.to_owned(),
        summary: super::result(status, row.response.as_deref(), row.error.as_deref()),
        created_at: row.ended_at.filter(|_| over).unwrap_or(row.created_at).to_string(),
        ..given.clone()
    };
    vec![came, given]
}

/// Record a task that a workspace carries to another one itself.
#[utoipa::path(post, path = "/workspaces/{id}/delegations/record", tag = "delegations", params(("id" = String, Path, description = "who gave it")), request_body = RecordDelegation, responses(
    (status = 202, body = DelegationChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn record(
    caller: OfWorkspace,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<(StatusCode, Json<DelegationChanged>)> {
    let said: RecordDelegation = parse(&body, BAD_BODY)?;
    let fields = [
        ("target_id", &said.target_id),
        ("task", &said.task),
        ("delegation_id", &said.delegation_id),
    ];
    for (field, value) in fields {
        if value.trim().is_empty() {
            return Err(Error::invalid(BAD_BODY, format!("{field}: expected a text")));
        }
    }
    let target = target(&said.target_id)?;
    if said.delegation_id.len() > LONGEST || said.delegation_id.contains('\0') {
        let detail = format!("delegation_id: expected a text of at most {LONGEST} bytes");
        return Err(Error::invalid(BAD_BODY, detail));
    }
    let task = said.task.replace('\0', "");
    let new = store::New {
        id: uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid(),
        caller: caller.workspace,
        delegation_id: &said.delegation_id,
        target,
        task: &task,
        key: None,
        status: Status::Dispatched,
    };
    if !super::record(&app, new).await.map_err(Error::internal(NOT_RECORDED))? {
        return Err(no_workspace());
    }
    let status = "recorded".to_owned();
    let changed =
        DelegationChanged { status, delegation_id: said.delegation_id, acknowledged_at: None };
    Ok((StatusCode::ACCEPTED, Json(changed)))
}

/// The `{delegation_id}` of the path.
pub(crate) struct Named(String);

impl FromRequestParts<App> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        Ok(Self(path::named(parts, app, "delegation_id").await))
    }
}

fn unknown() -> Error {
    Error::not_found("delegation not found")
}

/// Say how a task ended that a workspace carried itself. The first word counts; the same word again changes nothing.
#[utoipa::path(post, path = "/workspaces/{id}/delegations/{delegation_id}/update", tag = "delegations", params(
    ("id" = String, Path, description = "who gave it"), ("delegation_id" = String, Path, description = "which")), request_body = UpdateDelegation, responses(
    (status = 200, body = DelegationChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn update(
    caller: OfWorkspace,
    Named(name): Named,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<DelegationChanged>> {
    let said: UpdateDelegation = parse(&body, BAD_BODY)?;
    let outcome = match said.status.as_str() {
        "completed" => Ok(said.response_preview.unwrap_or_default()),
        "failed" => Err(said.error.unwrap_or_default()),
        _ => return Err(Error::bad_request("status must be 'completed' or 'failed'")),
    };
    let mut work = Work::begin(&app).await?;
    let row = store::get(&mut work.tx, caller.workspace, &name).await?.ok_or_else(unknown)?;
    let processed_at = outcome.is_ok().then_some(work.now);
    let outcome = Outcome { said: outcome, processed_at };
    let conflict = |detail: String| {
        let body = ErrorBody::new("delegation cannot be updated").detail(detail);
        Error::Refused(StatusCode::CONFLICT, Box::new(body))
    };
    match row.written {
        Status::Dispatched => {
            if !finish(&mut work, &row, &outcome, None).await? {
                return Err(conflict("it ended meanwhile".to_owned()));
            }
            work.commit().await?;
        }
        Status::Pending | Status::Queued => {
            return Err(conflict("the platform carries it, and says how it ends".to_owned()));
        }
        Status::Completed | Status::Failed if row.written == outcome.status() => {}
        Status::Completed | Status::Failed => {
            return Err(conflict(format!("it is {} already", row.written.as_str())));
        }
    }
    Ok(Json(DelegationChanged { status: said.status, delegation_id: name, acknowledged_at: None }))
}

/// Say that the outcome of a task is known.
#[utoipa::path(post, path = "/workspaces/{id}/delegations/{delegation_id}/ack", tag = "delegations", params(
    ("id" = String, Path, description = "who gave it"), ("delegation_id" = String, Path, description = "which")), responses(
    (status = 200, body = DelegationChanged), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn ack(
    caller: OfWorkspace,
    Named(name): Named,
    State(app): State<App>,
) -> Result<Json<DelegationChanged>> {
    let found = store::get(&mut app.db.read().await?, caller.workspace, &name).await?;
    let row = found.ok_or_else(unknown)?;
    let status = row.status();
    if !status.is_over() {
        let mut body = ErrorBody::new("delegation is not over");
        body.status = Some(status.as_str().to_owned());
        return Err(Error::Refused(StatusCode::CONFLICT, Box::new(body)));
    }
    let known_at = match row.acknowledged_at {
        Some(at) => at,
        None => {
            acknowledge(&app, std::slice::from_ref(&row)).await?;
            app.clock.now()
        }
    };
    Ok(Json(DelegationChanged {
        status: status.as_str().to_owned(),
        delegation_id: name,
        acknowledged_at: Some(known_at.to_string()),
    }))
}
