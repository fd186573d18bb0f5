//! A migration as people see it: a picture that is drawn over and over, lines for whoever reads a log, and what is
//! left to say at its end. Pure.

use std::time::Duration;

use ligand_api::migration::{Migration, MigrationPhase};
use ligand_domain::migration::{After, Before, Stage};
use ligand_domain::time::Timestamp;

use crate::text;

/// Columns of a bar.
const BAR: usize = 24;
/// The state of one that is going the whole way back.
const UNDOING: &str = "undoing";
/// The states of one that is over.
pub(crate) const MIGRATED: &str = "migrated";
pub(crate) const ROLLED_BACK: &str = "rolled-back";

/// Whether nothing more happens to it.
pub(crate) fn is_over(it: &Migration) -> bool {
    [MIGRATED, ROLLED_BACK].contains(&it.state.as_str())
}

/// What a phase is for, in a few words.
fn about(stage: Stage) -> &'static str {
    match stage {
        Stage::Before(Before::Prepare) => "a generation and a passport for the target",
        Stage::Before(Before::Provision) => "the target starts, and stands by",
        Stage::Before(Before::PreCopy) => "data is copied while the source serves",
        Stage::Before(Before::Hold) => "new messages wait, turns in flight end",
        Stage::Before(Before::Quiesce) => "the source stands by; what changed since is copied",
        Stage::Before(Before::Restore) => "the target gets the data, and its digest is compared",
        Stage::Before(Before::Activate) => "the target gets its secrets, and its program starts",
        Stage::Before(Before::Probe) => "a turn on the target",
        Stage::Before(Before::CutOver) => "the target becomes the workspace",
        Stage::After(After::Release) => "messages go on, to the target",
        Stage::After(After::Retire) => "the source goes, after its grace",
        Stage::Undoing | Stage::Over(_) => "",
    }
}

/// The eleven phases, in their order.
pub(crate) fn phases() -> impl Iterator<Item = Stage> {
    let real = |stage: &Stage| matches!(stage, Stage::Before(_) | Stage::After(_));
    Stage::all().into_iter().filter(real)
}

/// How a phase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Done,
    Now,
    Failed,
    ToCome,
}

impl Mark {
    fn as_char(self) -> char {
        match self {
            Self::Done => '✓',
            Self::Now => '▶',
            Self::Failed => '✗',
            Self::ToCome => '·',
        }
    }
}

/// The whole of it, as it stands at `now`.
pub(crate) fn draw(it: &Migration, now: Timestamp) -> String {
    let mut lines = vec![head(it, now)];
    for stage in phases() {
        lines.push(row(it, stage, now));
        if stage == Stage::Before(Before::CutOver) {
            lines.push(format!("  {}", "─".repeat(12)));
        }
    }
    lines.extend(foot(it, now));
    lines.iter().map(|line| text::plain(line) + "\n").collect()
}

/// From where to where, and how it stands.
fn head(it: &Migration, now: Timestamp) -> String {
    let generations = match it.target_generation {
        Some(target) => format!(" (generation {} → {target})", it.source_generation),
        None => format!(" (generation {})", it.source_generation),
    };
    let took = text::took(lasted(it, now));
    format!("{}: {} → {}{generations}, {} {took}", name(it), it.from, it.to, stands(it))
}

/// Its workspace's name, or the id of one that has none.
pub(crate) fn name(it: &Migration) -> String {
    match it.workspace.as_str() {
        "" => it.workspace_id.to_string(),
        name => name.to_owned(),
    }
}

fn stands(it: &Migration) -> &str {
    match it.state.as_str() {
        "running" => "under way for",
        "paused" => "paused, after",
        UNDOING => "being rolled back, after",
        MIGRATED => "migrated in",
        ROLLED_BACK => "rolled back after",
        other => other,
    }
}

fn lasted(it: &Migration, now: Timestamp) -> Duration {
    let end = it.ended_at.as_deref().and_then(Timestamp::parse).unwrap_or(now);
    Timestamp::parse(&it.started_at).map_or(Duration::ZERO, |start| end.since(start))
}

/// How long it was in a phase, all visits together; `None`: it never was.
pub(crate) fn spent(it: &Migration, phase: &str, now: Timestamp) -> Option<Duration> {
    let end = it.ended_at.as_deref().and_then(Timestamp::parse).unwrap_or(now);
    let times: Vec<(&str, Timestamp)> = it
        .phases
        .iter()
        .filter_map(|entered| Some((entered.phase.as_str(), Timestamp::parse(&entered.at)?)))
        .collect();
    let mut spent = None;
    for (at, (entered, begun)) in times.iter().enumerate() {
        if *entered == phase {
            let until = times.get(at + 1).map_or(end, |(_, next)| *next);
            spent = Some(spent.unwrap_or(Duration::ZERO) + until.since(*begun));
        }
    }
    spent
}

fn mark(it: &Migration, stage: Stage) -> Mark {
    let place = |name: &str| phases().position(|stage| stage.as_str() == name);
    let (own, reached) = (place(stage.as_str()), place(&it.phase));
    match (it.state.as_str(), own.cmp(&reached)) {
        (MIGRATED, _) | (_, std::cmp::Ordering::Less) => Mark::Done,
        (_, std::cmp::Ordering::Greater) => Mark::ToCome,
        (UNDOING | ROLLED_BACK, _) => Mark::Failed,
        (_, std::cmp::Ordering::Equal) => Mark::Now,
    }
}

fn row(it: &Migration, stage: Stage, now: Timestamp) -> String {
    let mark = mark(it, stage);
    let took = spent(it, stage.as_str(), now).map(text::took).unwrap_or_default();
    let more = match mark {
        Mark::Now => progress(it, stage).unwrap_or_else(|| about(stage).to_owned()),
        Mark::ToCome | Mark::Done => about(stage).to_owned(),
        Mark::Failed => it.cause.clone().unwrap_or_else(|| "it failed here".to_owned()),
    };
    format!("  {} {:<9}  {took:>10}  {more}", mark.as_char(), stage.as_str())
}

/// How far its data is, where data is on its way.
fn progress(it: &Migration, stage: Stage) -> Option<String> {
    let moves = [Before::PreCopy, Before::Quiesce, Before::Restore].map(Stage::Before);
    let total = it.bytes_total.filter(|total| *total > 0 && moves.contains(&stage))?;
    let done = it.bytes_done.min(total);
    if done == total && stage != Stage::Before(Before::Restore) {
        // How much there is, is known at the end.
        return Some(format!("{} so far", text::size(done)));
    }
    Some(format!("{}  {} of {}", bar(done, total), text::size(done), text::size(total)))
}

/// How much of something is done: a bar, and per cent.
pub(crate) fn bar(done: u64, total: u64) -> String {
    let share = if total == 0 { 1.0 } else { done.min(total) as f64 / total as f64 };
    let full = (share * BAR as f64) as usize;
    // What is not done is never shown as done.
    let percent = (share * 100.0) as u64;
    format!("{}{} {percent:>3} %", "█".repeat(full), "░".repeat(BAR - full))
}

fn foot(it: &Migration, now: Timestamp) -> Vec<String> {
    let over = is_over(it);
    let mut said = Vec::new();
    if let Some(what) = it.waits_for.as_deref().filter(|_| !over) {
        let until = it.deadline_at.as_deref().filter(|_| it.state == "running");
        let until = until.map(|at| format!("; given up {}", text::until(at, now)));
        said.push(("waits for", format!("{what}{}", until.unwrap_or_default())));
    }
    if let Some(error) = it.last_error.as_deref().filter(|_| !over) {
        let next = it.next_attempt_at.as_deref().map(|at| text::until(at, now));
        let next = next.map(|next| format!("; again {next}")).unwrap_or_default();
        said.push(("went wrong", format!("{error}{next}")));
    }
    if it.held_messages > 0 {
        said.push(("messages", format!("{} held", it.held_messages)));
    }
    if let Some(millis) = it.without_service_ms {
        said.push(("no service", format!("for {}", text::took(Duration::from_millis(millis)))));
    }
    if let Some(cause) = it.cause.as_deref() {
        said.push(("cause", cause.to_owned()));
    }
    match it.state.as_str() {
        MIGRATED => {
            let url = it.url_after.as_deref().unwrap_or("its new address");
            said.push(("serves", format!("on {}, at {url}", it.to)));
        }
        ROLLED_BACK => said.push((
            "serves",
            format!("on {} as before, in generation {}", it.from, it.source_generation),
        )),
        _ => {}
    }
    said.into_iter().map(|(what, text)| format!("  {what:<10}  {text}")).collect()
}

/// What is said of one phase that was entered, for a log.
pub(crate) fn line(it: &Migration, entered: &MigrationPhase) -> String {
    let more = match entered.phase.as_str() {
        UNDOING => it.cause.clone().unwrap_or_default(),
        MIGRATED | ROLLED_BACK => ending(it),
        phase => Stage::parse(phase).map(about).unwrap_or_default().to_owned(),
    };
    let line = format!("{}  {:<11}  {more}", text::time_of_day(&entered.at), entered.phase);
    text::plain(&line)
}

/// How it ended, in a sentence.
pub(crate) fn ending(it: &Migration) -> String {
    let without = it.without_service_ms.map(Duration::from_millis).map(text::took);
    let without = without.map(|took| format!("; no turn was served for {took}"));
    let without = without.unwrap_or_default();
    let (name, from, to) = (name(it), &it.from, &it.to);
    match it.state.as_str() {
        MIGRATED => {
            let generation = it.target_generation.unwrap_or(it.source_generation);
            format!("{name} went from {from} to {to}, and is generation {generation}{without}")
        }
        ROLLED_BACK => {
            let cause = it.cause.as_deref().unwrap_or("nobody knows why");
            format!("{name} stays on {from}: {cause}{without}")
        }
        _ => format!("{name} is on its way from {from} to {to}"),
    }
}

/// Several, one a line.
pub(crate) fn table(all: &[Migration], now: Timestamp) -> String {
    let rows = all.iter().map(|it| {
        let note = it.cause.clone().or_else(|| it.last_error.clone());
        let note = note.or_else(|| it.waits_for.clone().filter(|_| !is_over(it)));
        vec![
            name(it),
            it.from.clone(),
            it.to.clone(),
            it.state.clone(),
            if is_over(it) { "-".to_owned() } else { it.phase.clone() },
            text::age(&it.started_at, now),
            text::took(lasted(it, now)),
            note.unwrap_or_default(),
        ]
    });
    text::table(&["WORKSPACE", "FROM", "TO", "STATE", "PHASE", "AGE", "TOOK", "NOTE"], rows)
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
