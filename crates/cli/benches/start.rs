//! How long a server takes to start, what it weighs, and the same for programs that do nothing.
//!
//! `cargo bench -p ligand --bench start`; with `-- --json` for programs. It uses loopback and a temporary
//! directory, asserts nothing about time, and ends by itself.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program that measures reads the clock, runs programs and prints"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIGAND: &str = env!("CARGO_BIN_EXE_ligand");
/// Starts of each kind.
const STARTS: usize = 15;
/// Workspaces in the full database.
const WORKSPACES: usize = 10_000;
/// Callers that create them at once.
const CALLERS: usize = 4;
/// How long a server idles before its memory is read.
const IDLE: Duration = Duration::from_secs(3);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at whether somebody answers; the error of every measured start.
const LOOK: Duration = Duration::from_micros(200);
const TOKEN: &str = "a-token-for-measuring";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--bare") {
        let port = args.get(at + 1).context("a port")?.parse()?;
        return bare(port);
    }
    let scratch = Scratch::new()?;
    let measured = measure(&scratch.0)?;
    if args.iter().any(|arg| arg == "--json") {
        println!("{}", json!(measured.iter().map(Measure::json).collect::<Vec<_>>()));
    } else {
        table(&measured);
    }
    Ok(())
}

fn measure(scratch: &Path) -> Result<Vec<Measure>> {
    let (empty, full) = (scratch.join("empty"), scratch.join("full"));
    let mut measured = vec![
        Measure::times("/bin/true, until it ended", None, many(timed_true)?),
        Measure::times("a program that only binds and answers", None, many(bare_start)?),
        Measure::times("first start, database made", None, many(|| first_start(scratch))?),
    ];
    let server = Server::start(&empty)?.0;
    measured.push(Measure::one("idle memory, empty", None, MIB, server.idle_memory()?));
    server.stop(Signal::TERM)?;
    let again = |data: &Path, end| {
        let (server, took) = Server::start(data)?;
        server.stop(end)?;
        Ok(took)
    };
    measured.push(Measure::times("start, empty", None, many(|| again(&empty, Signal::TERM))?));
    let filled = fill(&full)?;
    measured.push(Measure::one("workspaces created", None, "per second", filled));
    let limit = Some(300.0);
    let name = "start, 10 000 workspaces";
    measured.push(Measure::times(name, limit, many(|| again(&full, Signal::TERM))?));
    let name = "start after kill -9, 10 000 workspaces";
    measured.push(Measure::times(name, limit, many(|| again(&full, Signal::KILL))?));
    let server = Server::start(&full)?.0;
    let name = "idle memory, 10 000 workspaces";
    measured.push(Measure::one(name, Some(40.0), MIB, server.idle_memory()?));
    server.stop(Signal::TERM)?;
    let bytes = fs::metadata(LIGAND)?.len();
    measured.push(Measure::one("size of the binary", Some(40.0), MIB, bytes as f64 / 1_048_576.0));
    Ok(measured)
}

/// The unit of sizes.
const MIB: &str = "MiB";

/// One line of the result.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// What it should not exceed.
    target: Option<f64>,
    /// Sorted.
    values: Vec<f64>,
}

impl Measure {
    fn one(name: &'static str, target: Option<f64>, unit: &'static str, value: f64) -> Self {
        Self { name, unit, target, values: vec![value] }
    }

    fn times(name: &'static str, target: Option<f64>, times: Vec<Duration>) -> Self {
        let mut values: Vec<f64> = times.iter().map(|it| it.as_secs_f64() * 1000.0).collect();
        values.sort_by(f64::total_cmp);
        Self { name, unit: "ms", target, values }
    }

    fn spread(&self) -> [f64; 3] {
        let last = self.values.len() - 1;
        [0, last / 2, last].map(|at| self.values[at])
    }

    fn json(&self) -> Value {
        let [min, median, max] = self.spread();
        json!({"measure": self.name, "unit": self.unit, "target": self.target, "min": min,
            "median": median, "max": max, "samples": self.values.len()})
    }
}

fn table(measured: &[Measure]) {
    println!("{:<42} {:>9} {:>9} {:>9} {:>7}  unit", "measure", "min", "median", "max", "target");
    for measure in measured {
        let [min, median, max] = measure.spread();
        let target = measure.target.map_or(String::new(), |target| format!("{target}"));
        let (name, unit) = (measure.name, measure.unit);
        println!("{name:<42} {min:>9.1} {median:>9.1} {max:>9.1} {target:>7}  {unit}");
    }
}

fn many(mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<Duration>> {
    (0..STARTS).map(|_| once()).collect()
}

/// A directory that goes with the measurement.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("start-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running program that answers on a port. It ends with us.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(data: &Path) -> Result<(Self, Duration)> {
        fs::create_dir_all(data)?;
        let address = free()?;
        let mut command = Command::new(LIGAND);
        command
            .args(["serve", "platform", "--backend", "none", "--listen", &address.to_string()])
            .arg("--data-dir")
            .arg(data)
            .env_clear()
            .env("HOME", data)
            .env("LIGAND_LOG", "error")
            .env("ADMIN_TOKEN", TOKEN);
        Self::run(command, address)
    }

    fn run(mut command: Command, address: SocketAddr) -> Result<(Self, Duration)> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let mut server = Self { child: command.spawn()?, address };
        loop {
            if healthy(address) {
                return Ok((server, began.elapsed()));
            }
            if let Some(ended) = server.child.try_wait()? {
                bail!("the server ended before it answered: {ended}");
            }
            ensure!(began.elapsed() < PATIENCE, "the server did not answer");
            thread::sleep(LOOK);
        }
    }

    fn stop(mut self, how: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), how)?;
        self.child.wait()?;
        Ok(())
    }

    fn idle_memory(&self) -> Result<f64> {
        thread::sleep(IDLE);
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("VmRSS")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn healthy(address: SocketAddr) -> bool {
    let ask = || -> Result<u16> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        Ok(answer(&mut BufReader::new(stream))?.0)
    };
    ask().is_ok_and(|status| status == 200)
}

/// Reads one answer: its status and body.
fn answer(from: &mut BufReader<TcpStream>) -> Result<(u16, Vec<u8>)> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("a status line")?.parse()?;
    let mut length = 0;
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(text) = header.strip_prefix("content-length:") {
            length = text.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok((status, body))
}

fn timed_true() -> Result<Duration> {
    let began = Instant::now();
    Command::new("/bin/true").env_clear().status()?;
    Ok(began.elapsed())
}

fn bare_start() -> Result<Duration> {
    let address = free()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--bare", &address.port().to_string()]).env_clear();
    let (server, took) = Server::run(command, address)?;
    server.stop(Signal::KILL)?;
    Ok(took)
}

/// What the baseline runs: bind, and answer whoever comes.
fn bare(port: u16) -> Result<()> {
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        stream?.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
}

fn first_start(scratch: &Path) -> Result<Duration> {
    let data = scratch.join("first");
    let (server, took) = Server::start(&data)?;
    server.stop(Signal::TERM)?;
    fs::remove_dir_all(&data)?;
    Ok(took)
}

/// Creates the workspaces over HTTP. Nothing runs them: they wait for agents elsewhere. Gives how many a
/// second.
fn fill(data: &Path) -> Result<f64> {
    let (server, _) = Server::start(data)?;
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    let create = || -> Result<()> {
        let mut stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= WORKSPACES {
                return Ok(());
            }
            let body = json!({"name": format!("workspace {number}"), "external": true}).to_string();
            let head = format!(
                "POST /workspaces HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes())?;
            let (status, body) = answer(&mut answers)?;
            ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&body));
        }
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(create)).collect();
        let ended = callers.into_iter().map(|it| it.join().ok().context("a caller panicked")?);
        ended.collect::<Result<()>>()
    })?;
    let rate = WORKSPACES as f64 / began.elapsed().as_secs_f64();
    server.stop(Signal::TERM)?;
    Ok(rate)
}
