//! Counters, in the names that dashboards of the contract read, and our own.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::{CounterVec, Encoder as _, IntCounterVec, Opts, Registry, TextEncoder};

use crate::app::App;

/// Labels of a request. The path is the route's template, so their number is bounded.
const LABELS: [&str; 3] = ["method", "path", "status"];

/// Every counter of one server.
pub struct Metrics {
    registry: Registry,
    requests: CounterVec,
    seconds: CounterVec,
    /// Steps taken by reconcilers, by reconciler and outcome.
    pub steps: IntCounterVec,
    /// Calls that were refused at admission, by the line of the table.
    pub refusals: IntCounterVec,
    /// Heartbeats by how they were recorded: many in one statement, or each by a decision of its own.
    pub heartbeats: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let requests = counter(
            "molecule_http_requests_total",
            "Requests answered, by method, route and status.",
            &LABELS,
        );
        let seconds = counter(
            "molecule_http_request_duration_seconds_total",
            "Seconds spent answering, by method, route and status.",
            &LABELS,
        );
        let steps = int_counter(
            "ligand_reconcile_steps_total",
            "Steps that reconcilers took.",
            &["reconciler", "outcome"],
        );
        let refusals = int_counter(
            "ligand_admission_refusals_total",
            "Registers, heartbeats and card updates that were not admitted, by reason.",
            &["reason"],
        );
        let heartbeats = int_counter(
            "ligand_heartbeats_total",
            "Heartbeats that were recorded, by whether many were at once.",
            &["way"],
        );
        let all: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(requests.clone()),
            Box::new(seconds.clone()),
            Box::new(steps.clone()),
            Box::new(refusals.clone()),
            Box::new(heartbeats.clone()),
        ];
        for collector in all {
            registry.register(collector).expect("names differ");
        }
        Self { registry, requests, seconds, steps, refusals, heartbeats }
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> CounterVec {
    CounterVec::new(Opts::new(name, help), labels).expect("a name and labels of plain letters")
}

fn int_counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a name and labels of plain letters")
}

impl Metrics {
    /// The text that a scraper reads.
    #[must_use]
    pub fn text(&self) -> Response {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut text).expect("a vector takes every byte");
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
    }
}

/// Count every request once it is answered.
pub async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let matched = request.extensions().get::<MatchedPath>();
    let path = matched.map_or("unmatched", MatchedPath::as_str).to_owned();
    let began = app.clock.now();
    let response = next.run(request).await;
    let took = app.clock.now().since(began);
    let status = response.status().as_u16().to_string();
    let labels = [method.as_str(), path.as_str(), status.as_str()];
    app.metrics.requests.with_label_values(&labels).inc();
    app.metrics.seconds.with_label_values(&labels).inc_by(took.as_secs_f64());
    tracing::debug!(method, path, status, took_us = took.as_micros(), "request");
    response
}
