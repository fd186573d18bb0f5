//! `ligand ws create`.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::fake::{Fake, Reply, ok, refusal};
use crate::run::{Home, TOKEN, ligand, run};
use crate::sample::{self, DEMO, OTHER};

/// A server that creates `demo` with this answer, and then shows it in these statuses.
fn creating(answer: Value, statuses: &'static [&'static str]) -> (Fake, Arc<Mutex<Value>>) {
    let wanted = Arc::new(Mutex::new(Value::Null));
    let keep = Arc::clone(&wanted);
    let mut statuses = statuses.iter().copied();
    let mut last = "provisioning";
    let fake = Fake::start(move |request| match request.line.as_str() {
        "GET /workspaces" => ok(sample::both()),
        "POST /workspaces" => {
            *keep.lock().unwrap() = request.body.clone();
            Reply::Json(201, answer.clone())
        }
        line if line == format!("GET /workspaces/{DEMO}") => {
            last = statuses.next().unwrap_or(last);
            let fields = match last {
                "failed" => json!({ "last_error": "runtime echo has no recipe" }),
                _ => json!({}),
            };
            ok(sample::with(sample::workspace(last, 1), &fields))
        }
        _ => refusal(404, "not found"),
    });
    (fake, wanted)
}

fn managed() -> Value {
    json!({ "id": DEMO, "status": "provisioning", "auth_token": "minted" })
}

#[test]
fn options_become_the_body() {
    let (fake, wanted) = creating(managed(), &[]);
    let args = "ws create demo --role tests --tier 2 --parent sad --backend process --budget 500 \
                --model small -- python -m agent";
    let ran = ligand(&fake, args);
    insta::assert_snapshot!(ran.transcript());
    assert_eq!(
        *wanted.lock().unwrap(),
        json!({
            "name": "demo", "role": "tests", "tier": 2, "parent_id": OTHER, "backend": "process",
            "budget_limit": 500, "model": "small", "command": ["python", "-m", "agent"],
        })
    );
}

#[test]
fn waits_until_online() {
    let (fake, _) = creating(managed(), &["provisioning", "provisioning", "online"]);
    insta::assert_snapshot!(ligand(&fake, "ws create demo --wait").transcript());
}

#[test]
fn gives_up_when_it_fails() {
    let (fake, _) = creating(managed(), &["provisioning", "failed"]);
    insta::assert_snapshot!(ligand(&fake, "ws create demo --wait").transcript());
}

#[test]
fn an_external_one_comes_with_what_its_operator_needs() {
    let connection = json!({
        "workspace_id": DEMO, "platform_url": "http://p", "auth_token": "shown-once",
        "registry_endpoint": "http://p/registry/register",
        "heartbeat_endpoint": "http://p/registry/heartbeat",
        "curl_register_template": "curl", "python_snippet": "import",
    });
    let answer = json!({
        "id": DEMO, "status": "awaiting_agent", "external": true, "connection": connection,
    });
    let (fake, wanted) = creating(answer, &[]);
    insta::assert_snapshot!(ligand(&fake, "ws create demo --external").transcript());
    assert_eq!(*wanted.lock().unwrap(), json!({ "name": "demo", "external": true }));
}

#[test]
fn a_minted_credential_is_for_programs_only() {
    let (fake, _) = creating(managed(), &[]);
    assert!(!ligand(&fake, "ws create demo").transcript().contains("minted"));
    let ran = ligand(&fake, "ws create demo --output json");
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(printed["auth_token"], "minted");
}

#[test]
fn a_command_needs_the_admin_token() {
    let fake = Fake::start(|_| refusal(403, "a command needs the admin token"));
    insta::assert_snapshot!(ligand(&fake, "ws create demo -- sh").transcript());
}

#[test]
fn options_that_exclude_each_other_are_usage_errors() {
    let vars = [("LIGAND_SERVER", "http://127.0.0.1:1"), ("LIGAND_TOKEN", TOKEN)];
    for args in [
        &["ws", "create", "a", "--external", "--backend", "process"][..],
        &["ws", "create", "a", "--url", "http://a"],
        &["ws", "create", "a", "--tier", "5"],
        &["ws", "create", "a", "--budget=-1"],
        &["ws", "create", "a", "--timeout", "5"],
        &["ws", "create", "a", "--runtime", "echo", "--", "sh"],
    ] {
        assert_eq!(run(&Home::new(), &vars, args).code, 2, "{args:?}");
    }
}
