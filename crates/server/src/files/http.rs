//! Files over HTTP.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use ligand_api::error::ErrorBody;
use ligand_api::files::{Content, Done, Entry, Replaced, Shared, Write, WriteAll};
use ligand_domain::files::{self, Root, Unsound};
use serde::Deserialize;

use super::{Files, NOWHERE, place, restart_soon, told, too_large, unavailable, unsound};
use crate::access::OfWorkspace;
use crate::app::App;
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::http::body::{parse, payload};
use crate::workspaces::Workspace;

/// Longest body that brings files.
const MOST_BODY: usize = 32 << 20;
/// Largest file that is given as JSON; larger ones can be downloaded.
const MOST_JSON: usize = 16 << 20;
/// Files in one call.
const MOST_FILES: usize = 200;
/// Files that a parent shares, and bytes in each.
const MOST_SHARED: (usize, usize) = (50, 256 << 10);

/// A path as it was sent, decoded.
pub(crate) struct FilePath(String);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| unsound(Unsound::Path))?;
        let found = params.iter().find(|(name, _)| *name == "path");
        Ok(Self(found.map(|(_, path)| path.to_owned()).unwrap_or_default()))
    }
}

/// Which file is meant. Only a deletion tells an absolute path from a bad one.
fn named(query: &In, path: &str) -> Result<(Root, String)> {
    let root = Root::asked(query.root.as_deref()).map_err(unsound)?;
    let path = files::file(root, path).map_err(|why| match why {
        Unsound::Absolute => unsound(Unsound::Path),
        why => unsound(why),
    })?;
    Ok((root, path))
}

/// In which directory.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct In {
    /// `/configs` (unless said), `/workspace`, `/home` or `/plugins`.
    root: Option<String>,
}

/// What of a directory.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Below {
    /// `/configs` (unless said), `/workspace`, `/home` or `/plugins`.
    root: Option<String>,
    /// A directory below it.
    path: Option<String>,
    /// How many levels: 1 (unless said) to 5.
    depth: Option<String>,
}

/// What is in a directory of a workspace.
#[utoipa::path(get, path = "/workspaces/{id}/files", tag = "files", params(("id" = String, Path, description = "workspace id"), Below), responses(
    (status = 200, body = Vec<Entry>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn list(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<Below>,
) -> Result<Json<Vec<Entry>>> {
    let root = Root::asked(query.root.as_deref()).map_err(unsound)?;
    let path = files::below(query.path.as_deref().unwrap_or_default());
    let path = path.map_err(|_| unsound(Unsound::Path))?;
    let depth = files::depth(query.depth.as_deref()).map_err(unsound)?;
    let files = Files::of(&app, caller.workspace).await?;
    let Some(backend) = &files.backend else { return Ok(Json(Vec::new())) };
    let found = match backend.list_files(caller.workspace, place(root, &path), depth).await {
        Ok(found) => found,
        Err(cause) => match cause.kind {
            ErrorKind::Missing => Vec::new(),
            ErrorKind::Unsupported => return Err(unavailable(NOWHERE)),
            ErrorKind::Transient | ErrorKind::Broken => {
                return Err(told("failed to list files", &cause));
            }
        },
    };
    let shown = found.into_iter().filter_map(|found| {
        let name = found.path.to_str()?.to_owned();
        let whole = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let hidden = files::is_secret(root, &whole);
        (!hidden).then_some(Entry { path: name, size: found.size, dir: found.dir })
    });
    Ok(Json(shown.collect()))
}

/// A file of a workspace.
#[utoipa::path(get, path = "/workspaces/{id}/files/{*path}", tag = "files", params(("id" = String, Path, description = "workspace id"), ("path" = String, Path, description = "below the directory"), In), responses(
    (status = 200, body = Content), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn read(
    caller: OfWorkspace,
    FilePath(path): FilePath,
    State(app): State<App>,
    Query(query): Query<In>,
) -> Result<Json<Content>> {
    let (root, path) = named(&query, &path)?;
    let files = Files::of(&app, caller.workspace).await?;
    let Some(content) = files.read(root, &path).await? else {
        return Err(Error::not_found(match files.backend {
            Some(_) => "file not found",
            None => "file not found (container offline, no template)",
        }));
    };
    if content.len() > MOST_JSON {
        return Err(too_large("file too large"));
    }
    let size = content.len() as u64;
    let (content, encoding) = match String::from_utf8(content.into()) {
        Ok(text) => (text, None),
        Err(other) => (STANDARD.encode(other.as_bytes()), Some("base64".to_owned())),
    };
    Ok(Json(Content { path, content, size, encoding }))
}

/// Write a file of a workspace. What its agent reads at its start restarts it.
#[utoipa::path(put, path = "/workspaces/{id}/files/{*path}", tag = "files", params(("id" = String, Path, description = "workspace id"), ("path" = String, Path, description = "below the directory"), In), request_body = Write, responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody), (status = 500, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn write(
    caller: OfWorkspace,
    FilePath(path): FilePath,
    State(app): State<App>,
    Query(query): Query<In>,
    body: Body,
) -> Result<Json<Done>> {
    let (root, path) = named(&query, &path)?;
    let write: Write = parse(&payload(body, MOST_BODY).await?, "invalid request body")?;
    let content = decoded(write)?;
    let files = Files::of(&app, caller.workspace).await?;
    files.write(root, &path, content).await?;
    restart_soon(&app, caller.workspace, root).await?;
    Ok(Json(Done { status: "saved".to_owned(), path }))
}

fn decoded(write: Write) -> Result<Bytes> {
    let wrong = |why: &str| Error::invalid("invalid request body", why);
    match write.encoding.as_deref() {
        None | Some("") => Ok(write.content.into()),
        Some("base64") => {
            let content = STANDARD.decode(write.content);
            content.map(Bytes::from).map_err(|_| wrong("content: expected base64"))
        }
        Some(_) => Err(wrong("encoding: expected `base64`, or none for text")),
    }
}

/// Write several files of a workspace. Others stay.
#[utoipa::path(put, path = "/workspaces/{id}/files", tag = "files", params(("id" = String, Path, description = "workspace id"), In), request_body = WriteAll, responses(
    (status = 200, body = Replaced), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody), (status = 500, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn write_all(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(query): Query<In>,
    body: Body,
) -> Result<Json<Replaced>> {
    let body = payload(body, MOST_BODY).await?;
    let WriteAll { files: sent } = parse(&body, "invalid request body")?;
    let count = sent.len();
    if count > MOST_FILES {
        let text = format!("too many files ({count}), max {MOST_FILES}");
        return Err(Error::bad_request(text));
    }
    // Nothing is written where one of them is refused.
    let mut sound = Vec::with_capacity(count);
    for (path, content) in sent {
        let named = named(&query, &path).map_err(|refused| which(refused, &path))?;
        sound.push((named, content));
    }
    let files = Files::of(&app, caller.workspace).await?;
    let mut written = Ok(());
    let mut changed = None;
    for ((root, path), content) in sound {
        written = files.write(root, &path, content.into()).await;
        if written.is_err() {
            break;
        }
        changed = Some(root);
    }
    // What was written counts, whatever became of the rest.
    if let Some(root) = changed {
        restart_soon(&app, caller.workspace, root).await?;
    }
    written?;
    let source = if files.runs(&app).await? { "container" } else { "volume" };
    Ok(Json(Replaced {
        status: "replaced".to_owned(),
        workspace: caller.workspace.to_string(),
        files: count,
        source: source.to_owned(),
    }))
}

/// Say which of several it was.
fn which(refused: Error, path: &str) -> Error {
    match refused {
        Error::Refused(status, body) => {
            Error::Refused(status, Box::new(body.detail(format!("files: {path:?}"))))
        }
        other => other,
    }
}

/// Take away a file of a workspace, or a directory with all that is in it.
#[utoipa::path(delete, path = "/workspaces/{id}/files/{*path}", tag = "files", params(("id" = String, Path, description = "workspace id"), ("path" = String, Path, description = "below the directory"), In), responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn remove(
    caller: OfWorkspace,
    FilePath(path): FilePath,
    State(app): State<App>,
    Query(query): Query<In>,
) -> Result<Json<Done>> {
    let root = Root::asked(query.root.as_deref()).map_err(unsound)?;
    let path = files::file(root, &path).map_err(unsound)?;
    let files = Files::of(&app, caller.workspace).await?;
    let backend = files.backend.as_ref().ok_or_else(|| unavailable(NOWHERE))?;
    let removed = backend.remove_file(caller.workspace, place(root, &path)).await;
    removed.map_err(|cause| match cause.kind {
        ErrorKind::Unsupported => unavailable(NOWHERE),
        ErrorKind::Transient | ErrorKind::Broken | ErrorKind::Missing => {
            told("failed to delete file", &cause)
        }
    })?;
    restart_soon(&app, caller.workspace, root).await?;
    Ok(Json(Done { status: "deleted".to_owned(), path }))
}

/// What the parent of a workspace shares with those below it.
#[utoipa::path(get, path = "/workspaces/{id}/shared-context", tag = "files", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Vec<Shared>), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn shared_context(
    caller: OfWorkspace,
    State(app): State<App>,
) -> Result<Json<Vec<Shared>>> {
    let own: Workspace = crate::workspaces::present(&app, caller.workspace).await?;
    let Some(parent) = own.parent else { return Ok(Json(Vec::new())) };
    let files = match Files::of(&app, parent).await {
        Err(Error::Refused(StatusCode::NOT_FOUND, _)) => return Ok(Json(Vec::new())),
        files => files?,
    };
    // A child waits for this at its start: what cannot be had is left out.
    let text = |content: Option<Bytes>| {
        let content = content.filter(|content| content.len() <= MOST_SHARED.1)?;
        String::from_utf8(content.into()).ok()
    };
    let config = text(files.read(Root::Configs, "config.yaml").await.unwrap_or_default());
    let names = files::shared(&config.unwrap_or_default());
    let sound = names.iter().filter_map(|name| files::file(Root::Configs, name).ok());
    let shared = stream::iter(sound.take(MOST_SHARED.0)).then(|path| async {
        let content = text(files.read(Root::Configs, &path).await.unwrap_or_default());
        Ok::<_, Error>(content.map(|content| Shared { path, content }))
    });
    let shared: Vec<Option<Shared>> = shared.try_collect().await?;
    Ok(Json(shared.into_iter().flatten().collect()))
}
