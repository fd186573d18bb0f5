//! Lines that one server passes on to the others, whatever they mean. Short ones go in notifications, several in
//! one; long ones are left in a table for a while, and the notification says where. What gets lost stays lost.

use std::mem::take;

use ligand_domain::time::Timestamp;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::hints::Hints;

/// The channel of these. One that knows nothing of them does not listen there.
pub(super) const CHANNEL: &str = "ligand_passing";
/// Bytes of lines in one notification: it may have 8000, and says from whom it is besides.
const MOST: usize = 7_700;
/// What stands before the place of a line that was left in the table.
const LEFT: char = '@';

/// Lines of one server.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines {
    /// Whose.
    pub server: Uuid,
    /// In their order. `None` stands for one that is not there any more.
    pub lines: Vec<Option<String>>,
}

impl Hints {
    /// Pass lines on. None of them may be empty, contain a line's end, or begin with `@`. Gives whether any was left
    /// in the table.
    ///
    /// # Errors
    /// When the database does not take it; then some may have been passed on.
    pub async fn pass(&self, lines: Vec<String>, now: Timestamp) -> Result<bool, sqlx::Error> {
        let mut short = Vec::with_capacity(lines.len());
        let mut left = false;
        for line in lines {
            if line.len() < MOST {
                short.push(line);
                continue;
            }
            let place: i64 =
                sqlx::query_scalar("INSERT INTO passing (at, line) VALUES ($1, $2) RETURNING id")
                    .bind(now.micros())
                    .bind(line)
                    .fetch_one(self.pool())
                    .await?;
            short.push(format!("{LEFT}{place}"));
            left = true;
        }
        let from = format!("{} ", self.server());
        sqlx::query(
            "SELECT pg_notify($1, $2 || COALESCE(current_schema()::text, '') || chr(10) || letter)
             FROM unnest($3::text[]) AS letter",
        )
        .bind(CHANNEL)
        .bind(from)
        .bind(letters(short))
        .execute(self.pool())
        .await?;
        Ok(left)
    }

    /// Take away what was left before `at`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn clear(&self, at: Timestamp) -> Result<(), sqlx::Error> {
        let gone = sqlx::query("DELETE FROM passing WHERE at < $1").bind(at.micros());
        gone.execute(self.pool()).await.map(|_| ())
    }
}

/// As many lines in each as there is room.
fn letters(lines: Vec<String>) -> Vec<String> {
    let (mut letters, mut letter) = (Vec::new(), String::new());
    for line in lines {
        if !letter.is_empty() && letter.len() + 1 + line.len() > MOST {
            letters.push(take(&mut letter));
        }
        if !letter.is_empty() {
            letter.push('\n');
        }
        letter.push_str(&line);
    }
    if !letter.is_empty() {
        letters.push(letter);
    }
    letters
}

/// What another server of the same platform passed on; `None`: it is from this one, or from another platform's.
pub(super) async fn read(
    pool: &PgPool,
    payload: &str,
    server: Uuid,
    schema: &str,
) -> Result<Option<Lines>, sqlx::Error> {
    let Some((from, text)) = addressed(payload, schema).filter(|(from, _)| *from != server) else {
        return Ok(None);
    };
    let mut lines = Vec::new();
    for line in text.lines() {
        let Some(place) = line.strip_prefix(LEFT) else {
            lines.push(Some(line.to_owned()));
            continue;
        };
        let found = sqlx::query_scalar("SELECT line FROM passing WHERE id = $1");
        lines.push(found.bind(place.parse::<i64>().unwrap_or(-1)).fetch_optional(pool).await?);
    }
    Ok(Some(Lines { server: from, lines }))
}

/// From whom a letter is, and what it says, if it is for this platform.
fn addressed<'l>(payload: &'l str, schema: &str) -> Option<(Uuid, &'l str)> {
    let (head, text) = payload.split_once('\n')?;
    let (from, of) = head.split_once(' ')?;
    (of == schema).then_some((from.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_packed_into_as_few_letters_as_hold_them() {
        let line = |length| "x".repeat(length);
        assert_eq!(letters(vec![line(2), line(3)]), ["xx\nxxx"]);
        let of = letters(vec![line(4000), line(4000), line(10)]);
        assert_eq!(of.iter().map(String::len).collect::<Vec<_>>(), [4000, 4011]);
        assert!(letters(Vec::new()).is_empty());
    }

    #[test]
    fn a_letter_is_for_one_platform() {
        let payload = format!("{} with spaces 1\na\nb", Uuid::max());
        assert_eq!(addressed(&payload, "with spaces 1"), Some((Uuid::max(), "a\nb")));
        for odd in ["", "x", "x public\na", &payload] {
            assert_eq!(addressed(odd, "public"), None, "{odd}");
        }
    }
}
