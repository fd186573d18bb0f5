//! Bringing the schema up to date: every `schema/<engine>/NNNN_name.sql` that was not applied yet, in order,
//! each in a transaction and under a lock, so that several servers may start at once.

use sqlx::migrate::MigrateError;

use super::Db;

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("../../schema/sqlite");
static POSTGRES: sqlx::migrate::Migrator = sqlx::migrate!("../../schema/postgres");

pub(super) async fn apply(db: &Db) -> Result<(), MigrateError> {
    match db {
        Db::Postgres { pool, .. } => POSTGRES.run(pool).await,
        Db::Sqlite { write, .. } => SQLITE.run(write).await,
    }
}
