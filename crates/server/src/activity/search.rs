//! Looking for a text in what went through a workspace.

use axum::Json;
use axum::extract::{Query, State};
use ligand_api::activity::Found;
use ligand_api::error::ErrorBody;
use ligand_domain::time::Timestamp;
use serde::Deserialize;

use super::http::{json, limit};
use super::store;
use crate::access::OfWorkspace;
use crate::app::App;
use crate::error::{Error, Result};

const FOUND: i64 = 50;
const MOST_FOUND: i64 = 200;

/// What to look for.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Part of a text, in letters of any size; without it the newest are found.
    q: Option<String>,
    /// How many; 1 to 200, else 50.
    limit: Option<String>,
}

/// What went through a workspace and has a text in it: in its type, method, status, summary or bodies. Newest first.
#[utoipa::path(get, path = "/workspaces/{id}/session-search", tag = "activity", params(("id" = String, Path, description = "workspace id"), Asked), responses(
    (status = 200, body = Vec<Found>), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn session_search(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(asked): Query<Asked>,
) -> Result<Json<Vec<Found>>> {
    let failed = "session search failed";
    let text = asked.q.as_deref().unwrap_or_default().trim();
    let limit = limit(asked.limit.as_ref(), FOUND, MOST_FOUND);
    let mut tx = app.db.read().await.map_err(Error::internal(failed))?;
    let rows = store::search(&mut tx, caller.workspace, text, limit).await;
    Ok(Json(rows.map_err(Error::internal(failed))?.into_iter().map(found).collect()))
}

fn found(row: store::Row) -> Found {
    Found {
        kind: "activity".to_owned(),
        id: row.id,
        workspace_id: row.workspace_id,
        label: row.activity_type,
        content: row.summary.unwrap_or_default(),
        method: row.method.unwrap_or_default(),
        status: row.status,
        created_at: Timestamp::from_micros(row.at).to_string(),
        request_body: json(row.request_body.as_deref()),
        response_body: json(row.response_body.as_deref()),
    }
}
