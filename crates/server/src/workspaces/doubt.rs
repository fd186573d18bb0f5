//! What is done about doubt: silence, backends that cannot say, guesses, and replacements that wait.

use ligand_domain::brake::{self, Because};
use ligand_domain::converge::DEBOUNCE;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use serde_json::json;

use super::steps::Steps;
use super::{Instance, Workspace, store};
use crate::app::App;
use crate::journal::{Kind, Work};

impl<'a> Steps<'a> {
    /// Begin, if what is doubted is still to be doubted: what decides and what acts are one transaction, and
    /// a heartbeat may have come between.
    async fn doubt(&self, instance: &Instance) -> anyhow::Result<Option<(Work<'a>, Workspace)>> {
        let mut work = self.begin().await?;
        let Some(locked) = store::lock(&mut work.tx, self.id).await? else { return Ok(None) };
        let latest = store::instance_of(&mut work.tx, self.id, instance.generation).await?;
        let lapsed = latest.is_some_and(|i| i.lease_until(self.app) <= work.now);
        let counts = locked.current == instance.generation && locked.intent == Intent::Running;
        let doubtful = lapsed && counts && locked.status.serves();
        Ok(doubtful.then_some((work, locked)))
    }

    /// What its backend said when this was decided.
    fn said_of(&self, generation: Generation) -> String {
        let seen = self.seen.iter().find(|seen| seen.generation == generation);
        seen.map(|seen| super::reconcile::say(&seen.seen)).unwrap_or_default()
    }

    /// Silent, and there as far as its backend says; or, of an external one, as far as anybody knows.
    pub(super) async fn silent(
        &self,
        workspace: &Workspace,
        instance: &Instance,
    ) -> anyhow::Result<()> {
        let seen = self.said_of(instance.generation);
        let Some((mut work, locked)) = self.doubt(instance).await? else { return Ok(()) };
        let (generation, now) = (instance.generation, work.now);
        let mut why =
            format!("unreachable: generation {generation} sent no heartbeat in time; {seen}");
        let refused = locked.identity.refused_since(instance.last_seen_at);
        if let Some(refused) = refused.filter(|_| !locked.managed()) {
            why = format!("{why}; {refused}");
        }
        let (to, event) = match workspace.managed() {
            true => (Status::Offline, "WORKSPACE_OFFLINE"),
            false => (Status::AwaitingAgent, "WORKSPACE_AWAITING_AGENT"),
        };
        store::note_silent(&mut work.tx, (self.id, generation), now).await?;
        store::set_status(&mut work.tx, self.id, to, &why, now).await?;
        let evidence = json!({"last_seen_at": instance.last_seen_at});
        work.note(self.id, Some(generation), Kind::Silent, why, evidence);
        work.emit(event, self.id, json!({"generation": generation}));
        Ok(work.commit().await?)
    }

    /// Silent, and its backend cannot say. Neither "online" nor "offline" would rest on anything: it is not
    /// known to be well, and that is all that is known.
    pub(super) async fn unsure(&self, instance: &Instance) -> anyhow::Result<()> {
        let seen = self.said_of(instance.generation);
        let Some((mut work, _)) = self.doubt(instance).await? else { return Ok(()) };
        let (generation, now) = (instance.generation, work.now);
        let why = format!("silent: generation {generation} sent no heartbeat in time; {seen}");
        store::set_status(&mut work.tx, self.id, Status::Degraded, &why, now).await?;
        store::set_unsure(&mut work.tx, self.id, now).await?;
        let evidence = json!({"last_seen_at": instance.last_seen_at, "backend": "unknown"});
        work.emit("WORKSPACE_DEGRADED", self.id, json!({"generation": generation, "reason": &why}));
        work.note(self.id, Some(generation), Kind::Silent, why, evidence);
        Ok(work.commit().await?)
    }

    /// It was heard again, while nobody could say whether it runs. How well it is its next heartbeat says.
    pub(super) async fn heard(&self, instance: &Instance) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        let Some(locked) = store::lock(&mut work.tx, self.id).await? else { return Ok(()) };
        if !locked.unsure || !locked.status.serves() || locked.current != instance.generation {
            return Ok(());
        }
        let (generation, now) = (instance.generation, work.now);
        let why = format!("generation {generation} sent a heartbeat");
        store::set_status(&mut work.tx, self.id, Status::Online, &why, now).await?;
        work.note(self.id, Some(generation), Kind::Reported, why, json!({}));
        work.emit("WORKSPACE_ONLINE", self.id, json!({"generation": generation}));
        Ok(work.commit().await?)
    }

    /// Its creator said that it is there, and nothing was ever heard of it.
    pub(super) async fn unheard(&self) -> anyhow::Result<()> {
        let mut work = self.begin().await?;
        let Some(locked) = store::lock(&mut work.tx, self.id).await? else { return Ok(()) };
        let known = locked.current != Generation::NONE || !locked.status.serves();
        // Heard in the meantime, perhaps: one that is served by an api credential has no generation.
        let silent = locked.unheard_until(self.app).is_some_and(|until| until <= work.now);
        if known || !silent || locked.intent != Intent::Running {
            return Ok(());
        }
        let why = format!(
            "nothing was heard of it within {} s",
            self.app.config.external_stale_after.as_secs()
        );
        store::set_status(&mut work.tx, self.id, Status::AwaitingAgent, &why, work.now).await?;
        work.note(self.id, None, Kind::Silent, why, json!({}));
        work.emit("WORKSPACE_AWAITING_AGENT", self.id, json!({}));
        Ok(work.commit().await?)
    }

    /// Its replacement waits, and its state says for what.
    pub(super) async fn hold(
        &self,
        mut work: Work<'_>,
        workspace: &Workspace,
        (because, brake): (Because, brake::State),
        until: Timestamp,
    ) -> anyhow::Result<()> {
        // While it eases, what they wait for is their turn: that comes when it was said to come.
        let by_brake = because == Because::Silent && matches!(brake, brake::State::Engaged { .. });
        store::hold(&mut work.tx, self.id, until, by_brake).await?;
        let summary = match because {
            Because::Silent => "its replacement waits: much of the fleet is silent at once",
            Because::Reported => "its replacement waits: many are replaced at once",
        };
        let generation = Some(workspace.current);
        let evidence = json!({"next_attempt_at": until});
        work.note_once(self.id, generation, Kind::Held, summary.to_owned(), evidence).await?;
        Ok(work.commit().await?)
    }

    /// It was ended by a server that stopped, with everything else. That is nobody's failure.
    pub(super) async fn dismissed(
        &self,
        mut work: Work<'_>,
        generation: Generation,
    ) -> anyhow::Result<()> {
        let (why, now) = ("it was ended together with its server", work.now);
        store::end(&mut work.tx, (self.id, generation), why, now).await?;
        store::clear_url(&mut work.tx, self.id).await?;
        store::set_status(&mut work.tx, self.id, Status::Offline, why, now).await?;
        work.note(self.id, Some(generation), Kind::Retired, why, json!({}));
        work.emit("WORKSPACE_OFFLINE", self.id, json!({"generation": generation}));
        Ok(work.commit().await?)
    }
}

/// A turn did not reach the agent: a guess about its instance. It makes the reconciler ask the backend; soon
/// after a start it is counted, and left to a later look.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn suspect(
    app: &App,
    id: WorkspaceId,
    generation: Generation,
    why: &str,
) -> Result<(), sqlx::Error> {
    let mut work = Work::begin(app).await?;
    // Before its instance, as everybody else: two that wait for each other would wait for ever.
    if store::lock(&mut work.tx, id).await?.is_none() {
        return Ok(());
    }
    let Some((guesses, started)) = store::count_guess(&mut work.tx, (id, generation)).await? else {
        return Ok(());
    };
    let at = work.now.max(started.after(DEBOUNCE));
    store::look_by(&mut work.tx, id, at).await?;
    let summary = "a turn did not reach the agent; its backend is asked";
    let evidence = json!({"why": why, "guesses": guesses, "asked_at": at});
    work.note_once(id, Some(generation), Kind::Doubted, summary.to_owned(), evidence).await?;
    work.commit().await?;
    app.bells.ring();
    Ok(())
}
