//! `ligand ws send`.

use std::time::Duration;

use ligand_api::answer::said;
use ligand_api::client::Prefer;
use ligand_api::message::Queued;
use serde_json::Value;

use super::follow::follow;
use crate::error::{CommandError, CommandResult, Kind};
use crate::output::{self, Format};
use crate::session::{Named, Session};
use crate::target::ClientArgs;
use crate::text;

/// Send a message to a workspace, and print its answer
///
/// A workspace that sleeps is woken by it. Without `--wait` or `--async` such a message is refused meanwhile; with
/// either it is accepted, and delivered once the agent can take it.
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
    /// Print the answer while it is being made; with `--output json` every line is an event
    #[arg(long, short, conflicts_with_all = ["wait", "later"])]
    follow: bool,
    /// Have it accepted, whatever the agent does, and wait so many seconds for the answer
    #[arg(long, value_name = "SECS", conflicts_with = "timeout", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
    /// Have it accepted, and do not wait; `ligand messages show` tells what becomes of it
    #[arg(long = "async", conflicts_with_all = ["wait", "timeout"])]
    later: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws send`.
pub(crate) async fn run(args: SendArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let patience = Duration::from_secs(args.timeout);
    if args.follow {
        return follow(&session, &named, &args.text, patience).await;
    }
    let prefer = match args.wait {
        Some(wait) => Some(Prefer::Wait(Duration::from_secs(wait))),
        None => args.later.then_some(Prefer::Later),
    };
    let sent = match prefer {
        Some(prefer) => session.client.send_preferring(&named.id, &args.text, prefer).await,
        None => session.client.send(&named.id, &args.text, patience).await,
    };
    let answer = sent.map_err(|error| unanswered(error.into(), &named.name))?;
    shown(&session, &named, &answer)
}

/// Prints an answer.
pub(super) fn shown(session: &Session, named: &Named, answer: &Value) -> CommandResult {
    if let Some(error) = failure(answer, &named.name) {
        if session.format == Format::Json {
            output::json(answer)?;
        }
        return Err(error);
    }
    let queued = serde_json::from_value::<Queued>(answer.clone()).ok();
    let queued = queued.filter(|queued| queued.queued);
    // An answer of another shape is shown as it is.
    session.format.answer(answer, || match &queued {
        Some(queued) => accepted(queued),
        None => said(answer).unwrap_or_else(|| answer.to_string()),
    })?;
    if let Some(queued) = queued {
        let id = queued.queue_id;
        output::note(&format!("`ligand messages show {id}` tells what becomes of it"));
    }
    Ok(())
}

fn accepted(queued: &Queued) -> String {
    text::pairs(&[
        ("message", Some(queued.queue_id.to_string())),
        ("status", Some(format!("queued: {}", queued.message))),
        ("waiting", Some(queued.queue_depth.to_string())),
    ])
}

/// What the agent itself says went wrong.
pub(super) fn failure(answer: &Value, name: &str) -> Option<CommandError> {
    let error = answer.get("error").filter(|error| error.is_object())?;
    let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    let data = error.get("data").filter(|data| !data.is_null());
    let data = data.map(|data| data.as_str().map_or_else(|| data.to_string(), str::to_owned));
    Some(CommandError::failed(format!("{name} answered: {message}")).because(data))
}

pub(super) fn unanswered(error: CommandError, name: &str) -> CommandError {
    match error.kind() {
        Kind::TimedOut => error.hint("a longer --timeout waits longer; the turn may still be done"),
        Kind::Failed => error.hint(format!("`ligand why {name}` tells how the workspace stands")),
        _ => error,
    }
}
