//! The agent as a process, in a directory of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use crate::fake::{DEADLINE, Platform};

const BINARY: &str = env!("CARGO_BIN_EXE_ligand-agent");

/// A program that answers turns on `PORT`: another agent, without platform, as the echo. It notes its
/// process id in `pids`, once per start.
pub(crate) const PROGRAM: &str = r#"
    echo $$ >> "$DIR/pids"
    exec "$BINARY" --listen "127.0.0.1:$PORT" --platform-url http://127.0.0.1:1 \
        --workspace-id inner --configs-dir "$DIR/inner" 2>/dev/null
"#;

/// A directory for one test, gone with the value.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("agent-{}-{nth}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file's text; empty while it is missing.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The program's process ids, one per start.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.text("pids").lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How the agent is to be started.
pub(crate) struct Start(Command);

impl Start {
    /// With nothing but what it takes to write down what it says.
    #[expect(clippy::disallowed_methods, reason = "the binary under test is a process")]
    pub(crate) fn bare(dir: &Dir) -> Self {
        let mut command = Command::new(BINARY);
        let output = |name| File::create(dir.path(name)).expect("made");
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("BINARY", BINARY)
            .env("DIR", &dir.0)
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            // A group of its own: whatever it starts can be ended with it.
            .process_group(0);
        Self(command)
    }

    /// As workspace `ws-1` of `platform`.
    pub(crate) fn of(platform: &Platform, dir: &Dir) -> Self {
        Self::at(&platform.url, dir)
    }

    /// As workspace `ws-1` of the platform at `url`.
    pub(crate) fn at(url: &str, dir: &Dir) -> Self {
        let mut start = Self::bare(dir).env("PLATFORM_URL", url).env("WORKSPACE_ID", "ws-1");
        start.0.env("CONFIGS_DIR", dir.path("configs"));
        start
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.0.stdin(stdin);
        self
    }

    pub(crate) fn go(mut self) -> Agent {
        Agent(self.0.spawn().expect("the binary starts"))
    }
}

/// A running agent; ended, with all it started, when the value goes.
pub(crate) struct Agent(Child);

impl Agent {
    /// As `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(self.0.id()), signal).expect("it runs");
    }

    /// Wait for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the agent's end", || {
            status = self.0.try_wait().expect("our child");
            status.is_some()
        })
        .await;
        status.expect("just seen")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = kill_process_group(pid(self.0.id()), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Look until `good`, or fail at the deadline.
pub(crate) async fn until(what: &str, mut good: impl FnMut() -> bool) {
    let poll = async {
        let mut beat = tokio::time::interval(Duration::from_millis(10));
        while !good() {
            beat.tick().await;
        }
    };
    let seen = tokio::time::timeout(DEADLINE, poll).await;
    assert!(seen.is_ok(), "waited in vain for {what}");
}

/// Whether a process with this id exists.
pub(crate) fn alive(id: i32) -> bool {
    test_kill_process(Pid::from_raw(id).expect("an id")).is_ok()
}

pub(crate) fn end_by_force(id: i32) {
    kill_process(Pid::from_raw(id).expect("an id"), Signal::KILL).expect("it runs");
}

fn pid(id: u32) -> Pid {
    i32::try_from(id).ok().and_then(Pid::from_raw).expect("an id")
}
