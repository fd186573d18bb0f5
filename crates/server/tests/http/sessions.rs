//! Sessions of people, verified at a control plane on a real socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use ligand_server::config::Config;

use super::gates::created;
use crate::support::engine::on_each;
use crate::support::modes::{adjusted, compat};
use crate::support::{ADMIN, Answer, TestApp};

const MEMBER: &str = r#"{"member":true,"user_id":"u-1"}"#;

/// What a control plane was asked: path with query, cookie, agent.
type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

/// A control plane that answers every question like this.
async fn control_plane(
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (String, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let handler = move |uri: Uri, headers: HeaderMap| {
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        noted.lock().unwrap().push((uri.to_string(), text("cookie"), text("user-agent")));
        let answer = answer();
        async move { answer }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    (url, asked)
}

fn of(url: &str, slug: Option<&str>) -> impl FnOnce(&mut Config) {
    let (url, slug) = (url.to_owned(), slug.map(str::to_owned));
    move |config| {
        config.edge.control_plane = Some(url).filter(|url| !url.is_empty());
        config.edge.org_slug = slug;
    }
}

async fn list(app: &TestApp, cookie: Option<&str>) -> Answer {
    let headers: Vec<_> = cookie.map(|cookie| ("cookie", cookie)).into_iter().collect();
    app.send("GET", "/workspaces", None, None, &headers).await
}

#[test]
fn se_04_se_11_a_member_passes_and_is_asked_about_again_after_thirty_seconds() {
    on_each("se_04", |db| async {
        let (url, asked) = control_plane(|| MEMBER.into_response()).await;
        let app = TestApp::new(db, of(&url, Some("acme co")));
        for _ in 0..3 {
            assert_eq!(list(&app, Some("s=1; t=2")).await.status, 200);
        }
        let expected = (
            "/cp/auth/tenant-member?slug=acme+co".to_owned(),
            "s=1; t=2".to_owned(),
            "molecule-tenant-platform/session-verifier".to_owned(),
        );
        assert_eq!(*asked.lock().unwrap(), [expected]);
        app.app.clock.advance(Duration::from_secs(30));
        assert_eq!(list(&app, Some("s=1; t=2")).await.status, 200);
        assert_eq!(asked.lock().unwrap().len(), 2);
    });
}

#[test]
fn a_session_opens_what_people_use_and_names_its_holder() {
    on_each("sessions", |db| async {
        let (url, _) = control_plane(|| MEMBER.into_response()).await;
        let app = TestApp::new(db, of(&url, Some("acme")));
        let (id, own) = created(&app, Some(ADMIN), "a").await;
        let cookie = [("cookie", "s=1")];
        let call = async |method: &str, path: &str, token: Option<&str>, body: &str| {
            app.send(method, path, token, Some(body.to_owned()), &cookie).await
        };
        let of_one = |rest: &str| format!("/workspaces/{id}/{rest}");
        call("GET", &of_one("why"), None, "").await.ok();
        call("PUT", "/canvas/viewport", None, "{}").await.ok();
        call("POST", &of_one("a2a"), None, "{}").await.refuses(503, "workspace has no URL");
        assert!(
            call("GET", &format!("/workspaces/{id}"), None, "")
                .await
                .ok()
                .get("evidence")
                .is_some()
        );
        call("POST", "/org/tokens", None, "").await.ok();
        assert_eq!(app.get("/org/tokens").await.ok()["tokens"][0]["created_by"], "session");
        let command = r#"{"name":"b","command":["true"]}"#;
        call("POST", "/workspaces", None, command).await.refuses(403, "admin auth required");
        call("POST", "/workspaces", Some(ADMIN), command).await.ok();
        // A presented bearer that is bad is bad, whatever else comes with it.
        call("GET", &of_one("why"), Some("x"), "")
            .await
            .refuses(401, "invalid workspace auth token");
        call("POST", &of_one("a2a"), Some("x"), "{}")
            .await
            .refuses(401, "invalid caller auth token");
        // At an administrator's route a session counts beside any bearer.
        call("GET", "/workspaces", Some(&own), "").await.ok();
    });
}

#[test]
fn discovery_takes_sessions_and_refuses_cookies_that_are_none() {
    for (answer, member) in [(MEMBER, true), (r#"{"member":false,"user_id":"u-1"}"#, false)] {
        on_each("discovery_sessions", |db| async move {
            let (url, _) = control_plane(move || answer.into_response()).await;
            let app = TestApp::new(db, of(&url, Some("acme")));
            let (id, own) = created(&app, Some(ADMIN), "a").await;
            let peers = format!("/registry/{id}/peers");
            let discover = format!("/registry/discover/{id}");
            let headers = [("cookie", "s=1"), ("x-workspace-id", id.as_str())];
            for (path, token) in [(&peers, None), (&peers, Some(own.as_str())), (&discover, None)] {
                let answer = app.send("GET", path, token, None, &headers).await;
                match member {
                    true => assert_ne!(answer.status, 401, "{answer:?}"),
                    false => answer.refuses(401, "invalid session"),
                }
            }
            app.call("GET", &peers, Some(&own), None).await.ok();
        });
    }
}

#[test]
fn se_05_se_06_se_07_whoever_is_not_confirmed_is_nobody_for_five_seconds() {
    for answer in [
        r#"{"member":false,"user_id":"u-1"}"#,
        r#"{"member":true,"user_id":""}"#,
        r#"{"member":true}"#,
        "not json",
        "[]",
        "401",
    ] {
        on_each("se_05", |db| async move {
            let (url, asked) = control_plane(move || match answer {
                "401" => (StatusCode::UNAUTHORIZED, MEMBER).into_response(),
                text => text.into_response(),
            })
            .await;
            let app = TestApp::new(db, of(&url, Some("acme")));
            for _ in 0..2 {
                list(&app, Some("s=1")).await.refuses(401, "admin auth required");
            }
            assert_eq!(asked.lock().unwrap().len(), 1, "{answer}");
            app.app.clock.advance(Duration::from_secs(5));
            list(&app, Some("s=1")).await.refuses(401, "admin auth required");
            assert_eq!(asked.lock().unwrap().len(), 2, "{answer}");
            // What is not confirmed keeps nobody out who has something better.
            let beside =
                app.send("GET", "/workspaces", Some(ADMIN), None, &[("cookie", "s=1")]).await;
            assert_eq!(beside.status, 200);
        });
    }
}

#[test]
fn se_01_se_02_se_03_without_cookie_slug_or_control_plane_nobody_is_asked() {
    on_each("se_01", |db| async move {
        let (url, asked) = control_plane(|| MEMBER.into_response()).await;
        for (url, slug, cookie) in [
            (url.as_str(), Some("acme"), None),
            (&url, Some("acme"), Some("")),
            (&url, None, Some("s=1")),
            ("", Some("acme"), Some("s=1")),
        ] {
            let app = TestApp::new(db.clone(), of(url, slug));
            list(&app, cookie).await.refuses(401, "admin auth required");
        }
        assert!(asked.lock().unwrap().is_empty());
    });
}

#[test]
fn se_08_a_control_plane_that_does_not_answer_is_asked_again_at_once() {
    on_each("se_08", |db| async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let app = TestApp::new(db, of(&url, Some("acme")));
        list(&app, Some("s=1")).await.refuses(401, "admin auth required");
        let address = url.strip_prefix("http://").unwrap();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let router = Router::new().fallback(|| async { MEMBER });
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(list(&app, Some("s=1")).await.status, 200);
    });
}

#[test]
fn se_09_each_cookie_is_asked_about_for_itself() {
    on_each("se_09", |db| async move {
        let (url, asked) = control_plane(|| MEMBER.into_response()).await;
        for slug in ["a", "b"] {
            let app = TestApp::new(db.clone(), of(&url, Some(slug)));
            for cookie in ["s=1", "s=2", "s=1"] {
                assert_eq!(list(&app, Some(cookie)).await.status, 200);
            }
        }
        assert_eq!(asked.lock().unwrap().len(), 4);
    });
}

adjusted! { compat;
    async fn a_cookie_without_a_control_plane_opens_nothing_in_compat_either(app: TestApp) {
        created(&app, None, "a").await;
        list(&app, Some("s=1")).await.refuses(401, "admin auth required");
    }
}
