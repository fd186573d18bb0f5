//! What the operator asks to be moved.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::fleet::{
    DrainProvider, MigrateProvider, Transfer as View, TransferItem, Transfers,
};
use ligand_domain::id::WorkspaceId;
use ligand_server::db::Tx;
use ligand_server::error::{Error, Result};
use ligand_server::http::body::{Payload, parse};
use ligand_server::http::path::WorkspacePath;
use uuid::Uuid;

use super::{State as Standing, Transfer, store};
use crate::access::Operator;
use crate::app::Fleet;
use crate::instances;
use crate::journal::{self, About};

const MALFORMED: &str = "invalid request body";
/// Migrations at once, unless said otherwise, and at most.
const CONCURRENCY: u32 = 4;
const MOST_AT_ONCE: u32 = 256;
/// Transfers in one answer.
const LISTED: i64 = 50;

async fn view(tx: &mut Tx, it: Transfer) -> Result<View> {
    let items = store::items(tx, it.id).await?;
    let item = |item: super::Item| TransferItem {
        workspace_id: item.workspace.uuid(),
        org_id: item.org,
        state: item.state,
        migration_id: item.migration,
        phase: item.phase,
        cause: item.cause,
    };
    Ok(View {
        id: it.id,
        from: it.from,
        to: it.to,
        state: it.state.as_str().to_owned(),
        concurrency: it.concurrency,
        stop_after_failures: it.stop_after,
        workspaces: items.into_iter().map(item).collect(),
        started_at: it.started_at.to_string(),
        ended_at: it.ended_at.map(|at| at.to_string()),
    })
}

async fn begin(
    fleet: &Fleet,
    tx: &mut Tx,
    new: Transfer,
    items: Vec<(WorkspaceId, String)>,
) -> Result<View> {
    store::insert(tx, &new).await?;
    for (workspace, org) in &items {
        store::insert_item(tx, new.id, *workspace, org).await?;
    }
    let what = format!("{} workspaces leave {} for {}", items.len(), new.from, new.to);
    journal::note(fleet, tx, About::default(), "transfer", &what).await?;
    view(tx, new).await
}

fn transfer(
    fleet: &Fleet,
    from: &str,
    to: &str,
    (concurrency, stop_after): (u32, u32),
) -> Transfer {
    Transfer {
        id: fleet.ids.event().uuid(),
        from: from.to_owned(),
        to: to.to_owned(),
        concurrency: concurrency.into(),
        stop_after: stop_after.into(),
        forgiven: 0,
        state: Standing::Running,
        started_at: fleet.clock.now(),
        ended_at: None,
    }
}

fn conflict(why: impl Into<String>) -> Error {
    let body = ErrorBody::new(why).code("conflict");
    Error::Refused(StatusCode::CONFLICT, Box::new(body))
}

fn same_provider(from: &str, to: &str, field: &str) -> Result<()> {
    let detail = format!("{field}: expected another provider than {from}");
    if from == to { Err(Error::invalid(MALFORMED, detail)) } else { Ok(()) }
}

/// Move one workspace to another provider: its platform is asked to.
#[utoipa::path(post, path = "/cp/admin/workspaces/{id}/migrate-provider", tag = "transfers", request_body = MigrateProvider, params(("id" = String, Path)), responses(
    (status = 202, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn migrate(
    _: Operator,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Payload(bytes): Payload,
) -> Result<(StatusCode, Json<View>)> {
    let asked: MigrateProvider = parse(&bytes, MALFORMED)?;
    instances::provider(&fleet, &asked.provider)?;
    let mut tx = fleet.db.begin().await?;
    let known = instances::owned(&mut tx, None, id).await?;
    same_provider(&known.provider, &asked.provider, "provider")?;
    if store::on_its_way(&mut tx, id).await? {
        return Err(conflict("the workspace is on its way already"));
    }
    let new = transfer(&fleet, &known.provider, &asked.provider, (1, 1));
    let view = begin(&fleet, &mut tx, new, vec![(id, known.org)]).await?;
    tx.commit().await?;
    fleet.ring();
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// How far the newest transfer of a workspace has come.
#[utoipa::path(get, path = "/cp/admin/workspaces/{id}/migrate-provider", tag = "transfers", params(("id" = String, Path)), responses(
    (status = 200, body = View), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn migration(
    _: Operator,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
) -> Result<Json<View>> {
    let mut tx = fleet.db.read().await?;
    let newest = store::newest(&mut tx, Some(id), 1).await?.pop();
    let newest = newest.ok_or_else(|| Error::not_found("no transfer of this workspace"))?;
    view(&mut tx, newest).await.map(Json)
}

/// Move every workspace of a provider to another one, of whichever organisation it is.
#[utoipa::path(post, path = "/cp/admin/providers/{name}/drain", tag = "transfers", request_body = DrainProvider, params(("name" = String, Path)), responses(
    (status = 202, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn drain(
    _: Operator,
    Path(name): Path<String>,
    State(fleet): State<Fleet>,
    Payload(bytes): Payload,
) -> Result<(StatusCode, Json<View>)> {
    let asked: DrainProvider = parse(&bytes, MALFORMED)?;
    instances::provider(&fleet, &asked.to)?;
    same_provider(&name, &asked.to, "to")?;
    let concurrency = asked.concurrency.unwrap_or(CONCURRENCY);
    if !(1..=MOST_AT_ONCE).contains(&concurrency) {
        let detail = format!("concurrency: expected 1 to {MOST_AT_ONCE}");
        return Err(Error::invalid(MALFORMED, detail));
    }
    let mut tx = fleet.db.begin().await?;
    let mut there = Vec::new();
    for (workspace, org) in instances::on_provider(&mut tx, &name).await? {
        // What is on its way already goes on under the transfer that it belongs to.
        if !store::on_its_way(&mut tx, workspace).await? {
            there.push((workspace, org));
        }
    }
    let limits = (concurrency, asked.stop_after_failures.unwrap_or(1));
    let new = transfer(&fleet, &name, &asked.to, limits);
    let view = begin(&fleet, &mut tx, new, there).await?;
    tx.commit().await?;
    fleet.ring();
    Ok((StatusCode::ACCEPTED, Json(view)))
}

async fn list(fleet: &Fleet, wanted: impl Fn(&Transfer) -> bool) -> Result<Json<Transfers>> {
    let mut tx = fleet.db.read().await?;
    let newest = store::newest(&mut tx, None, LISTED).await?;
    let mut drains = Vec::new();
    for it in newest.into_iter().filter(|it| wanted(it)) {
        drains.push(view(&mut tx, it).await?);
    }
    Ok(Json(Transfers { drains }))
}

/// Transfers from a provider, the newest first.
#[utoipa::path(get, path = "/cp/admin/providers/{name}/drain", tag = "transfers", params(("name" = String, Path)), responses(
    (status = 200, body = Transfers), (status = 401, body = ErrorBody)))]
pub(crate) async fn drains_of(
    _: Operator,
    Path(name): Path<String>,
    State(fleet): State<Fleet>,
) -> Result<Json<Transfers>> {
    list(&fleet, |it| it.from == name).await
}

/// Every transfer, the newest first.
#[utoipa::path(get, path = "/cp/admin/drains", tag = "transfers", responses(
    (status = 200, body = Transfers), (status = 401, body = ErrorBody)))]
pub(crate) async fn drains(_: Operator, State(fleet): State<Fleet>) -> Result<Json<Transfers>> {
    list(&fleet, |_| true).await
}

fn known(id: &str) -> Result<Uuid> {
    Uuid::try_parse(id).map_err(|_| Error::invalid("invalid id", "id: expected a UUID"))
}

/// One transfer.
#[utoipa::path(get, path = "/cp/admin/drains/{id}", tag = "transfers", params(("id" = String, Path)), responses(
    (status = 200, body = View), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn one(
    _: Operator,
    Path(id): Path<String>,
    State(fleet): State<Fleet>,
) -> Result<Json<View>> {
    let id = known(&id)?;
    let mut tx = fleet.db.read().await?;
    let found = store::get(&mut tx, id).await?;
    let found = found.ok_or_else(|| Error::not_found("no such transfer"))?;
    view(&mut tx, found).await.map(Json)
}

/// What a person can ask of a transfer.
#[derive(Clone, Copy)]
enum Ask {
    Pause,
    Resume,
    Abort,
}

/// Where it stands once it was asked so.
fn wanted(ask: Ask, state: Standing) -> Result<Standing> {
    match (ask, state) {
        (_, Standing::Done | Standing::Aborted) => {
            Err(conflict(format!("the transfer is over: it is {}", state.as_str())))
        }
        (Ask::Pause, Standing::Running) => Ok(Standing::Paused),
        (Ask::Pause, Standing::Paused | Standing::Stopped) => {
            Err(conflict("the transfer begins nothing as it is"))
        }
        (Ask::Resume, Standing::Paused | Standing::Stopped) => Ok(Standing::Running),
        (Ask::Resume, Standing::Running) => Err(conflict("the transfer is not paused")),
        (Ask::Abort, Standing::Running | Standing::Paused | Standing::Stopped) => {
            Ok(Standing::Aborted)
        }
    }
}

async fn want(fleet: &Fleet, id: &str, ask: Ask) -> Result<Json<View>> {
    let id = known(id)?;
    let mut tx = fleet.db.begin().await?;
    let found = store::lock(&mut tx, id).await?;
    let mut it = found.ok_or_else(|| Error::not_found("no such transfer"))?;
    it.state = wanted(ask, it.state)?;
    if it.state == Standing::Running {
        let items = store::items(&mut tx, id).await?;
        let failed = items.iter().filter(|item| item.state == "failed").count();
        it.forgiven = i64::try_from(failed).unwrap_or(i64::MAX);
    }
    it.ended_at = None;
    store::want(&mut tx, &it).await?;
    let what =
        format!("from {} to {}: the operator wants it {}", it.from, it.to, it.state.as_str());
    journal::note(fleet, &mut tx, About::default(), "transfer", &what).await?;
    let view = view(&mut tx, it).await?;
    tx.commit().await?;
    fleet.ring();
    Ok(Json(view))
}

/// Begin no further migration. Those on their way go on.
#[utoipa::path(post, path = "/cp/admin/drains/{id}/pause", tag = "transfers", params(("id" = String, Path)), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn pause(
    _: Operator,
    Path(id): Path<String>,
    State(fleet): State<Fleet>,
) -> Result<Json<View>> {
    want(&fleet, &id, Ask::Pause).await
}

/// Go on with a transfer that was paused, or that stopped because too many failed.
#[utoipa::path(post, path = "/cp/admin/drains/{id}/resume", tag = "transfers", params(("id" = String, Path)), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn resume(
    _: Operator,
    Path(id): Path<String>,
    State(fleet): State<Fleet>,
) -> Result<Json<View>> {
    want(&fleet, &id, Ask::Resume).await
}

/// Begin no further migration, and have platforms roll back those on their way that can be.
#[utoipa::path(post, path = "/cp/admin/drains/{id}/abort", tag = "transfers", params(("id" = String, Path)), responses(
    (status = 200, body = View), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn abort(
    _: Operator,
    Path(id): Path<String>,
    State(fleet): State<Fleet>,
) -> Result<Json<View>> {
    want(&fleet, &id, Ask::Abort).await
}
