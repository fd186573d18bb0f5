//! A fleet without sockets: the real router, the real reconcilers, two fake providers and a clock of our own, on each
//! of the two engines; and a platform that answers what it is told to.

pub(crate) mod engine;
pub(crate) mod platform;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use ligand_domain::secrets::Key;
use ligand_domain::time::Timestamp;
use ligand_fleet::app::{Fleet, Ground};
use ligand_fleet::config::{File, Flags, resolve};
use ligand_fleet::drive::{Pass, Reconciler};
use ligand_fleet::garbage::GarbageReconciler;
use ligand_fleet::instances::InstanceReconciler;
use ligand_fleet::notices::NoticeReconciler;
use ligand_fleet::serve::client;
use ligand_fleet::transfers::TransferReconciler;
use ligand_server::app::{Clock, Ids};
use ligand_server::backend::fake::Fake;
use ligand_server::backend::{Backend, Backends, Pushes};
use ligand_server::config::Secret;
use ligand_server::db::Db;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// No two fleets of a run give out the same ids.
static SEED: AtomicU64 = AtomicU64::new(1);

pub(crate) const OPERATOR: &str = "the-operators-token-of-the-tests";
pub(crate) const SECRET: &str = "the-shared-secret-of-the-tests";
/// The workspace of most tests.
pub(crate) const WORKSPACE: &str = "11111111-1111-4111-8111-111111111111";

/// Run a test on both engines. Each gets a database of its own.
macro_rules! both {
    ($($(#[$meta:meta])* async fn $name:ident($app:ident: TestFleet) $body:block)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            $crate::support::engine::on_both(stringify!($name), |db| async move {
                let $app = $crate::support::TestFleet::new(db).await;
                $body
            });
        }
    )*};
}
pub(crate) use both;

pub(crate) struct TestFleet {
    pub(crate) fleet: Fleet,
    /// Providers `a` (the default) and `b`.
    pub(crate) a: Fake,
    pub(crate) b: Fake,
    router: Router,
    /// The token of the administrator of the organisation `acme`.
    pub(crate) token: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) bytes: bytes::Bytes,
}

impl Answer {
    /// The body of an answer with this status.
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self.body
    }
}

impl TestFleet {
    pub(crate) async fn new(db: Db) -> Self {
        let (pushes, _) = Pushes::channel();
        let (a, b) = (Fake::new(pushes.clone()), Fake::new(pushes));
        let started = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let mut it = Self::assemble(db, Clock::manual(started), (a, b), String::new());
        it.token = it.org("acme").await;
        it
    }

    fn assemble(db: Db, clock: Clock, (a, b): (Fake, Fake), token: String) -> Self {
        let resolved = resolve(&Flags::default(), &|_| None, None, File::default()).unwrap();
        let mut config = resolved.config;
        config.admin_token = Secret::new(OPERATOR.to_owned());
        config.shared_secret = Secret::new(SECRET.to_owned());
        config.keys.current = Key::parse("0123456789abcdef0123456789abcdef");
        config.provider = "a".to_owned();
        config.agent = vec!["/bin/ligand".to_owned(), "agent".to_owned()];
        let providers: [(String, Arc<dyn Backend>); 2] =
            [("a".to_owned(), Arc::new(a.clone())), ("b".to_owned(), Arc::new(b.clone()))];
        let fleet = Fleet::new(Ground {
            db,
            clock,
            ids: Ids::seeded(SEED.fetch_add(1, Ordering::Relaxed)),
            providers: Backends::new(providers),
            config,
            http: client().unwrap(),
        });
        let router = ligand_fleet::routes::router(fleet.clone());
        Self { fleet, a, b, router, token }
    }

    /// Another fleet on the same database and the same providers, as after a crash.
    pub(crate) fn reborn(self) -> Self {
        let (db, clock) = (self.fleet.db.clone(), self.fleet.clock.clone());
        Self::assemble(db, clock, (self.a, self.b), self.token)
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: head.status, headers: head.headers, body, bytes }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(body.into()).unwrap()).await
    }

    /// As the fleet's operator.
    pub(crate) async fn operate(&self, method: &str, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {OPERATOR}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("authorization", &bearer)], body).await
    }

    /// As a platform with this administrator's token. Reconcilers go on meanwhile.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> Answer {
        let bearer = format!("Bearer {SECRET}");
        let headers = [("authorization", bearer.as_str()), ("x-molecule-admin-token", token)];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.meanwhile(self.send(method, path, &headers, body)).await
    }

    /// As the platform of `acme`.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.call_as(&self.token, method, path, body).await
    }

    /// Create an organisation. Gives the token of its administrator.
    pub(crate) async fn org(&self, slug: &str) -> String {
        let new = json!({"slug": slug, "name": slug, "owner_user_id": "u-1"});
        self.operate("POST", "/cp/admin/orgs", new).await.is(201);
        let path = format!("/cp/admin/orgs/{slug}/admin-token");
        let token = self.operate("GET", &path, Value::Null).await.is(200);
        token["admin_token"].as_str().unwrap().to_owned()
    }

    /// Ask for an instance of the usual workspace, and get it.
    pub(crate) async fn provision(&self, more: Value) -> Value {
        let asked = asked(more);
        self.call("POST", "/cp/workspaces/provision", asked).await.is(201)
    }

    /// What an instance does.
    pub(crate) async fn status(&self, instance: &Value) -> Value {
        let id = instance["instance_id"].as_str().unwrap();
        let path = format!("/cp/workspaces/{WORKSPACE}/status?instance_id={id}");
        self.call("GET", &path, Value::Null).await.is(200)
    }

    /// One pass of a reconciler.
    pub(crate) async fn pass(&self, of: &dyn Reconciler) -> Pass {
        of.pass(&self.fleet).await.unwrap()
    }

    /// Reconcile instances until nothing is due now.
    pub(crate) async fn settle(&self) {
        for _ in 0..100 {
            if self.pass(&InstanceReconciler).await.looked_at == 0 {
                return;
            }
        }
        panic!("the reconciler does not come to rest");
    }

    /// Let time pass, and reconcile.
    pub(crate) async fn later(&self, seconds: u64) {
        self.fleet.clock.advance(Duration::from_secs(seconds));
        self.settle().await;
    }

    pub(crate) async fn sweep(&self) -> Pass {
        self.pass(&GarbageReconciler).await
    }

    pub(crate) async fn notify(&self) {
        while self.pass(&NoticeReconciler).await.looked_at > 0 {}
    }

    pub(crate) async fn transfer(&self) {
        while self.pass(&TransferReconciler).await.looked_at > 0 {}
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
                self.pass(&InstanceReconciler).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(call, reconcile).0
    }

    /// Words of the journal, oldest first.
    pub(crate) async fn journal(&self) -> Vec<String> {
        let journal = self.operate("GET", "/cp/admin/journal", Value::Null).await.is(200);
        let decisions = journal["decisions"].as_array().unwrap().iter().rev();
        let words = decisions.map(|it| format!("{}: {}", text(it, "kind"), text(it, "what")));
        words.collect()
    }
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap()
}

/// The usual call for an instance, with more said.
pub(crate) fn asked(more: Value) -> Value {
    let mut asked = json!({"workspace_id": WORKSPACE, "runtime": "langgraph", "tier": 2, "env": {"KEY": "s3cret-value"}});
    for (name, value) in more.as_object().unwrap() {
        asked[name] = value.clone();
    }
    asked
}
