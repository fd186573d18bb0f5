//! The agent's rules that carry load, by name.
//!
//! A release keeps every one of them. With the feature `mutants` one can be switched off, to see that the
//! model checker and a drill notice: a proof that cannot fail proves nothing. The platform's own rules have
//! such a list too.

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The agent keeps its `Idempotency-Key` until a call with the credential it brought has succeeded.
    KeyKept,
    /// The agent writes a new credential down before it uses it.
    WriteBeforeUse,
    /// A rotated credential is written beside the old one, which stays until the new one's first success.
    RotateBeside,
    /// An agent that no backend manages also tries to register without its bearer.
    WithoutBearer,
    /// A passport in the start-up data comes before a credential file that was not obtained with it.
    PassportBeforeFile,
    /// On 401 the agent reads its credential file again and retries once.
    RereadOnce,
    /// A message whose turn was begun before is not run again by itself.
    TurnOnce,
}

impl Guard {
    /// Every rule.
    pub const ALL: [Self; 7] = [
        Self::KeyKept,
        Self::WriteBeforeUse,
        Self::RotateBeside,
        Self::WithoutBearer,
        Self::PassportBeforeFile,
        Self::RereadOnce,
        Self::TurnOnce,
    ];

    /// The name that `LIGAND_MUTANT` takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyKept => "key-kept",
            Self::WriteBeforeUse => "write-before-use",
            Self::RotateBeside => "rotate-beside",
            Self::WithoutBearer => "without-bearer",
            Self::PassportBeforeFile => "passport-before-file",
            Self::RereadOnce => "reread-once",
            Self::TurnOnce => "turn-once",
        }
    }

    /// From the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.as_str() == text)
    }
}

/// Which rules hold: all of them, but for a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guards {
    #[cfg(feature = "mutants")]
    off: Option<Guard>,
}

impl Guards {
    /// All of them.
    pub const ON: Self = Self {
        #[cfg(feature = "mutants")]
        off: None,
    };

    /// All but one.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub const fn without(guard: Guard) -> Self {
        Self { off: Some(guard) }
    }

    /// Whether a rule holds.
    #[must_use]
    #[inline]
    pub fn hold(self, guard: Guard) -> bool {
        #[cfg(feature = "mutants")]
        return self.off != Some(guard);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = guard;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_has_a_name_of_its_own() {
        for guard in Guard::ALL {
            assert_eq!(Guard::parse(guard.as_str()), Some(guard));
            assert!(Guards::ON.hold(guard));
        }
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_mutant_lacks_one_guard_and_keeps_the_others() {
        for off in Guard::ALL {
            let left = Guard::ALL.into_iter().filter(|guard| !Guards::without(off).hold(*guard));
            assert_eq!(left.collect::<Vec<_>>(), [off]);
        }
    }
}
