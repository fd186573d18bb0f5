//! Organisations, their tokens, and what their platforms are told.

use serde_json::{Value, json};

use crate::support::{WORKSPACE, both};

both! {
    async fn an_organisation_is_created_listed_changed_and_deleted(app: TestFleet) {
        let new = json!({"slug": "beta", "name": "Beta", "owner_user_id": "u-7", "admin_token": "beta-admin-token"});
        let org = app.operate("POST", "/cp/admin/orgs", new.clone()).await.is(201);
        assert!(!org["id"].as_str().unwrap().is_empty());
        assert_eq!(org["instance_status"], "pending");
        app.operate("POST", "/cp/admin/orgs", new).await.is(409);
        for path in ["/cp/orgs", "/cp/admin/orgs"] {
            let list = app.operate("GET", path, Value::Null).await.is(200);
            let slugs: Vec<_> = list["orgs"].as_array().unwrap().iter().map(|it| it["slug"].clone()).collect();
            assert_eq!(slugs, ["acme", "beta"]);
        }
        let token = app.operate("GET", "/cp/admin/orgs/beta/admin-token", Value::Null).await.is(200);
        assert_eq!(token, json!({"admin_token": "beta-admin-token"}));
        app.operate("GET", "/cp/admin/orgs/none/admin-token", Value::Null).await.is(404);
        let change = json!({"platform_url": "http://127.0.0.1:1/", "config": {"A": "1"}});
        let changed = app.operate("PATCH", "/cp/admin/orgs/beta", change).await.is(200);
        assert_eq!((&changed["platform_url"], &changed["config_keys"]), (&json!("http://127.0.0.1:1"), &json!(["A"])));
        let bad = app.operate("POST", "/cp/admin/orgs", json!({"slug": "Bad Slug", "admin_token": "x"})).await.is(400);
        let detail = bad["detail"].as_str().unwrap();
        assert!(detail.contains("slug: ") && detail.contains("admin_token: "), "{detail}");
    }

    async fn a_deleted_organisation_ends_with_all_it_has(app: TestFleet) {
        let it = app.provision(json!({"generation": 1})).await;
        app.operate("DELETE", "/cp/admin/tenants/acme", json!({"confirm": "other"})).await.is(400);
        app.operate("DELETE", "/cp/admin/tenants/acme", json!({"confirm": "acme"})).await.is(202);
        let path = format!("/cp/workspaces/{WORKSPACE}/status?instance_id={}", it["instance_id"].as_str().unwrap());
        app.call("GET", &path, Value::Null).await.is(401);
        app.settle().await;
        assert!(app.a.instances().is_empty());
        app.sweep().await;
        assert_eq!(app.operate("GET", "/cp/orgs", Value::Null).await.is(200)["orgs"], json!([]));
        // Its name is free again.
        let token = app.org("acme").await;
        assert_ne!(token, app.token);
    }

    async fn a_platform_reads_its_settings_and_nobody_elses(app: TestFleet) {
        let config = json!({"config": {"MODEL": "m", "CP_UPSTREAM_URL": "http://cp"}});
        let org = app.operate("PATCH", "/cp/admin/orgs/acme", config).await.is(200);
        let bearer = format!("Bearer {}", app.token);
        let id = org["id"].as_str().unwrap();
        let headers = [("authorization", bearer.as_str()), ("x-molecule-org-id", id)];
        let said = app.send("GET", "/cp/tenants/config", &headers, "").await.is(200);
        assert_eq!(said, json!({"MODEL": "m", "CP_UPSTREAM_URL": "http://cp"}));
        let other = [("authorization", bearer.as_str()), ("x-molecule-org-id", "other")];
        app.send("GET", "/cp/tenants/config", &other, "").await.is(401);
        app.send("GET", "/cp/tenants/config", &headers[..1], "").await.is(400);
        app.send("GET", "/cp/tenants/config", &headers[1..], "").await.is(401);
    }

    async fn a_boot_event_moves_the_status_of_its_organisation(app: TestFleet) {
        let bearer = format!("Bearer {}", app.token);
        let headers = [("authorization", bearer.as_str())];
        let booted = json!({"event": "started", "platform_url": "http://127.0.0.1:7", "more": 1}).to_string();
        let org = app.send("POST", "/cp/tenants/boot-event", &headers, booted).await.is(200);
        assert_eq!((&org["instance_status"], &org["platform_url"]), (&json!("running"), &json!("http://127.0.0.1:7")));
        let failed = json!({"event": "boot", "error": "no disk"}).to_string();
        let org = app.send("POST", "/cp/tenants/boot-event", &headers, failed).await.is(200);
        assert_eq!((&org["instance_status"], &org["boot_event"]), (&json!("failed"), &json!("boot: no disk")));
        app.send("POST", "/cp/tenants/boot-event", &[], "").await.is(401);
    }

    async fn a_session_says_whether_it_is_a_members(app: TestFleet) {
        let session = app.operate("POST", "/cp/admin/sessions", json!({"user_id": "u-1", "ttl_seconds": 60})).await.is(201);
        let cookie = format!("theme=dark; {}", session["cookie"].as_str().unwrap());
        let ask = |slug: &str| format!("/cp/auth/tenant-member?slug={slug}");
        let member = app.send("GET", &ask("acme"), &[("cookie", &cookie)], "").await.is(200);
        assert_eq!(member, json!({"member": true, "user_id": "u-1"}));
        let member = app.send("GET", &ask("other"), &[("cookie", &cookie)], "").await.is(200);
        assert_eq!(member["member"], false);
        app.send("GET", &ask("acme"), &[("cookie", "ligand_session=wrong")], "").await.is(401);
        app.operate("DELETE", "/cp/admin/orgs/acme/members", json!({"user_id": "u-1"})).await.is(200);
        let member = app.send("GET", &ask("acme"), &[("cookie", &cookie)], "").await.is(200);
        assert_eq!(member["member"], false);
        app.operate("POST", "/cp/admin/orgs/acme/members", json!({"user_id": "u-1"})).await.is(200);
        app.fleet.clock.advance(std::time::Duration::from_secs(61));
        app.send("GET", &ask("acme"), &[("cookie", &cookie)], "").await.is(401);
    }

    async fn an_organisation_may_have_a_secret_of_its_own(app: TestFleet) {
        let new = json!({"slug": "own", "admin_token": "own-admin-token", "shared_secret": "own-shared-secret"});
        app.operate("POST", "/cp/admin/orgs", new).await.is(201);
        app.call_as("own-admin-token", "GET", "/cp/workspaces", Value::Null).await.is(401);
        let headers = [("authorization", "Bearer own-shared-secret"), ("x-molecule-admin-token", "own-admin-token")];
        app.send("GET", "/cp/workspaces", &headers, "").await.is(200);
        let acme = [("authorization", "Bearer own-shared-secret"), ("x-molecule-admin-token", app.token.as_str())];
        app.send("GET", "/cp/workspaces", &acme, "").await.is(401);
    }
}
