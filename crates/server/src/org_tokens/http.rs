//! The organisation's tokens over HTTP.

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::request::Parts;
use ligand_api::error::ErrorBody;
use ligand_api::token::{MintOrgToken, MintedOrgToken, OrgTokenRevoked, OrgTokens};
use ligand_domain::id::OrgTokenId;

use super::store;
use crate::access::{Admin, By};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse_or_default};
use crate::http::limit;

/// Longest name of a token, in characters.
const LONGEST_NAME: usize = 100;

/// The organisation's live tokens.
#[utoipa::path(get, path = "/org/tokens", tag = "tokens", responses(
    (status = 200, body = OrgTokens), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list(_: Admin, State(app): State<App>) -> Result<Json<OrgTokens>> {
    let failed = "failed to list tokens";
    let mut tx = app.db.read().await.map_err(Error::internal(failed))?;
    let tokens = store::list(&mut tx).await.map_err(Error::internal(failed))?;
    Ok(Json(OrgTokens { count: tokens.len(), tokens }))
}

/// Who asks for a token, and may: an address gets ten an hour.
pub(crate) struct Minter(By);

impl FromRequestParts<App> for Minter {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        // Strangers use up nobody's share.
        let Admin(by) = Admin::from_request_parts(parts, app).await?;
        limit::charge_mint(app, limit::peer(&parts.extensions))?;
        Ok(Self(by))
    }
}

/// Mint a token of the organisation. It opens what administrators do; its text is shown this once.
#[utoipa::path(post, path = "/org/tokens", tag = "tokens", request_body = MintOrgToken, responses(
    (status = 200, body = MintedOrgToken), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn mint(
    Minter(by): Minter,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<MintedOrgToken>> {
    let request: MintOrgToken = parse_or_default(&body, "invalid request body")?;
    let name = request.name.filter(|name| !name.is_empty());
    if name.as_ref().is_some_and(|name| name.chars().count() > LONGEST_NAME) {
        return Err(Error::bad_request("name too long (max 100 chars)"));
    }
    let created_by = match &by {
        By::Org(token) => format!("org-token:{}", token.prefix),
        By::Session => "session".to_owned(),
        By::Admin | By::Itself | By::Anybody => "admin-token".to_owned(),
    };
    let said = (name.as_deref(), Some(created_by.as_str()));
    let minted = match &by {
        By::Org(parent) => super::mint_as(&app, parent, said.0, said.1).await,
        _ => super::mint(&app, said.0, said.1, None).await.map(Some),
    };
    let minted = minted.map_err(Error::internal("failed to mint token"))?;
    let (id, token) = minted.ok_or_else(|| Error::unauthenticated("invalid admin auth token"))?;
    tracing::info!(org_token.id = %id, created_by, "a token of the organisation was minted");
    Ok(Json(MintedOrgToken {
        id: id.uuid(),
        prefix: token.prefix().to_owned(),
        name,
        auth_token: token.reveal().to_owned(),
        warning: "keep it now: it is not shown again".to_owned(),
    }))
}

/// End a token of the organisation.
#[utoipa::path(delete, path = "/org/tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "the token's id")), responses(
    (status = 200, body = OrgTokenRevoked), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn revoke(
    _: Admin,
    State(app): State<App>,
    params: RawPathParams,
) -> Result<Json<OrgTokenRevoked>> {
    let text = params.iter().next().map(|(_, value)| value.trim()).unwrap_or_default();
    if text.is_empty() {
        return Err(Error::bad_request("id required"));
    }
    let nothing = || Error::not_found("token not found or already revoked");
    let id: OrgTokenId = text.parse().map_err(|_| nothing())?;
    let failed = "failed to revoke";
    let mut tx = app.db.begin().await.map_err(Error::internal(failed))?;
    let ended = store::revoke(&mut tx, id, app.clock.now()).await;
    if !ended.map_err(Error::internal(failed))? {
        return Err(nothing());
    }
    tx.commit().await.map_err(Error::internal(failed))?;
    app.hub.look_again();
    tracing::info!(org_token.id = %id, "a token of the organisation was revoked");
    Ok(Json(OrgTokenRevoked { revoked: id.to_string() }))
}
