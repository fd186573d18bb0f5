//! The process beside an agent: its identity, its heartbeats, its program, its turns.
//!
//! ```text
//!              register, heartbeat                 turns
//!   platform <--------------------- ligand agent <--------- platform
//!                                     |        \
//!                              starts |         \ relays, or echoes
//!                                     v          v
//!                                    the user's program
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`config`] | flags and environment, checked |
//! | [`session`] | what to do after an answer of the platform; pure |
//! | [`holdings`] | the credentials in memory and what is to be written; pure |
//! | `enrol` | the loop around it |
//! | [`standby`] | whether the program runs, and with which secrets; pure |
//! | `steer`, [`values`] | that carried out; secrets that were fetched |
//! | `nudge` | requests to send the next heartbeat now |
//! | [`guards`] | the rules that carry load, by name |
//! | `platform` | the calls, and what their answers mean |
//! | [`identity`] | the credential files |
//! | `supervise`, `leftover`, `reap` | the program; what it leaves; orphans of a container |
//! | `relay`, `echo`, `echo_tasks`, `card` | the agent's HTTP server |
//! | [`turns`] | what is done with a message that comes, perhaps again; pure |
//! | `records` | what is known of messages, on disk |
//! | `delivery`, `run`, `answer` | a message on its way to the program and back, once |
//! | `telling` | what the platform is told about turns beside their answers |
//! | `vitals` | what heartbeats report |
//! | [`logs`] | log lines, to a rotated file or standard error |
//! | `receipt` | proof of the secrets that the program holds |
//! | `waits` | how long to wait; pure |
//! | `machine` | clock, randomness, environment: the only file that reads them |
//!
//! Not here: anything of the server, and any file but the credentials, the records of turns and the log.
#![warn(missing_docs)]

mod answer;
mod card;
pub mod config;
mod delivery;
mod echo;
mod echo_tasks;
mod enrol;
pub mod guards;
pub mod holdings;
pub mod identity;
#[cfg(test)]
mod laws;
mod leftover;
pub mod logs;
mod machine;
mod nudge;
mod platform;
mod reap;
mod receipt;
mod records;
mod relay;
mod run;
pub mod session;
pub mod standby;
mod steer;
mod supervise;
mod telling;
#[cfg(test)]
mod testing;
pub mod turns;
pub mod values;
mod vitals;
mod waits;

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use config::{Args, Listen, Settings};
use delivery::{Answerer, Front, Running};
use echo::Echo;
use enrol::Enrolment;
use identity::Identity;
use logs::Logs;
use nudge::Nudges;
use platform::Platform;
use receipt::Receipt;
use records::Records;
use relay::Relay;
use standby::Mode;
use steer::{Conductor, Steering};
use supervise::{Patience, Started, Supervisor};
use telling::Telling;
use vitals::{Program, Vitals};

/// Settings that cannot be used.
const EXIT_USAGE: u8 = 2;
/// The machine refuses something the agent needs.
const EXIT_FAILED: u8 = 1;
/// The program is there and cannot be executed, as shells say it.
const EXIT_NOT_EXECUTABLE: u8 = 126;
/// There is no such program, as shells say it.
const EXIT_NOT_FOUND: u8 = 127;
/// How long answers and output in flight may take once the program is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why [`run`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// The platform ended this instance. No supervisor should start it again.
    Dismissed {
        /// The platform's reason.
        why: String,
    },
    /// It could not begin; nothing was sent to the platform.
    CannotStart {
        /// What failed, and why.
        what: String,
        /// What to do about it.
        hint: String,
        /// The process's exit code.
        code: u8,
    },
}

impl Exit {
    /// The process's exit code: 0, or [`Exit::CannotStart`]'s.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Stopped | Self::Dismissed { .. } => 0,
            Self::CannotStart { code, .. } => *code,
        }
    }

    fn failed(what: impl ToString, hint: &str) -> Self {
        Self::CannotStart { what: what.to_string(), hint: hint.to_owned(), code: EXIT_FAILED }
    }
}

/// The whole process: settings, log, runtime, signals, [`run`]. For the `main` of a binary.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    let settings = match Settings::resolve(args, machine::variable) {
        Ok(settings) => settings,
        Err(invalid) => {
            say(&format!("error: {invalid}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let logs = Logs::start(settings.log_dir.as_deref());
    let lines = logs.clone();
    // A binary that has set up its own log keeps it.
    let _ = tracing_subscriber::fmt()
        .with_ansi(settings.log_dir.is_none() && io::stderr().is_terminal())
        .with_target(false)
        .with_writer(move || lines.clone())
        .try_init();
    // Two threads: an agent waits most of its life, and a machine runs many of them.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let exit = match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run_until_signal(settings, logs.clone()));
            runtime.shutdown_timeout(LAST_WORDS);
            exit
        }
        Err(e) => {
            Exit::failed(format!("cannot start: {e}"), "does the machine allow more threads?")
        }
    };
    logs.flush();
    if let Exit::CannotStart { what, hint, .. } = &exit {
        say(&format!("error: {what}\nhint: {hint}"));
    }
    ExitCode::from(exit.code())
}

async fn run_until_signal(settings: Settings, logs: Logs) -> Exit {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return Exit::failed(
            "cannot listen for signals",
            "does the machine allow signal handlers?",
        );
    };
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let signals = async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        asked.cancel();
        // A second signal changes nothing: the end is bounded anyway.
        std::future::pending::<Exit>().await
    };
    tokio::select! {
        exit = run(settings, logs, stop) => exit,
        exit = signals => exit,
    }
}

/// Be the agent until `stop`, or until the platform ends this instance. Needs a tokio runtime with time and
/// IO; `logs` gets the program's output. The program is gone when this returns.
pub async fn run(settings: Settings, logs: Logs, stop: CancellationToken) -> Exit {
    tracing::info!(
        "ligand agent {} for workspace {}, platform {}",
        env!("CARGO_PKG_VERSION"),
        settings.workspace_id,
        settings.platform_url,
    );
    let to_file = settings.log_dir.is_some();
    match Agent::prepare(settings, logs) {
        // Boxed: it is large, and there is one of it.
        Ok(agent) => Box::pin(agent.live(stop)).await,
        Err(exit) => {
            // Standard error gets it from whoever called us: once is enough there.
            if let Exit::CannotStart { what, .. } = &exit
                && to_file
            {
                tracing::error!("{what}");
            }
            exit
        }
    }
}

/// Everything in place, nothing sent yet.
struct Agent {
    enrolment: Enrolment,
    server: (TcpListener, Arc<Front>),
    end_server: CancellationToken,
    program: (Conductor, Option<Started>),
    own: Arc<reap::Own>,
    tasks: TaskTracker,
}

impl Agent {
    /// In the order in which a mistake is best found: what this machine must give, the program last.
    fn prepare(settings: Settings, logs: Logs) -> Result<Self, Exit> {
        let (passport, guards) = (settings.passport, settings.guards);
        let identity = Identity::open(&settings.configs_dir, passport, guards).map_err(|e| {
            Exit::failed(e, "make it writable, or name another with --configs-dir (CONFIGS_DIR)")
        })?;
        let listener = bind(settings.listen).map_err(|e| cannot_listen(settings.listen, &e))?;
        let port = listener.local_addr().expect("a listening socket has an address").port();
        let url = settings.advertise.unwrap_or_else(|| format!("http://localhost:{port}"));
        let echoes = settings.command.is_none();
        let card = card::card(&settings.name, &url, echoes);
        let no_http = |e: platform::NoClient| Exit::failed(e, "this is a defect of the agent");
        let (tasks, end_server) = (TaskTracker::new(), CancellationToken::new());
        let (base, org, end) = (settings.platform_url, settings.org_id, end_server.clone());
        let telling = Telling::new(&base, org.clone(), &settings.workspace_id, tasks.clone(), end);
        let telling = Arc::new(telling.map_err(no_http)?);
        let platform = Platform::new(base, org).map_err(no_http)?;
        let (mode, nudges) = (settings.standby, Arc::new(Nudges::default()));
        let vitals = Vitals::new(match mode {
            Mode::Wait | Mode::Pull => Program::StandingBy,
            Mode::AtOnce if echoes => Program::None,
            Mode::AtOnce => Program::Starting,
        });
        let answerer = if echoes {
            Answerer::Echo(Echo::new(card.clone(), settings.echo))
        } else {
            Answerer::Program(Relay::new(Arc::clone(&vitals)).map_err(no_http)?)
        };
        let front = Arc::new(Front {
            answerer,
            vitals: Arc::clone(&vitals),
            records: Arc::new(Records::below(&settings.configs_dir)),
            telling: Arc::clone(&telling),
            guards,
            tasks: tasks.clone(),
            running: Arc::new(Running::default()),
            nudges: Arc::clone(&nudges),
        });
        let own = Arc::new(reap::Own::default());
        let program = settings.command.map(|command| {
            let (vitals, logs, tasks) = (Arc::clone(&vitals), logs.clone(), tasks.clone());
            let own = Arc::clone(&own);
            Supervisor { command, vitals, logs, own, patience: Patience::USUAL, tasks }
        });
        let at_once = program.as_ref().filter(|_| mode == Mode::AtOnce);
        let first = at_once
            .map(|program| program.start(None).map_err(|e| cannot_start(program, &e)))
            .transpose()?;
        let steering = Steering::new(mode, Arc::clone(&vitals));
        let orders = steering.orders();
        let conductor = Conductor { program, front: Arc::clone(&front), orders };
        let (workspace, managed) = (settings.workspace_id, settings.managed);
        let enrolment = Enrolment {
            platform,
            identity,
            vitals,
            telling,
            logs,
            workspace,
            url,
            card,
            managed,
            guards,
            rotation_error: None,
            receipt: Receipt::of(settings.secret_names),
            steering,
            nudges,
        };
        let (server, program) = ((listener, front), (conductor, first));
        Ok(Self { enrolment, server, end_server, program, own, tasks })
    }

    async fn live(self, stop: CancellationToken) -> Exit {
        let Self { enrolment, server: (listener, front), end_server, program, own, tasks } = self;
        let end_program = CancellationToken::new();
        let router = relay::router(Arc::clone(&front));
        tasks.spawn(relay::serve(listener, router, end_server.clone()));
        let end = end_server.clone();
        tasks.spawn(async move { end.run_until_cancelled(front.keep_records()).await });
        if std::process::id() == 1 {
            let end = end_server.clone();
            tasks.spawn(async move { end.run_until_cancelled(reap::orphans(own)).await });
        }
        let (conductor, first) = program;
        let program = tasks.spawn(conductor.run(first, end_program.clone()));
        let vitals = Arc::clone(&enrolment.vitals);
        let exit = tokio::select! {
            () = stop.cancelled() => Exit::Stopped,
            why = async { vitals.reachable().await; enrolment.keep().await } => Exit::Dismissed { why },
        };
        match &exit {
            Exit::Dismissed { why } => tracing::info!("the platform ended this instance: {why}"),
            _ => tracing::info!("stopping"),
        }
        // The program first: turns it finishes in its grace still reach their callers.
        end_program.cancel();
        if let Err(e) = program.await {
            tracing::error!("the supervisor failed: {e}");
        }
        end_server.cancel();
        tasks.close();
        // Whatever is left after that belongs to callers or processes that do not let go.
        let _ = tokio::time::timeout(LAST_WORDS, tasks.wait()).await;
        exit
    }
}

fn cannot_start(supervisor: &Supervisor, error: &io::Error) -> Exit {
    let what = format!("cannot start {}: {error}", supervisor.command);
    let (hint, code) = match error.kind() {
        io::ErrorKind::NotFound => ("is it installed, and in PATH here?", EXIT_NOT_FOUND),
        _ => ("is it an executable file of this machine's kind?", EXIT_NOT_EXECUTABLE),
    };
    Exit::CannotStart { what, hint: hint.to_owned(), code }
}

fn cannot_listen(listen: Listen, error: &io::Error) -> Exit {
    match listen {
        Listen::Address(address) => Exit::failed(
            format!("cannot listen on {address}: {error}"),
            "127.0.0.1:0 takes a free port: --listen (LIGAND_AGENT_LISTEN)",
        ),
        Listen::Stdin => Exit::failed(
            format!("cannot listen: {error}"),
            "LIGAND_LISTEN_STDIN=1 is for a parent that hands over a listening socket",
        ),
    }
}

fn bind(listen: Listen) -> io::Result<TcpListener> {
    let listener = match listen {
        Listen::Address(address) => std::net::TcpListener::bind(address)?,
        Listen::Stdin => {
            let inherited = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
            let no_socket = |e| io::Error::other(format!("descriptor 0 is not a TCP socket: {e}"));
            inherited.local_addr().map_err(no_socket)?;
            inherited
        }
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// To the person at the terminal; nobody can be told that it failed.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
