//! The agent's HTTP server: its own health, and every turn passed on to the program.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use ligand_api::error::ErrorBody;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::echo;
use crate::platform::{self, NoClient};
use crate::vitals::{Program, Turn, Vitals};

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

/// Passes requests on to the program.
struct Relay {
    http: reqwest::Client,
    vitals: Arc<Vitals>,
}

/// The routes of an agent: health, and then the program or, without one, the echo.
///
/// # Errors
/// When no HTTP client can be made.
pub(crate) fn router(vitals: Arc<Vitals>, card: Value) -> Result<Router, NoClient> {
    let own = Router::new().route("/health", get(health)).with_state(Arc::clone(&vitals));
    if vitals.program() == Program::None {
        return Ok(own.merge(echo::router(card, vitals)));
    }
    // A fresh connection each time: one kept from before may be closed by the program at the very moment
    // it is used, and a turn whose body was already sent cannot be repeated. On this machine it costs
    // nothing. No time limit: a turn takes as long as it takes.
    let http = platform::builder()?.no_proxy().pool_max_idle_per_host(0).http1_only().build();
    let http = http.map_err(NoClient::from)?;
    let relay = Arc::new(Relay { http, vitals });
    Ok(own.merge(Router::new().fallback(pass).with_state(relay)))
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

async fn pass(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let turn = (request.method() == Method::POST).then(|| relay.vitals.begin_turn());
    let port = match relay.vitals.program() {
        Program::Running(port) => port,
        state => {
            let detail = format!("it is {}; it is started again by itself", state.word());
            return unanswered(StatusCode::SERVICE_UNAVAILABLE, detail, turn);
        }
    };
    match relay.send(port, request).await {
        Ok(answer) => answered(answer, relay, turn),
        Err(e) => {
            let detail = platform::cause(e);
            relay.vitals.note_error(&format!("the agent's program does not answer: {detail}"));
            unanswered(StatusCode::BAD_GATEWAY, detail, turn)
        }
    }
}

impl Relay {
    async fn send(&self, port: u16, request: Request) -> reqwest::Result<reqwest::Response> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut outgoing = self
            .http
            .request(parts.method, format!("http://127.0.0.1:{port}{path}"))
            .headers(end_to_end(parts.headers));
        if !body.is_end_stream() {
            outgoing = outgoing.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        outgoing.send().await
    }
}

/// The program's answer, byte by byte as it comes. The turn ends with its last byte.
fn answered(answer: reqwest::Response, relay: Arc<Relay>, turn: Option<Turn>) -> Response {
    let status = answer.status();
    let headers = end_to_end(answer.headers().clone());
    let body = futures_util::stream::unfold((answer, turn), move |(mut answer, turn)| {
        let relay = Arc::clone(&relay);
        async move {
            match answer.chunk().await {
                Ok(Some(bytes)) => Some((Ok(bytes), (answer, turn))),
                Ok(None) => {
                    finish(turn, status.is_server_error());
                    None
                }
                Err(e) => {
                    let e = e.without_url();
                    relay.vitals.note_error(&format!("the program's answer broke off: {e}"));
                    finish(turn, true);
                    Some((Err(e), (answer, None)))
                }
            }
        }
    });
    (status, headers, Body::from_stream(body)).into_response()
}

fn unanswered(status: StatusCode, detail: String, turn: Option<Turn>) -> Response {
    finish(turn, true);
    let body = ErrorBody::new("the agent's program does not answer").detail(detail);
    (status, Json(body)).into_response()
}

fn finish(turn: Option<Turn>, failed: bool) {
    if let Some(turn) = turn {
        turn.end(failed);
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
