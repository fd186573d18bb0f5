//! Asks platforms to move workspaces, so many at once, and follows them.
//!
//! Asking twice is harmless: a platform refuses a second migration of a workspace while one is open, and what is open
//! is found by asking what there is.

use std::time::Duration;

use futures_util::future::BoxFuture;
use ligand_api::migration::{Migrate, Migration, Migrations};
use ligand_domain::fleet::may_ask;
use ligand_server::reconcile::Pass;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{Item, State, Transfer, store};
use crate::app::Fleet;
use crate::drive::Reconciler;
use crate::journal::{self, About};
use crate::platform;
use crate::tenants::{self, Tenant};

/// A pass that takes longer is somebody else's.
const LEASE: Duration = Duration::from_secs(120);
/// How often what is under way is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Attempts to reach a platform, one after the other, before its workspace counts as failed.
const ATTEMPTS: i64 = 30;
/// What is said of those whose turn did not come.
const NO_TURN: &str = "the transfer was aborted before its turn";

/// Moves workspaces from provider to provider.
pub struct TransferReconciler;

impl Reconciler for TransferReconciler {
    fn name(&self) -> &'static str {
        "transfers"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn pass<'a>(&'a self, fleet: &'a Fleet) -> BoxFuture<'a, anyhow::Result<Pass>> {
        Box::pin(pass(fleet))
    }
}

async fn pass(fleet: &Fleet) -> anyhow::Result<Pass> {
    let now = fleet.clock.now();
    let mut tx = fleet.db.begin().await?;
    let taken = store::take(&mut tx, now, now.after(LEASE)).await?;
    let Some(transfer) = taken else { return Ok(Pass::default()) };
    let mut items = store::items(&mut tx, transfer.id).await?;
    tx.commit().await?;
    let mut pass = Pass { looked_at: 1, ..Pass::default() };
    for item in items.iter_mut().filter(|item| item.state == "asked") {
        step(fleet, &transfer, item, &mut pass).await?;
    }
    for at in 0..items.len() {
        if items[at].state == "waiting" && comes_up(fleet, &transfer, &items).await? {
            step(fleet, &transfer, &mut items[at], &mut pass).await?;
        }
    }
    let now = fleet.clock.now();
    let mut tx = fleet.db.begin().await?;
    store::later(&mut tx, transfer.id, now.after(LOOK)).await?;
    if let Some(end) = end_of(&transfer, &items)
        && store::end(&mut tx, &transfer, end, now).await?
    {
        let what = format!("from {} to {}: {}", transfer.from, transfer.to, end.as_str());
        journal::note(fleet, &mut tx, About::default(), "transfer", &what).await?;
    }
    tx.commit().await?;
    Ok(pass)
}

fn count(items: &[Item], state: &str) -> i64 {
    i64::try_from(items.iter().filter(|item| item.state == state).count()).unwrap_or(i64::MAX)
}

/// Failures that count: those that nobody has forgiven.
fn failures(transfer: &Transfer, items: &[Item]) -> i64 {
    count(items, "failed") - transfer.forgiven
}

/// Whether something is to be done about one that waits: it is asked for, or told that its turn does not come.
async fn comes_up(fleet: &Fleet, transfer: &Transfer, items: &[Item]) -> anyhow::Result<bool> {
    let (open, failed) = (count(items, "asked"), failures(transfer, items));
    Ok(match transfer.state {
        State::Aborted => true,
        State::Running if may_ask(open, failed, transfer.concurrency, transfer.stop_after) => {
            // Asking takes a while, in which somebody may have thought better of it.
            let mut tx = fleet.db.read().await?;
            let now = store::get(&mut tx, transfer.id).await?;
            now.is_some_and(|now| now.state == State::Running)
        }
        State::Running | State::Paused | State::Stopped | State::Done => false,
    })
}

/// How a transfer is over, if it is.
fn end_of(transfer: &Transfer, items: &[Item]) -> Option<State> {
    let (waiting, open) = (count(items, "waiting") > 0, count(items, "asked") > 0);
    let failed = failures(transfer, items);
    let stopped = transfer.stop_after > 0 && failed >= transfer.stop_after;
    match transfer.state {
        _ if open => None,
        State::Aborted => (!waiting).then_some(State::Aborted),
        _ if !waiting => Some(State::Done),
        State::Running if stopped => Some(State::Stopped),
        State::Running | State::Paused | State::Stopped | State::Done => None,
    }
}

async fn step(
    fleet: &Fleet,
    transfer: &Transfer,
    item: &mut Item,
    pass: &mut Pass,
) -> anyhow::Result<()> {
    let before = item.state.clone();
    let mut tx = fleet.db.read().await?;
    let tenant = tenants::get(&mut tx, &item.org).await?;
    drop(tx);
    match tenant.filter(|tenant| tenant.removed_at.is_none()) {
        _ if transfer.state == State::Aborted && item.state == "waiting" => {
            "kept".clone_into(&mut item.state);
            item.cause = Some(NO_TURN.to_owned());
        }
        Some(tenant) => drive(fleet, transfer, &tenant, item).await,
        None => fail(item, "its organisation is gone"),
    }
    pass.steps += 1;
    pass.failed = item.cause.clone().or(pass.failed.take());
    let mut tx = fleet.db.begin().await?;
    store::save_item(&mut tx, transfer.id, item).await?;
    if item.state != before {
        let about = About { org: Some(&item.org), workspace: Some(item.workspace), instance: None };
        let cause = item.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        let what = format!("from {} to {}: {}{cause}", transfer.from, transfer.to, item.state);
        journal::note(fleet, &mut tx, about, "transfer", &what).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn fail(item: &mut Item, why: &str) {
    "failed".clone_into(&mut item.state);
    item.cause = Some(why.to_owned());
}

/// A platform did not answer, or not so that it is understood: it is asked again, so often.
fn later(item: &mut Item, why: String) {
    item.attempts += 1;
    match item.attempts >= ATTEMPTS {
        true => fail(item, &why),
        false => item.cause = Some(why),
    }
}

async fn drive(fleet: &Fleet, transfer: &Transfer, tenant: &Tenant, item: &mut Item) {
    let base = format!("/admin/workspaces/{}", item.workspace);
    let backend = tenant.backend_of(&transfer.to);
    if item.state == "waiting" {
        let reason = format!("the fleet moves it from {} to {}", transfer.from, transfer.to);
        let body = Migrate { to: backend.to_owned(), reason: Some(reason), ..Migrate::default() };
        let body = serde_json::to_value(body).unwrap_or(Value::Null);
        let path = format!("{base}/migrate");
        match platform::call(fleet, tenant, Method::POST, &path, Some(&body)).await {
            Ok((status, said)) if status.is_success() => {
                "asked".clone_into(&mut item.state);
                (item.cause, item.attempts) = (None, 0);
                item.migration = said["id"].as_str().map(str::to_owned);
            }
            // Its answer to an earlier call may have been lost: what is open says so below.
            Ok((StatusCode::CONFLICT, said)) => match find(fleet, tenant, &base, backend).await {
                Ok(Some(open)) if open.ended_at.is_none() => {
                    "asked".clone_into(&mut item.state);
                    item.migration = Some(open.id.to_string());
                }
                _ => fail(item, &platform::refusal(StatusCode::CONFLICT, &said)),
            },
            Ok((status, said)) if status.is_client_error() => {
                fail(item, &platform::refusal(status, &said));
            }
            Ok((status, said)) => later(item, platform::refusal(status, &said)),
            Err(cause) => later(item, cause.to_string()),
        }
        return;
    }
    if transfer.state == State::Aborted {
        // Where it is too late for that the platform refuses, and the migration goes on to its end.
        let path = format!("{base}/migrations/abort");
        if let Err(cause) = platform::call(fleet, tenant, Method::POST, &path, None).await {
            return later(item, cause.to_string());
        }
    }
    match find(fleet, tenant, &base, backend).await {
        Ok(Some(found)) => follow(item, &found),
        Ok(None) => fail(item, "the platform does not know of the migration"),
        Err(why) => later(item, why),
    }
}

/// The newest migration of a workspace to this backend.
async fn find(
    fleet: &Fleet,
    tenant: &Tenant,
    base: &str,
    backend: &str,
) -> Result<Option<Migration>, String> {
    let path = format!("{base}/migrations");
    let answer = platform::call(fleet, tenant, Method::GET, &path, None).await;
    let (status, said) = answer.map_err(|cause| cause.to_string())?;
    if !status.is_success() {
        return Err(platform::refusal(status, &said));
    }
    let all: Migrations = serde_json::from_value(said).map_err(|cause| cause.to_string())?;
    Ok(all.migrations.into_iter().find(|migration| migration.to == backend))
}

fn follow(item: &mut Item, found: &Migration) {
    item.attempts = 0;
    item.migration = Some(found.id.to_string());
    item.phase = Some(found.phase.clone());
    item.cause.clone_from(&found.last_error);
    match found.state.as_str() {
        "migrated" => {
            "migrated".clone_into(&mut item.state);
            item.cause = None;
        }
        "rolled-back" => {
            fail(item, found.cause.as_deref().unwrap_or("the platform rolled it back"));
        }
        _ => {}
    }
}
