//! Changing a workspace: its settings, and asking for a restart.

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::workspace::{Patched, Restarted};
use ligand_domain::admission::Bootstrap;
use ligand_domain::id::WorkspaceId;
use ligand_domain::workspace::{Intent, Status};
use serde_json::{Map, Value, json};

use super::create::{host_directory, text};
use super::{Workspace, store};
use crate::access::By;
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};
use crate::registry;
use crate::templates::{self, Wish};

const BAD_BODY: &str = "invalid request body";
/// What a workspace may change of itself. Everything else decides what runs, or for whom.
const OWN: [&str; 5] = ["name", "role", "x", "y", "collapsed"];

/// Apply the keys of a patch. Unknown keys are ignored, as the contract says.
pub(super) async fn patch(
    app: &App,
    id: WorkspaceId,
    by: &By,
    keys: &Map<String, Value>,
) -> Result<Patched> {
    const KNOWN: [&str; 11] = [
        "name",
        "role",
        "x",
        "y",
        "collapsed",
        "tier",
        "parent_id",
        "runtime",
        "workspace_dir",
        "bootstrap",
        "hibernation_idle_minutes",
    ];
    let foreign =
        keys.keys().find(|key| KNOWN.contains(&key.as_str()) && !OWN.contains(&key.as_str()));
    if let (By::Itself, Some(key), false) = (by, foreign, app.config.compat()) {
        let body = ErrorBody::new("admin auth required")
            .detail(format!("{key}: only an administrator may change it"));
        return Err(Error::Refused(StatusCode::FORBIDDEN, Box::new(body)));
    }
    let mut work = Work::begin(app).await?;
    let wanted = keys.get("parent_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    lock_both(&mut work, id, wanted).await?;
    let found = store::get(&mut work.tx, id).await?.filter(|w| w.intent != Intent::Removed);
    let mut workspace = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    let mut changed = Vec::new();
    // Half a place is none.
    let placed = keys.contains_key("x") && keys.contains_key("y");
    for (key, value) in keys.iter().filter(|(key, _)| placed || !matches!(key.as_str(), "x" | "y"))
    {
        if apply(app, &mut workspace, key, value)? {
            changed.push(key.as_str());
        }
    }
    if let Some(parent) = wanted {
        may_be_below(&mut work, id, parent).await?;
    }
    store::save_settings(&mut work.tx, &workspace, work.now).await?;
    if changed.contains(&"hibernation_idle_minutes") {
        store::set_idle_minutes(&mut work.tx, id, workspace.leisure.minutes).await?;
    }
    if !changed.is_empty() {
        let summary = format!("changed: {}", changed.join(", "));
        work.note(id, None, Kind::Changed, summary, json!({"keys": changed}));
    }
    work.commit().await?;
    let needs_restart = changed.contains(&"workspace_dir").then_some(true);
    Ok(Patched { status: "updated".to_owned(), needs_restart })
}

/// Lock a workspace and the parent it is to get, always in the same order, so that two moves never wait for
/// each other.
async fn lock_both(
    work: &mut Work<'_>,
    id: WorkspaceId,
    parent: Option<WorkspaceId>,
) -> Result<()> {
    let mut ids: Vec<WorkspaceId> = parent.into_iter().chain([id]).collect();
    ids.sort_unstable();
    for id in ids {
        store::lock(&mut work.tx, id).await?;
    }
    Ok(())
}

async fn may_be_below(work: &mut Work<'_>, id: WorkspaceId, parent: WorkspaceId) -> Result<()> {
    let found = store::get(&mut work.tx, parent).await?;
    if found.is_none_or(|parent| parent.intent == Intent::Removed) {
        return Err(Error::invalid(BAD_BODY, "parent_id: there is no such workspace"));
    }
    let lineage = store::lineage(&mut work.tx, parent).await?;
    let above = lineage.is_some_and(|lineage| lineage.ancestors.contains(&id));
    if parent == id || above {
        return Err(Error::invalid(BAD_BODY, "parent_id: a workspace cannot be below itself"));
    }
    Ok(())
}

fn apply(app: &App, workspace: &mut Workspace, key: &str, value: &Value) -> Result<bool> {
    let wrong = |expected: &str| Error::invalid(BAD_BODY, format!("{key}: expected {expected}"));
    let string = || value.as_str().ok_or_else(|| wrong("a text"));
    let checked = |most, plain| -> Result<String> {
        let given = string()?;
        text(key, given, most, plain).map_err(Error::bad_request)?;
        Ok(given.to_owned())
    };
    match key {
        "name" => {
            workspace.name = checked(255, false)?;
            if workspace.name.trim().is_empty() {
                return Err(wrong("a text of 1 to 255 bytes"));
            }
        }
        "role" => workspace.role = Some(checked(1000, false)?).filter(|role| !role.is_empty()),
        "runtime" => set_runtime(app, workspace, checked(100, true)?),
        "tier" => {
            let tier = value.as_i64().filter(|tier| (1..=4).contains(tier));
            workspace.tier = tier.ok_or_else(|| wrong("1 to 4"))?;
        }
        "bootstrap" => {
            workspace.bootstrap = match string()? {
                "open" => Bootstrap::Open,
                "sealed" => Bootstrap::Sealed,
                _ => return Err(wrong("`open` or `sealed`")),
            };
        }
        "parent_id" if value.is_null() => workspace.parent = None,
        "parent_id" => {
            workspace.parent = Some(string()?.parse().map_err(|_| wrong("a UUID or null"))?);
        }
        "workspace_dir" if value.is_null() => workspace.workspace_dir = None,
        "workspace_dir" => {
            let path = string()?;
            let path = host_directory(app, path)
                .map_err(|why| Error::invalid("invalid workspace directory", why))?;
            workspace.workspace_dir = Some(path);
        }
        "hibernation_idle_minutes" if value.is_null() => workspace.leisure.minutes = None,
        "hibernation_idle_minutes" => {
            let minutes = value.as_i64().ok_or_else(|| wrong("whole minutes or null"))?;
            workspace.leisure.minutes = Some(minutes).filter(|minutes| *minutes > 0);
        }
        "x" => workspace.canvas.0 = value.as_f64().ok_or_else(|| wrong("a number"))?,
        "y" => workspace.canvas.1 = value.as_f64().ok_or_else(|| wrong("a number"))?,
        "collapsed" => {
            workspace.canvas.2 = value.as_bool().ok_or_else(|| wrong("true or false"))?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What nobody decided about the door follows what runs behind it.
fn set_runtime(app: &App, workspace: &mut Workspace, runtime: String) {
    let (placed, own) = (workspace.backend.clone(), workspace.command.clone());
    let usual = |of: &str| registry::bootstrap_of(app, placed.as_deref(), of, own.as_deref());
    if workspace.bootstrap == usual(&workspace.runtime) {
        workspace.bootstrap = usual(&runtime);
    }
    workspace.runtime = runtime;
}

/// Ask for a restart: raise the counter. Whoever loads the context after this commit has seen everything
/// that was written before it.
pub(super) async fn restart(app: &App, id: WorkspaceId, wish: &Wish) -> Result<Restarted> {
    let mut work = Work::begin(app).await.map_err(Error::internal("lookup failed"))?;
    let found = store::lock(&mut work.tx, id).await.map_err(Error::internal("lookup failed"))?;
    let found = found.filter(|w| w.intent != Intent::Removed);
    let workspace = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    if let Some(text) = paused_ancestor(&mut work, &workspace).await? {
        return Err(Error::refused(StatusCode::CONFLICT, text));
    }
    if !workspace.managed() && workspace.runtime == "external" {
        return Ok(Restarted {
            status: "noop".to_owned(),
            runtime: Some(workspace.runtime),
            message: Some(
                "no backend runs this workspace: restart its agent where it runs".to_owned(),
            ),
            ..Restarted::default()
        });
    }
    if workspace.backend.as_deref().and_then(|name| app.backends.get(name)).is_none() {
        return Err(Error::refused(StatusCode::SERVICE_UNAVAILABLE, "provisioner not available"));
    }
    let now = work.now;
    let chosen = templates::resolve(app, &mut work.tx, &workspace, wish).await?;
    store::want_restart(&mut work.tx, id, now).await?;
    if workspace.identity.candidate.is_none() {
        let evidence = "a restart was requested";
        store::set_status(&mut work.tx, id, Status::Provisioning, evidence, now).await?;
    }
    store::wake(&mut work.tx, id, now).await?;
    let facts = json!({"restarts_wanted": workspace.restarts_wanted + 1, "config": chosen.label,
        "reset": chosen.reset});
    work.note(
        id,
        Some(workspace.current),
        Kind::RestartRequested,
        "a restart was requested",
        facts,
    );
    work.commit().await?;
    app.bells.ring();
    Ok(Restarted {
        status: Status::Provisioning.as_str().to_owned(),
        config_dir: Some(chosen.label),
        reset_session: Some(chosen.reset),
        ..Restarted::default()
    })
}

/// Nothing is started below a workspace that is paused: what to say, where that is so.
pub(super) async fn paused_ancestor(
    work: &mut Work<'_>,
    workspace: &Workspace,
) -> std::result::Result<Option<String>, sqlx::Error> {
    let lineage = store::lineage(&mut work.tx, workspace.id).await?;
    for ancestor in lineage.map(|lineage| lineage.ancestors).unwrap_or_default() {
        let found = store::get(&mut work.tx, ancestor).await?;
        if let Some(parent) = found.filter(|found| found.intent == Intent::Paused) {
            let name = parent.name;
            return Ok(Some(format!("parent workspace \"{name}\" is paused — resume it first")));
        }
    }
    Ok(None)
}

/// Something that a running workspace reads at its start was changed: ask for a restart. One that is not meant
/// to run, or that nothing here runs, reads it when it starts. Gives whether one was asked for.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn reload(
    work: &mut Work<'_>,
    id: WorkspaceId,
    why: &str,
) -> std::result::Result<bool, sqlx::Error> {
    let found = store::lock(&mut work.tx, id).await?;
    let Some(workspace) = found.filter(|w| w.intent == Intent::Running && w.managed()) else {
        return Ok(false);
    };
    if paused_ancestor(work, &workspace).await?.is_some() {
        return Ok(false);
    }
    let now = work.now;
    store::want_restart(&mut work.tx, id, now).await?;
    let evidence = format!("a restart was requested: {why}");
    if workspace.identity.candidate.is_none() {
        store::set_status(&mut work.tx, id, Status::Provisioning, &evidence, now).await?;
    }
    store::wake(&mut work.tx, id, now).await?;
    let facts = json!({"restarts_wanted": workspace.restarts_wanted + 1});
    work.note(id, Some(workspace.current), Kind::RestartRequested, evidence, facts);
    Ok(true)
}
