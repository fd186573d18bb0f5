//! Which server, and with which token: flag over environment over what a server on this machine recorded.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use reqwest::Url;

use crate::env::Env;
use crate::error::{CommandError, CommandResult, Kind};
use crate::local::{self, Local};
use crate::output::Format;

/// What every client verb takes.
#[derive(clap::Args)]
#[command(next_help_heading = "Server and output")]
pub(crate) struct ClientArgs {
    /// Address of the server [env: LIGAND_SERVER] [default: the one that runs on this machine]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// What to prove yourself with [env: LIGAND_TOKEN, which is safer: other users can read flags]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// How to print the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: Format,
}

/// Where a setting was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// On the command line.
    Flag,
    /// In the environment.
    Variable(&'static str),
    /// In what a server on this machine recorded.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A server, and what we prove ourselves with. No `Debug`, so that no token is ever printed.
pub(crate) struct Target {
    /// `http://host:port`.
    pub(crate) server: String,
    /// Where that was found.
    pub(crate) server_from: Source,
    /// The token and where it was found.
    pub(crate) token: Option<(String, Source)>,
    /// The organisation that calls name, where one is known.
    pub(crate) organisation: Option<String>,
    /// Why the token that should be there is not.
    pub(crate) trouble: Option<String>,
}

/// Finds the server and the token for it.
pub(crate) fn find(args: &ClientArgs, env: &Env) -> CommandResult<Target> {
    let path = env.state_dir.as_deref().map(local::path);
    let explicit = pick(args.server.as_deref(), env.server.as_deref(), "LIGAND_SERVER");
    let recorded = match path.as_deref().map(local::read).transpose() {
        Ok(recorded) => recorded.flatten(),
        // A broken record matters only to those who need it.
        Err(_) if explicit.is_some() => None,
        Err(error) => {
            return Err(CommandError::new(Kind::Failed, error)
                .hint("remove that file, or name a server with --server"));
        }
    };
    let recorded = recorded.zip(path);
    let (server, server_from) = match (explicit, &recorded) {
        (Some(explicit), _) => explicit,
        (None, Some((local, path))) => (local.server.clone(), Source::File(path.clone())),
        (None, None) => return Err(CommandError::no_server()),
    };
    let server = address(&server)?;
    let here =
        recorded.as_ref().map(|(local, _)| local).filter(|local| recorded_is(local, &server));
    let organisation = here.and_then(|local| local.organisation.clone());
    let organisation = env.organisation.clone().or(organisation);
    let mut target = Target { server, server_from, token: None, organisation, trouble: None };
    match pick(args.token.as_deref(), env.token.as_deref(), "LIGAND_TOKEN") {
        Some((token, from)) => target.token = Some((header(token)?, from)),
        None => {
            let path = recorded.as_ref().and_then(|(local, _)| token_for(local, &target.server));
            if let Some(path) = path {
                target.read_token(path);
            }
        }
    }
    Ok(target)
}

impl Target {
    /// A token that cannot be read is no reason to stop: the server says what it needs it for.
    fn read_token(&mut self, path: &Path) {
        let read =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        match read.map(|text| header(text.trim().to_owned())) {
            Ok(Ok(token)) => self.token = Some((token, Source::File(path.to_owned()))),
            Ok(Err(_)) => self.trouble = Some(format!("{} holds no token", path.display())),
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }
}

fn pick(
    flag: Option<&str>,
    variable: Option<&str>,
    name: &'static str,
) -> Option<(String, Source)> {
    let flag = flag.map(|value| (value.to_owned(), Source::Flag));
    flag.or_else(|| variable.map(|value| (value.to_owned(), Source::Variable(name))))
}

/// The recorded token is for the recorded server: it is shown to no other.
fn token_for<'a>(local: &'a Local, server: &str) -> Option<&'a Path> {
    local.token_path.as_deref().filter(|_| recorded_is(local, server))
}

fn recorded_is(local: &Local, server: &str) -> bool {
    address(&local.server).is_ok_and(|recorded| recorded == server)
}

/// An address in one spelling. Messages name it, so it must not carry a password.
fn address(text: &str) -> CommandResult<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(url) = url else {
        return Err(CommandError::usage("the address of the server is not an http or https URL")
            .hint("for example --server http://127.0.0.1:8080"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CommandError::usage("the address of the server must not carry a credential")
            .hint("pass it in LIGAND_TOKEN"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// A token that can be sent. What it is does not go into the message.
fn header(token: String) -> CommandResult<String> {
    if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(token);
    }
    Err(CommandError::usage("the token is empty, or holds characters that no token has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_beats_the_environment() {
        let env = Env {
            server: Some("http://env:1/".into()),
            token: Some("from-env".into()),
            ..Env::default()
        };
        let mut args =
            ClientArgs { server: Some("http://flag:1".into()), token: None, output: Format::Table };
        let target = find(&args, &env).ok().unwrap();
        assert_eq!((target.server.as_str(), target.server_from), ("http://flag:1", Source::Flag));
        assert_eq!(target.token.unwrap().0, "from-env");
        args.server = None;
        let target = find(&args, &env).ok().unwrap();
        assert_eq!(target.server, "http://env:1");
    }

    #[test]
    fn a_recorded_token_goes_to_its_server_only() {
        let local = Local {
            server: "http://127.0.0.1:8080/".into(),
            token_path: Some("/t".into()),
            organisation: None,
        };
        assert_eq!(token_for(&local, "http://127.0.0.1:8080"), Some(Path::new("/t")));
        assert_eq!(token_for(&local, "http://127.0.0.1:8081"), None);
        assert_eq!(token_for(&local, "https://example.org"), None);
    }

    #[test]
    fn addresses_carry_no_credential() {
        assert_eq!(address("http://[::1]:8080/").unwrap(), "http://[::1]:8080");
        for wrong in ["localhost:8080", "ftp://a", "", "http://user:secret@a"] {
            let error = address(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
            assert!(!error.lines().join("\n").contains("secret"));
        }
    }

    #[test]
    fn tokens_that_cannot_be_sent_are_not_shown() {
        for wrong in ["", "two words", "secret\nline"] {
            let error = header(wrong.to_owned()).unwrap_err();
            assert!(!error.lines().join("\n").contains("secret"));
        }
    }
}
