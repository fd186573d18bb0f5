//! A platform that answers by script and remembers every call.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Longest wait for anything in these tests. Reached only by a test that fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// One call of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// `register`, `heartbeat`, `rotate` or `secrets`.
    pub(crate) name: String,
    pub(crate) bearer: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) org: Option<String>,
    pub(crate) body: Value,
}

impl Call {
    pub(crate) fn is(&self, name: &str, bearer: Option<&str>) -> bool {
        self.name == name && self.bearer.as_deref() == bearer
    }
}

/// What the platform does with a call.
pub(crate) enum Reply {
    Json(u16, Value),
    /// The connection breaks after the head of a 200.
    Lost,
}

/// The usual answers: a credential, and a heartbeat each second.
pub(crate) fn welcome(token: &str) -> Reply {
    Reply::Json(200, json!({ "status": "registered", "auth_token": token }))
}

pub(crate) fn beaten() -> Reply {
    Reply::Json(200, json!({ "status": "ok", "next_heartbeat_seconds": 1 }))
}

pub(crate) fn refused(action: Option<&str>) -> Reply {
    let body = json!({ "error": "invalid token", "detail": "it was replaced", "action": action });
    Reply::Json(401, body)
}

type Script = dyn Fn(&Call, &[Call]) -> Reply + Send + Sync;

struct Shared {
    calls: watch::Sender<Vec<Call>>,
    script: Box<Script>,
}

/// The platform. It serves until the test's runtime ends.
pub(crate) struct Platform {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl Platform {
    /// `script` sees the call and those before it.
    pub(crate) async fn start(
        script: impl Fn(&Call, &[Call]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(0, script).await
    }

    /// The same on a given port.
    pub(crate) async fn start_at(
        port: u16,
        script: impl Fn(&Call, &[Call]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared { calls: watch::Sender::default(), script: Box::new(script) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        TaskTracker::new().spawn(async { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.borrow().clone()
    }

    /// Wait until the calls satisfy `good`, and give them.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        let mut changes = self.shared.calls.subscribe();
        let seen = tokio::time::timeout(DEADLINE, changes.wait_for(|calls| good(calls))).await;
        match seen {
            Ok(calls) => calls.expect("the sender lives").clone(),
            Err(_) => panic!("waited in vain for {what}; calls: {:#?}", self.calls()),
        }
    }

    /// Wait for one more heartbeat that satisfies `good`.
    pub(crate) async fn until_beat(&self, what: &str, good: impl Fn(&Call) -> bool) {
        let before = self.calls().len();
        let good = |calls: &[Call]| {
            calls.iter().skip(before).any(|call| call.name == "heartbeat" && good(call))
        };
        self.until(what, good).await;
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let header = |name: &str| Some(headers.get(name)?.to_str().expect("text").to_owned());
    let bearer = header("authorization");
    let path = uri.path();
    let name = if path == "/workspaces/ws-1/secrets/values" { "secrets" } else { path };
    let call = Call {
        name: name.trim_start_matches("/registry/").to_owned(),
        bearer: bearer.map(|text| text.trim_start_matches("Bearer ").to_owned()),
        key: header("idempotency-key"),
        org: header("x-molecule-org-id"),
        body: if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).expect("JSON")
        },
    };
    let reply = (shared.script)(&call, &shared.calls.borrow());
    shared.calls.send_modify(|calls| calls.push(call));
    match reply {
        Reply::Json(status, body) => {
            let response = Response::builder().status(status);
            response.header("content-type", "application/json").body(body.to_string().into())
        }
        Reply::Lost => {
            let broken = futures_util::stream::iter([Err::<Bytes, _>("lost")]);
            Response::builder().header("content-length", "99").body(Body::from_stream(broken))
        }
    }
    .expect("a response")
}
