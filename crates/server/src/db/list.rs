//! Statements about lists. A list is filled up with its last member to one of few lengths, so that there are few
//! texts, and each is prepared once.

use std::fmt::Write as _;

use ligand_domain::credential::TokenHash;
use ligand_domain::time::Timestamp;
use sqlx::AssertSqlSafe;

use super::{Tx, on};

/// Most members of a list in one statement.
pub const MOST: usize = 256;

/// The members of a list as rows of one column, for `VALUES`: their numbers begin at `first`. At most [`MOST`].
#[must_use]
pub fn rows(first: usize, members: usize) -> String {
    let mut text = String::new();
    for number in first..first + filled(members) {
        let _ = write!(text, "{}(${number})", if number == first { "" } else { ", " });
    }
    text
}

/// What to bind for these rows.
pub fn members<T: Copy>(list: &[T]) -> impl Iterator<Item = T> {
    let last = list.last().copied();
    let all = list.iter().copied().chain(std::iter::from_fn(move || last));
    all.take(if list.is_empty() { 0 } else { filled(list.len()) })
}

/// Those of these hashes for which nothing is found: `found` is a query about `b.hash`. With a time, that is its `$1`.
///
/// # Errors
/// When the database does not answer.
pub async fn without(
    tx: &mut Tx,
    hashes: &[TokenHash],
    found: &str,
    now: Option<Timestamp>,
) -> Result<Vec<TokenHash>, sqlx::Error> {
    let mut without = Vec::new();
    let first = if now.is_some() { 2 } else { 1 };
    for some in hashes.chunks(MOST) {
        let text = format!(
            "WITH b (hash) AS (VALUES {}) SELECT DISTINCT b.hash FROM b WHERE NOT EXISTS ({found})",
            rows(first, some.len())
        );
        let named: Vec<Vec<u8>> = on!(&mut *tx, c => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(text));
            if let Some(now) = now {
                query = query.bind(now.micros());
            }
            for hash in members(some) {
                query = query.bind(hash.bytes().to_vec());
            }
            query.fetch_all(c).await
        })?;
        without.extend(some.iter().filter(|hash| named.iter().any(|it| it == hash.bytes())));
    }
    Ok(without)
}

fn filled(members: usize) -> usize {
    members.clamp(1, MOST).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_filled_up_with_their_last_member() {
        assert_eq!(rows(2, 3), "($2), ($3), ($4), ($5)");
        assert_eq!(members(&[7, 8, 9]).collect::<Vec<_>>(), [7, 8, 9, 9]);
        assert_eq!((rows(1, 1), members(&[1]).count()), ("($1)".to_owned(), 1));
        assert_eq!(members::<u8>(&[]).count(), 0);
        assert_eq!(members(&[0; MOST]).count(), MOST);
    }
}
