//! Instances as containers of a Docker engine.
//!
//! A container is named after workspace and generation, so that a start that is asked for twice happens once; what it
//! is to know about itself stands in its labels, so that a later server finds it. Its credential is written into its
//! volume before it starts. The engine restarts nothing: that is the platform's to decide. What the engine does not
//! say cleanly is unknown, and an engine that cannot be reached says nothing.
//!
//! `names.rs` knows what things are called, `engine.rs` how the engine is asked, `start.rs` how an instance comes to be,
//! `events.rs` how its end is heard of, `files.rs` a workspace's files, `data.rs` all of them at once, `pour.rs` beneath one that runs, `ahead.rs` ahead of time, `holder.rs`
//! through what they are reached, `follow.rs` logs as they grow, `terminal.rs` a shell, `tar.rs` a format.

mod ahead;
mod data;
mod engine;
mod events;
mod files;
mod follow;
mod holder;
mod names;
mod pour;
mod start;
mod tar;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{ListVolumesOptions, LogsOptions, StopContainerOptions};
use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::{Exit, Seen};
use serde::Deserialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::engine::{Engine, failed, status};
use super::{
    Answer, Backend, BackendError, Bytestream, Carried, Found, Key, Place, Pushes, Spec, Started,
    Terminal,
};

/// Where engines listen unless they are told otherwise.
pub const SOCKET: &str = "/var/run/docker.sock";
/// Ligand's agent in an image of ours.
pub const AGENT: &str = "/usr/local/bin/ligand-agent";
/// The image that `scripts/image` makes.
pub const IMAGE: &str = "ligand-agent:latest";
/// Lines of its output in which the reason of an exit is looked for.
const LAST_LINES: &str = "40";
/// Characters of an instance's last words that are kept.
const LAST_WORDS: usize = 500;
/// An exit code beyond this is a signal's number and this.
const SIGNALLED: i64 = 128;

/// On which network instances are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// One of their own; each port is published on this machine's loopback.
    #[default]
    Bridge,
    /// The machine's.
    Host,
}

/// How instances are started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where the engine listens.
    pub socket: PathBuf,
    /// On which network they are.
    pub network: Network,
    /// Images by runtime.
    pub images: BTreeMap<String, String>,
    /// The image of any other runtime, whose name replaces `{runtime}` in it.
    pub image: Option<String>,
    /// What tells this platform's containers from another's on the same engine.
    pub owner: String,
}

impl Setup {
    /// The image that runs this runtime, if one was named.
    fn image_of(&self, runtime: &str) -> Option<String> {
        let named = self.images.get(runtime).cloned();
        named.or_else(|| Some(self.image.as_ref()?.replace("{runtime}", runtime)))
    }
}

/// See the module.
#[derive(Clone)]
pub struct Docker(Arc<Shared>);

struct Shared {
    setup: Setup,
    engine: Engine,
    pushes: Pushes,
    listening: AtomicBool,
    /// Instances that are being started, each by one at a time.
    starting: Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// Workspaces into which data is being imported.
    importing: Mutex<BTreeSet<WorkspaceId>>,
    /// Containers that were made for a moment, so far.
    holders: AtomicU64,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Docker {
    /// Nothing is asked of the engine yet.
    #[must_use]
    pub fn new(setup: Setup, pushes: Pushes) -> Self {
        let stop = CancellationToken::new();
        Self(Arc::new(Shared {
            engine: Engine::new(&setup.socket),
            setup,
            pushes,
            listening: AtomicBool::new(false),
            starting: Mutex::default(),
            importing: Mutex::default(),
            holders: AtomicU64::new(1),
            _stop: stop.clone().drop_guard(),
            stop,
        }))
    }

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Hear of ends from now on.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the backend: no stop waits for an engine that says nothing"
    )]
    fn listen(&self) {
        if !self.0.listening.swap(true, Ordering::Relaxed) {
            let (engine, owner) = (self.0.engine.clone(), self.0.setup.owner.clone());
            let listening = events::listen(engine, owner, self.0.pushes.clone());
            tokio::spawn(self.0.stop.clone().run_until_cancelled_owned(listening));
        }
    }

    /// The newest instance of a workspace, of those that were not destroyed.
    async fn newest_key(&self, workspace: WorkspaceId) -> Result<Option<Key>, BackendError> {
        let found = self.engine().containers(&self.0.setup.owner, Some(workspace)).await?;
        Ok(found.iter().filter_map(|one| names::key_of(one.labels.as_ref()?)).max())
    }

    /// Its container.
    async fn newest(&self, workspace: WorkspaceId) -> Result<Option<String>, BackendError> {
        Ok(self.newest_key(workspace).await?.map(names::container))
    }

    /// The container of an instance. One of that name that another platform made is none.
    async fn own(&self, key: Key) -> Result<Option<ContainerInspectResponse>, BackendError> {
        let found = self.engine().container(&names::container(key)).await?;
        Ok(found.filter(|found| names::is_of(&self.0.setup.owner, start::labels(found))))
    }

    async fn look(&self, key: Key) -> Result<Seen, BackendError> {
        let name = names::container(key);
        let Some(found) = self.own(key).await? else { return Ok(Seen::Gone) };
        match phase(&found) {
            Phase::Created => Ok(Seen::Gone),
            Phase::Running => Ok(Seen::Running),
            Phase::Ended => {
                let said = self.last_words(&name).await;
                Ok(Seen::Stopped(exit(&found, said)))
            }
            Phase::Unknown => {
                let what = format!("the engine does not say what the container {name} does");
                Err(BackendError { kind: super::ErrorKind::Transient, what, source: None })
            }
        }
    }

    /// The error that it ended with: its last line that says so, else its last line.
    async fn last_words(&self, name: &str) -> Option<String> {
        let text = self.output(name, LAST_LINES).await.ok()?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let said =
            lines.clone().find(|line| line.starts_with("error:")).or_else(|| lines.next())?;
        Some(said.chars().take(LAST_WORDS).collect())
    }

    /// The end of what a container said.
    async fn output(&self, name: &str, lines: &str) -> Result<Bytes, BackendError> {
        let options = said(false, lines);
        self.engine()
            .ask(
                || format!("read the log of the container {name}"),
                async |client| {
                    let mut text = Vec::new();
                    let mut parts = Box::pin(client.logs(name, Some(options)));
                    while let Some(part) = parts.next().await {
                        text.extend_from_slice(&part?.into_bytes());
                    }
                    Ok(Bytes::from(text))
                },
            )
            .await
    }

    async fn end(&self, key: Key, grace: Duration) -> Result<(), BackendError> {
        if self.own(key).await?.is_none() {
            return Ok(());
        }
        let name = names::container(key);
        // Whole seconds, and no less than was asked for.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let t = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        let client = self.engine().client()?;
        match client.stop_container(&name, Some(StopContainerOptions { signal: None, t })).await {
            Ok(()) => Ok(()),
            Err(cause) if matches!(status(&cause), Some(304 | 404)) => Ok(()),
            Err(cause) => Err(failed(format!("stop the container {name}"), &cause)),
        }
    }

    /// Names are short: a volume may be of another workspace, or of another platform.
    fn ours(
        &self,
        name: &str,
        labels: &std::collections::HashMap<String, String>,
        workspace: WorkspaceId,
    ) -> Result<(), BackendError> {
        let other =
            |label: &str, expected: &str| labels.get(label).is_some_and(|found| found != expected);
        if other(names::OWNER, &self.0.setup.owner)
            || other(names::WORKSPACE, &workspace.to_string())
        {
            let what =
                format!("the volume {name} belongs to another workspace or another platform");
            return Err(BackendError::broken(what));
        }
        Ok(())
    }

    async fn data(&self) -> Result<Vec<WorkspaceId>, BackendError> {
        let options =
            ListVolumesOptions { filters: Some(names::filters(&self.0.setup.owner, None)) };
        let found = self
            .engine()
            .ask(
                || "list the volumes".to_owned(),
                async |client| client.list_volumes(Some(options)).await,
            )
            .await?;
        let volumes = found.volumes.unwrap_or_default();
        let ids: BTreeSet<WorkspaceId> =
            volumes.iter().filter_map(|volume| names::workspace_of(&volume.labels)).collect();
        Ok(ids.into_iter().collect())
    }

    async fn fingerprint_now(&self) -> Result<String, BackendError> {
        let version = self
            .engine()
            .ask(
                || format!("reach the engine at {}", self.socket().display()),
                async |client| client.version().await,
            )
            .await?;
        let network = match self.0.setup.network {
            Network::Bridge => "a network of their own",
            Network::Host => "the machine's network",
        };
        let version = version.version.unwrap_or_else(|| "of unknown version".to_owned());
        Ok(format!("containers of Docker {version} at {}, on {network}", self.socket().display()))
    }

    fn socket(&self) -> &Path {
        &self.0.setup.socket
    }
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It never ran.
    Created,
    Running,
    Ended,
    Unknown,
}

fn phase(found: &ContainerInspectResponse) -> Phase {
    use ContainerStateStatusEnum as Status;
    match found.state.as_ref().and_then(|state| state.status) {
        Some(Status::CREATED) => Phase::Created,
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
            Phase::Running
        }
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => Phase::Ended,
        Some(Status::EMPTY) | None => Phase::Unknown,
    }
}

fn exit(found: &ContainerInspectResponse, said: Option<String>) -> Exit {
    let state = found.state.clone().unwrap_or_default();
    let said = if state.oom_killed == Some(true) { Some("out of memory".to_owned()) } else { said };
    let code = state.exit_code.unwrap_or_default();
    let small = |number: i64| i32::try_from(number).ok();
    // A program that ends with such a code itself cannot be told from one that a signal ended.
    match code - SIGNALLED {
        1..=64 => Exit { code: None, signal: small(code - SIGNALLED), said },
        _ => Exit { code: small(code), signal: None, said },
    }
}

fn said(follow: bool, lines: &str) -> LogsOptions {
    LogsOptions {
        follow,
        stdout: true,
        stderr: true,
        tail: lines.to_owned(),
        ..LogsOptions::default()
    }
}

impl Backend for Docker {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        Box::pin(self.fingerprint_now())
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        Box::pin(async move {
            self.listen();
            self.start(spec).await
        })
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            let found = self.own(key).await?.filter(|found| phase(found) != Phase::Created);
            Ok(found.map(|found| start::started(&names::container(key), &found)))
        })
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(self.look(key))
    }

    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()> {
        Box::pin(self.end(key, grace))
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(async move {
            match self.own(key).await? {
                Some(_) => self.engine().remove(&names::container(key)).await,
                None => Ok(()),
            }
        })
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        Box::pin(self.erase_data(workspace))
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(async move {
            let found = self.engine().containers(&self.0.setup.owner, None).await?;
            Ok(found.iter().filter_map(|one| names::key_of(one.labels.as_ref()?)).collect())
        })
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        Box::pin(async move {
            match self.newest(workspace).await? {
                Some(name) => self.output(&name, &lines.to_string()).await,
                None => Ok(Bytes::new()),
            }
        })
    }

    fn recover(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.listen();
            self.clear_holders(None).await?;
            events::report_ended(&self.0.engine, &self.0.setup.owner, &self.0.pushes).await
        })
    }

    fn list_data(&self) -> Answer<'_, Vec<WorkspaceId>> {
        Box::pin(self.data())
    }

    fn follow(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(self.follow_log(workspace))
    }

    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(self.export_data(workspace))
    }

    fn import(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        Box::pin(self.import_data(workspace, archive, expected))
    }

    fn import_ahead(&self, workspace: WorkspaceId, archive: Bytestream) -> Answer<'_, Carried> {
        Box::pin(self.take_ahead(workspace, archive))
    }

    fn amend(
        &self,
        workspace: WorkspaceId,
        changes: Bytestream,
        gone: Vec<PathBuf>,
        expected: String,
    ) -> Answer<'_, Carried> {
        Box::pin(self.amend_data(workspace, changes, gone, expected))
    }

    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        Box::pin(self.digest_data(workspace))
    }

    fn list_files(&self, workspace: WorkspaceId, at: Place, depth: u8) -> Answer<'_, Vec<Found>> {
        Box::pin(async move { self.files_below(workspace, &at, depth).await })
    }

    fn read_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, Bytes> {
        Box::pin(async move { self.file(workspace, &at).await })
    }

    fn write_file(&self, workspace: WorkspaceId, at: Place, content: Bytes) -> Answer<'_, ()> {
        Box::pin(async move { self.put_file(workspace, &at, &content).await })
    }

    fn remove_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, ()> {
        Box::pin(async move { self.take_away(workspace, &at).await })
    }

    fn terminal(&self, key: Key, size: (u16, u16)) -> Answer<'_, Terminal> {
        Box::pin(async move {
            if self.look(key).await? != Seen::Running {
                return Err(BackendError::missing(format!(
                    "the container {} does not run",
                    names::container(key)
                )));
            }
            terminal::open(&self.0.engine, key, size).await
        })
    }
}

/// A stream of the engine that ends before its end.
fn broken_stream(cause: Error) -> std::io::Error {
    match cause {
        Error::IOError { err } => err,
        other => std::io::Error::other(other.to_string()),
    }
}
