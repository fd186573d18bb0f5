//! As much of Rust's grammar as the rules need: words and marks, without comments; what stands in a literal stays there.

/// What a piece of source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier, a keyword or a number.
    Word(&'a str),
    /// The inside of a string literal, escapes as written.
    Text(&'a str),
    /// `::`
    Path,
    /// Any other character. A character literal or a lifetime is its quote.
    Mark(char),
}

/// A token and its lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) token: Token<'a>,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// All pieces of a source text.
pub(super) fn lex(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(next) = rest.chars().next() {
        let (length, token) = cut(rest, next);
        let first = line;
        line += rest[..length].matches('\n').count();
        pieces.extend(token.map(|token| Piece { token, first, last: line }));
        rest = &rest[length..];
    }
    pieces
}

/// The length of what comes next, and its token; white space and comments have none.
fn cut(rest: &str, next: char) -> (usize, Option<Token<'_>>) {
    if next.is_whitespace() {
        (next.len_utf8(), None)
    } else if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), None)
    } else if rest.starts_with("/*") {
        (comment(rest), None)
    } else if let Some((open, close)) = raw(rest) {
        let length = rest[open..].find(&close).unwrap_or(rest.len() - open);
        (
            (open + length + close.len()).min(rest.len()),
            Some(Token::Text(&rest[open..open + length])),
        )
    } else if next == '"' {
        let length = quoted(&rest[1..], '"');
        ((length + 2).min(rest.len()), Some(Token::Text(&rest[1..=length])))
    } else if next == '\'' {
        (quote(rest), Some(Token::Mark('\'')))
    } else if is_word(next) {
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        (length, Some(Token::Word(&rest[..length])))
    } else if rest.starts_with("::") {
        (2, Some(Token::Path))
    } else {
        (next.len_utf8(), Some(Token::Mark(next)))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a block comment; they nest.
fn comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    while at < rest.len() {
        let opens = rest[at..].starts_with("/*");
        let closes = rest[at..].starts_with("*/");
        depth = if opens { depth + 1 } else { depth - u32::from(closes) };
        at += if opens || closes { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a raw string's opening, and its closing.
fn raw(rest: &str) -> Option<(usize, String)> {
    let after = rest.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let open = rest.len() - after[hashes..].strip_prefix('"')?.len();
    Some((open, format!("\"{}", "#".repeat(hashes))))
}

/// The length up to an end mark that no backslash escapes.
fn quoted(rest: &str, end: char) -> usize {
    let mut escaped = false;
    let found = rest.find(|c| {
        let ends = c == end && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    found.unwrap_or(rest.len())
}

/// The length of a character literal, or 1 for the quote of a lifetime.
fn quote(rest: &str) -> usize {
    let mut after = rest.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) | (_, Some('\'')) => (quoted(&rest[1..], '\'') + 2).min(rest.len()),
        _ => 1,
    }
}

/// A path of at least two names, as `a::b` or a branch of `use a::{b, c}`.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) line: usize,
    pub(super) names: Vec<&'a str>,
}

/// Every path that the source names.
pub(super) fn paths<'a>(pieces: &[Piece<'a>]) -> Vec<Named<'a>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at + 1 < pieces.len() {
        let starts = matches!(pieces[at].token, Token::Word(_))
            && pieces[at + 1].token == Token::Path
            && (at == 0 || pieces[at - 1].token != Token::Path);
        at = if starts { branch(pieces, at, Vec::new(), &mut found) } else { at + 1 };
    }
    found
}

/// Reads one path, and the groups below it; returns where it ends.
fn branch<'a>(
    pieces: &[Piece<'a>],
    mut at: usize,
    mut names: Vec<&'a str>,
    found: &mut Vec<Named<'a>>,
) -> usize {
    let token = |at: usize| pieces.get(at).map(|piece| piece.token);
    let line = pieces[at].first;
    while let Some(Token::Word(name)) = token(at) {
        names.push(name);
        at += 1;
        if token(at) != Some(Token::Path) {
            break;
        }
        at += 1;
    }
    if token(at) != Some(Token::Mark('{')) || token(at - 1) != Some(Token::Path) {
        found.push(Named { line, names });
        return at;
    }
    while let Some(next) = token(at) {
        at += 1;
        match next {
            Token::Mark('{' | ',') if matches!(token(at), Some(Token::Word(_))) => {
                at = branch(pieces, at, names.clone(), found);
            }
            Token::Mark('}') => break,
            // `*`, `as other`, a trailing comma.
            Token::Mark(_) | Token::Word(_) | Token::Text(_) | Token::Path => {}
        }
    }
    at
}

#[test]
fn literals_and_comments_hide_what_they_hold() {
    let source = r##"a /* } /* { */ "x" */ "b\"{" r#"c"}"# b"d" '{' '\'' &'e f // }"##;
    let tokens: Vec<Token> = lex(source).iter().map(|piece| piece.token).collect();
    let (word, text, mark) = (Token::Word, Token::Text, Token::Mark);
    let quote = mark('\'');
    let [a, b, c, d, e] = [word("a"), text("b\\\"{"), text("c\"}"), text("d"), word("e")];
    assert_eq!(tokens, [a, b, c, word("b"), d, quote, quote, mark('&'), quote, e, word("f")]);
}

#[test]
fn pieces_know_their_lines() {
    let pieces = lex("a\n\"b\nc\"\nd::e");
    let lines: Vec<(usize, usize)> = pieces.iter().map(|piece| (piece.first, piece.last)).collect();
    assert_eq!(lines, [(1, 1), (2, 3), (4, 4), (4, 4), (4, 4)]);
}

#[test]
fn paths_are_found_in_groups_and_expressions() {
    let pieces = lex("use a::{b, c::{d as x, *}, self};\nlet y = f::g::<h::I>(j);");
    let named: Vec<String> =
        paths(&pieces).iter().map(|it| format!("{} {}", it.line, it.names.join("::"))).collect();
    assert_eq!(named, ["1 a::b", "1 a::c::d", "1 a::self", "2 f::g", "2 h::I"]);
}
