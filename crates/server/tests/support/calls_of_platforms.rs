//! What a control plane must do for published platforms, and for ours: functions over an address, so that the stub of
//! these tests and a real fleet are held to the same. Whoever includes this has its own credentials at the control plane.

use std::time::Duration;

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use ligand_server::backend::fleet::{Fleet, Settings};
use ligand_server::backend::{Backend as _, Key, Spec};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

/// A control plane, and who asks it.
pub(crate) struct Whole {
    pub(crate) settings: Settings,
    pub(crate) http: Client,
}

impl Whole {
    pub(crate) fn new(settings: Settings) -> Self {
        let http = ligand_api::http::builder().unwrap().no_proxy().build().unwrap();
        Self { settings, http }
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let said = |secret: &Option<ligand_server::config::Secret>| {
            secret.as_ref().map(|secret| secret.reveal().to_owned()).unwrap_or_default()
        };
        let call = self.http.request(method, format!("{}{path}", self.settings.url));
        let call = call.bearer_auth(said(&self.settings.shared_secret));
        call.header("X-Molecule-Admin-Token", said(&self.settings.identity))
    }

    fn body(&self, workspace: WorkspaceId) -> Value {
        json!({"org_id": self.settings.org, "workspace_id": workspace.to_string(), "runtime": "echo", "tier": 2,
            "platform_url": "http://127.0.0.1:9", "env": {"A": "b"}})
    }
}

/// What clients that were published before there was Ligand ask: provision, status, terminate, console, settings.
pub(crate) async fn published(at: &Whole, workspace: WorkspaceId) {
    let provision = "/cp/workspaces/provision";
    let answer = at.call(Method::POST, provision).json(&at.body(workspace)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 201, "anything else is a failure to clients");
    let told: Value = answer.json().await.unwrap();
    let instance = told["instance_id"].as_str().unwrap().to_owned();
    assert!(!instance.is_empty() && told["state"].is_string(), "{told}");
    let wrong = at.call(Method::GET, provision).send().await.unwrap();
    assert_eq!(wrong.status().as_u16(), 405);
    let path = format!("/cp/workspaces/{workspace}/status?instance_id={instance}");
    let mut state = String::new();
    for _ in 0..100 {
        let answer = at.call(Method::GET, &path).send().await.unwrap();
        assert!(answer.status().is_success());
        let told: Value = answer.json().await.unwrap();
        state = told["state"].as_str().unwrap().to_owned();
        if state == "running" {
            break;
        }
        pause().await;
    }
    assert_eq!(state, "running");
    let path = format!("/cp/workspaces/{workspace}?instance_id={instance}");
    for _ in 0..2 {
        let answer = at.call(Method::DELETE, &path).send().await.unwrap();
        assert!(answer.status().is_success(), "an end that is asked for again is no failure");
    }
    let path = format!("/cp/workspaces/{workspace}/status?instance_id={instance}");
    let answer = at.call(Method::GET, &path).send().await.unwrap();
    if answer.status().is_success() {
        let told: Value = answer.json().await.unwrap();
        assert_ne!(told["state"], "running");
    }
}

/// What a platform is told at its start.
pub(crate) async fn settings(at: &Whole) {
    let token = at.settings.identity.as_ref().unwrap().reveal();
    let call = |method| {
        let call = at.http.request(method, format!("{}/cp/tenants/config", at.settings.url));
        call.bearer_auth(token).header("X-Molecule-Org-Id", &at.settings.org)
    };
    let answer = call(Method::GET).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let told: Value = answer.json().await.unwrap();
    assert!(told.as_object().unwrap().values().all(Value::is_string), "{told}");
    assert_eq!(call(Method::POST).send().await.unwrap().status().as_u16(), 405);
}

/// The life of an instance, as a platform of ours has it.
pub(crate) async fn life(at: &Whole, workspace: WorkspaceId) {
    let fleet = Fleet::new(at.settings.clone());
    let key = |generation| Key { workspace, generation: Generation::new(generation) };
    let spec = |generation| Spec {
        runtime: "echo".to_owned(),
        ..Spec::of(key(generation), vec!["ligand".to_owned(), "agent".to_owned()])
    };
    assert_eq!(fleet.find(key(1)).await.unwrap(), None);
    let started = fleet.ensure(spec(1)).await.unwrap();
    // Its answer was lost, perhaps: the same call gives the same instance.
    assert_eq!(fleet.ensure(spec(1)).await.unwrap().handle, started.handle);
    let found = Fleet::new(at.settings.clone()).find(key(1)).await.unwrap();
    assert_eq!(found.unwrap().handle, started.handle);
    until_running(&fleet, key(1)).await;
    assert!(fleet.list_owned().await.unwrap().contains(&key(1)));
    fleet.stop(key(1), Duration::from_secs(1)).await.unwrap();
    assert_ne!(fleet.inspect(key(1)).await.unwrap(), Seen::Running);
    for _ in 0..2 {
        fleet.destroy(key(1)).await.unwrap();
    }
    assert_eq!(fleet.find(key(1)).await.unwrap(), None);
    let second = fleet.ensure(spec(2)).await.unwrap();
    assert_ne!(second.handle, started.handle);
    fleet.destroy(key(2)).await.unwrap();
    assert_ne!(fleet.inspect(key(2)).await.unwrap(), Seen::Running);
}

async fn until_running(fleet: &Fleet, key: Key) {
    for _ in 0..100 {
        if fleet.inspect(key).await.unwrap() == Seen::Running {
            return;
        }
        pause().await;
    }
    panic!("it never runs");
}

#[expect(clippy::disallowed_methods, reason = "no clock of a server's is waited for")]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
