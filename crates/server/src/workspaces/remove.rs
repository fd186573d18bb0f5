//! Deleting: mark first, then wait for the reconciler to release everything.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ligand_api::workspace::{Child, ConfirmDelete, Deleted};
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::lifecycle::{PATIENCE, family, until};
use super::store;
use crate::access;
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{self, Kind, Work};
use crate::secrets;

pub(super) async fn remove(
    app: &App,
    id: WorkspaceId,
    confirm: bool,
    purge: bool,
) -> Result<Response> {
    let unchecked = "failed to check children";
    let mut work = Work::begin(app).await.map_err(Error::internal(unchecked))?;
    let family = family(&mut work, id).await.map_err(Error::internal(unchecked))?;
    let family: Vec<WorkspaceId> = family.iter().map(|member| member.id).collect();
    let children = store::children(&mut work.tx, id).await.map_err(Error::internal(unchecked))?;
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
    let deadline = app.clock.now().after(PATIENCE);
    for member in family.iter().rev() {
        if !released(app, *member, deadline).await? {
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

/// Wait until nothing of it runs any more.
async fn released(app: &App, id: WorkspaceId, deadline: Timestamp) -> Result<bool> {
    until(app, id, deadline, |it| it.is_none_or(|it| it.released_at.is_some())).await
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
