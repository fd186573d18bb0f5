//! `ligand up` and `ligand serve`: the servers.

use clap::{Args, Subcommand};

use crate::error::{CommandError, CommandResult};

/// Run everything on this machine, in the foreground
#[derive(Args)]
pub(crate) struct UpArgs {}

/// Run a server
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    Platform(PlatformArgs),
}

/// Run the control plane of one organisation
#[derive(Args)]
struct PlatformArgs {}

/// `ligand up`.
pub(crate) fn up(_: UpArgs) -> CommandResult {
    Err(CommandError::internal(anyhow::anyhow!("`ligand up` is not part of this build")))
}

/// `ligand serve …`.
pub(crate) fn serve(args: ServeArgs) -> CommandResult {
    match args.role {
        Role::Platform(PlatformArgs {}) => {
            Err(CommandError::internal(anyhow::anyhow!("`ligand serve` is not part of this build")))
        }
    }
}
