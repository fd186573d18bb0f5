//! `ligand ws list`.

use ligand_api::workspace::Workspace;
use ligand_domain::time::Timestamp;

use crate::error::CommandResult;
use crate::session::Session;
use crate::target::ClientArgs;
use crate::{clock, text};

const COLUMNS: [&str; 8] = ["NAME", "ID", "STATUS", "GEN", "RUNTIME", "BACKEND", "SINCE", "NOTE"];

/// List workspaces
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws list`.
pub(crate) async fn run(args: ListArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let workspaces = session.client.list().await?;
    let now = clock::now();
    session.format.answer(&workspaces, || {
        text::table(&COLUMNS, workspaces.iter().map(|workspace| row(workspace, now)))
    })
}

fn row(workspace: &Workspace, now: Timestamp) -> Vec<String> {
    vec![
        workspace.name.clone(),
        workspace.id.to_string(),
        workspace.status.clone(),
        workspace.generation.to_string(),
        workspace.runtime.clone(),
        workspace.backend.clone().flatten().unwrap_or_else(|| "-".to_owned()),
        text::age(&workspace.since, now),
        text::standing(workspace, now),
    ]
}
