//! Delegations: a task that one workspace gives to another, and wants the outcome of. The platform carries it as a
//! message, or its caller carries it itself and has it recorded.

use crate::message::State;

/// Where a delegation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits for its first delivery.
    Pending,
    /// Its target has it.
    Dispatched,
    /// Its target was busy: it waits for another delivery.
    Queued,
    /// Its target did it.
    Completed,
    /// It was given up, refused, or done without success.
    Failed,
}

impl Status {
    const ALL: [Self; 5] =
        [Self::Pending, Self::Dispatched, Self::Queued, Self::Completed, Self::Failed];

    /// Text form in stores and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Dispatched => "dispatched",
            Self::Queued => "queued",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing more will happen to it by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// What it is now: what was written down when it ended, unless its message is open (again).
    #[must_use]
    pub const fn now(self, message: Option<(State, i64)>) -> Self {
        match message {
            Some((State::Delivering, _)) => Self::Dispatched,
            Some((State::Accepted, 0)) => Self::Pending,
            Some((State::Accepted, _)) => Self::Queued,
            Some((
                State::Processed
                | State::Acknowledged
                | State::Expired
                | State::Dead
                | State::Dropped,
                _,
            ))
            | None => self,
        }
    }

    /// Whether this outcome may be written over what is written down. The first outcome counts; but what failed is
    /// tried again when an operator says so.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Pending | Self::Dispatched | Self::Queued => to.is_over(),
            Self::Failed => matches!(to, Self::Completed),
            Self::Completed => false,
        }
    }
}

/// Whether an answer of this HTTP status is no word of its target: the task is delivered once more. Any other failure
/// is the outcome.
#[must_use]
pub const fn is_transient(status: u16) -> bool {
    matches!(status, 502 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_carried_one_is_its_messages_until_that_is_over() {
        let now = |state, attempt| Status::Pending.now(Some((state, attempt)));
        assert_eq!(now(State::Accepted, 0), Status::Pending);
        assert_eq!(now(State::Delivering, 1), Status::Dispatched);
        assert_eq!(now(State::Accepted, 1), Status::Queued);
        assert_eq!(Status::Failed.now(Some((State::Delivering, 2))), Status::Dispatched);
        for over in
            [State::Processed, State::Acknowledged, State::Dead, State::Expired, State::Dropped]
        {
            assert_eq!(Status::Completed.now(Some((over, 1))), Status::Completed);
        }
        assert_eq!(Status::Dispatched.now(None), Status::Dispatched);
    }

    #[test]
    fn de_09_only_a_gateways_words_are_no_outcome() {
        assert!(is_transient(502) && is_transient(503));
        assert!(
            [400, 404, 409, 429, 500, 501, 504].into_iter().all(|status| !is_transient(status))
        );
    }

    #[test]
    fn the_first_outcome_counts() {
        for open in [Status::Pending, Status::Dispatched, Status::Queued] {
            assert!(open.may_become(Status::Completed) && open.may_become(Status::Failed));
            assert!(!open.may_become(Status::Dispatched));
        }
        assert!(Status::Failed.may_become(Status::Completed), "after a replay");
        assert!(!Status::Failed.may_become(Status::Failed));
        assert!(!Status::Completed.may_become(Status::Failed));
        assert!(Status::ALL.iter().all(|status| Status::parse(status.as_str()) == Some(*status)));
    }
}
