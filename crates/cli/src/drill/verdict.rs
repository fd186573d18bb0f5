//! The outcome of a drill, as text and as data.

use serde::Serialize;

use super::catalogue::Drill;
use super::scene::{Check, Scene, Step};
use crate::text;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Every law held.
    Pass,
    /// One did not.
    Fail,
    /// Nothing can be said.
    NotRun,
}

/// A drill that is over.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) drill: &'static str,
    laws: &'static [u8],
    pub(super) verdict: Verdict,
    seconds: f64,
    steps: Vec<Step>,
    checks: Vec<Check>,
    /// Why it could not be carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Told {
    pub(super) fn of(drill: &'static Drill, scene: Scene, error: Option<String>) -> Self {
        let seconds = scene.seconds();
        let verdict = match (&error, scene.broken()) {
            (_, true) => Verdict::Fail,
            (Some(_), false) => Verdict::NotRun,
            (None, false) => Verdict::Pass,
        };
        let (steps, checks) = scene.record();
        Self { drill: drill.name, laws: drill.laws, verdict, seconds, steps, checks, error }
    }

    /// Below the lines that were told while it went on.
    pub(super) fn last_line(&self) -> String {
        let seconds = self.seconds;
        match (self.verdict, &self.error) {
            (Verdict::Pass, _) => format!("verdict: PASS in {seconds:.1} s\n"),
            (Verdict::Fail, _) => format!("verdict: FAIL in {seconds:.1} s: a law was broken\n"),
            (Verdict::NotRun, error) => {
                let why = error.as_deref().unwrap_or("no reason is known");
                format!("verdict: NOT RUN after {seconds:.1} s: {}\n", text::plain(why))
            }
        }
    }
}

/// What a person should know before it begins.
pub(super) fn opening(drill: &Drill) -> String {
    let laws: Vec<String> = drill.laws.iter().map(|law| law_name(*law)).collect();
    format!(
        "drill {}: {}\n{}",
        drill.name,
        drill.incident,
        text::pairs(&[
            ("  in life", Some(drill.in_life.to_owned())),
            ("  here", Some(drill.here.to_owned())),
            ("  laws", Some(laws.join(" · "))),
        ])
    )
}

/// The laws by number, in a few words each.
fn law_name(law: u8) -> String {
    let words = match law {
        1 => "one writer",
        2 => "no wedge",
        3 => "no stranger",
        4 => "a cut-over needs evidence",
        5 => "sweepers hurt nothing fresh",
        6 => "accepted is kept",
        7 => "states are true",
        8 => "single flight",
        9 => "crash anywhere",
        10 => "secrets stay secret",
        _ => "",
    };
    format!("{law} {words}").trim_end().to_owned()
}

/// `--list`.
pub(super) fn list(drills: &[&Drill]) -> String {
    let rows = drills.iter().map(|drill| {
        let laws: Vec<String> = drill.laws.iter().map(ToString::to_string).collect();
        vec![
            drill.name.to_owned(),
            laws.join(","),
            drill.mutants.join(", "),
            drill.incident.to_owned(),
        ]
    });
    text::table(&["NAME", "LAWS", "FAILS WITHOUT", "INCIDENT"], rows)
}

/// After several.
pub(super) fn summary(told: &[Told]) -> String {
    let rows = told.iter().map(|told| {
        let verdict = match told.verdict {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::NotRun => "NOT RUN",
        };
        vec![told.drill.to_owned(), verdict.to_owned(), format!("{:.1} s", told.seconds)]
    });
    text::table(&["DRILL", "VERDICT", "TOOK"], rows)
}
