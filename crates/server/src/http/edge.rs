//! What stands around every handler: a panic is an answer, requests of another organisation are nobody's,
//! and browsers are told what not to do with answers.

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use ligand_domain::gate::{Whence, answers_programs, is_for};

use crate::app::App;
use crate::error::Error;

/// A handler that panics is a failure of ours, and of one request only.
pub async fn panics(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
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
    app.config.compat() && app.config.edge.canvas_proxy && whence(headers).same_origin()
}

/// With an organisation of our own, requests for another one end here, as if there were nothing.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Some(organisation) = app.config.org_id.as_deref() {
        let headers = request.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (tag, replayed) = (text("x-molecule-org-id"), text("fly-replay-src"));
        let ours = is_for(organisation, request.uri().path(), tag, replayed)
            || from_own_canvas(&app, headers);
        if !ours {
            return StatusCode::NOT_FOUND.into_response();
        }
    }
    next.run(request).await
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

/// Tell browsers. What a handler said itself stays.
pub async fn secure(request: Request, next: Next) -> Response {
    let policy = if answers_programs(request.uri().path()) { OF_PROGRAMS } else { OF_PAGES };
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS.into_iter().chain([(header::CONTENT_SECURITY_POLICY, policy)]) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    async fn answer(router: Router) -> Response {
        let request = Request::builder().uri("/workspaces").body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_one_request() {
        let handler = get(|| async { panic!("s3cret") as &'static str });
        let router = Router::new().route("/workspaces", handler).layer(middleware::from_fn(panics));
        let response = answer(router).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, r#"{"error":"internal error"}"#);
    }

    #[tokio::test]
    async fn sh_02_what_a_handler_said_stays() {
        let own =
            [(header::X_FRAME_OPTIONS, "SAMEORIGIN"), (header::CONTENT_SECURITY_POLICY, "sandbox")];
        let handler = get(move || async move { (own, "page") });
        let router = Router::new().route("/workspaces", handler).layer(middleware::from_fn(secure));
        let response = answer(router).await;
        assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "SAMEORIGIN");
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], "sandbox");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
