//! One server, and how it is asked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use ligand_domain::guards::Guards;
use ligand_domain::time::Timestamp;
use ligand_server::app::{self, App, Clock, Ids, Names};
use ligand_server::backend::Backends;
use ligand_server::config::{Config, File, Flags, resolve};
use ligand_server::credentials::RotationReconciler;
use ligand_server::db::Db;
use ligand_server::liveness::BrakeReconciler;
use ligand_server::liveness::orphans::Orphans;
use ligand_server::liveness::sweeps::{LapsedCredentials, PhantomBusy, StaleCredentials};
use ligand_server::messages::MessageRetention;
use ligand_server::reconcile::Reconciler;
use ligand_server::routes;
use ligand_server::transfer::Place;
use serde_json::Value;
use tower::ServiceExt as _;

/// The administrator's token in every simulated world.
pub const ADMIN: &str = "simulated-administrator";

/// Where every name of a simulated world leads: nothing is ever called there.
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));

/// How old a credential gets.
const ROTATED_AFTER: Duration = Duration::from_secs(900);

/// How long a source is kept after its cut-over.
const GRACE: Duration = Duration::from_secs(30);

/// What outlives a server: a crash takes nothing of it away.
#[derive(Clone)]
pub struct Ground {
    /// The database.
    pub db: Db,
    /// The clock.
    pub clock: Clock,
    /// What runs instances.
    pub backends: Backends,
    /// The settings.
    pub config: Config,
    /// Reaches nobody but agents.
    pub http: reqwest::Client,
}

/// Settings of a simulated server.
#[must_use]
pub fn config(guards: Guards) -> Config {
    let flags = Flags { backend: Some("fake".to_owned()), ..Flags::default() };
    let file = File::default();
    let env = |name: &str| match name {
        "ADMIN_TOKEN" => Some(ADMIN.to_owned()),
        // Years pass in a minute here.
        "RATE_LIMIT" => Some(u32::MAX.to_string()),
        _ => None,
    };
    let mut config = resolve(&flags, &env, None, file).expect("these settings make sense").config;
    // There is nobody to be told, and no network to tell it over.
    config.drain = Duration::ZERO;
    // Hours pass in a second: some credentials get old, and not all.
    config.rotate_after = ROTATED_AFTER;
    config.guards = guards;
    config.agent = vec!["ligand".to_owned(), "agent".to_owned()];
    // Data on its way survives a server, and the world does not.
    config.migrations.store = Place::memory();
    config.migrations.grace = GRACE;
    config
}

/// How often it is looked whether a server is done.
const ROUNDS: u32 = 2_000;

/// What a server unwinds with that ends amid its work.
pub struct Crashed;

/// A server, as a process would be.
pub struct Server {
    /// Its parts.
    pub app: App,
    /// What looks now and then, besides the reconcilers of workspaces, messages and migrations.
    pub sweeps: Vec<Arc<dyn Reconciler>>,
    router: Router,
    /// It ends after so many more commits; 0: it does not.
    ends_after: Arc<AtomicU32>,
}

impl Server {
    /// Start one: new memory, its own randomness, the same ground.
    #[must_use]
    pub fn start(ground: &Ground, seed: u64) -> Self {
        let ids = Ids::seeded(seed);
        let Ground { db, clock, backends, config, http } = ground.clone();
        let app = App::new(app::Ground {
            db,
            clock,
            ids,
            names: Names::all(SOMEWHERE),
            backends,
            config,
            http,
        });
        let ends_after = Arc::new(AtomicU32::new(0));
        let left = Arc::clone(&ends_after);
        app.hub.after_commit(Box::new(move |_| {
            if left.load(Ordering::Relaxed) > 0 && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                // As a panic, which nobody is told of.
                std::panic::resume_unwind(Box::new(Crashed));
            }
        }));
        let sweeps: Vec<Arc<dyn Reconciler>> = vec![
            Arc::new(BrakeReconciler),
            Arc::new(RotationReconciler::default()),
            Arc::new(StaleCredentials),
            Arc::new(LapsedCredentials),
            Arc::new(PhantomBusy),
            Arc::new(Orphans::default()),
            Arc::new(MessageRetention),
        ];
        Self { router: routes::router(app.clone()), app, sweeps, ends_after }
    }

    /// It ends right after the commit of so many more decisions; with 0 it does not.
    pub fn end_after(&self, commits: u32) {
        self.ends_after.store(commits, Ordering::Relaxed);
    }

    /// The last number that it gave to a decision or an event.
    #[must_use]
    pub fn recorded(&self) -> i64 {
        *self.app.hub.commits().borrow()
    }

    /// Let what it does in the background come to its end.
    #[expect(clippy::disallowed_methods, reason = "sockets of this machine take real time")]
    pub async fn settle(&self) {
        for round in 0..ROUNDS {
            if self.app.tasks.is_empty() {
                return;
            }
            match round < ROUNDS / 2 {
                true => tokio::task::yield_now().await,
                false => tokio::time::sleep(Duration::from_micros(200)).await,
            }
        }
    }

    /// Ask it.
    pub async fn ask(&self, call: Call<'_>) -> Answer {
        let request = Request::builder().method(call.method).uri(call.path);
        let request = match call.bearer {
            Some(bearer) => request.header(header::AUTHORIZATION, format!("Bearer {bearer}")),
            None => request,
        };
        let request = match call.prefers {
            Some(wish) => request.header("prefer", wish),
            None => request,
        };
        let request = match call.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let body = call.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.expect("calls of the simulator are well-formed");
        let answer = match self.router.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        self.settle().await;
        Answer { status, text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// A server that is asked about the world and takes no part in it: it waits for nothing, and time that it
/// spends is its own.
pub struct Observer {
    server: Server,
    clock: Clock,
}

impl Observer {
    /// Start one on the same ground.
    #[must_use]
    pub fn start(ground: &Ground, seed: u64) -> Self {
        let clock = Clock::manual(ground.clock.now());
        let server = Server::start(&Ground { clock: clock.clone(), ..ground.clone() }, seed);
        // A server that is stopping ends streams and does not wait for reconcilers.
        server.app.stop.cancel();
        Self { server, clock }
    }

    /// The last number that it gave to a decision or an event.
    #[must_use]
    pub fn recorded(&self) -> i64 {
        self.server.recorded()
    }

    /// Ask it, at this time.
    pub async fn ask(&self, now: Timestamp, call: Call<'_>) -> Answer {
        if let Clock::Manual(own) = &self.clock {
            *own.lock().expect("nobody panics while holding the time") = now;
        }
        self.server.ask(call).await
    }
}

/// A call over HTTP.
pub struct Call<'a> {
    method: &'static str,
    path: &'a str,
    bearer: Option<&'a str>,
    key: Option<&'a str>,
    prefers: Option<&'static str>,
    body: Option<Value>,
}

impl<'a> Call<'a> {
    /// By the administrator.
    #[must_use]
    pub fn admin(method: &'static str, path: &'a str) -> Self {
        Self { method, path, bearer: Some(ADMIN), key: None, prefers: None, body: None }
    }

    /// By an agent, or somebody who says so.
    #[must_use]
    pub fn agent(path: &'a str, bearer: Option<&'a str>, key: Option<&'a str>) -> Self {
        Self { method: "POST", path, bearer, key, prefers: None, body: None }
    }

    /// By an agent that reads something.
    #[must_use]
    pub fn read(path: &'a str, bearer: Option<&'a str>) -> Self {
        Self { method: "GET", ..Self::agent(path, bearer, None) }
    }

    /// With this wish.
    #[must_use]
    pub fn prefers(self, wish: &'static str) -> Self {
        Self { prefers: Some(wish), ..self }
    }

    /// With this body.
    #[must_use]
    pub fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// Its answer.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; `null` when it is something else.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}
