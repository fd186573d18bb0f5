//! `ligand provider serve`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ligand_server::app::Ids;
use ligand_server::backend::Pushes;
use ligand_server::backend::provider::serve;
use ligand_server::config::{self, Config, Flags};
use ligand_server::serve::backend;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::read;
use crate::error::{CommandError, CommandResult};
use crate::output;
use crate::serve::{LogFormat, Stop, misconfigured};

/// Where files are kept, unless said: not where a platform keeps its own.
const DATA_DIR: &str = "./.ligand-provider";

/// Serve a backend of this machine by the protocol of providers, in the foreground
///
/// A platform elsewhere uses it as `[backends.NAME]` of the kind `provider`. Ctrl-C or SIGTERM ends it; what it runs
/// keeps running, and the next start finds it. It speaks no TLS: beyond this machine, put something in front that does.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// What to serve: process, docker, fake, or a name from the settings file
    #[arg(long, value_name = "NAME", default_value = "process")]
    backend: String,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Listen beyond this machine, where something else speaks TLS
    #[arg(long)]
    beyond_loopback: bool,
    /// Holds the token that callers present; minted where there is none [default: <data-dir>/provider-token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the token and the backend's files are kept
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Settings file (TOML), for its [backends.NAME]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to write the log, which goes to standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log: LogFormat,
}

/// `ligand provider serve`.
pub(super) fn serve(args: ServeArgs) -> CommandResult {
    if !args.listen.ip().is_loopback() && !args.beyond_loopback {
        let why = "--listen: expected an address of this machine alone, like 127.0.0.1:0";
        return Err(CommandError::usage(why)
            .hint("credentials come here: with TLS in front, add --beyond-loopback"));
    }
    let flags = Flags {
        backend: Some(args.backend.clone()),
        data_dir: Some(args.data_dir.display().to_string()),
        config: args.config.clone(),
        ..Flags::default()
    };
    let config = config::load(&flags).map_err(misconfigured)?.config;
    args.log.start("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("start the runtime").map_err(CommandError::internal)?;
    runtime.block_on(Box::pin(listen(args, config)))
}

async fn listen(args: ServeArgs, config: Config) -> CommandResult {
    let mut asked = Stop::listen()?;
    let name = &args.backend;
    let Some(of) = config.backends.get(name) else {
        let expected = "expected process, docker, fake, or a [backends.NAME] of the settings file";
        return Err(CommandError::usage(format!("--backend: {expected}")));
    };
    let (path, token) = token(&args)?;
    let (pushes, pushed) = Pushes::channel();
    let unusable = |what: String| CommandError::failed(format!("the backend {name}: {what}"));
    let backend = backend(name, of, &config.data_dir, &pushes);
    let backend = backend.map_err(|cause| unusable(cause.chain()))?;
    let says = backend.fingerprint().await.map_err(|cause| unusable(cause.chain()))?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("listen on {}", args.listen));
    let listener = listener.map_err(|cause| CommandError::failed(format!("{cause:#}")))?;
    let address = listener.local_addr().context("listen").map_err(CommandError::internal)?;
    if let Err(cause) = backend.recover().await {
        output::note(&format!("warning: what ran before was not taken up: {}", cause.chain()));
    }
    output::note(&format!("the backend {name} ({says}) is served at http://{address}"));
    output::note(&format!("the token is in {}", path.display()));
    let stop = CancellationToken::new();
    let serving = serve::serve(listener, backend, pushed, &token, stop.clone());
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = asked.asked() => {
            stop.cancel();
            serving.await
        }
    };
    served.context("serve").map_err(|cause| CommandError::failed(format!("{cause:#}")))
}

/// The token that callers present, and the file that it is in.
fn token(args: &ServeArgs) -> CommandResult<(PathBuf, String)> {
    let path = args.token_file.clone().unwrap_or_else(|| args.data_dir.join("provider-token"));
    if path.exists() {
        let token = read(&path)?;
        return Ok((path, token));
    }
    let minted = mint(&path).with_context(|| format!("write {}", path.display()));
    let token = minted.map_err(|cause| CommandError::failed(format!("{cause:#}")))?;
    Ok((path, token))
}

fn mint(path: &Path) -> anyhow::Result<String> {
    let token = Ids::from_os()?.token();
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    // Somebody else may mint at the same time: the file that is there is not written over.
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    writeln!(file, "{}", token.reveal())?;
    file.sync_all()?;
    Ok(token.reveal().to_owned())
}
