//! Migrations and drains: asked for, paused, aborted; and the laws about them.

use std::sync::Arc;
use std::time::Duration;

use ligand_api::migration::{Migration, Migrations};
use ligand_domain::id::Generation;
use ligand_server::backend::Key;
use ligand_server::migrations::{DrainReconciler, MigrationReconciler};
use serde_json::json;

use crate::calls::Call;
use crate::model::{Moving, Sort};
use crate::trace::{Violation, law};
use crate::world::{BACKENDS, World};

/// Rounds of a march, at most.
const MARCH: usize = 12;
/// Rounds until a workspace is up, about.
const PATIENCE: usize = 6;
/// Between two of them: longer than a migration waits before it looks again.
const MOMENT: Duration = Duration::from_millis(700);

impl World {
    fn managed(&mut self, rightly: bool) -> Option<usize> {
        let managed = |at: &usize| {
            let it = &self.workspaces[*at];
            it.sort == Sort::Managed && !(rightly && (it.removed || !it.seen.serves()))
        };
        let able: Vec<usize> = (0..self.workspaces.len()).filter(managed).collect();
        able.get(self.dice.below(able.len())).copied()
    }

    /// Somebody wants a workspace to be on another backend.
    pub(crate) async fn migrate(&mut self) -> Result<(), Violation> {
        let rightly = self.dice.chance(90);
        if rightly && self.managed(true).is_none() {
            self.bring_up().await?;
        }
        let Some(at) = self.managed(rightly) else { return Ok(()) };
        let elsewhere =
            BACKENDS.iter().find(|it| self.workspaces[at].seen.backend.as_deref() != Some(**it));
        let to = elsewhere.copied().filter(|_| rightly).unwrap_or(BACKENDS[0]);
        let path = format!("/admin/workspaces/{}/migrate", self.workspaces[at].id);
        let call = Call::admin("POST", &path).body(json!({"to": to}));
        let replica = self.dice.below(self.replicas.len());
        let answer = self.replicas[replica].ask(call).await;
        let name = self.workspaces[at].name.clone();
        let why = answer.json()["detail"].as_str().map(|it| format!(" ({it})")).unwrap_or_default();
        self.say(format!("{name}: a migration to {to} is asked for: {}{why}", answer.status));
        law(matches!(answer.status, 202 | 404 | 409), "a migration can be asked for", || {
            format!("{name}: {} {}", answer.status, answer.text)
        })?;
        self.workspaces[at].moved |= answer.status == 202;
        self.look(at).await
    }

    /// A migration gets on, in foul weather, while little else happens.
    pub(crate) async fn march(&mut self) -> Result<(), Violation> {
        let moving = |at: &usize| self.workspaces[*at].moving.is_some();
        let able: Vec<usize> = (0..self.workspaces.len()).filter(moving).collect();
        let Some(&at) = able.get(self.dice.below(able.len())) else { return Ok(()) };
        for _ in 0..1 + self.dice.below(MARCH) {
            self.ground.clock.advance(MOMENT);
            let replica = self.dice.below(self.replicas.len());
            match self.dice.below(8) {
                0 => self.cut().await?,
                1 | 2 => self.pass_in_trouble().await?,
                _ => drop(self.pass_of_migrations(replica).await?),
            }
            self.sync_agents();
            self.hear_all().await;
            self.beat(at, 8).await?;
        }
        Ok(())
    }

    /// The agents of a workspace do what they should, with so many of a hundred answers lost.
    async fn beat(&mut self, at: usize, lost: u32) -> Result<(), Violation> {
        for agent in 0..self.agents.len() {
            let it = &self.agents[agent];
            if it.workspace == at && !it.gone && !it.hung && !it.zombie {
                let what = self.duty(agent, true);
                let letter = self.write(agent, what, true);
                let lost = self.dice.chance(lost);
                self.deliver(letter, lost).await?;
            }
        }
        Ok(())
    }

    /// A workspace that could be moved.
    async fn bring_up(&mut self) -> Result<(), Violation> {
        let able = |at: &usize| {
            let it = &self.workspaces[*at];
            it.sort == Sort::Managed && !it.removed && it.moving.is_none()
        };
        let Some(at) = (0..self.workspaces.len()).find(able) else {
            return self.create(Sort::Managed).await;
        };
        for _ in 0..PATIENCE {
            if self.workspaces[at].seen.serves() {
                break;
            }
            let replica = self.dice.below(self.replicas.len());
            self.pass(replica).await?;
            self.sync_agents();
            self.beat(at, 0).await?;
        }
        Ok(())
    }

    /// Somebody has second thoughts.
    pub(crate) async fn reconsider(&mut self) -> Result<(), Violation> {
        let Some(at) = self.managed(false) else { return Ok(()) };
        let verb = self.dice.pick(&["abort", "pause", "resume", "resume"]);
        self.tell_migration(at, verb).await
    }

    async fn tell_migration(&mut self, at: usize, verb: &str) -> Result<(), Violation> {
        if !self.workspaces[at].moved {
            return Ok(());
        }
        let path = format!("/admin/workspaces/{}/migrations/{verb}", self.workspaces[at].id);
        let replica = self.dice.below(self.replicas.len());
        let answer = self.replicas[replica].ask(Call::admin("POST", &path)).await;
        let name = self.workspaces[at].name.clone();
        self.say(format!("{name}: its migration is to {verb}: {}", answer.status));
        law(matches!(answer.status, 200 | 404 | 409), "a migration can be told", || {
            format!("{name}: {} {}", answer.status, answer.text)
        })?;
        self.look(at).await
    }

    /// Somebody wants a backend to be empty.
    pub(crate) async fn drain(&mut self) -> Result<(), Violation> {
        let from = self.dice.below(BACKENDS.len());
        let (backend, to) = (BACKENDS[from], BACKENDS[1 - from]);
        let body = json!({"backend": backend, "to": to, "stop_after_failures": 0});
        let replica = self.dice.below(self.replicas.len());
        let answer =
            self.replicas[replica].ask(Call::admin("POST", "/admin/drains").body(body)).await;
        self.say(format!("a drain of {backend} is asked for: {}", answer.status));
        law(matches!(answer.status, 202 | 409), "a drain can be asked for", || {
            answer.text.clone()
        })?;
        for workspace in &mut self.workspaces {
            workspace.moved |= workspace.sort == Sort::Managed;
        }
        Ok(())
    }

    /// A pass of migrations, or of drains. Gives whether there was something to look at.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn pass_of_migrations(&mut self, replica: usize) -> Result<bool, Violation> {
        self.pass_of(replica, Arc::new(MigrationReconciler)).await
    }

    pub(crate) async fn pass_of_drains(&mut self, replica: usize) -> Result<bool, Violation> {
        self.pass_of(replica, Arc::new(DrainReconciler)).await
    }

    /// Nobody keeps a migration waiting any more.
    pub(crate) async fn resume_all(&mut self) -> Result<(), Violation> {
        for at in 0..self.workspaces.len() {
            let paused = |it: &Moving| it.state == "paused";
            if self.workspaces[at].moving.as_ref().is_some_and(paused) {
                self.tell_migration(at, "resume").await?;
            }
        }
        Ok(())
    }

    /// Learn where the migration of a workspace stands.
    pub(crate) async fn look_at_migration(&mut self, at: usize) -> Result<(), Violation> {
        let workspace = &self.workspaces[at];
        if !workspace.moved {
            return Ok(());
        }
        let path = format!("/admin/workspaces/{}/migrations", workspace.id);
        let answer = self.observer.ask(self.ground.clock.now(), Call::admin("GET", &path)).await;
        if answer.status == 404 {
            self.workspaces[at].moving = None;
            return Ok(());
        }
        let all: Migrations = serde_json::from_str(&answer.text)
            .map_err(|_| Violation::new("migrations can be read", &*answer.text))?;
        let leaked = self.minted.keys().find(|token| answer.text.contains(token.as_str()));
        law(leaked.is_none(), "law 10: secrets stay secret", || "in a migration".to_owned())?;
        let is_over = |it: &&Migration| matches!(it.state.as_str(), "migrated" | "rolled-back");
        let open = all.migrations.iter().filter(|it| !is_over(it)).count();
        let name = workspace.name.clone();
        law(open <= 1, "law 8: one migration at a time", || format!("{name}: {}", answer.text))?;
        for over in all.migrations.iter().filter(is_over) {
            let came = over.state == "migrated" || over.cause.is_some();
            law(came, "a migration that is undone says why", || format!("{name}: {over:?}"))?;
        }
        for it in all.migrations.iter().filter(|it| it.url_after.is_some()) {
            self.judge_cut_over(at, it)?;
        }
        let moving = all.migrations.into_iter().find(|it| !is_over(&it)).map(|it| Moving {
            state: it.state,
            phase: it.phase,
            source: it.source_generation,
            target: it.target_generation,
        });
        if moving != self.workspaces[at].moving {
            if let Some(moving) = &moving {
                self.say(format!(
                    "{name}: its migration is at {} ({})",
                    moving.phase, moving.state
                ));
            } else {
                self.say(format!("{name}: its migration is over"));
            }
        }
        self.workspaces[at].moving = moving;
        Ok(())
    }

    /// Whoever took over was seen to register, to run, and to complete a turn.
    fn judge_cut_over(&self, at: usize, it: &Migration) -> Result<(), Violation> {
        let Some(target) = it.target_generation else {
            return Err(Violation::new("law 4: no blind cut-over", format!("{it:?}")));
        };
        let workspace = &self.workspaces[at];
        let key = Key { workspace: workspace.id, generation: Generation::new(target) };
        let agent = self.agents.iter().find(|agent| agent.instance == Some(key));
        let ran = agent.is_some_and(|agent| agent.ran());
        law(ran && self.door.probed(key), "law 4: no blind cut-over", || {
            format!("{}: generation {target} took over", workspace.name)
        })
    }
}
