//! What may be logged, and how much of it is kept.

/// What an agent may log by itself.
pub const LOGGED: [&str; 7] = [
    "a2a_send",
    "a2a_receive",
    "task_update",
    "agent_log",
    "skill_promotion",
    "memory_write",
    "error",
];

/// Longest text of one field of a log, in bytes; and longest body.
pub const MOST_TEXT: usize = 64 << 10;
/// Longest body that is kept, in bytes.
pub const MOST_BODY: usize = 1 << 20;

/// The first `most` characters of a text, and `...` where there were more.
#[must_use]
pub fn preview(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// As much of the beginning of a text as fits into so many bytes. Databases keep no zeros in texts.
#[must_use]
pub fn kept(text: &str, most: usize) -> String {
    let text = if text.contains('\0') { text.replace('\0', "") } else { text.to_owned() };
    let fits = |end: &usize| *end <= most && text.is_char_boundary(*end);
    let end = (0..=most.min(text.len())).rev().find(fits).unwrap_or_default();
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_ends_between_characters_and_says_that_there_was_more() {
        assert_eq!(preview("äöü", 3), "äöü");
        assert_eq!(preview("äöüß", 3), "äöü...");
        assert_eq!(preview("", 0), "");
    }

    #[test]
    fn what_is_kept_ends_between_characters_and_has_no_zeros() {
        assert_eq!(kept("a\0b", 10), "ab");
        assert_eq!(kept("aäö", 4), "aä");
        assert_eq!(kept("aäö", 0), "");
    }
}
