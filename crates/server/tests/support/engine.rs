//! The two engines, each test with a database of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use ligand_server::db::{DatabaseUrl, Db};
use sqlx::{Connection as _, PgConnection};

use super::TestApp;

/// A test that hangs is a test that fails.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Where the tests' PostgreSQL is. Without one, tests run on SQLite alone, unless everything is asked for.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the tests read their environment"
)]
fn postgres() -> Option<String> {
    let url = std::env::var("LIGAND_TEST_POSTGRES_URL").ok();
    let complete = std::env::var("LIGAND_TEST_COMPLETE").is_ok() || std::env::var("CI").is_ok();
    assert!(
        url.is_some() || !complete,
        "LIGAND_TEST_POSTGRES_URL is not set, and nothing may be left out"
    );
    url
}

/// Run a test's body on each engine.
pub(crate) fn on_both<F: Future<Output = ()>>(name: &str, body: impl Fn(TestApp) -> F) {
    on_each(name, |db| body(TestApp::new(db, |_| {})));
}

/// Run a body on a fresh database of each engine.
pub(crate) fn on_each<F: Future<Output = ()>>(name: &str, body: impl Fn(Db) -> F) {
    run(async {
        body(Db::open(&DatabaseUrl::Memory).await.unwrap()).await;
        if let Some(server) = postgres() {
            let schema = Schema::create(&server, name).await;
            body(schema.open().await).await;
            schema.drop().await;
        }
    });
}

/// A fresh PostgreSQL database, where there is a server.
pub(crate) async fn a_postgres(name: &str) -> Option<(Db, Schema)> {
    let schema = Schema::create(&postgres()?, name).await;
    Some((schema.open().await, schema))
}

pub(crate) fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = async { tokio::time::timeout(PATIENCE, body).await };
    runtime.block_on(body).expect("a test ends within its time");
}

/// PostgreSQL broke off one of several transactions that waited for each other.
const DEADLOCK: &str = "40P01";

/// A schema of PostgreSQL serves as a database: it is made in milliseconds.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    async fn create(server: &str, test: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}_{test}", std::process::id());
        let schema = Self { server: server.to_owned(), name };
        schema.execute("CREATE").await;
        schema
    }

    async fn execute(&self, verb: &str) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let tail = if verb == "DROP" { " CASCADE" } else { "" };
        let text = format!("{verb} SCHEMA \"{}\"{tail}", self.name);
        let mut left = 5;
        loop {
            match sqlx::query(sqlx::AssertSqlSafe(text.clone())).execute(&mut connection).await {
                Ok(_) => break,
                // Somebody's last statement, which waits for this one as this one does for it.
                Err(sqlx::Error::Database(cause))
                    if cause.code().as_deref() == Some(DEADLOCK) && left > 0 =>
                {
                    left -= 1
                }
                Err(cause) => panic!("{text}: {cause}"),
            }
        }
        connection.close().await.unwrap();
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.server, self.name)
    }

    /// Connections of their own to it.
    pub(crate) async fn open(&self) -> Db {
        Db::open(&DatabaseUrl::Postgres(self.url())).await.unwrap()
    }

    pub(crate) async fn drop(self) {
        self.execute("DROP").await;
    }
}
