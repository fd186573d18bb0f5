//! Hints between the servers on one database: something may be due, something was committed.
//!
//! PostgreSQL carries them (`NOTIFY`), on two connections of their own, so that neither waits for a free one.
//! A hint is sent after the commit that it is about, never inside it: a `NOTIFY` in a transaction takes a
//! lock of the whole cluster at its commit, and there are many commits. It may be lost, come late, or twice;
//! then something is seen later, and nothing is wrong. SQLite serves one server: there is nobody to tell.

use std::fmt;
use std::str::FromStr;

use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use uuid::Uuid;

use super::passing::{self, Lines};
use super::{Db, PATIENCE};

/// The name is the whole cluster's database's; whose hint it is stands in the payload.
const CHANNEL: &str = "ligand";
/// One to listen, one to tell.
const CONNECTIONS: u32 = 2;

/// What one server tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hint {
    /// Numbers up to this one are committed.
    pub committed: i64,
    /// A row fell due.
    pub due: bool,
}

/// The way to the other servers.
#[derive(Clone)]
pub struct Hints {
    pool: PgPool,
    server: Uuid,
}

/// What was heard of another server.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something happened there.
    Hint(Hint),
    /// It passes something on.
    Lines(Lines),
    /// The connection was lost and is there again; what was said meanwhile is lost.
    Lost,
}

/// Hears the other servers.
pub struct Ear {
    listener: PgListener,
    pool: PgPool,
    server: Uuid,
    schema: String,
}

/// A hint with its sender and the schema whose rows it is about: several platforms may share a database.
#[derive(Debug, PartialEq, Eq)]
struct Letter {
    server: Uuid,
    hint: Hint,
    schema: String,
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, hint, schema } = self;
        write!(f, "{server} {} {} {schema}", hint.committed, u8::from(hint.due))
    }
}

impl FromStr for Letter {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(4, ' ');
        let mut next = || parts.next().ok_or(());
        let server = next()?.parse().map_err(|_| ())?;
        let committed = next()?.parse().map_err(|_| ())?;
        let due = next()? == "1";
        Ok(Self { server, hint: Hint { committed, due }, schema: next()?.to_owned() })
    }
}

impl Db {
    /// The way to the other servers on this database; `None` where there can be none. `server` is this one.
    #[must_use]
    pub fn hints(&self, server: Uuid) -> Option<Hints> {
        let Self::Postgres { pool: main, .. } = self else { return None };
        let options: PgPoolOptions = PoolOptions::new();
        let pool = options
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with((*main.connect_options()).clone());
        Some(Hints { pool, server })
    }
}

impl Hints {
    /// Tell the others.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn tell(&self, hint: Hint) -> Result<(), sqlx::Error> {
        let letter = Letter { server: self.server, hint, schema: String::new() };
        sqlx::query("SELECT pg_notify($1, $2 || COALESCE(current_schema()::text, ''))")
            .bind(CHANNEL)
            .bind(letter.to_string())
            .execute(&self.pool)
            .await
            .map(|_| ())
    }

    /// Begin to hear the others.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn listen(&self) -> Result<Ear, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        let schema: Option<String> =
            sqlx::query_scalar("SELECT current_schema()::text").fetch_one(&mut listener).await?;
        listener.listen_all([CHANNEL, passing::CHANNEL]).await?;
        let (pool, schema) = (self.pool.clone(), schema.unwrap_or_default());
        Ok(Ear { listener, pool, server: self.server, schema })
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) fn server(&self) -> Uuid {
        self.server
    }

    /// Close both connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Ear {
    /// What is heard next of another server.
    ///
    /// # Errors
    /// When the connection is lost and does not come back.
    pub async fn next(&mut self) -> Result<Heard, sqlx::Error> {
        loop {
            let Some(heard) = self.listener.try_recv().await? else { return Ok(Heard::Lost) };
            if heard.channel() == passing::CHANNEL {
                let of = (self.server, self.schema.as_str());
                match passing::read(&self.pool, heard.payload(), of.0, of.1).await? {
                    Some(lines) => return Ok(Heard::Lines(lines)),
                    None => continue,
                }
            }
            match heard.payload().parse::<Letter>() {
                Ok(letter) if letter.server != self.server && letter.schema == self.schema => {
                    return Ok(Heard::Hint(letter.hint));
                }
                // Our own, another platform's, or a newer server's that says more than we know.
                Ok(_) | Err(()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_survives_whatever_a_schema_is_called() {
        for schema in ["public", "", "with spaces 1 0"] {
            for (committed, due) in [(0, false), (i64::MAX, true)] {
                let hint = Hint { committed, due };
                let letter = Letter { server: Uuid::max(), hint, schema: schema.to_owned() };
                assert_eq!(letter.to_string().parse(), Ok(letter));
            }
        }
        for odd in ["", "x", "x 1 1 public", "ffffffff-ffff-ffff-ffff-ffffffffffff 1 1"] {
            assert_eq!(odd.parse::<Letter>(), Err(()), "{odd}");
        }
    }
}
