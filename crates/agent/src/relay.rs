//! The agent's HTTP server: its own health, and the way to the program.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::delivery::{Answer, Answerer, Front, Missed, take};
use crate::machine;
use crate::nudge::Nudges;
use crate::platform::{self, NoClient};
use crate::vitals::{Program, Vitals};

/// Headers of one connection (RFC 9110, 7.6.1), and those that the new request brings itself. `Expect` is
/// answered by our server as soon as the body is asked for.
const OF_THE_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Where whoever wants something of this agent asks for its heartbeat.
const NUDGE: &str = "/.well-known/ligand/nudge";

/// The routes of an agent: health, nudges, and then the program or, without one, the echo.
pub(crate) fn router(front: Arc<Front>) -> Router {
    let (vitals, nudges) = (Arc::clone(&front.vitals), Arc::clone(&front.nudges));
    let own = Router::new().route("/health", get(health)).with_state(vitals);
    let nudged = Router::new().route(NUDGE, post(nudge)).with_state(nudges);
    let own = own.merge(nudged);
    match &front.answerer {
        Answerer::Program(_) => own.merge(Router::new().fallback(take).with_state(front)),
        Answerer::Echo(echo) => {
            let card = echo.card.clone();
            let show = move || std::future::ready(Json(card.clone()));
            let echo = Router::new()
                .route("/.well-known/agent-card.json", get(show.clone()))
                .route("/.well-known/agent.json", get(show))
                .route("/", post(take));
            own.merge(echo.with_state(front))
        }
    }
}

/// Serve until `stop`, and finish what was begun.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    // Small parts of a stream go out as they come.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(e) = server.await {
        tracing::error!("the agent's server ended: {e}");
    }
}

async fn health(State(vitals): State<Arc<Vitals>>) -> Json<Value> {
    Json(json!({ "status": "ok", "child": vitals.program().word() }))
}

async fn nudge(State(nudges): State<Arc<Nudges>>) -> StatusCode {
    if nudges.take(machine::now()) { StatusCode::NO_CONTENT } else { StatusCode::TOO_MANY_REQUESTS }
}

/// Passes requests on to the program.
pub(crate) struct Relay {
    http: reqwest::Client,
    vitals: Arc<Vitals>,
}

impl Relay {
    /// # Errors
    /// When no HTTP client can be made.
    pub(crate) fn new(vitals: Arc<Vitals>) -> Result<Self, NoClient> {
        // A fresh connection each time: one kept from before may be closed by the program at the very moment
        // it is used, and a turn whose body was already sent cannot be repeated. On this machine it costs
        // nothing. No time limit: a turn takes as long as it takes.
        let http = platform::builder()?.no_proxy().pool_max_idle_per_host(0).http1_only().build();
        Ok(Self { http: http.map_err(NoClient::from)?, vitals })
    }

    /// Where the program listens.
    pub(crate) fn port(&self) -> Result<u16, Missed> {
        match self.vitals.program() {
            Program::Running(port) => Ok(port),
            state if state.stands_by() => Err(Missed::StandsBy),
            state => {
                let detail = format!("it is {}; it is started again by itself", state.word());
                Err(Missed::NotReady(detail))
            }
        }
    }

    pub(crate) async fn ask(&self, parts: Parts, body: Body) -> Result<Answer, Missed> {
        let port = self.port()?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut outgoing = self
            .http
            .request(parts.method, format!("http://127.0.0.1:{port}{path}"))
            .headers(end_to_end(parts.headers));
        if !body.is_end_stream() {
            outgoing = outgoing.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let answer = outgoing.send().await.map_err(|e| {
            let reached = !e.is_connect();
            let why = platform::cause(e);
            if reached { Missed::Broken(why) } else { Missed::NotReached(why) }
        })?;
        let (status, headers) = (answer.status(), end_to_end(answer.headers().clone()));
        let parts = answer.bytes_stream().map(|part| part.map_err(platform::cause));
        Ok(Answer { status, headers, parts: parts.boxed() })
    }
}

/// The headers that are meant for the other end, without those that `Connection` names.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_HOP) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
