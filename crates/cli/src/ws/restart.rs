//! `ligand ws restart`.

use ligand_api::workspace::Restarted;

use crate::error::{CommandError, CommandResult};
use crate::session::Session;
use crate::target::ClientArgs;
use crate::text;
use crate::watch::{self, WaitArgs};

/// Restart a workspace in a new generation
#[derive(clap::Args)]
pub(crate) struct RestartArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws restart`.
pub(crate) async fn run(args: RestartArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    if !args.wait.wait {
        let restarted = session.client.restart(&named.id).await?;
        return session.format.answer(&restarted, || summary(&named.name, &restarted));
    }
    // Read before asking: what is awaited is a later generation than this.
    let before = session.client.workspace(&named.id).await?;
    let restarted = session.client.restart(&named.id).await?;
    session.format.answer(&restarted, || summary(&named.name, &restarted))?;
    if restarted.status == "noop" {
        return Err(CommandError::failed(format!("{} was not restarted", named.name))
            .because(restarted.message));
    }
    watch::until_online(&session, &named, Some(&before), &args.wait).await
}

fn summary(name: &str, restarted: &Restarted) -> String {
    text::pairs(&[
        ("name", Some(name.to_owned())),
        ("status", Some(restarted.status.clone())),
        ("message", restarted.message.clone()),
    ])
}
