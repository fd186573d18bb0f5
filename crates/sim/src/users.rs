//! What people ask for: workspaces, restarts, and that they go.

use ligand_domain::id::WorkspaceId;
use serde_json::json;

use crate::agents::Agent;
use crate::calls::Call;
use crate::model::{Sort, Workspace};
use crate::trace::{Violation, law};
use crate::world::World;

/// Restarts that are asked for at once, about.
const BURST: usize = 5;

impl World {
    pub(crate) async fn create(&mut self, sort: Sort) -> Result<(), Violation> {
        let name = format!("w{}", self.workspaces.len());
        let body = match sort {
            Sort::Managed => json!({"name": name}),
            Sort::Enrolled => json!({"name": name, "external": true}),
            Sort::Open => {
                json!({"name": name, "external": true, "url": "http://open.example:8000"})
            }
        };
        let replica = self.dice.below(self.replicas.len());
        let answer =
            self.replicas[replica].ask(Call::admin("POST", "/workspaces").body(body)).await;
        let created = answer.json();
        let id = created["id"].as_str().and_then(|id| id.parse::<WorkspaceId>().ok());
        let id = id.ok_or_else(|| Violation::new("a workspace can be created", &*answer.text))?;
        let at = self.workspaces.len();
        self.say(format!("{name}: created as {sort:?} workspace {id}"));
        self.workspaces.push(Workspace::new(id, name, sort));
        if sort != Sort::Managed {
            let held = created["connection"]["auth_token"].as_str().map(str::to_owned);
            if let Some(token) = &held {
                self.minted.insert(token.clone(), (at, 1));
            }
            let key = self.dice.text();
            self.agents.push(Agent::new(at, None, held, key, false));
        }
        self.look(at).await
    }

    /// Many restarts of one workspace at once, wherever they arrive.
    pub(crate) async fn burst(&mut self) -> Result<(), Violation> {
        let at = self.dice.below(self.workspaces.len());
        for _ in 0..2 + self.dice.below(BURST) {
            self.restart(at).await?;
        }
        Ok(())
    }

    pub(crate) async fn restart(&mut self, at: usize) -> Result<(), Violation> {
        let replica = self.dice.below(self.replicas.len());
        let path = format!("/workspaces/{}/restart", self.workspaces[at].id);
        let answer = self.replicas[replica].ask(Call::admin("POST", &path)).await;
        let Workspace { name, removed, .. } = &self.workspaces[at];
        let said = answer.json()["status"].as_str().unwrap_or_default().to_owned();
        let expected = if *removed { 404 } else { 200 };
        law(answer.status == expected, "a restart can be asked for", || {
            format!("{name}: {} {}", answer.status, answer.text)
        })?;
        self.say(format!("{name}: a restart is asked for: {} {said}", answer.status));
        self.workspaces[at].restart_due |= said == "provisioning";
        self.look(at).await
    }

    pub(crate) async fn delete(&mut self) -> Result<(), Violation> {
        let at = self.dice.below(self.workspaces.len());
        let odds = if self.workspaces[at].removed { 50 } else { 20 };
        let purge = self.dice.chance(odds);
        let query = if purge { "?purge=true" } else { "" };
        let path = format!("/workspaces/{}{query}", self.workspaces[at].id);
        let now = self.ground.clock.now();
        let answer = self.observer.ask(now, Call::admin("DELETE", &path)).await;
        let said = answer.json()["status"].as_str().unwrap_or_default().to_owned();
        let name = &self.workspaces[at].name;
        law(matches!(answer.status, 200 | 202), "a workspace can be deleted", || {
            format!("{name}: {} {}", answer.status, answer.text)
        })?;
        self.say(format!("{name}: deleted: {} {said}", answer.status));
        let known = &mut self.workspaces[at];
        known.removed = true;
        known.purging |= purge;
        known.purged |= said == "purged";
        self.look(at).await
    }
}
