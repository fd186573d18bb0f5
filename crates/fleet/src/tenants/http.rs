//! What platforms and their members ask about their organisation.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use ligand_api::error::ErrorBody;
use ligand_api::fleet::{BootEvent, Membership, Org, Orgs};
use ligand_domain::credential::TokenHash;
use ligand_server::error::{Error, Result};
use ligand_server::http::body::{Payload, parse_or_default};
use serde::Deserialize;

use super::{platform_url, store, view};
use crate::access::{Administrator, ORGANISATION, Operator};
use crate::app::Fleet;
use crate::journal::{self, About};

/// The cookie that holds a session.
pub(super) const COOKIE: &str = "ligand_session";
/// Longest text of a boot event that is kept.
const KEPT: usize = 2048;

/// What a platform is told at its start: names and values of its environment.
#[utoipa::path(get, path = "/cp/tenants/config", tag = "tenants", responses(
    (status = 200, body = BTreeMap<String, String>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn config(
    Administrator(tenant): Administrator,
    State(fleet): State<Fleet>,
    headers: HeaderMap,
) -> Result<Json<BTreeMap<String, String>>> {
    if !headers.contains_key(ORGANISATION) {
        let detail = "X-Molecule-Org-Id: expected the organisation's id";
        return Err(Error::invalid("missing organisation", detail));
    }
    Ok(Json(tenant.told(&fleet)?))
}

/// A platform says how its start went.
#[utoipa::path(post, path = "/cp/tenants/boot-event", tag = "tenants", request_body = BootEvent, responses(
    (status = 200, body = Org), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn boot_event(
    Administrator(tenant): Administrator,
    State(fleet): State<Fleet>,
    Payload(bytes): Payload,
) -> Result<Json<Org>> {
    let event: BootEvent = parse_or_default(&bytes, "invalid request body")?;
    let url = platform_url(event.platform_url.as_deref().unwrap_or_default());
    let url = url.map_err(|mistake| Error::invalid("invalid request body", mistake))?;
    let failed = event.error.as_deref().is_some_and(|error| !error.is_empty());
    let status = if failed { "failed" } else { "running" };
    let mut said = event.event;
    if let Some(error) = event.error.filter(|_| failed) {
        said = format!("{said}: {error}");
    }
    let said: String = said.chars().take(KEPT).collect();
    let mut tx = fleet.db.begin().await?;
    store::booted(&mut tx, &tenant.org_id, status, Some(&said)).await?;
    if !url.is_empty() {
        store::learn_platform(&mut tx, &tenant.org_id, &url).await?;
    }
    let about = About { org: Some(&tenant.org_id), ..About::default() };
    journal::note(&fleet, &mut tx, about, "boot", &format!("{status}: {said}")).await?;
    let now = store::get(&mut tx, &tenant.org_id).await?.unwrap_or(tenant);
    tx.commit().await?;
    Ok(Json(view(&fleet, &now, 0)))
}

/// Of which organisation.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfSlug {
    /// The organisation's name in addresses.
    #[serde(default)]
    slug: String,
}

/// Whether the session in a cookie is that of a member. A session of nobody is 401.
#[utoipa::path(get, path = "/cp/auth/tenant-member", tag = "tenants", params(OfSlug), responses(
    (status = 200, body = Membership), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn tenant_member(
    State(fleet): State<Fleet>,
    Query(OfSlug { slug }): Query<OfSlug>,
    headers: HeaderMap,
) -> Result<Json<Membership>> {
    if slug.is_empty() {
        let detail = "slug: expected the organisation's name in addresses";
        return Err(Error::invalid("missing slug", detail));
    }
    let unknown = || Error::unauthenticated("no session");
    let session = session_of(&headers).ok_or_else(unknown)?;
    let mut tx = fleet.db.read().await?;
    let found = store::session(&mut tx, &TokenHash::of(session), &slug, fleet.clock.now()).await?;
    let (user_id, member) = found.ok_or_else(unknown)?;
    Ok(Json(Membership { member, user_id }))
}

fn session_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).map(str::trim);
    pairs.find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('=')).filter(|it| !it.is_empty())
}

/// Every organisation.
#[utoipa::path(get, path = "/cp/orgs", tag = "tenants", responses(
    (status = 200, body = Orgs), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(_: Operator, State(fleet): State<Fleet>) -> Result<Json<Orgs>> {
    orgs(&fleet).await.map(Json)
}

pub(super) async fn orgs(fleet: &Fleet) -> Result<Orgs> {
    let mut tx = fleet.db.read().await?;
    let all = store::all(&mut tx).await?;
    let orgs = all.iter().map(|(tenant, instances)| view(fleet, tenant, *instances)).collect();
    Ok(Orgs { orgs })
}
