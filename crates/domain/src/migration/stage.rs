//! The stages of a migration.

use std::time::Duration;

/// What can still be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Before {
    /// Raise the generation, mint the passport.
    Prepare,
    /// Start the target, which stands by and registers as candidate.
    Provision,
    /// Copy data while the source serves.
    PreCopy,
    /// New messages wait; turns in flight end.
    Hold,
    /// The source stands by, or is stopped; the rest of its data is copied.
    Quiesce,
    /// The target gets the data, under its digest.
    Restore,
    /// The target gets its secrets, and its program starts.
    Activate,
    /// The target completes a turn.
    Probe,
    /// Everything is looked at once more, and the target becomes the workspace: one transaction.
    CutOver,
}

/// What cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum After {
    /// Messages go on, to the target.
    Release,
    /// After a grace the source is destroyed, and its data.
    Retire,
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The workspace is where it was to be.
    Migrated,
    /// It is where it was.
    RolledBack,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// On its way, and it can be undone.
    Before(Before),
    /// Rolled back: the candidate can prove itself with nothing, and what was begun is cleared away.
    Undoing,
    /// The target is the workspace.
    After(After),
    /// Over.
    Over(Outcome),
}

impl Before {
    /// In their order.
    pub const ALL: [Self; 9] = [
        Self::Prepare,
        Self::Provision,
        Self::PreCopy,
        Self::Hold,
        Self::Quiesce,
        Self::Restore,
        Self::Activate,
        Self::Probe,
        Self::CutOver,
    ];

    /// How long it may take, unless the settings say otherwise. A start takes what its runtime takes.
    #[must_use]
    pub const fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Prepare | Self::Provision | Self::Quiesce => 600,
            Self::PreCopy => 4 * 3600,
            Self::Hold => 120,
            Self::Restore => 3600,
            Self::Activate => 300,
            Self::Probe => 120,
            Self::CutOver => 30,
        })
    }

    /// Whether it may rest here for as long as a person likes: the source serves as if nothing were.
    #[must_use]
    pub const fn pauses(self) -> bool {
        match self {
            Self::Prepare | Self::Provision | Self::PreCopy => true,
            Self::Hold
            | Self::Quiesce
            | Self::Restore
            | Self::Activate
            | Self::Probe
            | Self::CutOver => false,
        }
    }

    pub(super) const fn next(self) -> Option<Self> {
        match self {
            Self::Prepare => Some(Self::Provision),
            Self::Provision => Some(Self::PreCopy),
            Self::PreCopy => Some(Self::Hold),
            Self::Hold => Some(Self::Quiesce),
            Self::Quiesce => Some(Self::Restore),
            Self::Restore => Some(Self::Activate),
            Self::Activate => Some(Self::Probe),
            Self::Probe => Some(Self::CutOver),
            Self::CutOver => None,
        }
    }
}

impl Stage {
    /// Every one, in the order in which they are met.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let after = [Self::After(After::Release), Self::After(After::Retire)];
        let over = [Self::Over(Outcome::Migrated), Self::Over(Outcome::RolledBack)];
        let before = Before::ALL.into_iter().map(Self::Before);
        before.chain(after).chain([Self::Undoing]).chain(over).collect()
    }

    /// Text form, in stores and for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before(Before::Prepare) => "prepare",
            Self::Before(Before::Provision) => "provision",
            Self::Before(Before::PreCopy) => "pre-copy",
            Self::Before(Before::Hold) => "hold",
            Self::Before(Before::Quiesce) => "quiesce",
            Self::Before(Before::Restore) => "restore",
            Self::Before(Before::Activate) => "activate",
            Self::Before(Before::Probe) => "probe",
            Self::Before(Before::CutOver) => "cut-over",
            Self::Undoing => "undoing",
            Self::After(After::Release) => "release",
            Self::After(After::Retire) => "retire",
            Self::Over(Outcome::Migrated) => "migrated",
            Self::Over(Outcome::RolledBack) => "rolled-back",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::all().into_iter().find(|stage| stage.as_str() == text)
    }
}
