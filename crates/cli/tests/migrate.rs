//! Workspaces that go from one backend to another, on a real server with real instances, while a client goes on
//! sending turns. How much goes there, and how many, is said by two variables; docs/testing.md has them.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ligand_domain::time::Timestamp;
use serde_json::{Value, json};

use crate::http::Call;
use crate::run::Home;
use crate::stack::{Stack, generation, now, pause, say, scale, until};

/// Files of data.
const FILES: usize = 24;
/// How often a turn is sent.
const PACE: Duration = Duration::from_millis(100);

/// Turns as they were answered, and how long that took, by their names.
pub(crate) type Answers = BTreeMap<String, (Value, Duration)>;

/// MiB of data that a workspace has.
pub(crate) fn mebibytes() -> usize {
    scale("LIGAND_TEST_MOVE_MB", 3)
}

/// Longest that a migration here may take.
fn moves() -> Duration {
    Duration::from_secs(90) + Duration::from_millis(500) * u32::try_from(mebibytes()).unwrap()
}

/// Two backends of processes, whose agents count their turns. `script` is run before each agent.
fn two(home: &Home, script: &str) -> Stack {
    let script = format!("export LIGAND_ECHO_EFFECTS=effects\n{script}\nexec \"$0\" agent");
    let words = ["/bin/sh", "-c", &script, env!("CARGO_BIN_EXE_ligand")];
    let words = words.map(|word| format!("{word:?}")).join(", ");
    let settings = format!(
        "backend = \"west\"\nheartbeat_seconds = 1\nagent = [{words}]\n\
         [migrations]\ngrace_seconds = 1\n[backends.west]\nkind = \"process\"\n[backends.east]\nkind = \"process\"\nuid_base = 300000\n"
    );
    let file = home.put("ligand.toml", &settings).display().to_string();
    Stack::start(&["serve", "platform", "--config", &file], &[])
}

fn tree(stack: &Stack, backend: &str, id: &str) -> PathBuf {
    stack.data().join(backend).join(id)
}

pub(crate) fn fill(tree: &Path) {
    let directory = tree.join("workspace/data");
    fs::create_dir_all(&directory).unwrap();
    let each = (mebibytes() << 20) / FILES;
    // No two pieces of it are the same.
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    for number in 0..FILES {
        let mut content = Vec::with_capacity(each + 8);
        while content.len() < each {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            content.extend_from_slice(&noise.to_le_bytes());
        }
        fs::write(directory.join(number.to_string()), content).unwrap();
    }
}

/// Every file of its data that the test wrote: how long it is, and what is in it, in short.
pub(crate) fn content(tree: &Path) -> BTreeMap<String, (usize, u64)> {
    let entries = fs::read_dir(tree.join("workspace/data")).unwrap().flatten();
    let read = |entry: fs::DirEntry| {
        let content = fs::read(entry.path()).unwrap();
        let mut hash = std::hash::DefaultHasher::new();
        hash.write(&content);
        (entry.file_name().into_string().unwrap(), (content.len(), hash.finish()))
    };
    entries.map(read).collect()
}

/// How often each turn ran.
pub(crate) fn effects(tree: &Path) -> BTreeMap<String, usize> {
    let mut ran = BTreeMap::new();
    let text = fs::read_to_string(tree.join("workspace/effects")).unwrap_or_default();
    for line in text.lines().filter(|line| line.starts_with("turn-")) {
        *ran.entry(line.to_owned()).or_default() += 1;
    }
    ran
}

/// A client that sends turns while something else is done; gives how each was answered, by its name.
pub(crate) fn while_called<T>(stack: &Stack, id: &str, work: impl FnOnce() -> T) -> (T, Answers) {
    let (over, answers) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    let (url, admin) = (stack.url().to_owned(), stack.admin());
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::SeqCst) {
                number += 1;
                let (url, admin, answers) = (&url, &admin, &answers);
                scope.spawn(move || {
                    let name = format!("turn-{number}");
                    let sent = now();
                    let answer = turn(url, admin, id, &name);
                    answers.lock().unwrap().insert(name, (answer, sent.elapsed()));
                });
                pause(PACE);
            }
        });
        pause(PACE * 4);
        let done = work();
        pause(PACE * 4);
        over.store(true, Ordering::SeqCst);
        done
    });
    (done, answers.into_inner().unwrap())
}

/// One turn, sent until it has its answer: a message that is sent again is the same one.
fn turn(url: &str, admin: &str, id: &str, name: &str) -> Value {
    let message = json!({
        "messageId": name, "role": "user", "parts": [{"kind": "text", "text": name}],
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}});
    let line = format!("POST /workspaces/{id}/a2a");
    let begun = now();
    loop {
        let call = Call::new(url, &line).token(admin).header("prefer", "wait=20").json(&body);
        let answer = call.send();
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if answer.status == 200 && said["result"].is_object() {
            return said["result"].clone();
        }
        assert!(begun.elapsed() < moves(), "{name}: {answer:?}");
        pause(PACE);
    }
}

/// Every turn was answered with its own words, and ran once.
#[track_caller]
pub(crate) fn conserved(answers: &Answers, ran: &BTreeMap<String, usize>) {
    assert!(answers.len() > 8, "the client sent {} turns", answers.len());
    for (name, (answer, _)) in answers {
        assert_eq!(answer["parts"][0]["text"], format!("echo: {name}"), "{answer}");
        assert_eq!(ran.get(name), Some(&1), "{name} ran so often");
    }
}

/// Say how its migrations went: what each took, and each of its phases.
pub(crate) fn tell(stack: &Stack, id: &str, answers: &Answers) {
    over(stack, id);
    let all = stack.ask(&format!("GET /admin/workspaces/{id}/migrations"));
    let at = |at: &Value| Timestamp::parse(at.as_str().unwrap()).unwrap();
    let between = |from: &Value, to: &Value| at(to).since(at(from)).as_millis();
    for it in all["migrations"].as_array().unwrap().iter().rev() {
        let took = it["phases"].as_array().unwrap().windows(2).map(|two| {
            format!(
                "{} {}",
                two[0]["phase"].as_str().unwrap(),
                between(&two[0]["at"], &two[1]["at"])
            )
        });
        say(&format!(
            "{} MiB from {} to {}: {} ms, of which {} without service; {}",
            mebibytes(),
            it["from"].as_str().unwrap(),
            it["to"].as_str().unwrap(),
            between(&it["started_at"], &it["ended_at"]),
            it["without_service_ms"],
            took.collect::<Vec<_>>().join(", "),
        ));
    }
    let longest = answers.values().map(|(_, took)| took.as_millis()).max().unwrap_or_default();
    let sent = answers.len();
    say(&format!("{sent} turns sent and answered, none ran twice, the slowest after {longest} ms"));
}

/// Its newest migration, once it is over.
#[track_caller]
pub(crate) fn over(stack: &Stack, id: &str) -> Value {
    let begun = now();
    loop {
        let all = stack.ask(&format!("GET /admin/workspaces/{id}/migrations"));
        let it = all["migrations"][0].clone();
        if ["migrated", "rolled-back"].iter().any(|state| it["state"] == *state) {
            return it;
        }
        assert!(begun.elapsed() < moves(), "{it:#}");
        pause(Duration::from_millis(20));
    }
}

#[test]
fn a_workspace_goes_to_another_backend_while_it_is_called() {
    let home = Home::new();
    let stack = two(&home, "");
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let (west, east) = (tree(&stack, "west", &id), tree(&stack, "east", &id));
    fill(&west);
    let (before, kept) = (stack.workspace("a"), content(&west));
    let watch = ["migrate", "a", "--to", "east", "--grace", "0", "--watch"];
    let (told, answers) = while_called(&stack, &id, || stack.ok(&watch));
    let phases = ["prepare", "provision", "pre-copy", "hold", "quiesce", "restore", "activate"];
    for phase in phases.iter().chain(&["probe", "cut-over", "release", "retire", "migrated"]) {
        assert!(told.lines().any(|line| line.contains(&format!("  {phase}"))), "{phase}: {told}");
    }
    let it = over(&stack, &id);
    assert_eq!(
        (&it["state"], &it["from"], &it["to"]),
        (&json!("migrated"), &json!("west"), &json!("east"))
    );
    assert!(it["digest"].is_string() && it["without_service_ms"].is_u64(), "{it:#}");
    let after = stack.workspace("a");
    assert_eq!(generation(&after), generation(&before) + 1);
    assert!(after["url"] != before["url"] && after["backend"] == "east", "{after:#}");
    assert_eq!(content(&east), kept, "its data came with it");
    until("the source is gone, with its data", || (!west.exists()).then_some(()));
    conserved(&answers, &effects(&east));
    tell(&stack, &id, &answers);
    let why = stack.ok(&["why", "a"]);
    assert!(why.contains("migration") && why.contains("east"), "{why}");
    assert!(stack.ok(&["migrate", "a"]).contains("migrated in"), "it is shown afterwards");
    assert_eq!(stack.settled(&id), generation(&after));
    // And back, where there is nothing of it any more.
    let (_, more) = while_called(&stack, &id, || {
        stack.ok(&["migrate", "a", "--to", "west", "--grace", "0", "--watch", "--output", "json"])
    });
    assert_eq!(content(&west), kept);
    // Names of turns come again: what was answered before is answered the same, and does not run again.
    conserved(&more, &effects(&west));
}

#[test]
fn a_target_that_fails_leads_back_and_says_so() {
    let home = Home::new();
    let blind = "case $HOME in */east/*) LIGAND_ECHO_EFFECTS=/nowhere/effects;; esac";
    let stack = two(&home, blind);
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let before = stack.workspace("a");
    let watch = ["migrate", "a", "--to", "east", "--watch"];
    let (ran, answers) = while_called(&stack, &id, || stack.cli(&watch));
    assert_eq!(ran.code, 7, "{}", ran.transcript());
    assert!(ran.stderr.contains("did not complete a turn"), "{}", ran.transcript());
    let after = stack.workspace("a");
    let same = ["url", "generation", "backend"];
    assert!(same.iter().all(|name| after[*name] == before[*name]), "{after:#}");
    conserved(&answers, &effects(&tree(&stack, "west", &id)));
    until("nothing is left of the target", || (!tree(&stack, "east", &id).exists()).then_some(()));
    assert_eq!(stack.processes(), [stack.leader_at("west", &id, 1)]);
    assert!(stack.ok(&["migrate", "a"]).contains("rolled back after"), "it is shown afterwards");
}

#[test]
fn one_that_waits_can_be_paused_and_aborted() {
    let home = Home::new();
    // The target takes its time, so that there is some to spend.
    let stack = two(&home, "case $HOME in */east/*) sleep 4;; esac");
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    stack.ok(&["migrate", "a", "--to", "east", "--reason", "a try"]);
    let twice = stack.cli(&["migrate", "a", "--to", "east"]);
    assert_eq!(twice.code, 1, "one at a time: {}", twice.transcript());
    assert!(stack.ok(&["migrate", "a", "--pause"]).contains("paused"));
    assert!(stack.ok(&["migrate"]).contains("paused"));
    assert!(stack.ok(&["migrate", "a", "--resume"]).contains("under way"));
    stack.ok(&["migrate", "a", "--abort"]);
    let it = over(&stack, &id);
    assert_eq!((&it["state"], &it["reason"]), (&json!("rolled-back"), &json!("a try")), "{it:#}");
    assert_eq!(stack.settled(&id), 1, "the source is as it was");
    let late = stack.cli(&["migrate", "a", "--abort"]);
    assert_eq!(late.code, 1, "{}", late.transcript());
}

#[test]
fn what_cannot_be_moved_is_refused_with_the_reason() {
    let home = Home::new();
    let stack = two(&home, "");
    stack.ok(&["ws", "create", "a", "--wait"]);
    for (to, says) in [("west", "already"), ("nowhere", "expected the name of a backend")] {
        let ran = stack.cli(&["migrate", "a", "--to", to]);
        assert_eq!(ran.code, 1, "{}", ran.transcript());
        assert!(ran.stderr.contains(says), "{}", ran.transcript());
    }
    stack.ok(&["ws", "pause", "a"]);
    let ran = stack.cli(&["migrate", "a", "--to", "east"]);
    assert_eq!(ran.code, 1, "{}", ran.transcript());
}

#[test]
fn a_drain_moves_all_so_many_at_a_time() {
    let home = Home::new();
    let stack = two(&home, "");
    let names = create_all(&stack, 6);
    for name in &names {
        fs::write(tree(&stack, "west", &stack.id(name)).join("workspace/mine"), name).unwrap();
    }
    drained(&stack, ("west", "east"), &names);
    for name in &names {
        let id = stack.id(name);
        let came = fs::read_to_string(tree(&stack, "east", &id).join("workspace/mine")).unwrap();
        assert_eq!(&came, name);
        assert!(!tree(&stack, "west", &id).exists(), "the source of {name} is there, or its data");
    }
    assert_eq!(stack.processes().len(), names.len(), "an instance each");
}

/// Workspaces, as many as a variable says.
pub(crate) fn create_all(stack: &Stack, usual: usize) -> Vec<String> {
    let many = scale("LIGAND_TEST_DRAIN", usual);
    let names: Vec<String> = (0..many).map(|number| format!("w{number}")).collect();
    for name in &names {
        stack.ok(&["ws", "create", name, "--tier", "2", "--wait"]);
    }
    names
}

/// They leave one backend for another: each is moved, and nothing else is said of any.
pub(crate) fn drained(stack: &Stack, (from, to): (&str, &str), names: &[String]) {
    let at_once = names.len().div_ceil(2).min(8).to_string();
    let begun = now();
    let told = stack.ok(&[
        "drain",
        from,
        "--to",
        to,
        "--concurrency",
        &at_once,
        "--grace",
        "2",
        "--watch",
    ]);
    let took = begun.elapsed();
    let all = format!("{0} of {0}", names.len());
    assert!(told.contains(&format!("{all} moved")), "{told}");
    let list = stack.ask("GET /workspaces");
    let place = |name: &String| {
        let found = list.as_array().unwrap().iter().find(|it| it["name"] == **name).unwrap();
        (found["backend"].as_str().unwrap().to_owned(), generation(found))
    };
    for name in names {
        assert_eq!(place(name), (to.to_owned(), 2), "{name}");
    }
    let it = &stack.ask("GET /admin/drains")["drains"][0];
    assert_eq!((&it["state"], &it["migrated"]), (&json!("done"), &json!(names.len())), "{it:#}");
    assert!(it["failed"].as_array().unwrap().is_empty() && it["retiring"] == 0, "{it:#}");
    assert!(stack.ok(&["drain", from]).contains("done in"), "it is shown afterwards");
    assert!(stack.ok(&["drain"]).contains(&all));
    let moved = stack.ask("GET /admin/migrations");
    let mut without: Vec<u64> = moved["migrations"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["without_service_ms"].as_u64())
        .collect();
    without.sort_unstable();
    say(&format!(
        "{} workspaces from {from} to {to}, {at_once} at once: {} ms; without service {} ms in the middle, {} ms at most",
        names.len(),
        took.as_millis(),
        without[without.len() / 2],
        without[without.len() - 1],
    ));
}

#[test]
fn a_drain_stops_at_a_failure() {
    let home = Home::new();
    let stack = two(&home, "case $HOME in */east/*) LIGAND_ECHO_EFFECTS=/nowhere/effects;; esac");
    for name in ["a", "b", "c", "d", "e"] {
        stack.ok(&["ws", "create", name, "--wait"]);
    }
    let ran = stack.cli(&["drain", "west", "--to", "east", "--concurrency", "1", "--watch"]);
    assert_eq!(ran.code, 7, "{}", ran.transcript());
    let drains = stack.ask("GET /admin/drains");
    let it = &drains["drains"][0];
    assert_eq!(it["state"], "stopped", "{it:#}");
    assert_eq!(it["failed"].as_array().unwrap().len(), 1, "{it:#}");
    let stayed =
        ["a", "b", "c", "d", "e"].iter().all(|name| stack.workspace(name)["backend"] == "west");
    assert!(stayed, "{it:#}");
    let shown = stack.ok(&["drain", "west"]);
    assert!(shown.contains("stayed") && shown.contains("did not complete a turn"), "{shown}");
}
