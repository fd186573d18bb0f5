//! A whole stack: the built server with its instances, in a directory of its own, and the verbs of a second
//! shell beside it. Dropping it ends what it started, and nothing else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::http::Call;
use crate::run::{Home, Ran, command, run};

/// Longest wait for anything that is expected to happen. What takes that long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// The time. Real processes live in real time.
#[expect(clippy::disallowed_methods, reason = "real processes end in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wait until `probe` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// For whoever watches the test.
#[expect(clippy::print_stderr, reason = "what a test measured or left out is to be seen")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// Let things go on for a moment, so that what comes next hits another moment of theirs.
pub(crate) fn pause(moment: Duration) {
    std::thread::sleep(moment);
}

/// Something beside the program that a test uses. Where it is missing the test is skipped, which it says,
/// unless every test is meant to run.
#[expect(clippy::disallowed_methods, reason = "tests are told so what they may use")]
pub(crate) fn service(name: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|value| !value.is_empty());
    if found.is_none() {
        let complete = std::env::var("LIGAND_TEST_COMPLETE").is_ok_and(|value| !value.is_empty());
        assert!(!complete, "{name} is not set: run the tests with scripts/with-services");
        say(&format!("skipped: {name} is not set; scripts/with-services sets it"));
    }
    found
}

/// How much of something a test takes: what a variable says, else what is enough to see whether it works.
#[expect(clippy::disallowed_methods, reason = "tests are told so what they may use")]
pub(crate) fn scale(name: &str, usual: usize) -> usize {
    let said = std::env::var(name).ok().filter(|value| !value.is_empty());
    said.map_or(usual, |said| said.parse().unwrap_or_else(|e| panic!("{name}: {e}: {said}")))
}

/// See the module.
pub(crate) struct Stack {
    home: Home,
    data: PathBuf,
    verb: Vec<String>,
    vars: Vec<(String, String)>,
    server: Option<Child>,
    url: String,
    starts: u32,
}

impl Stack {
    /// `ligand up`, and wait until it listens.
    pub(crate) fn up() -> Self {
        Self::start(&["up"], &[])
    }

    /// `ligand serve platform`, and wait until it listens.
    pub(crate) fn platform() -> Self {
        Self::start(&["serve", "platform"], &[])
    }

    /// A server with these variables in its environment, and wait until it listens.
    pub(crate) fn start(verb: &[&str], vars: &[(&str, &str)]) -> Self {
        let mut stack = Self::prepare(verb, vars);
        stack.restart();
        stack
    }

    /// The same, not started yet.
    pub(crate) fn prepare(verb: &[&str], vars: &[(&str, &str)]) -> Self {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let home = Home::new();
        Self {
            data: home.path().join("data"),
            home,
            verb: verb.iter().map(|word| (*word).to_owned()).collect(),
            vars: vars.collect(),
            server: None,
            url: String::new(),
            starts: 0,
        }
    }

    /// A flag of the server, from its next start on.
    pub(crate) fn flag(&mut self, name: &str, value: &str) {
        self.verb.extend([name.to_owned(), value.to_owned()]);
    }

    /// Another server on the same database, with the same instances; not started yet.
    pub(crate) fn replica(&self) -> Self {
        let words: Vec<&str> = self.verb.iter().map(String::as_str).collect();
        let vars: Vec<(&str, &str)> =
            self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut replica = Self::prepare(&words, &vars);
        replica.data.clone_from(&self.data);
        replica
    }

    /// Everything that it writes.
    pub(crate) fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The server's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// What the server tells client verbs.
    pub(crate) fn record(&self) -> PathBuf {
        self.dir().join("state/ligand/local.json")
    }

    /// Where the server listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The server's process.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// The administrator's token.
    pub(crate) fn admin(&self) -> String {
        if let Some(given) = self.given() {
            return given.to_owned();
        }
        fs::read_to_string(self.data().join("admin-token")).unwrap().trim().to_owned()
    }

    /// The administrator's token, where the server was given one.
    fn given(&self) -> Option<&str> {
        let token = self.vars.iter().find(|(name, _)| name == "ADMIN_TOKEN");
        token.map(|(_, token)| token.as_str())
    }

    /// Runs the server's command in the foreground, until it ends.
    pub(crate) fn run_server(&self, more: &[&str]) -> Ran {
        let args: Vec<String> = self.server_args(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let vars = self.server_vars();
        let vars: Vec<(&str, &str)> = vars.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        run(&self.home, &vars, &args)
    }

    fn server_args(&self, more: &[&str]) -> Vec<String> {
        let data = self.data().display().to_string();
        let mut args = self.verb.clone();
        // What runs already knows the server by its first address.
        let listen = self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0");
        let settings = [("--data-dir", data.as_str()), ("--listen", listen)];
        for (flag, value) in settings {
            // A flag may be given once only.
            if !more.contains(&flag) {
                args.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        args.extend(more.iter().map(|word| (*word).to_owned()));
        args
    }

    fn server_vars(&self) -> Vec<(String, String)> {
        let mut vars = vec![self.state_home(), ("LIGAND_LOG".to_owned(), "debug".to_owned())];
        // Tests ask more often than people do.
        vars.push(("RATE_LIMIT".to_owned(), "1000000".to_owned()));
        vars.extend(self.vars.clone());
        vars
    }

    fn state_home(&self) -> (String, String) {
        ("XDG_STATE_HOME".to_owned(), self.dir().join("state").display().to_string())
    }

    /// Starts the server (again), and waits until it listens.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "it runs");
        self.starts += 1;
        let log = |end| self.dir().join(format!("server-{}.{end}", self.starts));
        let (out, err) = (log("out"), log("err"));
        let (args, vars) = (self.server_args(&[]), self.server_vars());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let vars: Vec<(&str, &str)> = vars.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut command = command(&self.home, &vars, &args);
        command.stdout(File::create(out).unwrap()).stderr(File::create(&err).unwrap());
        let mut server = command.spawn().unwrap();
        self.url = until("the server listens", || {
            let said = fs::read_to_string(&err).unwrap_or_default();
            if let Some(status) = server.try_wait().unwrap() {
                panic!("the server ended ({status}): {said}");
            }
            let (_, url) = said.split_once("is listening at ")?;
            Some(url.split_once('\n')?.0.trim().to_owned())
        });
        self.server = Some(server);
    }

    /// `kill -9` of the server.
    pub(crate) fn kill_server(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// A polite end of the server; gives its exit code.
    pub(crate) fn stop_server(&mut self) -> Option<i32> {
        let mut server = self.server.take().unwrap();
        kill_process(pid(server.id()), Signal::TERM).unwrap();
        until("the server ends", || server.try_wait().unwrap()).code()
    }

    /// Runs a verb as a second shell would: it knows nothing but where state is kept, and a token that is not there.
    pub(crate) fn cli(&self, args: &[&str]) -> Ran {
        let (name, value) = self.state_home();
        let mut vars = vec![(name.as_str(), value.as_str())];
        vars.extend(self.given().map(|token| ("LIGAND_TOKEN", token)));
        run(&self.home, &vars, args)
    }

    /// The same, which must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.cli(args);
        assert_eq!(ran.code, 0, "{args:?}\n{}", ran.transcript());
        ran.stdout
    }

    /// A verb that goes on until it is killed.
    pub(crate) fn follow(&self, args: &[&str]) -> std::process::Command {
        let (name, value) = self.state_home();
        command(&self.home, &[(name.as_str(), value.as_str())], args)
    }

    /// A request as the administrator.
    #[track_caller]
    pub(crate) fn ask(&self, line: &str) -> Value {
        let answer = Call::new(&self.url, line).token(&self.admin()).send();
        assert!((200..300).contains(&answer.status), "{line}: {answer:?}");
        answer.json()
    }

    /// The workspace of this name, as the list has it.
    #[track_caller]
    pub(crate) fn workspace(&self, name: &str) -> Value {
        let list = self.ask("GET /workspaces");
        let found = list.as_array().unwrap().iter().find(|workspace| workspace["name"] == name);
        found.unwrap_or_else(|| panic!("no workspace {name}: {list}")).clone()
    }

    /// Its id.
    #[track_caller]
    pub(crate) fn id(&self, name: &str) -> String {
        self.workspace(name)["id"].as_str().unwrap().to_owned()
    }

    /// What `why` tells of it, as the server says it.
    #[track_caller]
    pub(crate) fn why(&self, id: &str) -> Value {
        self.ask(&format!("GET /workspaces/{id}/why"))
    }

    /// Waits until it is online and nothing more is going to happen; gives its generation.
    #[track_caller]
    pub(crate) fn settled(&self, id: &str) -> i64 {
        let begun = now();
        loop {
            let why = self.why(id);
            let rests = why["next"].as_str().unwrap().starts_with("if no heartbeat comes");
            if rests && why["workspace"]["status"] == "online" {
                return generation(&why["workspace"]);
            }
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {id} settles: {why:#}");
            std::thread::sleep(LOOK);
        }
    }

    /// Its requests to restart and its plans to start, in their order: `r` and `p`.
    #[track_caller]
    pub(crate) fn cycles(&self, id: &str) -> String {
        let why = self.why(id);
        let letter = |entry: &Value| match entry["kind"].as_str() {
            Some("planned") => Some('p'),
            Some("restart-requested") => Some('r'),
            _ => None,
        };
        why["journal"].as_array().unwrap().iter().filter_map(letter).collect()
    }

    /// The directory of an instance's workspace.
    pub(crate) fn tree(&self, id: &str) -> PathBuf {
        self.data().join("process").join(id)
    }

    /// The credential that lies there.
    pub(crate) fn credential(&self, id: &str) -> String {
        fs::read_to_string(self.tree(id).join("configs/.auth_token")).unwrap().trim().to_owned()
    }

    /// The process that leads an instance, as the server recorded it.
    #[track_caller]
    pub(crate) fn leader(&self, id: &str, generation: i64) -> u32 {
        self.leader_at("process", id, generation)
    }

    /// The same of one at the backend of this name.
    #[track_caller]
    pub(crate) fn leader_at(&self, backend: &str, id: &str, generation: i64) -> u32 {
        let path = self.data().join(backend).join(id).join(format!("run/{generation}.json"));
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let record: Value = serde_json::from_slice(&text).unwrap();
        u32::try_from(record["identity"]["pid"].as_u64().unwrap()).unwrap()
    }

    /// Every process of every instance: those whose home lies in this directory. The programs beside agents,
    /// which do not bear the label of their instance, are among them.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let label = format!("HOME={}/", self.data().display());
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        numbers
            .filter(|pid| environment(*pid).iter().any(|entry| entry.starts_with(&label)))
            .collect()
    }

    /// `kill -9` of a whole instance, as long as it is ours.
    pub(crate) fn kill_instance(&self, leader: u32) {
        assert!(self.processes().contains(&leader), "{leader} is none of ours");
        kill_process_group(pid(leader), Signal::KILL).unwrap();
    }

    /// `kill -9` of an instance that may have ended this very moment.
    pub(crate) fn end_instance(&self, leader: u32) {
        if self.processes().contains(&leader) {
            let _ = kill_process_group(pid(leader), Signal::KILL);
        }
    }

    /// A signal to one process of an instance.
    pub(crate) fn signal(&self, process: u32, signal: Signal) {
        assert!(self.processes().contains(&process), "{process} is none of ours");
        kill_process(pid(process), signal).unwrap();
    }

    /// All that the servers wrote, of every start.
    pub(crate) fn server_logs(&self) -> String {
        let ends = (1..=self.starts).flat_map(|n| [format!("{n}.out"), format!("{n}.err")]);
        let read = |end| fs::read(self.dir().join(format!("server-{end}"))).unwrap_or_default();
        ends.map(|end| String::from_utf8_lossy(&read(end)).into_owned()).collect()
    }

    /// What there is to say about a test that failed.
    fn tell(&self) {
        let logs = self.server_logs();
        let told = logs.lines().filter(|line| !line.contains("sqlx::") && !line.contains("hyper"));
        say("the server wrote:");
        told.for_each(say);
        for tree in fs::read_dir(self.data().join("process")).into_iter().flatten().flatten() {
            say(&format!("the agent in {} wrote:", tree.path().display()));
            say(&fs::read_to_string(tree.path().join("logs/agent.log")).unwrap_or_default());
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // First whoever would replace what is killed next.
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let begun = now();
        loop {
            let left = self.processes();
            if left.is_empty() || begun.elapsed() > PATIENCE {
                break;
            }
            for process in left {
                let _ = kill_process(pid(process), Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
        if std::thread::panicking() {
            self.tell();
        }
    }
}

/// The generation of a workspace, as answers have it.
pub(crate) fn generation(workspace: &Value) -> i64 {
    workspace["generation"].as_i64().unwrap()
}

/// The environment of a process, entry by entry; none of one that ended.
pub(crate) fn environment(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let entries = text.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries.map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}
