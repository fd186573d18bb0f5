//! Workspaces: their intent, what was observed of them, and their instances.
//!
//! Handlers in `http.rs` write intent and wake the reconciler; `reconcile.rs` converges; `view.rs` says what
//! callers see. What others may do to a workspace inside their own transaction is in this file.

mod brings;
mod change;
mod context;
mod create;
mod doubt;
mod halt;
pub mod hibernation;
pub mod http;
mod lifecycle;
mod outside;
pub mod reconcile;
mod remove;
mod rest;
mod steps;
mod store;
mod view;

use std::time::Duration;

use ligand_domain::admission::Bootstrap;
use ligand_domain::backoff::Failures;
use ligand_domain::id::{Generation, InstanceId, WorkspaceId};
use ligand_domain::instance::{Features, Phase, Seen};
use ligand_domain::lease::{self, Holder};
use ligand_domain::lifecycle::{self as life, Leisure};
use ligand_domain::rotation::Serials;
use ligand_domain::secrets::Receipt;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Standing, Status};

pub(crate) use self::brings::Brings;
pub(crate) use self::change::reload;
pub(crate) use self::context::standby;
pub(crate) use self::create::connection;
pub(crate) use self::doubt::suspect;
pub use self::hibernation::HibernationMonitor;
pub(crate) use self::http::origin;
pub(crate) use self::lifecycle::{Roused, note_turn, rouse};
pub(crate) use self::outside::move_compute;
pub use self::reconcile::WorkspaceReconciler;
pub(crate) use self::reconcile::see;
pub(crate) use self::steps::key;
use crate::app::App;
use crate::backend::{Key, Push};
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::migrations;

pub(crate) use self::store::{
    Beat, Register, abandon, alive, bind_newest, clear_candidate, close_bootstrap, count_rotation,
    end as end_instance, get, heard, heard_again, insert_instance, insert_registered, instance_of,
    let_go, lineage, lineages, lock, moved, note_refused, note_unproven, observe_beat,
    observe_instance, observe_register, place, placed_on, register_failed, register_succeeded,
    release_all, revoked, rotated, save_card, serving, set_budget, set_candidate, set_generations,
    set_receipt, set_status, started as instance_started, touch_outbound, wake,
};

/// A workspace as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Option<String>,
    /// Resource tier.
    pub tier: i64,
    /// Which recipe runs it.
    pub runtime: String,
    /// Model that the runtime is told to use.
    pub model: Option<String>,
    /// The command that the agent supervises, where it is not the recipe's.
    pub command: Option<Vec<String>>,
    /// Which backend runs it; `None` for an external one.
    pub backend: Option<String>,
    /// A host directory it works in.
    pub workspace_dir: Option<String>,
    /// What it may do there.
    pub workspace_access: String,
    /// Its place in the hierarchy.
    pub parent: Option<WorkspaceId>,
    /// Cents a month.
    pub budget_limit: Option<i64>,
    /// Cents spent.
    pub monthly_spend: i64,
    /// Turns at once.
    pub max_concurrent_tasks: i64,
    /// Place on a canvas.
    pub canvas: (f64, f64, bool),
    /// What a user asked for.
    pub intent: Intent,
    /// Restarts asked for so far.
    pub restarts_wanted: i64,
    /// Of those, how many the newest instance has loaded.
    pub restarts_loaded: i64,
    /// What was last observed.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// What it rests on.
    pub evidence: String,
    /// The generation that counts now.
    pub current: Generation,
    /// The newest that was planned.
    pub newest: Generation,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the next begins.
    pub next_attempt_at: Option<Timestamp>,
    /// Replacements that followed a failure.
    pub failures: Failures,
    /// When its last instance was released, once it is removed.
    pub released_at: Option<Timestamp>,
    /// Whether every trace of it is to go, once it is removed and its last instance released.
    pub purge: bool,
    /// Whether it may be taken up without a credential.
    pub bootstrap: Bootstrap,
    /// Until when an administrator opened it.
    pub bootstrap_until: Option<Timestamp>,
    /// What its agent reports.
    pub agent: Reported,
    /// What else admissions look at.
    pub identity: Identity,
    /// Whether it is silent while its backend cannot say whether it runs.
    pub unsure: bool,
    /// When it hibernates by itself.
    pub leisure: Leisure,
    /// The compute that an administrator named.
    pub compute: Option<Compute>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The compute that an administrator said a workspace runs on. Nothing is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// Its provider's name for it.
    pub instance: String,
    /// Whose it is.
    pub provider: String,
}

/// What admissions look at, besides generations and bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The generation that a migration brings up.
    pub candidate: Option<Generation>,
    /// The newest generation of which it is certain that it never becomes current.
    pub abandoned: Option<Generation>,
    /// When an administrator last revoked its credentials.
    pub revoked_at: Option<Timestamp>,
    /// When a register was last refused, and why.
    pub refused: Option<(Timestamp, String)>,
    /// Rotations of its credential.
    pub serials: Serials,
}

impl Identity {
    /// What a person should know where an external agent was refused after it was last heard of: whether
    /// that was the agent or a stranger nobody here can tell.
    #[must_use]
    pub fn refused_since(&self, heard: Option<Timestamp>) -> Option<String> {
        let (at, why) = self.refused.as_ref().filter(|(at, _)| heard.is_none_or(|it| *at > it))?;
        Some(refused_text(*at, why))
    }
}

/// The cause and the cure, for people.
#[must_use]
pub(crate) fn refused_text(at: Timestamp, why: &str) -> String {
    format!(
        "a register was refused at {at}: {why}; if that was its agent, give it a new credential \
         (external/rotate) or let it take the workspace up again (revoke-auth-tokens)"
    )
}

/// What a workspace's agent reports.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reported {
    /// Where it answers.
    pub url: String,
    /// Its card, as sent.
    pub card: Option<String>,
    /// `push` or `poll`, once it said so.
    pub delivery_mode: Option<String>,
    /// When a register of its was let in and failed, unless one succeeded since.
    pub register_failed_at: Option<Timestamp>,
    /// Last admitted register or heartbeat.
    pub last_heartbeat_at: Option<Timestamp>,
    /// When it last called another workspace.
    pub last_outbound_at: Option<Timestamp>,
    /// Share of recent work that failed.
    pub error_rate: f64,
    /// One recent error, or why it failed.
    pub sample_error: String,
    /// Turns in progress.
    pub active_tasks: i64,
    /// Seconds since it started.
    pub uptime_seconds: i64,
    /// What it is doing.
    pub current_task: String,
    /// Capabilities, as JSON.
    pub capabilities: String,
    /// Seconds without progress after which a turn is given up.
    pub idle_timeout_seconds: Option<i64>,
}

impl Workspace {
    /// Whether a backend runs it.
    #[must_use]
    pub fn managed(&self) -> bool {
        self.backend.is_some()
    }

    /// Whether a restart was asked for that no instance has loaded yet.
    #[must_use]
    pub fn restart_due(&self) -> bool {
        self.restarts_wanted > self.restarts_loaded
    }

    /// How long an external workspace that never registered is taken at its creator's word.
    fn unheard_until(&self, app: &App) -> Option<Timestamp> {
        let never = !self.managed() && self.current == Generation::NONE;
        let term = Holder::External(app.config.external_stale_after);
        let from = self.agent.last_heartbeat_at.unwrap_or(self.since);
        never.then(|| lease::lapses_at(from, app.started, term, app.config.guards))
    }

    /// The generation that the reconciler brings up, or has: of these two the newest, but for a migration's
    /// candidate, which is none of its business, and for one that was abandoned.
    #[must_use]
    pub(crate) fn planned(&self, current: Generation, newest: Generation) -> Generation {
        let aside = [self.identity.candidate, self.identity.abandoned];
        if aside.contains(&Some(newest)) { current } else { newest }
    }

    /// What decides about wishes that concern its life.
    #[must_use]
    pub fn life(&self) -> life::Standing {
        life::Standing {
            intent: self.intent,
            status: self.status,
            managed: self.managed(),
            active_tasks: self.agent.active_tasks,
        }
    }

    /// What decides whether an agent may move its status.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            intent: self.intent,
            current: self.current,
            newest: self.planned(self.current, self.newest),
            restart_due: self.restart_due(),
        }
    }
}

/// One incarnation as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Which incarnation.
    pub generation: Generation,
    /// The number its backend knows it by.
    pub born: Generation,
    /// Which backend runs it.
    pub backend: Option<String>,
    /// How far it has come.
    pub phase: Phase,
    /// The backend's name for it.
    pub handle: Option<String>,
    /// Where it answers.
    pub url: String,
    /// Whether its backend reported that.
    pub url_reported: bool,
    /// The machine that it is on, where its backend reported that and no address.
    pub host: Option<String>,
    /// What its agent can do.
    pub features: Features,
    /// Its last sign of life.
    pub last_seen_at: Option<Timestamp>,
    /// When its backend confirmed it.
    pub started_at: Option<Timestamp>,
    /// When it was first admitted.
    pub registered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<String>,
    /// What its agent has shown of its secrets, once that was asked for.
    pub receipt: Option<Receipt>,
    /// Whether the server ended it because it stopped itself.
    pub dismissed: bool,
    /// Why its start failed, according to somebody who watched it.
    pub condemned: Option<String>,
    /// When it was planned.
    pub created_at: Timestamp,
}

impl Instance {
    /// Whose pace its lease follows, if it was last heard at `seen`.
    #[must_use]
    pub fn holder(&self, app: &App, seen: Timestamp) -> Holder {
        holder(app, self.backend.is_some(), self.features, seen)
    }

    /// When its lease lapses.
    #[must_use]
    pub fn lease_until(&self, app: &App) -> Timestamp {
        let seen = self.last_seen_at.or(self.started_at).unwrap_or(self.created_at);
        lease::lapses_at(seen, app.started, self.holder(app, seen), app.config.guards)
    }
}

/// Whose pace the lease of an instance follows, if it was last heard at `seen`.
#[must_use]
pub(crate) fn holder(app: &App, managed: bool, features: Features, seen: Timestamp) -> Holder {
    match (managed, features.paced) {
        (_, true) => {
            let told = app.pace.get().told_at(seen);
            Holder::Paced(lease::usual(told, app.config.heartbeat))
        }
        (true, false) => Holder::Plain,
        (false, false) => Holder::External(app.config.external_stale_after),
    }
}

/// What an admitted call found out about its own instance.
pub(crate) struct Observed {
    /// Where it answers, if its backend reported that.
    pub(crate) url: Option<String>,
    /// Where it answers, as far as anybody knows.
    pub(crate) address: Option<String>,
    /// Whether a backend runs it.
    pub(crate) managed: bool,
    /// What its agent can do.
    pub(crate) features: Features,
    /// What its agent had shown of its secrets before.
    pub(crate) receipt: Option<Receipt>,
    /// Its agent should show what it holds.
    pub(crate) wants_receipt: bool,
    /// When its next heartbeat is wanted.
    pub(crate) next_heartbeat: Duration,
    /// The call said nothing about the workspace.
    pub(crate) inert: bool,
    /// The reconciler has something to do.
    pub(crate) woke: bool,
    /// Its agent can take a new credential while it runs.
    pub(crate) rotates: bool,
}

/// What is known of the instance that calls.
pub(crate) async fn observed(
    app: &App,
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    inert: bool,
) -> std::result::Result<Observed, sqlx::Error> {
    let instance = store::instance_of(tx, of.0, of.1).await?;
    let holder =
        instance.as_ref().map_or(Holder::Plain, |instance| instance.holder(app, app.clock.now()));
    // What its backend reported as ended says nothing about the workspace any more, even if it still calls.
    let ended = instance.as_ref().is_some_and(|instance| instance.ended_at.is_some());
    let rotates = instance.as_ref().is_some_and(|instance| instance.features.rotate);
    let managed = instance.as_ref().is_some_and(|instance| instance.backend.is_some());
    let features = instance.as_ref().map(|instance| instance.features).unwrap_or_default();
    let receipt = instance.as_ref().and_then(|instance| instance.receipt);
    let reported = instance.as_ref().is_some_and(|instance| instance.url_reported);
    let address = instance.map(|instance| instance.url).filter(|url| !url.is_empty());
    Ok(Observed {
        url: address.clone().filter(|_| reported),
        address,
        managed,
        features,
        receipt,
        wants_receipt: false,
        next_heartbeat: holder.beat(),
        inert: inert || ended,
        woke: false,
        rotates,
    })
}

/// Whether there is such a workspace, in whatever status.
///
/// # Errors
/// 503 when the database does not answer.
pub async fn exists(app: &App, id: WorkspaceId) -> Result<bool> {
    Ok(store::get(&mut app.db.read().await?, id).await?.is_some())
}

/// Read a workspace that must be there and not removed.
///
/// # Errors
/// 404, 503.
pub(crate) async fn present(app: &App, id: WorkspaceId) -> Result<Workspace> {
    let found = store::get(&mut app.db.read().await?, id).await?;
    found
        .filter(|workspace| workspace.intent != Intent::Removed)
        .ok_or_else(|| Error::not_found("workspace not found"))
}

/// A backend has something to say about an instance: look at its workspace now.
///
/// # Errors
/// When the database does not answer.
pub async fn heed(app: &App, Push(key): Push) -> std::result::Result<(), sqlx::Error> {
    let mut tx = app.db.begin().await?;
    store::wake(&mut tx, key.workspace, app.clock.now()).await?;
    migrations::wake(&mut tx, key.workspace, app.clock.now()).await?;
    tx.commit().await?;
    app.bells.ring();
    Ok(())
}

/// Whatever runs on this backend is about to be ended, because the server stops: its end is no failure.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn dismiss(app: &App, backend: &str) -> std::result::Result<(), sqlx::Error> {
    let mut tx = app.db.begin().await?;
    store::dismiss(&mut tx, backend, app.clock.now()).await?;
    tx.commit().await
}

/// The current instance as its backend knows it, if that says that it runs.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn running(
    app: &App,
    workspace: &Workspace,
) -> std::result::Result<Option<Key>, sqlx::Error> {
    let mut tx = app.db.read().await?;
    let instance = store::instance_of(&mut tx, workspace.id, workspace.current).await?;
    drop(tx);
    let Some(instance) = instance.filter(|instance| instance.ended_at.is_none()) else {
        return Ok(None);
    };
    let seen = reconcile::see(app, &instance).await;
    Ok(matches!(seen, Seen::Running).then(|| steps::key(&instance)))
}

/// What the backend says of the current instance.
pub(crate) async fn look(
    app: &App,
    workspace: &Workspace,
) -> std::result::Result<Seen, sqlx::Error> {
    let mut tx = app.db.read().await?;
    let instance = store::instance_of(&mut tx, workspace.id, workspace.current).await?;
    drop(tx);
    match instance {
        Some(instance) => Ok(reconcile::see(app, &instance).await),
        None => Ok(Seen::Unknown("there is no instance".to_owned())),
    }
}
