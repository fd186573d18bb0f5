//! How instances end: starts that are given up, instances that are drained and stopped, and what is said once
//! nothing of a workspace runs any more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ligand_domain::converge::GivenUp;
use ligand_domain::instance::Phase;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use serde_json::{Value, json};

use super::brings::Brings;
use super::rest::Rest;
use super::steps::{PROVISIONING_FAILED, Steps, key};
use super::{Instance, Workspace, store};
use crate::access;
use crate::backend::ErrorKind;
use crate::http::route::Route;
use crate::journal::Kind;

/// Longest wait for an agent that is told that it is about to end, in the background.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// How long its end waits for the telling: long enough to reach whoever listens.
const NOTICE: Duration = Duration::from_secs(1);

impl Steps<'_> {
    pub(super) async fn give_up(&self, instance: &Instance, why: &GivenUp) -> anyhow::Result<()> {
        self.backend(instance)?
            .destroy(key(instance))
            .await
            .context("destroy an instance that did not register")?;
        // The contract's name for whoever notices.
        let more = match why {
            GivenUp::Late(_) => json!({"source": "provision_timeout_sweep"}),
            _ => json!({}),
        };
        self.end_start(instance, &why.to_string(), false, more).await
    }

    /// A start is over: its credential lapses in the transaction that says so, and it is never admitted. `more` goes
    /// into the event.
    pub(super) async fn end_start(
        &self,
        instance: &Instance,
        why: &str,
        refused: bool,
        more: Value,
    ) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        let Some(workspace) = store::lock(&mut work.tx, self.id).await? else { return Ok(()) };
        let (generation, now) = (instance.generation, work.now);
        // Admitted in the meantime: then there is nothing to give up.
        if workspace.current >= generation {
            return Ok(());
        }
        access::lapse_pending(&mut work.tx, self.id, generation, now).await?;
        access::end_passports_of(&mut work.tx, self.id, generation, now).await?;
        store::end(&mut work.tx, (self.id, generation), why, now).await?;
        let failures = workspace.failures.one_more(now, None);
        let jitter = self.app.ids.jitter();
        let next = if refused {
            failures.after_refusal(now, jitter)
        } else {
            failures.next_attempt(now, jitter)
        };
        // Said already by whoever condemned it, with the end of its log.
        let told = workspace.status == Status::Failed && instance.condemned.is_some();
        if told {
            store::set_attempt(&mut work.tx, self.id, failures, next).await?;
        } else {
            store::set_failure(&mut work.tx, self.id, failures, why, Some(next)).await?;
            store::set_status(&mut work.tx, self.id, Status::Failed, why, now).await?;
        }
        if more["error"] == PROVISIONING_FAILED {
            store::set_sample_error(&mut work.tx, self.id, PROVISIONING_FAILED).await?;
        }
        let summary = format!("generation {generation} was given up: {why}");
        let evidence = json!({"failures": failures.count, "next_attempt_at": next});
        work.note(self.id, Some(generation), Kind::GivenUp, summary, evidence);
        if told {
            return Ok(work.commit().await?);
        }
        let mut payload = json!({"error": why, "generation": generation});
        if let (Value::Object(payload), Value::Object(more)) = (&mut payload, more) {
            payload.extend(more);
        }
        work.emit("WORKSPACE_PROVISION_FAILED", self.id, payload);
        Ok(work.commit().await?)
    }

    /// End an instance that a newer one replaces, or that should not be at all. Where a control plane does not end it,
    /// though it was asked several times, its replacement does not wait: what it holds is worth nothing by then. It is
    /// found again by whoever lists what the control plane has, where that can be listed. Who cannot be reached at all
    /// starts no replacement either: then nothing is gained by leaving it to itself.
    pub(super) async fn replaced(
        &self,
        workspace: &Workspace,
        instance: &Instance,
    ) -> anyhow::Result<()> {
        let Err(cause) = self.retire(workspace, instance).await else { return Ok(()) };
        let newer = workspace.newest > instance.generation && workspace.intent == Intent::Running;
        if !newer || Brings::of(self.app, workspace) == Brings::Credential {
            return Err(cause);
        }
        let asked = self.backend(instance)?.find(key(instance)).await;
        if asked.is_err_and(|cause| cause.kind == ErrorKind::Transient) {
            return Err(cause);
        }
        let mut work = self.begin().await?;
        let (generation, now) = (instance.generation, work.now);
        let handle = instance.handle.as_deref().unwrap_or_default();
        let error = format!("{cause:#}");
        tracing::error!(workspace.id = %self.id, %generation, handle, error, "INSTANCE-LEAKED: it was not ended, and is left to itself");
        store::lock(&mut work.tx, self.id).await?;
        let exit = "left to itself: its control plane did not end it";
        store::end(&mut work.tx, (self.id, generation), exit, now).await?;
        access::lapse_pending(&mut work.tx, self.id, generation, now).await?;
        access::end_passports_of(&mut work.tx, self.id, generation, now).await?;
        let summary = format!("generation {generation} could not be ended and is left to itself");
        let evidence = json!({"handle": handle, "why": error});
        work.note(self.id, Some(generation), Kind::Retired, summary, evidence);
        Ok(work.commit().await?)
    }

    /// End an instance that should not be. Its data stays.
    pub(super) async fn retire(
        &self,
        workspace: &Workspace,
        instance: &Instance,
    ) -> anyhow::Result<()> {
        let mut rest = Rest::Nothing;
        if instance.backend.is_some() {
            let backend = Arc::clone(self.backend(instance)?);
            self.note_stopping(workspace, instance).await?;
            backend
                .stop(key(instance), self.app.config.stop_grace)
                .await
                .context("stop an instance")?;
            // A migration's target has no data that counts.
            if instance.generation == workspace.current {
                rest = self.data_at_rest(workspace, &*backend).await;
            }
            backend.destroy(key(instance)).await.context("destroy an instance")?;
        }
        let mut work = self.begin().await?;
        let now = work.now;
        store::lock(&mut work.tx, self.id).await?;
        store::end(&mut work.tx, (self.id, instance.generation), "retired", now).await?;
        access::lapse_pending(&mut work.tx, self.id, instance.generation, now).await?;
        access::end_passports_of(&mut work.tx, self.id, instance.generation, now).await?;
        self.keep_rest(&mut work, instance.generation, rest).await?;
        let summary = format!("generation {} was ended", instance.generation);
        work.note(
            self.id,
            Some(instance.generation),
            Kind::Retired,
            summary,
            json!({"intent": workspace.intent.as_str()}),
        );
        Ok(work.commit().await?)
    }

    /// Nothing of a removed workspace runs any more.
    pub(super) async fn released(&self, workspace: &Workspace) -> anyhow::Result<()> {
        if workspace.released_at.is_some() {
            return Ok(());
        }
        let mut work = self.begin().await?;
        let now: Timestamp = work.now;
        store::mark_released(&mut work.tx, self.id, now).await?;
        let nothing = json!({});
        work.note(self.id, None, Kind::Removed, "nothing of it runs any more", nothing);
        Ok(work.commit().await?)
    }

    /// Tell an agent that is about to be replaced, so that it takes on nothing new. Its answer is of no interest,
    /// and one that gives none holds nobody up.
    pub(super) async fn drain(&self, instance: &Instance) {
        let app = self.app;
        if app.config.drain.is_zero() || instance.phase != Phase::Serving || instance.url.is_empty()
        {
            return;
        }
        let Ok(route) = Route::to(app, &instance.url, instance.url_reported).await else { return };
        let url = format!("{}/signals/restart_pending", instance.url.trim_end_matches('/'));
        let body = json!({"jsonrpc": "2.0", "method": "signals/restart_pending", "id": null,
            "params": {"drain_seconds": app.config.drain.as_secs(), "workspace_id": instance.workspace.to_string()}});
        let signal = route.http.post(url).header("X-Restart-Signal", "true").json(&body);
        let (told, telling) = tokio::sync::oneshot::channel();
        let stop = app.stop.clone();
        app.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = signal.timeout(TOLD_WITHIN).send() => {}
            }
            let _ = told.send(());
        });
        let _ = tokio::time::timeout(NOTICE, telling).await;
    }

    /// An instance is about to be ended: whoever finds it ended knows why. A stop that is tried again says so
    /// once.
    async fn note_stopping(
        &self,
        workspace: &Workspace,
        instance: &Instance,
    ) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        let (generation, intent) = (instance.generation, workspace.intent.as_str());
        let newer = workspace.newest > generation && workspace.intent == Intent::Running;
        let summary = match newer {
            true => format!("generation {generation} is being ended: a newer one takes its place"),
            false => {
                format!("generation {generation} is being ended: the workspace is to be {intent}")
            }
        };
        let evidence = json!({"intent": intent, "handle": instance.handle});
        work.note_once(self.id, Some(generation), Kind::Stopping, summary, evidence).await?;
        Ok(work.commit().await?)
    }

    /// Nothing of it runs any more, and nothing should: now that is true, and said.
    pub(super) async fn settle(&self, status: Status) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        let Some(workspace) = store::lock(&mut work.tx, self.id).await? else { return Ok(()) };
        let wanted = match workspace.intent {
            Intent::Paused => status == Status::Paused,
            Intent::Hibernated => status == Status::Hibernated,
            Intent::Running | Intent::Removed => false,
        };
        let alive = store::alive(&mut work.tx, self.id).await?;
        // Resumed in the meantime, or paused while it slept: the next look knows.
        if !wanted || (workspace.managed() && !alive.is_empty()) {
            return Ok(());
        }
        let now = work.now;
        store::rests(&mut work.tx, self.id).await?;
        let (evidence, event, payload) = match status {
            Status::Hibernated => (
                "hibernated: nothing of it runs; a message wakes it",
                "WORKSPACE_HIBERNATED",
                json!({"name": workspace.name, "tier": workspace.tier}),
            ),
            _ if workspace.managed() => {
                ("paused: nothing of it runs", "WORKSPACE_PAUSED", json!({"name": workspace.name}))
            }
            _ => (
                "paused: what its agent says changes nothing until it is resumed",
                "WORKSPACE_PAUSED",
                json!({"name": workspace.name}),
            ),
        };
        store::set_status(&mut work.tx, self.id, status, evidence, now).await?;
        work.note(self.id, None, Kind::Settled, evidence, json!({"status": status.as_str()}));
        work.emit(event, self.id, payload);
        Ok(work.commit().await?)
    }
}
