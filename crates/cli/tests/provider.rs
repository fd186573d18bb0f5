//! The protocol of providers, from the command line: a backend that is served, and what `check` says of it, of one that
//! lies, and of one in Python.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::run::{Home, Ran, TOKEN, command, run};
use crate::stack::{Stack, generation, service, until};

/// A provider that serves.
struct Serving {
    child: Child,
    url: String,
    token_file: PathBuf,
    home: Home,
}

impl Serving {
    /// `ligand provider serve ARGS`.
    fn start(home: Home, args: &[&str]) -> Self {
        let dir = home.path().join("provider");
        Self::start_in(home, dir, args)
    }

    /// The same, which keeps its files there.
    fn start_in(home: Home, dir: PathBuf, args: &[&str]) -> Self {
        let data_dir = dir.display().to_string();
        let args = [&["provider", "serve", "--data-dir", &data_dir], args].concat();
        let mut child = command(&home, &[], &args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut url = None;
        while url.is_none() {
            let line = lines.next().expect("it serves").unwrap();
            url = line.split_once(" is served at ").map(|(_, url)| url.to_owned());
        }
        // What it says later is nobody's, and must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.unwrap(), token_file: dir.join("provider-token"), home }
    }

    fn check(&self, args: &[&str]) -> Ran {
        let token_file = self.token_file.display().to_string();
        let named = ["provider", "check", &self.url, "--token-file", &token_file];
        run(&self.home, &[], &[&named[..], args].concat())
    }

    /// End it as an operator does.
    fn stop(mut self) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each verdict that is not `pass`.
fn others(report: &str) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(report).unwrap();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let lines = report["scenarios"].as_array().unwrap().iter();
    let others = lines.filter(|line| line["verdict"] != "pass");
    others.map(|it| (text(it, "name"), text(it, "verdict"), text(it, "reason"))).collect()
}

#[test]
fn a_served_backend_passes_and_ends_when_it_is_asked() {
    let serving = Serving::start(Home::new(), &["--backend", "fake"]);
    let mode = fs::metadata(&serving.token_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ran = serving.check(&["--output", "json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["passed"].as_u64().unwrap() > 40 && report["failed"] == 0, "{}", ran.stdout);
    for (name, verdict, reason) in others(&ran.stdout) {
        assert_eq!(verdict, "not applicable", "{name}: {reason}");
        let known =
            reason == "it does not claim `programs`" || reason.starts_with("needs somebody");
        assert!(known, "{name}: {reason}");
    }
    let one = serving.check(&["--only", "starting_twice_starts_once"]);
    let lines: Vec<&str> = one.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", one.stdout);
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(words, ["starts", "starting_twice_starts_once", "pass"]);
    assert!(one.stderr.ends_with("1 passed, 0 failed, 0 not applicable\n"), "{}", one.stderr);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn processes_are_seen_through_the_protocol_alone() {
    let serving = Serving::start(Home::new(), &["--backend", "process"]);
    let ran = serving.check(&["--only", "ends", "--only", "logs", "--output", "json"]);
    assert_eq!((ran.code, others(&ran.stdout)), (0, Vec::new()), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(serving.stop(), 0);
}

/// The whole way: a platform whose backend is another process.
#[test]
fn a_platform_runs_its_workspaces_at_a_provider() {
    let mut stack = Stack::prepare(&["serve", "platform"], &[]);
    let far = stack.data().join("far");
    let serve = |listen: &str| {
        let args = ["--backend", "process", "--listen", listen];
        Serving::start_in(Home::new(), far.clone(), &args)
    };
    let serving = serve("127.0.0.1:0");
    let address = serving.url.trim_start_matches("http://").to_owned();
    let settings = format!(
        "backend = \"far\"\nheartbeat_seconds = 1\n[backends.far]\nkind = \"provider\"\nurl = {:?}\ntoken_file = {:?}\n\
         agent = [{:?}, \"agent\"]\n",
        serving.url,
        serving.token_file,
        env!("CARGO_BIN_EXE_ligand")
    );
    let home = Home::new();
    stack.flag("--config", &home.put("ligand.toml", &settings).display().to_string());
    stack.restart();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let tree = far.join("process").join(&id);
    let talks = |stack: &Stack| {
        let said = stack.ok(&["ws", "send", "a", "hi"]);
        assert!(said.contains("echo: hi"), "{said}");
    };
    talks(&stack);
    fs::write(tree.join("workspace/kept"), "kept").unwrap();
    stack.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(stack.settled(&id), 2);
    // An end is heard of, and replaced.
    stack.kill_instance(stack.leader_at("far/process", &id, 2));
    until("it is replaced", || (generation(&stack.workspace("a")) == 3).then_some(()));
    assert_eq!(stack.settled(&id), 3);
    // Either of the two may be away: what runs goes on, and is found again.
    stack.kill_server();
    stack.restart();
    drop(serving);
    talks(&stack);
    let serving = serve(&address);
    assert_eq!(stack.settled(&id), 3);
    stack.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(stack.settled(&id), 4);
    talks(&stack);
    assert_eq!(fs::read_to_string(tree.join("workspace/kept")).unwrap(), "kept");
    stack.ok(&["ws", "delete", "a", "--confirm", "--purge"]);
    until("nothing is left of it", || (!tree.exists()).then_some(()));
    until("none of it runs", || stack.processes().is_empty().then_some(()));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn one_that_lies_fails_and_the_table_says_how() {
    let home = Home::new();
    let settings = "[backends.liar]\nkind = \"fake\"\nplan = [{ what = \"say_gone\", times = 0 }]";
    let settings = home.put("settings.toml", settings).display().to_string();
    let serving = Serving::start(home, &["--config", &settings, "--backend", "liar"]);
    let ran = serving.check(&["--only", "starts"]);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    let line = ran.stdout.lines().find(|line| line.contains("starting_twice_starts_once")).unwrap();
    assert!(line.ends_with("fail            seen(key): found Gone, expected Running"), "{line}");
    assert!(ran.stderr.contains(" scenarios failed\n"), "{}", ran.stderr);
}

#[test]
fn who_cannot_be_asked_is_told_apart_from_who_refuses() {
    let home = Home::new();
    let check = |vars: &[(&str, &str)], args: &[&str]| {
        run(&home, vars, &[&["provider", "check"], args].concat())
    };
    let none = check(&[], &["http://127.0.0.1:9"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("LIGAND_PROVIDER_TOKEN"), "{}", none.stderr);
    let vars = [("LIGAND_PROVIDER_TOKEN", TOKEN)];
    assert_eq!(check(&vars, &["http://127.0.0.1:9"]).code, 3);
    assert_eq!(check(&vars, &["http://192.0.2.1"]).code, 2);
    let unknown = check(&vars, &["http://127.0.0.1:9", "--only", "nonsense"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("groups: door, starts, ends"), "{}", unknown.stderr);
    let serving = Serving::start(Home::new(), &["--backend", "fake"]);
    let denied = check(&vars, &[&serving.url]);
    assert_eq!(denied.code, 4, "{}", denied.stderr);
    let beyond = run(&home, &[], &["provider", "serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(beyond.code, 2);
    assert!(beyond.stderr.contains("--beyond-loopback"), "{}", beyond.stderr);
}

/// A provider in Python, of the document alone.
#[test]
fn one_in_python_passes_what_it_claims() {
    let Some(python) = service("LIGAND_TEST_PYTHON") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/provider/provider.py");
    let mut child = other(&python).arg(script).arg(TOKEN).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let args = ["provider", "check", url.trim(), "--output", "json"];
    let ran = run(&Home::new(), &[("LIGAND_PROVIDER_TOKEN", TOKEN)], &args);
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["passed"].as_u64().unwrap() > 30, "{}", ran.stdout);
    for (name, _, reason) in others(&ran.stdout) {
        let known = reason.starts_with("it does not claim") || reason.starts_with("needs somebody");
        assert!(known, "{name}: {reason}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a program that is not ours")]
fn other(program: &str) -> Command {
    Command::new(program)
}
