//! `ligand config`: the settings a server would run with.

use clap::{Args, Subcommand};

use crate::error::{CommandError, CommandResult};

/// Look at the settings of a server
#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Subcommand)]
enum ConfigVerb {
    Show(ConfigShowArgs),
}

/// Show every setting, its value, and where that comes from
#[derive(Args)]
struct ConfigShowArgs {}

/// `ligand config …`.
pub(crate) fn config(args: ConfigArgs) -> CommandResult {
    match args.verb {
        ConfigVerb::Show(ConfigShowArgs {}) => {
            Err(CommandError::internal(anyhow::anyhow!("settings are not part of this build")))
        }
    }
}
