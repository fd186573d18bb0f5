//! Deleting: mark first, then wait for the reconciler to release everything.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ligand_api::workspace::{Child, ConfirmDelete, Deleted};
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::store;
use crate::access;
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{self, Kind, Work};
use crate::secrets;

/// How long a delete is waited for before it is answered as going on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile, besides on every commit.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn remove(
    app: &App,
    id: WorkspaceId,
    confirm: bool,
    purge: bool,
) -> Result<Response> {
    let mut work = Work::begin(app).await?;
    let family = family(&mut work, id).await?;
    let children = store::children(&mut work.tx, id)
        .await
        .map_err(Error::internal("failed to check children"))?;
    if !children.is_empty() && !confirm {
        return Ok(ask(&children));
    }
    let now = work.now;
    for (at, member) in family.iter().enumerate() {
        if !store::mark_removed(&mut work.tx, *member, now).await? {
            continue;
        }
        access::revoke_all(&mut work.tx, *member, now).await?;
        store::wake(&mut work.tx, *member, now).await?;
        let payload = match at {
            0 => json!({"cascade_deleted": family.len() - 1}),
            _ => json!({}),
        };
        let summary = "deleted; its credentials are revoked";
        work.note(*member, None, Kind::Removed, summary, json!({"by": id}));
        work.emit("WORKSPACE_REMOVED", *member, payload);
    }
    work.commit().await?;
    app.bells.ring();
    let cascade_deleted = i64::try_from(family.len().saturating_sub(1)).unwrap_or(i64::MAX);
    let answer = |code, status: &str| {
        (code, Json(Deleted { status: status.to_owned(), cascade_deleted })).into_response()
    };
    let until = app.clock.now().after(PATIENCE);
    for member in family.iter().rev() {
        if !released(app, *member, until).await? {
            return Ok(answer(StatusCode::ACCEPTED, "removing"));
        }
    }
    if !purge {
        return Ok(answer(StatusCode::OK, "removed"));
    }
    for member in family.iter().rev() {
        purge_one(app, *member).await.map_err(Error::internal("purge failed"))?;
    }
    Ok(answer(StatusCode::OK, "purged"))
}

fn ask(children: &[(WorkspaceId, String)]) -> Response {
    let children: Vec<Child> =
        children.iter().map(|(id, name)| Child { id: id.uuid(), name: name.clone() }).collect();
    let body = ConfirmDelete {
        status: "confirmation_required".to_owned(),
        message: "its children would be deleted too; confirm with ?confirm=true".to_owned(),
        children_count: i64::try_from(children.len()).unwrap_or(i64::MAX),
        children,
    };
    (StatusCode::CONFLICT, Json(body)).into_response()
}

/// The workspace and its descendants, each after its parent, all of them locked: nobody gets a child while
/// its family is taken down. Empty when there is no such workspace.
async fn family(work: &mut Work<'_>, id: WorkspaceId) -> Result<Vec<WorkspaceId>> {
    if store::lock(&mut work.tx, id).await?.is_none() {
        return Ok(Vec::new());
    }
    let mut family = vec![id];
    let mut at = 0;
    while at < family.len() {
        for (child, _) in store::children(&mut work.tx, family[at]).await? {
            if !family.contains(&child) && store::lock(&mut work.tx, child).await?.is_some() {
                family.push(child);
            }
        }
        at += 1;
    }
    Ok(family)
}

/// Wait until nothing of it runs any more.
async fn released(app: &App, id: WorkspaceId, until: Timestamp) -> Result<bool> {
    let mut commits = app.hub.commits();
    loop {
        commits.mark_unchanged();
        let found = store::get(&mut app.db.read().await?, id).await?;
        if found.is_none_or(|workspace| workspace.released_at.is_some()) {
            return Ok(true);
        }
        if app.clock.now() >= until || app.stop.is_cancelled() {
            return Ok(false);
        }
        tokio::select! {
            _ = commits.changed() => {}
            () = app.clock.sleep(LOOK) => {}
        }
    }
}

/// Take every trace away. Of its credentials the hashes stay: they are the tombstone by which a former
/// holder is told from a stranger.
async fn purge_one(app: &App, id: WorkspaceId) -> anyhow::Result<()> {
    let placed =
        store::get(&mut app.db.read().await?, id).await?.and_then(|workspace| workspace.backend);
    if let Some(backend) = placed.and_then(|name| app.backends.get(&name)) {
        backend.erase(id).await?;
    }
    let mut tx = app.db.begin().await?;
    journal::purge(&mut tx, id).await?;
    secrets::purge(&mut tx, id).await?;
    store::purge(&mut tx, id).await?;
    Ok(tx.commit().await?)
}
