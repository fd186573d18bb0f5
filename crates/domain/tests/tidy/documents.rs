//! A document that names a path which is gone sends its reader astray.

use super::tree::{File, Offence, Tree};

const ROOTS: [&str; 6] = ["crates/", "docs/", "schema/", "scripts/", "examples/", ".ci/"];

/// Paths from the root, wherever they stand, and the targets of links, relative to the document. The changelog is
/// history: what it names may be gone.
pub(super) fn paths(file: &File, tree: &Tree) -> Vec<Offence> {
    if !file.path.ends_with(".md") || file.path == "CHANGELOG.md" {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for (number, line) in file.lines() {
        let (links, text) = split_links(line);
        let linked = links.into_iter().filter_map(|link| relative(&file.path, link));
        let written = text
            .split(|c: char| c.is_whitespace() || "`()[]\"',;|=".contains(c))
            .filter_map(from_root);
        for path in linked.chain(written) {
            if !tree.exists(&path) {
                offences.push(
                    file.offence(
                        number,
                        format!("`{path}` does not exist: name what took its place"),
                    ),
                );
            }
        }
    }
    offences
}

/// The targets of a line's links, and the line without them.
fn split_links(line: &str) -> (Vec<&str>, String) {
    let (mut links, mut text) = (Vec::new(), String::new());
    let mut parts = line.split("](");
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (link, rest) = part.split_once(')').unwrap_or((part, ""));
        links.push(link);
        text.push_str("] ");
        text.push_str(rest);
    }
    (links, text)
}

/// What a link means, seen from the root; nothing, if it leads elsewhere.
fn relative(document: &str, link: &str) -> Option<String> {
    let link = link.split(['#', ' ']).next().unwrap_or_default();
    if link.is_empty() || link.contains(':') {
        return None;
    }
    let mut folders: Vec<&str> = document.split('/').collect();
    folders.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(folders.pop()),
            name => folders.push(name),
        }
    }
    Some(folders.join("/"))
}

/// A word that is a path from the root, without a line number; nothing, if parts of it are left open.
fn from_root(word: &str) -> Option<String> {
    let word = word.trim_start_matches("./");
    let word =
        word.split([':', '#']).next().unwrap_or_default().trim_end_matches(['.', '/', '!', '?']);
    let open =
        ["<", ">", "*", "{", "}", "…", "$", "NNNN", "YYYY"].iter().any(|mark| word.contains(mark));
    (!open && ROOTS.iter().any(|root| word.starts_with(root))).then(|| word.to_owned())
}

#[test]
fn a_path_that_is_gone_is_caught() {
    let text = "See `crates/a/src/b.rs`, crates/a/src/gone.rs:12, and `crates/a/`.\n\
        Run ./scripts/test; `crates/<noun>/x.rs`, schema/*/NNNN_name.sql.\n\
        [one](adr/x.md#why) [two](../README.md) [three](https://a.b/c) [four](#here)\n\
        [lost](docs/adr/x.md)\n\
        `scripts/gone`";
    let tree = Tree::of(&[
        ("docs/a.md", text),
        ("docs/adr/x.md", ""),
        ("README.md", "[a](docs/a.md) [b](docs/b.md)"),
        ("CHANGELOG.md", "crates/old"),
        ("crates/a/src/b.rs", "// crates/c"),
        ("scripts/test", ""),
    ]);
    assert_eq!(tree.caught(paths), ["docs/a.md:1", "docs/a.md:4", "docs/a.md:5", "README.md:1"]);
}
