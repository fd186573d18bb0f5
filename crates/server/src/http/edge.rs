//! What stands around every handler: a panic is an answer, requests of another organisation are nobody's,
//! and browsers are told what not to do with answers.

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use ligand_domain::gate::{Whence, answers_programs, is_for};

use super::cors;
use super::metrics::Measure;
use crate::app::App;
use crate::error::Error;

/// The outermost layer: whatever happens is an answer, and pages in a browser may read it.
///
/// There are three layers, not one for each concern: each is a boxed service that is copied for every request.
pub async fn outside(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    answered(&method, cors::cors(State(app), request, next)).await
}

/// The innermost layer, below the limit: requests are counted, those for somebody else end, and browsers are
/// told what not to do with answers.
pub async fn inside(State(app): State<App>, request: Request, next: Next) -> Response {
    let measure = Measure::begin(&app, &request);
    let response = if is_ours(&app, &request) {
        let policy = policy(request.uri().path());
        let mut response = next.run(request).await;
        secure(&mut response, policy);
        response
    } else {
        StatusCode::NOT_FOUND.into_response()
    };
    measure.end(&app, response.status());
    response
}

/// A handler that panics is a failure of ours, and of one request only.
async fn answered(method: &Method, response: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(response).catch_unwind().await {
        Ok(response) => response,
        Err(cause) => {
            let said = cause.downcast_ref::<&str>().copied();
            let said = said.or_else(|| cause.downcast_ref::<String>().map(String::as_str));
            let cause = anyhow::anyhow!("a handler of {method} panicked: {said:?}");
            Error::Internal("internal error", cause).into_response()
        }
    }
}

/// What a request says of where it comes from.
#[must_use]
pub fn whence(headers: &HeaderMap) -> Whence<'_> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    Whence {
        host: text(header::HOST),
        origin: text(header::ORIGIN),
        referer: text(header::REFERER),
    }
}

/// Whether the canvas that is served under this address asks. Forgeable: it opens a door only in compat.
#[must_use]
pub fn from_own_canvas(app: &App, headers: &HeaderMap) -> bool {
    app.config.compat() && app.config.edge.canvas_proxy.is_some() && whence(headers).same_origin()
}

/// With an organisation of our own, requests for another one end here, as if there were nothing.
fn is_ours(app: &App, request: &Request) -> bool {
    let Some(organisation) = app.config.org_id.as_deref() else { return true };
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (tag, replayed) = (text("x-molecule-org-id"), text("fly-replay-src"));
    is_for(organisation, request.uri().path(), tag, replayed) || from_own_canvas(app, headers)
}

const ALWAYS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
];
const OF_PROGRAMS: &str = "default-src 'self'";
const OF_PAGES: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; connect-src 'self' ws: wss:; font-src 'self' data:";

fn policy(path: &str) -> &'static str {
    if answers_programs(path) { OF_PROGRAMS } else { OF_PAGES }
}

/// Tell browsers. What a handler said itself stays.
fn secure(response: &mut Response, policy: &'static str) {
    let headers = response.headers_mut();
    headers.reserve(ALWAYS.len() + 1);
    for (name, value) in ALWAYS.into_iter().chain([(header::CONTENT_SECURITY_POLICY, policy)]) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_one_request() {
        let response = answered(&Method::GET, async { panic!("s3cret") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, r#"{"error":"internal error"}"#);
    }

    #[test]
    fn sh_02_what_a_handler_said_stays() {
        let own =
            [(header::X_FRAME_OPTIONS, "SAMEORIGIN"), (header::CONTENT_SECURITY_POLICY, "sandbox")];
        let mut response = (own, "page").into_response();
        secure(&mut response, policy("/workspaces"));
        assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "SAMEORIGIN");
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], "sandbox");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
