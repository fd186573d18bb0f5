//! Instances: what was asked for, what is seen, and the step between the two.

pub(crate) mod data;
pub(crate) mod http;
mod provision;
mod reconcile;
mod spec;
mod store;
mod view;

use std::time::Duration;

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_domain::backoff::Failures;
use ligand_domain::fleet::{Intent, Recreations, State};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Exit;
use ligand_domain::secrets::Stored;
use ligand_domain::time::Timestamp;
use ligand_server::backend::{Backend, BackendError, ErrorKind, Key, Push};
use ligand_server::db::Tx;
use ligand_server::error::{Error, Result};
use std::sync::Arc;

use crate::app::Fleet;

pub use reconcile::InstanceReconciler;
pub(crate) use store::{end_all, named_on, on_provider, release_all, workspaces_known};

/// How long an answer waits for something that takes a while.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const MOMENT: Duration = Duration::from_millis(25);

/// An instance that was asked for.
#[derive(Clone)]
pub(crate) struct Instance {
    /// Its name.
    pub(crate) id: String,
    /// Whose.
    pub(crate) org: String,
    /// Of which workspace.
    pub(crate) workspace: WorkspaceId,
    /// Which.
    pub(crate) generation: Generation,
    /// The fleet counts its generations, and replaces it.
    pub(crate) counted: bool,
    /// Where.
    pub(crate) provider: String,
    /// What it runs.
    pub(crate) runtime: String,
    /// By which the same wish is recognised.
    pub(crate) wish: Vec<u8>,
    /// What it is started with, sealed; `None` once nobody needs it.
    pub(crate) spec: Option<Stored>,
    /// What it is meant to do.
    pub(crate) intent: Intent,
    /// What was last seen of it.
    pub(crate) state: State,
    /// Since when.
    pub(crate) since: Timestamp,
    /// What that rests on.
    pub(crate) evidence: String,
    /// How it ended.
    pub(crate) exit: Option<Exit>,
    /// The provider's name for it.
    pub(crate) handle: String,
    /// Where it answers.
    pub(crate) address: Option<String>,
    /// Why it is not what it is meant to be.
    pub(crate) last_error: Option<String>,
    /// Attempts that failed.
    pub(crate) failures: Failures,
    /// How often it was replaced.
    pub(crate) recreations: Recreations,
    /// Until then it may take to register.
    pub(crate) booting_until: Option<Timestamp>,
    /// When its provider confirmed it.
    pub(crate) confirmed_at: Option<Timestamp>,
    /// When it was over.
    pub(crate) ended_at: Option<Timestamp>,
    /// When it is looked at next.
    pub(crate) due: Timestamp,
    /// Raised with every change of intent.
    pub(crate) version: i64,
    /// When it was asked for.
    pub(crate) created_at: Timestamp,
}

impl Instance {
    /// By which its provider knows it.
    pub(crate) fn key(&self) -> Key {
        Key { workspace: self.workspace, generation: self.generation }
    }

    /// It is seen to be in this state.
    fn see(&mut self, state: State, evidence: impl Into<String>, now: Timestamp) {
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
        self.evidence = evidence.into();
    }
}

/// The provider of this name.
pub(crate) fn provider<'a>(fleet: &'a Fleet, name: &str) -> Result<&'a Arc<dyn Backend>> {
    fleet.providers.get(name).ok_or_else(|| {
        let known: Vec<&str> = fleet.providers.all().map(|(name, _)| name).collect();
        let detail =
            format!("provider: `{name}` is not known here; expected one of {}", known.join(", "));
        let body = ErrorBody::new("unknown provider").detail(detail).code("broken");
        Error::Refused(StatusCode::BAD_REQUEST, Box::new(body))
    })
}

/// What a provider's failure is to a caller: the code says what can be done.
pub(crate) fn failed(cause: &BackendError) -> Error {
    let (status, code) = match cause.kind {
        ErrorKind::Transient => (StatusCode::SERVICE_UNAVAILABLE, "transient"),
        ErrorKind::Broken => (StatusCode::UNPROCESSABLE_ENTITY, "broken"),
        ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
        ErrorKind::Missing => (StatusCode::NOT_FOUND, "missing"),
    };
    Error::Refused(status, Box::new(ErrorBody::new(cause.chain()).code(code)))
}

/// A provider has something to say: it is looked at now.
pub(crate) async fn heed(fleet: &Fleet, Push(key): Push) -> std::result::Result<(), sqlx::Error> {
    let mut tx = fleet.db.begin().await?;
    store::make_due(&mut tx, key, fleet.clock.now()).await?;
    tx.commit().await?;
    fleet.ring();
    Ok(())
}

/// The workspace, if it is this organisation's; otherwise there is none.
pub(crate) async fn owned(
    tx: &mut Tx,
    org: Option<&str>,
    id: WorkspaceId,
) -> Result<store::Workspace> {
    let found = store::workspace(tx, id).await?;
    let found = found.filter(|found| org.is_none_or(|org| org == found.org));
    found.ok_or_else(|| Error::not_found("workspace not found"))
}
