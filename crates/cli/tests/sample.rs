//! What the fake server tells about its workspaces.

use serde_json::{Value, json};

/// The id of [`workspace`].
pub(crate) const DEMO: &str = "11111111-1111-4111-8111-111111111111";
/// Another.
pub(crate) const OTHER: &str = "22222222-2222-4222-8222-222222222222";
/// In the future, so that an age is always `0s`: ages themselves are tested where they are computed.
pub(crate) const SINCE: &str = "2099-01-01T00:00:00.000000Z";

/// One that is well.
pub(crate) fn workspace(status: &str, generation: i64) -> Value {
    json!({
        "id": DEMO, "name": "demo", "role": "tests", "tier": 3, "status": status,
        "agent_card": null, "url": "http://127.0.0.1:4000", "parent_id": null, "active_tasks": 0,
        "max_concurrent_tasks": 1, "last_error_rate": 0.0, "uptime_seconds": 60, "runtime": "echo",
        "x": 0.0, "y": 0.0, "collapsed": false, "last_heartbeat_at": SINCE,
        "generation": generation, "intent": "running", "since": SINCE, "backend": "process",
        "evidence": "registered from 127.0.0.1", "last_error": null, "next_attempt_at": null,
    })
}

/// The same with some fields changed.
pub(crate) fn with(mut workspace: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        workspace[name] = value.clone();
    }
    workspace
}

/// One that failed.
pub(crate) fn failed() -> Value {
    let fields = json!({
        "id": OTHER, "name": "sad", "runtime": "langgraph", "evidence": "process exited",
        "last_error": "exit code 1", "next_attempt_at": "2020-01-01T00:00:00Z",
    });
    with(workspace("failed", 12), &fields)
}

/// Both, as the list has them.
pub(crate) fn both() -> Value {
    json!([workspace("online", 2), failed()])
}
