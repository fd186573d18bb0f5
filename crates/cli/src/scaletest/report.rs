//! What was measured, as rows. A row has its baseline of the same run beside it.

use serde::Serialize;

use super::histogram::Histogram;
use crate::text;

/// How a row stands to what is required of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// All that is required holds.
    Met,
    /// Something required does not hold.
    Missed,
    /// Nothing is required, or not in this form.
    NotJudged,
    /// The server, or this call, lacks what it takes.
    NotAvailable,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotJudged => "-",
            Self::NotAvailable => "not available",
        }
    }
}

/// What a figure stands beside.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Baseline {
    /// What it is.
    pub(super) what: &'static str,
    /// Its figure, in the unit of the row.
    pub(super) value: f64,
}

/// One measure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// The scenario that gave it.
    pub(super) scenario: &'static str,
    /// What was measured.
    pub(super) measure: String,
    /// The figure; none where it is not available.
    pub(super) value: Option<f64>,
    /// Of what.
    pub(super) unit: &'static str,
    /// What it stands beside.
    pub(super) baseline: Option<Baseline>,
    /// Figure by baseline.
    pub(super) ratio: Option<f64>,
    /// How long half of the calls took at most, in ms.
    pub(super) p50_ms: Option<f64>,
    /// How long 99 of 100 took at most, in ms.
    pub(super) p99_ms: Option<f64>,
    /// User and system time of the servers, in cores: seconds a second.
    pub(super) server_cores: Option<f64>,
    /// Resident memory of the largest server.
    pub(super) server_mib: Option<f64>,
    /// What is required, in words.
    pub(super) required: Option<String>,
    /// Whether that holds.
    pub(super) verdict: Verdict,
    /// A count that must be zero is not: that is wrong on any machine.
    pub(super) broken: bool,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
}

impl Row {
    /// A figure, with nothing required of it yet.
    pub(super) fn new(scenario: &'static str, measure: impl Into<String>) -> Self {
        Self {
            scenario,
            measure: measure.into(),
            value: None,
            unit: "",
            baseline: None,
            ratio: None,
            p50_ms: None,
            p99_ms: None,
            server_cores: None,
            server_mib: None,
            required: None,
            verdict: Verdict::NotJudged,
            broken: false,
            notes: Vec::new(),
        }
    }

    /// It could not be measured, and why.
    pub(super) fn unavailable(scenario: &'static str, why: impl Into<String>) -> Self {
        let mut row = Self::new(scenario, scenario.replace('-', " "));
        row.verdict = Verdict::NotAvailable;
        row.note(why)
    }

    /// Its figure.
    pub(super) fn value(mut self, value: f64, unit: &'static str) -> Self {
        (self.value, self.unit) = (Some(value), unit);
        self
    }

    /// What it stands beside.
    pub(super) fn beside(mut self, what: &'static str, value: f64) -> Self {
        self.ratio = self.value.filter(|_| value > 0.0).map(|own| own / value);
        self.baseline = Some(Baseline { what, value });
        self
    }

    /// How long calls took.
    pub(super) fn took(mut self, took: &Histogram) -> Self {
        (self.p50_ms, self.p99_ms) = (took.percentile(0.5), took.percentile(0.99));
        self
    }

    /// What the servers used.
    pub(super) fn used(mut self, cores: Option<f64>, bytes: Option<u64>) -> Self {
        self.server_cores = cores;
        self.server_mib = bytes.map(|bytes| bytes as f64 / 1_048_576.0);
        self
    }

    /// Something about time or size that is required where it is `judged`, and whether it holds.
    pub(super) fn require(mut self, what: &str, judged: bool, holds: bool) -> Self {
        if !judged {
            return self;
        }
        self.required = Some(match self.required {
            Some(before) => format!("{before}, {what}"),
            None => what.to_owned(),
        });
        if self.verdict != Verdict::Missed {
            self.verdict = if holds { Verdict::Met } else { Verdict::Missed };
        }
        self
    }

    /// A count that must be zero, on any machine and in any form.
    pub(super) fn zero(mut self, what: &str, count: u64) -> Self {
        self.broken |= count > 0;
        if count > 0 {
            self.notes.push(format!("{count} {what}"));
        }
        self.require(&format!("0 {what}"), true, count == 0)
    }

    /// What else is worth knowing.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn cells(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
        let beside = self.baseline.as_ref();
        vec![
            self.scenario.to_owned(),
            self.measure.clone(),
            self.value.map_or_else(
                || "-".to_owned(),
                |value| format!("{} {}", figure(value), self.unit).trim_end().to_owned(),
            ),
            beside.map_or_else(|| "-".to_owned(), |it| format!("{} {}", it.what, figure(it.value))),
            self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x")),
            number(self.p50_ms),
            number(self.p99_ms),
            number(self.server_cores),
            number(self.server_mib),
            self.required.clone().unwrap_or_else(|| "-".to_owned()),
            self.verdict.as_str().to_owned(),
        ]
    }
}

/// Rows as people read them, with their notes below.
pub(super) fn table(machine: &str, rows: &[Row]) -> String {
    let header = [
        "SCENARIO", "MEASURE", "FIGURE", "BASELINE", "RATIO", "P50 MS", "P99 MS", "CORES", "MIB",
        "REQUIRED", "VERDICT",
    ];
    let mut told = text::table(&header, rows.iter().map(Row::cells));
    for row in rows {
        for note in &row.notes {
            told += &format!("{}: {}\n", row.scenario, text::plain(note));
        }
    }
    told + &format!("machine: {machine}\n")
}

/// Three digits that count, or all of them before the point.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => grouped(value.round()),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn figures_show_what_counts() {
        let shown = [0.0, 0.123, 9.876, 12.34, 999.6, 1234567.0].map(figure);
        assert_eq!(shown, ["0", "0.12", "9.88", "12.3", "1 000", "1 234 567"]);
    }

    #[test]
    fn one_thing_missed_is_missed() {
        let row = || Row::new("a", "b").value(30.0, "per second").beside("classic", 2.0);
        assert_eq!(row().ratio, Some(15.0));
        assert_eq!(row().require("x", true, true).verdict, Verdict::Met);
        let missed = row().require("x", true, false).require("y", true, true);
        assert_eq!(missed.verdict, Verdict::Missed);
        assert!(!missed.broken, "too slow is not wrong");
        assert_eq!(row().require("x", false, false).verdict, Verdict::NotJudged);
        let wrong = row().require("x", false, false).zero("accepted", 3);
        assert_eq!((wrong.verdict, wrong.broken), (Verdict::Missed, true));
        assert_eq!(wrong.notes, ["3 accepted"]);
    }

    #[test]
    fn a_table_says_all_of_it() {
        let mut took = Histogram::default();
        took.add(Duration::from_millis(10));
        let row = Row::new("heartbeats-sqlite", "heartbeats").value(1500.0, "/s");
        let row = row.beside("bare", 3000.0).took(&took).used(Some(0.5), Some(3 << 20));
        let rows = [
            row.require("ratio >= 0.5", true, true).note("n"),
            Row::unavailable("hold", "no route"),
        ];
        let expected = "\
SCENARIO           MEASURE     FIGURE    BASELINE    RATIO  P50 MS  P99 MS  CORES  MIB  REQUIRED      VERDICT
heartbeats-sqlite  heartbeats  1 500 /s  bare 3 000  0.50x  10      10      0.50   3    ratio >= 0.5  met
hold               hold        -         -           -      -       -       -      -    -             not available
heartbeats-sqlite: n
hold: no route
machine: m
";
        assert_eq!(table("m", &rows), expected);
    }
}
