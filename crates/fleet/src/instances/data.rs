//! A workspace's data: out, in, its digest, and away. It streams; the fleet keeps none of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ligand_api::error::ErrorBody;
use ligand_api::fleet::Data;
use ligand_domain::id::WorkspaceId;
use ligand_server::backend::{Backend, BackendError, Carried};
use ligand_server::error::{Error, Result};
use ligand_server::http::path::WorkspacePath;
use serde::Deserialize;

use super::{failed, owned, provider, store};
use crate::access::Platform;
use crate::app::Fleet;
use crate::journal::{self, About};

/// Nothing is started for so long while data is taken away.
const ERASING: Duration = Duration::from_secs(120);

/// Which data.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// On which provider; that of the newest instance where nothing is said.
    provider: Option<String>,
    /// What an import has to come to.
    digest: Option<String>,
}

async fn where_is(
    fleet: &Fleet,
    org: &str,
    id: WorkspaceId,
    said: Option<&str>,
) -> Result<Arc<dyn Backend>> {
    let mut tx = fleet.db.read().await?;
    let known = owned(&mut tx, Some(org), id).await?;
    provider(fleet, said.unwrap_or(&known.provider)).map(Arc::clone)
}

fn view(carried: Carried) -> Json<Data> {
    let Carried { digest, entries, bytes } = carried;
    Json(Data { digest, entries, bytes })
}

/// A workspace's data as one archive (tar). A stream that breaks off is no archive.
#[utoipa::path(get, path = "/cp/workspaces/{id}/data", tag = "data", params(("id" = String, Path), Which), responses(
    (status = 200, content_type = "application/x-tar", body = String), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 501, body = ErrorBody)))]
pub(crate) async fn export(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Response> {
    let provider = where_is(&fleet, &tenant.org_id, id, which.provider.as_deref()).await?;
    let archive = provider.export(id).await.map_err(|cause| failed(&cause))?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(archive)).into_response())
}

/// Put an archive in place of a workspace's data, if it comes to the digest. Otherwise what was there stays.
#[utoipa::path(put, path = "/cp/workspaces/{id}/data", tag = "data", params(("id" = String, Path), Which),
    request_body(content = String, content_type = "application/x-tar"), responses(
    (status = 200, body = Data), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody), (status = 501, body = ErrorBody)))]
pub(crate) async fn import(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
    body: Body,
) -> Result<Json<Data>> {
    let provider = where_is(&fleet, &tenant.org_id, id, which.provider.as_deref()).await?;
    let archive = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let carried = provider.import(id, archive, which.digest).await;
    let carried = carried.map_err(|cause| failed(&cause))?;
    let mut tx = fleet.db.begin().await?;
    let about = About { org: Some(&tenant.org_id), workspace: Some(id), instance: None };
    let what = format!("data came: {} entries, {} bytes", carried.entries, carried.bytes);
    journal::note(&fleet, &mut tx, about, "data", &what).await?;
    tx.commit().await?;
    Ok(view(carried))
}

/// The digest over a workspace's data as it lies.
#[utoipa::path(get, path = "/cp/workspaces/{id}/data/digest", tag = "data", params(("id" = String, Path), Which), responses(
    (status = 200, body = Data), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 501, body = ErrorBody)))]
pub(crate) async fn digest(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<Json<Data>> {
    let provider = where_is(&fleet, &tenant.org_id, id, which.provider.as_deref()).await?;
    provider.digest(id).await.map(view).map_err(|cause| failed(&cause))
}

/// Take a workspace's data away from a provider, on which no instance of it is. Nothing there is success.
#[utoipa::path(delete, path = "/cp/workspaces/{id}/data", tag = "data", params(("id" = String, Path), Which), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn erase(
    Platform(tenant): Platform,
    WorkspacePath(id): WorkspacePath,
    State(fleet): State<Fleet>,
    Query(which): Query<Which>,
) -> Result<StatusCode> {
    let mut tx = fleet.db.begin().await?;
    let known = owned(&mut tx, Some(&tenant.org_id), id).await?;
    let name = which.provider.as_deref().unwrap_or(&known.provider);
    let provider = Arc::clone(provider(&fleet, name)?);
    let now = fleet.clock.now();
    if !store::begin_erasing_on(&mut tx, id, name, now, now.after(ERASING)).await? {
        let body = ErrorBody::new("data is in use");
        let body = body.detail("an instance of the workspace is on this provider").code("conflict");
        return Err(Error::Refused(StatusCode::CONFLICT, Box::new(body)));
    }
    let about = About { org: Some(&tenant.org_id), workspace: Some(id), instance: None };
    let what = format!("its data on {name} is taken away, as asked");
    journal::note(&fleet, &mut tx, about, "data", &what).await?;
    tx.commit().await?;
    let erased = erase_from(&*provider, id).await;
    let mut tx = fleet.db.begin().await?;
    store::end_erasing(&mut tx, id, false).await?;
    tx.commit().await?;
    fleet.ring();
    erased.map(|()| StatusCode::NO_CONTENT).map_err(|cause| failed(&cause))
}

/// Given up before something could be started there again.
async fn erase_from(
    provider: &dyn Backend,
    id: WorkspaceId,
) -> std::result::Result<(), BackendError> {
    match tokio::time::timeout(ERASING / 2, provider.erase(id)).await {
        Ok(erased) => erased,
        Err(_) => Err(BackendError::io(
            format!("take away the data of workspace {id}"),
            std::io::ErrorKind::TimedOut.into(),
        )),
    }
}

/// Take a workspace's data away everywhere, if that was asked for and nothing of it is left. Nothing is started
/// meanwhile; what was asked for since keeps it. Gives whether it came to that.
pub(crate) async fn erase_if_wanted(
    fleet: &Fleet,
    id: WorkspaceId,
) -> std::result::Result<bool, sqlx::Error> {
    let mut tx = fleet.db.begin().await?;
    let now = fleet.clock.now();
    if !store::begin_erasing(&mut tx, id, now, now.after(ERASING)).await? {
        return Ok(false);
    }
    let about = About { workspace: Some(id), ..About::default() };
    journal::note(fleet, &mut tx, about, "data", "its data is taken away, as asked").await?;
    tx.commit().await?;
    let mut gone = true;
    for (name, provider) in fleet.providers.all() {
        if let Err(cause) = erase_from(&**provider, id).await {
            let error = cause.chain();
            tracing::warn!(workspace.id = %id, provider = name, error, "data could not be taken away");
            gone = false;
        }
    }
    let mut tx = fleet.db.begin().await?;
    store::end_erasing(&mut tx, id, gone).await?;
    tx.commit().await?;
    fleet.ring();
    Ok(true)
}
