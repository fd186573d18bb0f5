//! A migration is asked for, and what people want of one that is under way.

use std::time::Duration;

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_domain::id::WorkspaceId;
use ligand_domain::migration::{After, Before, Data, Probe, Stage, Wish};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;
use serde_json::json;
use uuid::Uuid;

use super::{Migration, store};
use crate::app::App;
use crate::backend::Capability;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};
use crate::workspaces::{self, Workspace};

/// What is asked for.
pub(super) struct Asked<'a> {
    /// The backend that is to run it.
    pub(super) to: &'a str,
    /// How long the source is kept.
    pub(super) grace: Option<Duration>,
    /// Why, for people.
    pub(super) reason: Option<&'a str>,
    /// The drain that asks.
    pub(super) drain: Option<Uuid>,
}

pub(super) fn conflict(error: &str, cause: impl Into<String>) -> Error {
    Error::Refused(StatusCode::CONFLICT, Box::new(ErrorBody::new(error).detail(cause)))
}

fn refused(cause: impl Into<String>) -> Error {
    conflict("workspace cannot be migrated", cause)
}

/// Begin a migration, in the caller's transaction.
///
/// # Errors
/// 404; 409 with what speaks against it; 503.
pub(super) async fn begin(
    app: &App,
    work: &mut Work<'_>,
    id: WorkspaceId,
    asked: &Asked<'_>,
) -> Result<Migration> {
    let found = workspaces::lock(&mut work.tx, id).await?;
    let workspace = found.filter(|workspace| workspace.intent != Intent::Removed);
    let workspace = workspace.ok_or_else(|| Error::not_found("workspace not found"))?;
    let from = may_move(app, &workspace, asked.to).map_err(refused)?;
    let source = workspaces::instance_of(&mut work.tx, id, workspace.current).await?;
    let Some(source) = source.filter(|source| source.ended_at.is_none()) else {
        return Err(refused("it has no instance that could be left: wait until it is online"));
    };
    let now = work.now;
    let stage = Stage::Before(Before::Prepare);
    let new = Migration {
        id: uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid(),
        workspace: id,
        from: from.to_owned(),
        to: asked.to.to_owned(),
        source: workspace.current,
        source_born: source.born,
        target: None,
        stage,
        reached: stage,
        since: now,
        deadline: now.after(app.config.migrations.deadline(Before::Prepare)),
        wish: Wish::Go,
        grace: asked.grace.unwrap_or(app.config.migrations.grace),
        reason: asked.reason.map(str::to_owned),
        cause: None,
        asked_at: now,
        ended_at: None,
        failures: 0,
        last_error: None,
        next_attempt_at: None,
        waits_for: None,
        stopping: false,
        source_ended: false,
        source_gone: false,
        target_gone: false,
        data: Data::default(),
        bytes_total: None,
        bytes_done: 0,
        digest: None,
        held_at: None,
        released_at: None,
        url_before: workspace.agent.url.clone(),
        url_after: None,
        probe: Probe::None,
        lacks: None,
        drain: asked.drain,
    };
    if !store::insert(&mut work.tx, &new).await? {
        return Err(refused("a migration of it is under way already"));
    }
    note(work, &new, format!("a migration from {from} to {} was asked for", new.to));
    Ok(new)
}

/// Where it is, if nothing speaks against its going from there to `to`.
fn may_move<'a>(
    app: &App,
    workspace: &'a Workspace,
    to: &str,
) -> std::result::Result<&'a str, String> {
    let Some(from) = workspace.backend.as_deref() else {
        return Err("no backend runs it: whoever runs its agent moves it".to_owned());
    };
    if workspace.intent != Intent::Running {
        let intent = workspace.intent.as_str();
        return Err(format!("it is to be {intent}: only one that runs can be migrated"));
    }
    if from == to {
        return Err(format!("it is on the backend {to} already"));
    }
    for name in [from, to] {
        let Some(backend) = app.backends.get(name) else {
            return Err(format!("there is no backend named `{name}` on this server"));
        };
        if !backend.can(Capability::Data) {
            return Err(format!("the backend {name} can neither give its data away nor take any"));
        }
    }
    if app.config.same_place(from, to) {
        let why = format!("{from} and {to} keep their data in one place: give each its own");
        return Err(why);
    }
    let (own, runtime) = (workspace.command.as_deref(), workspace.runtime.as_str());
    app.config.command_of(own, runtime, to)?;
    if !app.config.redeems(own, runtime, to) {
        let why = "its runtime has no agent there that could stand by as a candidate";
        return Err(format!("the backend {to} cannot be its target: {why}"));
    }
    Ok(from)
}

/// Say in the journal, and to watchers, where it stands.
pub(super) fn note(work: &mut Work<'_>, it: &Migration, summary: String) {
    let phase = it.stage.as_str();
    let facts = json!({"migration": it.id, "phase": phase, "from": it.from, "to": it.to, "cause": it.cause});
    work.note(it.workspace, it.target.or(Some(it.source)), Kind::Migration, summary, facts);
    let event = match it.stage {
        Stage::Over(ligand_domain::migration::Outcome::Migrated) => "MIGRATION_DONE",
        Stage::Over(ligand_domain::migration::Outcome::RolledBack) => "MIGRATION_ROLLED_BACK",
        Stage::Before(_) | Stage::Undoing | Stage::After(_) => "MIGRATION_PHASE",
    };
    let payload = json!({"migration_id": it.id, "phase": phase, "from": it.from, "to": it.to,
        "generation": it.target, "cause": it.cause});
    work.emit(event, it.workspace, payload);
}

/// What a person can ask of a migration that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// That it rests.
    Pause,
    /// That it goes on.
    Resume,
    /// That it is undone.
    Abort,
}

/// What becomes of that.
fn decide(it: &Migration, ask: Ask) -> std::result::Result<Wish, String> {
    let phase = it.stage.as_str();
    match (ask, it.stage) {
        (_, Stage::Undoing) => Err("it is being rolled back".to_owned()),
        (_, Stage::Over(_)) => Err("it is over".to_owned()),
        (Ask::Abort, Stage::After(_)) => {
            Err(format!("it is past its cut-over ({phase}): migrate the workspace back"))
        }
        (Ask::Abort, Stage::Before(_)) => Ok(Wish::Abort),
        (_, _) if it.wish == Wish::Abort => Err("it was aborted".to_owned()),
        (Ask::Pause, Stage::Before(before)) if !before.pauses() => {
            Err(format!("its messages wait ({phase}): it goes on, or is aborted"))
        }
        (Ask::Pause, Stage::After(After::Release)) => Err("its messages wait".to_owned()),
        (Ask::Pause, Stage::Before(_) | Stage::After(After::Retire)) => Ok(Wish::Pause),
        (Ask::Resume, Stage::Before(_) | Stage::After(_)) if it.wish == Wish::Pause => Ok(Wish::Go),
        (Ask::Resume, Stage::Before(_) | Stage::After(_)) => Err("it is not paused".to_owned()),
    }
}

/// Write down what a person wants of the migration of a workspace.
///
/// # Errors
/// 404; 409 where it cannot be; 503.
pub(super) async fn want(app: &App, id: WorkspaceId, ask: Ask) -> Result<Migration> {
    let mut work = Work::begin(app).await?;
    if workspaces::lock(&mut work.tx, id).await?.is_none() {
        return Err(Error::not_found("workspace not found"));
    }
    let Some(it) = store::open_of(&mut work.tx, id).await? else {
        return Err(conflict("no migration is under way", "the workspace is not being migrated"));
    };
    let error = match ask {
        Ask::Pause => "migration cannot be paused",
        Ask::Resume => "migration cannot be resumed",
        Ask::Abort => "migration cannot be aborted",
    };
    let wish = decide(&it, ask).map_err(|why| conflict(error, why))?;
    let it = write(&mut work, it, wish).await?;
    work.commit().await?;
    app.bells.ring();
    Ok(it)
}

/// Write a wish down, in the caller's transaction.
pub(super) async fn write(
    work: &mut Work<'_>,
    mut it: Migration,
    wish: Wish,
) -> std::result::Result<Migration, sqlx::Error> {
    let now = work.now;
    // While it rested, no time of its phase passed.
    if let (Stage::Before(before), Wish::Pause, Wish::Go) = (it.stage, it.wish, wish) {
        it.deadline = now.after(work.app().config.migrations.deadline(before));
    }
    it.wish = wish;
    store::want(&mut work.tx, it.id, wish, it.deadline, now).await?;
    let summary = match wish {
        Wish::Go => "the migration was resumed",
        Wish::Pause => "the migration was paused",
        Wish::Abort => "the migration was aborted",
    };
    let facts = json!({"migration": it.id, "phase": it.stage.as_str()});
    work.note(it.workspace, Some(it.source), Kind::Migration, summary, facts);
    Ok(it)
}

/// Whether a drain that ends may still undo it.
pub(super) fn can_abort(it: &Migration) -> bool {
    decide(it, Ask::Abort).is_ok()
}

/// When something that failed so often is tried again.
pub(super) fn again_at(failures: i64, now: Timestamp) -> Timestamp {
    let doubled = u32::try_from(failures.clamp(0, 5)).unwrap_or(0);
    now.after(Duration::from_secs(1 << doubled))
}
