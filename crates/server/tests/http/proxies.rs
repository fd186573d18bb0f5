//! What is passed on: some paths to a control plane, the rest to a canvas.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use axum::response::IntoResponse as _;
use ligand_server::config::{File, Flags, resolve};

use crate::support::TestApp;
use crate::support::engine::{on_each, run};

type Seen = Arc<Mutex<Vec<(Method, String, HeaderMap, Bytes)>>>;

/// Whoever is behind a proxy: answers 299 with a header, a cookie and what it was sent.
async fn upstream() -> (String, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        noted.lock().unwrap().push((method, uri.to_string(), headers, body.clone()));
        let head = [("x-upstream", "yes"), ("set-cookie", "s=2"), ("keep-alive", "timeout=5")];
        async move { (StatusCode::from_u16(299).unwrap(), head, body).into_response() }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    (url, seen)
}

fn request(method: &str, path: &str, body: &'static str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "tenant.example").header("cookie", "s=1");
    let request = request.header("authorization", "Bearer mine").header("x-own", "kept");
    let request = request.header("connection", "x-hop").header("x-hop", "1");
    request.header("content-length", body.len()).body(Body::from(body)).unwrap()
}

#[test]
fn px_02_px_03_px_04_px_05_a_control_plane_is_asked_as_itself_and_by_whoever_asks() {
    on_each("px_03", |db| async move {
        let (url, seen) = upstream().await;
        let host = url.trim_start_matches("http://").to_owned();
        let app = TestApp::new(db, |config| {
            config.edge.control_plane = Some(url);
            // Paths of a control plane are everybody's.
            config.org_id = Some("org-1".to_owned());
        });
        let answer = app.request(request("POST", "/cp/auth/login?next=%2Fhome", "{\"a\":1}")).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (299, "{\"a\":1}"));
        assert_eq!(answer.headers["x-upstream"], "yes");
        assert_eq!(answer.headers["set-cookie"], "s=2");
        assert!(!answer.headers.contains_key("keep-alive"));
        {
            let seen = seen.lock().unwrap();
            let (method, path, headers, body) = &seen[0];
            assert_eq!((method.as_str(), path.as_str()), ("POST", "/cp/auth/login?next=%2Fhome"));
            assert_eq!(headers["host"], host.as_str());
            assert_eq!(headers["cookie"], "s=1");
            assert_eq!(headers["authorization"], "Bearer mine");
            assert_eq!(headers["x-own"], "kept");
            assert!(!headers.contains_key("x-hop"));
            assert_eq!(body.as_ref(), b"{\"a\":1}");
        }
        for path in
            ["/cp/admin/orgs", "/cp/orgsx", "/cp", "/cp/auth/../admin/x", "/cp/auth/%2e%2e/admin"]
        {
            let answer = app.request(request("GET", path, "")).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (404, ""), "{path}");
        }
        assert_eq!(app.request(request("GET", "/cp/orgs", "")).await.status.as_u16(), 299);
        assert_eq!(seen.lock().unwrap().len(), 2);
    });
}

#[test]
fn cx_01_cx_02_cx_03_cx_04_a_canvas_learns_nothing_of_who_asks() {
    on_each("cx_01", |db| async move {
        let (url, seen) = upstream().await;
        let app = TestApp::new(db, |config| config.edge.canvas_proxy = Some(url));
        for path in ["/", "/_next/static/a.js?v=1", "/cp/auth/me"] {
            assert_eq!(app.request(request("GET", path, "")).await.status.as_u16(), 299, "{path}");
        }
        {
            let seen = seen.lock().unwrap();
            assert_eq!(seen[1].1, "/_next/static/a.js?v=1");
            for (_, path, headers, _) in seen.iter() {
                assert!(!headers.contains_key("authorization"), "{path}");
                assert!(!headers.contains_key("cookie"), "{path}");
                assert_eq!(headers["x-own"], "kept");
            }
        }
        // What is somebody's stays here.
        assert_eq!(app.request(request("GET", "/health", "")).await.status, 200);
        assert_eq!(app.request(request("PUT", "/health", "")).await.status, 405);
        assert_eq!(seen.lock().unwrap().len(), 3);
    });
}

#[test]
fn whoever_is_passed_on_to_and_not_there_is_named() {
    on_each("px_failed", |db| async move {
        let nobody = || Some("http://127.0.0.1:1".to_owned());
        let app = TestApp::new(db, |config| {
            config.edge.control_plane = nobody();
            config.edge.canvas_proxy = nobody();
        });
        for (path, text) in
            [("/cp/orgs", "control plane unavailable"), ("/page", "canvas unavailable")]
        {
            let answer = app.request(request("GET", path, "")).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (502, text));
        }
    });
}

#[test]
fn an_address_that_is_none_is_found_at_the_start() {
    run(async {
        for variable in ["CP_UPSTREAM_URL", "CANVAS_PROXY_URL", "MOLECULE_CP_URL"] {
            for value in ["ftp://x", "not an address", "http://"] {
                let env = |name: &str| (name == variable).then(|| value.to_owned());
                let why = resolve(&Flags::default(), &env, None, File::default()).unwrap_err();
                assert!(why.to_string().contains(&format!("environment {variable}")), "{why}");
            }
        }
    });
}
