//! `ligand ws files`, and logs that are followed.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::fake::{Fake, Reply, ok, refusal};
use crate::run::{Home, TOKEN, command, ligand, run};
use crate::sample::DEMO;

fn workspace() -> Fake {
    let at = |rest: &str| format!("/workspaces/{DEMO}/files{rest}");
    Fake::start(move |request| match request.line.as_str() {
        line if line == format!("GET {}", at("?root=/workspace&path=a%20b&depth=2")) => {
            ok(json!([{"path": "c.md", "size": 3, "dir": false}]))
        }
        line if line == format!("GET {}", at("/c.bin?root=/configs")) => {
            ok(json!({"path": "c.bin", "content": "AP8K", "size": 3, "encoding": "base64"}))
        }
        line if line == format!("PUT {}", at("/d/e.md?root=/home")) => {
            assert_eq!(request.body, json!({"content": "from a file\n"}));
            ok(json!({"status": "saved", "path": "d/e.md"}))
        }
        line if line == format!("DELETE {}", at("/d?root=/home")) => {
            ok(json!({"status": "deleted", "path": "d"}))
        }
        line => refusal(400, line),
    })
}

#[test]
fn files_are_listed_printed_written_and_removed() {
    let fake = workspace();
    let home = Home::new();
    let from = home.put("from", "from a file\n");
    let vars = [("LIGAND_SERVER", &*fake.url()), ("LIGAND_TOKEN", TOKEN)];
    let files = |args: &[&str]| run(&home, &vars, &[&["ws", "files"], args].concat());
    let listed = files(&["ls", DEMO, "/workspace/a b", "--depth", "2"]);
    assert_eq!(
        (listed.code, listed.stdout.as_str()),
        (0, "         3  c.md\n"),
        "{}",
        listed.stderr
    );
    let put = files(&["put", DEMO, "/home/d/e.md", from.to_str().unwrap()]);
    assert_eq!((put.code, put.stdout.as_str()), (0, "saved /home/d/e.md\n"), "{}", put.stderr);
    let removed = files(&["rm", DEMO, "/home/d"]);
    assert_eq!(
        (removed.code, removed.stdout.as_str()),
        (0, "deleted /home/d\n"),
        "{}",
        removed.stderr
    );
    let printed = command(&home, &vars, &["ws", "files", "cat", DEMO, "c.bin"]).output().unwrap();
    assert_eq!(printed.stdout, [0, 255, 10]);
    assert_eq!(files(&["cat", DEMO, "/etc/passwd"]).code, 2);
    assert_eq!(files(&["cat", DEMO, "nothing"]).code, 1);
}

#[test]
fn a_log_is_followed_until_interrupted() {
    let mut asked = 0;
    let fake = Fake::start(move |request| {
        asked += 1;
        match (asked, request.line.rsplit_once('?').unwrap().1) {
            (1, "follow=true&lines=2") => Reply::Text("one\ntwo\n".to_owned()),
            (2, "follow=true&lines=0") => refusal(502, "a server that is being replaced"),
            (3, "follow=true&lines=0") => Reply::Text("three\n".to_owned()),
            (_, "follow=true&lines=0") => Reply::Silence,
            (_, other) => refusal(400, other),
        }
    });
    let vars = [("LIGAND_SERVER", &*fake.url()), ("LIGAND_TOKEN", TOKEN)];
    let mut child = command(&Home::new(), &vars, &["ws", "logs", DEMO, "--follow", "--lines", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(3);
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "two", "three"]);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_that_cannot_be_followed_is_told_at_once() {
    let fake = Fake::start(|_| refusal(404, "workspace not found"));
    assert_eq!(ligand(&fake, &format!("ws logs {DEMO} --follow")).code, 1);
}
