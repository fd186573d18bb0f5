//! Building, running and stopping a server.

mod backends;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

pub use self::backends::{backend, backends};
use crate::app::{App, Clock, Ground, Ids, Names};
use crate::backend::{Backends, Push, Pushes};
use crate::briefings::BriefingReconciler;
use crate::config::{Config, Secret};
use crate::credentials::RotationReconciler;
use crate::db::{DatabaseUrl, Db, OpenError};
use crate::files::FileRestarts;
use crate::liveness::BrakeReconciler;
use crate::liveness::orphans::Orphans;
use crate::liveness::sweeps::{LapsedCredentials, PhantomBusy, Retention, StaleCredentials};
use crate::messages::{self, DeliveryReconciler, MessageRetention};
use crate::migrations::{self, DrainReconciler, MigrationReconciler, SnapshotSweep};
use crate::reconcile::{Reconciler, drive};
use crate::replicas;
use crate::routes;
use crate::secrets;
use crate::workspaces::{self, HibernationMonitor, WorkspaceReconciler};

/// How long a graceful stop waits for what is going on.
const DRAIN: Duration = Duration::from_secs(30);
/// Longest wait for a connection to an agent.
const CONNECT: Duration = Duration::from_secs(10);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another server has the SQLite file.
    #[error("the database {path} is in use by another server ({holder})")]
    InUse {
        /// Which.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something of the machine that every server needs.
    #[error("cannot set up {what}")]
    Machine {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}

impl StartError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DataDir { .. } => {
                "name a directory that this user may write with --data-dir (LIGAND_DATA_DIR)"
            }
            Self::InUse { .. } => {
                "stop the other server, give this one its own --data-dir, or use PostgreSQL for several"
            }
            Self::Database(OpenError::Newer { .. }) => {
                "use the binary that wrote it or a newer one; this one changed nothing"
            }
            Self::Database(_) => {
                "check --database-url (DATABASE_URL) and that the database is running"
            }
            Self::Listen { .. } => {
                "stop what uses that port, or choose another with --listen (LIGAND_LISTEN); port 0 takes a free one"
            }
            Self::Machine { .. } => "run `ligand doctor`",
        }
    }
}

/// Every reconciler. Taken apart exhaustively in [`Reconcilers::drive`], so that none can be forgotten.
struct Reconcilers {
    workspaces: WorkspaceReconciler,
    file_restarts: FileRestarts,
    rotation: RotationReconciler,
    briefings: BriefingReconciler,
    brake: BrakeReconciler,
    stale_credentials: StaleCredentials,
    lapsed_credentials: LapsedCredentials,
    phantom_busy: PhantomBusy,
    orphans: Orphans,
    retention: Retention,
    hibernation: HibernationMonitor,
    deliveries: DeliveryReconciler,
    message_retention: MessageRetention,
    migrations: MigrationReconciler,
    drains: DrainReconciler,
    snapshots: SnapshotSweep,
}

impl Reconcilers {
    fn new(app: &App) -> Self {
        Self {
            workspaces: WorkspaceReconciler,
            file_restarts: FileRestarts,
            rotation: RotationReconciler::default(),
            briefings: BriefingReconciler,
            brake: BrakeReconciler,
            stale_credentials: StaleCredentials,
            lapsed_credentials: LapsedCredentials,
            phantom_busy: PhantomBusy,
            orphans: Orphans::default(),
            retention: Retention::new(app),
            hibernation: HibernationMonitor,
            deliveries: DeliveryReconciler,
            message_retention: MessageRetention,
            migrations: MigrationReconciler,
            drains: DrainReconciler,
            snapshots: SnapshotSweep,
        }
    }

    fn drive(self, app: &App) {
        let Self {
            workspaces,
            file_restarts,
            rotation,
            briefings,
            brake,
            stale_credentials,
            lapsed_credentials,
            phantom_busy,
            orphans,
            retention,
            hibernation,
            deliveries,
            message_retention,
            migrations,
            drains,
            snapshots,
        } = self;
        let all: [Arc<dyn Reconciler>; 16] = [
            Arc::new(workspaces),
            Arc::new(file_restarts),
            Arc::new(rotation),
            Arc::new(briefings),
            Arc::new(brake),
            Arc::new(stale_credentials),
            Arc::new(lapsed_credentials),
            Arc::new(phantom_busy),
            Arc::new(orphans),
            Arc::new(retention),
            Arc::new(hibernation),
            Arc::new(deliveries),
            Arc::new(message_retention),
            Arc::new(migrations),
            Arc::new(drains),
            Arc::new(snapshots),
        ];
        for reconciler in all {
            drive(app, reconciler);
        }
    }
}

/// A running server.
pub struct Server {
    app: App,
    address: SocketAddr,
    admin_token_path: Option<PathBuf>,
    _lock: Option<File>,
}

/// Start a server: it listens when this returns.
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
    let db = Db::open(&config.database_url).await?;
    let ids = Ids::from_os()
        .map_err(|source| StartError::Machine { what: "randomness", source: source.into() })?;
    let admin_token_path = admin_token(&mut config, &ids)?;
    config.platform_url.get_or_insert_with(|| format!("http://{}", reachable(address)));
    let (pushes, pushed) = Pushes::channel();
    let backends = backends(&config, &pushes)?;
    let app = assemble(config, db, ids, backends)?;
    recover(&app).await;
    secrets::warn_of_plain(&app).await;
    Reconcilers::new(&app).drive(&app);
    hear(&app, pushed);
    replicas::join(&app);
    let (router, stop) = (routes::router(app.clone()), app.stop.clone());
    // What is small goes out at once: streams consist of such.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    app.spawn(async move {
        let serving =
            axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
                .with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(cause) = serving.await {
            tracing::error!(error = %cause, "the server stopped listening");
        }
    });
    if app.config.compat() {
        tracing::warn!(
            %address,
            admin_token = !app.config.admin_token.reveal().is_empty(),
            "--auth compat: callers pass without a credential where the contract lets them"
        );
    }
    tracing::info!(%address, database = app.db.engine(), "listening");
    Ok(Server { app, address, admin_token_path, _lock: lock })
}

fn assemble(config: Config, db: Db, ids: Ids, backends: Backends) -> Result<App, StartError> {
    let no_client = |source| StartError::Machine { what: "the HTTP client", source };
    let http = ligand_api::http::builder().map_err(|cause| no_client(cause.into()))?;
    // Agents are called where they say they are, never through a proxy of this machine's environment.
    let http = http.connect_timeout(CONNECT).no_proxy().build();
    let http = http.map_err(|cause| no_client(cause.into()))?;
    let clock = Clock::System;
    Ok(App::new(Ground { db, clock, ids, names: Names::System, backends, config, http }))
}

/// Where an address that means "all of them" can be reached from this machine.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::from(([127, 0, 0, 1], v4.port()))
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::from(([127, 0, 0, 1], v6.port()))
        }
        other => other,
    }
}

/// Make the directory where a server keeps its files.
///
/// # Errors
/// [`StartError::DataDir`].
pub fn data_dir(path: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::DataDir { path: path.to_owned(), source })
}

/// SQLite serves one server. The lock is the kernel's, so a crash never leaves one behind.
///
/// # Errors
/// [`StartError::InUse`] names the server that has it.
pub fn lock(database: &Path) -> Result<File, StartError> {
    let path = database.with_extension("lock");
    let failed = |source| StartError::DataDir { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(StartError::InUse {
                path: database.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let holder = format!("process {}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).map_err(failed)?;
    Ok(file)
}

/// Read the administrator's token, or mint one on first start. Gives the file, unless it was set outright.
fn admin_token(config: &mut Config, ids: &Ids) -> Result<Option<PathBuf>, StartError> {
    // The contract's open doors are those of a platform without such a token.
    if config.compat() || !config.admin_token.reveal().is_empty() {
        return Ok(None);
    }
    let path = config.data_dir.join("admin-token");
    let failed = |source| StartError::DataDir { path: path.clone(), source };
    let text = match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) => mint(&path, ids).map_err(failed)?,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            mint(&path, ids).map_err(failed)?
        }
        Err(cause) => return Err(failed(cause)),
    };
    config.admin_token = Secret::new(text);
    Ok(Some(path))
}

fn mint(path: &Path, ids: &Ids) -> std::io::Result<String> {
    let text = keep_new(path, ids)?;
    tracing::info!(path = %path.display(), "an administrator's token was minted");
    Ok(text)
}

/// Mint a secret into a file that this user alone can read: whole, or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn keep_new(path: &Path, ids: &Ids) -> std::io::Result<String> {
    let token = ids.token();
    let draft = path.with_extension("draft");
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(token.reveal().as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(token.reveal().to_owned())
}

/// Take up again what an earlier server started. What cannot be is found by its lease.
async fn recover(app: &App) {
    if let Err(cause) = take_over(app).await {
        tracing::warn!(error = %cause, "claims of an earlier server stay until they end by themselves");
    }
    for (name, backend) in app.backends.all() {
        if let Err(cause) = backend.recover().await {
            tracing::warn!(
                backend = name,
                error = cause.chain(),
                "instances of an earlier server could not be taken up"
            );
        }
    }
}

/// Whoever holds the lock of a SQLite file is alone with it: claims in there are those of a server that died.
async fn take_over(app: &App) -> Result<(), sqlx::Error> {
    if let Db::Sqlite { .. } = app.db {
        let mut tx = app.db.begin().await?;
        workspaces::release_all(&mut tx, app.clock.now()).await?;
        messages::release_all(&mut tx, app.clock.now()).await?;
        migrations::release_all(&mut tx, app.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Make workspaces due when their backend has something to say.
fn hear(app: &App, mut pushed: UnboundedReceiver<Push>) {
    let hearing = app.clone();
    app.spawn(async move {
        let app = hearing;
        loop {
            let push = tokio::select! {
                () = app.stop.cancelled() => return,
                push = pushed.recv() => push,
            };
            let Some(push) = push else { return };
            if let Err(cause) = workspaces::heed(&app, push).await {
                tracing::warn!(error = %cause, "a push was lost; the lease will tell");
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

    /// Where the administrator's token is, unless it was set outright.
    #[must_use]
    pub fn admin_token_path(&self) -> Option<&Path> {
        self.admin_token_path.as_deref()
    }

    /// Its shared parts.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Stop: no new calls, what is going on ends or is given up after 30 s. Instances keep running; the
    /// next server finds them.
    pub async fn stop(self) {
        self.drain().await;
        self.app.db.close().await;
    }

    /// Stop, and end every instance of this server's backends too. Their workspaces are meant to run all
    /// the same: the next server starts them again.
    pub async fn stop_with_instances(self) {
        self.app.stop.cancel();
        // Turns end with their agents; a start that was under way has happened once everything is drained.
        self.end_instances().await;
        self.drain().await;
        self.end_instances().await;
        self.app.db.close().await;
    }

    async fn drain(&self) {
        self.app.stop.cancel();
        self.app.tasks.close();
        if tokio::time::timeout(DRAIN, self.app.tasks.wait()).await.is_err() {
            tracing::warn!("stopped with work still going on");
        }
    }

    async fn end_instances(&self) {
        for (name, backend) in self.app.backends.all() {
            // Before it is done, so that whoever finds them ended knows why.
            if let Err(cause) = workspaces::dismiss(&self.app, name).await {
                tracing::warn!(error = %cause, "the ends of instances will be counted as failures");
            }
            let owned = backend.list_owned().await.unwrap_or_default();
            let grace = self.app.config.stop_grace;
            let stops = owned.into_iter().map(|key| backend.stop(key, grace));
            for stopped in futures_util::future::join_all(stops).await {
                if let Err(cause) = stopped {
                    tracing::warn!(
                        backend = name,
                        error = cause.chain(),
                        "an instance could not be ended"
                    );
                }
            }
        }
    }
}
