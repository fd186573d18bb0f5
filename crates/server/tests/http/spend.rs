//! Budgets, and what turns used.

use ligand_domain::spend::Usage;
use serde_json::json;

use crate::support::agent::online;
use crate::support::{ADMIN, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

both! {
    async fn a_budget_is_set_read_and_lifted(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/budget");
        let token = agent.token.as_deref();
        let none = json!({"budget_limit": null, "monthly_spend": 0, "budget_used": 0, "budget_remaining": null});
        app.call("GET", &path, token, None).await.is(200, &none);
        agent.beat_with(&app, json!({"monthly_spend": 700})).await.ok();
        let set = |body: serde_json::Value| app.call("PATCH", &path, Some(ADMIN), Some(body));
        let over = json!({"budget_limit": 500, "monthly_spend": 700, "budget_used": 700, "budget_remaining": -200});
        set(json!({"budget_limit": 500.9})).await.is(200, &over);
        app.call("GET", &path, token, None).await.is(200, &over);
        assert!(app.journal(&id).await.contains(&"changed".to_owned()));
        set(json!({"budget_limit": null})).await.ok();
        assert_eq!(app.get(&path).await.ok()["budget_limit"], json!(null));
        set(json!([])).await.refuses(400, "invalid request body");
        set(json!({})).await.refuses(400, "budget_limit field is required");
        set(json!({"budget_limit": -1})).await.refuses(400, "budget_limit must be >= 0 (USD cents)");
        set(json!({"budget_limit": "5"})).await.refuses(400, "budget_limit must be an integer (USD cents) or null");
        let own = app.call("PATCH", &path, token, Some(json!({"budget_limit": 9}))).await;
        own.refuses(401, "invalid admin auth token");
        let unknown = format!("/workspaces/{UNKNOWN}/budget");
        app.get(&unknown).await.refuses(404, "workspace not found");
        let body = Some(json!({"budget_limit": 1}));
        app.call("PATCH", &unknown, Some(ADMIN), body).await.refuses(404, "workspace not found");
    }

    async fn tokens_are_counted_by_the_day(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/metrics");
        let nothing = json!({"input_tokens": 0, "output_tokens": 0, "total_calls": 0, "estimated_cost_usd": "0.000000",
            "period_start": "2026-01-01T00:00:00.000000Z", "period_end": "2026-01-02T00:00:00.000000Z"});
        app.get(&path).await.is(200, &nothing);
        for _ in 0..2 {
            let used = Usage { input: 1_000_000, output: 1 };
            ligand_server::spend::count(&app.app, id.parse().unwrap(), used).await;
        }
        let today = app.get(&path).await.ok();
        assert_eq!((&today["input_tokens"], &today["output_tokens"], &today["total_calls"]), (&json!(2_000_000), &json!(2), &json!(2)));
        assert_eq!(today["estimated_cost_usd"], "6.000030");
        app.app.clock.advance(std::time::Duration::from_secs(24 * 3600));
        assert_eq!(app.get(&path).await.ok()["total_calls"], 0);
        app.get(&format!("/workspaces/{UNKNOWN}/metrics")).await.refuses(404, "workspace not found");
        ligand_server::spend::count(&app.app, UNKNOWN.parse().unwrap(), Usage { input: 1, output: 1 }).await;
    }
}
