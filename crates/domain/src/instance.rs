//! One incarnation of a workspace: a process, a container, a cloud box.

use crate::id::Generation;
use crate::time::Timestamp;

/// How far an instance has come. Written by the platform; what the backend says is [`Seen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Row and credential are committed; nothing was asked of the backend, or its answer is not known.
    Planned,
    /// The backend has it; it has not registered.
    Started,
    /// It registered and is the current generation.
    Serving,
    /// It is gone, or was never started and never will be.
    Ended,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Planned, Self::Started, Self::Serving, Self::Ended];

    /// Text form in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Started => "started",
            Self::Serving => "serving",
            Self::Ended => "ended",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Exit code, where the backend could see it.
    pub code: Option<i32>,
    /// Signal that ended it, where the backend could see it.
    pub signal: Option<i32>,
    /// The last thing it said, where the backend kept it.
    pub said: Option<String>,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "killed by signal {signal}")?,
            (Some(code), None) => write!(f, "exited with code {code}")?,
            (None, None) => f.write_str("exited")?,
        }
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

/// What a backend says about an instance. Not being able to say is a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It runs.
    Running,
    /// It ended, and how.
    Stopped(Exit),
    /// The backend does not have it.
    Gone,
    /// The backend could not be asked, or did not answer.
    Unknown(String),
}

/// What an agent declares that it can do, in the body of its register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Follows `next_heartbeat_seconds`.
    pub paced: bool,
    /// Proves which secrets its child holds.
    pub receipt: bool,
    /// Reports receipt, start and end of a turn.
    pub turns: bool,
    /// Can wait as a migration's candidate.
    pub standby: bool,
    /// Can take a new credential while it runs.
    pub rotate: bool,
}

impl Features {
    /// From the declared names. Unknown names are ignored: newer agents meet older servers.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut features = Self::default();
        for name in names {
            match name {
                "paced" => features.paced = true,
                "receipt" => features.receipt = true,
                "turns" => features.turns = true,
                "standby" => features.standby = true,
                "rotate" => features.rotate = true,
                _ => {}
            }
        }
        features
    }

    /// The names that were declared and are known.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            ("paced", self.paced),
            ("receipt", self.receipt),
            ("turns", self.turns),
            ("standby", self.standby),
            ("rotate", self.rotate),
        ]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .collect()
    }
}

/// What the reconciler knows of one instance that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Which incarnation.
    pub generation: Generation,
    /// When the backend confirmed its start; `None` while it is only planned.
    pub started_at: Option<Timestamp>,
    /// When its lease lapses, once it serves.
    pub lease_until: Timestamp,
    /// What its backend says now.
    pub seen: Seen,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_are_ignored_and_known_ones_kept() {
        let features = Features::from_names(["paced", "telepathy", "rotate"]);
        assert!(features.paced && features.rotate && !features.receipt);
        assert_eq!(features.names(), ["paced", "rotate"]);
        assert_eq!(Features::from_names(features.names()), features);
    }

    #[test]
    fn an_exit_reads_as_a_sentence() {
        let exit = |code, signal, said: Option<&str>| {
            Exit { code, signal, said: said.map(String::from) }.to_string()
        };
        assert_eq!(exit(None, Some(9), None), "killed by signal 9");
        assert_eq!(
            exit(Some(127), None, Some("no such file")),
            "exited with code 127: no such file"
        );
        assert_eq!(exit(None, None, None), "exited");
    }
}
