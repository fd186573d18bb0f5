//! The same life on PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use crate::stack::{Stack, generation, service, until};

/// A database of its own, which goes when the test ends.
pub(crate) struct Database {
    server: String,
    name: String,
    url: String,
}

impl Database {
    pub(crate) fn create(server: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ligand_cli_{}_{next}", std::process::id());
        let (base, _) = server.rsplit_once('/').unwrap();
        let url = format!("{base}/{name}");
        execute(&server, format!("CREATE DATABASE {name}"));
        Self { server, name, url }
    }

    /// Where servers find it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same for messages that a dead server was delivering, a minute later.
    pub(crate) fn end_leases(&self, holder: &str) {
        let end =
            "UPDATE messages SET leased_until = 0 WHERE state = 'delivering' AND holder::text =";
        execute(&self.url, format!("{end} '{holder}'"));
    }

    /// Under which name the server holds leases that took the message of this name.
    pub(crate) fn holder(&self, message: &str) -> String {
        let sql = format!("SELECT holder::text FROM messages WHERE key = '{message}'");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
        })
    }

    /// A server that dies amid a look at a workspace has that one for itself until its claim ends, half a
    /// minute later. This is that half minute.
    pub(crate) fn end_claims(&self) {
        let end = "UPDATE workspaces SET due_at = 0, claimed_until = 0, claimed_by = NULL
            WHERE claimed_by IS NOT NULL";
        execute(&self.url, end.to_owned());
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        execute(&self.server, format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn execute(url: &str, sql: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_workspace_lives_on_postgres() {
    let Some(server) = service("LIGAND_TEST_POSTGRES_URL") else { return };
    let database = Database::create(server);
    let mut stack = Stack::start(&["serve", "platform"], &[("DATABASE_URL", &database.url)]);
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    assert!(!stack.data().join("ligand.db").exists());
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    stack.kill_instance(stack.leader(&id, 1));
    until("generation 2 is online", || {
        let seen = stack.workspace("a");
        (seen["status"] == "online" && generation(&seen) == 2).then_some(())
    });
    assert_eq!(stack.settled(&id), 2);
    let leader = stack.leader(&id, 2);
    stack.kill_server();
    database.end_claims();
    stack.restart();
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    assert_eq!((stack.settled(&id), stack.processes()), (2, vec![leader]));
    assert_eq!(stack.cycles(&id), "pp", "nothing was started anew");
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| stack.ask(&format!("POST /workspaces/{id}/restart")));
        }
    });
    let reached = stack.settled(&id);
    let cycles = stack.cycles(&id);
    // Each cycle answers at least one request. One that comes when the next is planned and not loaded yet is carried by
    // it, so the last word need not be a plan.
    assert!(cycles[2..].contains("rp") && !cycles[2..].contains("pp"), "{cycles}");
    assert_eq!(stack.processes(), [stack.leader(&id, reached)]);
    stack.ok(&["ws", "delete", "a", "--purge"]);
    assert_eq!(stack.processes(), [0; 0]);
    drop(stack);
}
