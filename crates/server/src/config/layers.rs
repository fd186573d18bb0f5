//! Layer over layer: what was said of each setting, by whom, and whether it makes sense.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ligand_domain::lease;

use super::file::{self, BackendConfig, BackendKind, Recipe};
use super::{Auth, ConfigError, Origin, Problem, Secret, Shown};
use crate::db::DatabaseUrl;

/// A value, and who said it.
pub type Said = (String, Origin);

/// Settings being put together: of a platform, and of any other server that has settings of this sort.
pub struct Layers<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    /// What a control plane has for this server: below the environment, above the file.
    given: &'a BTreeMap<String, String>,
    file: Option<&'a Path>,
    shown: Vec<Shown>,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    /// Nothing is asked yet. `given` is what a control plane has for this server, `file` where the settings file is.
    #[must_use]
    pub fn new(
        env: &'a dyn Fn(&str) -> Option<String>,
        given: &'a BTreeMap<String, String>,
        file: Option<&'a Path>,
    ) -> Self {
        Self { env, given, file, shown: Vec::new(), problems: Vec::new() }
    }

    /// The settings, and each of them for people.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn finish<T>(self, config: T) -> Result<(T, Vec<Shown>), ConfigError> {
        match self.problems.is_empty() {
            true => Ok((config, self.shown)),
            false => Err(ConfigError::Values(self.problems)),
        }
    }

    /// Where a server listens.
    pub fn listen(
        &mut self,
        flag: Option<&String>,
        file: Option<&String>,
        default: &str,
    ) -> SocketAddr {
        let variable = self.variable("LIGAND_LISTEN").or_else(|| {
            // The contract's variable sets the port alone.
            let (port, origin) = self.variable("PORT")?;
            Some((format!("127.0.0.1:{}", port.trim()), origin))
        });
        let said = self.first(flag.map(|v| ("--listen", v)), variable, file, default);
        self.parse("listen", said, "IP:PORT").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where a server keeps its files.
    pub fn data_dir(&mut self, flag: Option<&String>, file: Option<&String>) -> PathBuf {
        let variable = self.variable("LIGAND_DATA_DIR");
        let said = self.first(flag.map(|v| ("--data-dir", v)), variable, file, "./.ligand");
        self.show("data_dir", &said.0, said.1);
        PathBuf::from(said.0)
    }

    /// Where its data is; in this file, unless somebody says so.
    pub fn database_url(
        &mut self,
        flag: Option<&String>,
        file: Option<&String>,
        default: &Path,
    ) -> DatabaseUrl {
        let default = format!("sqlite:{}", default.display());
        let variable = self.variable("DATABASE_URL");
        let said = self.first(flag.map(|v| ("--database-url", v)), variable, file, &default);
        let expected = "sqlite:PATH or postgres://USER@HOST/DATABASE";
        self.parse("database_url", said, expected).unwrap_or(DatabaseUrl::Memory)
    }

    pub(super) fn backend(
        &mut self,
        flag: Option<&String>,
        file: Option<&String>,
        named: &BTreeMap<String, BackendConfig>,
        default: &str,
    ) -> Option<String> {
        let variable = self.variable("LIGAND_BACKEND");
        let (value, origin) = self.first(flag.map(|v| ("--backend", v)), variable, file, default);
        let builtin = file::BUILTIN.contains(&value.as_str());
        if value != "none" && !builtin && !named.contains_key(&value) {
            let expected = "expected process, docker, fake, fleet, none, or a [backends.NAME] of the settings file";
            self.problem("backend", &origin, expected);
        }
        self.show("backend", &value, origin);
        (value != "none").then_some(value)
    }

    pub(super) fn external_stale_after(&mut self) -> Duration {
        let default = lease::EXTERNAL_TERM.as_secs();
        let seconds = self.number("external_stale_after", "REMOTE_LIVENESS_STALE_AFTER", default);
        Duration::from_secs(seconds)
    }

    /// A number that only a variable has.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        variable: &'static str,
        default: u64,
    ) -> u64 {
        self.lenient(name, variable, &default.to_string()).unwrap_or(default)
    }

    /// A positive number that only a variable has, and that may be missing. As the contract has it: what is
    /// no such number is as good as not said.
    pub(super) fn lenient(
        &mut self,
        name: &'static str,
        variable: &'static str,
        default: &str,
    ) -> Option<u64> {
        let said = self.variable(variable);
        let number = said.and_then(|(value, origin)| Some((value.trim().parse().ok()?, origin)));
        match number.filter(|(number, _): &(u64, Origin)| *number > 0) {
            Some((number, origin)) => {
                self.show(name, &number.to_string(), origin);
                Some(number)
            }
            None => {
                self.show(name, default, Origin::Default);
                None
            }
        }
    }

    /// Faster than every second costs more than it tells; slower than the pace of others is no pace.
    pub(super) fn heartbeat(&mut self, file: Option<u64>) -> Duration {
        let name = "heartbeat_seconds";
        let seconds = self.of_file(name, file, lease::PACED_BEAT.as_secs());
        let most = lease::PLAIN_BEAT.as_secs();
        if !(1..=most).contains(&seconds) {
            let origin = self.file_or_default(true);
            self.problem(name, &origin, &format!("expected a number of seconds, 1 to {most}"));
        }
        Duration::from_secs(seconds)
    }

    pub(super) fn admin_token(&mut self, auth: Auth) -> Secret {
        let said = (self.env)("ADMIN_TOKEN").filter(|token| !token.is_empty());
        match &said {
            Some(_) => self.show("admin_token", "(hidden)", Origin::Environment("ADMIN_TOKEN")),
            None if auth == Auth::Compat => self.show("admin_token", "(none)", Origin::Default),
            None => self.show("admin_token", "(minted at the first start)", Origin::Default),
        }
        Secret::new(said.unwrap_or_default())
    }

    pub(super) fn auth(&mut self, flag: Option<&String>, file: Option<&String>) -> Auth {
        let variable = self.variable("LIGAND_AUTH");
        let said = self.first(flag.map(|v| ("--auth", v)), variable, file, "strict");
        self.parse("auth", said, "strict or compat").unwrap_or_default()
    }

    /// Whoever reaches a server with open doors passes: it has to be somebody on this machine, or the
    /// operator's stated wish.
    pub(super) fn compat_stays_local(&mut self, auth: Auth, listen: SocketAddr, forced: bool) {
        if auth != Auth::Compat || listen.ip().is_loopback() || forced {
            return;
        }
        let shown = self.shown.iter().find(|shown| shown.name == "auth");
        let origin = shown.map_or(Origin::Default, |shown| shown.origin.clone());
        let expected = "compat lets callers pass without a credential, and the server would listen beyond \
            this machine; expected a loopback address (--listen 127.0.0.1:8080), or --force-compat";
        self.problem("auth", &origin, expected);
    }

    pub(super) fn open_registration(
        &mut self,
        flag: bool,
        file: Option<bool>,
        default: bool,
    ) -> bool {
        if flag {
            self.show("open_registration", "true", Origin::Flag("--open-registration"));
            return true;
        }
        self.of_file("open_registration", file, default)
    }

    /// The backends of a table, whose name is in what is said of mistakes. What is built in is there if it is the chosen
    /// one.
    pub fn backends(
        &mut self,
        table: &'static str,
        mut named: BTreeMap<String, BackendConfig>,
        chosen: Option<&str>,
    ) -> BTreeMap<String, BackendConfig> {
        for (name, backend) in &mut named {
            if let Err((setting, expected)) = backend.resolve(self.env) {
                let origin = self.file_or_default(true).to_string();
                let name = format!("{table}.{name}.{setting}");
                self.problems.push(Problem { name, origin, expected });
            }
        }
        for (name, backend) in &named {
            self.plan(table, name, backend);
        }
        if named.values().any(BackendConfig::speaks_of_containers) {
            let expected =
                "socket, network, images, image, owner and agent are settings of the kind docker";
            let origin = self.file_or_default(true);
            self.problem(table, &origin, expected);
        }
        if named.values().any(BackendConfig::speaks_of_a_control_plane) {
            let expected = "url, org, provider and proxied are settings of the kind fleet";
            let origin = self.file_or_default(true);
            self.problem(table, &origin, expected);
        }
        let origin = self.file_or_default(true);
        for (name, backend) in &named {
            for (setting, expected) in backend.mistakes() {
                let (name, origin) = (format!("{table}.{name}.{setting}"), origin.to_string());
                self.problems.push(Problem { name, origin, expected: expected.to_owned() });
            }
        }
        let places: Vec<_> = named.values().filter_map(BackendConfig::place).collect();
        if places.iter().collect::<BTreeSet<_>>().len() < places.len() {
            let expected = "expected a root of its own for each backend of the kind process, and one backend of the \
                kind docker for each engine: they would take each other's data for their own";
            self.problem(table, &origin, expected);
        }
        let named = (!named.is_empty()).then_some(named);
        self.names(table, named, |named| file::with_builtin_backend(named, chosen))
    }

    /// Only what misbehaves can be told how.
    fn plan(&mut self, table: &str, name: &str, backend: &BackendConfig) {
        let (name, origin) =
            (format!("{table}.{name}.plan"), self.file_or_default(true).to_string());
        let misplaced = backend.kind != BackendKind::Fake && !backend.plan.is_empty();
        let expected = "expected none: only a backend of the kind `fake` has one".to_owned();
        let wrong = backend.plan.iter().filter_map(|planned| planned.check().err());
        for expected in misplaced.then_some(expected).into_iter().chain(wrong) {
            self.problems.push(Problem { name: name.clone(), origin: origin.clone(), expected });
        }
    }

    /// What runs the runtimes; the built-in agent is always there.
    pub fn runtimes(&mut self, named: BTreeMap<String, Recipe>) -> BTreeMap<String, Recipe> {
        let named = (!named.is_empty()).then_some(named);
        self.names("runtimes", named, file::with_builtin_runtimes)
    }

    /// Tables of the file: their names are shown, and those that are always there.
    fn names<T>(
        &mut self,
        name: &'static str,
        said: Option<BTreeMap<String, T>>,
        complete: impl FnOnce(BTreeMap<String, T>) -> BTreeMap<String, T>,
    ) -> BTreeMap<String, T> {
        let origin = self.file_or_default(said.is_some());
        let all = complete(said.unwrap_or_default());
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        self.show(name, &names.join(", "), origin);
        all
    }

    /// A setting that only the file has.
    pub fn of_file<T: fmt::Debug>(&mut self, name: &'static str, said: Option<T>, default: T) -> T {
        let origin = self.file_or_default(said.is_some());
        let value = said.unwrap_or(default);
        self.show(name, format!("{value:?}").trim_matches('"'), origin);
        value
    }

    /// A time in seconds that only the file has.
    pub fn seconds(&mut self, name: &'static str, said: Option<u64>, default: u64) -> Duration {
        Duration::from_secs(self.of_file(name, said, default))
    }

    /// The runtime of workspaces that name none.
    pub(super) fn default_runtime(&mut self, said: Option<String>, compat: bool) -> String {
        let usual = if compat { "langgraph" } else { "echo" };
        self.of_file("default_runtime", said, usual.to_owned())
    }

    /// A number above 0 that only a variable has.
    pub(super) fn count(
        &mut self,
        name: &'static str,
        variable: &'static str,
        default: u32,
    ) -> u32 {
        let said = self.first(None, self.variable(variable), None, &default.to_string());
        let origin = said.1.clone();
        match self.parse::<u32>(name, said, "a whole number above 0") {
            Some(0) => {
                self.problem(name, &origin, "expected a whole number above 0");
                default
            }
            parsed => parsed.unwrap_or(default),
        }
    }

    /// A web address that only a variable has, and that may be missing.
    pub(super) fn address(&mut self, name: &'static str, variable: &'static str) -> Option<String> {
        let (value, origin) = self.variable(variable)?;
        let value = value.trim().trim_end_matches('/').to_owned();
        let understood = super::control_plane::is_address(&value);
        if !understood {
            self.problem(name, &origin, "expected an http or https URL without a password");
            return None;
        }
        self.show(name, &value, origin);
        Some(value)
    }

    /// A directory.
    pub(super) fn directory(
        &mut self,
        name: &'static str,
        variable: &'static str,
        file: Option<&String>,
        default: &Path,
    ) -> PathBuf {
        let default = default.display().to_string();
        let (value, origin) = self.first(None, self.variable(variable), file, &default);
        self.show(name, &value, origin);
        PathBuf::from(value)
    }

    /// A directory that may be missing.
    pub(super) fn optional_directory(
        &mut self,
        name: &'static str,
        variable: &'static str,
        file: Option<&String>,
    ) -> Option<PathBuf> {
        let (value, origin) = self.first(None, self.variable(variable), file, "");
        (!value.is_empty()).then(|| {
            self.show(name, &value, origin);
            PathBuf::from(value)
        })
    }

    /// A secret setting that only a variable has, and that may be missing.
    pub fn hidden(&mut self, name: &'static str, variable: &'static str) -> Option<Secret> {
        let (value, origin) = self.variable(variable)?;
        self.show(name, "(hidden)", origin);
        Some(Secret::new(value))
    }

    /// What only a variable has, and may be missing, for a part of the program that takes secrets and others alike.
    pub(super) fn secret(
        &mut self,
        name: &'static str,
        variable: &'static str,
        shown: bool,
    ) -> Option<Secret> {
        if !shown {
            return self.hidden(name, variable);
        }
        self.optional(name, variable).map(Secret::new)
    }

    /// A setting that only the file has, as it is shown.
    pub(super) fn say_of_file(&mut self, name: &'static str, value: &str, in_file: bool) {
        let origin = self.file_or_default(in_file);
        self.show(name, value, origin);
    }

    /// What the file says makes no sense.
    pub(super) fn wrong_in_file(&mut self, name: &'static str, expected: &str) {
        let origin = self.file_or_default(true);
        self.problem(name, &origin, expected);
    }

    /// What a variable says makes no sense.
    pub(super) fn mistake(&mut self, name: &'static str, variable: &'static str, expected: &str) {
        self.problem(name, &Origin::Environment(variable), expected);
    }

    /// A comma list that only a variable has.
    pub(super) fn list(&mut self, name: &'static str, variable: &'static str) -> Vec<String> {
        let Some((value, origin)) = self.variable(variable) else { return Vec::new() };
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Vec<String> = items.map(str::to_owned).collect();
        self.show(name, &items.join(", "), origin);
        items
    }

    /// A setting that only a variable has, and that may be missing.
    pub(super) fn optional(
        &mut self,
        name: &'static str,
        variable: &'static str,
    ) -> Option<String> {
        let (value, origin) = self.variable(variable)?;
        let value = value.trim().to_owned();
        self.show(name, &value, origin);
        Some(value)
    }

    /// Flag over environment over file over default.
    #[must_use]
    pub fn first(
        &self,
        flag: Option<(&'static str, &String)>,
        variable: Option<Said>,
        file: Option<&String>,
        default: &str,
    ) -> Said {
        let flag = flag.map(|(name, value)| (value.clone(), Origin::Flag(name)));
        flag.or(variable)
            .or_else(|| file.map(|value| (value.clone(), self.file_or_default(true))))
            .unwrap_or_else(|| (default.to_owned(), Origin::Default))
    }

    /// What a variable says. Set but empty is the same as not set.
    #[must_use]
    pub fn variable(&self, name: &'static str) -> Option<Said> {
        let said = |value: &String| !value.trim().is_empty();
        let own = (self.env)(name).filter(said).map(|value| (value, Origin::Environment(name)));
        let given = || self.given.get(name).filter(|value| said(value)).cloned();
        own.or_else(|| given().map(|value| (value, Origin::ControlPlane(name))))
    }

    fn file_or_default(&self, said: bool) -> Origin {
        match self.file.filter(|_| said) {
            Some(path) => Origin::File(path.to_owned()),
            None => Origin::Default,
        }
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
                self.problem(name, &origin, &format!("expected {expected}"));
                None
            }
        }
    }

    /// What was said is not repeated: it may hold a password.
    pub fn problem(&mut self, name: impl Into<String>, origin: &Origin, expected: &str) {
        let (name, origin) = (name.into(), origin.to_string());
        self.problems.push(Problem { name, origin, expected: expected.to_owned() });
    }

    /// A setting as people are told it. Never a secret.
    pub fn show(&mut self, name: &'static str, value: &str, origin: Origin) {
        self.shown.push(Shown { name, value: value.to_owned(), origin });
    }
}
