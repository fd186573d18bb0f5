//! What pages in a browser may read: those on the list, and their cookies with them. Nobody is let in by
//! this, and nobody kept out: it is the browser that obeys.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ligand_domain::gate::LOCAL_CANVAS;

use crate::app::App;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE, OPTIONS";
const HEADERS: &str = "Origin, Content-Type, X-Workspace-ID, Authorization, X-Molecule-Org-Id, \
    X-Molecule-Org-Slug, X-Confirm-Name, Idempotency-Key, Last-Event-ID";
const EXPOSED: &str = "Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";
/// How long a browser may remember what it was told, in seconds.
const REMEMBER: &str = "43200";

/// Answer preflights, and name the page that may read an answer.
pub async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let listed = listed(&app, &origin);
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() == Method::OPTIONS && asks {
        if !listed {
            return StatusCode::FORBIDDEN.into_response();
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        allow(headers, origin);
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, REMEMBER),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        return response;
    }
    let mut response = next.run(request).await;
    if listed {
        let headers = response.headers_mut();
        allow(headers, origin);
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// The configured list replaces the local canvas.
fn listed(app: &App, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    match app.config.edge.cors_origins.as_slice() {
        [] => LOCAL_CANVAS.contains(&origin),
        listed => listed.iter().any(|it| it == origin),
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}
