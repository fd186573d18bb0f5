//! What an agent is told when it was restarted: that it was, when its last session ended, and which secrets it
//! has, by name.

use std::time::Duration;

use crate::time::Timestamp;

/// How long after it was admitted an agent is still told.
pub const BUDGET: Duration = Duration::from_secs(60);

/// A restart, as it is told.
#[derive(Debug, Clone, Copy)]
pub struct Restart<'a> {
    /// When it was begun.
    pub at: Timestamp,
    /// When the last session was last heard of.
    pub previous_end: Option<Timestamp>,
    /// Names of secrets, in any order. Never values.
    pub names: &'a [String],
}

/// The text.
#[must_use]
pub fn text(restart: Restart<'_>) -> String {
    let previous = match restart.previous_end {
        Some(end) => format!("{end} ({} before)", humanise(restart.at.since(end))),
        None => "none (there was no prior session)".to_owned(),
    };
    let mut names: Vec<&str> = restart.names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!(
        "=== Restart context ===\n\
         You were restarted. What was in memory is gone; your files are as you left them.\n\
         Restarted at: {}\n\
         Previous session ended: {previous}\n\
         Environment set from secrets: {names}\n\
         === End of restart context ===",
        restart.at
    )
}

/// A duration as people say it: hours and minutes, minutes and seconds, or seconds.
#[must_use]
pub fn humanise(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::parse("2026-03-01T12:00:00Z")
            .map(|at| Timestamp::from_micros(at.micros() + seconds * 1_000_000))
            .unwrap()
    }

    #[test]
    fn rc_01_durations_are_said_in_two_units() {
        for (seconds, said) in
            [(0, "0s"), (45, "45s"), (59, "59s"), (180, "3m0s"), (3599, "59m59s"), (8040, "2h14m")]
        {
            assert_eq!(humanise(Duration::from_secs(seconds)), said);
        }
        // A session that ends in the future: its clock is ahead of ours.
        assert_eq!(humanise(at(0).since(at(90))), "0s");
    }

    #[test]
    fn rc_02_without_a_session_before_it_says_so() {
        let told = text(Restart { at: at(0), previous_end: None, names: &[] });
        assert!(told.contains("no prior session"), "{told}");
        assert!(told.contains("secrets: none"), "{told}");
        assert!(told.contains("2026-03-01T12:00:00"), "{told}");
        let told = text(Restart { at: at(0), previous_end: Some(at(-185)), names: &[] });
        assert!(told.contains("2026-03-01T11:56:55.000000Z (3m5s before)"), "{told}");
    }

    #[test]
    fn rc_03_names_are_sorted_and_said_once() {
        let names = ["B", "A", "B", "C"].map(str::to_owned);
        let told = text(Restart { at: at(0), previous_end: None, names: &names });
        assert!(told.contains("secrets: A, B, C\n"), "{told}");
    }
}
