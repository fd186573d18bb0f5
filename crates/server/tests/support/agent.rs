//! An agent, as far as a server can tell.

use serde_json::{Value, json};

use super::{Answer, TestApp};

/// Presents one credential, for one workspace.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) workspace: String,
    pub(crate) token: Option<String>,
}

impl Agent {
    /// The agent of the newest instance: it found its credential where the backend put it.
    pub(crate) fn of(app: &TestApp, workspace: &str) -> Self {
        let instance = app.fake.newest(workspace.parse().unwrap()).unwrap();
        Self { workspace: workspace.to_owned(), token: Some(instance.credential) }
    }

    pub(crate) fn with(workspace: &str, token: Option<&str>) -> Self {
        Self { workspace: workspace.to_owned(), token: token.map(str::to_owned) }
    }

    pub(crate) async fn register(&self, app: &TestApp) -> Answer {
        self.register_with(app, json!({}), &[]).await
    }

    pub(crate) async fn register_with(
        &self,
        app: &TestApp,
        more: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut body = json!({"id": self.workspace, "url": "http://localhost:8000",
            "agent_card": {"name": "an agent"}, "ligand": {"version": "0", "features": ["paced"]}});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        app.send(
            "POST",
            "/registry/register",
            self.token.as_deref(),
            Some(body.to_string()),
            headers,
        )
        .await
    }

    pub(crate) async fn beat(&self, app: &TestApp) -> Answer {
        self.beat_with(app, json!({})).await
    }

    pub(crate) async fn beat_with(&self, app: &TestApp, more: Value) -> Answer {
        let mut body = json!({"workspace_id": self.workspace});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        app.call("POST", "/registry/heartbeat", self.token.as_deref(), Some(body)).await
    }
}

/// A managed workspace whose agent registered. Gives its id and its agent.
pub(crate) async fn online(app: &TestApp, name: &str) -> (String, Agent) {
    let id = app.create(name).await;
    app.settle().await;
    let agent = Agent::of(app, &id);
    agent.register(app).await.ok();
    app.settle().await;
    (id, agent)
}

/// An external workspace that nobody has taken up yet: its bootstrap is open.
pub(crate) async fn unclaimed(app: &TestApp) -> String {
    let body = json!({"name": "outside", "external": true, "url": "http://localhost:9"});
    let created = app.post("/workspaces", body).await.ok();
    created["id"].as_str().unwrap().to_owned()
}
