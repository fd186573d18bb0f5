//! The settings file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::backend::docker::{self, Network, Setup};
use crate::backend::fake::Planned;
use crate::backend::process::{self, Sandbox};
use crate::backend::provider::Address;

/// Backends that need no entry in the file.
pub(super) const BUILTIN: [&str; 4] = ["process", "docker", "fake", "fleet"];

/// Numbers below are those of users and services of the machine.
const LOWEST_UID: u32 = 10_000;

/// The settings file (TOML). A key that is not known is an error: it is a setting that somebody believes
/// in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub(super) listen: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) database_url: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) default_runtime: Option<String>,
    pub(super) open_registration: Option<bool>,
    pub(super) auth: Option<String>,
    pub(super) workspace_roots: Option<Vec<String>>,
    pub(super) templates_dir: Option<String>,
    pub(super) org_templates_dir: Option<String>,
    pub(super) stop_grace_seconds: Option<u64>,
    pub(super) drain_seconds: Option<u64>,
    pub(super) heartbeat_seconds: Option<u64>,
    pub(super) stale_credential_seconds: Option<u64>,
    pub(super) rotate_after_hours: Option<u64>,
    pub(super) agent: Option<Vec<String>>,
    #[serde(default)]
    pub(super) messages: super::messages::InFile,
    #[serde(default)]
    pub(super) migrations: super::migrations::InFile,
    #[serde(default)]
    pub(super) backends: BTreeMap<String, BackendConfig>,
    #[serde(default)]
    pub(super) runtimes: BTreeMap<String, Recipe>,
}

/// One `[backends.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// `process`, `docker`, `fake`, `provider` or `fleet`.
    pub kind: BackendKind,
    /// Where `process` keeps its instances; `<data-dir>/NAME` unless said.
    pub root: Option<PathBuf>,
    /// As root, the number of the first user of an instance of `process`; 0: all run as the server's user.
    pub uid_base: Option<u32>,
    /// Whether instances of `process` run in a sandbox.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// A delegated control group (version 2), below which each instance of `process` gets its own.
    pub cgroup: Option<PathBuf>,
    /// What goes wrong at a `fake` backend, and when.
    #[serde(default)]
    pub plan: Vec<Planned>,
    /// Where `docker` finds the engine.
    pub socket: Option<PathBuf>,
    /// On which network `docker` starts instances.
    #[serde(default)]
    pub network: Network,
    /// Images of `docker`, by runtime.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// The image of any other runtime, whose name replaces `{runtime}` in it.
    pub image: Option<String>,
    /// What tells this platform's containers from another's on the same engine.
    pub owner: Option<String>,
    /// The agent in the images of `docker`, or where `fleet` starts instances, and its first arguments; empty: what runs
    /// is said by image and runtime.
    pub agent: Option<Vec<String>>,
    /// Where a `provider` answers; where the control plane of `fleet` is, unless a variable says so for all of them.
    pub url: Option<String>,
    /// The file that holds the token of a `provider`.
    pub token_file: Option<PathBuf>,
    /// The environment variable that holds it instead.
    pub token_env: Option<String>,
    /// Where a `provider` answers and its token, once they are read.
    #[serde(skip)]
    pub reached: Option<Address>,
    /// The organisation that asks the control plane of `fleet`, unless it is the server's own.
    pub org: Option<String>,
    /// The control plane's provider that this backend stands for.
    pub provider: Option<String>,
    /// Agents of `fleet` reach this server through a proxy: where they come from says nothing.
    #[serde(default)]
    pub proxied: bool,
}

impl BackendConfig {
    /// One of this kind, about which nothing was said.
    #[must_use]
    pub fn of(kind: BackendKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Settings that make no sense, each with what was expected.
    pub fn mistakes(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let low = self.uid_base.is_some_and(|base| (1..LOWEST_UID).contains(&base));
        let relative = self.cgroup.as_ref().is_some_and(|path| path.is_relative());
        let low = low.then_some(("uid_base", "expected 0, or a number from 10000 on"));
        let relative = relative.then_some(("cgroup", "expected an absolute path"));
        low.into_iter().chain(relative)
    }

    /// Where its data lies, as far as that was said: two backends cannot share it.
    pub(super) fn place(&self) -> Option<PathBuf> {
        if self.kind == BackendKind::Docker {
            // Volumes are called by their workspaces.
            return Some(self.socket.clone().unwrap_or_else(|| docker::SOCKET.into()));
        }
        self.root.clone().filter(|_| self.kind == BackendKind::Process)
    }

    /// How `process` keeps its instances apart.
    #[must_use]
    pub fn process(&self) -> process::Settings {
        let uid_base = self.uid_base.unwrap_or(process::UID_BASE);
        process::Settings {
            uid_base: (uid_base > 0).then_some(uid_base),
            sandbox: self.sandbox,
            cgroup: self.cgroup.clone(),
        }
    }

    /// How `docker` starts instances, for a server with this data directory.
    pub(crate) fn setup(&self, data_dir: &Path) -> Setup {
        let mut images = self.images.clone();
        images.entry("echo".to_owned()).or_insert_with(|| docker::IMAGE.to_owned());
        let here = || std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Setup {
            socket: self.socket.clone().unwrap_or_else(|| docker::SOCKET.into()),
            network: self.network,
            images,
            image: self.image.clone(),
            owner: self.owner.clone().unwrap_or_else(|| here().display().to_string()),
        }
    }

    /// Whether it has settings that are not for its kind.
    #[must_use]
    pub fn speaks_of_containers(&self) -> bool {
        let said = self.socket.is_some()
            || self.network != Network::default()
            || !self.images.is_empty()
            || self.image.is_some()
            || self.owner.is_some();
        let elsewhere = matches!(self.kind, BackendKind::Provider | BackendKind::Fleet);
        let agent = self.agent.is_some() && !elsewhere;
        (said || agent) && self.kind != BackendKind::Docker
    }

    /// Whether it has settings that are for a control plane alone, and is none.
    pub(super) fn speaks_of_a_control_plane(&self) -> bool {
        let said = [&self.org, &self.provider].into_iter().any(Option::is_some);
        let url = self.url.is_some() && self.kind != BackendKind::Provider;
        (said || url || self.proxied) && self.kind != BackendKind::Fleet
    }

    /// Whether its instances are on a network of their own, where this machine has another name.
    pub(crate) fn apart(&self) -> bool {
        match self.kind {
            BackendKind::Process => false,
            BackendKind::Docker => self.network == Network::Bridge,
            BackendKind::Fake | BackendKind::Provider | BackendKind::Fleet => true,
        }
    }

    /// Whether two keep what they hold of a workspace in the same place.
    pub(super) fn beside(&self, other: &Self, roots: (PathBuf, PathBuf), data_dir: &Path) -> bool {
        let place = |of: &Self| {
            let setup = of.setup(data_dir);
            (setup.socket, setup.owner)
        };
        match (self.kind, other.kind) {
            (BackendKind::Process, BackendKind::Process) => roots.0 == roots.1,
            (BackendKind::Docker, BackendKind::Docker) => place(self) == place(other),
            _ => false,
        }
    }

    /// What runs beside the agent's program in an instance, where the backend does not take this server's.
    pub(super) fn own_agent(&self) -> Option<Vec<String>> {
        match self.kind {
            BackendKind::Process | BackendKind::Fake => None,
            BackendKind::Docker | BackendKind::Provider => {
                Some(self.agent.clone().unwrap_or_else(|| vec![docker::AGENT.to_owned()]))
            }
            BackendKind::Fleet => {
                // The fleet puts its own agent in the place of these two words.
                let agent = || ["ligand", "agent"].map(str::to_owned).to_vec();
                Some(self.agent.clone().unwrap_or_else(agent))
            }
        }
    }
}

/// Which kind of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Processes of this machine.
    #[default]
    Process,
    /// Containers of a Docker engine.
    Docker,
    /// Nothing at all.
    Fake,
    /// What another program runs, asked over HTTP.
    Provider,
    /// Whatever a control plane runs, asked over HTTP.
    Fleet,
}

/// One `[runtimes.NAME]`: what runs a workspace of this runtime, beside Ligand's agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Program and arguments; empty is the built-in echo agent.
    #[serde(default)]
    pub command: Vec<String>,
    /// Added to the instance's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long a start may take.
    pub start_deadline_seconds: Option<u64>,
    /// Variables without which it does not start.
    #[serde(default)]
    pub required_env: Vec<String>,
    /// Whether its instances can redeem a passport. Ligand's own agent can, and is put in front of the command unless
    /// this is `false`: then the command is started as it is.
    pub redeems: Option<bool>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the settings file {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what a settings file looks like.
    #[error("the settings file {path} is not understood: {what}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        what: String,
    },
}

/// Read a settings file.
///
/// # Errors
/// [`FileError`] says where and why.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Understand the text of a settings file.
///
/// # Errors
/// [`FileError::Malformed`] says where and why.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, FileError> {
    toml::from_str(text).map_err(|cause| FileError::Malformed {
        path: path.to_owned(),
        what: cause.to_string().trim().to_owned(),
    })
}

/// A built-in backend is there when it is the one that workspaces get unless they say otherwise.
pub(super) fn with_builtin_backend(
    mut named: BTreeMap<String, BackendConfig>,
    chosen: Option<&str>,
) -> BTreeMap<String, BackendConfig> {
    let kinds = [BackendKind::Process, BackendKind::Docker, BackendKind::Fake, BackendKind::Fleet];
    for (name, kind) in BUILTIN.into_iter().zip(kinds) {
        if chosen == Some(name) {
            named.entry(name.to_owned()).or_insert_with(|| BackendConfig::of(kind));
        }
    }
    named
}

pub(super) fn with_builtin_runtimes(
    mut named: BTreeMap<String, Recipe>,
) -> BTreeMap<String, Recipe> {
    named.entry("echo".to_owned()).or_default();
    named
}
