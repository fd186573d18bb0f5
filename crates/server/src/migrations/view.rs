//! What callers see of migrations and drains.

use ligand_api::migration::{Drain as DrainView, DrainFailure, Migration as View, MigrationPhase};
use ligand_domain::migration::{After, Stage, Wish};
use ligand_domain::time::Timestamp;

use super::drains::{Drain, Member, Standing};
use super::{Done, Migration, store};
use crate::db::Tx;
use crate::messages;
use crate::workspaces;

fn text(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

fn count(of: i64) -> u64 {
    u64::try_from(of).unwrap_or(0)
}

/// `running`, `paused`, `undoing`, `migrated` or `rolled-back`.
fn state(it: &Migration) -> &'static str {
    match it.stage {
        Stage::Undoing | Stage::Over(_) => it.stage.as_str(),
        Stage::Before(before) if it.wish == Wish::Pause && before.pauses() => "paused",
        Stage::After(After::Retire) if it.wish == Wish::Pause => "paused",
        Stage::Before(_) | Stage::After(_) => "running",
    }
}

/// A migration, with what belongs to it.
pub(super) async fn migration(tx: &mut Tx, it: Migration, now: Timestamp) -> Done<View> {
    let phases = store::phases(tx, it.id).await?;
    let workspace = workspaces::get(tx, it.workspace).await?;
    let open = it.ended_at.is_none();
    let held_messages = match open && it.held_at.is_some() && it.released_at.is_none() {
        true => messages::waiting(tx, it.workspace).await?,
        false => 0,
    };
    let before = matches!(it.stage, Stage::Before(_));
    let without_service =
        it.held_at.map(|held| it.released_at.unwrap_or(now).since(held).as_millis());
    Ok(View {
        id: it.id,
        workspace_id: it.workspace.uuid(),
        workspace: workspace.map(|workspace| workspace.name).unwrap_or_default(),
        source_generation: it.source.number(),
        target_generation: it.target.map(|target| target.number()),
        state: state(&it).to_owned(),
        phase: it.reached.as_str().to_owned(),
        phases: phases
            .into_iter()
            .map(|(phase, at)| MigrationPhase { phase, at: at.to_string() })
            .collect(),
        waits_for: it.waits_for.filter(|_| before),
        cause: it.cause,
        last_error: it.last_error,
        next_attempt_at: text(it.next_attempt_at.filter(|_| open)),
        reason: it.reason,
        started_at: it.asked_at.to_string(),
        deadline_at: before.then(|| it.deadline.to_string()),
        ended_at: text(it.ended_at),
        bytes_total: it.bytes_total.map(count),
        bytes_done: count(it.bytes_done),
        digest: it.digest,
        held_messages,
        without_service_ms: without_service.and_then(|ms| u64::try_from(ms).ok()),
        url_before: it.url_before,
        url_after: it.url_after,
        drain_id: it.drain,
        from: it.from,
        to: it.to,
    })
}

/// A drain, with where each of its workspaces stands.
pub(super) fn drain(it: Drain, members: &[Member]) -> DrainView {
    let with = |standing: Standing| members.iter().filter(move |m| m.standing == standing);
    let counted = |standing| i64::try_from(with(standing).count()).unwrap_or(i64::MAX);
    let stayed = members.iter().filter(|m| matches!(m.standing, Standing::Failed | Standing::Kept));
    DrainView {
        id: it.id,
        backend: it.from,
        to: it.to,
        state: it.state.as_str().to_owned(),
        cause: it.cause,
        concurrency: u32::try_from(it.concurrency).unwrap_or(u32::MAX),
        stop_after_failures: u32::try_from(it.stop_after).unwrap_or(u32::MAX),
        total: i64::try_from(members.len()).unwrap_or(i64::MAX),
        grace_seconds: it.grace.map(|grace| grace.as_secs()),
        migrated: counted(Standing::Moved) + counted(Standing::Migrated),
        retiring: counted(Standing::Moved),
        open: counted(Standing::Open),
        failed: stayed
            .map(|m| DrainFailure {
                workspace_id: m.workspace.uuid(),
                workspace: m.name.clone(),
                cause: m.cause.clone().unwrap_or_default(),
            })
            .collect(),
        waiting: counted(Standing::Waiting),
        started_at: it.asked_at.to_string(),
        ended_at: text(it.ended_at),
    }
}
