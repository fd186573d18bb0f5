//! What is doubted, held up, or about to be ended, in the database.

use ligand_domain::brake::Census;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;

use super::Done;
use crate::db::{Tx, on};

/// Its silence was noted.
pub(crate) async fn note_silent(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    now: Timestamp,
) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET silent_at = $1, guesses = guesses + 1
            WHERE workspace_id = $2 AND generation = $3 AND ended_at IS NULL")
        .bind(now.micros()).bind(of.0.uuid()).bind(of.1.number()).execute(c).await.map(|_| ()))
}

/// Count a guess about an instance. Gives how many there were, and when the instance was started; nothing, if
/// it has ended.
pub(crate) async fn count_guess(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
) -> Done<Option<(i64, Timestamp)>> {
    let counted: Option<(i64, i64)> = on!(tx, c => sqlx::query_as("UPDATE instances SET guesses = guesses + 1
            WHERE workspace_id = $1 AND generation = $2 AND ended_at IS NULL AND backend IS NOT NULL
            RETURNING guesses, COALESCE(started_at, created_at)")
        .bind(of.0.uuid()).bind(of.1.number()).fetch_optional(c).await)?;
    Ok(counted.map(|(guesses, started)| (guesses, Timestamp::from_micros(started))))
}

/// Whether its status rests on nothing but its backend's silence. Every move of the status takes that back.
pub(crate) async fn set_unsure(tx: &mut Tx, id: WorkspaceId, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET unsure_at = $1 WHERE id = $2")
        .bind(now.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Look at it then, or earlier. Of one that a pass has right now, `due_at` says nothing but when its claim ends.
pub(crate) async fn look_by(tx: &mut Tx, id: WorkspaceId, at: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET due_at = $1
            WHERE id = $2 AND (due_at > $1 OR claimed_by IS NOT NULL AND due_at = claimed_until)")
        .bind(at.micros()).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Its replacement waits until then; `until_released` means that it may be let go earlier.
pub(crate) async fn hold(
    tx: &mut Tx,
    id: WorkspaceId,
    at: Timestamp,
    until_released: bool,
) -> Done {
    let held = until_released.then_some(at.micros());
    on!(tx, c => sqlx::query("UPDATE workspaces SET next_attempt_at = $1, held_until = $2 WHERE id = $3")
        .bind(at.micros()).bind(held).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// Let some of those go that the brake holds, and look at them now. Gives how many.
pub(crate) async fn let_go(tx: &mut Tx, now: Timestamp, limit: i64) -> Done<u64> {
    // The engines differ as they do in `claim`: a row that somebody else has is let go by the next pass.
    macro_rules! let_go {
        ($passed_over:literal) => {
            concat!(
                "UPDATE workspaces SET held_until = NULL,
                    next_attempt_at = CASE WHEN next_attempt_at = held_until THEN NULL ELSE next_attempt_at END,
                    due_at = CASE WHEN due_at > $1 THEN $1 ELSE due_at END
                 WHERE id IN (SELECT id FROM workspaces WHERE held_until IS NOT NULL ORDER BY id LIMIT $2 ",
                $passed_over,
                ")"
            )
        };
    }
    let text = match tx {
        Tx::Postgres(_) => let_go!("FOR NO KEY UPDATE SKIP LOCKED"),
        Tx::Sqlite(_) => let_go!(""),
    };
    on!(tx, c => sqlx::query(text).bind(now.micros()).bind(limit).execute(c).await.map(|done| done.rows_affected()))
}

/// Count the instances that serve, those of them that are silent (their silence was noted, and nothing was
/// heard of them since), and those that turned so after `from` and until `to`.
pub(crate) async fn serving(tx: &mut Tx, from: Timestamp, to: Timestamp) -> Done<Census> {
    let (running, silent, turned): (i64, i64, i64) = on!(tx, c => sqlx::query_as(
            "SELECT COUNT(*),
                COUNT(CASE WHEN COALESCE(last_seen_at, 0) < silent_at THEN 1 END),
                COUNT(CASE WHEN COALESCE(last_seen_at, 0) < silent_at AND silent_at > $1 AND silent_at <= $2 THEN 1 END)
             FROM instances WHERE ended_at IS NULL AND phase = 'serving' AND backend IS NOT NULL")
        .bind(from.micros()).bind(to.micros()).fetch_one(c).await)?;
    Ok(Census { running, silent, turned })
}

/// Whatever runs on this backend is about to be ended by the server, which stops.
pub(crate) async fn dismiss(tx: &mut Tx, backend: &str, now: Timestamp) -> Done {
    on!(tx, c => sqlx::query("UPDATE instances SET dismissed_at = $1 WHERE backend = $2 AND ended_at IS NULL")
        .bind(now.micros()).bind(backend).execute(c).await.map(|_| ()))
}
