//! Pure formatting: what people read, from what the wire says.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use ligand_api::workspace::Workspace;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;

/// How long ago, in its largest unit: `12s`, `3m`, `2h`, `4d`; `-` where there is no time.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    Timestamp::parse(since).map_or_else(|| "-".to_owned(), |since| span(now.since(since).as_secs()))
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long something took: `412 ms`, `4.2 s`, `3 min 12 s`, `2 h 5 min`.
pub(crate) fn took(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// How much it is: `812 B`, `4.2 KiB`, `104 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1_024.0 {
            break;
        }
        (size, unit) = (size / 1_024.0, larger);
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if size < 100.0 => format!("{size:.1} {unit}"),
        _ => format!("{size:.0} {unit}"),
    }
}

/// When something planned begins.
pub(crate) fn until(at: &str, now: Timestamp) -> String {
    match Timestamp::parse(at) {
        Some(at) if at > now => format!("in {}", span(at.since(now).as_secs())),
        Some(_) => "due".to_owned(),
        None => plain(at),
    }
}

/// Its day in UTC, `2026-01-31`; the text itself where it is no time.
pub(crate) fn day(at: &str) -> String {
    part(at, 0..10)
}

/// Its time of day in UTC, `23:59:59.999`; the text itself where it is no time.
pub(crate) fn time_of_day(at: &str) -> String {
    part(at, 11..23)
}

/// The whole of it in UTC, to the second.
pub(crate) fn moment(at: &str) -> String {
    part(at, 0..19).replace('T', " ")
}

fn part(at: &str, range: std::ops::Range<usize>) -> String {
    let text = Timestamp::parse(at).map(|at| at.to_string());
    text.and_then(|text| text.get(range).map(str::to_owned)).unwrap_or_else(|| plain(at))
}

/// One line that cannot steer the terminal. Names, errors and evidence come from agents.
pub(crate) fn plain(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Columns without borders. Every cell is one line, so that lines can be counted and cut.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Names and values, one a line; what is not there is left out.
pub(crate) fn pairs(pairs: &[(&str, Option<String>)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
    let line = |(key, value): &(&str, Option<String>)| {
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some(format!("{key:width$}  {}\n", plain(value)))
    };
    pairs.iter().filter_map(line).collect()
}

/// Why a workspace stands where it does, in as many words as fit a line. Nothing where all is well.
pub(crate) fn standing(workspace: &Workspace, now: Timestamp) -> String {
    let error = workspace.last_error.clone().flatten();
    let well = Status::parse(&workspace.status) == Some(Status::Online);
    let evidence = workspace.evidence.clone().filter(|_| !well);
    let next = workspace.next_attempt_at.clone().flatten();
    let next = next.map(|at| format!("next attempt {}", until(&at, now)));
    [error.or(evidence), next].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn age_names_the_largest_unit() {
        let ages = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 345_600]
            .map(|seconds| age("1970-01-01T00:00:00Z", at(seconds)));
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "4d"]);
        assert_eq!(age("1970-01-01T00:01:00Z", at(0)), "0s", "a clock that runs ahead");
        assert_eq!(age("", at(0)), "-");
    }

    #[test]
    fn spans_and_sizes_show_what_counts() {
        let shown = [0, 412, 1_000, 4_240, 59_949, 192_000, 7_500_000]
            .map(|millis| took(Duration::from_millis(millis)));
        let expected = ["0 ms", "412 ms", "1.0 s", "4.2 s", "59.9 s", "3 min 12 s", "2 h 5 min"];
        assert_eq!(shown, expected);
        let shown = [0, 812, 4_300, 104 << 20, 3 << 30].map(size);
        assert_eq!(shown, ["0 B", "812 B", "4.2 KiB", "104 MiB", "3.0 GiB"]);
    }

    #[test]
    fn times_are_utc() {
        let text = "2026-01-31T23:59:59.9999+01:00";
        assert_eq!(day(text), "2026-01-31");
        assert_eq!(time_of_day(text), "22:59:59.999");
        assert_eq!(moment(text), "2026-01-31 22:59:59");
        assert_eq!(time_of_day("soon"), "soon");
    }

    #[test]
    fn planned_times_are_relative() {
        assert_eq!(until("1970-01-01T00:01:00Z", at(48)), "in 12s");
        assert_eq!(until("1970-01-01T00:01:00Z", at(60)), "due");
    }

    #[test]
    fn agents_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\n"), "a [31mb c");
        assert_eq!(table(&["A", "B"], [vec!["x\ny".into(), "z".into()]]), "A    B\nx y  z\n");
    }

    #[test]
    fn notes_prefer_the_error_to_the_evidence() {
        let mut workspace = Workspace {
            status: "online".into(),
            evidence: Some("registered".into()),
            ..Workspace::default()
        };
        assert_eq!(standing(&workspace, at(0)), "");
        workspace.status = "failed".into();
        assert_eq!(standing(&workspace, at(0)), "registered");
        workspace.last_error = Some(Some("no recipe".into()));
        workspace.next_attempt_at = Some(Some("1970-01-01T00:00:30Z".into()));
        assert_eq!(standing(&workspace, at(0)), "no recipe; next attempt in 30s");
    }
}
