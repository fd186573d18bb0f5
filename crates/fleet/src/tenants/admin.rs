//! What the fleet's operator does with organisations.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::fleet::{
    AdminToken, ChangeOrg, Confirm, Member, NewOrg, NewSession, Org, Orgs, Session,
};
use ligand_server::error::{Error, Result};
use ligand_server::http::body::{Payload, parse, parse_or_default};

use super::http::{COOKIE, orgs};
use super::{change, create, of_slug, store, view};
use crate::access::Operator;
use crate::app::Fleet;
use crate::instances;
use crate::journal::{self, About};

const MALFORMED: &str = "invalid request body";
/// How long a session holds unless said otherwise, and at most.
const SESSION: u64 = 12 * 3600;
const LONGEST_SESSION: u64 = 30 * 24 * 3600;

/// Every organisation.
#[utoipa::path(get, path = "/cp/admin/orgs", tag = "tenants", responses(
    (status = 200, body = Orgs), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(_: Operator, State(fleet): State<Fleet>) -> Result<Json<Orgs>> {
    orgs(&fleet).await.map(Json)
}

/// Create an organisation. Its administrator's token is minted unless one is given.
#[utoipa::path(post, path = "/cp/admin/orgs", tag = "tenants", request_body = NewOrg, responses(
    (status = 201, body = Org), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn add(
    _: Operator,
    State(fleet): State<Fleet>,
    Payload(bytes): Payload,
) -> Result<(StatusCode, Json<Org>)> {
    let tenant = create(&fleet, parse(&bytes, MALFORMED)?).await?;
    Ok((StatusCode::CREATED, Json(view(&fleet, &tenant, 0))))
}

/// Change an organisation.
#[utoipa::path(patch, path = "/cp/admin/orgs/{slug}", tag = "tenants", request_body = ChangeOrg, params(("slug" = String, Path)), responses(
    (status = 200, body = Org), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn patch(
    _: Operator,
    State(fleet): State<Fleet>,
    Path(slug): Path<String>,
    Payload(bytes): Payload,
) -> Result<Json<Org>> {
    let tenant = change(&fleet, &slug, parse(&bytes, MALFORMED)?).await?;
    Ok(Json(view(&fleet, &tenant, 0)))
}

/// The token of a platform's administrator.
#[utoipa::path(get, path = "/cp/admin/orgs/{slug}/admin-token", tag = "tenants", params(("slug" = String, Path)), responses(
    (status = 200, body = AdminToken), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn admin_token(
    _: Operator,
    State(fleet): State<Fleet>,
    Path(slug): Path<String>,
) -> Result<Json<AdminToken>> {
    let mut tx = fleet.db.begin().await?;
    let tenant = of_slug(&mut tx, &slug).await?;
    let unreadable = Error::internal("the token cannot be read");
    let admin_token = fleet.open(&tenant.admin_token).map_err(unreadable)?;
    let about = About { org: Some(&tenant.org_id), ..About::default() };
    journal::note(&fleet, &mut tx, about, "tenant", "the operator read the token").await?;
    tx.commit().await?;
    Ok(Json(AdminToken { admin_token }))
}

/// Delete an organisation: its instances end, their data is taken away, and its tokens are worth nothing from now on.
#[utoipa::path(delete, path = "/cp/admin/tenants/{slug}", tag = "tenants", request_body = Confirm, params(("slug" = String, Path)), responses(
    (status = 202, body = Org), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete(
    _: Operator,
    State(fleet): State<Fleet>,
    Path(slug): Path<String>,
    Payload(bytes): Payload,
) -> Result<(StatusCode, Json<Org>)> {
    let said: Confirm = parse_or_default(&bytes, MALFORMED)?;
    if said.confirm != slug {
        let detail = "confirm: expected the organisation's slug";
        return Err(Error::invalid("confirmation required", detail));
    }
    let mut tx = fleet.db.begin().await?;
    let tenant = of_slug(&mut tx, &slug).await?;
    store::remove(&mut tx, &tenant.org_id, fleet.clock.now()).await?;
    let ending = instances::end_all(&fleet, &mut tx, &tenant.org_id).await?;
    let about = About { org: Some(&tenant.org_id), ..About::default() };
    let what = format!("the organisation {slug} was deleted; {ending} instances end");
    journal::note(&fleet, &mut tx, about, "tenant", &what).await?;
    tx.commit().await?;
    fleet.ring();
    Ok((StatusCode::ACCEPTED, Json(view(&fleet, &tenant, ending))))
}

async fn user(fleet: &Fleet, slug: &str, bytes: &[u8], add: bool) -> Result<Json<Member>> {
    let member: Member = parse(bytes, MALFORMED)?;
    if member.user_id.trim().is_empty() {
        return Err(Error::invalid(MALFORMED, "user_id: expected a user's id"));
    }
    let mut tx = fleet.db.begin().await?;
    let tenant = of_slug(&mut tx, slug).await?;
    match add {
        true => store::add_member(&mut tx, &tenant.org_id, &member.user_id).await?,
        false => store::remove_member(&mut tx, &tenant.org_id, &member.user_id).await?,
    }
    tx.commit().await?;
    Ok(Json(member))
}

/// Make somebody a member.
#[utoipa::path(post, path = "/cp/admin/orgs/{slug}/members", tag = "tenants", request_body = Member, params(("slug" = String, Path)), responses(
    (status = 200, body = Member), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn add_member(
    _: Operator,
    State(fleet): State<Fleet>,
    Path(slug): Path<String>,
    Payload(bytes): Payload,
) -> Result<Json<Member>> {
    user(&fleet, &slug, &bytes, true).await
}

/// Somebody is a member no more. Their sessions stay theirs, and open nothing here.
#[utoipa::path(delete, path = "/cp/admin/orgs/{slug}/members", tag = "tenants", request_body = Member, params(("slug" = String, Path)), responses(
    (status = 200, body = Member), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn remove_member(
    _: Operator,
    State(fleet): State<Fleet>,
    Path(slug): Path<String>,
    Payload(bytes): Payload,
) -> Result<Json<Member>> {
    user(&fleet, &slug, &bytes, false).await
}

/// Begin a session of a user. Whoever lets people in (a login page, an identity provider's callback) asks for it.
#[utoipa::path(post, path = "/cp/admin/sessions", tag = "tenants", request_body = NewSession, responses(
    (status = 201, body = Session), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn begin_session(
    _: Operator,
    State(fleet): State<Fleet>,
    Payload(bytes): Payload,
) -> Result<(StatusCode, Json<Session>)> {
    let new: NewSession = parse(&bytes, MALFORMED)?;
    if new.user_id.trim().is_empty() {
        return Err(Error::invalid(MALFORMED, "user_id: expected a user's id"));
    }
    let ttl = Duration::from_secs(new.ttl_seconds.unwrap_or(SESSION).min(LONGEST_SESSION));
    let (token, now) = (fleet.ids.token(), fleet.clock.now());
    let until = now.after(ttl);
    let mut tx = fleet.db.begin().await?;
    store::end_sessions(&mut tx, now).await?;
    store::add_session(&mut tx, &token.hash(), &new.user_id, until).await?;
    tx.commit().await?;
    let cookie = format!("{COOKIE}={}", token.reveal());
    Ok((StatusCode::CREATED, Json(Session { cookie, expires_at: until.to_string() })))
}
