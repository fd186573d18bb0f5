//! What administrators and their tools say of a workspace from outside: restart it, its start failed, its compute
//! is another.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::workspace::{BootstrapFailed, Noted, SetCompute};
use ligand_domain::id::WorkspaceId;
use ligand_domain::lifecycle::{self as life, MOST_REPORTED, NO_REASON};
use ligand_domain::workspace::{Intent, Status};
use serde_json::json;

use super::change::paused_ancestor;
use super::{Brings, Compute, Instance, store};
use crate::app::App;
use crate::backend::{Delivery, ErrorKind, fleet};
use crate::config::BackendKind;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};

/// Whose compute may be named.
const PROVIDERS: [&str; 4] = ["aws", "gcp", "hetzner", "local"];
const LOOKUP: &str = "db lookup failed";
const UPDATE: &str = "db update failed";

/// Make a restart due, and return: it begins when the reconciler comes to it. What does not run at the moment
/// stays as it is, and starts with everything that was written before this when it is resumed or woken.
pub(super) async fn dispatch(app: &App, id: WorkspaceId) -> Result<()> {
    let mut work = Work::begin(app).await.map_err(Error::internal(LOOKUP))?;
    let found = store::lock(&mut work.tx, id).await.map_err(Error::internal(LOOKUP))?;
    let found = found.filter(|workspace| workspace.intent != Intent::Removed);
    let workspace = found.ok_or_else(|| Error::not_found("workspace not found"))?;
    let above = paused_ancestor(&mut work, &workspace).await.map_err(Error::internal(LOOKUP))?;
    let summary = match (workspace.intent, above) {
        _ if !workspace.managed() => {
            "a restart was asked for by an administrator; no backend runs it, nothing was done"
        }
        (_, Some(_)) => {
            "a restart was asked for by an administrator; a workspace above it is paused, nothing was done"
        }
        (Intent::Running, None) => {
            let why = "a restart was requested by an administrator";
            let now = work.now;
            store::want_restart(&mut work.tx, id, now).await?;
            store::set_status(&mut work.tx, id, Status::Provisioning, why, now).await?;
            store::wake(&mut work.tx, id, now).await?;
            why
        }
        (Intent::Paused | Intent::Hibernated | Intent::Removed, None) => {
            "a restart was asked for by an administrator; it does not run, and starts anew when it does"
        }
    };
    let facts = json!({"intent": workspace.intent.as_str()});
    work.note(id, Some(workspace.current), Kind::RestartRequested, summary, facts);
    work.commit().await?;
    app.bells.ring();
    Ok(())
}

/// Whoever watched a start says that it failed: it is given up at once, if it has not succeeded.
pub(super) async fn bootstrap_failed(
    app: &App,
    id: WorkspaceId,
    said: &BootstrapFailed,
) -> Result<Noted> {
    let error = said.error.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let error = life::head(error.unwrap_or(NO_REASON), MOST_REPORTED);
    let log = said.log_tail.as_deref().unwrap_or_default();
    let mut work = Work::begin(app).await.map_err(Error::internal(UPDATE))?;
    let found = store::lock(&mut work.tx, id).await.map_err(Error::internal(UPDATE))?;
    let starting = |status, intent| status == Status::Provisioning && intent == Intent::Running;
    let Some(workspace) = found.filter(|it| starting(it.status, it.intent)) else {
        return Ok(Noted { ok: true, no_change: Some(true) });
    };
    let now = work.now;
    let newest = workspace.planned(workspace.current, workspace.newest);
    store::set_status(&mut work.tx, id, Status::Failed, error, now).await?;
    store::note_report(&mut work.tx, id, error, &life::report(error, log)).await?;
    let given_up =
        newest > workspace.current && store::condemn(&mut work.tx, (id, newest), error).await?;
    store::wake(&mut work.tx, id, now).await?;
    let tail = life::tail(log, MOST_REPORTED);
    let facts = json!({"source": "bootstrap_watcher", "given_up": given_up});
    let summary = format!("somebody who watched its start says that it failed: {error}");
    work.note(id, Some(newest), Kind::BootstrapFailed, summary, facts);
    let payload = json!({"error": error, "log_tail": tail, "source": "bootstrap_watcher"});
    work.emit("WORKSPACE_PROVISION_FAILED", id, payload);
    work.commit().await.map_err(Error::internal(UPDATE))?;
    app.bells.ring();
    Ok(Noted { ok: true, no_change: None })
}

/// What the machine of a workspace printed while it started, where its backend keeps that.
pub(super) async fn console(app: &App, id: &str) -> Result<String> {
    let mut backends = app.backends.all();
    if !backends.any(|(_, backend)| backend.delivery() == Delivery::StartData) {
        return Err(no_console());
    }
    let id = id.parse().map_err(|_| Error::not_found("workspace not found"))?;
    let workspace = super::present(app, id).await?;
    let backend = workspace.backend.as_deref().and_then(|name| app.backends.get(name));
    let Some(backend) = backend else { return Err(no_console()) };
    match backend.console(id).await {
        Ok(output) => Ok(output),
        Err(cause) if cause.kind == ErrorKind::Unsupported => Err(no_console()),
        Err(cause) => {
            tracing::warn!(workspace.id = %id, error = cause.chain(), "a console could not be read");
            let text = "control plane returned an error fetching console output";
            Err(Error::Refused(StatusCode::BAD_GATEWAY, Box::new(ErrorBody::new(text))))
        }
    }
}

fn no_console() -> Error {
    let body = ErrorBody::new("console output needs a control plane")
        .detail("no backend here has consoles; `ligand ws logs` shows what an instance printed");
    Error::Refused(StatusCode::NOT_IMPLEMENTED, Box::new(body))
}

/// What was named, checked.
pub(super) fn compute(said: &SetCompute) -> Result<Compute> {
    let instance = said.instance_id.as_deref().unwrap_or_default().trim().to_owned();
    if instance.is_empty() {
        return Err(Error::bad_request("instance_id required"));
    }
    let provider = said.provider.as_deref().unwrap_or_default().trim().to_lowercase();
    if !BTreeSet::from(PROVIDERS).contains(provider.as_str()) {
        let expected = format!("provider must be one of {}", PROVIDERS.join(", "));
        return Err(Error::bad_request(expected));
    }
    Ok(Compute { instance, provider })
}

/// Where a control plane runs it, that is the instance which is asked about, and ended, from now on.
async fn point(
    app: &App,
    work: &mut Work<'_>,
    id: WorkspaceId,
    compute: &Compute,
) -> std::result::Result<(), sqlx::Error> {
    let Some(workspace) = store::get(&mut work.tx, id).await? else { return Ok(()) };
    if Brings::of(app, &workspace) == Brings::Credential {
        return Ok(());
    }
    let of = workspace.backend.as_ref().and_then(|name| app.config.backends.get(name));
    let ours = of.and_then(|of| of.provider.as_deref()) == Some(compute.provider.as_str());
    let provider = (!ours).then_some(compute.provider.as_str());
    let handle = fleet::handle(&compute.instance, provider);
    store::repointed(&mut work.tx, (id, workspace.current), &handle).await?;
    Ok(())
}

/// The compute that an instance is, in the words of the control plane that runs it; none, where none does or it is not
/// known whose it is.
fn compute_of(app: &App, instance: &Instance) -> Option<Compute> {
    let (name, handle) = (instance.backend.as_deref()?, instance.handle.as_deref()?);
    let of = app.config.backends.get(name).filter(|of| of.kind == BackendKind::Fleet)?;
    let provider = fleet::provider_of(handle).or_else(|| of.provider.clone())?;
    Some(Compute { instance: fleet::instance_of(handle).to_owned(), provider })
}

/// A workspace runs on this instance of another backend: what an administrator said of its compute is over.
pub(crate) async fn move_compute(
    app: &App,
    tx: &mut Tx,
    instance: &Instance,
) -> std::result::Result<(), sqlx::Error> {
    store::move_compute(tx, instance.workspace, compute_of(app, instance).as_ref()).await
}

/// Note which compute a workspace runs on. Nothing is started, stopped or asked.
pub(super) async fn repoint(app: &App, id: WorkspaceId, compute: &Compute) -> Result<()> {
    let mut work = Work::begin(app).await.map_err(Error::internal(UPDATE))?;
    store::lock(&mut work.tx, id).await.map_err(Error::internal(UPDATE))?;
    let now = work.now;
    let set = store::set_compute(&mut work.tx, id, compute, now).await;
    if !set.map_err(Error::internal(UPDATE))? {
        return Err(Error::not_found("workspace not found"));
    }
    point(app, &mut work, id, compute).await.map_err(Error::internal(UPDATE))?;
    let summary =
        format!("it runs on {} of {}, says an administrator", compute.instance, compute.provider);
    let facts = json!({"instance_id": compute.instance, "provider": compute.provider});
    work.note(id, None, Kind::Repointed, summary, facts);
    work.commit().await.map_err(Error::internal(UPDATE))
}
