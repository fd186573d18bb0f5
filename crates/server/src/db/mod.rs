//! One SQL text on two engines.
//!
//! A query is written once, with `$1` placeholders, and run by whichever engine the transaction is on:
//!
//! ```ignore
//! on!(tx, c => sqlx::query("DELETE FROM notes WHERE id = $1").bind(id).execute(c).await)
//! ```
//!
//! What both engines understand is what may be used: no engine functions for time or randomness, no
//! upserts with engine syntax, booleans and `CASE` as the standard has them. SQLite has one writer, so no
//! call over a network may happen inside a transaction.

mod claims;
pub mod group;
mod hints;
pub mod list;
mod passing;
mod schema;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

pub(crate) use self::claims::{Claims, claims};
pub use self::hints::{Ear, Heard, Hint, Hints};
pub use self::passing::Lines;
pub use self::schema::Schema;

/// Connections of one server to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 25;
/// Connections beside them, for renewals: as many as there are batches at once.
const POSTGRES_RENEWALS: u32 = 2;
/// What a renewal does not wait for, and how it is planned: looked up by keys, with a plan that is made once.
/// A planner that sees hundreds of parameters takes longer than the lookups, and one whose statistics lag
/// behind a growing fleet would read whole tables.
const RENEWING: [(&str, &str); 6] = [
    ("synchronous_commit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// Readers beside the one writer of SQLite.
const SQLITE_READERS: u32 = 4;
/// What a random read costs, for PostgreSQL's planner: memory and flash, not spinning disks.
const RANDOM_READ: [(&str, &str); 1] = [("random_page_cost", "1.1")];
/// Pages that SQLite's log takes before they are copied into the file (40 MiB). Leases are renewed all over
/// the file, and a page that was renewed ten times is copied once.
const SQLITE_LOG_PAGES: &str = "10000";
/// What SQLite's writer may keep in memory, in KiB.
const SQLITE_WRITER_CACHE: &str = "-32768";
/// A connection that was not used for this long is asked whether it is still there.
const RESTED: Duration = Duration::from_secs(1);
/// How long a caller waits for a connection, and a SQLite writer for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `postgres://…`
    Postgres(String),
    /// `sqlite:PATH`
    Sqlite(PathBuf),
    /// `sqlite::memory:`, for tests and simulation: gone with the server.
    Memory,
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:") {
            Some(":memory:") => Ok(Self::Memory),
            Some(path) if !path.trim_start_matches("//").is_empty() => {
                Ok(Self::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path))))
            }
            _ => Err("expected sqlite:PATH or postgres://USER@HOST/DATABASE".to_owned()),
        }
    }
}

impl std::fmt::Display for DatabaseUrl {
    /// Without the password that a PostgreSQL URL may carry.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres(url) => match (url.find("://"), url.rfind('@')) {
                (Some(scheme), Some(at)) if scheme < at => {
                    let user = url[scheme + 3..at].split(':').next().unwrap_or_default();
                    write!(f, "{}://{user}{}", &url[..scheme], &url[at..])
                }
                _ => f.write_str(url),
            },
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Memory => f.write_str("sqlite::memory:"),
        }
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It could not be reached or created.
    #[error("cannot open the database {url}")]
    Connect {
        /// Which, without a password.
        url: String,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A newer binary wrote it.
    #[error("the database {url} is newer than this binary: it has schema version {version}")]
    Newer {
        /// Which, without a password.
        url: String,
        /// The version that this binary does not know.
        version: i64,
    },
    /// Its schema could not be brought up to date.
    #[error("cannot bring the schema of {url} up to date")]
    Schema {
        /// Which, without a password.
        url: String,
        /// What failed.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// The database of one server.
#[derive(Clone)]
pub enum Db {
    /// Two pools.
    Postgres {
        /// For everything but renewals.
        pool: PgPool,
        /// For [`Db::renewal`].
        renewals: PgPool,
    },
    /// One writer, several readers. In memory they are the same single connection.
    Sqlite {
        /// The only connection that writes.
        write: SqlitePool,
        /// Connections that read.
        read: SqlitePool,
    },
}

/// The same thing on either engine.
pub enum On<P, S> {
    /// On PostgreSQL.
    Postgres(P),
    /// On SQLite.
    Sqlite(S),
}

/// A transaction. Dropped without [`Tx::commit`] it leaves nothing behind.
pub type Tx =
    On<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Transaction<'static, sqlx::Sqlite>>;

/// A connection on which each statement is a transaction of its own.
pub type Single = On<PoolConnection<sqlx::Postgres>, PoolConnection<sqlx::Sqlite>>;

/// Run one query expression on whichever engine `$tx` is.
#[macro_export]
macro_rules! on {
    ($tx:expr, $c:ident => $e:expr) => {
        match $tx {
            $crate::db::On::Postgres(t) => {
                let $c = &mut **t;
                $e
            }
            $crate::db::On::Sqlite(t) => {
                let $c = &mut **t;
                $e
            }
        }
    };
}
pub use on;

impl Db {
    /// Open, create where there is none (SQLite), and bring the schema up to date.
    ///
    /// # Errors
    /// [`OpenError`] names the database and what is wrong with it.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, OpenError> {
        Self::open_with(url, &Schema::PLATFORM).await
    }

    /// The same, with another schema than the platform's.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_with(url: &DatabaseUrl, schema: &Schema) -> Result<Self, OpenError> {
        let connect = |source| OpenError::Connect { url: url.to_string(), source };
        let db = match url {
            DatabaseUrl::Postgres(text) => {
                let options =
                    PgConnectOptions::from_str(text).map_err(connect)?.options(RANDOM_READ);
                Self::postgres(options).await.map_err(connect)?
            }
            DatabaseUrl::Sqlite(path) => Self::sqlite(path).await.map_err(connect)?,
            DatabaseUrl::Memory => Self::memory().await.map_err(connect)?,
        };
        schema.apply(&db).await.map_err(|source| match source {
            sqlx::migrate::MigrateError::VersionMissing(version) => {
                OpenError::Newer { url: url.to_string(), version }
            }
            source => OpenError::Schema { url: url.to_string(), source },
        })?;
        Ok(db)
    }

    async fn postgres(options: PgConnectOptions) -> Result<Self, sqlx::Error> {
        let pool = |connections| {
            PoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                // The pool would ask every connection whether it is there, before each transaction.
                .test_before_acquire(false)
                .before_acquire(|connection: &mut PgConnection, meta| {
                    Box::pin(async move {
                        let rested = meta.idle_for >= RESTED;
                        Ok(!rested || connection.ping().await.is_ok())
                    })
                })
        };
        let renewals = pool(POSTGRES_RENEWALS).connect_lazy_with(options.clone().options(RENEWING));
        let pool = pool(POSTGRES_CONNECTIONS).connect_with(options).await?;
        Ok(Self::Postgres { pool, renewals })
    }

    async fn sqlite(path: &std::path::Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL this survives a crash of the process; `kill -9` loses nothing acknowledged.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .pragma("wal_autocheckpoint", SQLITE_LOG_PAGES);
        let pool = |connections| {
            PoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
        };
        let writer = options.clone().pragma("cache_size", SQLITE_WRITER_CACHE);
        let write = pool(1).connect_with(writer).await?;
        let read = pool(SQLITE_READERS).connect_with(options.read_only(true)).await?;
        Ok(Self::Sqlite { write, read })
    }

    async fn memory() -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::from_str("sqlite::memory:")?.foreign_keys(true);
        // The data lives in this one connection: it may never be closed for being idle or old.
        let pool = PoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        Ok(Self::Sqlite { write: pool.clone(), read: pool })
    }

    /// Begin a transaction that writes. On SQLite it waits for its turn here, not at its first write.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        match self {
            Self::Postgres { pool, .. } => Ok(Tx::Postgres(pool.begin().await?)),
            Self::Sqlite { write, .. } => {
                Ok(Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?))
            }
        }
    }

    /// A connection for what is written again in a moment anyway, one statement at a time. Others see at once what
    /// it wrote; a power cut may take the last moments of it back, which is as if it had come late.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn renewal(&self) -> Result<Single, sqlx::Error> {
        match self {
            Self::Postgres { renewals, .. } => Ok(Single::Postgres(renewals.acquire().await?)),
            Self::Sqlite { write, .. } => Ok(Single::Sqlite(write.acquire().await?)),
        }
    }

    /// Begin a transaction that only reads.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn read(&self) -> Result<Tx, sqlx::Error> {
        match self {
            Self::Postgres { pool, .. } => Ok(Tx::Postgres(pool.begin().await?)),
            Self::Sqlite { read, .. } => Ok(Tx::Sqlite(read.begin().await?)),
        }
    }

    /// Batches of one kind that are worth being under way at once. SQLite has one writer: a second batch would
    /// only wait for it, and be the smaller for it. PostgreSQL waits for its disk meanwhile.
    pub(crate) fn batches(&self) -> usize {
        match self {
            Self::Postgres { .. } => 2,
            Self::Sqlite { .. } => 1,
        }
    }

    /// Which engine, for people.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::Sqlite { .. } => "sqlite",
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.read().await?;
        on!(&mut tx, c => sqlx::query("SELECT 1").execute(c).await.map(|_| ()))
    }

    /// Close every connection, after those in use are given back.
    pub async fn close(&self) {
        match self {
            Self::Postgres { pool, renewals } => {
                renewals.close().await;
                pool.close().await;
            }
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

impl Tx {
    /// Make it so.
    ///
    /// # Errors
    /// When the database does not confirm it; then it is unknown whether it happened.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(tx) => tx.commit().await,
            Self::Sqlite(tx) => tx.commit().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_understood_and_its_password_is_never_shown() {
        let shown = |text: &str| text.parse::<DatabaseUrl>().map(|url| url.to_string());
        assert_eq!(shown("sqlite:a/b.db"), Ok("sqlite:a/b.db".to_owned()));
        assert_eq!(shown("sqlite:///a/b.db"), Ok("sqlite:/a/b.db".to_owned()));
        assert_eq!(shown("sqlite::memory:"), Ok("sqlite::memory:".to_owned()));
        assert_eq!(shown("postgres://me:secret@db/x"), Ok("postgres://me@db/x".to_owned()));
        assert_eq!(shown("postgres://db/x"), Ok("postgres://db/x".to_owned()));
        for bad in ["", "mysql://db", "sqlite:", "./ligand.db"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
