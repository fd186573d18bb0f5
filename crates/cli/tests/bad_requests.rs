//! Requests that make no sense, to a real server: each gets the refusal it deserves, and changes nothing.

use serde_json::json;

use crate::http::{Answer, Call};
use crate::stack::Stack;

/// Longest body that the platform reads.
const LONGEST: usize = 1 << 20;
const STRANGER: &str = "00000000-0000-4000-8000-000000000000";

struct Rows<'a> {
    stack: &'a Stack,
    admin: String,
}

impl Rows<'_> {
    #[track_caller]
    fn check(&self, line: &str, token: Option<&str>, body: &[u8], expected: (u16, &str)) -> Answer {
        let call = Call::new(self.stack.url(), line).body(body);
        let call = match token {
            Some(token) => call.token(token),
            None => call,
        };
        let answer = call.send();
        assert_eq!(answer.status, expected.0, "{line}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(expected.1), "{line}: {answer:?}");
        answer
    }

    /// As the administrator.
    #[track_caller]
    fn admin(&self, line: &str, body: &[u8], expected: (u16, &str)) -> Answer {
        self.check(line, Some(&self.admin), body, expected)
    }
}

fn with_rows(test: impl FnOnce(&Rows<'_>, &str)) {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    let rows = Rows { stack: &stack, admin: stack.admin() };
    test(&rows, &id);
    assert_eq!(stack.settled(&id), 1, "nothing happened to it");
    assert_eq!(stack.ask("GET /workspaces").as_array().unwrap().len(), 1);
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    let server = stack.server_logs();
    assert!(!server.contains("panicked"), "{server}");
}

#[test]
fn malformed_ids_and_bodies() {
    with_rows(|rows, id| {
        let bad_id = (400, "invalid workspace ID");
        for line in [
            "GET /workspaces/not-an-id",
            "PATCH /workspaces/not-an-id",
            "DELETE /workspaces/..",
            "POST /workspaces/not-an-id/restart",
            "POST /workspaces/not-an-id/a2a",
            "GET /workspaces/not-an-id/why",
            "GET /workspaces/%00/logs",
        ] {
            rows.admin(line, b"{}", bad_id);
        }
        let of = |rest: &str| format!("/workspaces/{id}{rest}");
        for body in [&b""[..], b"{", b"[]", b"\xff\xfe", br#"{"name": 7}"#, b"null"] {
            rows.admin("POST /workspaces", body, (400, "invalid workspace"));
            rows.admin(&format!("PATCH {}", of("")), body, (400, "")).json();
        }
        for body in [&b""[..], b"{", b"[]", b"\xff\xfe"] {
            rows.admin(&format!("POST {}", of("/a2a")), body, (400, "invalid JSON"));
            rows.admin("POST /registry/heartbeat", body, (400, "invalid request body"));
            rows.admin("POST /registry/register", body, (400, "invalid request body"));
        }
        rows.admin(&format!("POST {}", of("/restart")), b"{", (400, "invalid JSON body"));
        rows.admin("GET /events/stream?after=yesterday", b"", (400, ""));
        rows.admin("GET /no/such/route", b"", (404, "not found"));
        rows.admin("PUT /workspaces", b"", (405, "method not allowed"));
    });
}

#[test]
fn bodies_that_are_too_long() {
    with_rows(|rows, id| {
        let name = "x".repeat(LONGEST);
        let long = json!({ "name": name }).to_string();
        for line in ["POST /workspaces", "POST /registry/register", "POST /registry/heartbeat"] {
            rows.admin(line, long.as_bytes(), (413, "too large"));
        }
        let line = format!("POST /workspaces/{id}/a2a");
        let answer = rows.admin(&line, long.as_bytes(), (400, "invalid JSON"));
        assert!(answer.body.contains("longer than"), "{answer:?}");
    });
}

#[test]
fn tokens_that_are_missing_or_wrong() {
    with_rows(|rows, id| {
        let instance = rows.stack.credential(id);
        let other = rows.stack.ok(&["ws", "create", "b", "--wait", "--output", "json"]);
        let other: serde_json::Value = serde_json::from_str(&other).unwrap();
        let other = (other["id"].as_str().unwrap(), other["auth_token"].as_str().unwrap());
        let of = |method: &str, rest: &str| format!("{method} /workspaces/{id}{rest}");
        let only_admin =
            ["GET /workspaces", "POST /workspaces", "GET /events", "GET /events/stream"];
        for line in only_admin.map(str::to_owned).into_iter().chain([of("DELETE", "")]) {
            rows.check(&line, None, b"{}", (401, "admin auth required"));
            for token in ["wrong", "", &instance, other.1] {
                rows.check(&line, Some(token), b"{}", (401, "admin auth"));
            }
        }
        for line in [of("PATCH", ""), of("POST", "/restart"), of("GET", "/why"), of("GET", "/logs")]
        {
            rows.check(&line, None, b"{}", (401, "missing workspace auth token"));
            for token in ["wrong", other.1] {
                rows.check(&line, Some(token), b"{}", (401, "invalid workspace auth token"));
            }
        }
        let send = of("POST", "/a2a");
        rows.check(&send, None, b"{}", (401, "missing caller auth token"));
        rows.check(&send, Some("wrong"), b"{}", (401, "invalid caller auth token"));
        let beat = json!({ "workspace_id": id }).to_string();
        for token in [None, Some("wrong"), Some(other.1)] {
            rows.check("POST /registry/heartbeat", token, beat.as_bytes(), (401, ""));
        }
        rows.stack.ok(&["ws", "delete", other.0, "--purge"]);
    });
}

#[test]
fn workspaces_that_are_not_there() {
    with_rows(|rows, _| {
        let missing = (404, "workspace not found");
        let of = |method: &str, rest: &str| format!("{method} /workspaces/{STRANGER}{rest}");
        for line in [of("GET", ""), of("GET", "/why"), of("GET", "/logs"), of("POST", "/restart")] {
            rows.admin(&line, b"", missing);
        }
        rows.admin(&of("POST", "/a2a"), b"{}", missing);
        for verb in ["get", "restart", "delete", "logs"] {
            let ran = rows.stack.cli(&["ws", verb, "nobody"]);
            assert_eq!(ran.code, 1, "{}", ran.transcript());
            assert!(ran.stderr.contains("there is no workspace `nobody`"), "{}", ran.stderr);
        }
    });
}
