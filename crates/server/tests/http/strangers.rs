//! Who proves nothing learns nothing, not even by what the database is asked.

use std::collections::BTreeMap;

use ligand_server::db::Db;
use serde_json::json;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::support::TestApp;
use crate::support::agent::{Agent, online, unclaimed};
use crate::support::engine::{a_postgres, run};

/// How often each statement was run on the only connection, as PostgreSQL counts it.
async fn counts(pool: &PgPool) -> BTreeMap<String, i64> {
    let text = "SELECT statement, generic_plans + custom_plans FROM pg_prepared_statements
        WHERE statement NOT LIKE '%pg_prepared_statements%'";
    let rows: Vec<(String, i64)> = sqlx::query_as(text).fetch_all(pool).await.unwrap();
    rows.into_iter().collect()
}

/// SQLite does not count; the code is the same.
#[test]
fn the_same_statements_run_whatever_is_there() {
    run(async {
        let Some((db, schema)) = a_postgres("strangers").await else { return };
        db.close().await;
        let pool = PgPoolOptions::new().max_connections(1).connect(&schema.url()).await.unwrap();
        let app = TestApp::new(Db::Postgres { pool: pool.clone(), renewals: pool.clone() }, |_| {});
        let (sealed, _) = online(&app, "sealed").await;
        let external = unclaimed(&app).await;
        Agent::with(&external, None).register(&app).await.ok();
        let (removed, _) = online(&app, "removed").await;
        app.delete(&format!("/workspaces/{removed}")).await.ok();
        let (purged, _) = online(&app, "purged").await;
        app.delete(&format!("/workspaces/{purged}?purge=true")).await.ok();
        let unknown = "00000000-0000-4000-8000-000000000000";
        for (bearer, registers) in [
            (None, true),
            (None, false),
            (Some("never-issued"), true),
            (Some("never-issued"), false),
        ] {
            let mut ran = Vec::new();
            for id in [unknown, &sealed, &external, &removed, &purged, &sealed] {
                let before = counts(&pool).await;
                let knock = Agent::with(id, bearer);
                let answer = match registers {
                    true => knock.register(&app).await,
                    false => knock.beat_with(&app, json!({})).await,
                };
                assert_eq!(answer.status, 401);
                let mut more = counts(&pool).await;
                more.retain(|statement, times| {
                    *times -= before.get(statement).copied().unwrap_or(0);
                    *times > 0
                });
                ran.push(more);
            }
            // A heartbeat with a bearer is tried together with others first.
            let tried = usize::from(bearer.is_some() && !registers);
            assert_eq!(ran[0].len(), 9 + tried, "{ran:#?}");
            ran.dedup();
            assert_eq!(ran.len(), 1, "{ran:#?}");
        }
        pool.close().await;
        schema.drop().await;
    });
}
