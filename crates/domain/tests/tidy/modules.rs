//! A Rust file that nobody declares is compiled by nobody: its code rots, and its tests never run.

use super::rust::{Token, lex};
use super::tree::{File, Offence, Tree};

pub(super) fn declared(file: &File, tree: &Tree) -> Vec<Offence> {
    let Some((base, inside)) = source_folder(&file.path) else { return Vec::new() };
    if is_root(base, inside) {
        return Vec::new();
    }
    let module = inside.trim_end_matches("/mod.rs").trim_end_matches(".rs");
    let (parent, name) = module.rsplit_once('/').unwrap_or(("", module));
    let parents = if parent.is_empty() {
        [format!("{base}/lib.rs"), format!("{base}/main.rs")]
    } else {
        [format!("{base}/{parent}.rs"), format!("{base}/{parent}/mod.rs")]
    };
    if parents.iter().filter_map(|path| tree.file(path)).any(|parent| declares(parent, name))
        || declared_by_path(file, tree)
    {
        return Vec::new();
    }
    let cure =
        format!("declare it with `mod {name};` in {} or {}, or delete it", parents[0], parents[1]);
    vec![file.offence(1, format!("nobody declares this file: {cure}"))]
}

/// Splits a Rust file's path into the folder of its crate's target, and the rest.
fn source_folder(path: &str) -> Option<(&str, &str)> {
    let ends = |folder: &str| path.find(folder).map(|at| at + folder.len() - 1);
    let end = ["/src/", "/tests/", "/benches/"].into_iter().filter_map(ends).min()?;
    path.ends_with(".rs").then_some((&path[..end], &path[end + 1..]))
}

/// Files that cargo compiles by itself, or that a manifest names.
fn is_root(base: &str, inside: &str) -> bool {
    if base.ends_with("/tests") {
        return inside == "main.rs";
    }
    let bench = base.ends_with("/benches") && !inside.contains('/');
    bench || ["lib.rs", "main.rs"].contains(&inside) || inside.starts_with("bin/")
}

fn declares(parent: &File, name: &str) -> bool {
    let wanted = [Token::Word("mod"), Token::Word(name), Token::Mark(';')];
    has(parent, &wanted)
}

/// A neighbour may declare it as `#[path = "file.rs"] mod name;`.
fn declared_by_path(file: &File, tree: &Tree) -> bool {
    let Some((folder, name)) = file.path.rsplit_once('/') else { return false };
    let wanted = [
        Token::Word("path"),
        Token::Mark('='),
        Token::Text(name),
        Token::Mark(']'),
        Token::Word("mod"),
    ];
    let beside = |path: &str| path.rsplit_once('/').is_some_and(|(other, _)| other == folder);
    tree.paths()
        .filter(|path| beside(path))
        .filter_map(|path| tree.file(path))
        .any(|it| it.is_rust() && has(it, &wanted))
}

fn has(file: &File, wanted: &[Token]) -> bool {
    let tokens: Vec<Token> = lex(&file.text).iter().map(|piece| piece.token).collect();
    tokens.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn a_file_that_nobody_declares_is_caught() {
    let tree = Tree::of(&[
        ("crates/a/src/lib.rs", "mod b;\npub(crate) mod c;\n// mod lost;\nmod inline {}"),
        ("crates/a/src/b.rs", "mod d;\n#[path = \"b_tests.rs\"]\nmod tests;"),
        ("crates/a/src/b/d.rs", ""),
        ("crates/a/src/b_tests.rs", ""),
        ("crates/a/src/c/mod.rs", "mod e;"),
        ("crates/a/src/c/e.rs", ""),
        ("crates/a/src/c/lost.rs", ""),
        ("crates/a/src/inline.rs", ""),
        ("crates/a/src/lost.rs", ""),
        ("crates/a/tests/main.rs", "mod known;"),
        ("crates/a/tests/known.rs", "mod part;"),
        ("crates/a/tests/known/part.rs", ""),
        ("crates/a/tests/lost.rs", ""),
        ("crates/a/benches/speed.rs", ""),
    ]);
    let expected = ["src/c/lost.rs:1", "src/inline.rs:1", "src/lost.rs:1", "tests/lost.rs:1"];
    assert_eq!(tree.caught(declared), expected.map(|place| format!("crates/a/{place}")));
}
