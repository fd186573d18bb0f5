//! `ligand why`: the causal chain to the present state.

use ligand_api::journal::{Entry, Why};
use ligand_api::message::Message;
use ligand_api::migration::Migration;
use ligand_api::workspace::Moving;
use ligand_domain::time::Timestamp;

use crate::error::CommandResult;
use crate::session::Session;
use crate::target::ClientArgs;
use crate::{clock, messages, text};

/// Show why a workspace stands where it does, and what happens next
///
/// Times are UTC.
#[derive(clap::Args)]
pub(crate) struct WhyArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand why`.
pub(crate) async fn run(args: WhyArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let why = session.client.why(&named.id).await?;
    // Whoever may ask why it stands may not ask how its migration goes: then that is left out.
    let moving = match &why.workspace.migration {
        Some(_) => session.client.migrations_of(&named.id).await.ok(),
        None => None,
    };
    let moving = moving.and_then(|all| all.migrations.into_iter().next());
    session.format.answer(&why, || story(&why, moving.as_ref(), clock::now()))
}

/// Header, journal, what comes next.
fn story(why: &Why, moving: Option<&Migration>, now: Timestamp) -> String {
    let mut lines = vec![header(why, now)];
    let kinds = why.journal.iter().map(|entry| entry.kind.chars().count()).max().unwrap_or(0);
    let generations = why.journal.iter().map(|entry| generation(entry).len()).max().unwrap_or(0);
    let mut today = String::new();
    for entry in &why.journal {
        let day = text::day(&entry.at);
        if day != today {
            lines.push(format!("{day} UTC"));
            today = day;
        }
        lines.push(format!(
            "  {}  {:generations$}  {:kinds$}  {}",
            text::time_of_day(&entry.at),
            generation(entry),
            text::plain(&entry.kind),
            text::plain(&entry.summary),
        ));
    }
    if !why.messages.is_empty() {
        lines.push("messages".to_owned());
        lines.extend(why.messages.iter().map(|message| letter(message, now)));
    }
    lines.extend(why.workspace.migration.as_ref().map(|short| under_way(short, moving, now)));
    lines.push(format!("next: {}", text::plain(&why.next)));
    if let Some(error) = why.workspace.last_error.iter().flatten().next() {
        lines.push(format!("last error: {}", text::plain(error)));
    }
    lines.join("\n")
}

fn header(why: &Why, now: Timestamp) -> String {
    let workspace = &why.workspace;
    let evidence = workspace.evidence.as_deref().filter(|evidence| !evidence.is_empty());
    let evidence = evidence.map(|evidence| format!(": {evidence}")).unwrap_or_default();
    let (since, age) = (text::moment(&workspace.since), text::age(&workspace.since, now));
    text::plain(&format!(
        "{} is {} since {since} ({age}){evidence}",
        workspace.name,
        workspace.status.to_uppercase(),
    ))
}

/// The migration that it is in, and what that waits for.
fn under_way(short: &Moving, whole: Option<&Migration>, now: Timestamp) -> String {
    let waits = whole.and_then(|it| it.waits_for.as_deref());
    let waits = waits.map(|what| format!(", waits for {what}")).unwrap_or_default();
    let wrong = whole.and_then(|it| it.last_error.as_deref());
    let wrong = wrong.map(|error| format!("; went wrong: {error}")).unwrap_or_default();
    let since = text::age(&short.since, now);
    text::plain(&format!("migration to {}: at {} ({since}){waits}{wrong}", short.to, short.phase))
}

/// One message: when it came, how it stands, and what is worth knowing of that.
fn letter(message: &Message, now: Timestamp) -> String {
    let attempts = match message.attempt {
        0 | 1 => String::new(),
        attempts => format!(" at attempt {attempts}"),
    };
    let from = message.caller_id.map_or_else(|| message.origin.clone(), |id| format!("from {id}"));
    let note = Some(messages::note(message, now)).filter(|note| !note.is_empty());
    let note = note.map(|note| format!(": {note}")).unwrap_or_default();
    text::plain(&format!(
        "  {}  {}  {}{attempts}, {from}{note}",
        text::moment(&message.accepted_at),
        message.queue_id,
        message.state,
    ))
}

fn generation(entry: &Entry) -> String {
    entry.generation.map(|generation| format!("gen {generation}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ligand_api::workspace::Workspace;

    use super::*;

    fn entry(at: &str, generation: Option<i64>, kind: &str, summary: &str) -> Entry {
        Entry {
            at: at.to_owned(),
            generation,
            kind: kind.to_owned(),
            summary: summary.to_owned(),
            ..Entry::default()
        }
    }

    fn letter(state: &str, attempt: i64, last_error: Option<&str>) -> Message {
        Message {
            accepted_at: "2026-01-02T00:00:02Z".to_owned(),
            origin: "queue".to_owned(),
            state: state.to_owned(),
            attempt,
            maybe_run: last_error.is_some(),
            last_error: last_error.map(str::to_owned),
            ..Message::default()
        }
    }

    #[test]
    fn lines_are_aligned_and_days_are_named() {
        let why = Why {
            workspace: Workspace {
                name: "demo".into(),
                status: "failed".into(),
                since: "2026-01-02T00:00:01Z".into(),
                evidence: Some("process exited".into()),
                last_error: Some(Some("exit code 1".into())),
                ..Workspace::default()
            },
            next: "start generation 10 at 00:00:09".into(),
            instances: Vec::new(),
            journal: vec![
                entry("2026-01-01T23:59:59.5Z", None, "created", "by an admin"),
                entry("2026-01-02T00:00:00Z", Some(9), "registered", "from 127.0.0.1"),
                entry("2026-01-02T00:00:01Z", Some(10), "lost", "exit\ncode 1"),
            ],
            messages: vec![
                letter("processed", 1, None),
                letter("dead", 3, Some("the agent was\nended")),
            ],
        };
        let now = Timestamp::parse("2026-01-02T00:00:04Z").unwrap();
        insta::assert_snapshot!(story(&why, None, now), @r"
        demo is FAILED since 2026-01-02 00:00:01 (3s): process exited
        2026-01-01 UTC
          23:59:59.500          created     by an admin
        2026-01-02 UTC
          00:00:00.000  gen 9   registered  from 127.0.0.1
          00:00:01.000  gen 10  lost        exit code 1
        messages
          2026-01-02 00:00:02  00000000-0000-0000-0000-000000000000  processed, queue
          2026-01-02 00:00:02  00000000-0000-0000-0000-000000000000  dead at attempt 3, queue: the agent was ended; it may have run
        next: start generation 10 at 00:00:09
        last error: exit code 1
        ");
    }
    #[test]
    fn a_migration_that_is_under_way_says_what_it_waits_for() {
        let short = Moving {
            phase: "hold".into(),
            to: "east".into(),
            since: "2026-01-02T00:00:01Z".into(),
        };
        let now = Timestamp::parse("2026-01-02T00:00:04Z").unwrap();
        assert_eq!(under_way(&short, None, now), "migration to east: at hold (3s)");
        let whole = Migration {
            waits_for: Some("2 turns in flight to end".into()),
            last_error: Some("no\nroute".into()),
            ..Migration::default()
        };
        assert_eq!(
            under_way(&short, Some(&whole), now),
            "migration to east: at hold (3s), waits for 2 turns in flight to end; went wrong: no route"
        );
    }
}
