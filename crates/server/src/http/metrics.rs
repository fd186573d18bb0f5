//! Counters, in the names that dashboards of the contract read, and our own.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ligand_domain::time::Timestamp;
use prometheus::{CounterVec, Encoder as _, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::app::App;

/// Labels of a request. The path is the route's template, so their number is bounded.
const LABELS: [&str; 3] = ["method", "path", "status"];

/// Every counter of one server.
pub struct Metrics {
    registry: Registry,
    requests: CounterVec,
    seconds: CounterVec,
    sockets: IntGauge,
    /// Steps taken by reconcilers, by reconciler and outcome.
    pub steps: IntCounterVec,
    /// Calls that were refused at admission, by the line of the table.
    pub refusals: IntCounterVec,
    /// Heartbeats by how they were recorded: many in one statement, or each by a decision of its own.
    pub heartbeats: IntCounterVec,
    /// Attempts to deliver a message, by what came of them.
    pub messages: IntCounterVec,
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
        let sockets = IntGauge::new(
            "molecule_websocket_connections_active",
            "Watchers over WebSockets that are connected now.",
        );
        let sockets = sockets.expect("a name of plain letters");
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
        let messages = int_counter(
            "ligand_message_attempts_total",
            "Attempts to deliver a message, by what was written down of them.",
            &["outcome"],
        );
        let all: [Box<dyn prometheus::core::Collector>; 7] = [
            Box::new(requests.clone()),
            Box::new(seconds.clone()),
            Box::new(sockets.clone()),
            Box::new(steps.clone()),
            Box::new(refusals.clone()),
            Box::new(heartbeats.clone()),
            Box::new(messages.clone()),
        ];
        for collector in all {
            registry.register(collector).expect("names differ");
        }
        Self { registry, requests, seconds, sockets, steps, refusals, heartbeats, messages }
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> CounterVec {
    CounterVec::new(Opts::new(name, help), labels).expect("a name and labels of plain letters")
}

fn int_counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a name and labels of plain letters")
}

/// A connection that is counted as long as this is there.
pub struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Count one that is open.
    #[must_use]
    pub fn socket(&self) -> Open {
        self.sockets.inc();
        Open(self.sockets.clone())
    }

    /// The text that a scraper reads.
    #[must_use]
    pub fn text(&self) -> Response {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut text).expect("a vector takes every byte");
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
    }
}

/// A request being answered.
pub(super) struct Measure {
    method: Method,
    route: Option<MatchedPath>,
    began: Timestamp,
}

impl Measure {
    pub(super) fn begin(app: &App, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        Self { method: request.method().clone(), route, began: app.clock.now() }
    }

    /// Count it.
    pub(super) fn end(self, app: &App, status: StatusCode) {
        let took = app.clock.now().since(self.began);
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        let labels = [self.method.as_str(), route, status.as_str()];
        app.metrics.requests.with_label_values(&labels).inc();
        app.metrics.seconds.with_label_values(&labels).inc_by(took.as_secs_f64());
        let [method, path, status] = labels;
        tracing::debug!(method, path, status, took_us = took.as_micros(), "request");
    }
}
