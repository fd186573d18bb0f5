//! Who is calling: credentials here, the gates in front of handlers in `gates.rs` and `sender.rs`, sessions of
//! people in `sessions.rs`, and what callers may do with a workspace's tokens in `http.rs`.

mod gates;
mod grant;
pub mod http;
mod sender;
mod sessions;
mod store;
mod viewer;

use ligand_domain::credential::{self, Kind, Origin, PassportTimes, State, Token, TokenHash};
use ligand_domain::id::{CredentialId, Generation, PassportId, WorkspaceId};
use ligand_domain::time::Timestamp;

use crate::app::App;
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::journal::Work;

pub use gates::{Admin, Anyone, By, Candidate, Canvas, OfWorkspace, Recipient, Watcher};
pub(crate) use gates::{is_admin, presented};
pub(crate) use grant::{Asked, Grant, ended};
pub use sender::Sender;
pub(crate) use sessions::{Session, Sessions, session};
pub(crate) use store::passports::{
    end_of as end_passports_of, presented as passport, redeem, spend,
};
pub(crate) use store::{
    end_one, ever_issued, for_admission, is_active, keep_newest, mark_used, supersede_before,
};
pub(crate) use viewer::Viewer;

/// A credential as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub id: CredentialId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What for.
    pub kind: Kind,
    /// Its generation.
    pub generation: Option<Generation>,
    /// Where it stands.
    pub state: State,
    /// SHA-256 of its text.
    pub hash: Vec<u8>,
    /// SHA-256 of the key with which it was asked for.
    pub idempotency_hash: Option<Vec<u8>>,
    /// When it was minted.
    pub created_at: Timestamp,
    /// Never used by then, it is as good as lapsed.
    pub lapses_at: Option<Timestamp>,
    /// Its first use by an admitted register or heartbeat.
    pub first_used_at: Option<Timestamp>,
    /// The rotations that had been asked for when it was minted: its first use satisfies them.
    pub serial: i64,
}

/// A passport as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldPassport {
    /// Its name.
    pub(crate) id: PassportId,
    /// The generation it opens.
    pub(crate) generation: Generation,
    /// What happened to it.
    pub(crate) times: PassportTimes,
}

/// What a credential is minted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// An instance, which finds it when it starts. It lapses only with that start.
    Start(Generation),
    /// An agent that registered, in the answer. `key` is the hash of its `Idempotency-Key`.
    Answer {
        /// The generation that was admitted.
        generation: Generation,
        /// By what a repeated call is recognised.
        key: Option<TokenHash>,
    },
    /// The same, for a passport. It lapses only with its start.
    Passport {
        /// The generation that it opens.
        generation: Generation,
        /// By what a repeated call is recognised.
        key: Option<TokenHash>,
    },
    /// A running agent, beside the credential that it uses. It lapses only with its generation.
    Rotation(Generation),
    /// A caller of the platform on the workspace's behalf. With a generation, it was asked for by that
    /// instance, and ends with it.
    Caller(Option<Generation>),
}

/// Mint a credential and commit its hash with the transaction. The secret exists only in what this gives.
///
/// # Errors
/// When the database does not answer.
pub async fn mint(
    app: &App,
    work: &mut Work<'_>,
    workspace: WorkspaceId,
    purpose: For,
) -> std::result::Result<Token, sqlx::Error> {
    let token = app.ids.token();
    keep(app, work, workspace, purpose, &token).await?;
    Ok(token)
}

/// Commit the hash of a credential with the transaction.
///
/// # Errors
/// When the database does not answer.
pub async fn keep(
    app: &App,
    work: &mut Work<'_>,
    workspace: WorkspaceId,
    purpose: For,
    token: &Token,
) -> std::result::Result<(), sqlx::Error> {
    let now = work.now;
    let (origin, generation, key) = match purpose {
        For::Start(generation) => (Some(Origin::Start), Some(generation), None),
        For::Answer { generation, key } => (Some(Origin::Bootstrap), Some(generation), key),
        For::Passport { generation, key } => (Some(Origin::Passport), Some(generation), key),
        For::Rotation(generation) => (Some(Origin::Rotation), Some(generation), None),
        For::Caller(generation) => (None, generation, None),
    };
    let (kind, state) = match origin {
        Some(_) => (Kind::Instance, State::Pending),
        None => (Kind::Api, State::Active),
    };
    let lapses_at = origin.and_then(|origin| credential::lapses_at(origin, now, app.config.guards));
    let held = Held {
        id: app.ids.credential(),
        workspace,
        kind,
        generation,
        state,
        hash: token.hash().bytes().to_vec(),
        idempotency_hash: key.map(|key| key.bytes().to_vec()),
        created_at: now,
        lapses_at,
        first_used_at: None,
        serial: 0,
    };
    store::insert(&mut work.tx, &held, token.prefix()).await
}

/// Mint a passport: the right to become `generation` of a workspace until a time. Its secret goes into the
/// start-up data of the instance that is about to be started on `backend`.
///
/// # Errors
/// When the database does not answer.
pub async fn mint_passport(
    app: &App,
    work: &mut Work<'_>,
    of: (WorkspaceId, Generation),
    backend: Option<&str>,
    until: Timestamp,
) -> std::result::Result<Token, sqlx::Error> {
    let (now, token) = (work.now, app.ids.token());
    let new = store::passports::New {
        id: app.ids.passport(),
        of,
        hash: token.hash(),
        backend,
        created_at: now,
        expires_at: until,
    };
    store::passports::insert(&mut work.tx, &new).await?;
    Ok(token)
}

/// End every credential and passport of one generation: it will never be admitted again.
///
/// # Errors
/// When the database does not answer.
pub async fn end_generation(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> std::result::Result<(), sqlx::Error> {
    store::end_generation(tx, workspace, generation, now).await?;
    store::passports::end_of(tx, workspace, generation, now).await
}

/// End every live instance credential of a workspace, what instances minted for callers, and every passport that
/// is still open. Credentials of callers that belong to no instance stay.
///
/// # Errors
/// When the database does not answer.
pub async fn revoke_instances(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> std::result::Result<(), sqlx::Error> {
    store::end_instances(tx, workspace, now).await?;
    store::passports::end_all(tx, workspace, now).await
}

/// End every live instance credential of a workspace, and what instances minted for callers, because a newer instance
/// takes their place. Passports that are still open end too.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn supersede_instances(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> std::result::Result<(), sqlx::Error> {
    store::supersede_instances(tx, workspace, now).await?;
    store::passports::end_all(tx, workspace, now).await
}

/// How many live credentials a workspace has, of any kind, in a transaction of the caller's.
///
/// # Errors
/// When the database does not answer.
pub async fn live_in(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> std::result::Result<i64, sqlx::Error> {
    store::live_in(tx, workspace, now).await
}

/// How many live credentials a workspace has, of any kind: those with which somebody passes now.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn live_of(
    app: &App,
    workspace: WorkspaceId,
) -> std::result::Result<i64, sqlx::Error> {
    store::live_in(&mut app.db.read().await?, workspace, app.clock.now()).await
}

/// How many live credentials there are on the whole platform.
///
/// # Errors
/// When the database does not answer.
pub async fn live_anywhere(app: &App) -> std::result::Result<i64, sqlx::Error> {
    store::live_anywhere(&mut app.db.read().await?, app.clock.now()).await
}

/// End every live credential of a workspace, and every passport that is still open. Nothing live is success.
/// Gives how many credentials ended.
///
/// # Errors
/// When the database does not answer.
pub async fn revoke_all(
    tx: &mut Tx,
    workspace: WorkspaceId,
    now: Timestamp,
) -> std::result::Result<u64, sqlx::Error> {
    store::passports::end_all(tx, workspace, now).await?;
    store::end_all(tx, workspace, State::Revoked, now).await
}

/// End the credentials of one generation that were never used, and what was asked for with them: its start is
/// given up.
///
/// # Errors
/// When the database does not answer.
pub async fn lapse_pending(
    tx: &mut Tx,
    workspace: WorkspaceId,
    generation: Generation,
    now: Timestamp,
) -> std::result::Result<u64, sqlx::Error> {
    store::lapse_pending(tx, workspace, generation, now).await
}

/// The live workspace credential that a bearer is, if it is one and its workspace is not removed. That of a
/// migration's candidate is not: until cut-over its holder is nobody here. An empty text is refused without asking the database.
///
/// # Errors
/// 503 when the database does not answer.
pub async fn validate(app: &App, text: &str) -> Result<Option<Held>> {
    if text.is_empty() {
        return Ok(None);
    }
    let hash = TokenHash::of(text);
    let now = app.clock.now();
    let found = store::find_live(&mut app.db.read().await?, &hash, now).await?;
    let Some((held, unnoted)) = found else { return Ok(None) };
    // When it was last used is good to know, and no reason to refuse anybody.
    if unnoted && let Err(cause) = note_use(&app.db, held.id, now).await {
        tracing::warn!(error = %cause, credential.id = %held.id, "the use of a credential was not noted");
    }
    Ok(Some(held))
}

async fn note_use(
    db: &Db,
    id: CredentialId,
    now: Timestamp,
) -> std::result::Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    store::touch(&mut tx, id, now).await?;
    tx.commit().await
}
