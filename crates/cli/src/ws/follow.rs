//! An answer that comes as it is made, as a person reads it.

use std::time::Duration;

use futures_util::StreamExt as _;
use ligand_api::answer::{said, texts};
use ligand_api::client::{Error, Streamed};
use serde_json::Value;

use super::send::{failure, shown, unanswered};
use crate::error::{CommandError, CommandResult};
use crate::output::{self, Format};
use crate::session::{Named, Session};

/// Sends a message, and prints its answer while it comes.
pub(super) async fn follow(
    session: &Session,
    named: &Named,
    text: &str,
    patience: Duration,
) -> CommandResult {
    let failed = |error: Error| unanswered(error.into(), &named.name);
    let streamed = session.client.stream(&named.id, text, patience).await.map_err(failed)?;
    let mut events = match streamed {
        Streamed::Whole(answer) => return shown(session, named, &answer),
        Streamed::Events(events) => events,
    };
    let mut told = Told::default();
    while let Some(event) = events.next().await {
        let event = event.map_err(failed)?;
        if session.format == Format::Json {
            session.format.item(&event, String::new)?;
        }
        if let Some(error) = failure(&event, &named.name) {
            return Err(error);
        }
        let new = told.hear(&event);
        if session.format == Format::Table {
            new.talk.iter().for_each(|line| output::note(line));
            output::bytes(new.text.as_bytes())?;
        }
    }
    if session.format == Format::Table {
        output::bytes(told.end().as_bytes())?;
    }
    match told.bad {
        None => Ok(()),
        Some(state) => {
            let text = format!("{}: its task is {state}", named.name);
            Err(CommandError::failed(text).because(told.last))
        }
    }
}

/// What was heard so far.
#[derive(Debug, Default)]
struct Told {
    /// Something was printed.
    any: bool,
    /// It ended amid a line.
    amid: bool,
    /// What its status said last, where that was not printed.
    last: Option<String>,
    /// How its task came out, where that is no success.
    bad: Option<String>,
}

/// What an event adds.
#[derive(Debug, Default, PartialEq, Eq)]
struct New {
    text: String,
    /// What it says of its progress.
    talk: Option<String>,
}

impl Told {
    /// Takes an event, in the words of either version of the protocol.
    fn hear(&mut self, event: &Value) -> New {
        let Some(result) = event.get("result") else { return New::default() };
        let inner = ["artifactUpdate", "statusUpdate", "task"].iter().find_map(|it| result.get(it));
        let result = inner.unwrap_or(result);
        if let Some(artifact) = result.get("artifact") {
            let text: String = artifact.get("parts").into_iter().flat_map(texts).collect();
            let appended = result.get("append").and_then(Value::as_bool).unwrap_or(false);
            return New { text: self.add(&text, appended), talk: None };
        }
        let Some(state) = result.pointer("/status/state").and_then(Value::as_str) else {
            let text = said(event).unwrap_or_default();
            return New { text: self.add(&text, false), talk: None };
        };
        let state = state.trim_start_matches("TASK_STATE_").to_lowercase().replace('_', "-");
        let parts = result.pointer("/status/message/parts").into_iter().flat_map(texts);
        let words = Some(parts.collect::<String>()).filter(|words| !words.is_empty());
        if ["failed", "rejected", "canceled", "auth-required"].contains(&state.as_str()) {
            self.bad = Some(state.clone());
        }
        if ["submitted", "working"].contains(&state.as_str()) {
            return New { text: String::new(), talk: words };
        }
        // A whole task, where no part of it came before.
        let artifacts = result.get("artifacts").and_then(Value::as_array).into_iter().flatten();
        let texts: Vec<&str> =
            artifacts.filter_map(|artifact| artifact.get("parts")).flat_map(texts).collect();
        let text = if self.any { String::new() } else { texts.join("\n") };
        self.last = words.or_else(|| self.last.take());
        New { text: self.add(&text, false), talk: None }
    }

    /// Text after what there is: on its own line, unless it goes on with the last.
    fn add(&mut self, text: &str, appended: bool) -> String {
        if text.is_empty() {
            return String::new();
        }
        let between = if self.amid && !appended { "\n" } else { "" };
        (self.any, self.amid) = (true, !text.ends_with('\n'));
        format!("{between}{text}")
    }

    /// What is missing at the end.
    fn end(&mut self) -> String {
        let last = if self.any || self.bad.is_some() { None } else { self.last.take() };
        let mut text = self.add(&last.unwrap_or_default(), false);
        if self.amid {
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is printed of these results.
    fn read(results: &[Value]) -> (String, Vec<String>, Told) {
        let (mut told, mut printed, mut talk) = (Told::default(), String::new(), Vec::new());
        for result in results {
            let new = told.hear(&json!({ "jsonrpc": "2.0", "id": 1, "result": result }));
            printed += &new.text;
            talk.extend(new.talk);
        }
        printed += &told.end();
        (printed, talk, told)
    }

    fn parts(text: &str) -> Value {
        json!([{ "text": text }])
    }

    #[test]
    fn parts_are_joined_in_both_versions() {
        let piece = |text: &str, append: bool| json!({ "artifact": { "parts": parts(text) }, "append": append });
        let old = |text: &str, append| {
            let mut piece = piece(text, append);
            piece["kind"] = json!("artifact-update");
            piece
        };
        let begun = json!({ "kind": "task", "status": { "state": "working" } });
        let ended =
            json!({ "kind": "status-update", "status": { "state": "completed" }, "final": true });
        let stream = [begun, old("a", false), old("b", true), old("c\n", false), ended];
        assert_eq!(read(&stream).0, "ab\nc\n");
        let new = |text: &str, append| json!({ "artifactUpdate": piece(text, append) });
        let begun = json!({ "task": { "status": { "state": "TASK_STATE_WORKING" } } });
        let ended = json!({ "statusUpdate": { "status": { "state": "TASK_STATE_COMPLETED" } } });
        let stream = [begun, new("a", false), new("b", true), ended];
        let (printed, talk, told) = read(&stream);
        assert_eq!((printed.as_str(), talk.len(), told.bad), ("ab\n", 0, None));
    }

    #[test]
    fn what_is_said_only_of_the_status_is_printed_at_the_end() {
        let status = |state: &str, words: &str| json!({ "kind": "status-update", "status": { "state": state, "message": { "parts": parts(words) } } });
        let (printed, talk, _) = read(&[status("working", "hm"), status("completed", "done")]);
        assert_eq!((printed.as_str(), talk), ("done\n", vec!["hm".to_owned()]));
        let (printed, _, told) = read(&[status("failed", "no key")]);
        assert_eq!((printed.as_str(), told.bad.as_deref()), ("", Some("failed")));
        assert_eq!(told.last.as_deref(), Some("no key"));
    }

    #[test]
    fn a_message_or_a_whole_task_is_an_answer_too() {
        let message = json!({ "kind": "message", "parts": parts("hi") });
        assert_eq!(read(&[message]).0, "hi\n");
        assert_eq!(read(&[json!({ "message": { "parts": parts("hi") } })]).0, "hi\n");
        let artifacts = json!([{ "parts": parts("x") }, { "parts": parts("y") }]);
        let task = json!({ "status": { "state": "TASK_STATE_COMPLETED" }, "artifacts": artifacts });
        assert_eq!(read(&[json!({ "task": task })]).0, "x\ny\n");
    }
}
