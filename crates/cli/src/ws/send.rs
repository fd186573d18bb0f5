//! `ligand ws send`.

use std::time::Duration;

use serde_json::Value;

use crate::error::{CommandError, CommandResult, Kind};
use crate::output::{self, Format};
use crate::session::Session;
use crate::target::ClientArgs;

/// Send a message to a workspace, and print its answer
#[derive(clap::Args)]
pub(crate) struct SendArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// What to say
    text: String,
    /// How many seconds to wait for the answer
    #[arg(long, value_name = "SECS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws send`.
pub(crate) async fn run(args: SendArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let patience = Duration::from_secs(args.timeout);
    let sent = session.client.send(&named.id, &args.text, patience).await;
    let answer = sent.map_err(|error| unanswered(error.into(), &named.name))?;
    if let Some(error) = failure(&answer, &named.name) {
        if session.format == Format::Json {
            output::json(&answer)?;
        }
        return Err(error);
    }
    // An answer of another shape, for example that the message is queued, is shown as it is.
    session.format.answer(&answer, || said(&answer).unwrap_or_else(|| answer.to_string()))
}

/// What the agent itself says went wrong.
fn failure(answer: &Value, name: &str) -> Option<CommandError> {
    let error = answer.get("error").filter(|error| error.is_object())?;
    let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    let data = error.get("data").filter(|data| !data.is_null());
    let data = data.map(|data| data.as_str().map_or_else(|| data.to_string(), str::to_owned));
    Some(CommandError::failed(format!("{name} answered: {message}")).because(data))
}

fn unanswered(error: CommandError, name: &str) -> CommandError {
    match error.kind() {
        Kind::TimedOut => error.hint("a longer --timeout waits longer; the turn may still be done"),
        Kind::Failed => error.hint(format!("`ligand why {name}` tells how the workspace stands")),
        _ => error,
    }
}

/// The texts of an answer, in the places where agents put them. `None` where there is none.
pub(crate) fn said(answer: &Value) -> Option<String> {
    let result = answer.get("result")?;
    let artifacts = result.get("artifacts").and_then(Value::as_array).into_iter().flatten();
    let places = [result.get("parts"), result.pointer("/message/parts")];
    let places = places.into_iter().chain(artifacts.map(|artifact| artifact.get("parts")));
    let mut said: Vec<&str> = places.flatten().flat_map(texts).collect();
    if said.is_empty() {
        // What it says of its status repeats its artifacts; it counts where nothing else is said.
        said = result.pointer("/status/message/parts").into_iter().flat_map(texts).collect();
    }
    (!said.is_empty()).then(|| said.join("\n"))
}

fn texts(parts: &Value) -> impl Iterator<Item = &str> {
    let parts = parts.as_array().into_iter().flatten();
    parts.filter_map(|part| part.get("text").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(result: &Value, expected: Option<&str>) {
        assert_eq!(said(&json!({ "result": result })).as_deref(), expected);
    }

    #[test]
    fn texts_are_found_where_agents_put_them() {
        let parts = json!([{ "kind": "text", "text": "a" }, { "kind": "data" }, { "text": "b" }]);
        check(&json!({ "parts": parts }), Some("a\nb"));
        check(&json!({ "message": { "parts": parts } }), Some("a\nb"));
        check(
            &json!({ "artifacts": [{ "parts": parts }, { "parts": parts }] }),
            Some("a\nb\na\nb"),
        );
        check(&json!({ "status": { "message": { "parts": parts } } }), Some("a\nb"));
        check(
            &json!({
                "artifacts": [{ "parts": parts }],
                "status": { "message": { "parts": [{ "text": "done" }] } },
            }),
            Some("a\nb"),
        );
        check(&json!({ "parts": [{ "kind": "data" }] }), None);
        check(&json!("text"), None);
    }
}
