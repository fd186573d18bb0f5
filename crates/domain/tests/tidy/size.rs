//! Files and functions stay short enough to be read in one go.

use super::rust::{Piece, Token, lex};
use super::tree::{File, Offence, Tree};

const FILE: usize = 500;
const TEST_FILE: usize = 800;
const FUNCTION: usize = 70;
const TEST_FUNCTION: usize = 100;

pub(super) fn files(file: &File, _: &Tree) -> Vec<Offence> {
    let limit = if file.is_test() { TEST_FILE } else { FILE };
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= limit {
        return Vec::new();
    }
    vec![file.offence(
        limit + 1,
        format!("{lines} lines, the limit is {limit}: give one of its nouns a file of its own"),
    )]
}

pub(super) fn functions(file: &File, _: &Tree) -> Vec<Offence> {
    if !file.is_rust() {
        return Vec::new();
    }
    let limit = if file.is_test() { TEST_FUNCTION } else { FUNCTION };
    let pieces = lex(&file.text);
    let too_long = lengths(&pieces).into_iter().filter(|(.., lines)| *lines > limit);
    too_long
        .map(|(line, name, lines)| {
            let cure = "separate what it decides from what it does";
            file.offence(line, format!("`{name}` has {lines} lines, the limit is {limit}: {cure}"))
        })
        .collect()
}

/// Each function's line and name, and how many lines of its body hold code.
fn lengths<'a>(pieces: &[Piece<'a>]) -> Vec<(usize, &'a str, usize)> {
    let mut found = Vec::new();
    for (at, pair) in pieces.windows(2).enumerate() {
        if let (Token::Word("fn"), Token::Word(name)) = (pair[0].token, pair[1].token) {
            found.push((pair[0].first, name, lines_with_code(body(&pieces[at..]))));
        }
    }
    found
}

/// What stands between the braces of a function; nothing, if a semicolon ends it.
fn body<'p, 'a>(function: &'p [Piece<'a>]) -> &'p [Piece<'a>] {
    let (mut depth, mut start) = (0_i32, None);
    for (at, piece) in function.iter().enumerate() {
        match piece.token {
            Token::Mark(';') if depth == 0 => break,
            Token::Mark('{') if depth == 0 => {
                start = Some(at + 1);
                depth += 1;
            }
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark('}' | ')' | ']') => depth -= 1,
            Token::Mark(_) | Token::Word(_) | Token::Text(_) | Token::Path => {}
        }
        if let (Some(start), 0) = (start, depth) {
            return &function[start..at];
        }
    }
    &[]
}

fn lines_with_code(pieces: &[Piece]) -> usize {
    let (mut count, mut counted) = (0, 0);
    for piece in pieces {
        count += (piece.last + 1).saturating_sub(piece.first.max(counted + 1));
        counted = counted.max(piece.last);
    }
    count
}

#[test]
fn a_long_file_is_caught() {
    let text = "//\n".repeat(FILE + 1);
    let tree = Tree::of(&[
        ("crates/a/src/long.rs", &text),
        ("crates/a/tests/long.rs", &text),
        ("long.md", &text),
    ]);
    assert_eq!(tree.caught(files), ["crates/a/src/long.rs:501"]);
    let text = "//\n".repeat(TEST_FILE + 1);
    assert_eq!(
        Tree::of(&[("crates/a/tests/long.rs", &text)]).caught(files),
        ["crates/a/tests/long.rs:801"]
    );
}

#[test]
fn a_long_function_is_caught() {
    let body = "    let a = '{'; // }\n\n    // a comment is no code\n".repeat(FUNCTION);
    let text = format!(
        "trait T {{ fn short(a: [u8; 2]); }}\nfn exact() {{\n{body}}}\nfn long() {{\n{body}    \"\n\";\n}}\n"
    );
    let tree = Tree::of(&[("crates/a/src/b.rs", &text), ("crates/a/tests/b.rs", &text)]);
    assert_eq!(tree.caught(functions), [format!("crates/a/src/b.rs:{}", 3 * FUNCTION + 4)]);
}

#[test]
fn lines_of_a_literal_are_code_and_lines_between_are_not() {
    let of = |source| lengths(&lex(source));
    assert_eq!(of("fn f() {\n a\n\n \"b\nc\n\"\n // d\n}"), [(1, "f", 4)]);
    assert_eq!(of("fn f(a: fn(u8) -> [u8; 3]) {}\nfn g();"), [(1, "f", 0), (2, "g", 0)]);
}
