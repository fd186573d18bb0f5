//! Agents' HTTP servers on real sockets, and what they are sent.

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::agent::{Agent, online};
use super::{ADMIN, Answer, TestApp, a_moment};

/// What an agent was sent: headers and body, in order.
pub(crate) type Seen = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// An agent's HTTP server that answers every turn like this.
pub(crate) async fn answering(
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (String, Seen) {
    serving(move || ready(answer())).await
}

/// One that begins every turn, and ends one for each permit.
pub(crate) async fn patient(answer: &'static str) -> (String, Seen, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&permits);
    let turn = move || {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            answer.into_response()
        }
    };
    let (url, seen) = serving(turn).await;
    (url, seen, permits)
}

pub(crate) async fn serving<F: Future<Output = Response> + Send>(
    turn: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> (String, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let handler = move |headers: HeaderMap, body: String| {
        let body = serde_json::from_str(&body).unwrap();
        noted.lock().unwrap().push((headers, body));
        turn()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    (url, seen)
}

/// Reads a request, says this, and hangs up. Gives how often it was called, too.
pub(crate) async fn hanging_up(says: &'static str) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            // The end of a JSON body is not the end of the connection.
            while !read.ends_with(b"}") {
                let mut part = [0; 1024];
                let count = socket.read(&mut part).await.unwrap_or(0);
                if count == 0 {
                    break;
                }
                read.extend_from_slice(&part[..count]);
            }
            *counted.lock().unwrap() += 1;
            let _ = socket.write_all(says.as_bytes()).await;
        }
    });
    (url, calls)
}

/// A bare message without a name.
pub(crate) fn said(text: &str) -> Value {
    json!({"method": "message/send", "params": {"message": {"role": "user", "parts": [{"kind": "text", "text": text}]}}})
}

/// An envelope with a named message.
pub(crate) fn named(name: &str, text: &str) -> Value {
    let parts = json!([{"kind": "text", "text": text}]);
    let message = json!({"messageId": name, "role": "user", "parts": parts});
    json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}})
}

/// A workspace whose agent answers at `url`, which its backend reported.
pub(crate) async fn served(app: &TestApp, name: &str, url: &str) -> (String, Agent) {
    app.fake.report_address(Some(url.to_owned()));
    online(app, name).await
}

/// The same, whose agent remembers what it was given.
pub(crate) async fn remembering(app: &TestApp, name: &str, url: &str) -> (String, Agent) {
    let (id, agent) = served(app, name, url).await;
    let able = json!({"ligand": {"version": "0", "features": ["paced", "turns"]}});
    agent.register_with(app, able, &[]).await.ok();
    app.settle().await;
    (id, agent)
}

/// Send as a user.
pub(crate) async fn send(app: &TestApp, id: &str, token: &str) -> Answer {
    app.call("POST", &format!("/workspaces/{id}/a2a"), Some(token), Some(said("hi"))).await
}

/// Send this as a user, with these headers.
pub(crate) async fn send_with(
    app: &TestApp,
    id: &str,
    body: &Value,
    headers: &[(&str, &str)],
) -> Answer {
    app.send("POST", &format!("/workspaces/{id}/a2a"), Some(ADMIN), Some(body.to_string()), headers)
        .await
}

/// Have a message accepted. Gives its id in the ledger.
pub(crate) async fn accepted(app: &TestApp, id: &str, body: &Value) -> String {
    let answer = send_with(app, id, body, &[("prefer", "respond-async")]).await;
    assert_eq!((answer.status.as_u16(), &answer.body["queued"]), (202, &json!(true)), "{answer:?}");
    answer.body["queue_id"].as_str().unwrap().to_owned()
}

/// A message as operators see it.
pub(crate) async fn message(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/admin/messages/{id}")).await.ok()
}

/// The messages of a workspace, newest first.
pub(crate) async fn ledger(app: &TestApp, workspace: &str) -> Vec<Value> {
    let page = app.get(&format!("/admin/messages?workspace_id={workspace}")).await.ok();
    page["messages"].as_array().unwrap().clone()
}

/// Wait until a message stands there.
pub(crate) async fn stands(app: &TestApp, id: &str, state: &str) -> Value {
    for _ in 0..500 {
        let message = message(app, id).await;
        if message["state"] == state {
            return message;
        }
        a_moment(10).await;
    }
    panic!("{id} is not {state}: {}", message(app, id).await);
}

/// Take one pass of deliveries, and give what it starts a moment to begin.
pub(crate) async fn deliver(app: &TestApp) -> u64 {
    use ligand_server::reconcile::Reconciler as _;
    let pass = ligand_server::messages::DeliveryReconciler.pass(&app.app).await.unwrap();
    pass.looked_at
}

/// Let time pass, and take one pass of deliveries.
pub(crate) async fn deliver_later(app: &TestApp, seconds: u64) -> u64 {
    app.app.clock.advance(Duration::from_secs(seconds));
    deliver(app).await
}

/// Wait until an agent was sent so many.
pub(crate) async fn sent(seen: &Seen, count: usize) {
    for _ in 0..500 {
        if seen.lock().unwrap().len() >= count {
            return;
        }
        a_moment(10).await;
    }
    panic!("{} of {count} came", seen.lock().unwrap().len());
}
