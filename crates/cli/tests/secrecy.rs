//! No token is ever written where it can be read by anybody but its holder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::http::Call;
use crate::stack::{Stack, environment, until};

/// Presented, and wrong.
const WRONG: &str = "a-wrong-token-that-somebody-presented-7c1f";

/// Tokens by what they are.
type Tokens = BTreeMap<String, String>;

/// A whole life, with every token that played a part in it.
fn live(stack: &mut Stack) -> (Tokens, String) {
    let mut tokens =
        Tokens::from([("admin".to_owned(), stack.admin()), ("wrong".into(), WRONG.into())]);
    let created = stack.ok(&["ws", "create", "a", "--output", "json", "--wait"]);
    let created: Value = serde_json::from_str(&created).unwrap();
    let id = created["id"].as_str().unwrap().to_owned();
    let mut note = |what: &str, token: &str| {
        assert!(token.len() >= 32, "{what}: {token}");
        tokens.insert(what.to_owned(), token.to_owned());
    };
    let api = created["auth_token"].as_str().unwrap().to_owned();
    note("api", &api);
    note("instance 1", &stack.credential(&id));
    stack.ok(&["ws", "send", "a", "hi"]);
    stack.ok(&["ws", "restart", "a", "--wait"]);
    note("instance 2", &stack.credential(&id));
    stack.kill_instance(stack.leader(&id, 2));
    until("generation 3 settles", || (stack.settled(&id) == 3).then_some(()));
    note("instance 3", &stack.credential(&id));
    let external = stack.ok(&["ws", "create", "x", "--external", "--output", "json"]);
    let external: Value = serde_json::from_str(&external).unwrap();
    let handed = external["connection"]["auth_token"].as_str().unwrap().to_owned();
    note("external", &handed);
    let card = json!({ "name": "x", "url": "http://localhost:1" });
    let body = json!({ "id": external["id"], "url": "http://localhost:1", "agent_card": card });
    let answer =
        Call::new(stack.url(), "POST /registry/register").token(&handed).json(&body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    for line in [format!("GET /workspaces/{id}/why"), "GET /workspaces".to_owned()] {
        assert_eq!(Call::new(stack.url(), &line).token(WRONG).send().status, 401);
        let line = format!("{line}?token={}", "no-secret");
        assert_eq!(Call::new(stack.url(), &line).token(WRONG).send().status, 401);
    }
    for token in [WRONG, "instance 1"] {
        let token = tokens.get(token).map_or(token, String::as_str);
        let beat = json!({ "workspace_id": id });
        let answer =
            Call::new(stack.url(), "POST /registry/heartbeat").token(token).json(&beat).send();
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let line = format!("POST /workspaces/{id}/restart");
    assert_eq!(
        Call::new(stack.url(), &line).token(&api).send().status,
        200,
        "it may act on its own"
    );
    let generation =
        until("it settles", || Some(stack.settled(&id)).filter(|reached| *reached > 3));
    tokens.insert(format!("instance {generation}"), stack.credential(&id));
    stack.kill_server();
    stack.restart();
    stack.settled(&id);
    (tokens, id)
}

/// Every file below a directory but those that exist to hold a token.
fn files(dir: &Path, found: &mut Tokens) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        match path.is_dir() {
            true => files(&path, found),
            false
                if ["admin-token", ".auth_token", ".auth_token.previous"]
                    .contains(&name.as_str()) => {}
            false => {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                found.insert(path.display().to_string(), text);
            }
        }
    }
}

#[test]
fn tokens_are_in_no_log_event_answer_or_metric() {
    let mut stack = Stack::start(&["serve", "platform"], &[("LIGAND_LOG", "trace")]);
    let (tokens, id) = live(&mut stack);
    let mut said = Tokens::new();
    for verb in ["why", "ws get", "ws logs"] {
        for format in ["table", "json"] {
            let args: Vec<&str> =
                verb.split(' ').chain([id.as_str(), "--output", format]).collect();
            said.insert(format!("{verb} {format}"), stack.ok(&args));
        }
    }
    let events = stack.ok(&["events", "--after", "0", "--for", "1", "--all", "--output", "json"]);
    assert!(events.contains("WORKSPACE_ONLINE"), "{events}");
    said.insert("events".into(), events);
    said.insert("list".into(), stack.ok(&["ws", "list", "--output", "json"]));
    said.insert("doctor".into(), stack.cli(&["doctor"]).transcript());
    for line in
        ["GET /metrics", "GET /health", "GET /openapi.json", "GET /admin/liveness", "GET /events"]
    {
        said.insert(line.into(), Call::new(stack.url(), line).token(&stack.admin()).send().body);
    }
    for process in stack.processes().into_iter().chain([stack.server_pid()]) {
        said.insert(format!("environment of {process}"), environment(process).join("\n"));
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap();
        said.insert(
            format!("command line of {process}"),
            String::from_utf8_lossy(&line).into_owned(),
        );
    }
    stack.ok(&["ws", "delete", "a"]);
    said.insert("why, deleted".into(), stack.ok(&["why", &id, "--output", "json"]));
    files(stack.dir(), &mut said);
    let logs = stack.server_logs();
    assert!(logs.contains("TRACE") && logs.contains("/registry/register"), "the log says enough");
    assert!(said.keys().any(|name| name.ends_with("agent.log")), "{:?}", said.keys());
    assert!(said.keys().any(|name| name.contains("ligand.db")), "{:?}", said.keys());
    assert!(tokens.len() >= 7, "{:?}", tokens.keys());
    for (what, token) in &tokens {
        for (place, text) in &said {
            assert!(!text.contains(token), "the {what} token is in {place}");
        }
    }
}

#[test]
fn secrets_in_plain_text_are_told_at_a_start_and_by_doctor() {
    let mut stack = Stack::platform();
    let plain = "secrets are stored in plain text";
    let body = json!({ "key": "K", "value": "a-value-in-plain-text" });
    let line = "PUT /settings/secrets";
    let set = Call::new(stack.url(), line).token(&stack.admin()).json(&body).send();
    assert_eq!(set.status, 200, "{set:?}");
    assert!(!stack.server_logs().contains(plain), "there was none when it started");
    stack.kill_server();
    stack.restart();
    let logs = stack.server_logs();
    assert!(logs.contains(plain) && logs.contains("SECRETS_ENCRYPTION_KEY"), "{logs}");
    assert!(!logs.contains("a-value-in-plain-text"));
    let said = stack.cli(&["doctor"]).stdout;
    assert!(said.contains("1 is stored in plain text"), "{said}");
    assert!(said.contains("`ligand secret rotate`"), "{said}");
}
