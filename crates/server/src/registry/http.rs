//! The agent protocol over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, StatusCode};
use ligand_api::error::ErrorBody;
use ligand_api::registry::{Done, Register, Registered, Rotate, Rotated, UpdateCard};
use ligand_domain::admission::Call;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Features;
use serde_json::json;

use super::addresses::{self, Said};
use super::receipt::Shown;
use super::{Admitted, Knock, Whence, card, enter, status};
use crate::access;
use crate::app::App;
use crate::credentials;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::http::limit::{self, Proof};
use crate::journal::Work;
use crate::workspaces;

/// The contract's word for a body that is not understood.
pub(super) const BAD_BODY: &str = "invalid request body";
/// The contract's words for what could not be written down.
pub(super) const FAILED: &str = "registration failed";
pub(super) const CARD_FAILED: &str = "failed to update card";

/// Take up the identity of a workspace.
#[utoipa::path(post, path = "/registry/register", tag = "registry", request_body = Register, responses(
    (status = 200, body = Registered), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn register(
    State(app): State<App>,
    proof: Proof,
    headers: HeaderMap,
    extensions: Extensions,
    Payload(body): Payload,
) -> Result<Json<Registered>> {
    let request: Register = parse(&body, BAD_BODY)?;
    let id = workspace_id("id", &request.id)?;
    one_of("delivery_mode", request.delivery_mode.as_deref(), ["push", "poll"])?;
    one_of("kind", request.kind.as_deref(), ["workspace", "platform"])?;
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let says = addresses::said(&request).map(str::to_owned);
    let whence = Whence { says: says.as_deref(), peer: limit::peer(&extensions) };
    let bearer = access::presented(&headers);
    let knock = Knock { call: Call::Register, workspace: id, bearer, key, whence };
    let said = Said::of(&app, &knock, &request).await?;
    let Some((work, admitted)) = enter(&app, &knock, FAILED).await? else {
        return Ok(Json(Registered { status: "registered".to_owned(), ..Registered::default() }));
    };
    admitted.proves(&proof);
    let (of, inert) = ((id, admitted.generation), admitted.inert);
    match take_up(&app, work, admitted, request, (said, knock.bearer)).await {
        Ok(answer) => {
            app.bells.ring();
            Ok(Json(answer))
        }
        Err(failed) => {
            if !inert {
                status::register_failed(&app, of, &failed).await;
            }
            Err(failed)
        }
    }
}

/// What follows from an admission. Where it fails nothing of it stays, the admission included.
async fn take_up(
    app: &App,
    mut work: Work<'_>,
    admitted: Admitted,
    request: Register,
    (said, bearer): (Said, Option<&str>),
) -> Result<Registered> {
    if request.kind.as_deref() == Some("platform") {
        let body = ErrorBody::new("this workspace is not a platform agent");
        let body = body.detail("kind: only \"workspace\" can be registered here");
        return Err(Error::Refused(StatusCode::FORBIDDEN, Box::new(body)));
    }
    let mode = mode(&request, &admitted);
    let url = said.settle(&mut work, &admitted, mode).await?;
    let declared = request.ligand.as_ref().map(|d| &d.features);
    let features = declared.map(|names| Features::from_names(names.iter().map(String::as_str)));
    let receipt = request.ligand.as_ref().and_then(|declared| declared.receipt.as_ref());
    let program = request.ligand.as_ref().and_then(|declared| declared.program.as_ref());
    let shown = Shown::new(bearer, receipt, program);
    let card = card::complete(request.agent_card, &admitted.before);
    let seen = status::Seen { url, card: &card, mode, features, shown };
    let observed =
        status::register(app, &mut work, &admitted, seen).await.map_err(Error::internal(FAILED))?;
    work.commit().await.map_err(Error::internal(FAILED))?;
    Ok(Registered {
        status: "registered".to_owned(),
        auth_token: admitted.minted.map(|token| token.reveal().to_owned()),
        delivery_mode: Some(mode.to_owned()),
        generation: Some(admitted.generation.number()),
        next_heartbeat_seconds: Some(observed.next_heartbeat.as_secs()),
    })
}

/// Change the agent's card.
#[utoipa::path(post, path = "/registry/update-card", tag = "registry", request_body = UpdateCard, responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn update_card(
    State(app): State<App>,
    proof: Proof,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Done>> {
    let request: UpdateCard = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &request.workspace_id)?;
    let bearer = access::presented(&headers);
    let whence = Whence::default();
    let knock = Knock { call: Call::UpdateCard, workspace: id, bearer, key: None, whence };
    let callable = addresses::of_card(&app, &knock, &request.agent_card).await?;
    let Some((mut work, admitted)) = enter(&app, &knock, CARD_FAILED).await? else {
        return Ok(Json(Done { status: "updated".to_owned() }));
    };
    admitted.proves(&proof);
    if let Err(why) = callable
        && !addresses::trusted(&mut work, &admitted).await?
    {
        return Err(Error::invalid("workspace URL not allowed", format!("agent_card.url: {why}")));
    }
    if !admitted.inert {
        let card = request.agent_card.to_string();
        let saved = workspaces::save_card(&mut work.tx, id, &card, work.now).await;
        saved.map_err(Error::internal(CARD_FAILED))?;
        work.emit("AGENT_CARD_UPDATED", id, json!({"agent_card": request.agent_card}));
    }
    work.commit().await.map_err(Error::internal(CARD_FAILED))?;
    Ok(Json(Done { status: "updated".to_owned() }))
}

/// Take a new credential beside the one in use, for the serial that a heartbeat's answer named. Answered anew
/// until one of them is used.
#[utoipa::path(post, path = "/registry/rotate", tag = "registry", request_body = Rotate, responses(
    (status = 200, body = Rotated), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn rotate(
    State(app): State<App>,
    proof: Proof,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Rotated>> {
    let request: Rotate = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &request.workspace_id)?;
    let bearer = access::presented(&headers);
    let whence = Whence::default();
    let knock = Knock { call: Call::Rotate, workspace: id, bearer, key: None, whence };
    let entered = enter(&app, &knock, "rotation failed").await?;
    let (mut work, admitted) = entered.expect("a rotation is never let through");
    admitted.proves(&proof);
    let token = credentials::rotate(&app, &mut work, &admitted, request.serial).await?;
    work.commit().await?;
    Ok(Json(Rotated {
        status: "rotated".to_owned(),
        auth_token: token.reveal().to_owned(),
        serial: admitted.serials.wanted,
        generation: admitted.generation.number(),
    }))
}

pub(super) fn workspace_id(field: &str, text: &str) -> Result<WorkspaceId> {
    text.trim().parse().map_err(|_| Error::invalid(BAD_BODY, format!("{field}: expected a UUID")))
}

fn one_of(field: &str, value: Option<&str>, allowed: [&str; 2]) -> Result<()> {
    match value {
        None | Some("") => Ok(()),
        Some(text) if allowed.contains(&text) => Ok(()),
        Some(_) => {
            Err(Error::bad_request(format!("{field} must be '{}' or '{}'", allowed[0], allowed[1])))
        }
    }
}

/// `push` or `poll`: what is said, else what was said, else by who runs it.
fn mode(request: &Register, admitted: &Admitted) -> &'static str {
    let said = request.delivery_mode.as_deref().filter(|mode| !mode.is_empty());
    let stored = admitted.before.agent.delivery_mode.as_deref();
    match said.or(stored) {
        Some("poll") => "poll",
        Some(_) => "push",
        None if admitted.before.managed() => "push",
        None => "poll",
    }
}
