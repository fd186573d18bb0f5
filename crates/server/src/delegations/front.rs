//! Tasks that are given and asked about by something else than the routes here.

use ligand_domain::delegation::Status;
use ligand_domain::id::WorkspaceId;

use super::store::{self, Row};
use super::{Given, Task, acknowledge, give};
use crate::app::App;
use crate::error::{Error, Result};

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    /// Who is to do it.
    pub(crate) target: WorkspaceId,
    /// How far it is.
    pub(crate) status: Status,
    /// What its target answered, once it is done.
    pub(crate) response: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

impl From<&Row> for Stand {
    fn from(row: &Row) -> Self {
        let status = row.status();
        let over = |text: &Option<String>| text.clone().filter(|_| status.is_over());
        Self { target: row.target, status, response: over(&row.response), error: over(&row.error) }
    }
}

/// Give a task on a workspace's behalf. Gives its id, and where it stands right away: one that its target may not be
/// sent has failed.
///
/// # Errors
/// 404, 503.
pub(crate) async fn given(
    app: &App,
    caller: WorkspaceId,
    target: WorkspaceId,
    text: &str,
) -> Result<(String, Stand)> {
    let gone = || Error::not_found("workspace not found");
    let task = Task { caller, target, text: text.replace('\0', ""), key: None };
    let Given::New(id) = give(app, &task).await? else { return Err(gone()) };
    let stand = stand(app, caller, &id, false).await?.ok_or_else(gone)?;
    Ok((id, stand))
}

/// Where a task of a workspace stands; `None`: it gave none of this id. `by_itself`: it is the workspace that asks, so
/// an outcome is acknowledged.
///
/// # Errors
/// 503.
pub(crate) async fn stand(
    app: &App,
    caller: WorkspaceId,
    id: &str,
    by_itself: bool,
) -> Result<Option<Stand>> {
    let mut tx = app.db.read().await?;
    let found = store::get(&mut tx, caller, id).await?;
    drop(tx);
    let Some(row) = found else { return Ok(None) };
    let stand = Stand::from(&row);
    if by_itself && row.status().is_over() && row.acknowledged_at.is_none() {
        acknowledge(app, &[row]).await?;
    }
    Ok(Some(stand))
}
