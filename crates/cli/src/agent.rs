//! `ligand agent`: the program beside an agent.

use clap::Args;

use crate::error::{CommandError, CommandResult};

/// Run beside an agent: register it, report for it, keep it alive
///
/// Without a command it runs a built-in agent that echoes what it is told.
#[derive(Args)]
pub(crate) struct AgentArgs {
    /// The agent's command
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// `ligand agent`.
pub(crate) fn agent(args: AgentArgs) -> CommandResult {
    let what = args.command.first().map_or("the built-in agent", String::as_str);
    Err(CommandError::internal(anyhow::anyhow!("cannot run {what}: no agent in this build")))
}
