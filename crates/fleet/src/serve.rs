//! Building, running and stopping a fleet.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use ligand_domain::secrets::Key;
use ligand_server::app::{Clock, Ids};
use ligand_server::backend::{Backends, Push, Pushes};
use ligand_server::config as platform;
use ligand_server::config::Secret;
use ligand_server::db::{DatabaseUrl, Db, Schema};
pub use ligand_server::serve::StartError;
use ligand_server::serve::{backends, data_dir, keep_new, lock, reachable};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::{Fleet, Ground};
use crate::config::Config;
use crate::drive::drive;
use crate::garbage::GarbageReconciler;
use crate::instances::{self, InstanceReconciler};
use crate::notices::NoticeReconciler;
use crate::routes;
use crate::transfers::TransferReconciler;

/// How long a graceful stop waits for what is going on.
const DRAIN: Duration = Duration::from_secs(30);
/// Longest wait for a connection to a platform.
const CONNECT: Duration = Duration::from_secs(10);
/// The operator's token.
const ADMIN_TOKEN: &str = "fleet-admin-token";
/// What platforms provision with.
const SHARED_SECRET: &str = "fleet-shared-secret";
/// What tokens and environments are encrypted with.
const KEY: &str = "fleet-key";

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("../../schema/fleet/sqlite");
static POSTGRES: sqlx::migrate::Migrator = sqlx::migrate!("../../schema/fleet/postgres");

/// The fleet's own schema. Its database is never that of a platform.
pub const SCHEMA: Schema = Schema { sqlite: &SQLITE, postgres: &POSTGRES };

/// A running fleet.
pub struct Server {
    fleet: Fleet,
    address: SocketAddr,
    admin_token: Option<PathBuf>,
    shared_secret: Option<PathBuf>,
    _lock: Option<File>,
}

/// Start a fleet: it listens when this returns.
///
/// # Errors
/// [`StartError`]; then nothing is left running or half-written.
pub async fn start(mut config: Config) -> Result<Server, StartError> {
    data_dir(&config.data_dir)?;
    let lock = match &config.database_url {
        DatabaseUrl::Sqlite(path) => Some(lock(path)?),
        DatabaseUrl::Postgres(_) | DatabaseUrl::Memory => None,
    };
    let listen = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let db = Db::open_with(&config.database_url, &SCHEMA).await?;
    let ids = Ids::from_os()
        .map_err(|source| StartError::Machine { what: "randomness", source: source.into() })?;
    let admin_token = kept(&config.data_dir, ADMIN_TOKEN, &ids, &mut config.admin_token)?;
    let shared_secret = kept(&config.data_dir, SHARED_SECRET, &ids, &mut config.shared_secret)?;
    key(&mut config, &ids)?;
    let (pushes, pushed) = Pushes::channel();
    let providers = providers(&config, &pushes)?;
    let http = client()?;
    let fleet = Fleet::new(Ground { db, clock: Clock::System, ids, providers, config, http });
    recover(&fleet).await;
    run(&fleet, pushed);
    let (router, stop) = (routes::router(fleet.clone()), fleet.stop.clone());
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    fleet.spawn(async move {
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(cause) = serving.await {
            tracing::error!(error = %cause, "the fleet stopped listening");
        }
    });
    tracing::info!(%address, database = fleet.db.engine(), "the fleet is listening");
    Ok(Server { fleet, address, admin_token, shared_secret, _lock: lock })
}

/// A client that calls platforms.
///
/// # Errors
/// When there is no TLS.
pub fn client() -> Result<reqwest::Client, StartError> {
    let none = |source| StartError::Machine { what: "the HTTP client", source };
    let http = ligand_api::http::builder().map_err(|cause| none(cause.into()))?;
    let http = http.connect_timeout(CONNECT).no_proxy().build();
    http.map_err(|cause| none(cause.into()))
}

/// Providers are what backends are to a platform, in a folder of their own: a platform with the same data directory
/// would take ours for its own.
fn providers(config: &Config, pushes: &Pushes) -> Result<Backends, StartError> {
    let plain =
        platform::resolve(&platform::Flags::default(), &|_| None, None, platform::File::default());
    let plain =
        plain.map_err(|cause| StartError::Machine { what: "settings", source: cause.into() })?;
    let ours = platform::Config {
        data_dir: config.data_dir.join("fleet"),
        backends: config.providers.clone(),
        agent: config.agent.clone(),
        ..plain.config
    };
    backends(&ours, pushes)
}

/// A secret that was set outright, or is in its file, or is minted into it. Gives the file.
fn kept(
    dir: &Path,
    name: &str,
    ids: &Ids,
    secret: &mut Secret,
) -> Result<Option<PathBuf>, StartError> {
    if !secret.reveal().is_empty() {
        return Ok(None);
    }
    let path = dir.join(name);
    let failed = |source| StartError::DataDir { path: path.clone(), source };
    let text = match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) => keep_new(&path, ids).map_err(failed)?,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            keep_new(&path, ids).map_err(failed)?
        }
        Err(cause) => return Err(failed(cause)),
    };
    *secret = Secret::new(text);
    Ok(Some(path))
}

/// A fleet holds tokens of others: it never keeps them in plain text.
fn key(config: &mut Config, ids: &Ids) -> Result<(), StartError> {
    if config.keys.current.is_some() {
        return Ok(());
    }
    let mut secret = Secret::new(String::new());
    let path = kept(&config.data_dir, KEY, ids, &mut secret)?;
    let key = Key::parse(secret.reveal());
    let malformed = || std::io::Error::other("expected base64 of 32 bytes");
    let path = path.unwrap_or_else(|| config.data_dir.join(KEY));
    config.keys.current =
        Some(key.ok_or_else(|| StartError::DataDir { path, source: malformed() })?);
    Ok(())
}

/// Take up again what an earlier server started.
async fn recover(fleet: &Fleet) {
    if let Db::Sqlite { .. } = fleet.db
        && let Err(cause) = take_over(fleet).await
    {
        tracing::warn!(error = %cause, "claims of an earlier server stay until they end by themselves");
    }
    for (provider, backend) in fleet.providers.all() {
        if let Err(cause) = backend.recover().await {
            let error = cause.chain();
            tracing::warn!(provider, error, "instances of an earlier server could not be taken up");
        }
    }
}

async fn take_over(fleet: &Fleet) -> Result<(), sqlx::Error> {
    let mut tx = fleet.db.begin().await?;
    instances::release_all(&mut tx).await?;
    tx.commit().await
}

/// Every reconciler, and what providers push.
fn run(fleet: &Fleet, mut pushed: UnboundedReceiver<Push>) {
    drive(fleet, Arc::new(InstanceReconciler));
    drive(fleet, Arc::new(GarbageReconciler));
    drive(fleet, Arc::new(NoticeReconciler));
    drive(fleet, Arc::new(TransferReconciler));
    let hearing = fleet.clone();
    fleet.spawn(async move {
        let fleet = hearing;
        loop {
            let push = tokio::select! {
                () = fleet.stop.cancelled() => return,
                push = pushed.recv() => push,
            };
            let Some(push) = push else { return };
            if let Err(cause) = instances::heed(&fleet, push).await {
                tracing::warn!(error = %cause, "a push was lost; the next look will tell");
            }
        }
    });
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        reachable(self.address)
    }

    /// Where the operator's token is, unless it was set outright.
    #[must_use]
    pub fn admin_token_path(&self) -> Option<&Path> {
        self.admin_token.as_deref()
    }

    /// Where the secret is that platforms provision with, unless it was set outright.
    #[must_use]
    pub fn shared_secret_path(&self) -> Option<&Path> {
        self.shared_secret.as_deref()
    }

    /// Its shared parts.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Stop: no new calls, what is going on ends or is given up after 30 s. Instances keep running; the next fleet
    /// finds them.
    pub async fn stop(self) {
        self.drain().await;
        self.fleet.db.close().await;
    }

    /// Stop, and stop every instance too. What they are meant to do stays: the next fleet starts those that it
    /// replaces, and says of the others that they ended.
    pub async fn stop_with_instances(self) {
        self.drain().await;
        for (provider, backend) in self.fleet.providers.all() {
            let grace = self.fleet.config.stop_grace;
            let owned = backend.list_owned().await.unwrap_or_default();
            let stops = owned.into_iter().map(|key| backend.stop(key, grace));
            for stopped in futures_util::future::join_all(stops).await {
                if let Err(cause) = stopped {
                    let error = cause.chain();
                    tracing::warn!(provider, error, "an instance could not be ended");
                }
            }
        }
        self.fleet.db.close().await;
    }

    async fn drain(&self) {
        self.fleet.stop.cancel();
        self.fleet.tasks.close();
        if tokio::time::timeout(DRAIN, self.fleet.tasks.wait()).await.is_err() {
            tracing::warn!("stopped with work still going on");
        }
    }
}
