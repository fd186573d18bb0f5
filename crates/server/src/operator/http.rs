//! Health, metrics, reconciler reports, the API's own description.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ligand_api::error::ErrorBody;
use ligand_api::operator::{Backend, Health, Liveness};
use ligand_domain::time::Timestamp;

use crate::access::{self, Admin};
use crate::app::App;
use crate::error::{Error, Result};
use crate::secrets;

/// A reconciler that has not passed for this long is stuck.
const STALLED: Duration = Duration::from_secs(60);

/// Whether the server is up, and its database.
#[utoipa::path(get, path = "/health", tag = "operator", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let answers = app.db.ping().await.is_ok();
    let (code, status, database) = match answers {
        true => (StatusCode::OK, "ok", "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "unavailable"),
    };
    let health = Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database: database.to_owned(),
        uptime: app.clock.now().since(app.started).as_secs(),
    };
    (code, Json(health))
}

/// Counters, for a Prometheus scraper.
#[utoipa::path(get, path = "/metrics", tag = "operator", responses((status = 200, description = "Prometheus text", content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    app.metrics.text()
}

/// What each reconciler did, and whether it still does.
#[utoipa::path(get, path = "/admin/liveness", tag = "operator", responses((status = 200, body = Liveness), (status = 401, body = ErrorBody)))]
pub(crate) async fn liveness(_: Admin, State(app): State<App>) -> Result<Json<Liveness>> {
    let reconcilers = app.bells.reports();
    let now = app.clock.now();
    let stalled = reconcilers.values().any(|report| {
        let last = report.last_pass_at.as_deref().and_then(Timestamp::parse);
        let every = Duration::from_secs(report.every_seconds.unwrap_or_default());
        last.is_none_or(|at| now.since(at) > every.saturating_add(STALLED))
    });
    let credentials_live =
        access::live_anywhere(&app).await.map_err(Error::internal("query failed"))?;
    let secrets_plain = secrets::plain(&app).await.map_err(Error::internal("query failed"))?;
    let brake = crate::liveness::report(&app).await.map_err(Error::internal("query failed"))?;
    Ok(Json(Liveness {
        status: if stalled { "stalled" } else { "ok" }.to_owned(),
        started_at: app.started.to_string(),
        auth: app.config.auth.to_string(),
        credentials_live,
        secrets_plain,
        secrets_key: app.config.secrets.current.is_some(),
        reconcilers,
        brake: Some(brake),
        backends: backends(&app).await,
    }))
}

async fn backends(app: &App) -> BTreeMap<String, Backend> {
    let mut all = BTreeMap::new();
    for (name, backend) in app.backends.all() {
        let said = match backend.fingerprint().await {
            Ok(says) => Backend { usable: true, says },
            Err(cause) => Backend { usable: false, says: cause.chain() },
        };
        all.insert(name.to_owned(), said);
    }
    all
}

/// The description of the API. Every router has the same routes, so it is the same for all.
static DESCRIPTION: OnceLock<String> = OnceLock::new();

/// Keep what `/openapi.json` says.
pub(crate) fn describe(api: &utoipa::openapi::OpenApi) {
    DESCRIPTION.get_or_init(|| api.to_json().expect("a description of plain types becomes JSON"));
}

/// The API, described.
#[utoipa::path(get, path = "/openapi.json", tag = "operator", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(crate) async fn openapi() -> Response {
    let text = DESCRIPTION.get().map(String::as_str).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
