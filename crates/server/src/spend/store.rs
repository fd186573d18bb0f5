//! Tokens of days in the database.

use ligand_domain::id::WorkspaceId;
use ligand_domain::spend::Usage;
use ligand_domain::time::Timestamp;

use crate::db::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// Add one call to its day.
pub(super) async fn count(
    tx: &mut Tx,
    workspace: WorkspaceId,
    used: Usage,
    (day, now): (Timestamp, Timestamp),
) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO token_usage (workspace_id, period_start, input_tokens, output_tokens, calls, updated_at)
            SELECT id, $2, $3, $4, 1, $5 FROM workspaces WHERE id = $1
            ON CONFLICT (workspace_id, period_start) DO UPDATE SET calls = token_usage.calls + 1,
                input_tokens = token_usage.input_tokens + excluded.input_tokens,
                output_tokens = token_usage.output_tokens + excluded.output_tokens, updated_at = excluded.updated_at")
        .bind(workspace.uuid()).bind(day.micros()).bind(used.input).bind(used.output).bind(now.micros())
        .execute(c).await.map(|_| ()))
}

/// What was used on a day, and in how many calls.
pub(super) async fn used(
    tx: &mut Tx,
    workspace: WorkspaceId,
    day: Timestamp,
) -> Done<(Usage, i64)> {
    let row: Option<(i64, i64, i64)> = on!(tx, c => sqlx::query_as(
            "SELECT input_tokens, output_tokens, calls FROM token_usage WHERE workspace_id = $1 AND period_start = $2")
        .bind(workspace.uuid()).bind(day.micros()).fetch_optional(c).await)?;
    let (input, output, calls) = row.unwrap_or_default();
    Ok((Usage { input, output }, calls))
}
