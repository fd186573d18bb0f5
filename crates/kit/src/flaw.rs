//! What ends a scenario before its end.

use std::fmt::Debug;

use ligand_server::backend::{BackendError, Capability, ErrorKind};

/// Why a scenario did not hold, or was not tried.
#[derive(Debug)]
pub enum Flaw {
    /// The backend failed where it should not.
    Failed(BackendError),
    /// The backend did something else than it should.
    Broken(String),
    /// The backend does not claim to be able to, or this ground cannot show it: not tried.
    Lacks(String),
}

/// What a scenario comes to.
pub type Done<T = ()> = Result<T, Flaw>;

impl From<BackendError> for Flaw {
    fn from(cause: BackendError) -> Self {
        Self::Failed(cause)
    }
}

impl Flaw {
    /// It is not claimed.
    pub(crate) fn unclaimed(what: Capability) -> Self {
        Self::Lacks(format!("it does not claim `{}`", what.as_str()))
    }

    /// Only who has the machine before him can see to it.
    #[must_use]
    pub fn local(what: &str) -> Self {
        Self::Lacks(format!("needs somebody on the machine: {what}"))
    }

    pub(crate) fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }

    /// What was found is not what was expected.
    pub(crate) fn found(of: &str, found: &dyn Debug, expected: &str, note: &str) -> Self {
        let place = plain(of);
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        Self::Broken(format!("{place}{note}: found {found:?}, expected {expected}"))
    }

    /// As a sentence.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Failed(cause) if cause.kind == ErrorKind::Unsupported => {
                format!("it claims to be able to, and answers `unsupported`: {}", cause.chain())
            }
            Self::Failed(cause) => cause.chain(),
            Self::Broken(what) | Self::Lacks(what) => what.clone(),
        }
    }
}

/// An expression of a scenario as what it asks.
fn plain(code: &str) -> String {
    let mut text = code.split_whitespace().collect::<Vec<_>>().join(" ");
    for noise in ["bench.", "backend.", ".await", "?", "crate::bench::"] {
        text = text.replace(noise, "");
    }
    text
}

/// Both are the same, or the scenario ends.
macro_rules! same {
    ($left:expr, $right:expr $(,)?) => { same!($left, $right, "") };
    ($left:expr, $right:expr, $($note:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if !(*left == *right) {
                    let expected = format!("{right:?}");
                    return Err($crate::flaw::Flaw::found(
                        stringify!($left), left, &expected, &format!($($note)+),
                    ));
                }
            }
        }
    };
}

/// The two differ, or the scenario ends.
macro_rules! differs {
    ($left:expr, $right:expr $(,)?) => { differs!($left, $right, "") };
    ($left:expr, $right:expr, $($note:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left == *right {
                    return Err($crate::flaw::Flaw::found(
                        stringify!($left), left, "something else", &format!($($note)+),
                    ));
                }
            }
        }
    };
}

/// It is so, or the scenario ends.
macro_rules! holds {
    ($what:expr $(,)?) => { holds!($what, "") };
    ($what:expr, $($note:tt)+) => {
        if !$what {
            return Err($crate::flaw::Flaw::found(
                stringify!($what), &false, "true", &format!($($note)+),
            ));
        }
    };
}
