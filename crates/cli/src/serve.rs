//! `ligand serve`: a server, in the foreground; and what `ligand up` shares with it.

use std::future::Future;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use ligand_server::config::{self, Config, ConfigError, Flags};
use ligand_server::serve::{self, Server, StartError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::env::{self, Env};
use crate::error::{CommandError, CommandResult, Kind};
use crate::local::{self, Local};
use crate::output;
use crate::target;

/// Run a server
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    Platform(PlatformArgs),
}

/// Run the control plane of one organisation
#[derive(Args)]
struct PlatformArgs {
    #[command(flatten)]
    server: ServerArgs,
}

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
    /// Where files are kept [env: LIGAND_DATA_DIR] [default: ./.ligand]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What runs workspaces that name no backend: process, fake, none, or a name from the settings file
    /// [env: LIGAND_BACKEND] [default: process]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let unknown ids create themselves by registering
    #[arg(long)]
    open_registration: bool,
    /// How to write the log; LIGAND_LOG says how much (error, warn, info, debug)
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
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
        }
    }

    /// Settings, log and a runtime; then `body`.
    pub(crate) fn run<F>(&self, quiet: &str, body: impl FnOnce(Config) -> F) -> CommandResult
    where
        F: Future<Output = CommandResult>,
    {
        let mut config = config::load(&self.flags()).map_err(misconfigured)?.config;
        if config.agent.is_empty() {
            config.agent = beside()?;
        }
        self.start_log(quiet);
        target::install_tls();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("start the runtime").map_err(CommandError::internal)?;
        runtime.block_on(Box::pin(body(config)))
    }

    fn start_log(&self, quiet: &str) {
        let said = env::var("LIGAND_LOG").unwrap_or_else(|| quiet.to_owned());
        let filter = EnvFilter::try_new(&said).unwrap_or_else(|_| {
            output::note("warning: LIGAND_LOG is not understood; writing warnings");
            EnvFilter::new("warn")
        });
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let log = log.with_ansi(std::io::stderr().is_terminal());
        match self.log {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().init(),
        }
    }
}

pub(crate) fn misconfigured(error: ConfigError) -> CommandError {
    CommandError::new(Kind::Usage, error.into())
        .hint("`ligand config show` says where each setting comes from")
}

fn refused(error: StartError) -> CommandError {
    let hint = error.hint();
    CommandError::new(Kind::Failed, error.into()).hint(hint)
}

/// The program that runs beside an agent: this one.
fn beside() -> CommandResult<Vec<String>> {
    let own = std::env::current_exe().context("find this program's own file");
    let own = own.map_err(CommandError::internal)?;
    Ok(vec![own.display().to_string(), "agent".to_owned()])
}

/// Start a server, and record where it is, that client verbs on this machine find it.
pub(crate) async fn start(config: Config) -> CommandResult<Recorded> {
    let server = serve::start(config).await.map_err(refused)?;
    let url = format!("http://{}", server.address());
    let token_path = server
        .admin_token_path()
        .map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    let path = Env::capture().state_dir.map(|dir| local::path(&dir));
    output::note(&format!("ligand {} is listening at {url}", env!("CARGO_PKG_VERSION")));
    match &token_path {
        Some(path) => output::note(&format!("the admin token is in {}", path.display())),
        None => output::note("the admin token is the one in ADMIN_TOKEN"),
    }
    if let Some(path) = &path {
        let record = Local { server: url.clone(), token_path };
        if let Err(error) = local::write(path, &record) {
            output::note(&format!("warning: client verbs will not find this server: {error:#}"));
        }
    }
    Ok(Recorded { server, url, path })
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

/// Until somebody ends us.
pub(crate) async fn asked_to_stop() -> CommandResult {
    let listen = |kind| signal(kind).context("listen for signals").map_err(CommandError::internal);
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `ligand serve …`.
pub(crate) fn serve(args: ServeArgs) -> CommandResult {
    let Role::Platform(args) = args.role;
    args.server.run("info", |config| async {
        let recorded = start(config).await?;
        asked_to_stop().await?;
        output::note("stopping; what is running keeps running");
        recorded.stop(false).await;
        Ok(())
    })
}
