//! Rows that reconcilers take one at a time, on every replica at once: each is claimed, kept while somebody works at it, and
//! given back. A table that is claimed from has `id`, `due_at`, `claimed_by` and `claimed_until` (0: nobody has it).
//!
//! While a row is claimed and nobody woke it, `due_at` is the end of the claim: a claim that is never given back is due again
//! then, since whoever had it is gone.

use ligand_domain::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{Tx, on};

type Done<T = ()> = Result<T, sqlx::Error>;

/// The statements of one table; [`claims!`] writes them.
#[derive(Debug)]
pub struct Claims {
    pub take_postgres: &'static str,
    pub take_sqlite: &'static str,
    pub keep: &'static str,
    pub give_back: &'static str,
    pub give_back_all: &'static str,
}

/// [`Claims`] of a table: its name, the condition on rows that are not over (empty, or ending in `AND`), and the columns by
/// which whoever takes a row knows it.
macro_rules! claims {
    ($table:literal, open: $open:literal, known_by: $columns:literal) => {{
        // The outer condition repeats the inner one, or two replicas could take the same row.
        macro_rules! take {
            ($passed_over:literal) => {
                concat!(
                    "UPDATE ", $table, " SET claimed_by = $1, claimed_until = $2, due_at = $2
                     WHERE ", $open, "due_at <= $3 AND claimed_until <= $3
                       AND id = (SELECT id FROM ", $table, " WHERE ", $open, "due_at <= $3 AND claimed_until <= $3
                                 ORDER BY due_at LIMIT 1 ", $passed_over, ") RETURNING ", $columns
                )
            };
        }
        $crate::db::Claims {
            take_postgres: take!("FOR NO KEY UPDATE SKIP LOCKED"),
            take_sqlite: take!(""),
            keep: concat!(
                "UPDATE ", $table, " SET due_at = CASE WHEN due_at = claimed_until THEN $1 ELSE due_at END,
                     claimed_until = $1
                 WHERE id = $2 AND claimed_by = $3"
            ),
            give_back: concat!(
                "UPDATE ", $table, " SET
                     due_at = CASE WHEN due_at <> claimed_until AND due_at < $1 THEN due_at ELSE $1 END,
                     claimed_by = NULL, claimed_until = 0
                 WHERE id = $2 AND claimed_by = $3"
            ),
            give_back_all: concat!(
                "UPDATE ", $table, " SET due_at = $1, claimed_by = NULL, claimed_until = 0
                 WHERE ", $open, "claimed_by IS NOT NULL"
            ),
        }
    }};
}
pub(crate) use claims;

impl Claims {
    /// Take one row that is due, for `until`.
    ///
    /// The engines differ here: where several write at once, rows that others are taking are passed over; else everybody
    /// would queue for the first one and find it taken. A row to which somebody else is just adding a line of another table
    /// is not passed over: no key of it changes.
    pub async fn take<R>(
        &self,
        tx: &mut Tx,
        by: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Done<Option<R>>
    where
        R: for<'r> sqlx::FromRow<'r, PgRow> + for<'r> sqlx::FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let text = match tx {
            Tx::Postgres(_) => self.take_postgres,
            Tx::Sqlite(_) => self.take_sqlite,
        };
        on!(tx, c => sqlx::query_as(text)
            .bind(by).bind(until.micros()).bind(now.micros()).fetch_optional(c).await)
    }

    /// Whether the claim still holds; extends it.
    pub async fn keep(&self, tx: &mut Tx, id: Uuid, by: Uuid, until: Timestamp) -> Done<bool> {
        on!(tx, c => sqlx::query(self.keep)
            .bind(until.micros()).bind(id).bind(by).execute(c).await.map(|done| done.rows_affected() == 1))
    }

    /// Give it back, to be looked at again at `next`; sooner if somebody woke it meanwhile.
    pub async fn give_back(&self, tx: &mut Tx, id: Uuid, by: Uuid, next: Timestamp) -> Done {
        on!(tx, c => sqlx::query(self.give_back)
            .bind(next.micros()).bind(id).bind(by).execute(c).await.map(|_| ()))
    }

    /// Give back every claim, and look at those rows now: whoever had them is gone.
    pub async fn give_back_all(&self, tx: &mut Tx, now: Timestamp) -> Done {
        on!(tx, c => sqlx::query(self.give_back_all)
            .bind(now.micros()).execute(c).await.map(|_| ()))
    }
}
