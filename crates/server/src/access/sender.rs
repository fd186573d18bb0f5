//! Who sends a message.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use ligand_domain::id::WorkspaceId;

use super::{Session, is_admin, live_of, presented, session, validate};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::limit::Proof;
use crate::http::path;
use crate::org_tokens;

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A user: by the administrator's token, the organisation's, or a session. In compat also nobody in
    /// particular.
    User,
    /// A workspace.
    Workspace(WorkspaceId),
}

/// Names that the platform uses for itself; nobody may claim them over HTTP.
const RESERVED: [&str; 4] = ["webhook:", "system:", "test:", "channel:"];

fn missing() -> Error {
    Error::unauthenticated("missing caller auth token")
}

fn invalid() -> Error {
    Error::unauthenticated("invalid caller auth token")
}

impl FromRequestParts<App> for Sender {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let claimed = parts.headers.get("x-workspace-id").and_then(|value| value.to_str().ok());
        let claimed = claimed.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        if claimed.as_ref().is_some_and(|text| RESERVED.iter().any(|name| text.starts_with(name))) {
            return Err(Error::refused(StatusCode::FORBIDDEN, "invalid caller ID"));
        }
        if app.config.compat()
            && let Some(sender) = of_old(parts, app, claimed.as_deref()).await?
        {
            return Ok(sender);
        }
        let claimed = claimed.map(|text| text.parse::<WorkspaceId>().map_err(|_| invalid()));
        let for_user = |claimed: Option<WorkspaceId>| claimed.map_or(Self::User, Self::Workspace);
        let Some(text) = presented(&parts.headers) else {
            return match session(app, &parts.headers).await {
                Session::Member => Ok(for_user(claimed.transpose()?)),
                Session::Absent | Session::Refused => Err(missing()),
            };
        };
        let claimed = claimed.transpose()?;
        if is_admin(app, text) {
            return Ok(for_user(claimed));
        }
        if let Some(held) = validate(app, text).await? {
            Proof::carried(parts).of(held.workspace);
            return match claimed {
                Some(id) if id != held.workspace => Err(invalid()),
                _ => Ok(Self::Workspace(held.workspace)),
            };
        }
        match org_tokens::validate(app, text).await? {
            Some(_) => Ok(for_user(claimed)),
            None => Err(invalid()),
        }
    }
}

/// Compat: who names nobody is a user; a target that names itself, and a workspace that nobody enrolled yet,
/// are believed; so is everybody whose credentials cannot be looked up.
async fn of_old(parts: &mut Parts, app: &App, claimed: Option<&str>) -> Result<Option<Sender>> {
    let Some(claimed) = claimed else {
        if let Some(text) = presented(&parts.headers)
            && let Ok(Some(held)) = validate(app, text).await
        {
            Proof::carried(parts).of(held.workspace);
        }
        return Ok(Some(Sender::User));
    };
    let Ok(id) = claimed.parse::<WorkspaceId>() else { return Ok(None) };
    let target = path::raw(parts, app).await.parse::<WorkspaceId>();
    let believed = target.is_ok_and(|target| target == id)
        || live_of(app, id).await.map_or(true, |live| live == 0);
    Ok(believed.then_some(Sender::Workspace(id)))
}
