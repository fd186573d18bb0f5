//! `ligand ws logs`.

use serde_json::json;

use crate::error::CommandResult;
use crate::output::{self, Format};
use crate::session::Session;
use crate::target::ClientArgs;

/// Print the last lines that a workspace's instance wrote
#[derive(clap::Args)]
pub(crate) struct LogsArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// How many lines
    #[arg(long, value_name = "N", default_value_t = 200)]
    lines: usize,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws logs`.
pub(crate) async fn run(args: LogsArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let logs = session.client.logs(&named.id, args.lines).await?;
    match session.format {
        // As they were written, colours and all.
        Format::Table => output::bytes(&logs),
        Format::Json => {
            let text = String::from_utf8_lossy(&logs);
            output::json(&json!({ "lines": text.lines().collect::<Vec<_>>() }))
        }
    }
}
