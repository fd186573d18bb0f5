//! A drain as people see it. Pure.

use std::time::Duration;

use ligand_api::migration::{Drain, Migration};
use ligand_domain::time::Timestamp;

use crate::migrate::picture::{bar, name, spent};
use crate::text;

/// Workspaces of each sort that are named.
const NAMED: usize = 12;

/// Whether no further one is begun.
pub(super) fn is_over(it: &Drain) -> bool {
    ["stopped", "aborted", "done"].contains(&it.state.as_str())
}

/// The whole of it, with its migrations that are not over, as it stands at `now`.
pub(super) fn draw(it: &Drain, under_way: &[Migration], now: Timestamp) -> String {
    let end = it.ended_at.as_deref().and_then(Timestamp::parse).unwrap_or(now);
    let lasted = Timestamp::parse(&it.started_at).map_or(Duration::ZERO, |at| end.since(at));
    let mut lines = vec![
        format!("drain of {} to {}: {} {}", it.backend, it.to, stands(it), text::took(lasted)),
        format!("  {}  {}", bar(count(it.migrated), count(it.total)), counts(it)),
    ];
    if let Some(cause) = &it.cause {
        lines.push(format!("  it stopped: {cause}"));
    }
    if !under_way.is_empty() {
        lines.push("  on their way".to_owned());
        let rows = under_way.iter().map(|one| {
            let took = spent(one, &one.phase, now).map(text::took).unwrap_or_default();
            let phase = if one.state == "running" { &one.phase } else { &one.state };
            (name(one), format!("{phase:<11}  {took}"))
        });
        lines.extend(named(rows.collect()));
    }
    if !it.failed.is_empty() {
        lines.push("  stayed".to_owned());
        let rows = it.failed.iter().map(|one| (one.workspace.clone(), one.cause.clone()));
        lines.extend(named(rows.collect()));
    }
    lines.iter().map(|line| text::plain(line) + "\n").collect()
}

/// Names with something about each; those beyond what fits are counted.
fn named(rows: Vec<(String, String)>) -> Vec<String> {
    let width = rows.iter().take(NAMED).map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = rows
        .iter()
        .take(NAMED)
        .map(|(name, about)| format!("    {name:<width$}  {about}"))
        .collect();
    if rows.len() > NAMED {
        lines.push(format!("    and {} more; --output json names all", rows.len() - NAMED));
    }
    lines
}

fn stands(it: &Drain) -> &str {
    match it.state.as_str() {
        "running" => "under way for",
        "paused" => "paused, after",
        "stopped" => "stopped after",
        "aborted" => "aborted after",
        "done" => "done in",
        other => other,
    }
}

fn count(number: i64) -> u64 {
    number.try_into().unwrap_or(0)
}

fn counts(it: &Drain) -> String {
    let (moved, total, open) = (it.migrated, it.total, it.open);
    let (waiting, failed) = (it.waiting, it.failed.len());
    format!(
        "{moved} of {total} moved, {open} on their way ({} at once), {waiting} wait, {failed} stayed",
        it.concurrency
    )
}

/// How it stands, for a log.
pub(super) fn line(it: &Drain) -> String {
    let cause = it.cause.as_deref().map(|cause| format!(": {cause}")).unwrap_or_default();
    text::plain(&format!("{}: {}{cause}", it.state, counts(it)))
}

/// Several, one a line.
pub(super) fn table(all: &[Drain], now: Timestamp) -> String {
    let rows = all.iter().map(|it| {
        vec![
            it.backend.clone(),
            it.to.clone(),
            it.state.clone(),
            format!("{} of {}", it.migrated, it.total),
            it.open.to_string(),
            it.failed.len().to_string(),
            text::age(&it.started_at, now),
            it.cause.clone().unwrap_or_default(),
        ]
    });
    text::table(&["BACKEND", "TO", "STATE", "MOVED", "OPEN", "STAYED", "AGE", "NOTE"], rows)
}

#[cfg(test)]
mod tests {
    use ligand_api::migration::{DrainFailure, MigrationPhase};

    use super::*;

    fn at(second: i64) -> String {
        now(second).to_string()
    }

    fn now(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn drain() -> Drain {
        Drain {
            backend: "west".into(),
            to: "east".into(),
            state: "running".into(),
            concurrency: 2,
            total: 50,
            migrated: 31,
            open: 2,
            waiting: 16,
            failed: vec![DrainFailure {
                workspace: "a-long-name".into(),
                cause: "the target did not complete\na turn".into(),
                ..DrainFailure::default()
            }],
            started_at: at(0),
            ..Drain::default()
        }
    }

    fn one(name: &str, state: &str) -> Migration {
        Migration {
            workspace: name.into(),
            state: state.into(),
            phase: "restore".into(),
            phases: vec![MigrationPhase { phase: "restore".into(), at: at(40) }],
            ..Migration::default()
        }
    }

    #[test]
    fn one_that_goes_on_names_who_is_under_way_and_who_stayed() {
        let under_way = [one("demo", "running"), one("other", "undoing")];
        insta::assert_snapshot!(draw(&drain(), &under_way, now(42)), @"
        drain of west to east: under way for 42.0 s
          ██████████████░░░░░░░░░░  62 %  31 of 50 moved, 2 on their way (2 at once), 16 wait, 1 stayed
          on their way
            demo   restore      2.0 s
            other  undoing      2.0 s
          stayed
            a-long-name  the target did not complete a turn
        ");
        assert_eq!(
            line(&drain()),
            "running: 31 of 50 moved, 2 on their way (2 at once), 16 wait, 1 stayed"
        );
    }

    #[test]
    fn one_that_stopped_says_why() {
        let it = Drain {
            state: "stopped".into(),
            cause: Some("1 was rolled back".into()),
            ended_at: Some(at(60)),
            failed: vec![DrainFailure::default(); 14],
            ..drain()
        };
        let drawn = draw(&it, &[], now(99));
        assert!(drawn.starts_with("drain of west to east: stopped after 1 min 0 s\n"), "{drawn}");
        assert!(drawn.contains("  it stopped: 1 was rolled back\n"), "{drawn}");
        assert!(drawn.ends_with("    and 2 more; --output json names all\n"), "{drawn}");
    }
}
