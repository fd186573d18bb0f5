//! `ligand openapi`.

use crate::error::CommandResult;
use crate::output;
use crate::session::Session;
use crate::target::ClientArgs;

/// Print the OpenAPI document of the server
#[derive(clap::Args)]
pub(crate) struct OpenapiArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand openapi`.
pub(crate) async fn run(args: OpenapiArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    // JSON in either format: there is no table to make of it.
    output::json(&session.client.openapi().await?)
}
