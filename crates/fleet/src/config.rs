//! Settings of the fleet. A flag wins over the environment, the environment over the file, the file over the default.
//!
//! [`load`] is the only place that reads the environment and the settings file. All mistakes are reported at once. A
//! provider takes the settings that a backend of a platform takes: `[providers.NAME]` is the same table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ligand_domain::secrets::Keys;
use ligand_server::config::{
    self, BackendConfig, BackendKind, ConfigError, Layers, Origin, Recipe, Secret, Shown,
};
use ligand_server::db::DatabaseUrl;
use serde::Deserialize;

/// Where a fleet listens, unless said otherwise.
const LISTEN: &str = "127.0.0.1:9090";
/// Providers that need no entry in the file.
const BUILTIN: [&str; 3] = ["process", "docker", "fake"];

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
        Some(path) => config::read(path)?,
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
    let nothing = BTreeMap::new();
    let mut said = Layers::new(env, &nothing, path);
    let listen = said.listen(flags.listen.as_ref(), file.listen.as_ref(), LISTEN);
    let data_dir = said.data_dir(flags.data_dir.as_ref(), file.data_dir.as_ref());
    let database = data_dir.join("fleet.db");
    let database_url =
        said.database_url(flags.database_url.as_ref(), file.database_url.as_ref(), &database);
    let (provider, origin) = said.first(
        flags.provider.as_ref().map(|name| ("--provider", name)),
        said.variable("LIGAND_PROVIDER"),
        file.provider.as_ref(),
        "process",
    );
    if !BUILTIN.contains(&provider.as_str()) && !file.providers.contains_key(&provider) {
        let expected = "expected process, docker, fake, or a [providers.NAME] of the settings file";
        said.problem("provider", &origin, expected);
    }
    said.show("provider", &provider, origin);
    for (name, _) in file.providers.iter().filter(|(_, of)| of.kind == BackendKind::Fleet) {
        let origin = path.map_or(Origin::Default, |path| Origin::File(path.to_owned()));
        let expected = "expected another kind: a fleet runs nothing on a fleet";
        said.problem(format!("providers.{name}.kind"), &origin, expected);
    }
    let providers = said.backends("providers", file.providers, Some(&provider));
    let config = Config {
        listen,
        database_url,
        data_dir,
        provider,
        providers,
        runtimes: said.runtimes(file.runtimes),
        agent: said.of_file("agent", file.agent, Vec::new()),
        stop_grace: said.seconds("stop_grace_seconds", file.stop_grace_seconds, 5),
        keep: Duration::from_secs(86_400 * said.of_file("keep_days", file.keep_days, 30)),
        admin_token: secret(&mut said, "admin_token", &["CP_ADMIN_API_TOKEN"]),
        shared_secret: secret(
            &mut said,
            "shared_secret",
            &["MOLECULE_CP_SHARED_SECRET", "PROVISION_SHARED_SECRET"],
        ),
        keys: Keys {
            current: said.key("secrets_encryption_key", "SECRETS_ENCRYPTION_KEY"),
            previous: said
                .key("secrets_encryption_key_previous", "SECRETS_ENCRYPTION_KEY_PREVIOUS"),
        },
    };
    let (config, shown) = said.finish(config)?;
    Ok(Resolved { config, shown })
}

/// A secret that only variables have, the first of which wins; empty where it is to be minted.
fn secret(said: &mut Layers<'_>, name: &'static str, variables: &[&'static str]) -> Secret {
    let set = variables.iter().find_map(|variable| said.hidden(name, variable));
    if set.is_none() {
        said.show(name, "(minted at the first start)", Origin::Default);
    }
    Secret::new(set.as_ref().map(Secret::reveal).unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &Flags, env: &[(&str, &str)], file: &str) -> Result<Resolved, ConfigError> {
        let find = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let path = Path::new("fleet.toml");
        resolve(flags, &find, Some(path), config::parse(path, file)?)
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
            ["listen", "provider", "providers.a.uid_base", "providers (", "secrets_encryption_key"]
        {
            assert!(error.contains(name), "{name}: {error}");
        }
        assert!(!error.contains("hunter2"));
        assert!(of(&Flags::default(), &[], "colour = 1").is_err());
        let fleet = "[providers.a]\nkind = \"fleet\"\nurl = \"http://a\"";
        let error = of(&Flags::default(), &[], fleet).unwrap_err().to_string();
        assert!(error.contains("providers.a.kind"), "{error}");
    }

    #[test]
    fn a_program_that_speaks_the_protocol_can_be_a_provider() {
        let file = "[providers.a]\nkind = \"provider\"\nurl = \"https://a.example\"\ntoken_env = \"TOKEN_OF_A\"";
        let config = of(&Flags::default(), &[("TOKEN_OF_A", "hunter2")], file).unwrap().config;
        assert!(config.providers["a"].reached.is_some());
        let error = of(&Flags::default(), &[], file).unwrap_err().to_string();
        assert!(error.contains("providers.a.token_env"), "{error}");
    }
}
