//! Where a measurement takes place: a scratch directory, scratch schemas, and servers on them.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::process::Process;
use super::store::Schema;

/// See the module. It lives on one thread.
pub(super) struct Site {
    dir: PathBuf,
    postgres: Option<String>,
    schemas: RefCell<Vec<Schema>>,
    next: Cell<u32>,
}

/// Data that servers are started on, and their administrator's token.
pub(super) struct Place {
    dir: PathBuf,
    database_url: Option<String>,
    admin: RefCell<Option<String>>,
}

impl Site {
    /// A new directory below that for temporary files.
    pub(super) fn new(postgres: Option<String>) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("ligand-scaletest-{}", std::process::id()));
        make(&dir)?;
        Ok(Self { dir, postgres, schemas: RefCell::default(), next: Cell::new(1) })
    }

    /// The PostgreSQL database that may be used.
    pub(super) fn postgres(&self) -> Option<&str> {
        self.postgres.as_deref()
    }

    /// Room for servers on SQLite.
    pub(super) fn on_sqlite(&self) -> Result<Place> {
        let dir = self.dir.join(self.number().to_string());
        make(&dir)?;
        Ok(Place { dir, database_url: None, admin: RefCell::default() })
    }

    /// Room for servers on a schema of their own.
    pub(super) async fn on_postgres(&self, server: &str) -> Result<Place> {
        let place = self.on_sqlite()?;
        Ok(Place { database_url: Some(self.schema(server).await?), ..place })
    }

    /// The address of a schema of its own.
    pub(super) async fn schema(&self, server: &str) -> Result<String> {
        let name = format!("ligand_scaletest_{}_{}", std::process::id(), self.number());
        let schema = Schema::create(server, name).await?;
        let url = schema.url();
        self.schemas.borrow_mut().push(schema);
        Ok(url)
    }

    /// A file for a database that no server of its own has.
    pub(super) fn database(&self) -> PathBuf {
        self.dir.join(format!("{}.db", self.number()))
    }

    /// A program of ours that is no platform.
    pub(super) async fn process(&self, args: &[&str]) -> Result<Process> {
        let log = self.dir.join(format!("{}.log", self.number()));
        Process::start(args, &[], &log).await
    }

    fn number(&self) -> u32 {
        self.next.replace(self.next.get() + 1)
    }

    /// Removes everything, whatever has happened. Servers must have ended.
    pub(super) async fn clear(&self) -> Result<()> {
        let mut cleared = Ok(());
        for schema in self.schemas.take() {
            cleared = cleared.and(schema.remove().await);
        }
        let removed = fs::remove_dir_all(&self.dir);
        cleared.and(removed.with_context(|| format!("remove {}", self.dir.display())))
    }
}

impl Place {
    /// Starts a server, or starts it again: those of one name have one data directory. Without an address it
    /// takes a free port of loopback.
    pub(super) async fn start(&self, name: &str, at: Option<SocketAddr>) -> Result<Process> {
        self.run(name, at, &["--backend", "none", "--open-registration"]).await
    }

    /// Starts a server that runs its instances as processes, below the directory that this gives too. Who asks for
    /// it ends them.
    pub(super) async fn start_with_instances(&self, name: &str) -> Result<(Process, PathBuf)> {
        let server = self.run(name, None, &["--backend", "process"]).await?;
        Ok((server, self.dir.join(name).join("process")))
    }

    /// Starts a server that runs its instances as containers of this engine. Who asks for it deletes them.
    pub(super) async fn start_with_containers(&self, name: &str, socket: &str) -> Result<Process> {
        let owner = format!("scaletest-{}", std::process::id());
        let settings = format!(
            "backend = \"box\"\n[backends.box]\nkind = \"docker\"\nnetwork = \"host\"\nsocket = {socket:?}\nowner = {owner:?}\n"
        );
        Ok(self.start_with_settings(name, &settings).await?.0)
    }

    /// Starts a server with these settings. Gives its data directory too, below which its backends of processes keep
    /// their instances. Who asks for it ends them.
    pub(super) async fn start_with_settings(
        &self,
        name: &str,
        settings: &str,
    ) -> Result<(Process, PathBuf)> {
        let file = self.dir.join(format!("{name}.toml"));
        fs::write(&file, settings).context("write settings")?;
        let server = self.run(name, None, &["--config", &file.display().to_string()]).await?;
        Ok((server, self.dir.join(name)))
    }

    async fn run(&self, name: &str, at: Option<SocketAddr>, flags: &[&str]) -> Result<Process> {
        let data = self.dir.join(name);
        let listen = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))).to_string();
        let data_text = data.display().to_string();
        let mut args = [&["serve", "platform"], flags].concat();
        args.extend(["--listen", &listen, "--data-dir", &data_text]);
        if let Some(url) = &self.database_url {
            args.extend(["--database-url", url]);
        }
        let home = self.dir.display().to_string();
        let admin = self.admin.borrow().clone();
        let mut vars = vec![("HOME", home.as_str()), ("LIGAND_LOG", "error")];
        // All agents call from one address.
        vars.push(("RATE_LIMIT", "1000000000"));
        if let Some(admin) = &admin {
            vars.push(("ADMIN_TOKEN", admin));
        }
        let log = self.dir.join(format!("{name}.log"));
        let process = Process::start(&args, &vars, &log).await?;
        if admin.is_none() {
            let token = fs::read_to_string(data.join("admin-token")).context("read its token")?;
            self.admin.replace(Some(token.trim().to_owned()));
        }
        Ok(process)
    }

    /// The administrator's token of its servers; there is one once a server was started.
    pub(super) fn admin(&self) -> String {
        self.admin.borrow().clone().unwrap_or_default()
    }
}

fn make(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(dir);
    made.with_context(|| format!("make {}", dir.display()))
}
