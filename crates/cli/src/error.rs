//! How a verb fails: a kind that decides the exit code, a chain of causes, and hints as data.

use std::fmt::Display;

use ligand_api::client;
use reqwest::StatusCode;

/// What a verb gives.
pub(crate) type CommandResult<T = ()> = Result<T, CommandError>;

/// Shown below `ligand --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  the operation failed, or the server refused it
   2  the command line is wrong
   3  no server can be reached
   4  the server does not allow it (401, 403)
   5  timed out waiting, or what was awaited cannot come
   6  a drill saw a law broken
   7  what was watched did not come about: a migration was rolled back, a drain left workspaces where they were
  70  internal error; please report it";

const UNREACHABLE: &str = "start one with `ligand up`, or name one with --server";
const UNAUTHENTICATED: &str =
    "pass --token, or LIGAND_TOKEN; the server's admin token is in <data-dir>/admin-token";
const FORBIDDEN: &str = "the token does not allow this; the server's admin token may";

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The operation failed or was refused.
    Failed,
    /// What was asked for makes no sense.
    Usage,
    /// No server can be reached.
    Unreachable,
    /// The server does not allow it.
    Denied,
    /// It took too long, or cannot come any more.
    TimedOut,
    /// A drill saw that a law does not hold.
    Broken,
    /// A migration was rolled back, or a drain left workspaces where they were.
    RolledBack,
    /// Our fault.
    Internal,
    /// Whoever read our output has gone. Not worth a word.
    BrokenPipe,
}

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    error: anyhow::Error,
    hints: Vec<String>,
}

impl CommandError {
    /// An error of this kind, with its causes.
    pub(crate) fn new(kind: Kind, error: anyhow::Error) -> Self {
        Self { kind, error, hints: Vec::new() }
    }

    /// The operation failed or was refused.
    pub(crate) fn failed(what: impl Display) -> Self {
        Self::new(Kind::Failed, anyhow::anyhow!("{what}"))
    }

    /// What was asked for makes no sense.
    pub(crate) fn usage(what: impl Display) -> Self {
        Self::new(Kind::Usage, anyhow::anyhow!("{what}"))
    }

    /// It took too long, or cannot come any more.
    pub(crate) fn timed_out(what: impl Display) -> Self {
        Self::new(Kind::TimedOut, anyhow::anyhow!("{what}"))
    }

    /// No server is known.
    pub(crate) fn no_server() -> Self {
        Self::new(Kind::Unreachable, anyhow::anyhow!("no server is known")).hint(UNREACHABLE)
    }

    /// Our fault.
    pub(crate) fn internal(error: anyhow::Error) -> Self {
        Self::new(Kind::Internal, error)
    }

    /// From writing to stdout, which is only worth a word when its reader is still there.
    pub(crate) fn stdout(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::BrokenPipe => Kind::BrokenPipe,
            _ => Kind::Failed,
        };
        Self::new(kind, anyhow::Error::new(error).context("write to stdout"))
    }

    /// The same, with what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same, with a cause below its text.
    #[must_use]
    pub(crate) fn because(mut self, cause: Option<String>) -> Self {
        if let Some(cause) = cause {
            let text = self.error.to_string();
            self.error = self.error.context(cause).context(text);
        }
        self
    }

    /// What kind it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The documented exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::BrokenPipe => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
            Kind::Denied => 4,
            Kind::TimedOut => 5,
            Kind::Broken => 6,
            Kind::RolledBack => 7,
            Kind::Internal => 70,
        }
    }

    /// What to do about it.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The error and each cause that says something new, outermost first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut said = Vec::<String>::new();
        for cause in self.error.chain().map(ToString::to_string) {
            if !said.iter().any(|line| line.contains(&cause)) {
                said.push(cause);
            }
        }
        said
    }

    /// Its lines: causes, then hints.
    pub(crate) fn lines(&self) -> Vec<String> {
        let labels = std::iter::once("error").chain(std::iter::repeat("cause"));
        let causes = labels.zip(self.causes()).map(|(label, text)| format!("{label}: {text}"));
        causes.chain(self.hints.iter().map(|hint| format!("hint: {hint}"))).collect()
    }
}

impl From<client::Error> for CommandError {
    fn from(error: client::Error) -> Self {
        let (kind, hint) = match &error {
            // A connection that was made and then took too long is not the same as nobody there.
            client::Error::Unreachable { server, source }
                if source.is_timeout() && !source.is_connect() =>
            {
                return Self::timed_out(format!("{server} did not answer in time"));
            }
            client::Error::Unreachable { .. } => (Kind::Unreachable, Some(UNREACHABLE.to_owned())),
            client::Error::Refused { status, body } => match *status {
                StatusCode::UNAUTHORIZED => (Kind::Denied, Some(UNAUTHENTICATED.to_owned())),
                StatusCode::FORBIDDEN => (Kind::Denied, Some(FORBIDDEN.to_owned())),
                _ => (Kind::Failed, body.retry_after.map(|n| format!("try again in {n} s"))),
            },
            client::Error::Unreadable { .. } => {
                (Kind::Failed, Some("`ligand doctor` compares versions".to_owned()))
            }
        };
        let error = Self::new(kind, error.into());
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Whether what went wrong may pass by itself: the server is being replaced, or overloaded.
pub(crate) fn passes(error: &client::Error) -> bool {
    match error {
        client::Error::Unreachable { .. } | client::Error::Unreadable { .. } => true,
        client::Error::Refused { status, .. } => {
            status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_each_cause_once() {
        let error = anyhow::anyhow!("disk full").context("write x: disk full").context("save");
        let error = CommandError::internal(error).hint("free some space");
        assert_eq!(
            error.lines(),
            ["error: save", "cause: write x: disk full", "hint: free some space"]
        );
    }

    #[test]
    fn causes_stand_below_their_error() {
        let error = CommandError::timed_out("not online").because(Some("no recipe".to_owned()));
        assert_eq!(error.lines(), ["error: not online", "cause: no recipe"]);
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let gone = CommandError::stdout(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!((gone.kind(), gone.exit_code()), (Kind::BrokenPipe, 0));
        let full = CommandError::stdout(std::io::ErrorKind::StorageFull.into());
        assert_eq!((full.kind(), full.exit_code()), (Kind::Failed, 1));
    }
}
