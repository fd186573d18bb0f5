//! `ligand why`, `ligand openapi`.

use serde_json::{Value, json};

use crate::fake::{Fake, ok};
use crate::run::ligand;
use crate::sample::{self, OTHER};

fn entry(seq: i64, at: &str, generation: Option<i64>, kind: &str, summary: &str) -> Value {
    json!({
        "seq": seq, "at": at, "generation": generation, "kind": kind, "summary": summary,
        "evidence": { "pid": 7 },
    })
}

fn story() -> Fake {
    Fake::start(|request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        line if line == format!("GET /workspaces/{OTHER}/why") => ok(json!({
            "workspace": sample::failed(),
            "next": "start generation 13 now",
            "instances": [],
            "journal": [
                entry(1, "2026-01-01T10:00:00.000001Z", None, "created", "by the admin token"),
                entry(2, "2026-01-01T10:00:01.500000Z", Some(9), "registered", "a first credential"),
                entry(9, "2026-01-02T09:00:00.250000Z", Some(12), "lost", "the process exited with 1"),
            ],
        })),
        line => panic!("{line}"),
    })
}

#[test]
fn tells_the_story_oldest_first() {
    insta::assert_snapshot!(ligand(&story(), "why sad").transcript());
}

#[test]
fn json_carries_the_evidence() {
    let ran = ligand(&story(), "why sad --output json");
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(printed["journal"][2]["evidence"]["pid"], 7);
}

#[test]
fn the_document_of_the_server_is_printed() {
    let fake = Fake::start(|_| ok(json!({ "openapi": "3.1.0" })));
    assert_eq!(ligand(&fake, "openapi").stdout, "{\n  \"openapi\": \"3.1.0\"\n}\n");
}
