//! The agent alone: what `ligand agent` does, in a small binary of its own.

use std::process::ExitCode;

use clap::Parser;

/// Keep one agent enrolled with its platform, its program running and its turns answered.
#[derive(Parser)]
#[command(name = "ligand-agent", version, after_help = ligand_agent::config::ENVIRONMENT)]
struct Cli {
    #[command(flatten)]
    args: ligand_agent::config::Args,
}

fn main() -> ExitCode {
    ligand_agent::main(Cli::parse().args)
}
