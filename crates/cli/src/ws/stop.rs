//! `ligand ws pause`, `ligand ws hibernate`.

use ligand_api::client::Error;
use ligand_domain::workspace::Status;
use reqwest::StatusCode;

use crate::error::{CommandError, CommandResult};
use crate::session::{Named, Session};
use crate::target::ClientArgs;
use crate::text;
use crate::watch::{self, Patience};

/// Stop a workspace until it is resumed
///
/// Its data stays. Messages to it are refused.
#[derive(clap::Args)]
pub(crate) struct PauseArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// Pause the workspaces below it too
    #[arg(long)]
    cascade: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    client: ClientArgs,
}

/// Stop a workspace until a message comes
///
/// Its data stays.
#[derive(clap::Args)]
pub(crate) struct HibernateArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// End turns that are in progress
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws pause`.
pub(crate) async fn pause(args: PauseArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let asked = session.client.pause(&named.id, args.cascade).await;
    let mut paused = asked.map_err(|e| below(&named, "paused", "--cascade pauses them too", e))?;
    // The server answered before its backend was done: that is waited for here.
    if paused.status != Status::Paused.as_str() {
        watch::until(&session, &named, Status::Paused, &args.patience).await?;
        Status::Paused.as_str().clone_into(&mut paused.status);
    }
    let below = Some(paused.paused_count - 1).filter(|count| *count > 0);
    session.format.answer(&paused, || {
        text::pairs(&[
            ("name", Some(named.name.clone())),
            ("status", Some(paused.status.clone())),
            ("also paused", below.map(|count| count.to_string())),
        ])
    })
}

/// `ligand ws hibernate`.
pub(crate) async fn hibernate(args: HibernateArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let asked = session.client.hibernate(&named.id, args.force).await;
    let mut hibernated = asked.map_err(|error| busy(&named, error))?;
    if hibernated.status != Status::Hibernated.as_str() {
        watch::until(&session, &named, Status::Hibernated, &args.patience).await?;
        Status::Hibernated.as_str().clone_into(&mut hibernated.status);
    }
    session.format.answer(&hibernated, || {
        text::pairs(&[
            ("name", Some(named.name.clone())),
            ("status", Some(hibernated.status.clone())),
        ])
    })
}

/// A refusal for the sake of those below names them; any other is passed on.
pub(crate) fn below(named: &Named, done: &str, hint: &str, error: Error) -> CommandError {
    if let Error::Refused { status: StatusCode::CONFLICT, body } = &error
        && let Some(descendants) = &body.descendants
    {
        let names: Vec<&str> = descendants.iter().map(|child| child.name.as_str()).collect();
        let cause = format!("there are workspaces below it: {}", names.join(", "));
        return CommandError::failed(format!("{} was not {done}", named.name))
            .because(Some(cause))
            .hint(hint);
    }
    error.into()
}

fn busy(named: &Named, error: Error) -> CommandError {
    if let Error::Refused { status: StatusCode::CONFLICT, body } = &error
        && let Some(turns) = body.active_tasks
    {
        return CommandError::failed(format!("{} was not hibernated", named.name))
            .because(Some(format!("turns in progress: {turns}")))
            .hint("--force ends them");
    }
    error.into()
}
