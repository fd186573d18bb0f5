//! A control plane on a socket: does what published platforms expect of one, writes down what it was asked, and answers
//! otherwise where it is told to. With `ours` it also knows what only fleets of ours have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use ligand_server::backend::fleet::{Fleet, Settings};
use ligand_server::config::{BackendConfig, BackendKind, Config, Secret};
use ligand_server::db::Db;
use serde_json::{Value, json};

use super::TestApp;

pub(crate) const SECRET: &str = "the-provisioning-secret";
pub(crate) const IDENTITY: &str = "the-tenants-admin-token";
pub(crate) const ADMIN_KEY: &str = "the-key-of-administrators";

/// A call, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn names(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }
}

#[derive(Debug, Clone)]
struct Box_ {
    workspace: String,
    generation: i64,
    state: String,
    ip: String,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    boxes: BTreeMap<String, Box_>,
    /// By what is asked: what is answered instead.
    instead: BTreeMap<&'static str, (u16, String)>,
    ours: bool,
    ip: String,
    config: BTreeMap<String, String>,
}

#[derive(Clone)]
pub(crate) struct ControlPlane {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        let here = Self { url, state };
        let answering = here.clone();
        let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let answer = answering.answer(method, &uri, headers, &body);
            async move { answer }
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        here
    }

    /// One that also has what only fleets of ours have.
    pub(crate) async fn ours() -> Self {
        let here = Self::start().await;
        here.lock().ours = true;
        here
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Answer this instead, from now on: `provision`, `stop`, `status`, `console`, `config`, `instances`.
    pub(crate) fn instead(&self, what: &'static str, status: u16, body: &str) {
        self.lock().instead.insert(what, (status, body.to_owned()));
    }

    pub(crate) fn as_usual(&self, what: &'static str) {
        self.lock().instead.remove(what);
    }

    /// The machine that the next instances are said to be on.
    pub(crate) fn next_ip(&self, ip: &str) {
        self.lock().ip = ip.to_owned();
    }

    pub(crate) fn give(&self, name: &str, value: &str) {
        self.lock().config.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn end(&self, instance: &str, state: &str) {
        if let Some(known) = self.lock().boxes.get_mut(instance) {
            known.state = state.to_owned();
        }
    }

    /// A box that somebody else started.
    pub(crate) fn add(&self, instance: &str, workspace: &str) {
        let (workspace, state) = (workspace.to_owned(), "running".to_owned());
        let new = Box_ { workspace, generation: 0, state, ip: String::new() };
        self.lock().boxes.insert(instance.to_owned(), new);
    }

    /// Every call of this kind, by method and the end of its path.
    pub(crate) fn asked(&self, method: &str, end: &str) -> Vec<Asked> {
        let asked = self.lock().asked.clone();
        asked.into_iter().filter(|it| it.method == method && it.path.ends_with(end)).collect()
    }

    /// Ends that were asked for, by instance.
    pub(crate) fn ended(&self) -> Vec<String> {
        let asked = self.lock().asked.clone();
        let deleted = asked.into_iter().filter(|it| it.method == Method::DELETE);
        deleted.map(|it| it.names("instance_id").unwrap_or_default().to_owned()).collect()
    }

    pub(crate) fn provisions(&self) -> Vec<Asked> {
        self.asked("POST", "/provision")
    }

    /// The counters of the stub, over its socket.
    pub(crate) async fn counters(&self) -> Value {
        let client = ligand_api::http::builder().unwrap().no_proxy().build().unwrap();
        client.get(format!("{}/__stub/state", self.url)).send().await.unwrap().json().await.unwrap()
    }

    /// What a platform asks it with.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            url: self.url.clone(),
            org: "org-1".to_owned(),
            provider: None,
            shared_secret: Some(Secret::new(SECRET.to_owned())),
            identity: Some(Secret::new(IDENTITY.to_owned())),
            admin: Some(Secret::new(ADMIN_KEY.to_owned())),
            patience: Duration::from_secs(10),
            back_off: Duration::from_millis(1),
        }
    }

    fn answer(&self, method: Method, uri: &Uri, headers: HeaderMap, body: &[u8]) -> Response {
        let path = uri.path().to_owned();
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|it| it.split_once('='));
        let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        let asked = Asked { method, path, query, headers, body };
        let mut state = self.lock();
        state.asked.push(asked.clone());
        let (status, body) = state.answer(&self.url, &asked);
        (StatusCode::from_u16(status).unwrap(), body).into_response()
    }
}

impl State {
    fn answer(&mut self, url: &str, asked: &Asked) -> (u16, String) {
        let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        let (what, of) = match (asked.method.as_str(), &parts[..]) {
            ("GET", ["__stub" | "__", ..]) => ("counters", ""),
            ("POST", ["cp", "workspaces", "provision"]) => ("provision", ""),
            (_, ["cp", "workspaces", "provision"]) => return (405, String::new()),
            ("GET", ["cp", "tenants", "config"]) => ("config", ""),
            (_, ["cp", "tenants", "config"]) => return (405, String::new()),
            ("DELETE", ["cp", "workspaces", _]) => ("stop", ""),
            ("GET", ["cp", "workspaces", _, "status"]) => ("status", ""),
            ("GET", ["cp", "admin", "workspaces", _, "console"]) => ("console", ""),
            ("GET", ["cp", "workspaces"]) if self.ours => ("list", ""),
            ("GET", ["cp", "workspaces", of, "instances"]) => ("instances", *of),
            ("POST", ["cp", "workspaces", _, "stop"]) if self.ours => ("halt", ""),
            _ => ("nothing", ""),
        };
        if let Some((status, body)) = self.instead.get(what) {
            return (*status, body.clone());
        }
        let named = asked.names("instance_id").unwrap_or_default().to_owned();
        let body = match what {
            "counters" => self.counters(),
            "provision" => return (201, self.provision(url, &asked.body).to_string()),
            "config" => json!(self.config),
            "stop" => {
                self.boxes.remove(&named);
                json!({})
            }
            "halt" => {
                if let Some(known) = self.boxes.get_mut(&named) {
                    known.state = "stopped".to_owned();
                }
                json!({})
            }
            "status" => {
                json!({"state": self.boxes.get(&named).map_or("gone", |known| known.state.as_str())})
            }
            "console" => json!({"output": "booting"}),
            "list" => self.list(None, None),
            "instances" if self.ours => {
                let wanted = asked.names("generation").and_then(|text| text.parse().ok());
                self.list(Some(of), wanted)
            }
            _ => return (404, "404 page not found".to_owned()),
        };
        (200, body.to_string())
    }

    fn counters(&self) -> Value {
        let count = |end: &str| self.asked.iter().filter(|it| it.path.ends_with(end)).count();
        json!({"provision_calls": count("/provision"), "tenants_config_calls": count("/tenants/config")})
    }

    fn provision(&mut self, url: &str, body: &Value) -> Value {
        let workspace = body["workspace_id"].as_str().unwrap().to_owned();
        let generation = body["generation"].as_i64().unwrap_or_default();
        let same = |known: &Box_| known.workspace == workspace && known.generation == generation;
        let known = self.boxes.iter().find(|(_, known)| self.ours && same(known));
        let count = self.asked.iter().filter(|it| it.path.ends_with("/provision")).count();
        let name = match (known, count) {
            (Some((name, _)), _) => name.clone(),
            (None, 1) => format!("i-stub-{workspace}"),
            (None, count) => format!("i-stub-{workspace}-{count}"),
        };
        let (ip, state) = (self.ip.clone(), "running".to_owned());
        let new = Box_ { workspace: workspace.clone(), generation, state, ip: ip.clone() };
        self.boxes.insert(name.clone(), new);
        let mut answer = json!({"instance_id": name, "state": "running", "private_ip": ip, "error": null,
            "workspace_id": workspace, "url": format!("{url}/cp/workspaces/{workspace}")});
        if self.ours {
            answer["generation"] = json!(generation);
            answer["url"] = json!("");
        }
        answer
    }

    fn list(&self, of: Option<&str>, generation: Option<i64>) -> Value {
        let wanted = |known: &&Box_| {
            of.is_none_or(|of| of == known.workspace)
                && generation.is_none_or(|generation| generation == known.generation)
        };
        let all = self.boxes.iter().filter(|(_, known)| wanted(known)).map(|(name, known)| {
            json!({"instance_id": name, "workspace_id": known.workspace, "generation": known.generation,
                "state": known.state, "url": "", "private_ip": known.ip, "provider": ""})
        });
        json!({"instances": all.collect::<Vec<_>>()})
    }
}

/// A platform whose workspaces run at this control plane.
pub(crate) fn platform(db: Db, at: &ControlPlane, adjust: impl FnOnce(&mut Config)) -> TestApp {
    let fleet = Fleet::new(at.settings());
    let app = TestApp::new(db, |config| {
        config.backends.insert("fake".to_owned(), BackendConfig::of(BackendKind::Fleet));
        // Instances are on a private network.
        config.saas = true;
        // Nobody listens where agents say that they do.
        config.drain = Duration::ZERO;
        adjust(config);
    });
    app.on(|_| Arc::new(fleet))
}

/// The same server after a crash: what was in memory is gone.
pub(crate) fn reborn(app: TestApp, at: &ControlPlane) -> TestApp {
    let fleet = Fleet::new(at.settings());
    app.reborn().on(|_| Arc::new(fleet))
}
