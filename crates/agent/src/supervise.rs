//! The user's program: started, watched, started again.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::CommandLine;
use crate::leftover::{self, Process};
use crate::logs::{Logs, Stream};
use crate::machine;
use crate::reap::Own;
use crate::values::Values;
use crate::vitals::{Program, Vitals};

/// How often that is tried.
const PROBE: Duration = Duration::from_millis(50);
/// How often the wait for it is mentioned.
const PROGRESS: Duration = Duration::from_secs(10);
/// The first wait before a restart; the very first restart goes at once.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A program that was up for so long is restarted at once again.
const STEADY: Duration = Duration::from_secs(60);
/// Bytes of one line of output that are kept.
const LONGEST_LINE: usize = 16 << 10;

/// How long a program may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From its start until it accepts connections.
    pub(crate) start: Duration,
    /// From the request to end until the end by force.
    pub(crate) grace: Duration,
}

impl Patience {
    /// Two minutes load a large model; five seconds are what a stop can cost a backend.
    pub(crate) const USUAL: Self =
        Self { start: Duration::from_secs(120), grace: Duration::from_secs(5) };
}

/// Starts the program, and keeps it running.
pub(crate) struct Supervisor {
    pub(crate) command: CommandLine,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) logs: Logs,
    pub(crate) own: Arc<Own>,
    pub(crate) patience: Patience,
    /// The tasks that carry its output.
    pub(crate) tasks: TaskTracker,
}

/// One run of the program.
pub(crate) struct Started {
    child: Child,
    port: u16,
    at: Instant,
}

/// How a run ended.
struct Ended {
    how: String,
    up: Duration,
}

impl Supervisor {
    /// Start the program on a port that is free now, with these secrets over what it inherits.
    ///
    /// # Errors
    /// What the system says: not found, not executable.
    pub(crate) fn start(&self, values: Option<&Values>) -> io::Result<Started> {
        let port = free_port()?;
        let mut command = machine::command(&self.command.program, &self.command.args);
        command
            .envs(values.into_iter().flat_map(Values::overlay))
            .env("PORT", port.to_string())
            .env("HOST", "127.0.0.1")
            .env("PYTHONUNBUFFERED", "1")
            // Descriptor 0 may be the agent's own listening socket.
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = self.own.start(|| command.spawn())?;
        self.vitals.set_program(Program::Starting);
        tracing::info!(pid = child.id(), port, "started {}", self.command);
        if let Some(output) = child.stdout.take() {
            self.tasks.spawn(carry(output, Stream::Out, self.logs.clone()));
        }
        if let Some(output) = child.stderr.take() {
            self.tasks.spawn(carry(output, Stream::Err, self.logs.clone()));
        }
        Ok(Started { child, port, at: machine::now() })
    }

    /// Keep it running until `over`; then end it. Returns when it is gone, with whatever it had started. `first` runs
    /// already.
    pub(crate) async fn run(
        &self,
        first: Option<Started>,
        values: Option<&Values>,
        over: &CancellationToken,
    ) -> Vec<Process> {
        let mut attempt = first.map_or_else(|| self.start(values), Ok);
        let mut restarts = 0;
        loop {
            let ended = match attempt {
                Ok(mut started) => tokio::select! {
                    ended = self.until_ended(&mut started) => ended,
                    () = over.cancelled() => {
                        let started_by_it = started.child.id().map(leftover::descendants);
                        self.end(&mut started.child).await;
                        return started_by_it.unwrap_or_default();
                    }
                },
                Err(e) => Ended { how: format!("cannot be started: {e}"), up: Duration::ZERO },
            };
            if ended.up >= STEADY {
                restarts = 0;
            }
            let wait = restart_wait(restarts);
            restarts += 1;
            self.own.ended();
            self.vitals.set_program(Program::Down);
            let text = format!("the agent's program {}", ended.how);
            tracing::warn!("{text}; next start in {:.1} s", wait.as_secs_f64());
            self.vitals.note_error(&text);
            tokio::select! {
                () = machine::sleep(wait) => {}
                () = over.cancelled() => return Vec::new(),
            }
            attempt = self.start(values);
        }
    }

    async fn until_ended(&self, started: &mut Started) -> Ended {
        let Started { child, port, at } = started;
        let how = tokio::select! {
            status = child.wait() => Some(ending(status)),
            () = listening(*port) => None,
            () = machine::sleep(self.patience.start) => {
                let _ = child.kill().await;
                let waited = self.patience.start.as_secs();
                Some(format!("did not listen on port {port} within {waited} s"))
            }
        };
        let how = match how {
            Some(how) => how,
            None => {
                tracing::info!(port, "the program accepts connections");
                self.vitals.set_program(Program::Running(*port));
                ending(child.wait().await)
            }
        };
        Ended { how, up: machine::now().saturating_duration_since(*at) }
    }

    /// Ask the program to end; insist after the grace.
    async fn end(&self, child: &mut Child) {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // It cannot be somebody else's by now: an id is free only after its status was collected, which gives
        // `None` here.
        if let Some(pid) = pid
            && kill_process(pid, Signal::TERM).is_ok()
            && tokio::time::timeout(self.patience.grace, child.wait()).await.is_ok()
        {
            return tracing::info!("the program has ended");
        }
        tracing::warn!("the program is ended by force");
        if let Err(e) = child.kill().await {
            tracing::warn!("cannot end the program: {e}");
        }
    }
}

/// Returns when somebody accepts connections on `port`.
async fn listening(port: u16) {
    let since = machine::now();
    let mut mentioned = since;
    tracing::info!(port, "waiting for the program to listen");
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        machine::sleep(PROBE).await;
        let now = machine::now();
        if now.saturating_duration_since(mentioned) >= PROGRESS {
            mentioned = now;
            let waited = now.saturating_duration_since(since).as_secs();
            tracing::info!(port, "still waiting for the program to listen, {waited} s so far");
        }
    }
}

fn ending(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(e) => format!("was lost sight of: {e}"),
    }
}

/// The wait before the restart that follows `restarts` others.
fn restart_wait(restarts: u32) -> Duration {
    match restarts.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            FIRST_WAIT.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_WAIT)
        }
    }
}

/// A port that nobody uses now. Somebody may take it before the program does; the program then fails to
/// listen and is started again with another.
fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Carry output into the log, line by line, until its end.
async fn carry(output: impl AsyncRead + Unpin, stream: Stream, logs: Logs) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(chunk) = output.fill_buf().await {
        if chunk.is_empty() {
            break;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = LONGEST_LINE - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        output.consume(used);
        if end.is_some() {
            logs.line(stream, legible(&line));
            line.clear();
        }
    }
    if !line.is_empty() {
        logs.line(stream, legible(&line));
    }
}

fn legible(line: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(line).into_owned().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn the_first_restart_goes_at_once_and_later_ones_wait_ever_longer() {
        let waits: Vec<u128> = (0..9).map(|nth| restart_wait(nth).as_millis()).collect();
        assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(restart_wait(u32::MAX), LONGEST_WAIT);
    }

    /// A supervisor of a shell script, with its log in `dir`.
    fn of(script: &str, dir: &Scratch, patience: Patience) -> Supervisor {
        let args = vec!["-c".into(), script.into()];
        Supervisor {
            command: CommandLine { program: "sh".into(), args },
            vitals: Vitals::new(Program::Starting),
            logs: Logs::start(Some(dir.path())),
            own: Arc::default(),
            patience,
            tasks: TaskTracker::new(),
        }
    }

    #[tokio::test]
    async fn a_program_that_never_listens_is_ended() {
        let (dir, start) = (Scratch::new(), Duration::from_millis(20));
        let supervisor = of("exec sleep 600", &dir, Patience { start, ..Patience::USUAL });
        let mut started = supervisor.start(None).expect("a shell");
        let ended = supervisor.until_ended(&mut started).await;
        assert!(ended.how.starts_with("did not listen on port"), "{}", ended.how);
        assert_eq!(started.child.id(), None, "gone and collected");
    }

    #[tokio::test]
    async fn a_program_that_does_not_want_to_end_is_ended_by_force() {
        let (dir, grace) = (Scratch::new(), Duration::from_millis(20));
        let script = "trap '' TERM; echo ready; exec sleep 600";
        let supervisor = of(script, &dir, Patience { grace, ..Patience::USUAL });
        let mut started = supervisor.start(None).expect("a shell");
        let log = dir.path().join("agent.log");
        while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")) {
            tokio::task::yield_now().await;
        }
        supervisor.end(&mut started.child).await;
        let status = started.child.wait().await.expect("its status is kept");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    }

    #[tokio::test]
    async fn output_arrives_as_bounded_legible_lines() {
        let dir = Scratch::new();
        let logs = Logs::start(Some(dir.path()));
        let mut output = b"one\n\xfftwo\n".to_vec();
        output.extend(vec![b'x'; 3 * LONGEST_LINE]);
        output.extend(b"\nlast");
        carry(output.as_slice(), Stream::Out, logs.clone()).await;
        logs.flush();
        let text = std::fs::read_to_string(dir.path().join("agent.log")).expect("written");
        let lines: Vec<&str> = text.lines().collect();
        let long = "x".repeat(LONGEST_LINE);
        assert_eq!(lines, ["one", "\u{fffd}two", long.as_str(), "last"]);
    }
}
