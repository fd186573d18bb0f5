//! Rotation: an agent takes a new credential while it runs, beside the one that it uses.
//!
//! Rotations of a workspace are counted. Every credential carries the count at which it was minted, and the
//! first use of one satisfies every rotation up to that count: no clock takes part, and a restart or a new
//! registration satisfies a rotation too.

use crate::credential::{Credential, Kind, State};
use crate::guards::{Guard, Guards};
use crate::id::Generation;

/// The rotations of one workspace, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Serials {
    /// Asked for so far: the newest serial.
    pub wanted: i64,
    /// The newest that a used credential satisfies.
    pub done: i64,
}

impl Serials {
    /// The serial that an agent should ask for now, if any.
    #[must_use]
    pub fn due(self) -> Option<i64> {
        (self.wanted > self.done).then_some(self.wanted)
    }

    /// After the first use of a credential that was minted at `serial`.
    #[must_use]
    pub fn after_use(self, serial: i64) -> Self {
        Self { done: self.done.max(serial), ..self }
    }
}

/// What the decision looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What the caller presented.
    pub held: Credential,
    /// The generation that counts.
    pub current: Generation,
    /// The rotations of the workspace.
    pub serials: Serials,
    /// The serial that the caller asks for.
    pub asked: i64,
}

/// What becomes of a request for a new credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Another pending credential is minted in this generation. It never lapses while the generation counts.
    Mints(Generation),
    /// The caller does not hold an active instance credential of the current generation.
    NotInUse,
    /// A newer rotation was asked for: only that one is answered.
    Outdated {
        /// The newest serial.
        newest: i64,
    },
    /// A credential of this serial is in use already.
    Done,
    /// Nobody asked for such a rotation.
    Unknown,
}

/// Decide. Total.
#[must_use]
pub fn decide(facts: &Facts, guards: Guards) -> Decision {
    let Facts { held, current, serials, asked } = *facts;
    let ours = held.kind == Kind::Instance && held.generation == Some(current);
    if !ours || held.state != State::Active {
        return Decision::NotInUse;
    }
    if asked < 1 || asked > serials.wanted {
        return Decision::Unknown;
    }
    if asked < serials.wanted && guards.hold(Guard::NewestRotation) {
        return Decision::Outdated { newest: serials.wanted };
    }
    if serials.done >= asked {
        return Decision::Done;
    }
    Decision::Mints(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CredentialId;

    fn facts(wanted: i64, done: i64, asked: i64) -> Facts {
        let held = Credential {
            id: CredentialId::from_random([1; 16]),
            kind: Kind::Instance,
            generation: Some(Generation::new(2)),
            state: State::Active,
            used: true,
            newer_used: false,
        };
        let serials = Serials { wanted, done };
        Facts { held, current: Generation::new(2), serials, asked }
    }

    #[test]
    fn only_the_newest_serial_is_answered_and_anew_until_it_is_used() {
        let decided = |wanted, done, asked| decide(&facts(wanted, done, asked), Guards::ON);
        assert_eq!(decided(2, 0, 2), Decision::Mints(Generation::new(2)));
        assert_eq!(decided(2, 0, 1), Decision::Outdated { newest: 2 });
        assert_eq!(decided(2, 2, 2), Decision::Done);
        for asked in [-1, 0, 3] {
            assert_eq!(decided(2, 0, asked), Decision::Unknown);
        }
    }

    #[test]
    fn only_the_active_credential_of_the_current_generation_may_ask() {
        let held = facts(1, 0, 1).held;
        for held in [
            Credential { kind: Kind::Api, ..held },
            Credential { generation: Some(Generation::new(1)), ..held },
            Credential { generation: Some(Generation::new(3)), ..held },
            Credential { state: State::Pending, ..held },
            Credential { state: State::Superseded, ..held },
        ] {
            let decision = decide(&Facts { held, ..facts(1, 0, 1) }, Guards::ON);
            assert_eq!(decision, Decision::NotInUse, "{held:?}");
        }
    }

    #[test]
    fn a_use_satisfies_every_rotation_up_to_its_own() {
        let serials = Serials { wanted: 3, done: 0 };
        assert_eq!(serials.due(), Some(3));
        assert_eq!(serials.after_use(2).due(), Some(3));
        assert_eq!(serials.after_use(3).due(), None);
        assert_eq!(serials.after_use(3).after_use(1).due(), None, "it never goes back");
    }
}
