//! The target: a generation of its own, a passport, and an agent that stands by.

use std::sync::Arc;

use anyhow::Context as _;
use ligand_domain::converge;
use ligand_domain::id::Generation;
use ligand_domain::instance::Phase;
use ligand_domain::migration::{Before, Cause, Stage};
use serde_json::json;

use super::facts::Looked;
use super::reconcile::{Going, Went};
use super::{Migration, store};
use crate::access;
use crate::backend::{Backend, BackendError, ErrorKind, Key, Spec, Started};
use crate::journal::Kind;
use crate::templates;
use crate::workspaces;

impl Going<'_> {
    pub(super) fn backend(&self, name: &str) -> anyhow::Result<Arc<dyn Backend>> {
        let found = self.app.backends.get(name).cloned();
        found.with_context(|| format!("there is no backend named `{name}` on this server"))
    }

    /// Raise the generation and commit its instance and its passport: one transaction, and a compare-and-set on
    /// the generations and on there being no start in flight.
    pub(super) async fn prepare(&mut self) -> anyhow::Result<Went> {
        let (mut work, workspace, mut it) = self.begin().await?;
        let Some(workspace) = workspace else { return Ok(Went::On) };
        let (id, now) = (self.workspace, work.now);
        let newest = workspaces::instance_of(&mut work.tx, id, workspace.newest).await?;
        let starting = newest.is_some_and(|instance| instance.ended_at.is_none());
        let in_flight = starting && workspace.newest > workspace.current;
        // A restart or a bootstrap may have replaced what it was asked to move.
        let left = workspace.current;
        let decided = (left, workspace.newest);
        let found = (workspace.current, workspace.newest);
        let may = converge::may_plan(decided, found, in_flight, self.app.config.guards);
        if !may || workspace.restart_due() || workspace.identity.candidate.is_some() {
            return Ok(self.soon());
        }
        let Some(source) = workspaces::instance_of(&mut work.tx, id, left).await? else {
            return Ok(self.soon());
        };
        let generation = workspace.newest.next();
        workspaces::set_generations(&mut work.tx, id, left, generation).await?;
        workspaces::set_candidate(&mut work.tx, id, generation).await?;
        let (instance, placed) = (self.app.ids.instance(), Some(it.to.as_str()));
        let of = (id, generation);
        workspaces::insert_instance(&mut work.tx, instance, of, placed, Phase::Planned, now)
            .await?;
        let until = now.after(self.app.config.migrations.deadline(Before::Provision));
        let passport = access::mint_passport(self.app, &mut work, of, placed, until).await?;
        (it.source, it.source_born, it.target) = (left, source.born, Some(generation));
        it.url_before.clone_from(&workspace.agent.url);
        store::save(&mut work.tx, &it).await?;
        let summary = format!("generation {generation} was planned: migration to {}", it.to);
        let facts = json!({"cause": "migration", "current": left, "migration": it.id});
        work.note(id, Some(generation), Kind::Planned, summary, facts);
        work.commit().await?;
        self.fresh = Some(passport);
        Ok(Went::On)
    }

    /// Ask the target's backend for the candidate, unless it has it.
    pub(super) async fn start(&mut self, it: &Migration, looked: &Looked) -> anyhow::Result<Went> {
        let Some(generation) = it.target else { return Ok(self.soon()) };
        let key = Key { workspace: self.workspace, generation };
        let backend = self.backend(&it.to)?;
        let found = backend.find(key).await.map_err(|cause| anyhow::anyhow!(cause.chain()))?;
        let asked = match found {
            Some(started) => Some(Ok(started)),
            None => self.ensure(it, looked, &*backend).await?,
        };
        if !self.stands(generation).await? {
            // It took so long that another pass undid the migration, and found nothing to destroy: nobody else knows
            // that it runs.
            backend.destroy(key).await.map_err(|cause| anyhow::anyhow!(cause.chain()))?;
            anyhow::bail!("the start of generation {generation} was given up meanwhile");
        }
        match asked {
            Some(Ok(started)) => self.note_started(&started).await,
            Some(Err(cause)) if cause.kind == ErrorKind::Transient => anyhow::bail!(cause.chain()),
            Some(Err(cause)) => self.roll_back(Cause::Refused(cause.chain())).await,
            None => Ok(Went::On),
        }
    }

    /// Whether this generation may still become the workspace. Whoever decides otherwise destroys it after that.
    async fn stands(&self, generation: Generation) -> anyhow::Result<bool> {
        let found = store::get(&mut self.app.db.read().await?, self.id).await?;
        let found = found.filter(|it| matches!(it.stage, Stage::Before(_)));
        Ok(found.is_some_and(|it| it.target == Some(generation)))
    }

    /// `None`: nobody wants it any more.
    async fn ensure(
        &mut self,
        it: &Migration,
        looked: &Looked,
        backend: &dyn Backend,
    ) -> anyhow::Result<Option<Result<Started, BackendError>>> {
        let (Some(generation), Some(workspace)) = (it.target, &looked.workspace) else {
            return Ok(None);
        };
        let config = &self.app.config;
        let own = workspace.command.as_deref();
        let command = match config.command_of(own, &workspace.runtime, &it.to) {
            Ok(command) => command,
            Err(why) => return Ok(Some(Err(BackendError::broken(why)))),
        };
        let passport = match self.fresh.take() {
            Some(passport) => passport,
            None => self.another_passport(it).await?,
        };
        let mut env = workspaces::standby(self.app, workspace, generation);
        env.insert("LIGAND_PASSPORT".to_owned(), passport.reveal().to_owned());
        env.insert("LIGAND_STANDBY".to_owned(), "wait".to_owned());
        let key = Key { workspace: self.workspace, generation };
        let mut spec = Spec {
            env,
            credential: None,
            runtime: workspace.runtime.clone(),
            ..Spec::bare(key, command, passport)
        };
        if let Err(why) = templates::equip(self.app, workspace, generation, &mut spec).await? {
            return Ok(Some(Err(BackendError::broken(why))));
        }
        Ok(self.wanted(it, backend.ensure(spec)).await)
    }

    /// The first one is lost with the server that minted it. It stays valid: the instance may have it after all.
    async fn another_passport(
        &self,
        it: &Migration,
    ) -> anyhow::Result<ligand_domain::credential::Token> {
        let (mut work, workspace, now_it) = self.begin().await?;
        let generation = it.target.context("it is not prepared")?;
        let candidate = workspace.and_then(|workspace| workspace.identity.candidate);
        anyhow::ensure!(candidate == now_it.target, "the candidate was abandoned meanwhile");
        let until = work.now.after(self.app.config.migrations.deadline(Before::Provision));
        let of = (self.workspace, generation);
        let placed = Some(it.to.as_str());
        let passport = access::mint_passport(self.app, &mut work, of, placed, until).await?;
        let summary = format!("the start of generation {generation} was resumed");
        work.note(self.workspace, Some(generation), Kind::Resumed, summary, json!({}));
        work.commit().await?;
        Ok(passport)
    }

    async fn note_started(&self, started: &Started) -> anyhow::Result<Went> {
        let (mut work, _, mut it) = self.begin().await?;
        let Some(generation) = it.target else { return Ok(Went::On) };
        let (of, now) = ((self.workspace, generation), work.now);
        let address = started.address.as_deref();
        workspaces::instance_started(&mut work.tx, of, &started.handle, address, now).await?;
        (it.failures, it.last_error, it.next_attempt_at) = (0, None, None);
        store::save(&mut work.tx, &it).await?;
        let summary = format!("generation {generation} was started: {}", started.handle);
        let facts = json!({"handle": started.handle, "address": started.address, "backend": it.to});
        work.note(self.workspace, Some(generation), Kind::Started, summary, facts);
        work.commit().await?;
        Ok(Went::On)
    }
}
