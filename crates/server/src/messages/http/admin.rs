//! The ledger, for operators.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::message::{Dropped, Message as View, Messages};
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::State as Stands;
use ligand_domain::time::Timestamp;
use serde::Deserialize;

use crate::access::Admin;
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::Work;
use crate::messages::row::Look;
use crate::messages::store::{self, Sought, queue};
use crate::messages::{Message, outcome};

/// Messages of a page, unless said otherwise.
const PAGE: i64 = 50;
/// Most of a page.
const MOST: i64 = 500;
/// How old a message is that is called stale, in minutes, unless said otherwise.
const STALE: u64 = 60;
/// The contract's text.
const DROP_FAILED: &str = "failed to drop stale items";

/// Which messages.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// To this workspace.
    workspace_id: Option<String>,
    /// In this state.
    state: Option<String>,
    /// At most so many; 50 unless said, 500 at most.
    limit: Option<i64>,
    /// What the last page gave as `next`.
    after: Option<String>,
}

fn page_of(which: &Which) -> Result<Sought> {
    let bad = |detail: &str| Error::invalid("invalid query", detail);
    let workspace = which.workspace_id.as_deref().map(str::parse::<WorkspaceId>).transpose();
    let state = which.state.as_deref().map(|text| Stands::parse(text).ok_or(())).transpose();
    let expected =
        "state: expected accepted, delivering, processed, acknowledged, expired, dead or dropped";
    let after = which.after.as_deref().map(|text| cursor(text).ok_or(())).transpose();
    Ok(Sought {
        workspace: workspace.map_err(|_| bad("workspace_id: expected a UUID"))?,
        state: state.map_err(|()| bad(expected))?,
        after: after.map_err(|()| bad("after: expected what the last page gave as `next`"))?,
        limit: which.limit.unwrap_or(PAGE).clamp(1, MOST),
    })
}

fn cursor(text: &str) -> Option<(Timestamp, MessageId)> {
    let (at, id) = text.split_once('.')?;
    Some((Timestamp::from_micros(at.parse().ok()?), id.parse().ok()?))
}

/// The ledger, newest first.
#[utoipa::path(get, path = "/admin/messages", tag = "messages", params(Which), responses(
    (status = 200, body = Messages), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    _: Admin,
    State(app): State<App>,
    Query(which): Query<Which>,
) -> Result<Json<Messages>> {
    let sought = page_of(&which)?;
    let found = store::list(&mut app.db.read().await?, sought).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == sought.limit);
    let next = found.last().filter(|_| full);
    let next = next.map(|last| format!("{}.{}", last.times.accepted.micros(), last.id));
    Ok(Json(Messages { messages: found.iter().map(Message::brief).collect(), next }))
}

fn unknown() -> Error {
    Error::not_found("message not found")
}

async fn find(app: &App, id: &str) -> Result<Message> {
    let id: MessageId = id.parse().map_err(|_| unknown())?;
    crate::messages::get(&mut app.db.read().await?, id).await?.ok_or_else(unknown)
}

fn not_now(message: &Message, expected: &str) -> Error {
    let body = ErrorBody::new(format!("the message is {}", message.state.as_str()));
    Error::Refused(StatusCode::CONFLICT, Box::new(body.detail(expected)))
}

/// One message, with what was sent and what was answered.
#[utoipa::path(get, path = "/admin/messages/{id}", tag = "messages", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = View), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(
    _: Admin,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<View>> {
    Ok(Json(find(&app, &id).await?.view(Look::Whole)))
}

/// Deliver a message again that was given up. One that may have run runs again.
#[utoipa::path(post, path = "/admin/messages/{id}/replay", tag = "messages", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 202, body = View), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn replay(
    _: Admin,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<View>)> {
    let found = find(&app, &id).await?;
    let now = app.clock.now();
    let expected = "only a message that is dead, expired or dropped is delivered again";
    if !found.state.may_become(Stands::Accepted) || found.state.is_open() {
        return Err(not_now(&found, expected));
    }
    let expires = now.after(app.config.messages.expire_after);
    let mut tx = app.db.begin().await?;
    let again = (found.maybe_run, expires);
    let done = queue::reaccept(&mut tx, found.id, found.state, again, now).await?;
    tx.commit().await?;
    crate::messages::ring(&app);
    let now = find(&app, &id).await?;
    if done {
        Ok((StatusCode::ACCEPTED, Json(now.view(Look::Whole))))
    } else {
        Err(not_now(&now, expected))
    }
}

/// Take away a message that is not over yet. What its agent may still answer changes nothing.
#[utoipa::path(post, path = "/admin/messages/{id}/drop", tag = "messages", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = View), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn drop_one(
    _: Admin,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<View>> {
    let found = find(&app, &id).await?;
    let mut work = Work::begin(&app).await?;
    let now = work.now;
    let why = "an operator took it away";
    let Some(dropped) = queue::drop_one(&mut work.tx, found.id, why, now).await? else {
        return Err(not_now(&found, "only a message that is not over yet can be dropped"));
    };
    outcome::over(&mut work, &dropped, Stands::Dropped, Some(why)).await?;
    work.commit().await?;
    crate::messages::over(&app, &dropped);
    Ok(Json(dropped.view(Look::Whole)))
}

/// Which ones are stale.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Stale {
    /// Older than so many minutes; 60 unless said.
    max_age_minutes: Option<String>,
    /// To this workspace; all unless said.
    workspace_id: Option<String>,
}

/// Take away messages that have waited for longer than this.
#[utoipa::path(post, path = "/admin/a2a-queue/drop-stale", tag = "messages", params(Stale), responses(
    (status = 200, body = Dropped), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn drop_stale(
    _: Admin,
    State(app): State<App>,
    Query(stale): Query<Stale>,
) -> Result<Json<Dropped>> {
    let minutes = stale.max_age_minutes.as_deref().map_or(Ok(STALE), |text| text.trim().parse());
    let Some(minutes) =
        minutes.ok().filter(|minutes: &u64| (1..=u64::from(u32::MAX)).contains(minutes))
    else {
        return Err(Error::bad_request("max_age_minutes must be a positive integer"));
    };
    let of = stale.workspace_id.as_deref().filter(|text| !text.is_empty());
    let of = of.map(str::parse::<WorkspaceId>).transpose();
    let of =
        of.map_err(|_| Error::invalid("invalid workspace ID", "workspace_id: expected a UUID"))?;
    let dropped = async {
        let mut work = Work::begin(&app).await?;
        let now = work.now;
        let before = now.before(std::time::Duration::from_secs(minutes * 60));
        let why = format!("dropped: it waited for more than {minutes} minutes");
        let dropped = queue::drop_stale(&mut work.tx, of, before, &why, now).await?;
        for message in &dropped {
            outcome::over(&mut work, message, Stands::Dropped, Some(&why)).await?;
        }
        work.commit().await?;
        Ok::<_, sqlx::Error>(dropped)
    };
    let dropped = dropped.await.map_err(Error::internal(DROP_FAILED))?;
    dropped.iter().for_each(|message| crate::messages::over(&app, message));
    Ok(Json(Dropped { dropped: dropped.len() as u64 }))
}
