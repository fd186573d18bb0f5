//! Who watches over a connection that carries no other headers than those it began with, and in a browser not
//! even those.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ligand_domain::credential::TokenHash;
use ligand_domain::id::WorkspaceId;

use super::{Asked, Grant, Session, is_admin, live_of, presented, session, validate};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::edge::whence;
use crate::http::limit::Proof;
use crate::org_tokens;

/// What stands before a token in the name of a protocol: a page in a browser can name protocols, and no headers.
const CARRIES: &str = "ligand.bearer.";

/// Somebody who watches what happens.
pub(crate) struct Viewer {
    /// The workspace as which they do; `None`: a canvas, which sees everything.
    pub(crate) workspace: Option<WorkspaceId>,
    /// By what they were let in.
    pub(crate) grant: Grant,
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let claimed = parts.headers.get("x-workspace-id").and_then(|value| value.to_str().ok());
        let claimed = claimed.map(str::trim).filter(|text| !text.is_empty());
        let (viewer, by_page) = match of_old(app, claimed).await? {
            Some(viewer) => (viewer, true),
            None => who(parts, app, claimed).await?,
        };
        origin_allowed(app, &parts.headers, by_page)?;
        Ok(viewer)
    }
}

/// Compat: who names nobody is a canvas, and a workspace that nobody enrolled yet is believed. While the database
/// does not answer nobody is.
async fn of_old(app: &App, claimed: Option<&str>) -> Result<Option<Viewer>> {
    if !app.config.compat() {
        return Ok(None);
    }
    let Some(claimed) = claimed else {
        return Ok(Some(Viewer { workspace: None, grant: Grant::Always }));
    };
    let Ok(id) = claimed.parse::<WorkspaceId>() else { return Ok(None) };
    let live = live_of(app, id).await.map_err(Error::internal("auth check failed"))?;
    Ok((live == 0).then_some(Viewer { workspace: Some(id), grant: Grant::Always }))
}

/// Who it is, and whether it may be a page that knows no secret, but whose browser sends one along.
async fn who(parts: &Parts, app: &App, claimed: Option<&str>) -> Result<(Viewer, bool)> {
    let (missing, invalid) = match claimed {
        Some(_) => ("missing workspace auth token", "invalid workspace auth token"),
        None => ("admin auth required", "invalid admin auth token"),
    };
    let refused = || Error::unauthenticated(invalid);
    let claimed = claimed.map(|text| text.parse::<WorkspaceId>().map_err(|_| refused()));
    let carried = carried(&parts.headers);
    let Some(text) = presented(&parts.headers).or(carried.as_deref()) else {
        return match session(app, &parts.headers).await {
            Session::Member => {
                let grant = Grant::session(&parts.headers);
                Ok((Viewer { workspace: claimed.transpose()?, grant }, true))
            }
            Session::Absent | Session::Refused => Err(Error::unauthenticated(missing)),
        };
    };
    let claimed = claimed.transpose()?;
    if is_admin(app, text) {
        return Ok((Viewer { workspace: claimed, grant: Grant::Always }, false));
    }
    let hash = TokenHash::of(text);
    if let Some(held) = validate(app, text).await? {
        Proof::carried(parts).of(held.workspace);
        if claimed.is_some_and(|id| id != held.workspace) {
            return Err(Error::unauthenticated("invalid workspace auth token"));
        }
        let grant = Grant::Asked(Asked::Credential(hash));
        return Ok((Viewer { workspace: Some(held.workspace), grant }, false));
    }
    match org_tokens::validate(app, text).await? {
        Some(_) => {
            let grant = Grant::Asked(Asked::OrgToken(hash));
            Ok((Viewer { workspace: claimed, grant }, false))
        }
        None => Err(refused()),
    }
}

/// The token that the name of a protocol carries, in base64url.
fn carried(headers: &HeaderMap) -> Option<String> {
    let named = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut named =
        named.filter_map(|value| value.to_str().ok()).flat_map(|names| names.split(','));
    let token = named.find_map(|name| name.trim().strip_prefix(CARRIES))?;
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Pages of other sites: those on the list, where there is one; without a secret of their own those of this
/// address and of the canvas on this machine alone. Programs name no page.
fn origin_allowed(app: &App, headers: &HeaderMap, by_page: bool) -> Result<()> {
    let (from, listed) = (whence(headers), &app.config.edge.cors_origins);
    let asked = from.origin.is_some() && (by_page || !listed.is_empty());
    if asked && !from.same_origin() && !from.listed(listed) {
        return Err(Error::refused(StatusCode::FORBIDDEN, "origin not allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_carried_by_the_name_of_a_protocol() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, text.parse().unwrap());
            carried(&headers)
        };
        let name = format!("{CARRIES}{}", URL_SAFE_NO_PAD.encode("a token: ü"));
        assert_eq!(of(&format!("ligand, {name}")).as_deref(), Some("a token: ü"));
        assert_eq!(of(&name).as_deref(), Some("a token: ü"));
        for none in ["ligand", "ligand.bearer.", "ligand.bearer.?", "ligand.bearer._w"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
