//! A server without sockets: the real router, the real reconciler, a fake backend, a clock of our own, on
//! each of the two engines.

pub(crate) mod agent;
pub(crate) mod calls_of_platforms;
pub(crate) mod control_plane;
pub(crate) mod docker;
pub(crate) mod engine;
pub(crate) mod house;
pub(crate) mod modes;
pub(crate) mod runtime;
pub(crate) mod s3;
pub(crate) mod standby;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use ligand_domain::time::Timestamp;
use ligand_server::app::{App, Clock, Ground, Ids, Names};
use ligand_server::backend::fake::Fake;
use ligand_server::backend::{Backend, Backends, Push, Pushes};
use ligand_server::config::{Config, File, Flags, Secret, resolve};
use ligand_server::db::Db;
use ligand_server::reconcile::{Pass, Reconciler as _};
use ligand_server::transfer::Place;
use ligand_server::workspaces::{self, WorkspaceReconciler};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tower::ServiceExt as _;

/// No two servers of a run give out the same ids.
static SEED: AtomicU64 = AtomicU64::new(1);

pub(crate) const ADMIN: &str = "the-admin-token-of-the-tests";

/// Run a test on both engines. Each gets a database of its own.
macro_rules! both {
    ($($(#[$meta:meta])* async fn $name:ident($app:ident: TestApp) $body:block)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            $crate::support::engine::on_both(stringify!($name), |$app: $crate::support::TestApp| async move { $body });
        }
    )*};
}
pub(crate) use both;

pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) fake: Fake,
    /// Another backend of the same kind, where a test asked for one.
    other: Option<Fake>,
    router: Router,
    pushed: Mutex<UnboundedReceiver<Push>>,
}

/// Let real time pass (ms): for what waits for somebody else, not for a clock.
#[expect(clippy::disallowed_methods, reason = "no clock of a server's is waited for")]
pub(crate) async fn a_moment(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// Status and body, as a test compares them.
    pub(crate) fn is(&self, status: u16, body: &Value) {
        assert_eq!((self.status.as_u16(), &self.body), (status, body), "{self:?}");
    }

    /// Status, and the contract's error text.
    pub(crate) fn refuses(&self, status: u16, error: &str) {
        assert_eq!(
            (self.status.as_u16(), self.body["error"].as_str()),
            (status, Some(error)),
            "{self:?}"
        );
    }

    /// The body of a success.
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.body
    }
}

impl TestApp {
    pub(crate) fn new(db: Db, adjust: impl FnOnce(&mut Config)) -> Self {
        let resolved = resolve(&Flags::default(), &|_| None, None, File::default()).unwrap();
        let mut config = resolved.config;
        config.admin_token = Secret::new(ADMIN.to_owned());
        config.backend = Some("fake".to_owned());
        config.migrations.store = Place::memory();
        // The clock of a test stands still: its minute never ends.
        config.edge.rate_limit = u32::MAX;
        config.agent = vec!["ligand".to_owned(), "agent".to_owned()];
        adjust(&mut config);
        let (pushes, pushed) = Pushes::channel();
        let fake = Fake::new(pushes);
        let started = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let backend = Arc::new(fake.clone());
        let ground = (db, config, Clock::manual(started));
        Self::assemble(ground, (fake, None), Mutex::new(pushed), backend)
    }

    /// Another server on the same database and the same backend, as after a crash: what was in memory is
    /// gone.
    pub(crate) fn reborn(self) -> Self {
        let (db, config, now) =
            (self.app.db.clone(), self.app.config.clone(), self.app.clock.now());
        let backend = Arc::new(self.fake.clone());
        let ground = (db, config, Clock::manual(now));
        Self::assemble(ground, (self.fake, self.other), self.pushed, backend)
    }

    /// The same server, with a backend that is more than the fake one.
    pub(crate) fn on(self, backend: impl FnOnce(Fake) -> Arc<dyn Backend>) -> Self {
        let (db, config, clock) =
            (self.app.db.clone(), self.app.config.clone(), self.app.clock.clone());
        let backend = backend(self.fake.clone());
        Self::assemble((db, config, clock), (self.fake, self.other), self.pushed, backend)
    }

    /// The same server, with a second backend, `other`.
    pub(crate) fn with_other(self) -> Self {
        let (db, config, clock) =
            (self.app.db.clone(), self.app.config.clone(), self.app.clock.clone());
        let other = Fake::new(Pushes::channel().0);
        let backend = Arc::new(self.fake.clone());
        Self::assemble((db, config, clock), (self.fake, Some(other)), self.pushed, backend)
    }

    /// The second backend.
    pub(crate) fn other(&self) -> &Fake {
        self.other.as_ref().unwrap()
    }

    /// Answer on a socket too. Gives its address.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self.router.clone().into_make_service_with_connect_info::<SocketAddr>();
        self.app.spawn(async move { axum::serve(listener, service).await.unwrap() });
        address
    }

    /// The same server, started again with other settings.
    pub(crate) fn with(self, adjust: impl FnOnce(&mut Config)) -> Self {
        let (db, mut config, now) =
            (self.app.db.clone(), self.app.config.clone(), self.app.clock.now());
        adjust(&mut config);
        let backend = Arc::new(self.fake.clone());
        let ground = (db, config, Clock::manual(now));
        Self::assemble(ground, (self.fake, self.other), self.pushed, backend)
    }

    /// A second server at the same time, with connections and a memory of its own.
    pub(crate) fn replica(&self, db: Db) -> Self {
        let (config, clock) = (self.app.config.clone(), self.app.clock.clone());
        // What the backend pushes, the first one hears.
        let (_, nothing) = Pushes::channel();
        let backend = Arc::new(self.fake.clone());
        let fakes = (self.fake.clone(), self.other.clone());
        Self::assemble((db, config, clock), fakes, Mutex::new(nothing), backend)
    }

    fn assemble(
        (db, config, clock): (Db, Config, Clock),
        (fake, other): (Fake, Option<Fake>),
        pushed: Mutex<UnboundedReceiver<Push>>,
        backend: Arc<dyn Backend>,
    ) -> Self {
        let mut named: Vec<(String, Arc<dyn Backend>)> = Vec::new();
        if config.backend.is_some() {
            named.push(("fake".to_owned(), backend));
        }
        if let Some(other) = &other {
            named.push(("other".to_owned(), Arc::new(other.clone())));
        }
        let backends = Backends::new(named);
        let app = App::new(Ground {
            db,
            clock,
            ids: Ids::seeded(SEED.fetch_add(1, Ordering::Relaxed)),
            names: Names::table(),
            backends,
            config,
            http: ligand_api::http::builder().unwrap().no_proxy().build().unwrap(),
        });
        let router = ligand_server::routes::router(app.clone());
        Self { app, fake, other, router, pushed }
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: head.status, headers: head.headers, body, text }
    }

    /// A response whose body is not read: for streams.
    pub(crate) async fn response(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let text = body.map(|body| body.to_string());
        self.send(method, path, token, text, &[]).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<String>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(body.map_or_else(Body::empty, Body::from)).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Some(ADMIN), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(ADMIN), Some(body)).await
    }

    /// Create a managed workspace, not started yet. Gives its id.
    pub(crate) async fn create(&self, name: &str) -> String {
        let created = self.post("/workspaces", serde_json::json!({"name": name})).await.ok();
        created["id"].as_str().unwrap().to_owned()
    }

    /// The workspace as its administrator sees it.
    pub(crate) async fn workspace(&self, id: &str) -> Value {
        self.get(&format!("/workspaces/{id}")).await.ok()
    }

    /// Take one pass.
    pub(crate) async fn pass(&self) -> Pass {
        while let Ok(push) = self.pushed.lock().await.try_recv() {
            workspaces::heed(&self.app, push).await.unwrap();
        }
        WorkspaceReconciler.pass(&self.app).await.unwrap()
    }

    /// Reconcile until there is nothing to do at this time.
    pub(crate) async fn settle(&self) {
        for _ in 0..200 {
            if self.pass().await.looked_at == 0 {
                return;
            }
        }
        panic!("the reconciler does not come to rest");
    }

    /// Let time pass, and reconcile.
    pub(crate) async fn later(&self, seconds: u64) {
        self.app.clock.advance(Duration::from_secs(seconds));
        self.settle().await;
    }

    /// Delete and reconcile at the same time, as a running server does.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.meanwhile(self.call("DELETE", path, Some(ADMIN), None)).await
    }

    /// Post without a body and reconcile at the same time, as a running server does.
    pub(crate) async fn ask(&self, path: &str) -> Answer {
        self.meanwhile(self.call("POST", path, Some(ADMIN), None)).await
    }

    /// Reconcile until something is answered.
    pub(crate) async fn meanwhile<T>(&self, call: impl Future<Output = T>) -> T {
        let answered = std::cell::Cell::new(false);
        let call = async {
            let answer = call.await;
            answered.set(true);
            answer
        };
        let reconcile = async {
            while !answered.get() {
                self.pass().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(call, reconcile).0
    }

    /// Names of the stored events about a workspace, oldest first.
    pub(crate) async fn events(&self, id: &str) -> Vec<String> {
        let events = self.get(&format!("/events/{id}")).await.ok();
        let names = events.as_array().unwrap().iter().rev();
        names.map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
    }

    /// Kinds of the decisions about a workspace, oldest first.
    pub(crate) async fn journal(&self, id: &str) -> Vec<String> {
        let why = self.get(&format!("/workspaces/{id}/why")).await.ok();
        let entries = why["journal"].as_array().unwrap().iter();
        entries.map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Run SQL that no part of the server has: to break the database, or to look into it.
    pub(crate) async fn sql(&self, text: &'static str) {
        match &self.app.db {
            Db::Postgres { pool, .. } => drop(sqlx::query(text).execute(pool).await.unwrap()),
            Db::Sqlite { write, .. } => drop(sqlx::query(text).execute(write).await.unwrap()),
        }
    }

    /// The environment of the newest instance of a workspace.
    pub(crate) fn env(&self, id: &str) -> BTreeMap<String, String> {
        self.fake.newest(id.parse().unwrap()).unwrap().env
    }
}
