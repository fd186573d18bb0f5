//! Wishes about a workspace's life: pause, resume, hibernate, wake, recover.
//!
//! Each is one transaction that locks the rows, asks `ligand_domain::lifecycle`, and writes down the intent; then
//! the reconciler is waited for, where the answer states a finished thing. Nothing is started or stopped here.

use std::time::Duration;

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::workspace::{Child, Hibernated, Paused, Recovered, Resumed, Woken};
use ligand_domain::id::WorkspaceId;
use ligand_domain::lifecycle::{Awake, Recovery};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use serde_json::{Value, json};

use super::change::paused_ancestor;
use super::{Workspace, store};
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};
use crate::migrations;

/// The contract's text for a database that fails here.
const LOOKUP: &str = "lookup failed";
/// How long a finished thing is waited for before it is answered as going on.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile, besides on every commit.
const LOOK: Duration = Duration::from_millis(50);
/// A turn is not noted again within this time.
const NOTED: Duration = Duration::from_secs(10);

/// The workspace and its descendants, each after its parent, all of them locked: nobody gets a child while
/// its family is changed. Empty when there is no such workspace.
pub(super) async fn family(
    work: &mut Work<'_>,
    id: WorkspaceId,
) -> std::result::Result<Vec<Workspace>, sqlx::Error> {
    let mut family: Vec<Workspace> = store::lock(&mut work.tx, id).await?.into_iter().collect();
    let mut at = 0;
    while at < family.len() {
        for (child, _) in store::children(&mut work.tx, family[at].id).await? {
            if family.iter().all(|member| member.id != child)
                && let Some(child) = store::lock(&mut work.tx, child).await?
            {
                family.push(child);
            }
        }
        at += 1;
    }
    Ok(family)
}

/// Wait until a workspace is as `done` says. Gives whether it is.
pub(super) async fn until(
    app: &App,
    id: WorkspaceId,
    deadline: Timestamp,
    done: impl Fn(Option<&Workspace>) -> bool,
) -> Result<bool> {
    let mut commits = app.hub.commits();
    loop {
        commits.mark_unchanged();
        let found = store::get(&mut app.db.read().await?, id).await?;
        if done(found.as_ref()) {
            return Ok(true);
        }
        if app.clock.now() >= deadline || app.stop.is_cancelled() {
            return Ok(false);
        }
        tokio::select! {
            _ = commits.changed() => {}
            () = app.clock.sleep(LOOK) => {}
        }
    }
}

fn refused(status: StatusCode, body: ErrorBody) -> Error {
    Error::Refused(status, Box::new(body))
}

/// Those below would be concerned too, and nobody said that they should.
fn ask(error: &str, below: &[&Workspace]) -> Error {
    let named = |it: &&Workspace| Child { id: it.id.uuid(), name: it.name.clone() };
    let descendants = Some(below.iter().map(named).collect());
    refused(StatusCode::CONFLICT, ErrorBody { descendants, ..ErrorBody::new(error) })
}

/// Write a wish down, and make the reconciler look.
async fn wish(
    work: &mut Work<'_>,
    workspace: &Workspace,
    kind: Kind,
    summary: &str,
    facts: Value,
) -> std::result::Result<(), sqlx::Error> {
    store::wake(&mut work.tx, workspace.id, work.now).await?;
    migrations::wake(&mut work.tx, workspace.id, work.now).await?;
    work.note(workspace.id, Some(workspace.current), kind, summary, facts);
    Ok(())
}

/// It should run, in a new instance, whatever it was meant to do until now.
async fn start_again(
    work: &mut Work<'_>,
    workspace: &Workspace,
    kind: Kind,
    why: &str,
) -> std::result::Result<(), sqlx::Error> {
    let now = work.now;
    store::want_restart(&mut work.tx, workspace.id, now).await?;
    store::set_status(&mut work.tx, workspace.id, Status::Provisioning, why, now).await?;
    let facts = json!({"restarts_wanted": workspace.restarts_wanted + 1});
    wish(work, workspace, kind, why, facts).await
}

fn can_run(app: &App, workspace: &Workspace) -> bool {
    workspace.backend.as_deref().is_some_and(|name| app.backends.get(name).is_some())
}

fn no_backend() -> Error {
    Error::refused(StatusCode::SERVICE_UNAVAILABLE, "provisioner not available")
}

pub(super) async fn pause(app: &App, id: WorkspaceId, cascade: bool) -> Result<(bool, Paused)> {
    let mut work = Work::begin(app).await.map_err(Error::internal(LOOKUP))?;
    let family = family(&mut work, id).await.map_err(Error::internal(LOOKUP))?;
    let concerned: Vec<&Workspace> = family.iter().filter(|it| it.life().may_pause()).collect();
    let below = match concerned.split_first() {
        Some((first, below)) if first.id == id => below,
        _ => return Err(Error::not_found("workspace not found or already paused")),
    };
    if !below.is_empty() && !cascade {
        return Err(ask("workspace has descendants; use ?cascade=true to pause them too", below));
    }
    for workspace in &concerned {
        let (why, now) = ("a pause was requested; its instance is being ended", work.now);
        store::want_rest(&mut work.tx, workspace.id, Intent::Paused, why, now).await?;
        wish(&mut work, workspace, Kind::PauseRequested, why, json!({"by": id})).await?;
    }
    work.commit().await?;
    app.bells.ring();
    let (deadline, mut done) = (app.clock.now().after(PATIENCE), true);
    for workspace in &concerned {
        let rests = |it: Option<&Workspace>| {
            it.is_none_or(|it| it.status == Status::Paused || it.intent != Intent::Paused)
        };
        done &= until(app, workspace.id, deadline, rests).await?;
    }
    let status = if done { "paused" } else { "pausing" }.to_owned();
    Ok((done, Paused { status, paused_count: count(concerned.len()) }))
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

pub(super) async fn resume(app: &App, id: WorkspaceId, cascade: bool) -> Result<Resumed> {
    let mut work = Work::begin(app).await.map_err(Error::internal(LOOKUP))?;
    let family = family(&mut work, id).await.map_err(Error::internal(LOOKUP))?;
    let comes_back = |it: &&Workspace| it.life().may_resume() && (external(it) || can_run(app, it));
    let Some(first) = family.first().filter(|it| it.life().may_resume()) else {
        return Err(Error::not_found("workspace not found or not paused"));
    };
    if !comes_back(&first) {
        return Err(no_backend());
    }
    if let Some(text) = paused_ancestor(&mut work, first).await.map_err(Error::internal(LOOKUP))? {
        return Err(Error::refused(StatusCode::CONFLICT, text));
    }
    let concerned: Vec<&Workspace> = family.iter().filter(comes_back).collect();
    if concerned.len() > 1 && !cascade {
        let error = "workspace has paused descendants; use ?cascade=true to resume them too";
        return Err(ask(error, &concerned[1..]));
    }
    for workspace in &concerned {
        if external(workspace) {
            await_agent(&mut work, workspace).await?;
        } else {
            let why = "a resume was requested";
            start_again(&mut work, workspace, Kind::ResumeRequested, why).await?;
        }
    }
    let status = if external(first) { Status::AwaitingAgent } else { Status::Provisioning };
    let resumed_count = count(concerned.len());
    work.commit().await?;
    app.bells.ring();
    Ok(Resumed { status: status.as_str().to_owned(), resumed_count })
}

fn external(workspace: &Workspace) -> bool {
    !workspace.managed() && workspace.runtime == "external"
}

/// Nothing here starts it: its agent, which went on, is waited for.
async fn await_agent(
    work: &mut Work<'_>,
    workspace: &Workspace,
) -> std::result::Result<(), sqlx::Error> {
    let (why, now) = ("a resume was requested; its agent is waited for", work.now);
    store::want_agent(&mut work.tx, workspace.id, now).await?;
    store::set_status(&mut work.tx, workspace.id, Status::AwaitingAgent, why, now).await?;
    let payload = json!({"name": workspace.name, "external": true});
    work.emit("WORKSPACE_AWAITING_AGENT", workspace.id, payload);
    wish(work, workspace, Kind::ResumeRequested, why, json!({})).await
}

pub(super) async fn hibernate(
    app: &App,
    id: WorkspaceId,
    force: bool,
) -> Result<(bool, Hibernated)> {
    let mut tx = app.db.read().await.map_err(Error::internal(LOOKUP))?;
    let found = store::get(&mut tx, id).await.map_err(Error::internal(LOOKUP))?;
    drop(tx);
    let awake = found.map_or(Err(Awake::NotServing), |found| found.life().may_hibernate(force));
    match awake {
        Ok(()) => {}
        Err(Awake::NotServing) => {
            let text =
                "workspace not found or not in a hibernatable state (must be online or degraded)";
            return Err(Error::not_found(text));
        }
        Err(Awake::Busy(turns)) => {
            let error = "workspace has active tasks; use ?force=true to terminate them";
            let body = ErrorBody { active_tasks: Some(turns), ..ErrorBody::new(error) };
            return Err(refused(StatusCode::CONFLICT, body));
        }
    }
    let why = if force { "asked for, by force" } else { "asked for" };
    let may = |it: &Workspace, _| it.life().may_hibernate(force).is_ok();
    if !claim(app, id, why, may).await.map_err(Error::internal(LOOKUP))? {
        let error = "workspace changed before it could be hibernated; look again";
        let body = ErrorBody { workspace_id: Some(id.to_string()), ..ErrorBody::new(error) };
        return Err(refused(StatusCode::CONFLICT, body));
    }
    let deadline = app.clock.now().after(PATIENCE);
    let sleeps = |it: Option<&Workspace>| {
        it.is_none_or(|it| it.status == Status::Hibernated || it.intent != Intent::Hibernated)
    };
    let done = until(app, id, deadline, sleeps).await?;
    let status = if done { Status::Hibernated } else { Status::Hibernating };
    Ok((done, Hibernated { status: status.as_str().to_owned() }))
}

/// Take a workspace to sleep, if it still `may`: judged under its lock, so that of two at once one wins.
pub(super) async fn claim(
    app: &App,
    id: WorkspaceId,
    because: &str,
    may: impl FnOnce(&Workspace, Timestamp) -> bool,
) -> std::result::Result<bool, sqlx::Error> {
    let mut work = Work::begin(app).await?;
    let now = work.now;
    let found = store::lock(&mut work.tx, id).await?;
    let Some(workspace) = found.filter(|workspace| may(workspace, now)) else { return Ok(false) };
    let evidence = format!("it is being hibernated ({because}); its instance is being ended");
    store::want_rest(&mut work.tx, id, Intent::Hibernated, &evidence, now).await?;
    store::set_status(&mut work.tx, id, Status::Hibernating, &evidence, now).await?;
    let facts = json!({"active_tasks": workspace.agent.active_tasks,
        "last_turn_at": workspace.leisure.last_turn_at});
    wish(&mut work, &workspace, Kind::HibernateRequested, &evidence, facts).await?;
    work.commit().await?;
    app.bells.ring();
    Ok(true)
}

/// What came of waking a workspace.
pub(crate) enum Roused {
    /// It is being started again.
    Begun,
    /// Somebody else woke it, or it does not sleep at all.
    Awake,
    /// There is no such workspace.
    Gone,
    /// Nothing here can run it.
    NoBackend,
    /// Above it stands a paused one: what to say.
    Under(String),
}

/// Wake a workspace that hibernates, or is about to. Of several callers one begins.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn rouse(
    app: &App,
    id: WorkspaceId,
    because: &str,
) -> std::result::Result<Roused, sqlx::Error> {
    let mut work = Work::begin(app).await?;
    let Some(workspace) = store::lock(&mut work.tx, id).await? else { return Ok(Roused::Gone) };
    match workspace.intent {
        Intent::Removed => return Ok(Roused::Gone),
        _ if !workspace.life().may_wake() => return Ok(Roused::Awake),
        _ if !can_run(app, &workspace) => return Ok(Roused::NoBackend),
        Intent::Running | Intent::Paused | Intent::Hibernated => {}
    }
    if let Some(text) = paused_ancestor(&mut work, &workspace).await? {
        return Ok(Roused::Under(text));
    }
    let why = format!("woken: {because}");
    start_again(&mut work, &workspace, Kind::WakeRequested, &why).await?;
    work.commit().await?;
    app.bells.ring();
    Ok(Roused::Begun)
}

pub(super) async fn wake(app: &App, id: WorkspaceId) -> Result<Woken> {
    let roused = rouse(app, id, "asked for").await.map_err(Error::internal(LOOKUP))?;
    match roused {
        Roused::Begun => Ok(Woken { status: Status::Provisioning.as_str().to_owned() }),
        Roused::Awake | Roused::Gone => {
            Err(Error::not_found("workspace not found or not hibernated"))
        }
        Roused::Under(text) => Err(Error::refused(StatusCode::CONFLICT, text)),
        Roused::NoBackend => Err(no_backend()),
    }
}

pub(super) async fn recover(app: &App, id: WorkspaceId) -> Result<Recovered> {
    let mut work = Work::begin(app).await.map_err(Error::internal(LOOKUP))?;
    let found = store::lock(&mut work.tx, id).await.map_err(Error::internal(LOOKUP))?;
    let workspace = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    let kept = match workspace.life().recovery() {
        Recovery::Restarts => None,
        Recovery::Gone => return Err(Error::not_found("workspace not found")),
        Recovery::Well => Some("it is online: there is nothing to recover"),
        Recovery::Paused => Some("it is paused: resume it"),
        Recovery::Hibernated => Some("it is hibernated: wake it"),
        Recovery::Elsewhere => Some("no backend runs it: restart its agent where it runs"),
    };
    if let Some(why) = kept {
        let body = ErrorBody::new("workspace cannot be recovered").detail(why);
        return Err(refused(StatusCode::CONFLICT, body));
    }
    if !can_run(app, &workspace) {
        return Err(no_backend());
    }
    if let Some(text) = paused_ancestor(&mut work, &workspace).await? {
        return Err(Error::refused(StatusCode::CONFLICT, text));
    }
    let why = "a person asked to try again at once; earlier failures are forgotten";
    start_again(&mut work, &workspace, Kind::RecoverRequested, why).await?;
    work.commit().await?;
    app.bells.ring();
    let (status, failures) = (Status::Provisioning.as_str().to_owned(), workspace.failures.count);
    Ok(Recovered { status, workspace_id: id.to_string(), failures_forgotten: failures })
}

/// Note that a turn begins, goes on, or ended, unless that was noted `before` within the last seconds. Not being
/// able to note it fails no turn: then the workspace may be taken for idle too early, and a message wakes it.
pub(crate) async fn note_turn(app: &App, id: WorkspaceId, before: Option<Timestamp>) {
    let now = app.clock.now();
    if before.is_some_and(|at| now.since(at) < NOTED) {
        return;
    }
    let noted = async {
        let mut tx = app.db.begin().await?;
        store::touch_turn(&mut tx, id, now).await?;
        tx.commit().await
    };
    if let Err(cause) = noted.await {
        tracing::warn!(workspace.id = %id, error = %cause, "a turn could not be noted");
    }
}
