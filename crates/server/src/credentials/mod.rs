//! What people and age do to the credentials of running agents: revoke them, rotate them, give an external
//! agent new ones. How a credential is used is decided at admission (`registry`).

pub mod http;
mod reconcile;
mod store;

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_domain::admission::OPENED_FOR;
use ligand_domain::credential::Token;
use ligand_domain::guards::Guard;
use ligand_domain::id::WorkspaceId;
use ligand_domain::rotation::{self, Decision};
use ligand_domain::workspace::{Intent, Status};
use serde_json::json;

pub use self::reconcile::RotationReconciler;
use crate::access::{self, For};
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};
use crate::migrations;
use crate::registry::{self, Admitted};
use crate::workspaces;

/// Why a migration's candidate is abandoned.
const REVOKED: &str = "abandoned: its credentials were revoked";
/// Longest reason of an agent that is kept, in characters.
const MOST_SAID: usize = 500;
/// Values of one rotation that nobody used and that count at once: so many answers may be on their way.
const MOST_UNUSED: i64 = 8;

fn conflict(error: &str, detail: String) -> Error {
    Error::Refused(StatusCode::CONFLICT, Box::new(ErrorBody::new(error).detail(detail)))
}

/// Mint another credential beside the one that the caller uses, if that is the rotation that is wanted.
///
/// # Errors
/// 401 for anything but the credential in use; 409 for a serial that is not the newest, or done; 503.
pub(crate) async fn rotate(
    app: &App,
    work: &mut Work<'_>,
    admitted: &Admitted,
    asked: i64,
) -> Result<Token> {
    let Some(held) = admitted.held else {
        return Err(Error::unauthenticated("invalid workspace auth token"));
    };
    let (current, serials) = (admitted.current, admitted.serials);
    let facts = rotation::Facts { held, current, serials, asked };
    let generation = match rotation::decide(&facts, app.config.guards) {
        Decision::Mints(generation) => generation,
        Decision::NotInUse => {
            let detail = "send a heartbeat with the credential of the current generation first";
            return Err(conflict("the credential is not in use", detail.to_owned()));
        }
        Decision::Outdated { newest } => {
            let detail = format!("serial: expected {newest}, the newest, not {asked}");
            return Err(conflict("a newer rotation was asked for", detail));
        }
        Decision::Done => {
            let detail = format!("serial: a credential of rotation {asked} is in use");
            return Err(conflict("this rotation is done", detail));
        }
        Decision::Unknown => {
            let detail = format!("serial: nobody asked for rotation {asked}");
            return Err(conflict("no such rotation", detail));
        }
    };
    let id = admitted.before.id;
    let token = access::mint(app, work, id, For::Rotation(generation)).await?;
    let of = (id, generation, asked);
    access::keep_newest(&mut work.tx, of, &token.hash(), MOST_UNUSED, work.now).await?;
    let summary = format!("a credential of rotation {asked} was given out");
    let evidence = json!({"serial": asked, "beside": held.id.to_string()});
    work.note_once(id, Some(generation), Kind::Rotated, summary, evidence).await?;
    Ok(token)
}

/// Record why an agent could not take its new credential. The old one stays in use.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn note_failure(
    work: &mut Work<'_>,
    admitted: &Admitted,
    why: &str,
) -> std::result::Result<(), sqlx::Error> {
    let said: String = why.chars().take(MOST_SAID).collect();
    let summary = format!("the agent could not take its new credential: {said}");
    let evidence = json!({"serial": admitted.serials.due()});
    let (id, generation) = (admitted.before.id, Some(admitted.generation));
    work.note_once(id, generation, Kind::RotationFailed, summary, evidence).await
}

/// End every live credential and open passport of a workspace, and open it for one registration. A workspace
/// that is not there, or removed, has none: that is success too.
async fn revoke(app: &App, id: WorkspaceId) -> std::result::Result<(), sqlx::Error> {
    let mut work = Work::begin(app).await?;
    let Some(workspace) = workspaces::lock(&mut work.tx, id).await? else { return Ok(()) };
    let now = work.now;
    let ended = access::revoke_all(&mut work.tx, id, now).await?;
    if workspace.intent != Intent::Removed {
        // A migration's target would come in by the door that is opened here for somebody else.
        if let Some(candidate) = workspace.identity.candidate
            && app.config.guards.hold(Guard::CutOverRereads)
        {
            registry::abandon(&mut work, (id, candidate), REVOKED).await?;
        }
        migrations::wake(&mut work.tx, id, now).await?;
        let until = now.after(OPENED_FOR);
        workspaces::revoked(&mut work.tx, id, now, until).await?;
        let summary =
            format!("every credential was revoked; one registration may come until {until}");
        let evidence = json!({"ended": ended, "candidate": workspace.identity.candidate});
        work.note(id, Some(workspace.current), Kind::Revoked, summary, evidence);
        workspaces::wake(&mut work.tx, id, now).await?;
    }
    work.commit().await?;
    app.bells.ring();
    Ok(())
}

/// Ask the agent of a workspace to rotate. Gives the serial.
async fn request(app: &App, id: WorkspaceId) -> Result<i64> {
    let mut work = Work::begin(app).await?;
    let workspace = workspaces::lock(&mut work.tx, id).await?;
    let workspace = workspace.filter(|workspace| workspace.intent != Intent::Removed);
    let workspace = workspace.ok_or_else(|| Error::not_found("workspace not found"))?;
    let instance = workspaces::instance_of(&mut work.tx, id, workspace.current).await?;
    let instance = instance.filter(|instance| instance.ended_at.is_none());
    if !instance.is_some_and(|instance| instance.features.rotate) {
        let cure = match workspace.managed() {
            true => "restart it: that brings a new credential too",
            false => "POST /workspaces/{id}/external/rotate gives it a new one by hand",
        };
        let error = "the agent cannot rotate its credential";
        return Err(conflict(error, format!("it did not declare the feature `rotate`; {cure}")));
    }
    let serial = workspaces::count_rotation(&mut work.tx, id).await?;
    let summary = format!("rotation {serial} of its credential was asked for");
    let evidence = json!({"serial": serial, "by": "administrator"});
    work.note(id, Some(workspace.current), Kind::Rotated, summary, evidence);
    work.commit().await?;
    Ok(serial)
}

/// Replace the credential of an external workspace by one that its operator delivers.
async fn replace(app: &App, id: WorkspaceId) -> Result<Token> {
    let mut work = Work::begin(app).await?;
    let workspace = workspaces::lock(&mut work.tx, id).await?;
    let workspace = workspace.filter(|workspace| workspace.intent != Intent::Removed);
    let workspace = workspace.ok_or_else(|| Error::not_found("workspace not found"))?;
    if workspace.managed() {
        let detail = "a backend runs this workspace: restart it, or rotate its credential";
        return Err(Error::invalid("workspace is not external", detail));
    }
    let now = work.now;
    access::revoke_instances(&mut work.tx, id, now).await?;
    let first = workspace.current == workspace.newest && workspace.newest.number() == 0;
    let token = if first {
        registry::enrol_external(app, &mut work, id).await?
    } else {
        access::mint(app, &mut work, id, For::Start(workspace.current)).await?
    };
    if workspace.intent == Intent::Running {
        let evidence = "its credential was replaced; its operator has the new one";
        workspaces::set_status(&mut work.tx, id, Status::AwaitingAgent, evidence, now).await?;
        let payload = json!({"name": workspace.name, "external": true});
        work.emit("WORKSPACE_AWAITING_AGENT", id, payload);
    }
    let summary = "its credential was replaced, the old ones are revoked";
    work.note(id, Some(workspace.current), Kind::Revoked, summary, json!({"external": true}));
    work.commit().await?;
    app.bells.ring();
    Ok(token)
}
