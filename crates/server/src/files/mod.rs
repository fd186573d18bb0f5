//! The files of a workspace, on whatever backend they are.
//!
//! Which paths may be named is decided in `ligand_domain::files`; that no link leads out of a directory is
//! the backend's to see to. `http.rs` has the routes of files, `chat.rs` those of files that go with
//! messages. What an agent reads when it starts asks, once written, for a restart: at most one in fifteen
//! seconds, by a row that `reconcile.rs` looks at, so that it survives the server.

pub mod chat;
pub mod http;
pub mod reconcile;
mod store;

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use ligand_domain::files::{Root, Unsound};
use ligand_domain::id::WorkspaceId;

pub use self::reconcile::FileRestarts;
use crate::app::App;
use crate::backend::{Backend, BackendError, ErrorKind, Place};
use crate::error::{Error, Result};
use crate::workspaces::{self, Workspace};

const NOWHERE: &str = "no backend here keeps this workspace's files";

/// A refusal of a path, as it is told.
pub(crate) fn unsound(why: Unsound) -> Error {
    Error::bad_request(why.as_str())
}

/// A workspace's files, if something here keeps them.
struct Files {
    workspace: Workspace,
    backend: Option<Arc<dyn Backend>>,
}

impl Files {
    /// Of a workspace that must be there.
    async fn of(app: &App, id: WorkspaceId) -> Result<Self> {
        let workspace = workspaces::present(app, id).await?;
        let backend = workspace.backend.as_deref().and_then(|name| app.backends.get(name));
        Ok(Self { backend: backend.cloned(), workspace })
    }

    /// A file's content. `None`: there is no such file.
    async fn read(&self, root: Root, path: &str) -> Result<Option<Bytes>> {
        let Some(backend) = &self.backend else { return Ok(None) };
        match backend.read_file(self.workspace.id, place(root, path)).await {
            Ok(content) => Ok(Some(content)),
            Err(cause) => match cause.kind {
                ErrorKind::Missing => Ok(None),
                // All that makes a file unreadable for ever is its size.
                ErrorKind::Broken => Err(too_large("file too large")),
                ErrorKind::Unsupported => Err(unavailable(NOWHERE)),
                ErrorKind::Transient => Err(told("failed to read file", &cause)),
            },
        }
    }

    /// Write a file.
    async fn write(&self, root: Root, path: &str, content: Bytes) -> Result<()> {
        let nowhere = || unavailable(&format!("failed to write file: {NOWHERE}"));
        let backend = self.backend.as_ref().ok_or_else(nowhere)?;
        let written = backend.write_file(self.workspace.id, place(root, path), content).await;
        written.map_err(|cause| match cause.kind {
            ErrorKind::Unsupported => nowhere(),
            ErrorKind::Transient | ErrorKind::Broken | ErrorKind::Missing => {
                told("failed to write file", &cause)
            }
        })
    }

    /// Whether its instance runs.
    async fn runs(&self, app: &App) -> Result<bool> {
        Ok(workspaces::running(app, &self.workspace).await?.is_some())
    }
}

fn place(root: Root, path: &str) -> Place {
    Place { root, path: path.into() }
}

fn unavailable(text: &str) -> Error {
    Error::refused(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn too_large(text: &str) -> Error {
    Error::refused(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// A failure of a backend. The caller is told what the machine says, and no path of it; the log has both.
fn told(text: &str, cause: &BackendError) -> Error {
    tracing::warn!(error = cause.chain(), "{text}");
    let why = cause.source.as_ref().map_or_else(
        || "the backend refused it".to_owned(),
        |source| match source.raw_os_error() {
            Some(_) => source.kind().to_string(),
            None => source.to_string(),
        },
    );
    Error::refused(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}: {why}"))
}

/// Something that an agent reads at its start was written: ask for a restart, if none is asked for yet.
async fn restart_soon(app: &App, id: WorkspaceId, root: Root) -> Result<()> {
    if root.read_at_start() {
        let mut tx = app.db.begin().await?;
        store::ask(&mut tx, id, app.clock.now()).await?;
        tx.commit().await?;
        app.bells.ring();
    }
    Ok(())
}
