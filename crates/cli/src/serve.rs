//! `ligand serve`: a server, in the foreground; and what `ligand up` shares with it.

use std::future::Future;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use ligand_server::config::{self, Config, ConfigError, Flags};
use ligand_server::serve::{self, Server, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::env::{self, Env};
use crate::error::{CommandError, CommandResult, Kind};
use crate::local::{self, Local};
use crate::{fleet, output};

/// Run a server
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    Platform(PlatformArgs),
    Fleet(fleet::FleetArgs),
}

/// Run the control plane of one organisation, in the foreground
///
/// Ctrl-C or SIGTERM ends the server. What it runs keeps running, and the next start finds it.
#[derive(Args)]
#[command(after_help = ENVIRONMENT)]
struct PlatformArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Shown below the help of every verb that takes them.
pub(crate) const ENVIRONMENT: &str = "\
Environment without a flag:
  ADMIN_TOKEN            token of the administrator (default: minted at the first start, and kept in
                         <data-dir>/admin-token)
  PLATFORM_URL           where instances reach this server (default: where it listens)
  EXTERNAL_PLATFORM_URL  where agents elsewhere reach it
  RATE_LIMIT             requests per minute of one address, and of one workspace (default: 600)
  CORS_ORIGINS           pages that may read answers in a browser (default: the local canvas)
  CP_UPSTREAM_URL        control plane that is asked whose session a cookie is
  LIGAND_LOG             how much to log: error, warn, info, debug
                         (default: warn with `up`, info with `serve`)";

/// Settings of a server that have a flag. A flag wins over the environment, that over the settings file.
#[derive(Args, Default)]
#[command(next_help_heading = "Settings")]
pub(crate) struct ServerArgs {
    /// Where to listen; port 0 takes a free one [env: LIGAND_LISTEN, PORT] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// sqlite:PATH or postgres://… [env: DATABASE_URL] [default: sqlite:<data-dir>/ligand.db]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Where database, admin token and instances are kept [env: LIGAND_DATA_DIR] [default: ./.ligand]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What runs workspaces that name no backend: process, docker, fake, none, or a name from the settings file
    /// [env: LIGAND_BACKEND] [default: process]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let agents with an id that nobody created register all the same: that creates it
    #[arg(long)]
    open_registration: bool,
    /// Which rules about credentials apply: strict, or compat, which opens the contract's open doors
    /// [env: LIGAND_AUTH] [default: strict]
    #[arg(long, value_name = "MODE")]
    auth: Option<String>,
    /// Let `--auth compat` listen beyond this machine
    #[arg(long)]
    force_compat: bool,
    /// How to write the log, which goes to standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl ServerArgs {
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            listen: self.listen.clone(),
            database_url: self.database_url.clone(),
            data_dir: self.data_dir.clone(),
            backend: self.backend.clone(),
            config: self.config.clone(),
            open_registration: self.open_registration,
            auth: self.auth.clone(),
            force_compat: self.force_compat,
        }
    }

    /// Settings, log and a runtime; then `body`.
    pub(crate) fn run<F>(&self, quiet: &str, body: impl FnOnce(Config) -> F) -> CommandResult
    where
        F: Future<Output = CommandResult>,
    {
        self.log.start(quiet);
        let runtime = runtime()?;
        let given = runtime.block_on(config::given());
        let loaded = config::load_with(&self.flags(), &given).map_err(misconfigured)?;
        let mut config = loaded.config;
        if config.agent.is_empty() {
            config.agent = beside()?;
        }
        #[cfg(feature = "mutants")]
        crate::mutant::switch_off(&mut config)?;
        runtime.block_on(Box::pin(body(config)))
    }
}

/// Run a server's body until it ends.
pub(crate) fn foreground(body: impl Future<Output = CommandResult>) -> CommandResult {
    runtime()?.block_on(Box::pin(body))
}

fn runtime() -> CommandResult<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start the runtime").map_err(CommandError::internal)
}

impl LogFormat {
    /// Begin to log, as the environment says, or else as `quiet` does.
    pub(crate) fn start(self, quiet: &str) {
        let said = env::var("LIGAND_LOG").unwrap_or_else(|| quiet.to_owned());
        let filter = EnvFilter::try_new(&said).unwrap_or_else(|_| {
            output::note("warning: LIGAND_LOG is not understood; writing warnings");
            EnvFilter::new("warn")
        });
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let log = log.with_ansi(std::io::stderr().is_terminal());
        match self {
            Self::Text => log.init(),
            Self::Json => log.json().init(),
        }
    }
}

pub(crate) fn misconfigured(error: ConfigError) -> CommandError {
    let said = match error {
        // Each on a line of its own.
        ConfigError::Values(problems) => {
            let lines = problems.into_iter().rev().map(anyhow::Error::new);
            let all = lines.reduce(|below, line| below.context(line.to_string()));
            let all = all.unwrap_or_else(|| anyhow::anyhow!("no setting is wrong"));
            all.context("these settings cannot be used")
        }
        file => file.into(),
    };
    CommandError::new(Kind::Usage, said).hint(
        "a flag wins over the environment, that over the settings file; --help names them all",
    )
}

pub(crate) fn refused(error: StartError) -> CommandError {
    let hint = error.hint();
    CommandError::new(Kind::Failed, error.into()).hint(hint)
}

/// The program that runs beside an agent: this one.
pub(crate) fn beside() -> CommandResult<Vec<String>> {
    let own = std::env::current_exe().context("find this program's own file");
    let own = own.map_err(CommandError::internal)?;
    Ok(vec![own.display().to_string(), "agent".to_owned()])
}

/// Start a server, and record where it is, that client verbs on this machine find it. `None`: somebody ended
/// us before it listened.
pub(crate) async fn start(config: Config, stop: &mut Stop) -> CommandResult<Option<Recorded>> {
    let server = tokio::select! {
        server = serve::start(config) => server.map_err(refused)?,
        () = stop.asked() => return Ok(None),
    };
    #[cfg(feature = "mutants")]
    crate::mutant::crash_when_told(&server.app().hub);
    let url = format!("http://{}", server.address());
    let token_path = server
        .admin_token_path()
        .map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    let path = Env::capture().state_dir.map(|dir| local::path(&dir));
    let record =
        Local { server: url.clone(), token_path, organisation: server.app().config.org_id.clone() };
    // Before anybody is told that it listens: who hears of it may look for it at once.
    let recorded = path.as_deref().map(|path| local::write(path, &record));
    output::note(&format!("ligand {} is listening at {url}", env!("CARGO_PKG_VERSION")));
    match &record.token_path {
        Some(path) => output::note(&format!("the admin token is in {}", path.display())),
        None if server.app().config.admin_token.reveal().is_empty() => {
            output::note("there is no admin token");
        }
        None => output::note("the admin token is the one in ADMIN_TOKEN"),
    }
    if server.app().config.compat() {
        output::note(
            "warning: --auth compat: callers pass without a credential where the contract lets them; \
             for moving a fleet over, never where strangers reach this server",
        );
    }
    for (name, backend) in server.app().backends.all() {
        match backend.fingerprint().await {
            Ok(what) => output::note(&format!("backend {name}: {what}")),
            Err(error) => output::note(&format!("warning: backend {name}: {}", error.chain())),
        }
    }
    if let Some(Err(error)) = recorded {
        output::note(&format!("warning: client verbs will not find this server: {error:#}"));
    }
    Ok(Some(Recorded { server, url, path }))
}

/// A server that client verbs find.
pub(crate) struct Recorded {
    pub(crate) server: Server,
    pub(crate) url: String,
    path: Option<PathBuf>,
}

impl Recorded {
    /// Stop it. With `instances`, what it runs ends too.
    pub(crate) async fn stop(self, instances: bool) {
        if let Some(path) = &self.path {
            // Another server may have recorded itself meanwhile; that is its business.
            let _ = local::forget(path, &self.url);
        }
        match instances {
            true => self.server.stop_with_instances().await,
            false => self.server.stop().await,
        }
    }
}

/// The wish that we end. It is heard from the moment this is made.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(crate) fn listen() -> CommandResult<Self> {
        let listen =
            |kind| signal(kind).context("listen for signals").map_err(CommandError::internal);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Until somebody ends us.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// `ligand serve …`.
pub(crate) fn serve(args: ServeArgs) -> CommandResult {
    let args = match args.role {
        Role::Platform(args) => args,
        Role::Fleet(args) => return fleet::serve(args),
    };
    args.server.run("info", |config| async {
        let mut stop = Stop::listen()?;
        let Some(recorded) = start(config, &mut stop).await? else { return Ok(()) };
        stop.asked().await;
        output::note("stopping; what is running keeps running");
        recorded.stop(false).await;
        Ok(())
    })
}
