//! What platforms ask of their instances.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ligand_api::error::ErrorBody;
use ligand_api::fleet::{Console, Instance as View, Instances, Provision};
use ligand_domain::fleet::{Intent, State as Observed};
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use ligand_server::backend::ErrorKind;
use ligand_server::error::{Error, Result};
use ligand_server::http::body::{Payload, parse};
use ligand_server::http::path::WorkspacePath;
use serde::Deserialize;

use super::provision::{provision as ask, until};
use super::reconcile::rests;
use super::{Instance, failed, owned, provider, store, view};
use crate::access::{Platform, Reader};
use crate::app::Fleet;
use crate::journal::{self, About};

/// Lines of a log that are read, unless said otherwise, and at most.
const LINES: usize = 200;
const MOST_LINES: usize = 10_000;
/// Most bytes of a console: what its readers take.
const CONSOLE: usize = 200 * 1024;

/// Ask for an instance. The same call again means the same instance.
#[utoipa::path(post, path = "/cp/workspaces/provision", tag = "instances", request_body = Provision, responses(
    (status = 201, description = "it is there, or on its way (`state` is `pending`)", body = View), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, description = "it cannot be started like this", body = ErrorBody)))]
pub(crate) async fn provision(
    Platform(tenant): Platform,
    State(fleet): State<Fleet>,
    Payload(bytes): Payload,
) -> Result<(StatusCode, Json<View>)> {
    let asked: Provision = parse(&bytes, "invalid request body")?;
    let it = ask(&fleet, &tenant, &asked).await?;
    if it.ended_at.is_some() {
        let why = it.last_error.unwrap_or_else(|| "it was ended meanwhile".to_owned());
        let body = ErrorBody::new(why).code("broken");
        return Err(Error::Refused(StatusCode::UNPROCESSABLE_ENTITY, Box::new(body)));
    }
    Ok((StatusCode::CREATED, Json(view::instance(&it))))
}

/// Which instance, and how.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// The fleet's name for it.
    instance_id: Option<String>,
    /// Its generation.
    generation: Option<i64>,
    /// On which provider.
    provider: Option<String>,
    /// Take its workspace's data away too.
    #[serde(default)]
    prune: bool,
    /// How many lines of a log.
    lines: Option<usize>,
    /// Go on as it grows.
    #[serde(default)]
    follow: bool,
}

impl Which {
    fn fits(&self, it: &Instance) -> bool {
        self.instance_id.as_ref().is_none_or(|id| *id == it.id)
            && self.generation.is_none_or(|generation| generation == it.generation.number())
            && self.provider.as_ref().is_none_or(|provider| *provider == it.provider)
    }
}

/// Everything of a workspace that is meant, the oldest first; ended ones too.
async fn meant(fleet: &Fleet, org: &str, id: WorkspaceId, which: &Which) -> Result<Vec<Instance>> {
    let mut tx = fleet.db.read().await?;
    owned(&mut tx, Some(org), id).await?;
    let all = store::of_workspace(&mut tx, id).await?;
    Ok(all.into_iter().filter(|it| which.fits(it)).collect())
}

/// Instances of the platform that have not ended.
#[utoipa::path(get, path = "/cp/workspaces", tag = "instances", params(Which), responses(
    (status = 200, body = Instances), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    Platform(tenant): Platform,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Json<Instances>> {
    let mut tx = fleet.db.read().await?;
    let all = store::open(&mut tx, &tenant.org_id).await?;
    let instances = all.iter().filter(|it| which.fits(it)).map(view::instance).collect();
    Ok(Json(Instances { instances }))
}

/// Instances of a workspace that have not ended. Of a workspace that the fleet never heard of there are none.
#[utoipa::path(get, path = "/cp/workspaces/{id}/instances", tag = "instances", params(("id" = String, Path), Which), responses(
    (status = 200, body = Instances), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn of_workspace(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Json<Instances>> {
    let mut tx = fleet.db.read().await?;
    let all = store::of_workspace(&mut tx, id).await?;
    let ours = all.iter().filter(|it| it.org == tenant.org_id && it.ended_at.is_none());
    let instances = ours.filter(|it| which.fits(it)).map(view::instance).collect();
    Ok(Json(Instances { instances }))
}

/// What an instance does; the newest, where none is named. Its provider is asked now.
#[utoipa::path(get, path = "/cp/workspaces/{id}/status", tag = "instances", params(("id" = String, Path), Which), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn status(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Json<View>> {
    let meant = meant(&fleet, &tenant.org_id, id, &which).await?;
    let alive = meant.iter().rev().find(|it| it.ended_at.is_none());
    let it = alive.or(meant.last()).ok_or_else(|| Error::not_found("instance not found"))?;
    if it.ended_at.is_some() || it.confirmed_at.is_none() {
        return Ok(Json(view::instance(it)));
    }
    let said = match fleet.providers.get(&it.provider) {
        Some(provider) => provider.inspect(it.key()).await.map_err(|cause| cause.chain()),
        None => Err(format!("the provider {} is not in the settings", it.provider)),
    };
    let said = said.unwrap_or_else(Seen::Unknown);
    let news = Observed::of(&said) != it.state;
    if news && matches!(said, Seen::Stopped(_) | Seen::Gone) && it.intent == Intent::Run {
        // Written down by whoever is in charge of it.
        let mut tx = fleet.db.begin().await?;
        store::make_due(&mut tx, it.key(), fleet.clock.now()).await?;
        tx.commit().await?;
        fleet.ring();
    }
    Ok(Json(view::seen(it, &said, fleet.clock.now())))
}

/// What is meant, made to end or to stop, and as it is then.
async fn put(
    fleet: &Fleet,
    org: &str,
    id: WorkspaceId,
    which: &Which,
    to: Intent,
) -> Result<Vec<Instance>> {
    let meant = meant(fleet, org, id, which).await?;
    let mut tx = fleet.db.begin().await?;
    for it in &meant {
        if store::want(&mut tx, &it.id, to, fleet.clock.now()).await? {
            let about = About { org: Some(org), workspace: Some(id), instance: Some(&it.id) };
            let what = format!("its platform wants it to {}", to.as_str());
            journal::note(fleet, &mut tx, about, "intent", &what).await?;
        }
    }
    if which.prune && to == Intent::End {
        store::prune(&mut tx, id).await?;
    }
    tx.commit().await?;
    fleet.ring();
    let mut now = Vec::with_capacity(meant.len());
    for it in meant {
        now.push(until(fleet, org, &it.id, rests).await?);
    }
    Ok(now)
}

fn put_answer(now: &[Instance], id: WorkspaceId) -> Response {
    let done = now.iter().all(rests);
    let code = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let nothing = || View {
        workspace_id: id.to_string(),
        state: "gone".to_owned(),
        evidence: "there is none".to_owned(),
        ..View::default()
    };
    let view = now.last().map_or_else(nothing, view::instance);
    (code, Json(view)).into_response()
}

/// End an instance; every one of the workspace, where none is named. What is over already is success, and so is
/// what never was. Data stays, unless `prune` is said.
#[utoipa::path(delete, path = "/cp/workspaces/{id}", tag = "instances", params(("id" = String, Path), Which), responses(
    (status = 200, description = "it is gone", body = View), (status = 202, description = "it is about to be", body = View),
    (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn delete(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Response> {
    let mut tx = fleet.db.read().await?;
    let known = owned(&mut tx, Some(&tenant.org_id), id).await;
    drop(tx);
    match known {
        Ok(_) => {}
        // Somebody else's is to this caller as if it never was.
        Err(Error::Refused(StatusCode::NOT_FOUND, _)) => return Ok(put_answer(&[], id)),
        Err(cause) => return Err(cause),
    }
    let now = put(&fleet, &tenant.org_id, id, &which, Intent::End).await?;
    if which.prune {
        super::data::erase_if_wanted(&fleet, id).await?;
    }
    Ok(put_answer(&now, id))
}

/// Stop an instance, and keep it. Already stopped is success.
#[utoipa::path(post, path = "/cp/workspaces/{id}/stop", tag = "instances", params(("id" = String, Path), Which), responses(
    (status = 200, body = View), (status = 202, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn stop(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Response> {
    let now = put(&fleet, &tenant.org_id, id, &which, Intent::Stop).await?;
    Ok(put_answer(&now, id))
}

/// The end of a workspace's log, or the log as it grows.
#[utoipa::path(get, path = "/cp/workspaces/{id}/logs", tag = "instances", params(("id" = String, Path), Which), responses(
    (status = 200, content_type = "text/plain", body = String), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 501, body = ErrorBody)))]
pub(crate) async fn logs(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Response> {
    let mut tx = fleet.db.read().await?;
    let known = owned(&mut tx, Some(&tenant.org_id), id).await?;
    drop(tx);
    let provider = provider(&fleet, which.provider.as_deref().unwrap_or(&known.provider))?;
    let body = match which.follow {
        true => Body::from_stream(provider.follow(id).await.map_err(|cause| failed(&cause))?),
        false => {
            let lines = which.lines.unwrap_or(LINES).min(MOST_LINES);
            Body::from(provider.logs(id, lines).await.map_err(|cause| failed(&cause))?)
        }
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// The end of what a workspace's instances said, for people.
#[utoipa::path(get, path = "/cp/admin/workspaces/{id}/console", tag = "instances", params(("id" = String, Path)), responses(
    (status = 200, body = Console), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn console(
    Reader(tenant): Reader,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
) -> Result<Json<Console>> {
    let org = tenant.map(|tenant| tenant.org_id);
    let mut tx = fleet.db.read().await?;
    let known = owned(&mut tx, org.as_deref(), id).await?;
    let newest = store::of_workspace(&mut tx, id).await?.pop();
    drop(tx);
    let said = match provider(&fleet, &known.provider)?.logs(id, LINES).await {
        Ok(said) => said,
        Err(cause) if cause.kind == ErrorKind::Missing => bytes::Bytes::new(),
        Err(cause) => return Err(failed(&cause)),
    };
    let tail = &said[said.len().saturating_sub(CONSOLE)..];
    let output = String::from_utf8_lossy(tail).into_owned();
    Ok(Json(Console { output, instance_id: newest.map(|it| it.id) }))
}
