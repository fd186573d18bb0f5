//! The other side: any backend, served to a platform elsewhere.
//!
//! Nothing is decided here. Every route is one call of the backend, and its failure is the backend's, with its kind.

mod streams;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path as InPath, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use ligand_domain::credential::{self, TokenHash};
use ligand_domain::id::{Generation, WorkspaceId};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::wire::{
    self, About, Amount, Confirmed, Failure, HEADER, Instances, LARGEST, Listed, Observed, Sought,
    Start, Stop, VERSION, Workspaces,
};
use crate::backend::{Backend, BackendError, Capability, ErrorKind, Key, Place, Push, Root, Spec};

/// Ends that wait for somebody who hears slowly.
const WAITING: usize = 1024;
/// How long an end waits for calls under way.
const DRAIN: Duration = Duration::from_secs(10);
/// Most lines of a log, and deepest list of files.
const MOST: (usize, u8) = (100_000, 16);

/// What every route shares.
#[derive(Clone)]
struct Served {
    backend: Arc<dyn Backend>,
    token: TokenHash,
    ends: broadcast::Sender<Key>,
    stop: CancellationToken,
}

/// Serve a backend to whoever presents the token, until `stop` is cancelled. Its pushes are passed on.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    mut pushed: UnboundedReceiver<Push>,
    token: &str,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let ends = broadcast::Sender::new(WAITING);
    let served =
        Served { backend, token: TokenHash::of(token), ends: ends.clone(), stop: stop.clone() };
    let asked = stop.clone();
    let serving = axum::serve(listener, router(served))
        .with_graceful_shutdown(async move { asked.cancelled().await });
    let passing_on = async {
        while let Some(Push(key)) = pushed.recv().await {
            // Nobody hears: whoever comes later asks.
            let _ = ends.send(key);
        }
        std::future::pending::<()>().await;
    };
    let late = async {
        stop.cancelled().await;
        let drained = std::future::pending::<()>();
        let _ = tokio::time::timeout(DRAIN, drained).await;
    };
    tokio::select! {
        served = serving.into_future() => served,
        () = passing_on => Ok(()),
        () = late => Ok(()),
    }
}

fn router(served: Served) -> Router {
    let instance = "/v1/instances/{workspace}/{generation}";
    let workspace = "/v1/workspaces/{workspace}";
    Router::new()
        .route("/v1", get(about))
        .route("/v1/events", get(streams::events))
        .route("/v1/recover", post(recover))
        .route("/v1/instances", get(list_owned).post(ensure))
        .route(instance, get(find).delete(destroy))
        .route(&format!("{instance}/state"), get(inspect))
        .route(&format!("{instance}/stop"), post(stop))
        .route(&format!("{instance}/terminal"), get(streams::terminal))
        .route("/v1/workspaces", get(list_data))
        .route(workspace, axum::routing::delete(erase))
        .route(&format!("{workspace}/logs"), get(logs))
        .route(&format!("{workspace}/data"), get(export).put(import))
        .route(&format!("{workspace}/digest"), get(digest))
        .route(&format!("{workspace}/files"), get(list_files))
        .route(&format!("{workspace}/file"), get(read_file).put(write_file).delete(remove_file))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(served.clone(), door))
        .with_state(served)
}

/// Nobody passes without the token, and every answer says what speaks.
async fn door(State(served): State<Served>, request: Request, next: Next) -> Response {
    let mut answer = match admitted(&served, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    answer.headers_mut().insert(HeaderName::from_static(HEADER), HeaderValue::from(VERSION));
    answer
}

fn admitted(served: &Served, headers: &HeaderMap) -> Result<(), Refused> {
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Compared by their hashes: how far they agree shows in no time that is taken.
    let known = presented.and_then(credential::bearer).map(TokenHash::of) == Some(served.token);
    if !known {
        let why = BackendError::broken("expected the provider's token as bearer");
        return Err(Refused(StatusCode::UNAUTHORIZED, why));
    }
    let spoken = headers.get(HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    match spoken.unwrap_or(VERSION) {
        VERSION => Ok(()),
        other => Err(BackendError::broken(format!(
            "version {other} of the protocol is not spoken here, but {VERSION}"
        ))
        .into()),
    }
}

async fn nothing() -> Refused {
    BackendError::unsupported("there is no such route here").into()
}

/// A failure as an answer.
struct Refused(StatusCode, BackendError);

impl From<BackendError> for Refused {
    fn from(cause: BackendError) -> Self {
        let status = match cause.kind {
            ErrorKind::Transient => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Broken => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Missing => StatusCode::NOT_FOUND,
        };
        Self(status, cause)
    }
}

/// What was asked is not understood.
macro_rules! not_understood {
    ($($rejection:ty),+) => {$(
        impl From<$rejection> for Refused {
            fn from(cause: $rejection) -> Self {
                // The text of a body's rejection may quote it, and there are secrets in bodies.
                let _ = &cause;
                let why = concat!("not understood: ", stringify!($rejection));
                Self(cause.status(), BackendError::broken(why))
            }
        }
    )+};
}

not_understood!(JsonRejection, PathRejection, QueryRejection);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, cause) = self;
        let kind = wire::kind(cause.kind).to_owned();
        (status, Json(Failure { error: cause.chain(), kind })).into_response()
    }
}

type Answered<T> = Result<T, Refused>;
type Which = Result<InPath<(WorkspaceId, Generation)>, PathRejection>;
type Whose = Result<InPath<WorkspaceId>, PathRejection>;

fn key(path: Which) -> Answered<Key> {
    let InPath((workspace, generation)) = path?;
    Ok(Key { workspace, generation })
}

fn whose(path: Whose) -> Answered<WorkspaceId> {
    Ok(path?.0)
}

/// Whether a path leads nowhere but down.
pub(super) fn sound(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

/// Which file, and how deep.
#[derive(Deserialize)]
struct Where {
    root: String,
    #[serde(default)]
    path: PathBuf,
    #[serde(default = "one")]
    depth: u8,
}

const fn one() -> u8 {
    1
}

impl Where {
    fn place(self) -> Answered<Place> {
        let root = Root::ALL.into_iter().find(|root| super::root(*root) == self.root);
        let expected = "root: expected configs, workspace, home or plugins";
        let root = root.ok_or_else(|| BackendError::broken(expected))?;
        if !sound(&self.path) {
            let why = "path: expected a relative path without `..`";
            return Err(BackendError::broken(why).into());
        }
        Ok(Place { root, path: self.path })
    }
}

type At = Result<Query<Where>, QueryRejection>;

async fn about(State(served): State<Served>) -> Answered<Json<About>> {
    let backend = &served.backend;
    let says = backend.fingerprint().await?;
    let can = Capability::ALL.into_iter().filter(|what| backend.can(*what));
    Ok(Json(About {
        protocol: VERSION,
        kind: backend.kind().to_owned(),
        says,
        delivery: wire::delivery(backend.delivery()).to_owned(),
        can: can.map(|what| what.as_str().to_owned()).collect(),
    }))
}

async fn recover(State(served): State<Served>) -> Answered<StatusCode> {
    served.backend.recover().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn ensure(
    State(served): State<Served>,
    body: Result<Json<Start>, JsonRejection>,
) -> Answered<Json<Confirmed>> {
    let spec = Spec::try_from(body?.0)?;
    if let Some(path) = spec.files.keys().find(|path| path.is_empty() || !sound(Path::new(path))) {
        let why = format!("files.{path}: expected a relative path without `..`");
        return Err(BackendError::broken(why).into());
    }
    Ok(Json(served.backend.ensure(spec).await?.into()))
}

async fn find(State(served): State<Served>, path: Which) -> Answered<Json<Sought>> {
    let instance = served.backend.find(key(path)?).await?.map(Into::into);
    Ok(Json(Sought { instance }))
}

async fn inspect(State(served): State<Served>, path: Which) -> Answered<Json<Observed>> {
    Ok(Json(served.backend.inspect(key(path)?).await?.into()))
}

async fn stop(
    State(served): State<Served>,
    path: Which,
    body: Result<Json<Stop>, JsonRejection>,
) -> Answered<StatusCode> {
    served.backend.stop(key(path)?, Duration::from_millis(body?.0.grace_ms)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn destroy(State(served): State<Served>, path: Which) -> Answered<StatusCode> {
    served.backend.destroy(key(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_owned(State(served): State<Served>) -> Answered<Json<Instances>> {
    let instances = served.backend.list_owned().await?.into_iter().map(Into::into).collect();
    Ok(Json(Instances { instances }))
}

async fn list_data(State(served): State<Served>) -> Answered<Json<Workspaces>> {
    Ok(Json(Workspaces { workspaces: served.backend.list_data().await? }))
}

async fn erase(State(served): State<Served>, path: Whose) -> Answered<StatusCode> {
    served.backend.erase(whose(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How much of a log.
#[derive(Deserialize)]
struct Much {
    #[serde(default)]
    lines: usize,
    #[serde(default)]
    follow: bool,
}

async fn logs(
    State(served): State<Served>,
    path: Whose,
    much: Result<Query<Much>, QueryRejection>,
) -> Answered<Response> {
    let (workspace, Query(much)) = (whose(path)?, much?);
    if much.follow {
        let stream = served.backend.follow(workspace).await?;
        return Ok(streams::endless(stream, served.stop.clone()));
    }
    let log = served.backend.logs(workspace, much.lines.min(MOST.0)).await?;
    Ok(bytes(Body::from(log)))
}

fn bytes(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

async fn export(State(served): State<Served>, path: Whose) -> Answered<Response> {
    let archive = served.backend.export(whose(path)?).await?;
    // What ends in failure ends the connection, and not the body: nobody takes a half for the whole.
    Ok(bytes(Body::from_stream(archive)))
}

/// What an archive is to amount to.
#[derive(Deserialize)]
struct Expected {
    digest: Option<String>,
}

async fn import(
    State(served): State<Served>,
    path: Whose,
    expected: Result<Query<Expected>, QueryRejection>,
    body: Body,
) -> Answered<Json<Amount>> {
    let (workspace, expected) = (whose(path)?, expected?.0.digest);
    let archive = body.into_data_stream().map(|part| part.map_err(std::io::Error::other)).boxed();
    Ok(Json(served.backend.import(workspace, archive, expected).await?.into()))
}

async fn digest(State(served): State<Served>, path: Whose) -> Answered<Json<Amount>> {
    Ok(Json(served.backend.digest(whose(path)?).await?.into()))
}

async fn list_files(State(served): State<Served>, path: Whose, at: At) -> Answered<Json<Listed>> {
    let (workspace, Query(at)) = (whose(path)?, at?);
    let depth = at.depth.min(MOST.1);
    let found = served.backend.list_files(workspace, at.place()?, depth).await?;
    Ok(Json(Listed { files: found.into_iter().map(Into::into).collect() }))
}

async fn read_file(State(served): State<Served>, path: Whose, at: At) -> Answered<Response> {
    let content = served.backend.read_file(whose(path)?, at?.0.place()?).await?;
    Ok(bytes(Body::from(content)))
}

async fn write_file(
    State(served): State<Served>,
    path: Whose,
    at: At,
    content: Bytes,
) -> Answered<StatusCode> {
    served.backend.write_file(whose(path)?, at?.0.place()?, content).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_file(State(served): State<Served>, path: Whose, at: At) -> Answered<StatusCode> {
    served.backend.remove_file(whose(path)?, at?.0.place()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
