//! Statements about lists. A list is filled up with its last member to one of few lengths, so that there are few
//! texts, and each is prepared once.

use std::fmt::Write as _;

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
