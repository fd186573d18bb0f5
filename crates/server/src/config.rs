//! Settings. A flag wins over the environment, the environment over the file, the file over the default.
//!
//! [`load`] is the only place that reads the environment and the settings file; everything else is handed a
//! [`Config`]. All mistakes are reported at once, each with the setting's name, where it came from and what
//! was expected.

mod control_plane;
mod edge;
mod file;
mod given;
mod keys;
mod layers;
mod messages;
mod migrations;
mod provider;
mod retention;
mod templates;
mod tiers;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ligand_domain::converge;
use ligand_domain::guards::Guards;
use ligand_domain::secrets::Keys;
use ligand_domain::sweep;

pub use self::control_plane::ControlPlane;
pub use self::edge::Edge;
pub use self::file::{BackendConfig, BackendKind, File, FileError, Recipe, parse, read};
pub use self::given::{fetch, given};
pub use self::layers::{Layers, Said};
pub use self::messages::Messages;
pub use self::migrations::Migrations;
pub use self::retention::Retention;
pub use self::templates::Templates;
pub use self::tiers::Tiers;
use crate::db::DatabaseUrl;

/// Where a server listens, unless said otherwise.
const LISTEN: &str = "127.0.0.1:8080";
/// How long an instance may take to end politely, unless said otherwise (s).
const STOP_GRACE: u64 = 5;

/// What a command line may say. `None`: not said.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// `--backend`
    pub backend: Option<String>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--open-registration`
    pub open_registration: bool,
    /// `--auth`
    pub auth: Option<String>,
    /// `--force-compat`
    pub force_compat: bool,
}

/// Which of the contract's rules about credentials apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Nobody passes without a credential, nor because the database failed.
    #[default]
    Strict,
    /// The contract to the letter, its open doors included. For moving a fleet over, on loopback.
    Compat,
}

impl std::str::FromStr for Auth {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "strict" => Ok(Self::Strict),
            "compat" => Ok(Self::Compat),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Compat => "compat",
        })
    }
}

/// A secret setting. Only [`Secret::reveal`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wrap it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The settings, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where the data is.
    pub database_url: DatabaseUrl,
    /// Where files are kept.
    pub data_dir: PathBuf,
    /// The backend of workspaces that name none; `None`: only external workspaces.
    pub backend: Option<String>,
    /// The administrator's token. Empty until the server has read or minted it.
    pub admin_token: Secret,
    /// What secrets are encrypted with.
    pub secrets: Keys,
    /// Whether the contract's open doors are open.
    pub auth: Auth,
    /// What stands in front of every route.
    pub edge: Edge,
    /// Who asks a control plane for instances, and where it is.
    pub control_plane: ControlPlane,
    /// Which rules hold: all of them, but for a mutant. No setting of an operator.
    pub guards: Guards,
    /// The organisation.
    pub org_id: Option<String>,
    /// Where instances reach the server; `None`: at the address that it listens on.
    pub platform_url: Option<String>,
    /// Where agents elsewhere reach the server.
    pub external_platform_url: Option<String>,
    /// Loopback and private addresses may be called.
    pub development: bool,
    /// Private addresses are ours.
    pub saas: bool,
    /// Names below it, of the form `ws-….DOMAIN`, may be registered before they resolve.
    pub app_domain: Option<String>,
    /// The lease of a workspace that no backend runs.
    pub external_stale_after: Duration,
    /// Unknown ids may create themselves by registering.
    pub open_registration: bool,
    /// The runtime of workspaces that name none.
    pub default_runtime: String,
    /// Directories of the host that workspaces may work in.
    pub workspace_roots: Vec<String>,
    /// Where templates are.
    pub templates: Templates,
    /// What instances may use, by tier.
    pub tiers: Tiers,
    /// How long an instance may take to end politely.
    pub stop_grace: Duration,
    /// How long an agent that is about to be replaced is told that it has left. Zero: it is not told.
    pub drain: Duration,
    /// The pace that agents are asked for which follow one; their lease is three beats.
    pub heartbeat: Duration,
    /// How long a left over credential must be idle before a sweep ends it.
    pub stale_credential_after: Duration,
    /// Credentials older than this are rotated, where the agent can. Zero: never.
    pub rotate_after: Duration,
    /// How long a start may take, whatever its runtime.
    pub provision_timeout: Option<Duration>,
    /// How long what happened is kept.
    pub retention: Retention,
    /// How long messages are recognised, and how long they may wait.
    pub messages: Messages,
    /// How workspaces go from one backend to another.
    pub migrations: Migrations,
    /// The program that runs beside an agent, and its first arguments.
    pub agent: Vec<String>,
    /// Backends by name.
    pub backends: BTreeMap<String, BackendConfig>,
    /// Recipes by runtime.
    pub runtimes: BTreeMap<String, Recipe>,
}

impl Config {
    /// Whether the contract's open doors are open.
    #[must_use]
    pub fn compat(&self) -> bool {
        self.auth == Auth::Compat
    }

    /// The contract's development mode: with no administrator's token, everybody is one.
    #[must_use]
    pub fn fails_open(&self) -> bool {
        self.compat() && self.development && self.admin_token.reveal().is_empty()
    }

    /// Where instances reach the server.
    #[must_use]
    pub fn platform_url(&self) -> String {
        self.platform_url.clone().unwrap_or_else(|| format!("http://{}", self.listen))
    }

    /// How long a start of this runtime may take, where its templates declare so much.
    #[must_use]
    pub fn start_deadline(&self, runtime: &str, declared: Option<Duration>) -> Duration {
        let recipe = self.runtimes.get(runtime).and_then(|recipe| recipe.start_deadline_seconds);
        let recipe = recipe.map(Duration::from_secs);
        converge::start_deadline(runtime, declared, recipe, self.provision_timeout)
    }

    /// The command that runs a workspace: Ligand's agent, around the workspace's own command or its
    /// runtime's.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub fn command_of(
        &self,
        own: Option<&[String]>,
        runtime: &str,
        backend: &str,
    ) -> Result<Vec<String>, String> {
        let redeems = self.redeems(own, runtime, backend);
        let own = match (own, self.runtimes.get(runtime)) {
            (Some(command), _) => command,
            (None, Some(recipe)) => &recipe.command,
            // What it runs is the control plane's business.
            (None, None) if self.elsewhere(backend) => &[],
            (None, None) => {
                return Err(format!(
                    "the runtime `{runtime}` has no recipe for the backend `{backend}`"
                ));
            }
        };
        if !redeems {
            return Ok(own.to_vec());
        }
        let elsewhere = self.backends.get(backend).and_then(BackendConfig::own_agent);
        let mut command = elsewhere.unwrap_or_else(|| self.agent.clone());
        if !own.is_empty() && !command.is_empty() {
            command.push("--".to_owned());
        }
        command.extend_from_slice(own);
        Ok(command)
    }
}

impl Config {
    /// Whether a control plane decides what runs there.
    fn elsewhere(&self, backend: &str) -> bool {
        self.backends.get(backend).is_some_and(|of| of.kind == BackendKind::Fleet)
    }

    /// Whether an instance of this runtime can redeem a passport, as Ligand's own agent can: what its recipe says; else
    /// whether that agent is what runs there. Of a runtime without a recipe, a control plane decides what runs.
    #[must_use]
    pub fn redeems(&self, own: Option<&[String]>, runtime: &str, backend: &str) -> bool {
        let recipe = self.runtimes.get(runtime);
        let agent = self.backends.get(backend).and_then(BackendConfig::own_agent);
        let ours = agent.is_none_or(|agent| !agent.is_empty());
        let known = recipe.is_some() || own.is_some() || !self.elsewhere(backend);
        recipe.and_then(|recipe| recipe.redeems).unwrap_or(ours && known)
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// This file.
    File(PathBuf),
    /// This variable.
    Environment(&'static str),
    /// This variable, as a control plane has it for this server.
    ControlPlane(&'static str),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::ControlPlane(name) => write!(f, "control plane {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One setting, for `config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its value; never a secret.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A mistake in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} ({origin}): {expected}")]
pub struct Problem {
    /// Which setting.
    pub name: String,
    /// Where it came from.
    pub origin: String,
    /// What was expected.
    pub expected: String,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or understood.
    #[error(transparent)]
    File(#[from] FileError),
    /// Values that make no sense, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Values(Vec<Problem>),
}

/// Settings, and where each came from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The settings.
    pub config: Config,
    /// Each of them, for people.
    pub shown: Vec<Shown>,
}

/// Read environment and file, and resolve.
///
/// # Errors
/// [`ConfigError`], all mistakes at once.
pub fn load(flags: &Flags) -> Result<Resolved, ConfigError> {
    load_with(flags, &BTreeMap::new())
}

/// The same, with what a control plane has for this server ([`given`]).
///
/// # Errors
/// [`ConfigError`], all mistakes at once.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment of the server"
)]
pub fn load_with(flags: &Flags, given: &BTreeMap<String, String>) -> Result<Resolved, ConfigError> {
    let file = match &flags.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    let env = |name: &str| std::env::var(name).ok();
    resolve_with(flags, &env, given, flags.config.as_deref(), file)
}

/// Resolve, given everything that was said.
///
/// # Errors
/// Every value that makes no sense.
pub fn resolve(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    path: Option<&Path>,
    file: File,
) -> Result<Resolved, ConfigError> {
    resolve_with(flags, env, &BTreeMap::new(), path, file)
}

/// The same, with what a control plane has for this server: the environment wins over it, it wins over the file.
///
/// # Errors
/// Every value that makes no sense.
pub fn resolve_with(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    given: &BTreeMap<String, String>,
    path: Option<&Path>,
    file: File,
) -> Result<Resolved, ConfigError> {
    let mut said = Layers::new(env, given, path);
    let listen = said.listen(flags.listen.as_ref(), file.listen.as_ref(), LISTEN);
    let data_dir = said.data_dir(flags.data_dir.as_ref(), file.data_dir.as_ref());
    let database = data_dir.join("ligand.db");
    let database_url =
        said.database_url(flags.database_url.as_ref(), file.database_url.as_ref(), &database);
    let org_id = said.optional("org_id", "MOLECULE_ORG_ID");
    let mode = said.optional("deploy_mode", "MOLECULE_DEPLOY_MODE");
    let environment = said.optional("environment", "MOLECULE_ENV").unwrap_or_default();
    let auth = said.auth(flags.auth.as_ref(), file.auth.as_ref());
    said.compat_stays_local(auth, listen, flags.force_compat);
    let compat = auth == Auth::Compat;
    let kind = if compat && org_id.is_some() { "fleet" } else { "process" };
    let backend = said.backend(flags.backend.as_ref(), file.backend.as_ref(), &file.backends, kind);
    let backends = said.backends("backends", file.backends, backend.as_deref());
    let admin_token = said.admin_token(auth);
    let config = Config {
        listen,
        database_url,
        control_plane: said.control_plane(&admin_token, &backends, org_id.as_deref()),
        admin_token,
        guards: Guards::ON,
        auth,
        edge: Edge::resolve(&mut said, &environment),
        secrets: keys::resolve(&mut said, &environment),
        saas: saas(mode.as_deref(), org_id.as_deref()),
        app_domain: said.optional("app_domain", "MOLECULE_APP_DOMAIN"),
        org_id,
        platform_url: said.optional("platform_url", "PLATFORM_URL"),
        external_platform_url: said.optional("external_platform_url", "EXTERNAL_PLATFORM_URL"),
        development: matches!(environment.to_lowercase().as_str(), "dev" | "development"),
        external_stale_after: said.external_stale_after(),
        open_registration: said.open_registration(
            flags.open_registration,
            file.open_registration,
            compat,
        ),
        default_runtime: said.default_runtime(file.default_runtime, compat),
        workspace_roots: said.of_file("workspace_roots", file.workspace_roots, Vec::new()),
        templates: Templates::resolve(
            &mut said,
            (file.templates_dir.as_ref(), file.org_templates_dir.as_ref()),
            &data_dir,
        ),
        tiers: Tiers::resolve(&mut said),
        migrations: Migrations::resolve(&mut said, file.migrations, &data_dir),
        data_dir,
        stop_grace: said.seconds("stop_grace_seconds", file.stop_grace_seconds, STOP_GRACE),
        drain: Duration::from_secs(said.of_file("drain_seconds", file.drain_seconds, 20)),
        heartbeat: said.heartbeat(file.heartbeat_seconds),
        stale_credential_after: Duration::from_secs(said.of_file(
            "stale_credential_seconds",
            file.stale_credential_seconds,
            sweep::IDLE.as_secs(),
        )),
        rotate_after: hours(said.of_file("rotate_after_hours", file.rotate_after_hours, 0)),
        provision_timeout: said
            .lenient("provision_timeout", "PROVISION_TIMEOUT_SECONDS", "by runtime")
            .map(Duration::from_secs),
        retention: Retention::resolve(&mut said),
        messages: Messages::resolve(&mut said, file.messages),
        agent: said.of_file("agent", file.agent, Vec::new()),
        backends,
        runtimes: said.runtimes(file.runtimes),
        backend,
    };
    let (config, shown) = said.finish(config)?;
    Ok(Resolved { config, shown })
}

fn hours(number: u64) -> Duration {
    Duration::from_secs(number.saturating_mul(3600))
}

/// The contract's rule: said outright, else by whether there is an organisation.
fn saas(mode: Option<&str>, org_id: Option<&str>) -> bool {
    match mode.map(str::to_lowercase).as_deref() {
        Some("saas") => true,
        None => org_id.is_some(),
        Some("self-hosted" | "selfhosted" | "standalone") => false,
        Some(_) => {
            tracing::warn!(
                "MOLECULE_DEPLOY_MODE is neither saas nor self-hosted: private addresses are refused"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests;
