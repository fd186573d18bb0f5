//! A platform on a socket that writes down what it is asked, and answers what it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::net::TcpListener;

/// One call that came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Method and path.
    pub(crate) what: String,
    /// `Authorization`.
    pub(crate) authorization: String,
    /// `X-Molecule-Org-Id`.
    pub(crate) org: String,
    /// Its body.
    pub(crate) body: Value,
}

type Reply = Box<dyn Fn(&Call) -> (u16, Value) + Send>;

#[derive(Clone)]
pub(crate) struct Platform(Arc<Inner>);

struct Inner {
    calls: Mutex<Vec<Call>>,
    reply: Mutex<Reply>,
    address: SocketAddr,
}

impl Platform {
    /// Listen, and answer so.
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    pub(crate) async fn listen(reply: impl Fn(&Call) -> (u16, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reply: Reply = Box::new(reply);
        let it =
            Self(Arc::new(Inner { calls: Mutex::default(), reply: Mutex::new(reply), address }));
        let router = Router::new().fallback(answer).with_state(it.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        it
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub(crate) fn answer(&self, reply: impl Fn(&Call) -> (u16, Value) + Send + 'static) {
        *self.0.reply.lock().unwrap() = Box::new(reply);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().unwrap().clone()
    }
}

async fn answer(State(platform): State<Platform>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let header =
        |name: &str| head.headers.get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
    let bytes = body.collect().await.unwrap().to_bytes();
    let call = Call {
        what: format!("{} {}", head.method, head.uri.path()),
        authorization: header("authorization"),
        org: header("x-molecule-org-id"),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    let (status, body) = platform.0.reply.lock().unwrap()(&call);
    platform.0.calls.lock().unwrap().push(call);
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}
