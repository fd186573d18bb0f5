//! The gates: each extractor is one. A handler that names none of them is public, and a test compares those
//! with the list in `routes.rs`.
//!
//! Strict is the rule. What only `--auth compat` lets pass is asked in one place each, and nowhere else:
//! [`open_door`] for callers without a credential, [`of_old`] for the contract's older rules about
//! administrators.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ligand_domain::credential::{TokenHash, bearer};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use subtle::ConstantTimeEq as _;

use super::{Held, Session, live_anywhere, live_of, session, store, validate};
use crate::app::App;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::http::edge::from_own_canvas;
use crate::http::limit::Proof;
use crate::http::{edge, path};
use crate::org_tokens::{self, OrgToken};

/// The bearer of a request.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    // Some clients send two such headers: the first counts.
    bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// Whether a text is the administrator's token. Where there is none, nothing is.
pub(crate) fn is_admin(app: &App, text: &str) -> bool {
    let token = app.config.admin_token.reveal();
    // Hashed first: not even its length shows.
    let same = TokenHash::of(token).bytes().ct_eq(TokenHash::of(text).bytes());
    !token.is_empty() && bool::from(same)
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The administrator's own token.
    Admin,
    /// A token of the organisation.
    Org(OrgToken),
    /// A person, by a session of the control plane.
    Session,
    /// The workspace itself, or a caller that holds its api credential.
    Itself,
    /// Nobody knows: one of the contract's open doors. Only in compat.
    Anybody,
}

/// An administrator, and by what.
pub struct Admin(pub By);

impl FromRequestParts<App> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        if app.config.compat()
            && let Some(by) = of_old(app).await?
        {
            return Ok(Self(by));
        }
        let text = presented(&parts.headers);
        if text.is_some_and(|text| is_admin(app, text)) {
            return Ok(Self(By::Admin));
        }
        if session(app, &parts.headers).await == Session::Member {
            return Ok(Self(By::Session));
        }
        let Some(text) = text else {
            return Err(Error::unauthenticated("admin auth required"));
        };
        if let Some(token) = org_tokens::validate(app, text).await? {
            return Ok(Self(By::Org(token)));
        }
        // The contract's rule for a platform without an administrator: any workspace is one.
        if app.config.compat()
            && app.config.admin_token.reveal().is_empty()
            && let Some(held) = validate(app, text).await?
        {
            Proof::carried(parts).of(held.workspace);
            return Ok(Self(By::Itself));
        }
        Err(Error::unauthenticated("invalid admin auth token"))
    }
}

/// Compat: a fresh install is open, and so is a platform in development. Asks the database first, as the
/// contract does: when it does not answer, nobody passes.
async fn of_old(app: &App) -> Result<Option<By>> {
    let live = live_anywhere(app).await?;
    let fresh = live == 0 && app.config.admin_token.reveal().is_empty();
    Ok((fresh || app.config.fails_open()).then_some(By::Anybody))
}

/// Compat: whether a caller of a workspace's routes passes without anything.
fn open_door(app: &App, headers: &HeaderMap) -> bool {
    from_own_canvas(app, headers) || app.config.fails_open()
}

/// Somebody who may act on the workspace in the path.
pub struct OfWorkspace {
    /// Which.
    pub workspace: WorkspaceId,
    /// Who.
    pub by: By,
    /// The workspace's credential that was presented, if it was one.
    pub held: Option<Held>,
}

impl FromRequestParts<App> for OfWorkspace {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let id = path::raw(parts, app).await;
        if id.is_empty() {
            return Err(Error::unauthenticated("missing workspace ID"));
        }
        let parsed = id.parse::<WorkspaceId>();
        let (by, held) = who(parts, app, parsed.as_ref().ok().copied()).await?;
        let workspace = parsed.map_err(|_| path::malformed())?;
        Ok(Self { workspace, by, held })
    }
}

async fn who(
    parts: &Parts,
    app: &App,
    workspace: Option<WorkspaceId>,
) -> Result<(By, Option<Held>)> {
    let Some(text) = presented(&parts.headers) else {
        // Without a cookie nobody is asked, the database least of all.
        return match session(app, &parts.headers).await {
            Session::Member => Ok((By::Session, None)),
            _ if open_door(app, &parts.headers) => Ok((By::Anybody, None)),
            _ => Err(Error::unauthenticated("missing workspace auth token")),
        };
    };
    if is_admin(app, text) {
        return Ok((By::Admin, None));
    }
    // A text is one or the other: the one that comes by the minute is looked for first.
    let held = validate(app, text).await?;
    if let Some(held) = held.filter(|held| Some(held.workspace) == workspace) {
        Proof::carried(parts).of(held.workspace);
        return Ok((By::Itself, Some(held)));
    }
    match org_tokens::validate(app, text).await? {
        Some(token) => Ok((By::Org(token), None)),
        None => Err(Error::unauthenticated("invalid workspace auth token")),
    }
}

/// Somebody who may ask for the state of the workspace in the path. In compat also nobody in particular, as long
/// as the workspace has no live credential.
pub struct Watcher(pub WorkspaceId);

impl FromRequestParts<App> for Watcher {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let caller = OfWorkspace::from_request_parts(parts, app).await?;
        if caller.by == By::Anybody {
            let live = live_of(app, caller.workspace).await;
            if live.map_err(Error::internal("auth check failed"))? > 0 {
                return Err(Error::unauthenticated("missing workspace auth token"));
            }
        }
        Ok(Self(caller.workspace))
    }
}

/// Somebody who may be told the secrets of the workspace in the path: whoever may act on it; and the candidate of its
/// migration, who may do nothing else.
pub enum Recipient {
    /// Somebody who may act on it.
    Of(OfWorkspace),
    /// The candidate.
    Candidate(Candidate),
}

/// The candidate of a migration, by its credential.
pub struct Candidate {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Which generation it is to become.
    pub generation: Generation,
    hash: TokenHash,
}

impl Candidate {
    /// Whether it still is. Under the lock of its workspace that stays so.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stands(
        &self,
        tx: &mut Tx,
        now: Timestamp,
    ) -> std::result::Result<bool, sqlx::Error> {
        let found = store::candidate(tx, self.workspace, &self.hash, now).await?;
        Ok(found == Some(self.generation))
    }
}

impl FromRequestParts<App> for Recipient {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let refused = match OfWorkspace::from_request_parts(parts, app).await {
            Ok(caller) => return Ok(Self::Of(caller)),
            Err(refused) => refused,
        };
        let hash = presented(&parts.headers).map(TokenHash::of);
        let workspace = path::raw(parts, app).await.parse::<WorkspaceId>();
        let (Error::Refused(..), Some(hash), Ok(workspace)) = (&refused, hash, workspace) else {
            return Err(refused);
        };
        let now = app.clock.now();
        let found = store::candidate(&mut app.db.read().await?, workspace, &hash, now).await?;
        let generation = found.ok_or(refused)?;
        Proof::carried(parts).of(workspace);
        Ok(Self::Candidate(Candidate { workspace, generation, hash }))
    }
}

/// Whoever calls an open route, and whether they proved to be somebody.
pub struct Anyone {
    /// Whether they may see what a holder of a credential may see of the workspace in the path.
    pub proven: bool,
}

impl FromRequestParts<App> for Anyone {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let caller = OfWorkspace::from_request_parts(parts, app).await;
        Ok(Self { proven: caller.is_ok_and(|caller| caller.by != By::Anybody) })
    }
}

/// Who may move the canvas: an administrator, or any workspace. In compat also the pages that the contract
/// trusts by where they come from, and everybody while the database does not answer.
pub struct Canvas;

impl FromRequestParts<App> for Canvas {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let compat = app.config.compat();
        if compat && live_anywhere(app).await.unwrap_or(0) == 0 {
            return Ok(Self);
        }
        let Some(text) = presented(&parts.headers) else {
            let listed = || edge::whence(&parts.headers).listed(&app.config.edge.cors_origins);
            let page = compat && (listed() || from_own_canvas(app, &parts.headers));
            if page || session(app, &parts.headers).await == Session::Member {
                return Ok(Self);
            }
            return Err(Error::unauthenticated("admin auth required"));
        };
        if is_admin(app, text) {
            return Ok(Self);
        }
        if let Some(held) = validate(app, text).await? {
            Proof::carried(parts).of(held.workspace);
            return Ok(Self);
        }
        if !compat && org_tokens::validate(app, text).await?.is_some() {
            return Ok(Self);
        }
        Err(Error::unauthenticated("invalid admin auth token"))
    }
}
