//! The viewport over HTTP.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use ligand_api::canvas::Viewport;
use ligand_api::error::ErrorBody;
use ligand_api::registry::Done;

use super::store;
use crate::access::Canvas;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};

/// Who may look: in compat everybody, as the contract says.
pub(crate) struct Viewer;

impl FromRequestParts<App> for Viewer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        if !app.config.compat() {
            Canvas::from_request_parts(parts, app).await?;
        }
        Ok(Self)
    }
}

/// Where the canvas was left.
#[utoipa::path(get, path = "/canvas/viewport", tag = "canvas", responses(
    (status = 200, body = Viewport), (status = 401, body = ErrorBody)))]
pub(crate) async fn get(_: Viewer, State(app): State<App>) -> Result<Json<Viewport>> {
    Ok(Json(store::get(&mut app.db.read().await?).await?))
}

/// Leave the canvas here.
#[utoipa::path(put, path = "/canvas/viewport", tag = "canvas", request_body = Viewport, responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn put(
    _: Canvas,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Done>> {
    let to: Viewport = parse(&body, "invalid viewport data")?;
    let saved = async {
        let mut tx = app.db.begin().await?;
        store::save(&mut tx, to).await?;
        tx.commit().await
    };
    saved.await.map_err(Error::internal("failed to save viewport"))?;
    Ok(Json(Done { status: "saved".to_owned() }))
}
