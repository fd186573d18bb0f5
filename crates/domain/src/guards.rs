//! The rules that carry load, by name.
//!
//! Every decision that such a rule is part of receives the [`Guards`] as a value and asks whether the rule
//! holds. In a release that is the constant `true`. With the feature `mutants` one rule can be switched off,
//! to see that the model checker and a drill notice: a proof that cannot fail proves nothing.

/// One rule. A rule that is kept in two places is switched off in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The lost answer to a register is found by its `Idempotency-Key` before anything else is judged.
    ReplayFirst,
    /// A passport may be presented again until something it minted was used.
    PassportAgain,
    /// A resumed start mints beside the first value, never instead of it.
    ResumeBeside,
    /// A start that was planned, and that nobody saw through, is taken up by the next pass.
    ResumePlanned,
    /// Raising the generation and committing its credential are one transaction.
    PlanCommits,
    /// One restart, recreate or migration at a time: a compare-and-set on the row.
    SingleFlight,
    /// A pending credential lapses only with its start.
    LapseWithStart,
    /// A pending credential counts as live.
    PendingIsLive,
    /// Only the newest rotation is answered.
    NewestRotation,
    /// `exit` is said only to generations that a newer one replaced.
    ExitByGeneration,
    /// `exit` is never said to an agent that nobody would start again.
    NeverExitExternal,
    /// A credential from an answer that nobody used lapses.
    UnusedLapses,
    /// Only a revoked or lapsed credential re-enrols, and only in its own generation.
    ReEnrolByGeneration,
    /// A migration's candidate is admitted with its active credential too.
    CandidateActive,
    /// A candidate's first use changes nothing of the workspace.
    CandidateInert,
    /// A sweep spares credentials of the current and the newest generation, and of a candidate.
    SweepSparesCurrent,
    /// A sweep decides and acts in one statement.
    SweepInOneStatement,
    /// Only the current generation is admitted, and its first use supersedes every older credential.
    OneWriter,
    /// After a server start no lease lapses before a full term.
    GraceAfterStart,
    /// Replacement on silence stops while many are silent at once.
    Brake,
    /// A proven workspace is charged to its own bucket.
    WorkspaceBucket,
    /// Nothing is online whose receipt is not complete.
    Receipt,
    /// The outcome of a message is taken only from the attempt that holds its lease.
    LeaseAttempt,
    /// Kept events carry numbers, and a stream resumes from one.
    StreamSequence,
    /// A cut-over demands what was seen of the target: registered, proved, probed.
    CutOverEvidence,
    /// A cut-over looks again in its own transaction, and a revocation rolls a migration back.
    CutOverRereads,
    /// A roll-back ends what its candidate could prove itself with, before anything else.
    RollBackRevokes,
    /// Where an instance can redeem no passport, the plan of the next one ends the credentials of the last.
    ForeignSuperseded,
    /// Where an instance can redeem no passport, its bootstrap takes the planned generation.
    ForeignPlanned,
    /// Where an instance can redeem no passport, it bootstraps from the address that its backend reports alone.
    ForeignAddress,
}

impl Guard {
    /// Every rule.
    pub const ALL: [Self; 30] = [
        Self::ReplayFirst,
        Self::PassportAgain,
        Self::ResumeBeside,
        Self::ResumePlanned,
        Self::PlanCommits,
        Self::SingleFlight,
        Self::LapseWithStart,
        Self::PendingIsLive,
        Self::NewestRotation,
        Self::ExitByGeneration,
        Self::NeverExitExternal,
        Self::UnusedLapses,
        Self::ReEnrolByGeneration,
        Self::CandidateActive,
        Self::CandidateInert,
        Self::SweepSparesCurrent,
        Self::SweepInOneStatement,
        Self::OneWriter,
        Self::GraceAfterStart,
        Self::Brake,
        Self::WorkspaceBucket,
        Self::Receipt,
        Self::LeaseAttempt,
        Self::StreamSequence,
        Self::CutOverEvidence,
        Self::CutOverRereads,
        Self::RollBackRevokes,
        Self::ForeignSuperseded,
        Self::ForeignPlanned,
        Self::ForeignAddress,
    ];

    /// The name that `LIGAND_MUTANT` takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplayFirst => "replay-first",
            Self::PassportAgain => "passport-again",
            Self::ResumeBeside => "resume-beside",
            Self::ResumePlanned => "resume-planned",
            Self::PlanCommits => "plan-commits",
            Self::SingleFlight => "single-flight",
            Self::LapseWithStart => "lapse-with-start",
            Self::PendingIsLive => "pending-is-live",
            Self::NewestRotation => "newest-rotation",
            Self::ExitByGeneration => "exit-by-generation",
            Self::NeverExitExternal => "never-exit-external",
            Self::UnusedLapses => "unused-lapses",
            Self::ReEnrolByGeneration => "re-enrol-by-generation",
            Self::CandidateActive => "candidate-active",
            Self::CandidateInert => "candidate-inert",
            Self::SweepSparesCurrent => "sweep-spares-current",
            Self::SweepInOneStatement => "sweep-in-one-statement",
            Self::OneWriter => "one-writer",
            Self::GraceAfterStart => "grace-after-start",
            Self::Brake => "brake",
            Self::WorkspaceBucket => "workspace-bucket",
            Self::Receipt => "receipt",
            Self::LeaseAttempt => "lease-attempt",
            Self::StreamSequence => "stream-sequence",
            Self::CutOverEvidence => "cut-over-evidence",
            Self::CutOverRereads => "cut-over-rereads",
            Self::RollBackRevokes => "roll-back-revokes",
            Self::ForeignSuperseded => "foreign-superseded",
            Self::ForeignPlanned => "foreign-planned",
            Self::ForeignAddress => "foreign-address",
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
