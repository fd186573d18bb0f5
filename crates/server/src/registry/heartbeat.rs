//! A heartbeat: recorded with many others where it changes nothing, else decided on by itself.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use ligand_api::error::ErrorBody;
use ligand_api::registry::{Beaten, Heartbeat, ProgramState, ProgramWish};
use ligand_domain::admission::Call;
use ligand_domain::credential::TokenHash;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{DEGRADE_AT, Vitals, failed_lately};
use serde_json::{Value, json};

use super::beats::Outcome;
use super::http::{BAD_BODY, workspace_id};
use super::receipt::Shown;
use super::{Admitted, Knock, Whence, enter, status};
use crate::access;
use crate::app::App;
use crate::credentials;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::http::limit::Proof;
use crate::journal::Work;
use crate::workspaces::Beat;
use crate::{messages, programs};

/// What a runtime says of itself when it hangs.
const WEDGED: &str = "wedged";
/// The contract's word for a heartbeat that could not be written down.
const FAILED: &str = "failed to update";
/// Most that a heartbeat may report as spent, in cents.
const MAX_SPEND: i64 = 1_000_000_000_000;

/// Say that the agent is alive, and how it is.
#[utoipa::path(post, path = "/registry/heartbeat", tag = "registry", request_body = Heartbeat, responses(
    (status = 200, body = Beaten), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn heartbeat(
    State(app): State<App>,
    proof: Proof,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<Beaten>> {
    let mut said: Heartbeat = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &said.workspace_id)?;
    let bearer = access::presented(&headers);
    let failed_to_rotate =
        said.ligand.as_mut().and_then(|report| report.rotation_error.take()).map(text);
    let receipt = said.ligand.as_mut().and_then(|report| report.receipt.take());
    let program = said.ligand.as_mut().and_then(|report| report.program.take());
    let own = Own { rotation_error: failed_to_rotate, receipt, program };
    let (vitals, beat) = (vitals(&said), report(said));
    let plain = calm(vitals) && own == Own::default();
    if let Some(bearer) = bearer.filter(|_| plain) {
        let outcome = app.beats.beat(&app, id, TokenHash::of(bearer), &beat).await;
        if let Outcome::Recorded { next_heartbeat, task_changed } = outcome {
            proof.of(id);
            app.metrics.heartbeats.with_label_values(&["together"]).inc();
            messages::spare(&app, id, beat.active_tasks).await;
            announce(&app, id, &beat, task_changed, app.clock.now());
            return Ok(answer(next_heartbeat.as_secs(), None));
        }
    }
    let whence = Whence::default();
    let knock = Knock { call: Call::Heartbeat, workspace: id, bearer, key: None, whence };
    decide(&app, &knock, &proof, vitals, &beat, &own).await
}

/// What a Ligand agent has to say about its own work.
#[derive(Default, PartialEq)]
struct Own {
    rotation_error: Option<String>,
    receipt: Option<BTreeMap<String, String>>,
    program: Option<ProgramState>,
}

/// Nothing in it can move the status of a workspace that is online.
fn calm(vitals: Vitals) -> bool {
    !vitals.wedged && vitals.error_rate < DEGRADE_AT
}

/// Decide on one heartbeat, and carry out what follows from it.
async fn decide(
    app: &App,
    knock: &Knock<'_>,
    proof: &Proof,
    vitals: Vitals,
    beat: &Beat,
    own: &Own,
) -> Result<Json<Beaten>> {
    let id = knock.workspace;
    app.beats.forget(id);
    let Some((mut work, admitted)) = enter(app, knock, FAILED).await? else {
        return Ok(Json(Beaten { status: "ok".to_owned(), ..Beaten::default() }));
    };
    admitted.proves(proof);
    let failed_at = admitted.before.agent.register_failed_at;
    let vitals = Vitals {
        native_status: native_status(beat, &admitted),
        register_failed: beat.card.is_none() && failed_lately(failed_at, work.now),
        ..vitals
    };
    let shown = Shown::new(knock.bearer, own.receipt.as_ref(), own.program.as_ref());
    let observed = status::heartbeat(app, &mut work, &admitted, (vitals, shown), beat)
        .await
        .map_err(Error::internal(FAILED))?;
    if let Some(why) = &own.rotation_error {
        credentials::note_failure(&mut work, &admitted, why).await?;
    }
    let program =
        wish(&mut work, &admitted, own.program.as_ref()).await.map_err(Error::internal(FAILED))?;
    let now = work.now;
    work.commit().await.map_err(Error::internal(FAILED))?;
    app.metrics.heartbeats.with_label_values(&["alone"]).inc();
    if !observed.inert {
        app.beats.written(id, beat, now);
        let task_changed = admitted.before.agent.current_task != beat.current_task;
        messages::spare(app, id, beat.active_tasks).await;
        announce(app, id, beat, task_changed, now);
        if observed.woke {
            app.bells.ring();
        }
    }
    let Json(answer) = answer(observed.next_heartbeat.as_secs(), admitted.rotate(&observed));
    let receipt = observed.wants_receipt.then_some(true);
    if own.program.is_some() || admitted.is_candidate() {
        // A migration may have waited for it.
        app.bells.ring();
    }
    Ok(Json(Beaten { receipt, program, ..answer }))
}

/// What the program of whoever calls is to do. Asked only where there may be an answer: nothing is wanted of a program
/// but during a migration, and an agent whose program does not run as usual says so.
async fn wish(
    work: &mut Work<'_>,
    admitted: &Admitted,
    said: Option<&ProgramState>,
) -> std::result::Result<Option<ProgramWish>, sqlx::Error> {
    if said.is_none() && admitted.before.identity.candidate.is_none() {
        return Ok(None);
    }
    let of = (admitted.before.id, admitted.generation);
    programs::heard(work, of, admitted.is_candidate(), said).await
}

fn answer(next_heartbeat_seconds: u64, rotate: Option<i64>) -> Json<Beaten> {
    let next_heartbeat_seconds = Some(next_heartbeat_seconds);
    let status = "ok".to_owned();
    Json(Beaten { status, next_heartbeat_seconds, rotate, ..Beaten::default() })
}

fn vitals(said: &Heartbeat) -> Vitals {
    Vitals {
        error_rate: said.error_rate,
        wedged: said.runtime_state == WEDGED,
        state_empty: said.runtime_state.is_empty(),
        native_status: false,
        register_failed: false,
    }
}

/// Whether the runtime judges its own status: as it says now, else as it said last.
fn native_status(beat: &Beat, admitted: &Admitted) -> bool {
    let capabilities = beat.capabilities.as_ref().unwrap_or(&admitted.before.agent.capabilities);
    let capabilities: Value = serde_json::from_str(capabilities).unwrap_or_default();
    capabilities["status_mgmt"].as_bool().unwrap_or(false)
}

/// PostgreSQL has no text with a zero in it. An agent that sends one is well all the same.
fn text(said: String) -> String {
    if said.contains('\0') { said.replace('\0', "") } else { said }
}

fn report(said: Heartbeat) -> Beat {
    let metadata = said.runtime_metadata;
    let idle_timeout_seconds =
        metadata.as_ref().and_then(|m| m.idle_timeout_seconds).filter(|seconds| *seconds > 0);
    let capabilities = metadata.map(|m| json!(m.capabilities.unwrap_or_default()).to_string());
    let spend = said.monthly_spend.clamp(0, MAX_SPEND);
    Beat {
        error_rate: said.error_rate,
        sample_error: text(said.sample_error),
        active_tasks: said.active_tasks,
        uptime_seconds: said.uptime_seconds,
        current_task: text(said.current_task),
        monthly_spend: (spend > 0).then_some(spend),
        capabilities,
        idle_timeout_seconds,
        card: said.agent_card.filter(|card| !card.is_null()).map(|card| card.to_string()),
    }
}

/// Events of a heartbeat that are not kept.
fn announce(app: &App, id: WorkspaceId, beat: &Beat, task_changed: bool, now: Timestamp) {
    if !app.hub.is_watched() {
        return;
    }
    if task_changed {
        let payload = json!({"current_task": beat.current_task, "active_tasks": beat.active_tasks});
        app.hub.broadcast("TASK_UPDATED", id, now, payload);
    }
    if !app.hub.is_watched_here() {
        return;
    }
    let payload = json!({"active_tasks": beat.active_tasks, "uptime_seconds": beat.uptime_seconds});
    app.hub.broadcast("WORKSPACE_HEARTBEAT", id, now, payload);
}
