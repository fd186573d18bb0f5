//! The gates in front of handlers.

use serde_json::json;

use crate::support::{ADMIN, both};

both! {
    async fn aa_04_aa_08_only_the_admin_token_opens_admin_routes(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "a"})).await.ok();
        let own = created["auth_token"].as_str().unwrap();
        for path in ["/workspaces", "/admin/liveness", "/events"] {
            app.call("GET", path, None, None).await.is(401, &json!({"error": "admin auth required"}));
            for token in [own, "wrong", &ADMIN[1..], &format!("{ADMIN}x")] {
                let refused = app.call("GET", path, Some(token), None).await;
                refused.is(401, &json!({"error": "invalid admin auth token"}));
            }
            assert_eq!(app.get(path).await.status, 200, "{path}");
        }
    }

    async fn aa_07_a_forged_origin_opens_nothing(app: TestApp) {
        for origin in ["http://localhost:3000", "http://localhost:3001", "http://localhost:8080"] {
            let headers = [("origin", origin), ("referer", origin)];
            let refused = app.send("GET", "/workspaces", None, None, &headers).await;
            refused.refuses(401, "admin auth required");
            let passed = app.send("GET", "/workspaces", Some(ADMIN), None, &headers).await;
            assert_eq!(passed.status, 200);
        }
    }

    async fn aa_10_an_empty_platform_is_closed_too(app: TestApp) {
        app.call("GET", "/workspaces", None, None).await.refuses(401, "admin auth required");
        app.call("POST", "/workspaces", None, Some(json!({"name": "a"}))).await.refuses(401, "admin auth required");
        app.get("/workspaces").await.is(200, &json!([]));
    }

    async fn two_authorization_headers_count_as_the_first(app: TestApp) {
        let bearer = format!("Bearer {ADMIN}");
        let headers = [("authorization", bearer.as_str()), ("authorization", "Bearer wrong")];
        assert_eq!(app.send("GET", "/workspaces", None, None, &headers).await.status, 200);
        let headers = [("authorization", "Bearer wrong"), ("authorization", bearer.as_str())];
        assert_eq!(app.send("GET", "/workspaces", None, None, &headers).await.status, 401);
    }
}
