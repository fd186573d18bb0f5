//! `ligand provider`: the protocol by which a cloud is added, from either side.

mod check;
mod serve;

use std::path::Path;

use crate::error::{CommandError, CommandResult};

/// Serve a backend to platforms elsewhere, and check what others serve
#[derive(clap::Args)]
pub(crate) struct ProviderArgs {
    #[command(subcommand)]
    verb: ProviderVerb,
}

#[derive(clap::Subcommand)]
enum ProviderVerb {
    Serve(serve::ServeArgs),
    Check(check::CheckArgs),
}

/// `ligand provider …`.
pub(crate) fn run(args: ProviderArgs) -> CommandResult {
    match args.verb {
        ProviderVerb::Serve(args) => serve::serve(args),
        ProviderVerb::Check(args) => crate::args::client(check::run(args)),
    }
}

/// What a token's file holds.
fn read(path: &Path) -> CommandResult<String> {
    let unusable = |what: String| {
        CommandError::usage(format!("--token-file: expected a file with a token: {what}"))
    };
    let text = std::fs::read_to_string(path).map_err(|cause| unusable(cause.to_string()))?;
    match text.trim() {
        "" => Err(unusable(format!("{} is empty", path.display()))),
        token => Ok(token.to_owned()),
    }
}
