//! Settings: flags over environment, checked together, refused together.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::guards::Guards;
use crate::holdings::Passport;
use crate::identity::Token;
use crate::standby::Mode;

/// What is read from the environment alone, for the end of a help text.
pub const ENVIRONMENT: &str = "\
Environment without a flag:
  MOLECULE_ORG_ID        organisation, sent with every call to the platform
  LIGAND_AGENT_NAME      name on the agent's card (default: the workspace's id)
  LIGAND_LISTEN_STDIN=1  descriptor 0 is the listening socket
  LIGAND_MANAGED=1       a backend started this agent and replaces it
  LIGAND_PASSPORT        right to become one generation; redeemed at the first register
  LIGAND_GENERATION      the generation that it is for
  LIGAND_STANDBY         when the program starts: wait, once the platform says so; pull, once its secrets
                         were fetched from the platform, which wait does too (default: at once)
  LIGAND_SECRET_NAMES    names of the secrets that this instance was given, for its receipt
  LIGAND_ECHO_EFFECTS    for tests: the echo adds a line to this file for each turn it runs
  LIGAND_ECHO_DELAY_MS   for tests: how long a turn of the echo takes";

/// The command line. Each flag wins over the environment variable that its help names.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Address of the platform, for example http://127.0.0.1:8080 [env: PLATFORM_URL]
    #[arg(long, value_name = "URL")]
    pub platform_url: Option<String>,
    /// The workspace this agent is [env: WORKSPACE_ID]
    #[arg(long, value_name = "ID")]
    pub workspace_id: Option<String>,
    /// Directory of the credential files [env: CONFIGS_DIR] [default: /configs]
    #[arg(long, value_name = "DIR")]
    pub configs_dir: Option<PathBuf>,
    /// Where turns are answered [env: LIGAND_AGENT_LISTEN] [default: 127.0.0.1:0]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// URL under which the platform reaches this agent [env: LIGAND_AGENT_URL] [default: http://localhost:PORT]
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Write the log, rotated, into this directory instead of standard error [env: LIGAND_LOG_DIR]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// The agent's program: it must listen on the PORT it is given. Without one, turns are echoed
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Where the agent listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// A socket of our own; port 0 takes a free one.
    Address(SocketAddr),
    /// The listening TCP socket that descriptor 0 is: whoever starts us knows the port beforehand.
    Stdin,
}

/// The program beside the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// What to start; looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl fmt::Display for CommandLine {
    /// The program alone: arguments can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.to_string_lossy().fmt(f)
    }
}

/// Aids for tests, in the built-in echo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Echoing {
    /// Each turn that is run adds a line with its `messageId`, when it begins.
    pub effects: Option<PathBuf>,
    /// How long a turn takes.
    pub delay: Duration,
}

/// Settings that were checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The platform.
    pub platform_url: Url,
    /// The workspace's id.
    pub workspace_id: String,
    /// Directory of the credential files.
    pub configs_dir: PathBuf,
    /// Sent as `X-Molecule-Org-Id` with every call.
    pub org_id: Option<HeaderValue>,
    /// Where turns are answered.
    pub listen: Listen,
    /// URL given at register; `None` means `http://localhost:<port>`.
    pub advertise: Option<String>,
    /// Directory of `agent.log`; `None` means standard error.
    pub log_dir: Option<PathBuf>,
    /// Name on the agent's card.
    pub name: String,
    /// A backend started this agent and replaces it.
    pub managed: bool,
    /// A right to become one generation.
    pub passport: Option<Passport<Token>>,
    /// When the program is started, and where its secrets come from.
    pub standby: Mode,
    /// Names of the secrets that this instance was given.
    pub secret_names: Vec<String>,
    /// Which rules hold: all of them, but for a mutant.
    pub guards: Guards,
    /// How the built-in echo behaves.
    pub echo: Echoing,
    /// The program; `None` is the built-in echo.
    pub command: Option<CommandLine>,
}

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Flag and variable.
    pub setting: &'static str,
    /// What is wrong and what was expected.
    pub wrong: String,
    /// What to do.
    pub hint: &'static str,
}

/// Every setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent cannot start with these settings")?;
        for Problem { setting, wrong, hint } in &self.problems {
            write!(f, "\n  {setting}: {wrong}\n    hint: {hint}")?;
        }
        Ok(())
    }
}

impl Settings {
    /// Put the settings together from flags and `env`, a lookup of environment variables.
    ///
    /// # Errors
    /// All that is wrong, at once. Values are named, except those that could be secrets.
    pub fn resolve(args: Args, env: impl Fn(&str) -> Option<String>) -> Result<Self, Invalid> {
        let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let mut problems = Vec::new();
        let platform_url = platform(args.platform_url.or_else(|| env("PLATFORM_URL")));
        let workspace_id = workspace(args.workspace_id.or_else(|| env("WORKSPACE_ID")));
        let org_id = env("MOLECULE_ORG_ID").map(|id| org(&id)).transpose();
        let listen = if env("LIGAND_LISTEN_STDIN").as_deref() == Some("1") {
            Ok(Listen::Stdin)
        } else {
            listen(args.listen.or_else(|| env("LIGAND_AGENT_LISTEN")))
        };
        let advertise = args.advertise.or_else(|| env("LIGAND_AGENT_URL"));
        let advertise = advertise.map(|text| advertised(&text)).transpose();
        let path = |name| env(name).map(PathBuf::from);
        let configs_dir = args.configs_dir.or_else(|| path("CONFIGS_DIR"));
        let passport = env("LIGAND_PASSPORT").map(|text| passport(&text, env("LIGAND_GENERATION")));
        let passport = passport.transpose();
        let echo = echoing(path("LIGAND_ECHO_EFFECTS"), env("LIGAND_ECHO_DELAY_MS"));
        let standby = env("LIGAND_STANDBY").map_or(Ok(Mode::AtOnce), |word| standby(&word));
        let mut words = args.command.into_iter();
        let command = words.next().map(|program| CommandLine { program, args: words.collect() });

        let (platform_url, workspace_id) =
            (noted(platform_url, &mut problems), noted(workspace_id, &mut problems));
        let (org_id, listen) = (noted(org_id, &mut problems), noted(listen, &mut problems));
        let (advertise, passport) =
            (noted(advertise, &mut problems), noted(passport, &mut problems));
        let (echo, standby) = (noted(echo, &mut problems), noted(standby, &mut problems));
        match (platform_url, workspace_id, org_id, listen, advertise, passport, echo, standby) {
            (
                Some(platform_url),
                Some(workspace_id),
                Some(org_id),
                Some(listen),
                Some(advertise),
                Some(passport),
                Some(echo),
                Some(standby),
            ) => Ok(Self {
                platform_url,
                configs_dir: configs_dir.unwrap_or_else(|| "/configs".into()),
                org_id,
                listen,
                advertise,
                log_dir: args.log_dir.or_else(|| path("LIGAND_LOG_DIR")),
                name: env("LIGAND_AGENT_NAME").unwrap_or_else(|| workspace_id.clone()),
                managed: env("LIGAND_MANAGED").as_deref() == Some("1"),
                passport,
                standby,
                secret_names: names(env("LIGAND_SECRET_NAMES")),
                guards: guards(&env),
                workspace_id,
                echo,
                command,
            }),
            _ => Err(Invalid { problems }),
        }
    }
}

fn names(text: Option<String>) -> Vec<String> {
    text.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

fn echoing(effects: Option<PathBuf>, delay: Option<String>) -> Result<Echoing, Problem> {
    let Some(text) = delay else { return Ok(Echoing { effects, ..Echoing::default() }) };
    let delay = text.trim().parse().map(Duration::from_millis).map_err(|_| Problem {
        setting: "LIGAND_ECHO_DELAY_MS",
        wrong: format!("{text:?} is not a number of milliseconds"),
        hint: "it is meant for tests; leave it unset",
    })?;
    Ok(Echoing { effects, delay })
}

/// Without the feature every rule holds, whatever the environment says.
#[cfg(not(feature = "mutants-by-name"))]
fn guards(_: &impl Fn(&str) -> Option<String>) -> Guards {
    Guards::ON
}

/// A name that is not one of ours is the platform's.
#[cfg(feature = "mutants-by-name")]
fn guards(env: &impl Fn(&str) -> Option<String>) -> Guards {
    let off = env("LIGAND_MUTANT").and_then(|name| crate::guards::Guard::parse(name.trim()));
    off.map_or(Guards::ON, Guards::without)
}

fn standby(word: &str) -> Result<Mode, Problem> {
    Mode::parse(word.trim()).ok_or_else(|| Problem {
        setting: "LIGAND_STANDBY",
        wrong: format!("{word:?} is neither wait nor pull"),
        hint: "whoever starts this agent sets it; leave it unset to start the program at once",
    })
}

/// The generation names what is obtained with it; where none is told, the passport's first characters do.
fn passport(text: &str, generation: Option<String>) -> Result<Passport<Token>, Problem> {
    let problem = |setting, wrong: &str| Problem {
        setting,
        wrong: wrong.to_owned(),
        hint: "whoever starts this agent sets it; leave it out to start without",
    };
    let value = Token::parse(text).ok_or_else(|| {
        problem("LIGAND_PASSPORT", "is no passport: one line of printable ASCII was expected")
    })?;
    let name = match generation {
        Some(text) => text.trim().to_owned(),
        None => format!("passport-{}", value.prefix()),
    };
    let origin = Token::parse(&name)
        .ok_or_else(|| problem("LIGAND_GENERATION", "is no generation: a number was expected"))?;
    Ok(Passport { value, origin })
}

/// Keeps a problem for the answer that names them all.
fn noted<T>(checked: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    checked.map_err(|problem| problems.push(problem)).ok()
}

fn platform(text: Option<String>) -> Result<Url, Problem> {
    let problem = |wrong: String| Problem {
        setting: "--platform-url (PLATFORM_URL)",
        wrong,
        hint: "the address that `ligand up` prints, for example http://127.0.0.1:8080",
    };
    let text =
        text.ok_or_else(|| problem("not set; the platform's URL was expected".to_owned()))?;
    http_url(&text).ok_or_else(|| problem(not_a_url(&text)))
}

fn advertised(text: &str) -> Result<String, Problem> {
    let problem = || Problem {
        setting: "--advertise (LIGAND_AGENT_URL)",
        wrong: not_a_url(text),
        hint: "leave it out where the platform runs on the same machine",
    };
    http_url(text).map(|_| text.trim().to_owned()).ok_or_else(problem)
}

/// An address may carry a password before its `@`: nothing of it is repeated then.
fn not_a_url(text: &str) -> String {
    let shown = if text.contains('@') { "the value" } else { text };
    format!("{shown:?} is not a plain http:// or https:// URL: host, port, path")
}

fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let nobody = url.username().is_empty() && url.password().is_none();
    let plain = nobody && url.query().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

fn workspace(text: Option<String>) -> Result<String, Problem> {
    let problem = |wrong: String| Problem {
        setting: "--workspace-id (WORKSPACE_ID)",
        wrong,
        hint: "the id that `ligand ws list` shows",
    };
    let text = text.ok_or_else(|| problem("not set; a workspace's id was expected".to_owned()))?;
    let id = text.trim();
    let (first, rest) = id.split_at_checked(1).unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good =
        first.starts_with(plain) && rest.len() <= 127 && rest.chars().all(|c| plain(c) || c == '-');
    if good {
        return Ok(id.to_owned());
    }
    Err(problem(format!(
        "{id:?} is not an id: 1 to 128 characters a-z, 0-9 and -, the first not -"
    )))
}

fn org(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text.trim()).map_err(|_| Problem {
        setting: "MOLECULE_ORG_ID",
        wrong: "holds characters that a header cannot carry".to_owned(),
        hint: "the organisation's id as it was given to you, or leave it unset",
    })
}

fn listen(text: Option<String>) -> Result<Listen, Problem> {
    let text = text.unwrap_or_else(|| "127.0.0.1:0".to_owned());
    text.trim().parse().map(Listen::Address).map_err(|_| Problem {
        setting: "--listen (LIGAND_AGENT_LISTEN)",
        wrong: format!("{text:?} is not an IP address with a port"),
        hint: "127.0.0.1:0 takes a free port of this machine",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(env: &[(&str, &str)]) -> Result<Settings, Invalid> {
        resolve_over(Args::default(), env)
    }

    fn resolve_over(args: Args, env: &[(&str, &str)]) -> Result<Settings, Invalid> {
        let found = |name: &str| env.iter().find(|(key, _)| *key == name);
        Settings::resolve(args, |name| found(name).map(|(_, value)| (*value).to_owned()))
    }

    const ENOUGH: [(&str, &str); 2] =
        [("PLATFORM_URL", "http://127.0.0.1:8080/"), ("WORKSPACE_ID", " ws-1\n")];

    #[test]
    fn two_settings_are_enough() {
        let settings = resolve(&ENOUGH).expect("valid");
        assert_eq!(settings.workspace_id, "ws-1");
        assert_eq!(settings.name, "ws-1");
        assert_eq!(settings.configs_dir, PathBuf::from("/configs"));
        assert_eq!(settings.listen, Listen::Address(([127, 0, 0, 1], 0).into()));
        assert!(!settings.managed && settings.command.is_none() && settings.log_dir.is_none());
    }

    #[test]
    fn flags_win_over_the_environment() {
        let args = Args {
            workspace_id: Some("from-flag".to_owned()),
            configs_dir: Some("/flag".into()),
            command: vec!["run".into(), "me".into()],
            ..Args::default()
        };
        let env = [ENOUGH[0], ENOUGH[1], ("CONFIGS_DIR", "/env"), ("LIGAND_MANAGED", "1")];
        let settings = resolve_over(args, &env).expect("valid");
        assert_eq!(settings.workspace_id, "from-flag");
        assert_eq!(settings.configs_dir, PathBuf::from("/flag"));
        assert!(settings.managed);
        let expected = CommandLine { program: "run".into(), args: vec!["me".into()] };
        assert_eq!(settings.command, Some(expected));
    }

    #[test]
    fn the_socket_on_descriptor_0_wins_over_an_address() {
        let env = [ENOUGH[0], ENOUGH[1], ("LIGAND_LISTEN_STDIN", "1")];
        assert_eq!(resolve(&env).expect("valid").listen, Listen::Stdin);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let bad = [
            ("WORKSPACE_ID", "Not An Id"),
            ("MOLECULE_ORG_ID", "a\nb"),
            ("LIGAND_AGENT_LISTEN", "localhost"),
            ("LIGAND_AGENT_URL", "ftp://x"),
        ];
        let text = resolve(&bad).expect_err("all wrong").to_string();
        for name in bad.iter().map(|(name, _)| *name).chain(["PLATFORM_URL"]) {
            assert!(text.contains(name), "{name} is missing in: {text}");
        }
        assert_eq!(text.matches("hint: ").count(), 5);
    }

    #[test]
    fn ids_are_checked() {
        let long = "a".repeat(128);
        for good in ["a", "0", "a-b-", long.as_str()] {
            assert!(workspace(Some(good.to_owned())).is_ok(), "{good}");
        }
        let longer = "a".repeat(129);
        for bad in ["", "-a", "A", "a_b", "ä", "a b", "../a", longer.as_str()] {
            assert!(workspace(Some(bad.to_owned())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let bad = [ENOUGH[1], ("PLATFORM_URL", "http://user:secret@host")];
        assert!(!resolve(&bad).expect_err("refused").to_string().contains("secret"));
    }
}
