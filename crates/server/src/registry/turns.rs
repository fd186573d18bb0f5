//! An agent tells how far its turns have come.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use ligand_api::error::ErrorBody;
use ligand_api::message::{Turns, TurnsTaken};
use ligand_domain::credential::Kind;

use super::http::{BAD_BODY, workspace_id};
use crate::access;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};
use crate::http::limit::Proof;
use crate::journal::Work;
use crate::messages::{self, Told};

/// Most of one call.
const MOST: usize = 100;

/// Tell how far turns have come before they are answered: taken only for the attempts of this agent's generation
/// that still count.
#[utoipa::path(post, path = "/registry/turns", tag = "registry", request_body = Turns, responses(
    (status = 200, body = TurnsTaken), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn turns(
    State(app): State<App>,
    proof: Proof,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Result<Json<TurnsTaken>> {
    let Some(bearer) = access::presented(&headers) else {
        return Err(Error::unauthenticated("missing workspace auth token"));
    };
    let invalid = || Error::unauthenticated("invalid workspace auth token");
    let held = access::validate(&app, bearer).await?.filter(|held| held.kind == Kind::Instance);
    let held = held.ok_or_else(invalid)?;
    let said: Turns = parse(&body, BAD_BODY)?;
    let id = workspace_id("workspace_id", &said.workspace_id)?;
    let generation = held.generation.filter(|_| held.workspace == id).ok_or_else(invalid)?;
    proof.of(id);
    if said.turns.len() > MOST {
        return Err(Error::invalid(BAD_BODY, format!("turns: expected at most {MOST}")));
    }
    let mut all = Vec::with_capacity(said.turns.len());
    for (at, turn) in said.turns.into_iter().enumerate() {
        let told = Told::read(turn, generation);
        all.push(told.map_err(|why| Error::invalid(BAD_BODY, format!("turns[{at}].{why}")))?);
    }
    let mut work = Work::begin(&app).await?;
    let taken = messages::told(&app, &mut work, id, &all).await?;
    work.commit().await?;
    messages::tell_waiting(&app, id, &all);
    Ok(Json(TurnsTaken { status: "ok".to_owned(), taken }))
}
