//! Bringing the schema up to date: every `NNNN_name.sql` of its folder that was not applied yet, in order, each in a
//! transaction and under a lock, so that several servers may start at once.

use sqlx::migrate::{MigrateError, Migrator};

use super::Db;

static SQLITE: Migrator = sqlx::migrate!("../../schema/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../../schema/postgres");

/// One schema in the words of both engines.
pub struct Schema {
    /// For SQLite.
    pub sqlite: &'static Migrator,
    /// For PostgreSQL.
    pub postgres: &'static Migrator,
}

impl Schema {
    /// The platform's.
    pub const PLATFORM: Self = Self { sqlite: &SQLITE, postgres: &POSTGRES };

    pub(super) async fn apply(&self, db: &Db) -> Result<(), MigrateError> {
        match db {
            Db::Postgres { pool, .. } => self.postgres.run(pool).await,
            Db::Sqlite { write, .. } => self.sqlite.run(write).await,
        }
    }
}
