//! Budgets and used tokens over HTTP.

use axum::Json;
use axum::extract::State;
use ligand_api::error::ErrorBody;
use ligand_api::spend::{Budget, SetBudget, TokenUsage};
use ligand_domain::id::WorkspaceId;
use ligand_domain::spend::day;
use ligand_domain::workspace::Intent;
use serde_json::{Map, Value, json};

use super::store;
use crate::access::{Admin, OfWorkspace};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::http::path::WorkspacePath;
use crate::journal::{Kind, Work};
use crate::workspaces::{self, Workspace};

const NOT_READ: &str = "query failed";
const NO_WORKSPACE: &str = "workspace not found";

/// What a workspace may spend in a month, and what it spent.
#[utoipa::path(get, path = "/workspaces/{id}/budget", tag = "spend", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Budget), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn budget(caller: OfWorkspace, State(app): State<App>) -> Result<Json<Budget>> {
    Ok(Json(view(&read(&app, caller.workspace).await?)))
}

async fn read(app: &App, id: WorkspaceId) -> Result<Workspace> {
    let mut tx = app.db.read().await.map_err(Error::internal(NOT_READ))?;
    let found = workspaces::get(&mut tx, id).await.map_err(Error::internal(NOT_READ))?;
    let there = found.filter(|workspace| workspace.intent != Intent::Removed);
    there.ok_or_else(|| Error::not_found(NO_WORKSPACE))
}

fn view(of: &Workspace) -> Budget {
    Budget {
        budget_limit: of.budget_limit,
        monthly_spend: of.monthly_spend,
        budget_used: of.monthly_spend,
        budget_remaining: of.budget_limit.map(|limit| limit.saturating_sub(of.monthly_spend)),
    }
}

/// Set what a workspace may spend in a month. What it spent counts at once: a message to one that has spent as much is
/// turned away.
#[utoipa::path(patch, path = "/workspaces/{id}/budget", tag = "spend", params(("id" = String, Path, description = "workspace id")), request_body = SetBudget, responses(
    (status = 200, body = Budget), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn set_budget(
    _: Admin,
    WorkspacePath(id): WorkspacePath,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Budget>> {
    let limit = limit(&parse(&body, "invalid request body")?)?;
    let failed = "failed to update budget";
    let mut work = Work::begin(&app).await.map_err(Error::internal(failed))?;
    let set = workspaces::set_budget(&mut work.tx, id, limit, work.now).await;
    if !set.map_err(Error::internal(failed))? {
        return Err(Error::not_found(NO_WORKSPACE));
    }
    let summary = match limit {
        Some(cents) => format!("its budget is {cents} cents a month"),
        None => "its budget has no limit".to_owned(),
    };
    work.note(id, None, Kind::Changed, summary, json!({"budget_limit": limit}));
    work.commit().await.map_err(Error::internal(failed))?;
    Ok(Json(view(&read(&app, id).await?)))
}

fn limit(body: &Map<String, Value>) -> Result<Option<i64>> {
    let said = body.get("budget_limit");
    let said = said.ok_or_else(|| Error::bad_request("budget_limit field is required"))?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what lies behind the point is cut off, and the cast saturates"
    )]
    let cents = match said {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|it| it as i64)),
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let negative = said.as_f64().is_some_and(|number| number < 0.0);
    match cents {
        Some(_) if negative => Err(Error::bad_request("budget_limit must be >= 0 (USD cents)")),
        Some(cents) => Ok(Some(cents)),
        None => Err(Error::bad_request("budget_limit must be an integer (USD cents) or null")),
    }
}

/// The tokens that a workspace's answers used today (UTC), and what that costs at one price for every model.
#[utoipa::path(get, path = "/workspaces/{id}/metrics", tag = "spend", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = TokenUsage), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn usage(caller: OfWorkspace, State(app): State<App>) -> Result<Json<TokenUsage>> {
    let workspace = read(&app, caller.workspace).await?;
    let (start, end) = day(app.clock.now());
    let mut tx = app.db.read().await.map_err(Error::internal(NOT_READ))?;
    let used = store::used(&mut tx, workspace.id, start).await;
    let (used, calls) = used.map_err(Error::internal(NOT_READ))?;
    Ok(Json(TokenUsage {
        input_tokens: used.input,
        output_tokens: used.output,
        total_calls: calls,
        estimated_cost_usd: used.cost(),
        period_start: start.to_string(),
        period_end: end.to_string(),
    }))
}
