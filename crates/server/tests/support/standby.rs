//! Agents that stand by, and a workspace on its way between two backends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use ligand_domain::credential::TokenHash;
use ligand_domain::secrets::proof;
use ligand_server::backend::fake::{Call, Fake, Fault, Planned};
use ligand_server::backend::{Backend as _, Place, Root};
use ligand_server::migrations::{DrainReconciler, MigrationReconciler};
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::TestApp;
use super::agent::{Agent, online};

/// How an agent that can stand by registers.
const FEATURES: [&str; 3] = ["paced", "receipt", "standby"];

/// An agent that does what it is told about its program.
pub(crate) struct Standby {
    pub(crate) agent: Agent,
    passport: Option<String>,
    /// What its program does; `None`: as usual.
    pub(crate) program: Option<&'static str>,
    pub(crate) serial: Option<i64>,
    pub(crate) values: BTreeMap<String, String>,
    /// A secret that does not arrive in its program.
    pub(crate) withheld: Option<&'static str>,
    /// It was told to end.
    pub(crate) told_to_exit: bool,
    url: String,
}

impl Standby {
    fn current(agent: Agent, url: &str) -> Self {
        Self {
            agent,
            passport: None,
            program: None,
            serial: None,
            values: BTreeMap::new(),
            withheld: None,
            told_to_exit: false,
            url: url.to_owned(),
        }
    }

    /// The candidate that a backend was asked for last.
    pub(crate) fn candidate(backend: &Fake, id: &str, url: &str) -> Option<Self> {
        let instance = backend.newest(id.parse().unwrap())?;
        let passport = instance.env.get("LIGAND_PASSPORT")?.clone();
        assert_eq!(instance.env["LIGAND_STANDBY"], "wait");
        let agent = Agent::with(id, None);
        let mut it = Self::current(agent, url);
        (it.passport, it.program) = (Some(passport), Some("standing-by"));
        Some(it)
    }

    /// Register, or send a heartbeat and do what its answer says.
    pub(crate) async fn step(&mut self, app: &TestApp) {
        if self.agent.token.is_none() {
            let knock = Agent::with(&self.agent.workspace, self.passport.as_deref());
            let more = json!({"url": self.url, "ligand": {"version": "1", "features": FEATURES,
                "program": {"state": "standing-by"}}});
            let answer = knock.register_with(app, more, &[]).await;
            self.heed(&answer.body);
            self.agent.token = answer.body["auth_token"].as_str().map(str::to_owned);
            return;
        }
        let mut said = json!({});
        if let Some(state) = self.program {
            said["program"] = json!({"state": state});
            if let Some(serial) = self.serial {
                said["program"]["serial"] = json!(serial);
            }
        }
        if self.program == Some("running") && self.passport.is_some() {
            said["receipt"] = self.receipt();
        }
        let answer = self.agent.beat_with(app, json!({"ligand": said})).await;
        self.heed(&answer.body);
        let wish = &answer.body["program"];
        let serial = wish["serial"].as_i64();
        match wish["state"].as_str() {
            Some("stand-by") => self.program = Some("standing-by"),
            Some("run") if self.lacks(serial) => self.fetch(app, serial).await,
            Some("run") => self.program = Some("running"),
            _ if self.passport.is_none() => self.program = None,
            _ => {}
        }
    }

    /// Whether its program has yet to run with secrets of this serial.
    fn lacks(&self, serial: Option<i64>) -> bool {
        let newer = serial.unwrap_or(0) > self.serial.unwrap_or(0) || self.passport.is_some();
        newer && (self.serial != serial || self.program != Some("running"))
    }

    async fn fetch(&mut self, app: &TestApp, serial: Option<i64>) {
        let path = format!("/workspaces/{}/secrets/values", self.agent.workspace);
        let answer = app.call("GET", &path, self.agent.token.as_deref(), None).await;
        if answer.status == 200 {
            self.values = serde_json::from_value(answer.body).unwrap();
            (self.serial, self.program) = (serial, Some("running"));
        }
    }

    fn receipt(&self) -> Value {
        let hash = TokenHash::of(self.agent.token.as_deref().unwrap());
        let held = self.values.iter().filter(|(name, _)| self.withheld != Some(name.as_str()));
        held.map(|(name, value)| (name.clone(), json!(proof(&hash, name, value)))).collect()
    }

    fn heed(&mut self, answer: &Value) {
        self.told_to_exit |= answer["action"] == "exit";
    }
}

/// An agent's HTTP server: every turn is answered like this; nudges are let pass. Gives its address, and the names of
/// the messages that came.
pub(crate) async fn turns(
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&seen);
    let handler = move |uri: Uri, body: String| {
        let (noted, answer) = (Arc::clone(&noted), answer.clone());
        async move {
            if uri.path().ends_with("/nudge") {
                return StatusCode::NO_CONTENT.into_response();
            }
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            let name = body["params"]["message"]["messageId"].as_str().unwrap_or_default();
            noted.lock().unwrap().push(name.to_owned());
            answer()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    (url, seen)
}

/// A completed turn.
pub(crate) fn completed() -> Response {
    let result = json!({"kind": "message", "role": "agent", "parts": []});
    axum::Json(json!({"jsonrpc": "2.0", "id": 1, "result": result})).into_response()
}

/// A task that failed.
pub(crate) fn broken() -> Response {
    let result = json!({"kind": "task", "id": "t", "status": {"state": "failed"}});
    axum::Json(json!({"jsonrpc": "2.0", "id": 1, "result": result})).into_response()
}

/// A workspace that goes from `fake` to `other`, or does not.
pub(crate) struct Move {
    pub(crate) id: String,
    pub(crate) source: Standby,
    pub(crate) target: Option<Standby>,
    /// The candidate's program lacks this.
    pub(crate) withheld: Option<&'static str>,
    /// The candidate's agent does not speak.
    pub(crate) mute: bool,
    to: String,
}

/// A workspace that is online on `fake`, with a file; its agents answer turns so.
pub(crate) async fn placed(
    app: &TestApp,
    name: &str,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (Move, Arc<Mutex<Vec<String>>>) {
    // In the order in which they are made.
    app.app.clock.advance(Duration::from_millis(1));
    let (from, _) = turns(completed).await;
    let (to, seen) = turns(answer).await;
    app.fake.report_address(Some(from.clone()));
    app.other().report_address(Some(to.clone()));
    let (id, agent) = online(app, name).await;
    let more = json!({"url": from, "ligand": {"version": "1", "features": FEATURES}});
    agent.register_with(app, more, &[]).await.ok();
    let at = Place { root: Root::Workspace, path: "notes".into() };
    app.fake.write_file(id.parse().unwrap(), at, "what it knows".into()).await.unwrap();
    let source = Standby::current(agent, &from);
    (Move { id, source, target: None, withheld: None, mute: false, to }, seen)
}

impl Move {
    pub(crate) async fn ask(&self, app: &TestApp) -> Value {
        let path = format!("/admin/workspaces/{}/migrate", self.id);
        let answer =
            app.post(&path, json!({"to": "other", "reason": "a test", "grace_seconds": 2})).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.body
    }

    /// Everybody does what is to be done now, and a moment passes.
    pub(crate) async fn tick(&mut self, app: &TestApp) {
        app.settle().await;
        self.agents(app).await;
        app.app.clock.advance(Duration::from_millis(200));
    }

    /// Both its agents say what there is to say.
    pub(crate) async fn agents(&mut self, app: &TestApp) {
        self.source.step(app).await;
        let found = Standby::candidate(app.other(), &self.id, &self.to);
        if let (None, Some(mut found)) = (&self.target, found) {
            found.withheld = self.withheld;
            self.target = Some(found);
        }
        if let Some(target) = self.target.as_mut().filter(|_| !self.mute) {
            target.step(app).await;
        }
    }

    /// Go on until its target is started, which says nothing yet, and whose backend does not answer from now on, as far
    /// as ending it is concerned, so often.
    pub(crate) async fn started(&mut self, app: &TestApp, silences: u32) {
        self.mute = true;
        self.ask(app).await;
        for _ in 0..200 {
            if self.target.is_some() {
                let at = vec![Call::Stop];
                let what = Fault::Silence;
                return app.other().plan(Planned { what, at, after: 0, times: silences });
            }
            MigrationReconciler.step(&app.app).await.unwrap();
            self.tick(app).await;
        }
        panic!("no target comes: {:#}", self.latest(app).await);
    }

    /// The latest migration of it.
    pub(crate) async fn latest(&self, app: &TestApp) -> Value {
        let path = format!("/admin/workspaces/{}/migrations", self.id);
        let all = app.get(&path).await.ok();
        all["migrations"][0].clone()
    }

    /// Go on until it is in this phase, or over.
    pub(crate) async fn until(&mut self, app: &TestApp, phase: &str) -> Value {
        for _ in 0..2000 {
            let latest = self.latest(app).await;
            let mut entered = latest["phases"].as_array().unwrap().iter();
            if entered.next_back().is_some_and(|it| it["phase"] == phase) {
                return latest;
            }
            // One step at a time, so that none is passed over.
            if MigrationReconciler.step(&app.app).await.unwrap().looked_at == 0 {
                self.tick(app).await;
            }
        }
        panic!("{phase} does not come: {:#}", self.latest(app).await);
    }

    pub(crate) async fn done(&mut self, app: &TestApp) -> Value {
        self.until(app, "migrated").await
    }

    pub(crate) async fn rolled_back(&mut self, app: &TestApp) -> Value {
        self.until(app, "rolled-back").await
    }

    pub(crate) async fn can(&self, app: &TestApp, verb: &str) -> super::Answer {
        let path = format!("/admin/workspaces/{}/migrations/{verb}", self.id);
        app.post(&path, json!({})).await
    }

    /// It is where it was, nothing is left of the other end, and its agent serves.
    pub(crate) async fn stayed(&self, app: &TestApp) {
        let workspace = app.workspace(&self.id).await;
        assert_eq!(workspace["backend"], "fake", "{workspace}");
        assert_eq!(workspace["status"], "online", "{workspace}");
        assert!(workspace["migration"].is_null(), "{workspace}");
        assert!(app.other().instances().is_empty(), "an instance is left");
        assert!(app.other().list_data().await.unwrap().is_empty(), "data is left");
        self.source.agent.beat(app).await.ok();
    }
}

/// Take every pass that is due, of migrations and drains.
pub(crate) async fn pass(app: &TestApp) {
    for _ in 0..200 {
        let drained = DrainReconciler.pass(&app.app).await.unwrap();
        let moved = MigrationReconciler.pass(&app.app).await.unwrap();
        if drained.looked_at + moved.looked_at == 0 {
            return;
        }
    }
    panic!("migrations do not come to rest");
}

/// A file of a workspace at a backend.
pub(crate) async fn notes(backend: &Fake, id: &str) -> Option<String> {
    let at = Place { root: Root::Workspace, path: "notes".into() };
    let read = backend.read_file(id.parse().unwrap(), at).await.ok()?;
    Some(String::from_utf8(read.to_vec()).unwrap())
}
