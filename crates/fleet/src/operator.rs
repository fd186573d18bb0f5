//! Health, metrics, the API's own description.

use std::sync::OnceLock;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ligand_api::operator::Health;
use ligand_server::reconcile::Pass;
use prometheus::{Encoder as _, IntCounterVec, Opts, Registry, TextEncoder};

use crate::app::Fleet;

/// Every counter of one fleet.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    steps: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
                .expect("a name and labels of plain letters")
        };
        let requests = counter(
            "ligand_fleet_http_requests_total",
            "Requests answered, by method, route and status.",
            &["method", "path", "status"],
        );
        let steps = counter(
            "ligand_fleet_reconcile_steps_total",
            "Steps that reconcilers took, by reconciler and outcome.",
            &["reconciler", "outcome"],
        );
        let registry = Registry::new();
        for counter in [&requests, &steps] {
            registry.register(Box::new(counter.clone())).expect("names differ");
        }
        Self { registry, requests, steps }
    }
}

impl Metrics {
    /// Count a pass.
    pub fn count(&self, reconciler: &str, pass: &Pass) {
        let outcome = if pass.failed.is_some() { "failed" } else { "done" };
        self.steps.with_label_values(&[reconciler, outcome]).inc_by(pass.steps);
    }
}

/// Counts requests by the route's template, so that labels are few.
pub(crate) async fn measure(State(fleet): State<Fleet>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let status = response.status();
    let labels = [method.as_str(), route, status.as_str()];
    fleet.metrics.requests.with_label_values(&labels).inc();
    response
}

/// Whether the fleet is up, and its database.
#[utoipa::path(get, path = "/health", tag = "operator", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn health(State(fleet): State<Fleet>) -> (StatusCode, Json<Health>) {
    let (code, status, database) = match fleet.db.ping().await {
        Ok(()) => (StatusCode::OK, "ok", "ok"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "unavailable"),
    };
    let health = Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database: database.to_owned(),
        uptime: fleet.clock.now().since(fleet.started).as_secs(),
    };
    (code, Json(health))
}

/// Counters, for a Prometheus scraper.
#[utoipa::path(get, path = "/metrics", tag = "operator", responses((status = 200, description = "Prometheus text", content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(fleet): State<Fleet>) -> Response {
    let mut text = Vec::new();
    let families = fleet.metrics.registry.gather();
    TextEncoder::new().encode(&families, &mut text).expect("a vector takes every byte");
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

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
