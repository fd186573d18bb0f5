//! Secrets: variables that programs get and nobody else sees. Those of one workspace, and global ones, which
//! every workspace gets that has none of the same name.
//!
//! A write raises the restarts that are wanted of exactly the workspaces that it reaches, in its own transaction;
//! a start loads them in the transaction that notes which of those restarts it satisfies. How they are stored, and
//! what a receipt proves, is decided in `ligand_domain::secrets`.
//!
//! Not here: a value in a log, an event, an error or the journal. One answer has values: `…/secrets/values`.

pub mod http;
mod reencrypt;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use ligand_domain::id::WorkspaceId;
use ligand_domain::secrets::{self, Key, Scope, Stored};
use uuid::Uuid;

use crate::app::App;
use crate::db::Tx;
use crate::journal::{Kind, Work};

/// A secret that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Whose it is.
    pub(crate) scope: Scope,
    /// Its name.
    pub(crate) key: String,
    /// Why.
    pub(crate) why: secrets::Unreadable,
}

impl Unread {
    /// The contract's words for a start that fails by it.
    pub(crate) fn text(&self) -> &'static str {
        match self.scope {
            Scope::Global => "failed to decrypt global secret",
            Scope::Workspace => "failed to decrypt workspace secret",
        }
    }

    /// Its name with its scope, as the contract writes it.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.scope.as_str(), self.key)
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.text(), self.key, self.why)
    }
}

/// Let nobody write global secrets until the transaction ends. Comes before the lock of any workspace.
pub(crate) async fn hold_global(tx: &mut Tx) -> Result<(), sqlx::Error> {
    store::hold_global(tx).await
}

/// What a workspace gets, by name; or everything of it that cannot be read.
pub(crate) async fn load(
    app: &App,
    tx: &mut Tx,
    workspace: WorkspaceId,
) -> Result<Result<BTreeMap<String, String>, Vec<Unread>>, sqlx::Error> {
    let named = |rows: Vec<store::Row>| rows.into_iter().map(|row| (row.key.clone(), row.stored()));
    let global = named(store::global(tx).await?);
    let own = named(store::own(tx, workspace).await?);
    let (mut values, mut unread) = (BTreeMap::new(), Vec::new());
    for (key, (scope, stored)) in secrets::merged(global, own) {
        match app.config.secrets.open(&stored) {
            Ok(value) => drop(values.insert(key, value)),
            Err(why) => unread.push(Unread { scope, key, why }),
        }
    }
    // Global ones first, as the contract reads them.
    unread.sort_by(|a, b| (a.scope, &a.key).cmp(&(b.scope, &b.key)));
    Ok(if unread.is_empty() { Ok(values) } else { Err(unread) })
}

/// The names of what a workspace gets, sorted, each once.
pub(crate) async fn names(tx: &mut Tx, workspace: WorkspaceId) -> Result<Vec<String>, sqlx::Error> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    names.extend(store::global(tx).await?.into_iter().map(|row| row.key));
    names.extend(store::own(tx, workspace).await?.into_iter().map(|row| row.key));
    Ok(names.into_iter().collect())
}

/// The names of those that are a workspace's own.
pub(crate) async fn own_names(
    tx: &mut Tx,
    workspace: WorkspaceId,
) -> Result<BTreeSet<String>, sqlx::Error> {
    Ok(store::own(tx, workspace).await?.into_iter().map(|row| row.key).collect())
}

/// Whether a workspace gets any.
pub(crate) async fn any(tx: &mut Tx, workspace: WorkspaceId) -> Result<bool, sqlx::Error> {
    store::any(tx, workspace).await
}

/// Set one of a workspace whose row is locked, or was made in this transaction. Nobody is asked to restart.
pub(crate) async fn put(
    app: &App,
    work: &mut Work<'_>,
    workspace: WorkspaceId,
    key: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    let stored = seal(app, value);
    let new = new(app, work, key, &stored);
    store::put(&mut work.tx, workspace, &new).await
}

/// Take every secret of a workspace away.
pub(crate) async fn purge(tx: &mut Tx, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    store::purge(tx, workspace).await
}

/// How many secrets are stored in plain text.
pub(crate) async fn plain(app: &App) -> Result<i64, sqlx::Error> {
    store::count_plain(&mut app.db.read().await?).await
}

/// Tell operators of secrets in plain text, and how to mend it. Whoever reads the database, or a copy of it, reads
/// them.
pub(crate) async fn warn_of_plain(app: &App) {
    let count = match plain(app).await {
        Ok(0) => return,
        Ok(count) => count,
        Err(cause) => {
            tracing::warn!(error = %cause, "whether secrets are stored in plain text is not known");
            return;
        }
    };
    if app.config.secrets.current.is_some() {
        tracing::warn!(
            secrets = count,
            "secrets are stored in plain text: `ligand secret rotate` encrypts them"
        );
    } else {
        tracing::warn!(
            secrets = count,
            "secrets are stored in plain text: set SECRETS_ENCRYPTION_KEY, start the servers again, and run \
             `ligand secret rotate`"
        );
    }
}

fn seal(app: &App, value: &str) -> Stored {
    app.config.secrets.seal(value, app.ids.bytes())
}

fn new<'a>(app: &App, work: &Work<'_>, key: &'a str, stored: &'a Stored) -> store::New<'a> {
    let id = uuid::Builder::from_random_bytes(app.ids.bytes::<16>()).into_uuid();
    let key_name = app.config.secrets.current.as_ref().map(Key::name);
    store::New { id, key, stored, key_name, now: work.now }
}

/// What happened to a secret, for the journal. Its name is no secret.
fn note_restart(work: &mut Work<'_>, workspace: WorkspaceId, key: &str, how: &str) {
    let summary = format!("a restart was requested: secret {key} was {how}");
    let evidence = serde_json::json!({"secret": key});
    work.note(workspace, None, Kind::RestartRequested, summary, evidence);
}

/// What comes before every id.
const FIRST: Uuid = Uuid::nil();
