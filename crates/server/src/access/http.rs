//! A workspace's tokens over HTTP.

use axum::Json;
use axum::extract::{FromRequestParts, Query, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use ligand_api::error::ErrorBody;
use ligand_api::token::{MintedToken, TokenRevoked, WorkspaceTokens};
use ligand_domain::id::{CredentialId, WorkspaceId};
use ligand_domain::workspace::Intent;
use serde::Deserialize;
use serde_json::json;

use super::store::callers::{self, Page};
use super::store::is_live;
use super::{Admin, By, For, Held, OfWorkspace, is_admin, live_in, mint, presented};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::path::WorkspacePath;
use crate::journal::{Kind, Work};
use crate::org_tokens;
use crate::workspaces;

/// Most live tokens of a workspace before it gets no more.
const MOST_LIVE: i64 = 50;
/// Tokens in a list, unless said.
const LISTED: i64 = 50;
/// Most tokens in a list.
const MOST_LISTED: i64 = 200;
const NO_TOKEN: &str = "failed to create token";

/// Which part of a list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// How many; 1 to 200, else 50.
    limit: Option<String>,
    /// How many newer ones to leave out.
    offset: Option<String>,
}

impl Part {
    fn page(&self) -> Page {
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        let limit = number(&self.limit).filter(|limit| (1..=MOST_LISTED).contains(limit));
        let offset = number(&self.offset).filter(|offset| *offset >= 0);
        Page { limit: limit.unwrap_or(LISTED), offset: offset.unwrap_or(0) }
    }
}

/// A workspace's live tokens, newest first.
#[utoipa::path(get, path = "/workspaces/{id}/tokens", tag = "tokens", params(("id" = String, Path, description = "workspace id"), Part), responses(
    (status = 200, body = WorkspaceTokens), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list(
    caller: OfWorkspace,
    State(app): State<App>,
    Query(part): Query<Part>,
) -> Result<Json<WorkspaceTokens>> {
    let failed = "failed to list tokens";
    let mut tx = app.db.read().await.map_err(Error::internal(failed))?;
    let tokens = callers::list(&mut tx, caller.workspace, app.clock.now(), part.page()).await;
    let tokens = tokens.map_err(Error::internal(failed))?;
    Ok(Json(WorkspaceTokens { count: tokens.len(), tokens }))
}

/// Mint a token with which a caller acts on the workspace's behalf. Asked for by an instance, it ends with
/// that instance.
#[utoipa::path(post, path = "/workspaces/{id}/tokens", tag = "tokens", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 201, body = MintedToken), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn create(
    caller: OfWorkspace,
    State(app): State<App>,
) -> Result<(StatusCode, Json<MintedToken>)> {
    // Whoever holds what ends with an instance cannot make of it what does not.
    let held = caller.held.as_ref();
    let generation = held.and_then(|held| held.generation);
    let of = Asked { held, limited: true, ..Asked::of(caller.workspace, &caller.by) };
    let mut minted = issue(&app, of, For::Caller(generation), NO_TOKEN).await?;
    minted.message = Some("keep it now: it is not shown again".to_owned());
    Ok((StatusCode::CREATED, Json(minted)))
}

/// End one of a workspace's tokens. An instance's takes along what it was used to mint.
#[utoipa::path(delete, path = "/workspaces/{id}/tokens/{token_id}", tag = "tokens", params(("id" = String, Path, description = "workspace id"), ("token_id" = String, Path, description = "the token's id")), responses(
    (status = 200, body = TokenRevoked), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn revoke(
    caller: OfWorkspace,
    State(app): State<App>,
    params: RawPathParams,
) -> Result<Json<TokenRevoked>> {
    let nothing = || Error::not_found("token not found or already revoked");
    let failed = "failed to revoke token";
    let text = params.iter().find(|(name, _)| *name == "token_id").map(|(_, value)| value);
    let id: CredentialId = text.and_then(|text| text.parse().ok()).ok_or_else(nothing)?;
    let mut work = Work::begin(&app).await.map_err(Error::internal(failed))?;
    let (workspace, now) = (caller.workspace, work.now);
    // As everybody who decides by a credential: whoever is let in by it is done, or is refused.
    workspaces::lock(&mut work.tx, workspace).await.map_err(Error::internal(failed))?;
    let ended = callers::revoke(&mut work.tx, workspace, id, now).await;
    if !ended.map_err(Error::internal(failed))? {
        return Err(nothing());
    }
    let facts = json!({"credential": id.to_string(), "by": said(&caller.by)});
    work.note(workspace, None, Kind::Changed, "a credential was revoked", facts);
    work.commit().await.map_err(Error::internal(failed))?;
    Ok(Json(TokenRevoked { status: "revoked".to_owned() }))
}

/// Mint a token of a workspace, as its administrator.
#[utoipa::path(post, path = "/admin/workspaces/{id}/tokens", tag = "tokens", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 201, body = MintedToken), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn create_for(
    Admin(by): Admin,
    WorkspacePath(workspace): WorkspacePath,
    State(app): State<App>,
) -> Result<(StatusCode, Json<MintedToken>)> {
    let of = Asked::of(workspace, &by);
    let minted = issue(&app, of, For::Caller(None), NO_TOKEN).await?;
    Ok((StatusCode::CREATED, Json(minted)))
}

/// Who may have a token for a test: the administrator, where the operator did not switch it off. Switched
/// off, there is no such route. (Compat, without an administrator's token: everybody.)
pub(crate) struct Tester(By);

impl FromRequestParts<App> for Tester {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        if !app.config.edge.test_tokens {
            return Err(Error::not_found("not found"));
        }
        if app.config.compat() && app.config.admin_token.reveal().is_empty() {
            return Ok(Self(By::Anybody));
        }
        match presented(&parts.headers) {
            Some(text) if is_admin(app, text) => Ok(Self(By::Admin)),
            _ => Err(Error::unauthenticated("admin auth required")),
        }
    }
}

/// A token of a workspace, for tests of whole systems. Not there in production.
#[utoipa::path(get, path = "/admin/workspaces/{id}/test-token", tag = "tokens", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = MintedToken), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn test_token(
    Tester(by): Tester,
    WorkspacePath(workspace): WorkspacePath,
    State(app): State<App>,
) -> Result<Json<MintedToken>> {
    let of = Asked::of(workspace, &by);
    Ok(Json(issue(&app, of, For::Caller(None), "token issue failed").await?))
}

/// A token that somebody asks for.
struct Asked<'a> {
    workspace: WorkspaceId,
    by: &'a By,
    /// The workspace's credential that it was asked for with.
    held: Option<&'a Held>,
    limited: bool,
}

impl<'a> Asked<'a> {
    /// As an administrator does.
    fn of(workspace: WorkspaceId, by: &'a By) -> Self {
        Self { workspace, by, held: None, limited: false }
    }
}

/// Count and mint under the workspace's lock, so that two who ask at once do not both get the last one, and
/// nobody gets one by a credential that was revoked while they waited.
async fn issue(
    app: &App,
    asked: Asked<'_>,
    purpose: For,
    failed: &'static str,
) -> Result<MintedToken> {
    let mut work = Work::begin(app).await.map_err(Error::internal("lookup failed"))?;
    let id = asked.workspace;
    let found = workspaces::lock(&mut work.tx, id).await;
    let found = found.map_err(Error::internal("lookup failed"))?;
    if found.is_none_or(|workspace| workspace.intent == Intent::Removed) {
        return Err(Error::not_found("workspace not found"));
    }
    if let Some(held) = asked.held
        && !is_live(&mut work.tx, held.id, work.now).await.map_err(Error::internal(failed))?
    {
        return Err(Error::unauthenticated("invalid workspace auth token"));
    }
    if let By::Org(token) = asked.by
        && !org_tokens::holds(&mut work.tx, token, work.now)
            .await
            .map_err(Error::internal(failed))?
    {
        return Err(Error::unauthenticated("invalid admin auth token"));
    }
    let live = live_in(&mut work.tx, id, work.now).await.map_err(Error::internal(failed))?;
    if asked.limited && live >= MOST_LIVE {
        let text = "maximum 50 active tokens per workspace";
        return Err(Error::refused(StatusCode::TOO_MANY_REQUESTS, text));
    }
    let minted = mint(app, &mut work, id, purpose).await.map_err(Error::internal(failed))?;
    let facts = json!({"prefix": minted.prefix(), "by": said(asked.by)});
    work.note(id, None, Kind::Changed, "a caller's credential was minted", facts);
    work.commit().await.map_err(Error::internal(failed))?;
    let auth_token = minted.reveal().to_owned();
    Ok(MintedToken { auth_token, workspace_id: id.to_string(), message: None })
}

/// For the journal.
fn said(by: &By) -> String {
    match by {
        By::Admin => "admin-token".to_owned(),
        By::Org(token) => format!("org-token:{}", token.prefix),
        By::Session => "session".to_owned(),
        By::Itself => "itself".to_owned(),
        By::Anybody => "nobody in particular (compat)".to_owned(),
    }
}
