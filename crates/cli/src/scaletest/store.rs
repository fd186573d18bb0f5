//! Everything here that speaks SQL: the scratch schema of a measurement, and what a straightforward control
//! plane does in the same database, as baseline.

mod inserts;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ligand_domain::time::Timestamp;
use ligand_server::db::{DatabaseUrl, Db};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlitePool};
use tokio::task::JoinSet;
use uuid::Uuid;

pub(super) use self::inserts::Inserts;
use super::agents;
use super::load::Outcome;
use crate::clock;

/// Connections of the baseline: what a server has.
const CONNECTIONS: u32 = 25;
/// Connections of the raw transactions, at most.
const CLIENTS: u32 = 32;

/// A schema of our own in somebody's PostgreSQL database.
pub(super) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// Makes it.
    pub(super) async fn create(server: &str, name: String) -> Result<Self> {
        execute(server, format!("CREATE SCHEMA {name}"))
            .await
            .context("create a scratch schema")?;
        Ok(Self { server: server.to_owned(), name })
    }

    /// The address of the database, with this schema as the only one.
    pub(super) fn url(&self) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.server, self.name)
    }

    /// Takes it away, with everything in it.
    pub(super) async fn remove(self) -> Result<()> {
        let drop = format!("DROP SCHEMA {} CASCADE", self.name);
        execute(&self.server, drop).await.context("remove the scratch schema")
    }
}

async fn execute(server: &str, sql: String) -> Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// How durable a commit of this database is, in its own words.
pub(super) async fn durability(server: &str) -> Result<String> {
    let mut connection = PgConnection::connect(server).await?;
    let sql = "SELECT current_setting('fsync'), current_setting('synchronous_commit')";
    let (fsync, commit): (String, String) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(format!("fsync={fsync}, synchronous_commit={commit}"))
}

/// The classic shape of an authenticated heartbeat: six statements, each for itself, on a table of workspaces
/// and one of tokens.
pub(super) struct Classic {
    pool: PgPool,
    workspaces: usize,
}

const TABLES: &str = "
CREATE TABLE classic_workspaces (
    id uuid PRIMARY KEY, status text NOT NULL, current_task text NOT NULL DEFAULT '',
    last_heartbeat_at bigint, last_error_rate double precision NOT NULL DEFAULT 0,
    last_sample_error text NOT NULL DEFAULT '', active_tasks bigint NOT NULL DEFAULT 0,
    uptime_seconds bigint NOT NULL DEFAULT 0, updated_at bigint NOT NULL DEFAULT 0);
CREATE TABLE classic_tokens (
    id uuid PRIMARY KEY, workspace_id uuid NOT NULL REFERENCES classic_workspaces (id),
    hash bytea NOT NULL UNIQUE, last_used_at bigint, revoked_at bigint);
CREATE INDEX classic_tokens_live ON classic_tokens (workspace_id) WHERE revoked_at IS NULL;";

impl Classic {
    /// Tables, and so many workspaces with a token each.
    pub(super) async fn create(url: &str, workspaces: usize) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(30))
            // A round trip more for each statement would not be fair.
            .test_before_acquire(false);
        let pool = pool.connect_with(options).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let ids: Vec<Uuid> = (0..workspaces).map(agents::id).collect();
        let hashes: Vec<Vec<u8>> = (0..workspaces).map(hash).collect();
        let fill = "INSERT INTO classic_workspaces (id, status) SELECT id, 'online' FROM unnest($1::uuid[]) AS t (id)";
        sqlx::query(fill).bind(&ids).execute(&pool).await?;
        let fill = "INSERT INTO classic_tokens (id, workspace_id, hash) SELECT id, id, hash FROM unnest($1::uuid[], $2::bytea[]) AS t (id, hash)";
        sqlx::query(fill).bind(&ids).bind(&hashes).execute(&pool).await?;
        sqlx::raw_sql("ANALYZE classic_workspaces, classic_tokens").execute(&pool).await?;
        Ok(Self { pool, workspaces })
    }

    /// Beats as fast as they are done, from so many tasks at once. There is no HTTP in front of it.
    pub(super) async fn closed(&self, tasks: usize, lasts: Duration) -> Result<Outcome> {
        let begun = clock::instant();
        let mut callers = JoinSet::new();
        for first in 0..tasks {
            let (pool, all) = (self.pool.clone(), self.workspaces);
            callers.spawn(caller(pool, (first, tasks, all), begun + lasts));
        }
        let mut all = Outcome::default();
        while let Some(ended) = callers.join_next().await {
            all.merge(&ended.context("a caller ended early")??);
        }
        all.lasted = begun.elapsed();
        Ok(all)
    }

    /// Ends its connections.
    pub(super) async fn close(self) {
        self.pool.close().await;
    }
}

/// As long as a SHA-256, and of its own.
fn hash(number: usize) -> Vec<u8> {
    let id = agents::id(number);
    [*id.as_bytes(), *id.as_bytes()].concat()
}

async fn caller(
    pool: PgPool,
    (first, step, all): (usize, usize, usize),
    until: Instant,
) -> Result<Outcome> {
    let (mut at, mut outcome) = (first % all, Outcome::default());
    let mut begun = clock::instant();
    while begun < until {
        beat(&pool, agents::id(at), &hash(at), outcome.accepted as i64).await?;
        outcome.accepted += 1;
        outcome.took.add(begun.elapsed());
        at += step;
        if at >= all {
            at = first % all;
        }
        begun = clock::instant();
    }
    Ok(outcome)
}

async fn beat(pool: &PgPool, id: Uuid, hash: &[u8], now: i64) -> Result<()> {
    let sql = "SELECT count(*) FROM classic_tokens WHERE workspace_id = $1 AND revoked_at IS NULL";
    let _live: i64 = sqlx::query_scalar(sql).bind(id).fetch_one(pool).await?;
    let sql = "SELECT id FROM classic_tokens WHERE workspace_id = $1 AND hash = $2 AND revoked_at IS NULL";
    let token: Uuid = sqlx::query_scalar(sql).bind(id).bind(hash).fetch_one(pool).await?;
    let sql = "UPDATE classic_tokens SET last_used_at = $2 WHERE id = $1";
    sqlx::query(sql).bind(token).bind(now).execute(pool).await?;
    let sql = "SELECT current_task FROM classic_workspaces WHERE id = $1";
    let _task: String = sqlx::query_scalar(sql).bind(id).fetch_one(pool).await?;
    let sql = "UPDATE classic_workspaces SET last_heartbeat_at = $2, last_error_rate = 0, last_sample_error = '', active_tasks = 0, uptime_seconds = $2, current_task = '', updated_at = $2 WHERE id = $1 AND status <> 'removed'";
    sqlx::query(sql).bind(id).bind(now).execute(pool).await?;
    let sql = "SELECT status FROM classic_workspaces WHERE id = $1";
    let _status: String = sqlx::query_scalar(sql).bind(id).fetch_one(pool).await?;
    Ok(())
}

/// What minting costs at least: a transaction that inserts a credential and revokes its predecessors.
pub(super) struct Minting {
    pool: PgPool,
    callers: usize,
}

const MINTED: &str = "
CREATE TABLE minted (
    id uuid PRIMARY KEY, workspace_id uuid NOT NULL, hash bytea NOT NULL UNIQUE,
    created_at bigint NOT NULL, revoked_at bigint);
CREATE INDEX minted_live ON minted (workspace_id) WHERE revoked_at IS NULL;";

impl Minting {
    /// A table, and a connection for each caller.
    pub(super) async fn create(url: &str, callers: usize) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let connections = u32::try_from(callers)?.min(CLIENTS);
        let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
        let pool = pool.acquire_timeout(Duration::from_secs(30)).connect_with(options).await?;
        sqlx::raw_sql(MINTED).execute(&pool).await?;
        Ok(Self { pool, callers })
    }

    /// So many, from this number on; gives how many a second.
    pub(super) async fn mint(&self, from: usize, count: usize) -> Result<f64> {
        let begun = clock::instant();
        let mut running = JoinSet::new();
        for first in 0..self.callers {
            let (pool, step) = (self.pool.clone(), self.callers);
            running.spawn(async move {
                for number in (from + first..from + count).step_by(step) {
                    mint(&pool, number).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.context("a caller ended early")??;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    /// Ends its connections.
    pub(super) async fn close(self) {
        self.pool.close().await;
    }
}

async fn mint(pool: &PgPool, number: usize) -> Result<()> {
    let (id, now) = (agents::id(number), number as i64);
    let mut tx = pool.begin().await?;
    let sql = "INSERT INTO minted (id, workspace_id, hash, created_at) VALUES ($1, $1, $2, $3)";
    sqlx::query(sql).bind(id).bind(hash(number)).bind(now).execute(&mut *tx).await?;
    let sql = "UPDATE minted SET revoked_at = $2 WHERE workspace_id = $1 AND id <> $1 AND revoked_at IS NULL";
    sqlx::query(sql).bind(id).bind(now).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// The database of a server, filled for a measurement that needs no server.
pub(super) struct Filled {
    /// The database.
    pub(super) db: Db,
    write: SqlitePool,
}

impl Filled {
    /// So many workspaces on SQLite, each online in its first instance on the backend `fake`. Whatever is to be
    /// thought of them is to be thought at `later`.
    pub(super) async fn create(path: &Path, count: usize, later: Timestamp) -> Result<Self> {
        let db = Db::open(&DatabaseUrl::Sqlite(path.to_owned())).await?;
        let Db::Sqlite { write, .. } = &db else { bail!("it was to be SQLite") };
        let write = write.clone();
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
            INSERT INTO workspaces (id, name, tier, runtime, workspace_access, backend, intent, status, since,
                evidence, current_generation, newest_generation, bootstrap, due_at, created_at, updated_at)
            SELECT randomblob(16), 'scaletest', 1, 'echo', 'none', 'fake', 'running', 'online', $2,
                'it was made so', 1, 1, 'sealed', $2, $2, $2 FROM n";
        let (count, later) = (i64::try_from(count)?, later.micros());
        sqlx::query(sql).bind(count).bind(later).execute(&write).await?;
        let sql = "INSERT INTO instances (id, workspace_id, generation, born, backend, phase, handle, last_seen_at,
                started_at, registered_at, created_at)
            SELECT randomblob(16), id, 1, 1, 'fake', 'serving', 'scaletest', $1, $1, $1, $1 FROM workspaces";
        sqlx::query(sql).bind(later).execute(&write).await?;
        Ok(Self { db, write })
    }

    /// Its workspaces.
    pub(super) async fn ids(&self) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar("SELECT id FROM workspaces").fetch_all(&self.write).await?)
    }

    /// All of them are to be looked at now.
    pub(super) async fn all_due(&self, now: Timestamp) -> Result<()> {
        let sql = "UPDATE workspaces SET due_at = $1";
        sqlx::query(sql).bind(now.micros()).execute(&self.write).await?;
        Ok(())
    }
}
