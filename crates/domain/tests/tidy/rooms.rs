//! Every line has one room: where SQL may stand, and what may know what.

use std::collections::BTreeSet;

use super::rust::{Token, lex, paths};
use super::tree::{File, Offence, Tree};

const STATEMENTS: [&str; 6] =
    ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", "CREATE TABLE", "WITH "];

/// SQL stands in stores, in the database engine, and in tests.
pub(super) fn sql(file: &File, _: &Tree) -> Vec<Offence> {
    let store = file.path.ends_with("/store.rs") || file.path.contains("/store/");
    let engine = file.path.starts_with("crates/server/src/db/");
    if !file.is_rust() || store || engine || file.is_test() {
        return Vec::new();
    }
    let cure = "SQL outside a store: move the query into the noun's `store.rs`";
    let is_query = |token: Token| matches!(token, Token::Text(text) if is_sql(text));
    let queries = lex(&file.text).into_iter().filter(|piece| is_query(piece.token));
    queries.map(|piece| file.offence(piece.first, cure)).collect()
}

fn is_sql(text: &str) -> bool {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\\');
    let statement = STATEMENTS.iter().find(|statement| text.starts_with(**statement));
    statement.is_some_and(|it| {
        *it != "WITH " || text.contains(" AS (") || text.contains(" AS MATERIALIZED")
    })
}

const SERVER: &str = "crates/server/src/";
const ENGINES: [&str; 4] = ["db", "http", "reconcile", "backend"];

/// The folders of the server that hold a noun: those with an entrance or a store.
fn nouns(tree: &Tree) -> BTreeSet<&str> {
    let inside = tree.paths().filter_map(|path| path.strip_prefix(SERVER)?.split_once('/'));
    inside
        .filter(|(folder, rest)| {
            !ENGINES.contains(folder) && ["http.rs", "http", "store.rs", "store"].contains(rest)
        })
        .map(|(folder, _)| folder)
        .collect()
}

/// Engines know no noun, nouns know only the front of each other, backends know neither database nor HTTP.
pub(super) fn server(file: &File, tree: &Tree) -> Vec<Offence> {
    let Some(inside) = file.path.strip_prefix(SERVER).and_then(|it| it.strip_suffix(".rs")) else {
        return Vec::new();
    };
    let module: Vec<&str> = inside.trim_end_matches("/mod").split('/').collect();
    let (room, nouns) = (module[0], nouns(tree));
    let named = paths(&lex(&file.text));
    let here = named.iter().map(|it| resolve(&module, &it.names, &BTreeSet::new()));
    let imported: BTreeSet<&str> =
        here.filter(|it| matches!(it[..], [_] | [_, "self"])).map(|it| it[0]).collect();
    let mut offences = Vec::new();
    for named in named {
        let target = resolve(&module, &named.names, &imported);
        let Some((&to, below)) = target.split_first() else { continue };
        let inner = below.first().is_some_and(|it| ["store", "http"].contains(it));
        let cure = if ENGINES.contains(&room) && nouns.contains(to) {
            "an engine knows no noun: let the noun call the engine"
        } else if room == "backend" && ["db", "http"].contains(&to) {
            "a backend knows neither database nor HTTP: let its caller pass values"
        } else if nouns.contains(room) && nouns.contains(to) && room != to && inner {
            "the store and the entrance of another noun are private: call a function of its `mod.rs`"
        } else {
            continue;
        };
        offences.push(
            file.offence(named.line, format!("`{room}` names `{}`: {cure}", target.join("::"))),
        );
    }
    offences
}

/// A path as seen from the root of the crate; empty, if it leads out of the crate. A room that the file imported is called
/// by its name alone.
fn resolve<'a>(module: &[&'a str], names: &[&'a str], imported: &BTreeSet<&str>) -> Vec<&'a str> {
    let (root, mut below) = (names[0], &names[1..]);
    let mut target = match root {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        room if imported.contains(room) => vec![room],
        _ => return Vec::new(),
    };
    while let ["super", rest @ ..] = below {
        target.pop();
        below = rest;
    }
    target.extend(below);
    target
}

const IMPURE: [&str; 11] = [
    "tokio",
    "sqlx",
    "axum",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// The domain does nothing: no files, sockets, processes, clocks, no runtime.
pub(super) fn domain(file: &File, _: &Tree) -> Vec<Offence> {
    if !file.is_rust() || !file.path.starts_with("crates/domain/src/") {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for named in paths(&lex(&file.text)) {
        let path = format!("{}::", named.names.join("::"));
        if let Some(name) = IMPURE.iter().find(|name| path.starts_with(&format!("{name}::"))) {
            offences.push(file.offence(
                named.line,
                format!("the domain names `{name}`: take the value as an argument"),
            ));
        }
    }
    offences
}

/// Which crates of ours each may depend on. None depends on the simulator, the model or the
/// command line.
const DIRECTIONS: [(&str, &[&str]); 9] = [
    ("domain", &[]),
    ("api", &[]),
    ("agent", &["ligand-api"]),
    ("server", &["ligand-api", "ligand-domain"]),
    ("kit", &["ligand-domain", "ligand-server"]),
    // Another control plane with another database: it takes the server's engines, and none of its nouns.
    ("fleet", &["ligand-api", "ligand-domain", "ligand-server"]),
    (
        "cli",
        &[
            "ligand-agent",
            "ligand-api",
            "ligand-domain",
            "ligand-fleet",
            "ligand-kit",
            "ligand-server",
        ],
    ),
    ("model", &["ligand-agent", "ligand-domain"]),
    ("sim", &["ligand-agent", "ligand-api", "ligand-domain", "ligand-server"]),
];

/// What tests of a crate may use beside that.
const IN_TESTS: [(&str, &str); 1] = [("server", "ligand-kit")];

/// Crates are walls.
pub(super) fn crates(file: &File, _: &Tree) -> Vec<Offence> {
    let folder = file.path.strip_prefix("crates/").and_then(|it| it.strip_suffix("/Cargo.toml"));
    let Some(folder) = folder else { return Vec::new() };
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| *name == folder) else {
        return vec![file.offence(
            1,
            "a new crate: say in the tidy test what it may depend on, and why it is a wall",
        )];
    };
    let (mut offences, mut listing, mut tests) = (Vec::new(), false, false);
    for (number, line) in file.lines() {
        if line.starts_with('[') {
            (listing, tests) = (line.contains("dependencies"), line.contains("dev-dependencies"));
        }
        let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
        let ours = key == "ligand" || key.starts_with("ligand-");
        let allowed = allowed.contains(&key) || (tests && IN_TESTS.contains(&(folder, key)));
        if listing && ours && !allowed {
            offences.push(file.offence(
                number,
                format!("`{folder}` may not depend on `{key}`: move what both need down"),
            ));
        }
    }
    offences
}

#[test]
fn sql_outside_a_store_is_caught() {
    let text = "const A: &str = \"SELECT 1\";\nconst B: &str = r\"\n  WITH a AS (SELECT 1) SELECT 2\";\nf(\"WITH care\", \"UPDATED\");";
    let places = [
        "server/src/a/http.rs",
        "server/src/a/store.rs",
        "server/src/a/store/rows.rs",
        "server/src/db/mod.rs",
        "server/tests/a.rs",
    ];
    let files: Vec<String> = places.iter().map(|place| format!("crates/{place}")).collect();
    let tree = Tree::of(&files.iter().map(|path| (path.as_str(), text)).collect::<Vec<_>>());
    assert_eq!(
        tree.caught(sql),
        ["crates/server/src/a/http.rs:1", "crates/server/src/a/http.rs:2"]
    );
}

#[test]
fn rooms_that_look_up_are_caught() {
    let tree = Tree::of(&[
        (
            "crates/server/src/a/store.rs",
            "use super::store;\nuse crate::db::Tx;\nuse crate::b::{Front, http};",
        ),
        (
            "crates/server/src/a/mod.rs",
            "use crate::b;\nfn f() { b::ask(); b::store::get(); self::store::get(); }",
        ),
        (
            "crates/server/src/b/http/read.rs",
            "use super::super::store;\nuse super::super::super::a::store;",
        ),
        (
            "crates/server/src/db/mod.rs",
            "use crate::a::A;\nuse crate::error::Error; // crate::b::B",
        ),
        ("crates/server/src/backend/fake.rs", "use crate::{app, http::Page};\nuse super::db::D;"),
        (
            "crates/server/src/reconcile/mod.rs",
            "use ligand_api::a;\nfn f() -> a::A { a::http::g() }",
        ),
        ("crates/server/src/app.rs", "use crate::{a::http, b::store};"),
    ]);
    let expected = [
        "crates/server/src/a/store.rs:3",
        "crates/server/src/a/mod.rs:2",
        "crates/server/src/b/http/read.rs:2",
        "crates/server/src/db/mod.rs:1",
        "crates/server/src/backend/fake.rs:1",
    ];
    assert_eq!(tree.caught(server), expected);
}

#[test]
fn an_impure_domain_is_caught() {
    let text = "use std::time::{Duration, Instant};\nuse std::net::IpAddr;\nlet a = std::env::var(b);\ntokio::spawn(c);";
    let tree = Tree::of(&[("crates/domain/src/a.rs", text), ("crates/agent/src/a.rs", text)]);
    assert_eq!(tree.caught(domain), [1, 3, 4].map(|line| format!("crates/domain/src/a.rs:{line}")));
}

#[test]
fn a_dependency_against_the_direction_is_caught() {
    let tree = Tree::of(&[
        (
            "crates/agent/Cargo.toml",
            "[package]\nname = \"ligand-agent\"\n[dependencies]\nligand-api.workspace = true\nligand-domain = { path = \"x\" }",
        ),
        (
            "crates/server/Cargo.toml",
            "[dev-dependencies]\nligand-sim.workspace = true\nligand.workspace = true",
        ),
        ("crates/kit/Cargo.toml", "[dev-dependencies]\nligand-kit.workspace = true"),
        ("crates/helpers/Cargo.toml", ""),
    ]);
    let expected = [
        "agent/Cargo.toml:5",
        "server/Cargo.toml:2",
        "server/Cargo.toml:3",
        "kit/Cargo.toml:2",
        "helpers/Cargo.toml:1",
    ];
    assert_eq!(tree.caught(crates), expected.map(|place| format!("crates/{place}")));
}
