//! `ligand serve fleet`: the control plane over many platforms, in the foreground.

use std::path::PathBuf;

use clap::Args;
use ligand_fleet::config::{self, Config, Flags};
use ligand_fleet::serve::{self, Server};

use crate::error::CommandResult;
use crate::output;
use crate::serve::{LogFormat, Stop, beside, foreground, misconfigured, refused};

/// Run the control plane over many platforms and provider accounts, in the foreground
///
/// Ctrl-C or SIGTERM ends the fleet. What it runs keeps running, and the next start finds it.
#[derive(Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct FleetArgs {
    #[command(flatten)]
    settings: Settings,
}

const ENVIRONMENT: &str = "\
Environment without a flag:
  CP_ADMIN_API_TOKEN         token of the operator (default: minted at the first start, and kept in
                             <data-dir>/fleet-admin-token)
  MOLECULE_CP_SHARED_SECRET  what platforms provision with; also PROVISION_SHARED_SECRET
                             (default: minted into <data-dir>/fleet-shared-secret)
  SECRETS_ENCRYPTION_KEY     what tokens and environments are encrypted with
                             (default: minted into <data-dir>/fleet-key)
  LIGAND_LOG                 how much to log: error, warn, info, debug (default: info)";

/// Settings of a fleet that have a flag.
#[derive(Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// Where to listen; port 0 takes a free one [env: LIGAND_LISTEN, PORT] [default: 127.0.0.1:9090]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// sqlite:PATH or postgres://…, never that of a platform [env: DATABASE_URL]
    /// [default: sqlite:<data-dir>/fleet.db]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Where database, tokens and instances are kept [env: LIGAND_DATA_DIR] [default: ./.ligand]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What runs instances of callers that name no provider: process, docker, fake, or a name from the settings file
    /// [env: LIGAND_PROVIDER] [default: process]
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to write the log, which goes to standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log: LogFormat,
}

/// `ligand serve fleet`.
pub(crate) fn serve(args: FleetArgs) -> CommandResult {
    let Settings { listen, database_url, data_dir, provider, config, log } = args.settings;
    let flags = Flags { listen, database_url, data_dir, provider, config };
    let mut config = config::load(&flags).map_err(misconfigured)?.config;
    if config.agent.is_empty() {
        config.agent = beside()?;
    }
    #[cfg(feature = "mutants")]
    crate::mutant::of_agents(&mut config.agent);
    log.start("info");
    foreground(run(config))
}

async fn run(config: Config) -> CommandResult {
    let mut stop = Stop::listen()?;
    let server = tokio::select! {
        server = serve::start(config) => server.map_err(refused)?,
        () = stop.asked() => return Ok(()),
    };
    announce(&server).await;
    stop.asked().await;
    output::note("stopping; what is running keeps running");
    server.stop().await;
    Ok(())
}

/// A fleet beside a platform of `ligand up`: on a free port of this machine, in the same data directory. The platform can
/// do without it, so whatever hinders it is told, and no more.
pub(crate) async fn beside_platform(platform: &ligand_server::config::Config) -> Option<Server> {
    match start_beside(platform).await {
        Ok(server) => {
            output::note(&format!("its fleet is listening at http://{}", server.address()));
            Some(server)
        }
        Err(cause) => {
            output::note(&format!("warning: there is no fleet: {cause:#}"));
            None
        }
    }
}

async fn start_beside(platform: &ligand_server::config::Config) -> anyhow::Result<Server> {
    let dir = platform.data_dir.display();
    let flags = Flags {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(dir.to_string()),
        // Whatever the environment says of a database is meant for the platform.
        database_url: Some(format!("sqlite:{dir}/fleet.db")),
        ..Flags::default()
    };
    let mut config = config::load(&flags)?.config;
    config.agent.clone_from(&platform.agent);
    Ok(serve::start(config).await?)
}

/// Say where it is, where its secrets are, and what its providers say.
async fn announce(server: &Server) {
    let version = env!("CARGO_PKG_VERSION");
    output::note(&format!("ligand fleet {version} is listening at http://{}", server.address()));
    let secrets = [
        ("the operator's token", server.admin_token_path(), "CP_ADMIN_API_TOKEN"),
        ("the shared secret", server.shared_secret_path(), "MOLECULE_CP_SHARED_SECRET"),
    ];
    for (what, path, variable) in secrets {
        match path {
            Some(path) => output::note(&format!("{what} is in {}", path.display())),
            None => output::note(&format!("{what} is the one in {variable}")),
        }
    }
    for (name, provider) in server.fleet().providers.all() {
        match provider.fingerprint().await {
            Ok(what) => output::note(&format!("provider {name}: {what}")),
            Err(cause) => output::note(&format!("warning: provider {name}: {}", cause.chain())),
        }
    }
}
