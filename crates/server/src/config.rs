//! Settings. A flag wins over the environment, the environment over the file, the file over the default.
//!
//! [`load`] is the only place that reads the environment and the settings file; everything else is handed a
//! [`Config`]. All mistakes are reported at once, each with the setting's name, where it came from and what
//! was expected.

mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ligand_domain::lease;

use self::file::FileError;
pub use self::file::{BackendConfig, BackendKind, File, Recipe};
use crate::db::DatabaseUrl;
use crate::workspaces::Workspace;

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
    /// The lease of a workspace that no backend runs.
    pub external_stale_after: Duration,
    /// Unknown ids may create themselves by registering.
    pub open_registration: bool,
    /// The runtime of workspaces that name none.
    pub default_runtime: String,
    /// Directories of the host that workspaces may work in.
    pub workspace_roots: Vec<String>,
    /// How long an instance may take to end politely.
    pub stop_grace: Duration,
    /// The program that runs beside an agent, and its first arguments.
    pub agent: Vec<String>,
    /// Backends by name.
    pub backends: BTreeMap<String, BackendConfig>,
    /// Recipes by runtime.
    pub runtimes: BTreeMap<String, Recipe>,
}

impl Config {
    /// Where instances reach the server.
    #[must_use]
    pub fn platform_url(&self) -> String {
        self.platform_url.clone().unwrap_or_else(|| format!("http://{}", self.listen))
    }

    /// The command that runs a workspace: Ligand's agent, around the workspace's own command or its
    /// runtime's.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub fn command_of(&self, workspace: &Workspace) -> Result<Vec<String>, String> {
        let own = match (&workspace.command, self.runtimes.get(&workspace.runtime)) {
            (Some(command), _) => command.clone(),
            (None, Some(recipe)) => recipe.command.clone(),
            (None, None) => {
                let backend = workspace.backend.as_deref().unwrap_or("none");
                let runtime = &workspace.runtime;
                return Err(format!(
                    "the runtime `{runtime}` has no recipe for the backend `{backend}`"
                ));
            }
        };
        let mut command = self.agent.clone();
        if !own.is_empty() {
            command.push("--".to_owned());
            command.extend(own);
        }
        Ok(command)
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
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
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
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment of the server"
)]
pub fn load(flags: &Flags) -> Result<Resolved, ConfigError> {
    let file = match &flags.config {
        Some(path) => File::read(path)?,
        None => File::default(),
    };
    resolve(flags, &|name| std::env::var(name).ok(), flags.config.as_deref(), file)
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
    let mut layers = Layers { env, path, shown: Vec::new(), problems: Vec::new() };
    let port = layers.port();
    let listen = layers.text(
        "listen",
        flags.listen.as_ref().map(|v| ("--listen", v)),
        &["LIGAND_LISTEN"],
        file.listen.as_ref(),
        "127.0.0.1:8080",
    );
    let listen = port.filter(|_| listen.1 == Origin::Default).unwrap_or(listen);
    let listen = layers.parse("listen", listen, "ADDRESS:PORT");
    let data_dir = layers.text(
        "data_dir",
        flags.data_dir.as_ref().map(|v| ("--data-dir", v)),
        &["LIGAND_DATA_DIR"],
        file.data_dir.as_ref(),
        "./.ligand",
    );
    let data_dir = PathBuf::from(layers.keep("data_dir", data_dir));
    let default_url = format!("sqlite:{}", data_dir.join("ligand.db").display());
    let database_url = layers.text(
        "database_url",
        flags.database_url.as_ref().map(|v| ("--database-url", v)),
        &["DATABASE_URL"],
        file.database_url.as_ref(),
        &default_url,
    );
    let database_url =
        layers.parse("database_url", database_url, "sqlite:PATH or postgres://USER@HOST/DATABASE");
    let backend = layers.text(
        "backend",
        flags.backend.as_ref().map(|v| ("--backend", v)),
        &["LIGAND_BACKEND"],
        file.backend.as_ref(),
        "process",
    );
    let backend = layers.backend(backend, &file.backends);
    let mode = layers.optional("deploy_mode", &["MOLECULE_DEPLOY_MODE"]);
    let org_id = layers.optional("org_id", &["MOLECULE_ORG_ID"]);
    let development = layers.optional("environment", &["MOLECULE_ENV"]);
    let stale = layers.text(
        "external_stale_after",
        None,
        &["REMOTE_LIVENESS_STALE_AFTER"],
        None,
        &lease::EXTERNAL_TERM.as_secs().to_string(),
    );
    let stale = layers.parse::<u64>("external_stale_after", stale, "seconds, more than 0");
    let stop_grace = file.stop_grace_seconds.unwrap_or(5);
    let admin_token = (layers.env)("ADMIN_TOKEN").filter(|token| !token.is_empty());
    layers.secret("admin_token", admin_token.is_some());
    let default_runtime =
        layers.text("default_runtime", None, &[], file.default_runtime.as_ref(), "echo");
    let platform_url = layers.optional("platform_url", &["PLATFORM_URL"]);
    let external_platform_url =
        layers.optional("external_platform_url", &["EXTERNAL_PLATFORM_URL"]);
    let config = Config {
        listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
        database_url: database_url.unwrap_or(DatabaseUrl::Memory),
        data_dir,
        admin_token: Secret(admin_token.unwrap_or_default()),
        saas: saas(mode.as_deref(), org_id.as_deref()),
        org_id,
        platform_url,
        external_platform_url,
        development: development.is_some_and(|name| {
            matches!(name.trim().to_lowercase().as_str(), "dev" | "development")
        }),
        external_stale_after: Duration::from_secs(stale.unwrap_or(90).max(1)),
        open_registration: flags.open_registration || file.open_registration.unwrap_or(false),
        default_runtime: layers.keep("default_runtime", default_runtime),
        workspace_roots: file.workspace_roots.unwrap_or_default(),
        stop_grace: Duration::from_secs(stop_grace),
        agent: file.agent.unwrap_or_default(),
        backend,
        backends: file::with_builtin_backends(file.backends),
        runtimes: file::with_builtin_runtimes(file.runtimes),
    };
    match layers.problems.is_empty() {
        true => Ok(Resolved { config, shown: layers.shown }),
        false => Err(ConfigError::Values(layers.problems)),
    }
}

/// The contract's rule: said outright, else by whether there is an organisation.
fn saas(mode: Option<&str>, org_id: Option<&str>) -> bool {
    match mode.map(|mode| mode.trim().to_lowercase()).as_deref() {
        Some("saas") => true,
        None | Some("") => org_id.is_some(),
        Some(_) => false,
    }
}

/// Values as they are said, layer over layer.
struct Layers<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    path: Option<&'a Path>,
    shown: Vec<Shown>,
    problems: Vec<Problem>,
}

type Said = (String, Origin);

impl Layers<'_> {
    fn from_env(&self, names: &[&'static str]) -> Option<Said> {
        names.iter().find_map(|name| {
            let value = (self.env)(name).filter(|value| !value.trim().is_empty())?;
            Some((value, Origin::Environment(name)))
        })
    }

    fn text(
        &self,
        _: &'static str,
        flag: Option<(&'static str, &String)>,
        names: &[&'static str],
        file: Option<&String>,
        default: &str,
    ) -> Said {
        let flag = flag.map(|(name, value)| (value.clone(), Origin::Flag(name)));
        let from_file = || {
            let path = self.path.unwrap_or_else(|| Path::new("")).to_owned();
            file.map(|value| (value.clone(), Origin::File(path)))
        };
        flag.or_else(|| self.from_env(names))
            .or_else(from_file)
            .unwrap_or_else(|| (default.to_owned(), Origin::Default))
    }

    /// The contract's `PORT`: sets the port alone.
    fn port(&self) -> Option<Said> {
        let (port, origin) = self.from_env(&["PORT"])?;
        Some((format!("127.0.0.1:{}", port.trim()), origin))
    }

    fn optional(&mut self, name: &'static str, names: &[&'static str]) -> Option<String> {
        let (value, origin) = self.from_env(names)?;
        self.shown.push(Shown { name, value: value.clone(), origin });
        Some(value.trim().to_owned())
    }

    fn secret(&mut self, name: &'static str, said: bool) {
        let (value, origin) = match said {
            true => ("(hidden)", Origin::Environment("ADMIN_TOKEN")),
            false => ("(minted at the first start)", Origin::Default),
        };
        self.shown.push(Shown { name, value: value.to_owned(), origin });
    }

    fn keep(&mut self, name: &'static str, (value, origin): Said) -> String {
        self.shown.push(Shown { name, value: value.clone(), origin });
        value
    }

    fn parse<T: std::str::FromStr + fmt::Display>(
        &mut self,
        name: &'static str,
        (value, origin): Said,
        expected: &str,
    ) -> Option<T> {
        match value.trim().parse::<T>() {
            Ok(parsed) => {
                self.shown.push(Shown { name, value: parsed.to_string(), origin });
                Some(parsed)
            }
            // What was said is not repeated: it may hold a password.
            Err(_) => {
                let (name, origin) = (name.to_owned(), origin.to_string());
                self.problems.push(Problem {
                    name,
                    origin,
                    expected: format!("expected {expected}"),
                });
                None
            }
        }
    }

    fn backend(
        &mut self,
        (value, origin): Said,
        named: &BTreeMap<String, BackendConfig>,
    ) -> Option<String> {
        let known = value == "none"
            || file::BUILTIN.contains(&value.as_str())
            || named.contains_key(&value);
        self.shown.push(Shown { name: "backend", value: value.clone(), origin: origin.clone() });
        if !known {
            let expected = "expected process, fake, none, or the name of a [backends.NAME] in the settings file".to_owned();
            self.problems.push(Problem {
                name: "backend".to_owned(),
                origin: origin.to_string(),
                expected,
            });
        }
        (value != "none").then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &Flags, env: &[(&str, &str)], file: &str) -> Result<Resolved, ConfigError> {
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let path = Path::new("ligand.toml");
        resolve(flags, &|name| env.get(name).cloned(), Some(path), File::parse(path, file)?)
    }

    fn origin(resolved: &Resolved, name: &str) -> (String, String) {
        let shown = resolved.shown.iter().find(|shown| shown.name == name).unwrap();
        (shown.value.clone(), shown.origin.to_string())
    }

    #[test]
    fn a_flag_wins_over_environment_over_file_over_default() {
        let mut flags = Flags::default();
        let file = "listen = \"127.0.0.1:1\"";
        let env = [("LIGAND_LISTEN", "127.0.0.1:2")];
        let said = |flags: &Flags, env: &[(&str, &str)], file: &str| {
            origin(&check(flags, env, file).unwrap(), "listen")
        };
        assert_eq!(said(&flags, &[], ""), ("127.0.0.1:8080".into(), "default".into()));
        assert_eq!(said(&flags, &[], file), ("127.0.0.1:1".into(), "file ligand.toml".into()));
        assert_eq!(
            said(&flags, &env, file),
            ("127.0.0.1:2".into(), "environment LIGAND_LISTEN".into())
        );
        flags.listen = Some("127.0.0.1:3".to_owned());
        assert_eq!(said(&flags, &env, file), ("127.0.0.1:3".into(), "flag --listen".into()));
        assert_eq!(said(&Flags::default(), &[("PORT", "99")], "").0, "127.0.0.1:99");
    }

    #[test]
    fn every_mistake_is_named_at_once_and_no_value_is_repeated() {
        let flags = Flags { listen: Some("nowhere".to_owned()), ..Flags::default() };
        let env = [("DATABASE_URL", "mysql://root:hunter2@db"), ("LIGAND_BACKEND", "cloud")];
        let text = check(&flags, &env, "").unwrap_err().to_string();
        for expected in [
            "listen (flag --listen)",
            "database_url (environment DATABASE_URL)",
            "backend (environment LIGAND_BACKEND)",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn an_unknown_key_in_the_file_is_an_error_that_names_it() {
        let text = check(&Flags::default(), &[], "lisen = \"x\"").unwrap_err().to_string();
        assert!(text.contains("ligand.toml") && text.contains("lisen"), "{text}");
    }

    #[test]
    fn a_secret_is_never_shown() {
        let resolved = check(&Flags::default(), &[("ADMIN_TOKEN", "s3cret")], "").unwrap();
        assert_eq!(resolved.config.admin_token.reveal(), "s3cret");
        assert!(!format!("{resolved:?}").contains("s3cret"));
    }
}
