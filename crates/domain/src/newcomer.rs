//! What an instance that is awaited can come with.
//!
//! Where only start-up data can be passed, an instance brings a passport. A runtime that cannot redeem one comes with
//! nothing at all: the plan of its start ends what its predecessors hold, and its first register takes the generation
//! that was planned for it, from where its backend says that it is. Whoever comes from elsewhere is a predecessor that
//! did not end, or a stranger.

use crate::guards::{Guard, Guards};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer {
    /// A credential or a passport, which it was given with its start.
    Proves,
    /// Nothing: it takes up its identity by its first register.
    Bare {
        /// The call comes from where the backend says that this instance is, or that says nothing of it.
        there: bool,
    },
}

impl Newcomer {
    /// Whether a call without any proof may be that of the instance.
    #[must_use]
    pub fn may_come(self, guards: Guards) -> bool {
        match self {
            Self::Proves => true,
            Self::Bare { there } => there || !guards.hold(Guard::ForeignAddress),
        }
    }

    /// Whether a call without any proof takes the generation that was planned.
    #[must_use]
    pub fn takes_planned(self, guards: Guards) -> bool {
        match self {
            Self::Proves => false,
            Self::Bare { .. } => self.may_come(guards) && guards.hold(Guard::ForeignPlanned),
        }
    }
}
