//! What it costs at least to have a message on the disk: a row of its own, in a statement of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ligand_server::db::{DatabaseUrl, Db};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, SqlitePool};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::agents;
use super::CLIENTS;
use crate::clock;

/// Rows of both kinds of database.
fn table(uuid: &str, bytes: &str) -> String {
    format!(
        "CREATE TABLE inserted (
            id {uuid} PRIMARY KEY, workspace_id {uuid} NOT NULL, key text NOT NULL, digest {bytes} NOT NULL,
            body text NOT NULL, state text NOT NULL, accepted_at bigint NOT NULL,
            UNIQUE (workspace_id, key))"
    )
}

const INSERT: &str =
    "INSERT INTO inserted (id, workspace_id, key, digest, body, state, accepted_at)
    VALUES ($1, $2, $3, $4, $5, 'accepted', $6)";

/// Clients that insert one row at a time.
pub(in crate::scaletest) struct Inserts {
    to: Pool,
    callers: usize,
}

#[derive(Clone)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Inserts {
    /// A table, and a connection for each client.
    pub(in crate::scaletest) async fn on_postgres(url: &str, callers: usize) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let connections = u32::try_from(callers)?.min(CLIENTS);
        let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
        let pool = pool.acquire_timeout(Duration::from_secs(30)).connect_with(options).await?;
        sqlx::raw_sql(AssertSqlSafe(table("uuid", "bytea"))).execute(&pool).await?;
        Ok(Self { to: Pool::Postgres(pool), callers })
    }

    /// A table in a file of its own, which is opened as a server opens its own: there one writes at a time.
    pub(in crate::scaletest) async fn on_sqlite(path: &Path, callers: usize) -> Result<Self> {
        let db = Db::open(&DatabaseUrl::Sqlite(path.to_owned())).await?;
        let Db::Sqlite { write, .. } = &db else { bail!("it was to be SQLite") };
        sqlx::raw_sql(AssertSqlSafe(table("blob", "blob"))).execute(write).await?;
        Ok(Self { to: Pool::Sqlite(write.clone()), callers })
    }

    /// As fast as they are done; gives how many rows, and how many a second.
    pub(in crate::scaletest) async fn closed(&self, body: &str, lasts: Duration) -> Result<f64> {
        let begun = clock::instant();
        let mut running = JoinSet::new();
        for first in 0..self.callers {
            let (to, body) = (self.to.clone(), body.to_owned());
            running.spawn(caller(to, body, first, begun + lasts));
        }
        let mut count = 0;
        while let Some(ended) = running.join_next().await {
            count += ended.context("a caller ended early")??;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    /// Ends its connections.
    pub(in crate::scaletest) async fn close(self) {
        match self.to {
            Pool::Postgres(pool) => pool.close().await,
            Pool::Sqlite(pool) => pool.close().await,
        }
    }
}

async fn caller(to: Pool, body: String, first: usize, until: Instant) -> Result<u64> {
    let (workspace, mut count) = (agents::id(first), 0);
    while clock::instant() < until {
        let id = agents::fresh();
        insert(&to, (id, workspace), &body).await?;
        count += 1;
    }
    Ok(count)
}

async fn insert(to: &Pool, (id, workspace): (Uuid, Uuid), body: &str) -> Result<()> {
    let (key, digest) = (id.to_string(), [*id.as_bytes(), *id.as_bytes()].concat());
    match to {
        Pool::Postgres(pool) => {
            let insert = sqlx::query(INSERT).bind(id).bind(workspace).bind(key).bind(digest);
            insert.bind(body).bind(1_i64).execute(pool).await?;
        }
        Pool::Sqlite(pool) => {
            let insert = sqlx::query(INSERT).bind(id).bind(workspace).bind(key).bind(digest);
            insert.bind(body).bind(1_i64).execute(pool).await?;
        }
    }
    Ok(())
}
