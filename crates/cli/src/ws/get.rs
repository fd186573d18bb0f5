//! `ligand ws get`.

use ligand_api::workspace::Workspace;
use ligand_domain::time::Timestamp;

use crate::error::CommandResult;
use crate::session::Session;
use crate::target::ClientArgs;
use crate::{clock, text};

/// Show a workspace
#[derive(clap::Args)]
pub(crate) struct GetArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws get`.
pub(crate) async fn run(args: GetArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let workspace = session.client.workspace(&named.id).await?;
    session.format.answer(&workspace, || description(&workspace, clock::now()))
}

fn description(workspace: &Workspace, now: Timestamp) -> String {
    let dated = |at: &str| format!("{} ({})", text::moment(at), text::age(at, now));
    let next = workspace.next_attempt_at.clone().flatten();
    let turns = format!("{} of {}", workspace.active_tasks, workspace.max_concurrent_tasks);
    text::pairs(&[
        ("name", Some(workspace.name.clone())),
        ("id", Some(workspace.id.to_string())),
        ("role", workspace.role.clone()),
        ("parent", workspace.parent_id.map(|id| id.to_string())),
        ("status", Some(workspace.status.clone())),
        ("since", Some(workspace.since.as_str()).filter(|at| !at.is_empty()).map(dated)),
        ("evidence", workspace.evidence.clone()),
        ("last error", workspace.last_error.clone().flatten()),
        ("next attempt", next.map(|at| text::until(&at, now))),
        ("intent", Some(workspace.intent.clone())),
        ("generation", Some(workspace.generation.to_string())),
        ("runtime", Some(workspace.runtime.clone())),
        ("backend", workspace.backend.clone().flatten()),
        ("tier", Some(workspace.tier.to_string())),
        ("url", Some(workspace.url.clone())),
        ("turns", Some(turns)),
        ("last heartbeat", workspace.last_heartbeat_at.as_deref().map(dated)),
    ])
}
