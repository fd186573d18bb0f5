//! Tokens of the organisation: they open what administrators do, each can be ended by itself, and none may
//! say what command runs on the operator's machine. Whether a route takes one is the gates' business.

pub mod http;
mod store;

use ligand_domain::credential::{Token, TokenHash};
use ligand_domain::id::{OrgTokenId, WorkspaceId};
use ligand_domain::time::Timestamp;

use crate::app::App;
use crate::db::{Db, Tx};
use crate::error::Result;

/// A live token, as its caller is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrgToken {
    /// Its name.
    pub id: OrgTokenId,
    /// The first characters of its text.
    pub prefix: String,
    /// The workspace at the root of what it is for; `None`: the whole organisation.
    pub org_id: Option<WorkspaceId>,
}

/// The live token that a text is, if it is one. An empty text is refused without asking the database.
///
/// # Errors
/// 503 when the database does not answer.
pub async fn validate(app: &App, text: &str) -> Result<Option<OrgToken>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (hash, now) = (TokenHash::of(text), app.clock.now());
    let found = store::find_live(&mut app.db.read().await?, &hash, now).await?;
    let Some((token, unnoted)) = found else { return Ok(None) };
    // When it was last used is good to know, and no reason to refuse anybody.
    if unnoted && let Err(cause) = note_use(&app.db, token.id, now).await {
        tracing::warn!(error = %cause, org_token.id = %token.id, "the use of a token was not noted");
    }
    Ok(Some(token))
}

async fn note_use(db: &Db, id: OrgTokenId, now: Timestamp) -> std::result::Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    store::touch(&mut tx, id, now).await?;
    tx.commit().await
}

/// Whether a token is still live. Until the transaction ends, nobody revokes it.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn holds(
    tx: &mut Tx,
    token: &OrgToken,
    now: Timestamp,
) -> std::result::Result<bool, sqlx::Error> {
    store::hold(tx, token.id, now).await
}

/// Those of these that are live no more.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn ended(
    tx: &mut Tx,
    hashes: &[TokenHash],
) -> std::result::Result<Vec<TokenHash>, sqlx::Error> {
    store::ended(tx, hashes).await
}

/// Mint one. Its text exists only in what this gives.
///
/// # Errors
/// When the database does not answer.
pub async fn mint(
    app: &App,
    name: Option<&str>,
    created_by: Option<&str>,
    org_id: Option<WorkspaceId>,
) -> std::result::Result<(OrgTokenId, Token), sqlx::Error> {
    let mut tx = app.db.begin().await?;
    let minted = keep(app, &mut tx, name, created_by, org_id).await?;
    tx.commit().await?;
    Ok(minted)
}

/// Mint one that another one asks for, and that is for the same. `None`: that one was revoked since it was
/// let in, and leaves no heir.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn mint_as(
    app: &App,
    parent: &OrgToken,
    name: Option<&str>,
    created_by: Option<&str>,
) -> std::result::Result<Option<(OrgTokenId, Token)>, sqlx::Error> {
    let mut tx = app.db.begin().await?;
    if !holds(&mut tx, parent, app.clock.now()).await? {
        return Ok(None);
    }
    let minted = keep(app, &mut tx, name, created_by, parent.org_id).await?;
    tx.commit().await?;
    Ok(Some(minted))
}

async fn keep(
    app: &App,
    tx: &mut Tx,
    name: Option<&str>,
    created_by: Option<&str>,
    org_id: Option<WorkspaceId>,
) -> std::result::Result<(OrgTokenId, Token), sqlx::Error> {
    let (id, token) = (app.ids.org_token(), app.ids.token());
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let new = store::New {
        id,
        hash: token.hash(),
        prefix: token.prefix(),
        name: given(name),
        created_by: given(created_by),
        org_id,
        created_at: app.clock.now(),
    };
    store::insert(tx, &new).await?;
    Ok((id, token))
}
