//! The database: both engines alike, and what happens when several use it at once.

use std::collections::BTreeSet;

use ligand_domain::id::WorkspaceId;
use ligand_server::db::{DatabaseUrl, Db, OpenError};
use ligand_server::journal::{self, Kind, Work};
use ligand_server::reconcile::Reconciler as _;
use ligand_server::workspaces::WorkspaceReconciler;
use serde_json::json;

use crate::support::both;
use crate::support::engine::{a_postgres, run};

type Column = (String, String, bool);

/// Table, column, may it be empty.
async fn columns(db: &Db) -> BTreeSet<Column> {
    let rows: Vec<Column> = match db {
        Db::Sqlite { read, .. } => {
            let text = "SELECT m.name, c.name, c.\"notnull\" = 0 FROM sqlite_schema m
                JOIN pragma_table_info(m.name) c WHERE m.type = 'table'";
            sqlx::query_as(text).fetch_all(read).await.unwrap()
        }
        Db::Postgres { pool, .. } => {
            let text = "SELECT table_name::text, column_name::text, is_nullable = 'YES'
                FROM information_schema.columns WHERE table_schema = current_schema()";
            sqlx::query_as(text).fetch_all(pool).await.unwrap()
        }
    };
    rows.into_iter()
        .filter(|(table, ..)| !table.starts_with("_sqlx") && !table.starts_with("sqlite_"))
        .collect()
}

#[test]
fn both_engines_have_the_same_tables_and_columns() {
    run(async {
        let sqlite = Db::open(&DatabaseUrl::Memory).await.unwrap();
        let Some((postgres, schema)) = a_postgres("parity").await else { return };
        let (ours, theirs) = (columns(&sqlite).await, columns(&postgres).await);
        assert!(ours.len() > 60, "{ours:?}");
        assert_eq!(ours, theirs);
        postgres.close().await;
        schema.drop().await;
    });
}

#[test]
fn a_database_from_the_future_is_refused_and_left_alone() {
    run(async {
        let Some((db, schema)) = a_postgres("future").await else { return };
        let Db::Postgres { pool, .. } = &db else { unreachable!() };
        let text =
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'later', TRUE, '', 0)";
        sqlx::query(text).execute(pool).await.unwrap();
        let before = columns(&db).await;
        let refused = Db::open(&DatabaseUrl::Postgres(schema.url())).await.err().unwrap();
        assert!(matches!(refused, OpenError::Newer { version: 9999, .. }), "{refused}");
        assert_eq!(columns(&db).await, before);
        db.close().await;
        schema.drop().await;
    });
}

#[test]
fn a_sqlite_file_is_kept_and_a_newer_one_refused() {
    run(async {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("store-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let url = DatabaseUrl::Sqlite(folder.join("x.db"));
        let db = Db::open(&url).await.unwrap();
        let before = columns(&db).await;
        db.close().await;
        let db = Db::open(&url).await.unwrap();
        assert_eq!(columns(&db).await, before);
        let Db::Sqlite { write, .. } = &db else { unreachable!() };
        let text = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, '', TRUE, x'', 0)";
        sqlx::query(text).execute(write).await.unwrap();
        db.close().await;
        let refused = Db::open(&url).await.err().unwrap();
        assert!(matches!(refused, OpenError::Newer { version: 9999, .. }), "{refused}");
        std::fs::remove_dir_all(folder).unwrap();
    });
}

both! {
    async fn a_dropped_transaction_leaves_nothing(app: TestApp) {
        let id: WorkspaceId = app.create("a").await.parse().unwrap();
        let mut work = Work::begin(&app.app).await.unwrap();
        work.note(id, None, Kind::Changed, "never", json!({}));
        drop(work);
        let entries = journal::entries(&app.app.db, id, 100).await.unwrap();
        assert_eq!(entries.len(), 1, "{entries:?}");
    }

    async fn numbers_are_given_out_in_the_order_of_commits(app: TestApp) {
        let id: WorkspaceId = app.create("a").await.parse().unwrap();
        let write = async |n: usize| {
            let mut work = Work::begin(&app.app).await.unwrap();
            for _ in 0..3 {
                work.note(id, None, Kind::Changed, format!("by {n}"), json!({}));
                tokio::task::yield_now().await;
            }
            work.commit().await.unwrap();
        };
        futures_util::future::join_all((0..8).map(write)).await;
        let entries = journal::entries(&app.app.db, id, 100).await.unwrap();
        let seqs: Vec<i64> = entries.iter().map(|entry| entry.seq).collect();
        let expected: Vec<i64> = (seqs[0]..seqs[0] + 25).collect();
        assert_eq!(seqs, expected, "no number twice, none left out");
        let groups = entries[1..].chunks(3);
        for group in groups {
            assert!(group.iter().all(|entry| entry.summary == group[0].summary), "one commit, one run of numbers");
        }
    }

    async fn two_passes_never_take_the_same_workspace(app: TestApp) {
        for n in 0..12 {
            app.create(&format!("w{n}")).await;
        }
        let pass = || WorkspaceReconciler.pass(&app.app);
        let passes = futures_util::future::join_all((0..24).map(|_| pass())).await;
        let taken: u64 = passes.into_iter().map(|pass| pass.unwrap().looked_at).sum();
        app.settle().await;
        assert_eq!(taken, 12);
        assert_eq!(app.fake.starts(), 12);
    }

    async fn a_claim_of_a_server_that_died_is_taken_over(app: TestApp) {
        let id = app.create("a").await;
        app.sql("UPDATE workspaces SET claimed_until = due_at + 30000000, due_at = due_at + 30000000").await;
        app.settle().await;
        assert_eq!(app.fake.starts(), 0);
        app.later(31).await;
        assert_eq!(app.fake.starts(), 1, "{id}");
    }
}
