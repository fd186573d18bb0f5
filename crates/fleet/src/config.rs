//! Settings of the fleet. A flag wins over the environment, the environment over the file, the file over the default.
//!
//! [`load`] is the only place that reads the environment and the settings file. All mistakes are reported at once. A
//! provider takes the settings that a backend of a platform takes: `[providers.NAME]` is the same table.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ligand_domain::secrets::{Key, Keys};
use ligand_server::config::{
    BackendConfig, BackendKind, ConfigError, FileError, Origin, Problem, Recipe, Secret, Shown,
};
use ligand_server::db::DatabaseUrl;
use serde::Deserialize;

/// Providers that need no entry in the file.
const BUILTIN: [(&str, BackendKind); 3] = [
    ("process", BackendKind::Process),
    ("docker", BackendKind::Docker),
    ("fake", BackendKind::Fake),
];

/// What a command line may say. `None`: not said.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// `--provider`
    pub provider: Option<String>,
    /// `--config`
    pub config: Option<PathBuf>,
}

/// The settings file (TOML). A key that is not known is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    listen: Option<String>,
    data_dir: Option<String>,
    database_url: Option<String>,
    provider: Option<String>,
    stop_grace_seconds: Option<u64>,
    keep_days: Option<u64>,
    agent: Option<Vec<String>>,
    #[serde(default)]
    providers: BTreeMap<String, BackendConfig>,
    #[serde(default)]
    runtimes: BTreeMap<String, Recipe>,
}

/// The settings, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the fleet listens.
    pub listen: SocketAddr,
    /// Where the data is.
    pub database_url: DatabaseUrl,
    /// Where files are kept.
    pub data_dir: PathBuf,
    /// The provider of whoever names none.
    pub provider: String,
    /// Provider accounts by name.
    pub providers: BTreeMap<String, BackendConfig>,
    /// What runs a runtime, for platforms that say no command.
    pub runtimes: BTreeMap<String, Recipe>,
    /// The program that runs beside an agent, and its first arguments.
    pub agent: Vec<String>,
    /// How long an instance may take to end politely.
    pub stop_grace: Duration,
    /// How long decisions are kept.
    pub keep: Duration,
    /// The operator's token. Empty until it was read or minted.
    pub admin_token: Secret,
    /// What platforms provision with. Empty until it was read or minted.
    pub shared_secret: Secret,
    /// What tokens and environments are encrypted with. Without a current one, one is minted at the first start.
    pub keys: Keys,
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
#[expect(clippy::disallowed_methods, reason = "the one place that reads the fleet's environment")]
pub fn load(flags: &Flags) -> Result<Resolved, ConfigError> {
    let file = match &flags.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    resolve(flags, &|name| std::env::var(name).ok(), flags.config.as_deref(), file)
}

fn read(path: &Path) -> Result<File, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Read the text of a settings file.
///
/// # Errors
/// [`FileError::Malformed`] says where and why.
pub fn parse(path: &Path, text: &str) -> Result<File, FileError> {
    toml::from_str(text).map_err(|cause| FileError::Malformed {
        path: path.to_owned(),
        what: cause.to_string().trim().to_owned(),
    })
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
    let mut said = Layers { env, file: path, shown: Vec::new(), problems: Vec::new() };
    let variable = said.variable("LIGAND_LISTEN").or_else(|| {
        let (port, origin) = said.variable("PORT")?;
        Some((format!("127.0.0.1:{}", port.trim()), origin))
    });
    let first =
        said.first(flag("--listen", &flags.listen), variable, file.listen, "127.0.0.1:9090");
    let listen = said.parse("listen", first, "IP:PORT");
    let variable = said.variable("LIGAND_DATA_DIR");
    let first =
        said.first(flag("--data-dir", &flags.data_dir), variable, file.data_dir, "./.ligand");
    let data_dir = PathBuf::from(said.take("data_dir", first));
    let default = format!("sqlite:{}", data_dir.join("fleet.db").display());
    let variable = said.variable("DATABASE_URL");
    let first = said.first(
        flag("--database-url", &flags.database_url),
        variable,
        file.database_url,
        &default,
    );
    let database_url =
        said.parse("database_url", first, "sqlite:PATH or postgres://USER@HOST/DATABASE");
    let variable = said.variable("LIGAND_PROVIDER");
    let first = said.first(flag("--provider", &flags.provider), variable, file.provider, "process");
    let provider = said.provider(first, &file.providers);
    let providers = said.providers(file.providers, &provider);
    let config = Config {
        listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
        database_url: database_url.unwrap_or(DatabaseUrl::Memory),
        data_dir,
        provider,
        providers,
        runtimes: file.runtimes,
        agent: file.agent.unwrap_or_default(),
        stop_grace: Duration::from_secs(said.number(
            "stop_grace_seconds",
            file.stop_grace_seconds,
            5,
        )),
        keep: Duration::from_secs(86_400 * said.number("keep_days", file.keep_days, 30)),
        admin_token: said.secret("admin_token", &["CP_ADMIN_API_TOKEN"]),
        shared_secret: said
            .secret("shared_secret", &["MOLECULE_CP_SHARED_SECRET", "PROVISION_SHARED_SECRET"]),
        keys: Keys {
            current: said.key("secrets_encryption_key", "SECRETS_ENCRYPTION_KEY"),
            previous: said
                .key("secrets_encryption_key_previous", "SECRETS_ENCRYPTION_KEY_PREVIOUS"),
        },
    };
    match said.problems.is_empty() {
        true => Ok(Resolved { config, shown: said.shown }),
        false => Err(ConfigError::Values(said.problems)),
    }
}

/// A value, and who said it.
type Said = (String, Origin);

fn flag(name: &'static str, value: &Option<String>) -> Option<Said> {
    value.clone().map(|value| (value, Origin::Flag(name)))
}

/// Settings being put together.
struct Layers<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    file: Option<&'a Path>,
    shown: Vec<Shown>,
    problems: Vec<Problem>,
}

impl Layers<'_> {
    /// Set but empty is the same as not set.
    fn variable(&self, name: &'static str) -> Option<Said> {
        let value = (self.env)(name).filter(|value| !value.trim().is_empty())?;
        Some((value, Origin::Environment(name)))
    }

    fn of_file(&self, said: bool) -> Origin {
        match self.file.filter(|_| said) {
            Some(path) => Origin::File(path.to_owned()),
            None => Origin::Default,
        }
    }

    fn first(
        &self,
        flag: Option<Said>,
        variable: Option<Said>,
        file: Option<String>,
        default: &str,
    ) -> Said {
        let file = file.map(|value| (value, self.of_file(true)));
        flag.or(variable).or(file).unwrap_or_else(|| (default.to_owned(), Origin::Default))
    }

    fn show(&mut self, name: &'static str, value: &str, origin: Origin) {
        self.shown.push(Shown { name, value: value.to_owned(), origin });
    }

    /// What was said is not repeated: it may hold a password.
    fn problem(&mut self, name: impl Into<String>, origin: &Origin, expected: impl Into<String>) {
        let (name, expected) = (name.into(), expected.into());
        self.problems.push(Problem { name, origin: origin.to_string(), expected });
    }

    fn take(&mut self, name: &'static str, (value, origin): Said) -> String {
        self.show(name, &value, origin);
        value
    }

    fn parse<T: FromStr + fmt::Display>(
        &mut self,
        name: &'static str,
        (value, origin): Said,
        expected: &str,
    ) -> Option<T> {
        match value.trim().parse::<T>() {
            Ok(parsed) => {
                self.show(name, &parsed.to_string(), origin);
                Some(parsed)
            }
            Err(_) => {
                self.problem(name, &origin, format!("expected {expected}"));
                None
            }
        }
    }

    fn number(&mut self, name: &'static str, said: Option<u64>, default: u64) -> u64 {
        let value = said.unwrap_or(default);
        let origin = self.of_file(said.is_some());
        self.show(name, &value.to_string(), origin);
        value
    }

    fn provider(&mut self, said: Said, named: &BTreeMap<String, BackendConfig>) -> String {
        let builtin = BUILTIN.iter().any(|(name, _)| *name == said.0);
        if !builtin && !named.contains_key(&said.0) {
            let expected =
                "expected process, docker, fake, or a [providers.NAME] of the settings file";
            self.problem("provider", &said.1, expected);
        }
        self.take("provider", said)
    }

    fn providers(
        &mut self,
        mut named: BTreeMap<String, BackendConfig>,
        chosen: &str,
    ) -> BTreeMap<String, BackendConfig> {
        let origin = self.of_file(true);
        for (name, provider) in &named {
            for (setting, expected) in provider.mistakes() {
                self.problem(format!("providers.{name}.{setting}"), &origin, expected);
            }
            if provider.speaks_of_containers() {
                let expected = "socket, network, images, image, owner and agent are settings of the kind docker";
                self.problem(format!("providers.{name}"), &origin, expected);
            }
            let misplaced = provider.kind != BackendKind::Fake && !provider.plan.is_empty();
            let wrong = provider.plan.iter().filter_map(|planned| planned.check().err());
            let misplaced =
                misplaced.then(|| "expected none: only the kind `fake` has one".to_owned());
            for expected in misplaced.into_iter().chain(wrong) {
                self.problem(format!("providers.{name}.plan"), &origin, expected);
            }
        }
        let shown = self.of_file(!named.is_empty());
        if let Some((name, kind)) = BUILTIN.iter().find(|(name, _)| *name == chosen) {
            named.entry((*name).to_owned()).or_insert_with(|| BackendConfig::of(*kind));
        }
        let names: Vec<&str> = named.keys().map(String::as_str).collect();
        self.show("providers", &names.join(", "), shown);
        named
    }

    /// A secret that only variables have. Its value is never shown.
    fn secret(&mut self, name: &'static str, variables: &[&'static str]) -> Secret {
        match variables.iter().find_map(|variable| self.variable(variable)) {
            Some((value, origin)) => {
                self.show(name, "(hidden)", origin);
                Secret::new(value.trim().to_owned())
            }
            None => {
                self.show(name, "(minted at the first start)", Origin::Default);
                Secret::new(String::new())
            }
        }
    }

    fn key(&mut self, name: &'static str, variable: &'static str) -> Option<Key> {
        let (value, origin) = self.variable(variable)?;
        let key = Key::parse(value.trim()).or_else(|| Key::parse(&value));
        match key {
            Some(_) => self.show(name, "(hidden)", origin),
            None => {
                self.problem(name, &origin, "expected base64 of 32 bytes, or exactly 32 bytes");
            }
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &Flags, env: &[(&str, &str)], file: &str) -> Result<Resolved, ConfigError> {
        let find = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let path = Path::new("fleet.toml");
        resolve(flags, &find, Some(path), parse(path, file)?)
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let config = of(&Flags::default(), &[], "").unwrap().config;
        assert_eq!(config.listen.to_string(), "127.0.0.1:9090");
        assert_eq!(config.database_url.to_string(), "sqlite:./.ligand/fleet.db");
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["process"]);
        let file = "listen = \"127.0.0.1:1\"\n[providers.hetzner]\nkind = \"fake\"";
        let flags = Flags { provider: Some("hetzner".to_owned()), ..Flags::default() };
        let config = of(&flags, &[("PORT", "2")], file).unwrap().config;
        assert_eq!((config.listen.port(), config.provider.as_str()), (2, "hetzner"));
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["hetzner"]);
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_secret_with_it() {
        let file =
            "provider = \"mars\"\n[providers.a]\nkind = \"process\"\nuid_base = 5\nimage = \"x\"";
        let env = [("LIGAND_LISTEN", "here"), ("SECRETS_ENCRYPTION_KEY", "hunter2")];
        let error = of(&Flags::default(), &env, file).unwrap_err().to_string();
        for name in
            ["listen", "provider", "providers.a.uid_base", "providers.a ", "secrets_encryption_key"]
        {
            assert!(error.contains(name), "{name}: {error}");
        }
        assert!(!error.contains("hunter2"));
        assert!(of(&Flags::default(), &[], "colour = 1").is_err());
    }
}
