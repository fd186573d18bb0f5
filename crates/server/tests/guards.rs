//! Rules about the whole API, checked against the routes themselves.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::agent::online;
use crate::support::both;

fn document() -> Value {
    serde_json::to_value(ligand_server::routes::openapi()).unwrap()
}

/// Every (method, path) of the API.
fn operations() -> Vec<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let mut all = Vec::new();
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            all.push((method.clone(), path.clone()));
        }
    }
    all
}

fn references<'d>(value: &'d Value, found: &mut BTreeSet<&'d str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_api_changes_only_on_purpose() {
    insta::assert_snapshot!("openapi", ligand_server::routes::openapi().to_pretty_json().unwrap());
}

#[test]
fn every_operation_says_what_it_is_for() {
    let document = document();
    for (method, path) in operations() {
        let operation = &document["paths"][&path][&method];
        assert!(operation["summary"].is_string(), "{method} {path} has no doc comment");
        assert!(operation["tags"].is_array(), "{method} {path} has no tag");
    }
}

/// Handlers are named in `routes.rs` alone, so whatever answers is in the document; this finds a handler
/// that was written and never listed.
#[test]
fn every_handler_is_routed() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = std::fs::read_to_string(source.join("routes.rs")).unwrap();
    let (mut handlers, mut folders) = (0, vec![source]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let module = path.file_stem().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            for after in text.split("#[utoipa::path(").skip(1) {
                let (_, rest) = after.split_once("async fn ").unwrap();
                let name = rest.split(['(', '<']).next().unwrap();
                let listed = table.contains(&format!("{module}::{name}"));
                assert!(listed, "{module}::{name} is not in routes.rs");
                // Some answer to several methods.
                let methods = after.strip_prefix("method(").and_then(|it| it.split(')').next());
                handlers += methods.map_or(1, |methods| methods.split(',').count());
            }
        }
    }
    assert_eq!(handlers, operations().len());
}

both! {
    async fn strangers_pass_only_where_the_list_says_so(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        for (method, path) in operations() {
            let open = ligand_server::routes::OPEN.iter().any(|(m, p, _)| *m == method && *p == path);
            let uri = path.replace("{id}", &id);
            for token in [None, Some("a-stranger")] {
                let claims = [("x-workspace-id", id.as_str())];
                let answer = app.send(&method.to_uppercase(), &uri, token, None, &claims).await;
                assert_eq!(answer.status != 401, open, "{method} {path} {answer:?}");
                assert!(open || answer.body["error"].is_string(), "{method} {path}");
            }
        }
    }

    async fn what_is_not_there_is_said_in_json(app: TestApp) {
        app.get("/nowhere").await.refuses(404, "not found");
        app.call("PUT", "/health", None, None).await.refuses(405, "method not allowed");
    }

    async fn health_and_metrics_are_for_machines(app: TestApp) {
        let health = app.call("GET", "/health", None, None).await;
        assert!(health.text.starts_with(r#"{"status":"ok""#), "compact, and in this order: {}", health.text);
        online(&app, "a").await;
        let metrics = app.call("GET", "/metrics", None, None).await;
        assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let line = r#"molecule_http_requests_total{method="POST",path="/registry/register",status="200"} 1"#;
        assert!(metrics.text.contains(line), "{}", metrics.text);
        assert!(metrics.text.contains("molecule_http_request_duration_seconds_total"));
        app.app.db.close().await;
        let health = app.call("GET", "/health", None, None).await;
        assert_eq!((health.status.as_u16(), health.body["database"].as_str()), (503, Some("unavailable")));
    }

    async fn reports_say_what_reconcilers_do(app: TestApp) {
        let report = app.get("/admin/liveness").await.ok();
        assert_eq!((&report["status"], &report["reconcilers"]), (&serde_json::json!("ok"), &serde_json::json!({})));
    }
}
