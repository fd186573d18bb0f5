//! A call that is not let in, and what a proven former holder is told about it.

use std::time::Duration;

/// Which line of the table refused. For the journal; a stranger never sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The workspace is removed or purged.
    Removed,
    /// A credential that was valid once.
    FormerHolder,
    /// A bearer that was never valid here.
    Stranger,
    /// No bearer.
    Nothing,
    /// No such workspace.
    UnknownId,
}

impl Line {
    /// As the journal says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "the workspace is removed",
            Self::FormerHolder => "the credential was valid once",
            Self::Stranger => "the credential was never issued here",
            Self::Nothing => "no credential was presented",
            Self::UnknownId => "no such workspace",
        }
    }
}

/// A refusal, and what the caller may be told about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which line refused.
    pub line: Line,
    /// A bearer was sent: the contract's text is "invalid …", else "missing …".
    pub bearer: bool,
    /// Why and what to do; only for somebody who proved to be a former holder.
    pub told: Option<Told>,
    /// It is the current generation's own instance, kept waiting after a revocation: it was heard, so its
    /// lease does not lapse for it.
    pub heard: bool,
}

/// Why a former holder is refused, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Something newer was used.
    Superseded,
    /// A person ended it.
    Revoked,
    /// It was never used, or its start was given up.
    Lapsed,
}

impl Code {
    /// Text form on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
            Self::Lapsed => "lapsed",
        }
    }
}

/// What a former holder should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A newer credential was delivered: read the file again.
    RereadCredential,
    /// A successor serves, or the workspace is gone: stop, for good.
    Exit,
    /// Ask to be enrolled anew.
    Register,
    /// The platform is replacing it; ask again after this long.
    Wait(Duration),
}

impl Action {
    /// Text form on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RereadCredential => "reread-credential",
            Self::Exit => "exit",
            Self::Register => "register",
            Self::Wait(_) => "wait",
        }
    }
}

/// What a former holder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Why.
    pub code: Code,
    /// The cure.
    pub action: Action,
}
