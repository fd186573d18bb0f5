//! `ligand completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::CommandResult;
use crate::output;

/// Print the completions of a shell
///
/// For example: `ligand completions bash > ~/.local/share/bash-completion/completions/ligand`
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// `ligand completions`.
pub(crate) fn run(args: &CompletionsArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ligand", &mut script);
    output::bytes(&script)
}
