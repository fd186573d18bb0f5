//! The steps of `ligand_domain::converge`, carried out. Each is written down before it is taken, and may be
//! taken twice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ligand_domain::brake::{Because, Verdict};
use ligand_domain::converge::{self, Cause, Step};
use ligand_domain::credential::Token;
use ligand_domain::guards::Guard;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::{self, Exit, Phase};
use ligand_domain::secrets::Receipt;
use ligand_domain::workspace::{Intent, Status};
use serde_json::json;
use uuid::Uuid;

use super::brings::{Brings, Given};
use super::context::{Context, Refusal};
use super::{Instance, Workspace, store};
use crate::access::{self, For};
use crate::app::App;
use crate::backend::{Backend, Delivery, Key, Spec, Started, fleet};
use crate::briefings;
use crate::journal::{Kind, Work};
use crate::liveness;
use crate::reconcile::CLAIM;
use crate::templates;

/// The contract's words for a start that a control plane refused.
pub(super) const PROVISIONING_FAILED: &str = "provisioning failed";

/// The backend's name for an instance of ours.
pub(crate) fn key(instance: &Instance) -> Key {
    Key { workspace: instance.workspace, generation: instance.born }
}

/// One workspace being brought in line.
pub(super) struct Steps<'a> {
    pub(super) app: &'a App,
    pub(super) id: WorkspaceId,
    /// What backends said when the step was decided.
    pub(super) seen: Vec<instance::Instance>,
    /// By which this pass has the workspace.
    pub(super) claim: Uuid,
    /// The secret of the generation that was planned in this pass. After a crash it is gone, and another
    /// one is minted beside it.
    fresh: Option<(Generation, Given)>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(app: &'a App, id: WorkspaceId, claim: Uuid) -> Self {
        Self { app, id, seen: Vec::new(), claim, fresh: None }
    }

    /// Begin to write down what a step came to, if this pass still has the workspace. One that waited for its
    /// backend for too long lost it to another, and what it is about to say may not be true any more.
    pub(super) async fn begin(&self) -> anyhow::Result<Work<'a>> {
        let mut work = Work::begin(self.app).await?;
        let until = work.now.after(CLAIM);
        let held = store::CLAIMS.keep(&mut work.tx, self.id.uuid(), self.claim, until).await?;
        ensure!(held, "another pass took over");
        Ok(work)
    }

    pub(super) async fn take(
        &mut self,
        workspace: &Workspace,
        instances: &[Instance],
        step: Step,
    ) -> anyhow::Result<()> {
        let of = |generation: Generation| {
            let found = instances.iter().find(|instance| instance.generation == generation);
            found.with_context(|| format!("generation {generation} is not there any more"))
        };
        match step {
            Step::Rest(_) => Ok(()),
            Step::Plan(cause) => {
                self.plan(workspace, &cause).await.context("plan the next instance")
            }
            Step::Start(generation) => {
                let older = instances.iter().filter(|instance| instance.generation < generation);
                for instance in older {
                    self.drain(instance).await;
                    self.replaced(workspace, instance)
                        .await
                        .context("end the previous instance")?;
                }
                self.start(of(generation)?).await.context("start the instance")
            }
            Step::Lost(generation, exit) => self.lost(of(generation)?, &exit).await,
            Step::GiveUp(generation, why) => self.give_up(of(generation)?, &why).await,
            Step::Silent(generation) => self.silent(workspace, of(generation)?).await,
            Step::Unsure(generation) => self.unsure(of(generation)?).await,
            Step::Heard(generation) => self.heard(of(generation)?).await,
            Step::Unheard => self.unheard().await,
            Step::Retire(generation) => self.replaced(workspace, of(generation)?).await,
            Step::Settle(status) => self.settle(status).await,
        }
    }

    /// Raise the generation and commit its credential, in one transaction that is a compare-and-set on
    /// the generations that it was decided by, and on there being no start in flight.
    async fn plan(&mut self, decided: &Workspace, cause: &Cause) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        let Some(workspace) = store::lock(&mut work.tx, self.id).await? else { return Ok(()) };
        let in_flight = match workspace.newest > workspace.current {
            true => store::instance_of(&mut work.tx, self.id, workspace.newest).await?,
            false => None,
        };
        let in_flight = in_flight.is_some_and(|instance| instance.ended_at.is_none());
        let decided = (decided.current, decided.newest);
        let found = (workspace.current, workspace.newest);
        let may = converge::may_plan(decided, found, in_flight, self.app.config.guards);
        if workspace.intent != Intent::Running || !may {
            return Ok(());
        }
        if !self.still_holds(&mut work, &workspace, cause).await? {
            return Ok(());
        }
        if let Some(because) = because(cause)
            && let (Verdict::Wait(until), brake) =
                liveness::ask(self.app, &mut work, because, workspace.since).await?
        {
            return self.hold(work, &workspace, (because, brake), until).await;
        }
        let (generation, now) = (workspace.newest.next(), work.now);
        store::set_generations(&mut work.tx, self.id, workspace.current, generation).await?;
        let instance = self.app.ids.instance();
        let of = (self.id, generation);
        store::insert_instance(
            &mut work.tx,
            instance,
            of,
            workspace.backend.as_deref(),
            Phase::Planned,
            now,
        )
        .await?;
        let given = self.commit_proof(&mut work, &workspace, generation).await?;
        store::mark_loaded(&mut work.tx, self.id).await?;
        templates::planned(&mut work.tx, self.id, generation).await?;
        briefings::expect(&mut work.tx, &workspace, generation, cause, now).await?;
        let evidence = format!("generation {generation} is being started: {}", cause.as_str());
        store::set_status(&mut work.tx, self.id, Status::Provisioning, &evidence, now).await?;
        let summary = format!("generation {generation} was planned: {}", cause.as_str());
        let facts = json!({"cause": cause.as_str(), "current": workspace.current, "restarts": workspace.restarts_wanted});
        work.note(self.id, Some(generation), Kind::Planned, summary, facts);
        let payload = json!({"name": workspace.name, "tier": workspace.tier, "runtime": workspace.runtime,
            "generation": generation});
        work.emit("WORKSPACE_PROVISIONING", self.id, payload);
        work.commit().await?;
        self.fresh = Some((generation, given));
        Ok(())
    }

    /// What decides and what acts see the same: between them a heartbeat may have come.
    async fn still_holds(
        &self,
        work: &mut Work<'_>,
        workspace: &Workspace,
        cause: &Cause,
    ) -> anyhow::Result<bool> {
        match cause {
            Cause::First | Cause::Replace => Ok(true),
            Cause::Restart => Ok(workspace.restart_due()),
            Cause::Unproven => {
                let of = (self.id, workspace.current);
                let current = store::instance_of(&mut work.tx, of.0, of.1).await?;
                Ok(current.is_some_and(|i| i.receipt == Some(Receipt::Incomplete)))
            }
            Cause::Unreachable => {
                let of = (self.id, workspace.current);
                let current = store::instance_of(&mut work.tx, of.0, of.1).await?;
                let lapsed = current.is_none_or(|i| i.lease_until(self.app) <= work.now);
                Ok(lapsed && !workspace.status.serves())
            }
        }
    }

    /// What runs an instance. Its workspace may be placed elsewhere by now.
    pub(super) fn backend(&self, instance: &Instance) -> anyhow::Result<&Arc<dyn Backend>> {
        let name = instance.backend.as_deref().unwrap_or_default();
        self.app
            .backends
            .get(name)
            .with_context(|| format!("there is no backend named `{name}` on this server"))
    }

    async fn start(&mut self, instance: &Instance) -> anyhow::Result<()> {
        let backend = Arc::clone(self.backend(instance)?);
        let generation = instance.generation;
        self.compare_rest(generation, &*backend).await.context("compare its data")?;
        let fresh = self.fresh.take().filter(|(planned, _)| *planned == generation);
        let started = match fresh {
            Some((_, Given::Credential(token)))
                if !self.app.config.guards.hold(Guard::PlanCommits) =>
            {
                let given = Given::Credential(token.clone());
                let started = self.ensure(&*backend, instance, given).await?;
                self.commit_late(generation, &token).await?;
                started
            }
            Some((_, given)) => self.ensure(&*backend, instance, given).await?,
            // What a mutant does: what a dead server has planned is nobody's business.
            None if !self.app.config.guards.hold(Guard::ResumePlanned) => return Ok(()),
            // An earlier pass ended between planning and hearing of the start. What the backend already runs
            // was given a credential that counts; otherwise one more is minted, and the first stays valid.
            None => match backend.find(key(instance)).await? {
                Some(started) => Ok(started),
                None => {
                    let Some(given) = self.resume(generation).await? else { return Ok(()) };
                    self.ensure(&*backend, instance, given).await?
                }
            },
        };
        match started {
            Ok(started) => self.note_started(&*backend, instance, &started).await,
            // Hurrying into the same wall helps nobody.
            Err(Refusal { why, more }) => self.end_start(instance, &why, true, more).await,
        }
    }

    /// What a mutant does: the row comes after the start. The gap is held open, so that it is met.
    async fn commit_late(&self, generation: Generation, token: &Token) -> anyhow::Result<()> {
        self.app.clock.sleep(Duration::from_millis(500)).await;
        let mut work = self.begin().await?;
        access::keep(self.app, &mut work, self.id, For::Start(generation), token).await?;
        Ok(work.commit().await?)
    }

    /// Another secret for a start whose own is lost. None, where the start is over meanwhile: what is over gets
    /// nothing that would be live.
    async fn resume(&self, generation: Generation) -> anyhow::Result<Option<Given>> {
        let mut work = self.begin().await?;
        let Some(workspace) = store::lock(&mut work.tx, self.id).await? else { return Ok(None) };
        let row = store::instance_of(&mut work.tx, self.id, generation).await?;
        let stands = row.is_some_and(|row| row.ended_at.is_none());
        if !stands || workspace.newest != generation || workspace.current >= generation {
            return Ok(None);
        }
        let given = self.another_proof(&mut work, &workspace, generation).await?;
        let summary = format!("the start of generation {generation} was resumed");
        work.note(self.id, Some(generation), Kind::Resumed, summary, json!({}));
        work.commit().await?;
        Ok(Some(given))
    }

    /// Ask for the instance. A refusal is final for this start, and then the backend has nothing of it; an
    /// error means that it is not known what the backend has.
    async fn ensure(
        &self,
        backend: &dyn Backend,
        instance: &Instance,
        given: Given,
    ) -> anyhow::Result<Result<Started, Refusal>> {
        let Context { workspace, env, .. } = match self.load(instance).await? {
            Ok(context) => context,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let placed = instance.backend.as_deref().unwrap_or("none");
        let own = workspace.command.as_deref();
        let command = match self.app.config.command_of(own, &workspace.runtime, placed) {
            Ok(command) => command,
            Err(why) => return Ok(Err(why.into())),
        };
        let key = key(instance);
        let provider = self.provider(&workspace, instance.generation).await?;
        let runtime = workspace.runtime.clone();
        let mut spec = Spec { env, runtime, provider, ..Spec::of(key, command) };
        given.put_into(&mut spec);
        if let Err(why) = templates::equip(self.app, &workspace, instance.born, &mut spec).await? {
            return Ok(Err(why.into()));
        }
        let cause = match backend.ensure(spec).await {
            Ok(started) => return Ok(Ok(started)),
            Err(cause) => cause,
        };
        // Perhaps only its answer was lost.
        if let Some(started) = backend.find(key).await.context("look for the instance")? {
            return Ok(Ok(started));
        }
        backend.destroy(key).await.context("destroy what a refused start left")?;
        let why = cause.chain();
        Ok(Err(match Brings::of(self.app, &workspace) {
            Brings::Credential => why.into(),
            // What a control plane says of its failures is for operators alone.
            Brings::Passport | Brings::Nothing => Refusal {
                why: format!("{PROVISIONING_FAILED}: {why}"),
                more: json!({"error": PROVISIONING_FAILED}),
            },
        }))
    }

    /// Confirm what was admitted before its backend had answered, by a server that died before it could write
    /// the answer down: the address that the backend reports is the one that counts.
    pub(super) async fn confirm(&self, instances: &[Instance]) -> anyhow::Result<()> {
        for instance in instances {
            let admitted = instance.phase == Phase::Serving && instance.backend.is_some();
            if !admitted || instance.started_at.is_some() {
                continue;
            }
            let backend = Arc::clone(self.backend(instance)?);
            if let Some(started) = backend.find(key(instance)).await? {
                self.note_started(&*backend, instance, &started).await?;
            }
        }
        Ok(())
    }

    /// The backend has it. That is true whoever has the workspace by now, unless its start was given up
    /// meanwhile: then nobody else knows that it runs.
    async fn note_started(
        &self,
        backend: &dyn Backend,
        instance: &Instance,
        started: &Started,
    ) -> anyhow::Result<()> {
        let mut work = Work::begin(self.app).await?;
        let purged = store::lock(&mut work.tx, self.id).await?.is_none();
        let of = (self.id, instance.generation);
        let row = store::instance_of(&mut work.tx, of.0, of.1).await?;
        if purged || row.is_some_and(|row| row.ended_at.is_some()) {
            drop(work);
            let ended = backend.destroy(key(instance)).await;
            return ended.context("end a start that was given up meanwhile");
        }
        let now = work.now;
        store::started(&mut work.tx, of, &started.handle, started.address.as_deref(), now).await?;
        if let Some(host) = backend.host(key(instance)).filter(|_| started.address.is_none()) {
            store::note_host(&mut work.tx, of, &host).await?;
        }
        if backend.delivery() == Delivery::StartData {
            let instance = fleet::instance_of(&started.handle);
            store::compute_follows(&mut work.tx, self.id, instance).await?;
        }
        templates::delivered(&mut work.tx, self.id, instance.born).await?;
        let summary = format!("generation {} was started: {}", instance.generation, started.handle);
        let evidence = json!({"handle": started.handle, "address": started.address});
        work.note(self.id, Some(instance.generation), Kind::Started, summary, evidence);
        Ok(work.commit().await?)
    }

    async fn lost(&self, instance: &Instance, exit: &Exit) -> anyhow::Result<()> {
        // First whatever is left of it, so that two never run at once.
        self.backend(instance)?
            .destroy(key(instance))
            .await
            .context("destroy what is left of the instance")?;
        let mut work = self.begin().await?;
        let Some(workspace) = store::lock(&mut work.tx, self.id).await? else { return Ok(()) };
        let (generation, now) = (instance.generation, work.now);
        if workspace.current != generation {
            // Another one counts by now: what ended says nothing about the workspace.
            store::end(&mut work.tx, (self.id, generation), &exit.to_string(), now).await?;
            return Ok(work.commit().await?);
        }
        if instance.dismissed {
            return self.dismissed(work, generation).await;
        }
        let why = format!("generation {generation} {exit}");
        store::end(&mut work.tx, (self.id, generation), &exit.to_string(), now).await?;
        // Its port is free for anybody from now on.
        store::clear_url(&mut work.tx, self.id).await?;
        let steady = workspace.status.serves().then_some(workspace.since);
        let failures = workspace.failures.one_more(now, steady);
        let next = failures.next_attempt(now, self.app.ids.jitter());
        store::set_failure(&mut work.tx, self.id, failures, &why, Some(next)).await?;
        store::set_status(&mut work.tx, self.id, Status::Offline, &why, now).await?;
        let evidence =
            json!({"exit": exit.to_string(), "failures": failures.count, "next_attempt_at": next});
        work.note(self.id, Some(generation), Kind::Lost, why, evidence);
        work.emit("WORKSPACE_OFFLINE", self.id, json!({"generation": generation}));
        Ok(work.commit().await?)
    }
}

/// What a cause means to the brake. First starts and what people ask for are none of its business.
fn because(cause: &Cause) -> Option<Because> {
    match cause {
        Cause::First | Cause::Restart | Cause::Unproven => None,
        Cause::Replace => Some(Because::Reported),
        Cause::Unreachable => Some(Because::Silent),
    }
}
