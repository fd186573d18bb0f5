//! What is passed on as it is: some paths of a control plane, and the canvas for everything that is nobody's.
//!
//! Bodies go through as they come, both ways, and nothing is kept. Whoever is passed on is nobody here: the other end
//! decides. A control plane is sent its own cookies and credentials; a canvas is sent none.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ligand_domain::gate::is_passed_on;
use reqwest::Url;

use crate::app::App;

/// What is about one connection and not about a request or an answer.
const OF_CONNECTIONS: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Pass on what is nobody's here. `None`: it is not passed on either.
pub async fn pass_on(State(app): State<App>, request: Request) -> Option<Response> {
    let edge = &app.config.edge;
    let path = request.uri().path();
    match (&edge.control_plane, &edge.canvas_proxy) {
        (Some(upstream), _) if path == "/cp" || path.starts_with("/cp/") => {
            if !is_passed_on(path) {
                return Some(StatusCode::NOT_FOUND.into_response());
            }
            Some(forward(&app, upstream, request, "control plane unavailable").await)
        }
        (_, Some(upstream)) => {
            let mut request = request;
            request.headers_mut().remove(header::AUTHORIZATION);
            request.headers_mut().remove(header::COOKIE);
            Some(forward(&app, upstream, request, "canvas unavailable").await)
        }
        (_, None) => None,
    }
}

async fn forward(app: &App, upstream: &str, request: Request, failed: &'static str) -> Response {
    let (mut head, body) = request.into_parts();
    let asked = head.uri.path_and_query().map_or("/", |asked| asked.as_str());
    let Ok(url) = Url::parse(&format!("{upstream}{asked}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let has_body = head.headers.contains_key(header::CONTENT_LENGTH)
        || head.headers.contains_key(header::TRANSFER_ENCODING)
        || !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    // The one that was asked is another one than the one that answers.
    head.headers.remove(header::HOST);
    end_to_end(&mut head.headers);
    let mut passed = app.http.request(head.method, url).headers(head.headers);
    if has_body {
        passed = passed.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    match passed.send().await {
        Ok(answer) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            end_to_end(response.headers_mut());
            *response.body_mut() = Body::from_stream(answer.bytes_stream());
            response
        }
        Err(cause) => {
            let cause = cause.without_url();
            tracing::warn!(error = %cause, "{failed}");
            (StatusCode::BAD_GATEWAY, failed).into_response()
        }
    }
}

/// Take away what is about one connection, whatever it is called.
fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_CONNECTIONS) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_names_ends_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "close, X-Hop"), ("x-hop", "1"), ("te", "x"), ("x-kept", "1")]
        {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        end_to_end(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
