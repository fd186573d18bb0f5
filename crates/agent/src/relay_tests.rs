//! The relay against a program that runs in this process.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::any;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::*;
use crate::delivery::Running;
use crate::guards::Guards;
use crate::records::Records;
use crate::telling::Telling;
use crate::testing::Scratch;

/// An agent's routes before a program that `vitals` speaks of, with its records in `dir`.
fn front(vitals: &Arc<Vitals>, dir: &Scratch) -> Router {
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    let nowhere = "http://127.0.0.1:1".parse().expect("a URL");
    let telling = Telling::new(&nowhere, None, "ws-1", tasks.clone(), end).expect("a client");
    let relay = Relay::new(Arc::clone(vitals)).expect("a client");
    router(Arc::new(Front {
        answerer: Answerer::Program(relay),
        vitals: Arc::clone(vitals),
        records: Arc::new(Records::below(dir.path())),
        telling: Arc::new(telling),
        guards: Guards::ON,
        tasks,
        running: Arc::new(Running::default()),
        nudges: Arc::default(),
    }))
}

/// Serve `router` on a free port until the returned value is dropped with its runtime.
async fn serving(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    TaskTracker::new().spawn(serve(listener, router, CancellationToken::new()));
    port
}

/// A relay before `program`: its vitals and its URL.
async fn before(program: Router) -> (Arc<Vitals>, String) {
    // Gone when the test goes on: it is made again when it is needed.
    in_place(program, &Scratch::new()).await
}

/// The same, with its records in `dir`.
async fn in_place(program: Router, dir: &Scratch) -> (Arc<Vitals>, String) {
    let vitals = Vitals::new(Program::Running(serving(program).await));
    let router = front(&vitals, dir);
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
    let dir = Scratch::new();
    let router = front(&vitals, &dir);
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

/// A message to `url`, under a JSON-RPC id of its own.
async fn send(url: &str, id: u32, message: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let params = json!({ "message": { "messageId": message, "parts": [] } });
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "SendMessage", "params": params });
    let mut request = client().post(url).json(&body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

fn word(answer: &reqwest::Response) -> &str {
    answer.headers().get("ligand-turn").map_or("", |word| word.to_str().expect("text"))
}

/// A program that answers as it is told, one answer after the other, the last one for ever; each turn sends a number.
fn scripted(answers: Vec<StatusCode>) -> (Router, mpsc::UnboundedReceiver<usize>) {
    let (ran, runs) = mpsc::unbounded_channel();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let turn = move |body: Bytes| {
        let nth = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ran.send(nth).expect("heard");
        let status = answers[nth.min(answers.len() - 1)];
        let id = serde_json::from_slice::<Value>(&body).expect("JSON")["id"].take();
        let reply = json!({ "jsonrpc": "2.0", "id": id, "result": { "nth": nth } });
        async move { (status, [("ligand-turn", "forged"), ("x-mine", "yes")], Json(reply)) }
    };
    (Router::new().fallback(any(turn)), runs)
}

#[tokio::test]
async fn a_message_that_comes_again_gets_its_answer_again_under_its_own_id() {
    let dir = Scratch::new();
    let (program, mut runs) = scripted(vec![StatusCode::OK]);
    let (vitals, url) = in_place(program, &dir).await;
    let first = send(&url, 1, "m", &[("ligand-message", "row"), ("ligand-attempt", "1")]).await;
    assert_eq!((word(&first), first.headers()["x-mine"].as_bytes()), ("processed", &b"yes"[..]));
    let started = first.headers()["ligand-started-at"].clone();
    let expected = json!({ "jsonrpc": "2.0", "id": 1, "result": { "nth": 0 } });
    assert_eq!(first.json::<Value>().await.expect("JSON"), expected);

    // Another agent on the same records: as after a restart.
    let (_, later) = in_place(scripted(vec![StatusCode::OK]).0, &dir).await;
    for url in [&url, &later] {
        let again = send(url, 2, "m", &[("ligand-message", "row"), ("ligand-attempt", "2")]).await;
        assert_eq!((again.status(), word(&again)), (StatusCode::OK, "replayed"));
        assert_eq!(again.headers()["ligand-started-at"], started);
        assert_eq!(again.headers()["content-type"], "application/json");
        let expected = json!({ "jsonrpc": "2.0", "id": 2, "result": { "nth": 0 } });
        assert_eq!(again.json::<Value>().await.expect("JSON"), expected);
    }
    let other = json!({ "id": 3, "params": { "message": { "messageId": "m", "parts": [1] } } });
    let other = client().post(&url).json(&other).send().await.expect("an answer");
    assert_eq!((other.status(), word(&other)), (StatusCode::UNPROCESSABLE_ENTITY, ""));
    assert_eq!(other.json::<Value>().await.expect("JSON")["id"], 3);
    assert_eq!((runs.try_recv(), runs.try_recv().is_err()), (Ok(0), true), "it was run once");
    assert_eq!((vitals.active_turns(), vitals.error_rate()), (0, 0.0));
}

#[tokio::test]
async fn what_a_program_declines_comes_again_and_a_failure_only_when_asked_for() {
    let dir = Scratch::new();
    let declined = StatusCode::SERVICE_UNAVAILABLE;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let (program, mut runs) = scripted(vec![declined, failed, StatusCode::OK]);
    let (vitals, url) = in_place(program, &dir).await;
    let row = ("ligand-message", "row");
    let table = [
        (false, declined, "", 0),
        (false, failed, "processed", 1),
        (false, failed, "replayed", 1),
        (true, StatusCode::OK, "processed", 2),
        (true, StatusCode::OK, "replayed", 2),
    ];
    for (again, status, said, nth) in table {
        let again = ("ligand-again", if again { "true" } else { "false" });
        let answer = send(&url, 1, "m", &[row, again]).await;
        // What is no turn's end is passed back without a word of ours, and without a forged one.
        assert_eq!((answer.status(), word(&answer)), (status, said));
        assert_eq!(answer.json::<Value>().await.expect("JSON")["result"]["nth"], nth);
    }
    let ran = std::iter::from_fn(|| runs.try_recv().ok());
    assert_eq!(ran.collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(vitals.active_turns(), 0);
}

#[tokio::test]
async fn who_comes_meanwhile_waits_and_who_goes_away_ends_nothing() {
    let dir = Scratch::new();
    let (ran, mut runs) = mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let program = Router::new().fallback(any(move || {
        ran.send(()).expect("heard");
        let gate = Arc::clone(&gate);
        async move {
            let _open = gate.acquire().await.expect("never closed");
            Json(json!({ "id": 1, "result": "done" }))
        }
    }));
    let (vitals, url) = in_place(program, &dir).await;
    {
        let gone = send(&url, 1, "m", &[]);
        tokio::select! { _ = gone => panic!("too early"), _ = runs.recv() => {} }
    }
    let (second, third) = (send(&url, 2, "m", &[]), send(&url, 3, "m", &[]));
    let open = async {
        assert_eq!(vitals.active_turns(), 1, "one turn, whoever waits for it");
        // The others need not have come yet: then they get the record.
        opened.add_permits(1);
    };
    let (second, third, ()) = tokio::join!(second, third, open);
    for (id, answer) in [(2, second), (3, third)] {
        assert_eq!(word(&answer), "replayed");
        assert_eq!(
            answer.json::<Value>().await.expect("JSON"),
            json!({ "id": id, "result": "done" })
        );
    }
    assert!(runs.try_recv().is_err(), "it was run once");
    assert_eq!((vitals.active_turns(), vitals.error_rate()), (0, 0.0));
}

/// A program that streams what it is sent, and breaks off at an `Err`.
fn streaming() -> (mpsc::Sender<Result<String, String>>, Router) {
    let (writes, reads) = mpsc::channel(1);
    let reads = Arc::new(std::sync::Mutex::new(Some(reads)));
    let program = Router::new().fallback(any(move || {
        let reads = reads.lock().expect("one caller").take().expect("one call");
        let parts =
            futures_util::stream::unfold(reads, |mut reads: mpsc::Receiver<_>| async move {
                reads.recv().await.map(|part| (part, reads))
            });
        async move {
            ([("content-type", "text/event-stream")], Body::from_stream(parts)).into_response()
        }
    }));
    (writes, program)
}

fn event(id: u32, text: &str) -> String {
    format!("data: {}\n\n", json!({ "id": id, "result": text }))
}

#[tokio::test]
async fn a_stream_comes_as_it_is_written_and_again_as_it_was() {
    let dir = Scratch::new();
    let (writes, program) = streaming();
    let (vitals, url) = in_place(program, &dir).await;
    writes.send(Ok(event(1, "one"))).await.expect("room");
    let mut live = send(&url, 1, "m", &[]).await;
    assert_eq!(word(&live), "processed");
    assert_eq!(live.chunk().await.expect("a part"), Some(Bytes::from(event(1, "one"))));
    writes.send(Ok(event(1, "two"))).await.expect("room");
    assert_eq!(live.chunk().await.expect("a part"), Some(Bytes::from(event(1, "two"))));
    assert_eq!(vitals.active_turns(), 1);
    // The caller goes away; the program writes on.
    drop(live);
    for nth in 0..40 {
        writes.send(Ok(event(1, &format!("more {nth}")))).await.expect("room");
    }
    let joined = send(&url, 2, "m", &[]);
    let end = async { drop(writes) };
    let (joined, ()) = tokio::join!(joined, end);
    let again = send(&url, 1, "m", &[]).await;
    for (id, answer) in [(2, joined), (1, again)] {
        assert_eq!(word(&answer), "replayed");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let text = answer.text().await.expect("whole");
        let more: String = (0..40).map(|nth| event(id, &format!("more {nth}"))).collect();
        assert_eq!(text, format!("{}{}{more}", event(id, "one"), event(id, "two")));
    }
}

#[tokio::test]
async fn of_a_stream_that_is_too_long_the_end_comes_again() {
    let dir = Scratch::new();
    let (writes, program) = streaming();
    let (_, url) = in_place(program, &dir).await;
    let large = "x".repeat(100_000);
    let write = async {
        for _ in 0..30 {
            writes.send(Ok(event(1, &large))).await.expect("room");
        }
        writes.send(Ok(event(1, "last"))).await.expect("room");
        drop(writes);
    };
    let read = async { send(&url, 1, "m", &[]).await.text().await.expect("whole") };
    let (whole, ()) = tokio::join!(read, write);
    assert_eq!(whole.len(), 30 * event(1, &large).len() + event(1, "last").len());
    let again = send(&url, 1, "m", &[]).await.text().await.expect("whole");
    assert!(again.starts_with(": the beginning was not kept\n\ndata: {"));
    assert!(again.ends_with(&format!("{}{}", event(1, &large), event(1, "last"))));
    assert!(again.len() <= 1 << 20);
}

#[tokio::test]
async fn a_long_answer_is_given_once_and_its_end_is_known() {
    let dir = Scratch::new();
    let program = Router::new().fallback(any(|| async { "x".repeat(3 << 20) }));
    let (_, url) = in_place(program, &dir).await;
    let first = send(&url, 1, "m", &[]).await;
    assert_eq!((word(&first), first.content_length()), ("processed", Some(3 << 20)));
    assert_eq!(first.text().await.expect("whole").len(), 3 << 20);
    let again = send(&url, 2, "m", &[]).await;
    assert_eq!((again.status(), word(&again)), (StatusCode::OK, "replayed"));
    let body: Value = again.json().await.expect("JSON");
    assert_eq!(
        (&body["id"], &body["error"]["data"]["code"]),
        (&json!(2), &json!("answer-not-kept"))
    );
}

#[tokio::test]
async fn a_turn_that_breaks_off_may_have_run_and_is_not_run_again() {
    let dir = Scratch::new();
    let (writes, program) = streaming();
    let (vitals, url) = in_place(program, &dir).await;
    writes.send(Ok(event(1, "one"))).await.expect("room");
    let mut live = send(&url, 1, "m", &[]).await;
    assert!(live.chunk().await.expect("a part").is_some());
    writes.send(Err("gone".to_owned())).await.expect("room");
    assert!(live.chunk().await.is_err(), "not taken for a whole answer");
    let again = send(&url, 2, "m", &[("ligand-message", "row")]).await;
    assert_eq!((again.status(), word(&again)), (StatusCode::CONFLICT, "interrupted"));
    assert!(again.headers().contains_key("ligand-started-at"));
    let body: Value = again.json().await.expect("JSON");
    assert_eq!(
        (&body["id"], &body["error"]["data"]["code"]),
        (&json!(2), &json!("turn-interrupted"))
    );
    assert_eq!((vitals.active_turns(), vitals.error_rate()), (0, 1.0));

    // Nobody listens: it cannot have run.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    vitals.set_program(Program::Running(closed.local_addr().expect("bound").port()));
    drop(closed);
    for _ in 0..2 {
        let answer = send(&url, 1, "n", &[]).await;
        assert_eq!((answer.status(), word(&answer)), (StatusCode::BAD_GATEWAY, ""));
    }
    vitals.set_program(Program::Down);
    let answer = send(&url, 1, "n", &[]).await;
    assert_eq!((answer.status(), word(&answer)), (StatusCode::SERVICE_UNAVAILABLE, ""));
}
