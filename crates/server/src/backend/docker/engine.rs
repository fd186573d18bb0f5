//! Calls to the engine, and what its answers mean.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
};
use ligand_domain::id::WorkspaceId;

use super::names;
use crate::backend::{BackendError, ErrorKind};

/// The longest that a start or a stop may take.
const LONGEST_SECONDS: u64 = 180;
/// How long a question may take. An engine that is slower than this is taken for one that does not answer.
const QUESTION: Duration = Duration::from_secs(15);
/// How long a removal that somebody else began may take, and how often it is looked at.
const REMOVAL_LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(100);

/// The engine behind a socket. Connected at the first call, and again whenever that fails.
#[derive(Clone)]
pub(super) struct Engine {
    socket: PathBuf,
    client: Arc<Mutex<Option<bollard::Docker>>>,
}

impl Engine {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), client: Arc::default() }
    }

    /// Somebody to send calls with.
    pub(super) fn client(&self) -> Result<bollard::Docker, BackendError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let path = self.socket.to_string_lossy();
        let made = bollard::Docker::connect_with_unix(
            &path,
            LONGEST_SECONDS,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|cause| failed(format!("reach the engine at {path}"), &cause))?;
        Ok(client.insert(made).clone())
    }

    /// Ask, and wait no longer than a question may take.
    pub(super) async fn ask<T>(
        &self,
        what: impl FnOnce() -> String,
        call: impl AsyncFnOnce(&bollard::Docker) -> Result<T, Error>,
    ) -> Result<T, BackendError> {
        let client = self.client()?;
        match tokio::time::timeout(QUESTION, call(&client)).await {
            Ok(answer) => answer.map_err(|cause| failed(what(), &cause)),
            Err(_) => Err(failed(what(), &Error::RequestTimeoutError)),
        }
    }

    /// A container by its name; `None` only where the engine says that there is none.
    pub(super) async fn container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInspectResponse>, BackendError> {
        let asked = self.ask(
            || format!("look at the container {name}"),
            async |client| client.inspect_container(name, None::<InspectContainerOptions>).await,
        );
        absent(asked.await)
    }

    /// Every container of this platform, of one workspace where it is named.
    pub(super) async fn containers(
        &self,
        owner: &str,
        workspace: Option<WorkspaceId>,
    ) -> Result<Vec<ContainerSummary>, BackendError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(names::filters(owner, workspace)),
            ..ListContainersOptions::default()
        };
        self.ask(
            || "list the containers".to_owned(),
            async |client| client.list_containers(Some(options)).await,
        )
        .await
    }

    /// Take a container away, whatever it does. Its volumes stay.
    #[expect(
        clippy::disallowed_methods,
        reason = "the engine removes in real time, whatever the clock of the server says"
    )]
    pub(super) async fn remove(&self, name: &str) -> Result<(), BackendError> {
        let client = self.client()?;
        let options = RemoveContainerOptions { force: true, v: false, link: false };
        match client.remove_container(name, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(cause) if status(&cause) == Some(404) => return Ok(()),
            // Somebody else is at it.
            Err(cause) if status(&cause) == Some(409) => {}
            Err(cause) => return Err(failed(format!("remove the container {name}"), &cause)),
        }
        for _ in 0..REMOVAL_LOOKS {
            if self.container(name).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(failed(format!("remove the container {name}"), &Error::RequestTimeoutError))
    }
}

/// The status of an answer, if the engine answered.
pub(super) fn status(cause: &Error) -> Option<u16> {
    match cause {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What a failure means for whoever asked.
pub(super) fn failed(what: String, cause: &Error) -> BackendError {
    let kind = match status(cause) {
        Some(404) => ErrorKind::Missing,
        Some(400) => ErrorKind::Broken,
        _ => ErrorKind::Transient,
    };
    let source = Some(std::io::Error::other(cause.to_string()));
    BackendError { kind, what: format!("cannot {what}"), source }
}

/// That it is not there is an answer.
pub(super) fn absent<T>(answer: Result<T, BackendError>) -> Result<Option<T>, BackendError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(cause) if cause.kind == ErrorKind::Missing => Ok(None),
        Err(cause) => Err(cause),
    }
}
