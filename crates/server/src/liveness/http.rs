//! What an operator can do about the brake.

use axum::Json;
use axum::extract::State;
use ligand_api::error::ErrorBody;
use ligand_api::operator::Brake;

use crate::access::Admin;
use crate::app::App;
use crate::error::{Error, Result};

/// Let replacement on silence go on, at a bounded rate. Where the brake is not engaged, nothing changes.
#[utoipa::path(post, path = "/admin/brake/release", tag = "operator", responses(
    (status = 200, body = Brake), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn release(_: Admin, State(app): State<App>) -> Result<Json<Brake>> {
    let released = super::release(&app).await;
    Ok(Json(released.map_err(Error::internal("failed to release the brake"))?))
}
