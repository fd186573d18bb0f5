//! The agent protocol over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use ligand_api::error::ErrorBody;
use ligand_api::registry::{
    Beaten, Done, Heartbeat, Register, Registered, Rotate, Rotated, UpdateCard,
};
use ligand_domain::address;
use ligand_domain::admission::Call;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Features;
use ligand_domain::workspace::Vitals;
use serde_json::{Value, json};

use super::{Admitted, Knock, enter, status};
use crate::access;
use crate::app::App;
use crate::credentials;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::journal::Work;
use crate::workspaces::{self, Beat, Instance, Observed};

/// The contract's word for a body that is not understood.
const BAD_BODY: &str = "invalid request body";
/// Most that a heartbeat may report as spent, in cents.
const MAX_SPEND: i64 = 1_000_000_000_000;

/// Take up the identity of a workspace.
#[utoipa::path(post, path = "/registry/register", tag = "registry", request_body = Register, responses(
    (status = 200, body = Registered), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn register(
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Registered>> {
    let request: Register = parse(&body, BAD_BODY)?;
    let id = workspace_id("id", &request.id)?;
    one_of("delivery_mode", request.delivery_mode.as_deref(), ["push", "poll"])?;
    one_of("kind", request.kind.as_deref(), ["workspace", "platform"])?;
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let knock =
        Knock { call: Call::Register, workspace: id, bearer: access::presented(&headers), key };
    let Some((mut work, admitted)) = enter(&app, &knock, "registration failed").await? else {
        return Ok(Json(Registered { status: "registered".to_owned(), ..Registered::default() }));
    };
    if request.kind.as_deref() == Some("platform") {
        let body = ErrorBody::new("this workspace is not a platform agent");
        let body = body.detail("kind: only \"workspace\" can be registered here");
        return Err(Error::Refused(StatusCode::FORBIDDEN, Box::new(body)));
    }
    let mode = mode(&request, &admitted);
    let url = effective_url(&app, &mut work, &request, &admitted, mode).await?;
    let declared = request.ligand.as_ref().map(|d| &d.features);
    let features = declared.map(|names| Features::from_names(names.iter().map(String::as_str)));
    let observed = status::register(
        &app,
        &mut work,
        &admitted,
        status::Seen { url, card: &request.agent_card, mode, features },
    )
    .await
    .map_err(Error::internal("registration failed"))?;
    work.commit().await.map_err(Error::internal("registration failed"))?;
    app.bells.ring();
    Ok(Json(Registered {
        status: "registered".to_owned(),
        auth_token: admitted.minted.map(|token| token.reveal().to_owned()),
        delivery_mode: Some(mode.to_owned()),
        generation: Some(admitted.generation.number()),
        next_heartbeat_seconds: Some(observed.next_heartbeat.as_secs()),
    }))
}

/// Say that the agent is alive, and how it is.
#[utoipa::path(post, path = "/registry/heartbeat", tag = "registry", request_body = Heartbeat, responses(
    (status = 200, body = Beaten), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn heartbeat(
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Beaten>> {
    let beat: Heartbeat = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &beat.workspace_id)?;
    let bearer = access::presented(&headers);
    let knock = Knock { call: Call::Heartbeat, workspace: id, bearer, key: None };
    let Some((mut work, admitted)) = enter(&app, &knock, "failed to update").await? else {
        return Ok(Json(Beaten { status: "ok".to_owned(), ..Beaten::default() }));
    };
    let observed =
        status::heartbeat(&app, &mut work, &admitted, vitals(&beat, &admitted), &report(&beat))
            .await
            .map_err(Error::internal("failed to update"))?;
    if let Some(why) = beat.ligand.as_ref().and_then(|said| said.rotation_error.as_deref()) {
        credentials::note_failure(&mut work, &admitted, why).await?;
    }
    let now = work.now;
    work.commit().await.map_err(Error::internal("failed to update"))?;
    announce(&app, &beat, &admitted, &observed, now);
    Ok(Json(Beaten {
        status: "ok".to_owned(),
        next_heartbeat_seconds: Some(observed.next_heartbeat.as_secs()),
        rotate: admitted.rotate(&observed),
    }))
}

/// Change the agent's card.
#[utoipa::path(post, path = "/registry/update-card", tag = "registry", request_body = UpdateCard, responses(
    (status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn update_card(
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Done>> {
    let request: UpdateCard = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &request.workspace_id)?;
    let bearer = access::presented(&headers);
    let knock = Knock { call: Call::UpdateCard, workspace: id, bearer, key: None };
    let Some((mut work, admitted)) = enter(&app, &knock, "failed to update card").await? else {
        return Ok(Json(Done { status: "updated".to_owned() }));
    };
    if let Some(url) =
        request.agent_card.get("url").and_then(Value::as_str).filter(|url| !url.is_empty())
        && !admitted.before.managed()
    {
        check_url(&app, url)
            .await
            .map_err(|why| Error::invalid("workspace URL not allowed", why))?;
    }
    if !admitted.inert {
        let card = request.agent_card.to_string();
        let saved = workspaces::save_card(&mut work.tx, id, &card, work.now).await;
        saved.map_err(Error::internal("failed to update card"))?;
        work.emit("AGENT_CARD_UPDATED", id, json!({"agent_card": request.agent_card}));
    }
    work.commit().await.map_err(Error::internal("failed to update card"))?;
    Ok(Json(Done { status: "updated".to_owned() }))
}

/// Take a new credential beside the one in use, for the serial that a heartbeat's answer named. Answered anew
/// until one of them is used.
#[utoipa::path(post, path = "/registry/rotate", tag = "registry", request_body = Rotate, responses(
    (status = 200, body = Rotated), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn rotate(
    State(app): State<App>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Rotated>> {
    let request: Rotate = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &request.workspace_id)?;
    let bearer = access::presented(&headers);
    let knock = Knock { call: Call::Rotate, workspace: id, bearer, key: None };
    let entered = enter(&app, &knock, "rotation failed").await?;
    let (mut work, admitted) = entered.expect("a rotation is never let through");
    let token = credentials::rotate(&app, &mut work, &admitted, request.serial).await?;
    work.commit().await?;
    Ok(Json(Rotated {
        status: "rotated".to_owned(),
        auth_token: token.reveal().to_owned(),
        serial: admitted.serials.wanted,
        generation: admitted.generation.number(),
    }))
}

fn workspace_id(field: &str, text: &str) -> Result<WorkspaceId> {
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
        None if !admitted.before.managed() && request.url.is_none() => "poll",
        None => "push",
    }
}

/// Where the agent answers. What a backend reported is trusted and kept; anything else is judged.
async fn effective_url(
    app: &App,
    work: &mut Work<'_>,
    request: &Register,
    admitted: &Admitted,
    mode: &str,
) -> Result<Option<String>> {
    let card = request.agent_card.get("url").and_then(Value::as_str);
    let said = request.url.as_deref().or(card).map(str::trim).filter(|url| !url.is_empty());
    let Some(url) = said else {
        if mode == "push" {
            return Err(Error::bad_request("url is required for push-mode workspaces"));
        }
        return Ok(None);
    };
    if mode == "poll" && url.starts_with("remote://") {
        return Ok(None);
    }
    let of = (admitted.before.id, admitted.generation);
    let instance = workspaces::instance_of(&mut work.tx, of.0, of.1).await?;
    // An agent may be quicker than its backend's word of the start, which brings the address that counts.
    // Until then this one is judged at every dispatch.
    let unconfirmed =
        |instance: &Instance| instance.backend.is_some() && instance.started_at.is_none();
    match instance.filter(|instance| instance.url_reported || unconfirmed(instance)) {
        Some(_) => Ok(Some(url.to_owned())),
        None => match check_url(app, url).await {
            Ok(()) => Ok(Some(url.to_owned())),
            Err(why) => Err(Error::invalid(why.clone(), format!("url: {why}"))),
        },
    }
}

/// Judge an address that an agent gave. `localhost` may be registered; whether it may be called is decided
/// at each call.
async fn check_url(app: &App, text: &str) -> std::result::Result<(), String> {
    let url = reqwest::Url::parse(text).map_err(|cause| format!("not a URL: {cause}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("scheme must be http or https".to_owned());
    }
    let setting = workspaces::address_setting(app);
    let host = url.host_str().ok_or("a host is required")?;
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => address::judge(ip, setting).map_err(|why| why.to_string()),
        Err(_) => Ok(()),
    }
}

fn vitals(beat: &Heartbeat, admitted: &Admitted) -> Vitals {
    let said = beat.runtime_metadata.as_ref().and_then(|m| m.capabilities.as_ref());
    let native_status = match said {
        Some(capabilities) => capabilities.get("status_mgmt").copied().unwrap_or(false),
        None => {
            let stored: Value =
                serde_json::from_str(&admitted.before.agent.capabilities).unwrap_or_default();
            stored["status_mgmt"].as_bool().unwrap_or(false)
        }
    };
    Vitals {
        error_rate: beat.error_rate,
        wedged: beat.runtime_state == "wedged",
        state_empty: beat.runtime_state.is_empty(),
        native_status,
    }
}

fn report(beat: &Heartbeat) -> Beat<'_> {
    let metadata = beat.runtime_metadata.as_ref();
    let capabilities =
        metadata.map(|m| json!(m.capabilities.clone().unwrap_or_default()).to_string());
    let spend = beat.monthly_spend.clamp(0, MAX_SPEND);
    Beat {
        error_rate: beat.error_rate,
        sample_error: &beat.sample_error,
        active_tasks: beat.active_tasks,
        uptime_seconds: beat.uptime_seconds,
        current_task: &beat.current_task,
        monthly_spend: (spend > 0).then_some(spend),
        capabilities,
        idle_timeout_seconds: metadata
            .and_then(|m| m.idle_timeout_seconds)
            .filter(|seconds| *seconds > 0),
        card: beat.agent_card.as_ref().filter(|card| !card.is_null()).map(Value::to_string),
    }
}

/// Events of a heartbeat that are not kept.
fn announce(
    app: &App,
    beat: &Heartbeat,
    admitted: &Admitted,
    observed: &Observed,
    now: ligand_domain::time::Timestamp,
) {
    let id = admitted.before.id;
    if observed.inert {
        return;
    }
    if admitted.before.agent.current_task != beat.current_task {
        let payload = json!({"current_task": beat.current_task, "active_tasks": beat.active_tasks});
        app.hub.broadcast("TASK_UPDATED", id, now, payload);
    }
    let payload = json!({"active_tasks": beat.active_tasks, "uptime_seconds": beat.uptime_seconds});
    app.hub.broadcast("WORKSPACE_HEARTBEAT", id, now, payload);
    if observed.woke {
        app.bells.ring();
    }
}
