//! What the fleet decided.

use axum::Json;
use axum::extract::{Query, State};
use ligand_api::error::ErrorBody;
use ligand_api::fleet::Journal;
use ligand_domain::id::WorkspaceId;
use ligand_server::error::{Error, Result};
use serde::Deserialize;

use super::store;
use crate::access::Operator;
use crate::app::Fleet;

/// Decisions in one answer.
const LISTED: i64 = 200;

/// Which decisions.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Those about this workspace.
    workspace: Option<String>,
}

/// What the fleet decided, the newest first.
#[utoipa::path(get, path = "/cp/admin/journal", tag = "operator", params(Wanted), responses(
    (status = 200, body = Journal), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    _: Operator,
    State(fleet): State<Fleet>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Journal>> {
    let workspace = wanted.workspace.map(|text| text.parse::<WorkspaceId>()).transpose();
    let malformed = |_| Error::invalid("invalid query", "workspace: expected a UUID");
    let workspace = workspace.map_err(malformed)?;
    let mut tx = fleet.db.read().await?;
    let decisions = store::newest(&mut tx, workspace, LISTED).await?;
    Ok(Json(Journal { decisions }))
}
