//! The relay against a program that runs in this process.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::routing::{any, post};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::*;

/// Serve `router` on a free port until the returned value is dropped with its runtime.
async fn serving(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    TaskTracker::new().spawn(serve(listener, router, CancellationToken::new()));
    port
}

/// A relay before `program`: its vitals and its URL.
async fn before(program: Router) -> (Arc<Vitals>, String) {
    let vitals = Vitals::new(Program::Running(serving(program).await));
    let router = router(Arc::clone(&vitals), Value::Null).expect("a client");
    (vitals, format!("http://127.0.0.1:{}", serving(router).await))
}

fn client() -> reqwest::Client {
    platform::builder().expect("TLS").no_proxy().build().expect("a client")
}

#[tokio::test]
async fn answers_stream_while_the_program_still_writes() {
    let (writes, reads) = mpsc::channel::<&'static str>(1);
    let reads = Arc::new(std::sync::Mutex::new(Some(reads)));
    let program = Router::new().fallback(post(move || {
        let reads = reads.lock().expect("one caller").take().expect("one call");
        let parts = futures_util::stream::unfold(reads, |mut reads| async move {
            reads.recv().await.map(|part| (Ok::<_, Infallible>(part), reads))
        });
        async move { Body::from_stream(parts) }
    }));
    let (vitals, url) = before(program).await;
    writes.send("one").await.expect("room");
    let mut answer = client().post(url).send().await.expect("an answer");
    assert_eq!(answer.chunk().await.expect("a part"), Some(Bytes::from("one")));
    assert_eq!(vitals.active_turns(), 1, "the turn is not over");
    writes.send("two").await.expect("room");
    assert_eq!(answer.chunk().await.expect("a part"), Some(Bytes::from("two")));
    drop(writes);
    assert_eq!(answer.chunk().await.expect("the end"), None);
    assert_eq!((vitals.active_turns(), vitals.error_rate()), (0, 0.0));
}

#[tokio::test]
async fn requests_stream_and_arrive_whole() {
    let program = Router::new().fallback(any(|request: Request| async move {
        let (parts, body) = request.into_parts();
        let sizes = body.into_data_stream().map(|part| part.map_or(0, |bytes| bytes.len()));
        let size = sizes.fold(0, |sum, size| async move { sum + size }).await;
        let own = |name| parts.headers.get(name).is_some();
        format!("{} {} {size} {} {}", parts.method, parts.uri, own("x-kept"), own("x-dropped"))
    }));
    let (_, url) = before(program).await;
    let part = Bytes::from(vec![0; 1 << 20]);
    let parts = futures_util::stream::iter((0..12).map(move |_| Ok::<_, Infallible>(part.clone())));
    let request = client()
        .put(format!("{url}/a/b?c=d%20e"))
        .header("x-kept", "1")
        .header("x-dropped", "1")
        .header("connection", "x-dropped")
        .body(reqwest::Body::wrap_stream(parts));
    let text = request.send().await.expect("an answer").text().await.expect("text");
    assert_eq!(text, format!("PUT /a/b?c=d%20e {} true false", 12 << 20));
}

#[tokio::test]
async fn status_and_headers_come_back() {
    let program = Router::new()
        .fallback(any(|| async { (StatusCode::IM_A_TEAPOT, [("x-mine", "yes")], "short") }));
    let (vitals, url) = before(program).await;
    let answer = client().get(format!("{url}/x")).send().await.expect("an answer");
    assert_eq!(answer.status(), 418);
    assert_eq!(answer.headers()["x-mine"], "yes");
    assert_eq!(answer.content_length(), Some(5));
    assert_eq!(vitals.error_rate(), 0.0);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said() {
    let vitals = Vitals::new(Program::Starting);
    let router = router(Arc::clone(&vitals), Value::Null).expect("a client");
    let url = format!("http://127.0.0.1:{}", serving(router).await);
    // A port that was free a moment ago: nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = closed.local_addr().expect("bound").port();
    drop(closed);
    let table = [(Program::Starting, 503), (Program::Down, 503), (Program::Running(port), 502)];
    for (state, status) in table {
        vitals.set_program(state);
        let answer = client().post(&url).body("{}").send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{state:?}");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"], "the agent's program does not answer");
        assert!(body["detail"].is_string());
        let health = client().get(format!("{url}/health")).send().await.expect("an answer");
        let health: Value = health.json().await.expect("JSON");
        assert_eq!(health, json!({ "status": "ok", "child": state.word() }));
    }
    assert_eq!(vitals.error_rate(), 1.0);
    assert!(vitals.sample_error().contains("does not answer"));
}
