//! Deleting: mark first, then wait for the reconciler to release everything.
//!
//! Whether every trace is to go too is part of what is marked, in the same transaction. So it goes whatever becomes
//! of this server and of whoever asked: the reconciler takes it away once nothing runs any more, and tries again
//! what fails.

use anyhow::Context as _;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ligand_api::workspace::{Child, ConfirmDelete, Deleted};
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::lifecycle::{PATIENCE, family, until};
use super::steps::Steps;
use super::{Workspace, store};
use crate::access;
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{self, Kind, Work};
use crate::migrations;
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
        if purge {
            store::want_purge(&mut work.tx, *member, now).await?;
        }
        if !store::mark_removed(&mut work.tx, *member, now).await? {
            continue;
        }
        access::revoke_all(&mut work.tx, *member, now).await?;
        store::wake(&mut work.tx, *member, now).await?;
        migrations::wake(&mut work.tx, *member, now).await?;
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
        let done = match purge {
            true => purged(app, *member, deadline).await?,
            false => released(app, *member, deadline).await?,
        };
        if !done {
            return Ok(answer(StatusCode::ACCEPTED, "removing"));
        }
    }
    Ok(answer(StatusCode::OK, if purge { "purged" } else { "removed" }))
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

/// Wait until nothing of it is left. An attempt that fails is told at once; the reconciler goes on trying.
async fn purged(app: &App, id: WorkspaceId, deadline: Timestamp) -> Result<bool> {
    let failed = |it: &Workspace| it.released_at.is_some() && it.last_error.is_some();
    if !until(app, id, deadline, |it| it.is_none_or(failed)).await? {
        return Ok(false);
    }
    let left = store::get(&mut app.db.read().await?, id).await?;
    match left.and_then(|left| left.last_error) {
        Some(why) => Err(Error::Internal("purge failed", anyhow::anyhow!(why))),
        None => Ok(true),
    }
}

impl Steps<'_> {
    /// Take every trace of a removed workspace away, if that was asked for; nothing of it runs any more. Its data
    /// goes first: as long as there is some, its row says whose it is. Of its credentials the hashes stay: they are
    /// the tombstone by which a former holder is told from a stranger.
    pub(super) async fn purge(&self, workspace: &Workspace) -> anyhow::Result<()> {
        if !workspace.purge {
            return Ok(());
        }
        let placed = workspace.backend.as_deref().and_then(|name| self.app.backends.get(name));
        if let Some(backend) = placed {
            backend.erase(self.id).await.context("erase its data")?;
        }
        let mut work = self.begin().await?;
        journal::purge(&mut work.tx, self.id).await?;
        secrets::purge(&mut work.tx, self.id).await?;
        migrations::purge(&mut work.tx, self.id).await?;
        store::purge(&mut work.tx, self.id).await?;
        Ok(work.commit().await?)
    }
}
