//! Programs in the database.

use ligand_api::registry::ProgramState;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;

use super::{Done, Program, Reported, Wish};
use crate::db::{Tx, on};

/// Longest word that an agent's report is taken down with.
const LONGEST_WORD: usize = 32;

#[derive(sqlx::FromRow)]
struct Row {
    wanted: Option<String>,
    serial: i64,
    reported: Option<String>,
    reported_serial: Option<i64>,
    reported_at: Option<i64>,
    fetched_serial: Option<i64>,
}

fn wish(wanted: Option<&str>, serial: i64) -> Done<Option<Wish>> {
    match wanted {
        None => Ok(None),
        Some("run") => Ok(Some(Wish::Run(serial))),
        Some("stand-by") => Ok(Some(Wish::StandBy(serial))),
        Some(_) => Err(sqlx::Error::Decode(
            "programs.wanted holds a value that this version does not know".into(),
        )),
    }
}

/// What is kept of a program that worked again while it was wanted to stand by. It stays until something else is
/// wanted: whatever was copied of its data may lack what it did.
const WORKED: &str = "worked";

/// Want this of a program, whatever was wanted of it before. What was said of standing by before that was wanted
/// counts for nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn want(tx: &mut Tx, of: (WorkspaceId, Generation), wish: Wish) -> Done {
    let there = on!(&mut *tx, c => sqlx::query("UPDATE programs SET wanted = $1, serial = $2,
                reported = CASE WHEN $1 = 'stand-by' THEN NULL ELSE reported END WHERE workspace_id = $3 AND generation = $4")
        .bind(wish.as_str()).bind(wish.serial()).bind(of.0.uuid()).bind(of.1.number())
        .execute(c).await.map(|done| done.rows_affected() > 0))?;
    if there { Ok(()) } else { insert(tx, of, Some(wish)).await }
}

async fn insert(tx: &mut Tx, of: (WorkspaceId, Generation), wish: Option<Wish>) -> Done {
    on!(tx, c => sqlx::query("INSERT INTO programs (workspace_id, generation, wanted, serial) VALUES ($1, $2, $3, $4)")
        .bind(of.0.uuid()).bind(of.1.number()).bind(wish.map(Wish::as_str))
        .bind(wish.map_or(0, Wish::serial)).execute(c).await.map(|_| ()))
}

/// What is wanted of a program; nothing: that it runs as usual, or that it waits as it was started.
///
/// # Errors
/// When the database does not answer.
pub async fn wanted(tx: &mut Tx, of: (WorkspaceId, Generation)) -> Done<Option<Wish>> {
    let row: Option<(Option<String>, i64)> = on!(tx, c => sqlx::query_as(
            "SELECT wanted, serial FROM programs WHERE workspace_id = $1 AND generation = $2")
        .bind(of.0.uuid()).bind(of.1.number()).fetch_optional(c).await)?;
    row.map_or(Ok(None), |(wanted, serial)| wish(wanted.as_deref(), serial))
}

/// All that is known of a program; nothing where all is as usual.
///
/// # Errors
/// When the database does not answer.
pub async fn of(tx: &mut Tx, of: (WorkspaceId, Generation)) -> Done<Option<Program>> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(
            "SELECT wanted, serial, reported, reported_serial, reported_at, fetched_serial FROM programs
             WHERE workspace_id = $1 AND generation = $2")
        .bind(of.0.uuid()).bind(of.1.number()).fetch_optional(c).await)?;
    let Some(row) = row else { return Ok(None) };
    let reported = row.reported.zip(row.reported_at).map(|(state, at)| Reported {
        state,
        serial: row.reported_serial,
        at: Timestamp::from_micros(at),
    });
    let wanted = wish(row.wanted.as_deref(), row.serial)?;
    Ok(Some(Program { wanted, reported, fetched: row.fetched_serial }))
}

/// Take down what an agent says. Only a candidate's report makes a row: of any other a row says that something is
/// wanted of it.
pub(super) async fn report(
    tx: &mut Tx,
    of: (WorkspaceId, Generation),
    said: &ProgramState,
    candidate: bool,
    now: Timestamp,
) -> Done {
    let word: String = said.state.chars().filter(|c| *c != '\0').take(LONGEST_WORD).collect();
    for last in [!candidate, true] {
        let there = on!(&mut *tx, c => sqlx::query("UPDATE programs SET reported_serial = $2, reported_at = $3, reported = CASE
                WHEN wanted = 'stand-by' AND (reported = $6 OR reported = 'standing-by' AND $1 <> 'standing-by') THEN $6 ELSE $1 END
                WHERE workspace_id = $4 AND generation = $5")
            .bind(&word).bind(said.serial).bind(now.micros()).bind(of.0.uuid()).bind(of.1.number()).bind(WORKED)
            .execute(c).await.map(|done| done.rows_affected() > 0))?;
        if there || last {
            break;
        }
        insert(tx, of, None).await?;
    }
    Ok(())
}

/// Its secrets were given to it, when so many restarts had been asked for.
pub(super) async fn fetched(tx: &mut Tx, of: (WorkspaceId, Generation), serial: i64) -> Done {
    for last in [false, true] {
        let there = on!(&mut *tx, c => sqlx::query("UPDATE programs SET fetched_serial = $1 WHERE workspace_id = $2 AND generation = $3")
            .bind(serial).bind(of.0.uuid()).bind(of.1.number())
            .execute(c).await.map(|done| done.rows_affected() > 0))?;
        if there || last {
            break;
        }
        insert(tx, of, None).await?;
    }
    Ok(())
}

/// Nothing is wanted any more of any program of this workspace: all run as usual.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    on!(tx, c => sqlx::query("DELETE FROM programs WHERE workspace_id = $1")
        .bind(workspace.uuid()).execute(c).await.map(|_| ()))
}
