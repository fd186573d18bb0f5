//! The two engines, each test with a database of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use ligand_fleet::serve::SCHEMA;
use ligand_server::db::{DatabaseUrl, Db};
use sqlx::{Connection as _, PgConnection};

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

/// Run a test's body on a fresh database of each engine.
pub(crate) fn on_both<F: Future<Output = ()>>(name: &str, body: impl Fn(Db) -> F) {
    run(async {
        body(Db::open_with(&DatabaseUrl::Memory, &SCHEMA).await.unwrap()).await;
        if let Some(server) = postgres() {
            let schema = Schema::create(&server, name).await;
            body(Db::open_with(&DatabaseUrl::Postgres(schema.url()), &SCHEMA).await.unwrap()).await;
            schema.execute("DROP").await;
        }
    });
}

pub(crate) fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = async { tokio::time::timeout(PATIENCE, body).await };
    runtime.block_on(body).expect("a test ends within its time");
}

/// A schema of PostgreSQL serves as a database: it is made in milliseconds.
struct Schema {
    server: String,
    name: String,
}

impl Schema {
    async fn create(server: &str, test: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A longer name would be cut short.
        let test: String = test.chars().take(30).collect();
        let schema = Self {
            server: server.to_owned(),
            name: format!("f{}_{number}_{test}", std::process::id()),
        };
        schema.execute("CREATE").await;
        schema
    }

    async fn execute(&self, verb: &str) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let tail = if verb == "DROP" { " CASCADE" } else { "" };
        let text = format!("{verb} SCHEMA \"{}\"{tail}", self.name);
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    fn url(&self) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.server, self.name)
    }
}
