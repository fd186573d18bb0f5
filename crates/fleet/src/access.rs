//! Who calls. Each extractor is a gate; a handler that names none is public.
//!
//! A *platform* proves itself with two credentials: the secret that it provisions with, as its bearer, and the token
//! of its administrator in `X-Molecule-Admin-Token`. The second one says which organisation it is; nothing that a
//! caller merely says does. Comparisons take the same time whatever is compared.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use ligand_api::error::ErrorBody;
use ligand_domain::credential::{TokenHash, bearer};
use ligand_server::error::{Error, Result};
use subtle::ConstantTimeEq as _;

use crate::app::Fleet;
use crate::tenants::{self, Tenant};

/// The header with a platform's administrator's token.
pub const IDENTITY: &str = "x-molecule-admin-token";
/// The header with an organisation's id.
pub const ORGANISATION: &str = "x-molecule-org-id";

/// The fleet's own operator.
pub struct Operator;

/// A platform, by both of its credentials.
pub struct Platform(pub Tenant);

/// A platform, by the token of its administrator alone, as its bearer.
pub struct Administrator(pub Tenant);

/// Whoever may read a console: the operator, or a platform its own workspaces'.
pub struct Reader(pub Option<Tenant>);

fn presented(headers: &HeaderMap) -> Option<&str> {
    bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

fn same(one: &[u8], other: &[u8]) -> bool {
    bool::from(one.ct_eq(other))
}

fn is_operator(fleet: &Fleet, presented: &str) -> bool {
    let token = fleet.config.admin_token.reveal();
    let alike = same(TokenHash::of(token).bytes(), TokenHash::of(presented).bytes());
    !token.is_empty() && alike
}

impl FromRequestParts<Fleet> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, fleet: &Fleet) -> Result<Self> {
        match presented(&parts.headers) {
            None => Err(Error::unauthenticated("admin auth required")),
            Some(text) if is_operator(fleet, text) => Ok(Self),
            Some(_) => Err(Error::unauthenticated("invalid admin auth token")),
        }
    }
}

impl FromRequestParts<Fleet> for Platform {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, fleet: &Fleet) -> Result<Self> {
        platform(fleet, &parts.headers).await.map(Self)
    }
}

async fn platform(fleet: &Fleet, headers: &HeaderMap) -> Result<Tenant> {
    let (secret, identity) = (presented(headers), text(headers, IDENTITY));
    let missing = [
        (secret.is_none(), "Authorization: Bearer SHARED_SECRET"),
        (identity.is_none(), "X-Molecule-Admin-Token"),
    ];
    let missing: Vec<&str> =
        missing.into_iter().filter_map(|(missing, name)| missing.then_some(name)).collect();
    let (Some(secret), Some(identity)) = (secret, identity) else {
        let body = ErrorBody::new("missing credentials");
        let body = body.detail(format!("missing: {}", missing.join(", ")));
        return Err(Error::Refused(StatusCode::UNAUTHORIZED, Box::new(body)));
    };
    let tenant = tenants::of_token(fleet, identity).await?;
    let fleets = TokenHash::of(fleet.config.shared_secret.reveal());
    let own = tenant.as_ref().and_then(|tenant| tenant.secret_hash.as_deref());
    let opens = same(own.unwrap_or(fleets.bytes()), TokenHash::of(secret).bytes());
    // Which of the two is wrong is nobody's business who has not both.
    tenant.filter(|_| opens).ok_or_else(|| Error::unauthenticated("invalid credentials"))
}

impl FromRequestParts<Fleet> for Administrator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, fleet: &Fleet) -> Result<Self> {
        let Some(token) = presented(&parts.headers) else {
            return Err(Error::unauthenticated("missing tenant admin token"));
        };
        let tenant = tenants::of_token(fleet, token).await?;
        let said = text(&parts.headers, ORGANISATION);
        let fits = |tenant: &Tenant| said.is_none_or(|said| said == tenant.org_id);
        let tenant = tenant.filter(fits);
        tenant.map(Self).ok_or_else(|| Error::unauthenticated("invalid tenant admin token"))
    }
}

impl FromRequestParts<Fleet> for Reader {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, fleet: &Fleet) -> Result<Self> {
        if presented(&parts.headers).is_some_and(|text| is_operator(fleet, text)) {
            // A platform that holds the operator's token says whose workspaces it means.
            return match text(&parts.headers, IDENTITY) {
                None => Ok(Self(None)),
                Some(identity) => Ok(Self(tenants::of_token(fleet, identity).await?)),
            };
        }
        // A platform without one falls back to what it provisions with.
        platform(fleet, &parts.headers).await.map(|tenant| Self(Some(tenant)))
    }
}
