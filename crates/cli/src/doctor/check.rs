//! One thing looked at.

use serde::Serialize;

use crate::error::CommandError;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, and deserves a look.
    Warn,
    /// Does not work.
    Fail,
}

impl Level {
    /// As it is printed.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// How it stands.
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) what: String,
    /// What was found.
    pub(crate) detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl Check {
    /// As it should be.
    pub(crate) fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), detail: detail.into(), hint: None }
    }

    /// Works, and deserves a look.
    pub(crate) fn warn(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Warn, ..Self::ok(what, detail) }
    }

    /// Does not work.
    pub(crate) fn fail(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::ok(what, detail) }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A check that could not be made: what the verb that needs it would say.
pub(crate) fn refused(what: &str, error: &CommandError) -> Check {
    let check = Check::fail(what, error.causes().join(": "));
    error.hints().iter().fold(check, |check, hint| check.hint(hint.as_str()))
}
