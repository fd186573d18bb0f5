//! `ligand ws resume`, `ligand ws wake`, `ligand ws recover`.

use crate::error::CommandResult;
use crate::session::Session;
use crate::target::ClientArgs;
use crate::text;
use crate::watch::{self, WaitArgs};
use crate::ws::stop;

/// Let a paused workspace go on
#[derive(clap::Args)]
pub(crate) struct ResumeArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// Resume the paused workspaces below it too
    #[arg(long)]
    cascade: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Wake a hibernated workspace
#[derive(clap::Args)]
pub(crate) struct WakeArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Forget a workspace's failures and start it at once
///
/// For one that is failed or offline and waits for its next attempt.
#[derive(clap::Args)]
pub(crate) struct RecoverArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws resume`.
pub(crate) async fn resume(args: ResumeArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let asked = session.client.resume(&named.id, args.cascade).await;
    let hint = "--cascade resumes them too";
    let resumed = asked.map_err(|e| stop::below(&named, "resumed", hint, e))?;
    let below = Some(resumed.resumed_count - 1).filter(|count| *count > 0);
    session.format.answer(&resumed, || {
        text::pairs(&[
            ("name", Some(named.name.clone())),
            ("status", Some(resumed.status.clone())),
            ("also resumed", below.map(|count| count.to_string())),
        ])
    })?;
    awaited(&session, &named, &args.wait).await
}

/// `ligand ws wake`.
pub(crate) async fn wake(args: WakeArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let woken = session.client.wake(&named.id).await?;
    let status = || {
        text::pairs(&[("name", Some(named.name.clone())), ("status", Some(woken.status.clone()))])
    };
    session.format.answer(&woken, status)?;
    awaited(&session, &named, &args.wait).await
}

/// `ligand ws recover`.
pub(crate) async fn recover(args: RecoverArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let before = session.client.workspace(&named.id).await?;
    let recovered = session.client.recover(&named.id).await?;
    session.format.answer(&recovered, || {
        text::pairs(&[
            ("name", Some(named.name.clone())),
            ("status", Some(recovered.status.clone())),
            ("failures forgotten", Some(recovered.failures_forgotten.to_string())),
        ])
    })?;
    match args.wait.wait {
        true => watch::until_online(&session, &named, Some(&before), &args.wait).await,
        false => Ok(()),
    }
}

async fn awaited(
    session: &Session,
    named: &crate::session::Named,
    wait: &WaitArgs,
) -> CommandResult {
    match wait.wait {
        true => watch::until_online(session, named, None, wait).await,
        false => Ok(()),
    }
}
