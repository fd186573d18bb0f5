//! `ligand messages`: the ledger of messages, for operators.

use std::collections::HashMap;

use ligand_api::answer::said;
use ligand_api::client::Sought;
use ligand_api::message::{Message, Messages};
use ligand_domain::message::State;
use ligand_domain::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{CommandError, CommandResult, Kind};
use crate::session::Session;
use crate::target::ClientArgs;
use crate::{clock, text};

/// Most messages that a page of the server holds.
const PAGE: u32 = 500;

/// Look at messages, deliver them again, take them away
#[derive(clap::Args)]
pub(crate) struct MessagesArgs {
    #[command(subcommand)]
    pub(crate) verb: MessagesVerb,
}

#[derive(clap::Subcommand)]
pub(crate) enum MessagesVerb {
    /// List messages, newest first
    List(ListArgs),
    /// Show a message: how far it came, what was sent, what was answered
    Show(OneArgs),
    /// Deliver a message again that was given up, dropped, or not delivered in time
    ///
    /// One that may have run then runs again: what it does to the world it may do twice.
    Replay(OneArgs),
    /// Take a message away that is not over yet; what its agent may still answer changes nothing
    Drop(OneArgs),
}

/// Which ones.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// Only those to this workspace, named by id or name
    #[arg(long, value_name = "WS")]
    workspace: Option<String>,
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = State::ALL.map(State::as_str))]
    state: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

/// Which one.
#[derive(clap::Args)]
pub(crate) struct OneArgs {
    /// The message's id, as `list`, `why` and `ws send --async` show it
    #[arg(value_name = "ID")]
    id: Uuid,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand messages …`.
pub(crate) async fn run(verb: MessagesVerb) -> CommandResult {
    match verb {
        MessagesVerb::List(args) => list(args).await,
        MessagesVerb::Show(args) => {
            let session = Session::open(&args.client)?;
            let message = session.client.message(&args.id.to_string()).await?;
            told(&session, &message).await
        }
        MessagesVerb::Replay(args) => {
            let session = Session::open(&args.client)?;
            let replayed = session.client.replay_message(&args.id.to_string()).await;
            told(&session, &replayed.map_err(|error| hinted(error.into(), args.id))?).await
        }
        MessagesVerb::Drop(args) => {
            let session = Session::open(&args.client)?;
            let dropped = session.client.drop_message(&args.id.to_string()).await;
            told(&session, &dropped.map_err(|error| hinted(error.into(), args.id))?).await
        }
    }
}

fn hinted(error: CommandError, id: Uuid) -> CommandError {
    match error.kind() {
        Kind::Failed => error.hint(format!("`ligand messages show {id}` tells how it stands")),
        _ => error,
    }
}

async fn list(args: ListArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let workspace = match &args.workspace {
        Some(workspace) => Some(session.resolve(workspace).await?.id),
        None => None,
    };
    let mut sought = Sought { workspace, state: args.state, ..Sought::default() };
    let mut all = Messages::default();
    let mut left = args.limit;
    loop {
        sought.limit = Some(left.min(PAGE));
        let page = session.client.messages(&sought).await?;
        left = left.saturating_sub(u32::try_from(page.messages.len()).unwrap_or(left));
        all.messages.extend(page.messages);
        all.next = page.next;
        sought.after.clone_from(&all.next);
        if all.next.is_none() || left == 0 {
            break;
        }
    }
    let names = names(&session).await;
    let now = clock::now();
    session.format.answer(&all, || table(&all.messages, &names, now))
}

/// Names of workspaces by their ids; none where the server does not tell.
async fn names(session: &Session) -> HashMap<Uuid, String> {
    let all = session.client.list().await.unwrap_or_default();
    all.into_iter().map(|workspace| (workspace.id, workspace.name)).collect()
}

fn name(names: &HashMap<Uuid, String>, id: Uuid) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

fn table(messages: &[Message], names: &HashMap<Uuid, String>, now: Timestamp) -> String {
    let rows = messages.iter().map(|message| {
        vec![
            message.queue_id.to_string(),
            name(names, message.workspace_id),
            message.caller_id.map_or_else(|| "-".to_owned(), |id| name(names, id)),
            message.state.clone(),
            message.attempt.to_string(),
            text::age(&message.accepted_at, now),
            note(message, now),
        ]
    });
    text::table(&["ID", "TO", "FROM", "STATE", "ATTEMPT", "AGE", "NOTE"], rows)
}

/// What is worth knowing of it in a line: what went wrong, and what comes next. Nothing where all is well.
pub(crate) fn note(message: &Message, now: Timestamp) -> String {
    let mut notes: Vec<String> = message.last_error.clone().into_iter().collect();
    if message.maybe_run {
        notes.push("it may have run".to_owned());
    }
    let waits = message.state == State::Accepted.as_str();
    if let Some(due) = message.due_at.as_deref().filter(|_| waits && message.attempt > 0) {
        notes.push(format!("next attempt {}", text::until(due, now)));
    }
    notes.join("; ")
}

async fn told(session: &Session, message: &Message) -> CommandResult {
    // In JSON there are no names.
    let names = match session.format {
        crate::output::Format::Table => names(session).await,
        crate::output::Format::Json => HashMap::new(),
    };
    session.format.answer(message, || whole(message, &names))
}

fn whole(message: &Message, names: &HashMap<Uuid, String>) -> String {
    let time = |at: &Option<String>| at.as_deref().map(text::moment);
    let from = message.caller_id.map(|id| name(names, id));
    let status = message.response_status.map(|status| status.to_string());
    let waits = message.state == State::Accepted.as_str();
    text::pairs(&[
        ("id", Some(message.queue_id.to_string())),
        ("to", Some(name(names, message.workspace_id))),
        ("from", Some(from.unwrap_or_else(|| "a user, or the platform".to_owned()))),
        ("origin", Some(message.origin.clone())),
        ("method", message.method.clone()),
        ("named", message.key.clone()),
        ("priority", Some(message.priority.to_string())),
        ("state", Some(message.state.clone())),
        ("attempts", Some(message.attempt.to_string())),
        (
            "may have run",
            message.maybe_run.then(|| "yes: an attempt ended without an answer".into()),
        ),
        ("accepted", Some(text::moment(&message.accepted_at))),
        ("next attempt", time(&message.due_at).filter(|_| waits)),
        ("given up", time(&message.expires_at).filter(|_| waits)),
        ("delivered", time(&message.delivered_at)),
        ("started", time(&message.started_at)),
        ("processed", time(&message.processed_at)),
        ("read", time(&message.acknowledged_at)),
        ("over", time(&message.ended_at)),
        ("evidence", message.evidence.clone()),
        ("last error", message.last_error.clone()),
        ("delegation", message.delegation_id.clone()),
        ("said", message.body.as_ref().map(words)),
        (
            "answered",
            message.response.as_ref().map(|answer| said(answer).unwrap_or_else(|| words(answer))),
        ),
        ("status", status),
        ("answer cut", message.response_cut.then(|| "only its end was kept".to_owned())),
    ])
}

/// The texts of a message that was sent, or all of it.
fn words(body: &Value) -> String {
    let parts = body.pointer("/params/message/parts").and_then(Value::as_array);
    let texts = parts.into_iter().flatten().filter_map(|part| part.get("text")?.as_str());
    let texts = texts.collect::<Vec<_>>().join(" ");
    match (texts.is_empty(), body) {
        (false, _) => texts,
        (true, Value::String(text)) => text.clone(),
        (true, body) => body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_note_says_what_went_wrong_and_what_comes() {
        let mut message = Message {
            state: "accepted".into(),
            last_error: Some("EOF".into()),
            maybe_run: true,
            attempt: 1,
            due_at: Some("1970-01-01T00:01:00Z".into()),
            ..Message::default()
        };
        let now = Timestamp::parse("1970-01-01T00:00:48Z").unwrap();
        assert_eq!(note(&message, now), "EOF; it may have run; next attempt in 12s");
        message.state = "dead".into();
        assert_eq!(note(&message, now), "EOF; it may have run");
        assert_eq!(note(&Message { state: "processed".into(), ..Message::default() }, now), "");
    }

    #[test]
    fn what_was_said_is_its_texts_or_all_of_it() {
        let parts =
            json!({ "params": { "message": { "parts": [{ "text": "a" }, { "text": "b" }] } } });
        assert_eq!(words(&parts), "a b");
        assert_eq!(words(&json!("plain")), "plain");
        assert_eq!(words(&json!({ "x": 1 })), r#"{"x":1}"#);
    }
}
