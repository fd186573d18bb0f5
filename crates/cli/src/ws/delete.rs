//! `ligand ws delete`.

use ligand_api::client::Error;
use ligand_api::workspace::{Deleted, Workspace};
use reqwest::StatusCode;

use crate::error::{CommandError, CommandResult};
use crate::session::{Named, Session};
use crate::target::ClientArgs;
use crate::text;

/// Delete a workspace
#[derive(clap::Args)]
pub(crate) struct DeleteArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// Delete the workspaces below it too
    #[arg(long)]
    confirm: bool,
    /// Forget it altogether: its data, its record, its name
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws delete`.
pub(crate) async fn run(args: DeleteArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    let deleted = match session.client.delete(&named.id, args.confirm, args.purge).await {
        Ok(deleted) => deleted,
        Err(error) => return Err(refused(&session, &named, args.confirm, error).await),
    };
    session.format.answer(&deleted, || summary(&named.name, &deleted))
}

fn summary(name: &str, deleted: &Deleted) -> String {
    let below = (deleted.cascade_deleted > 0).then(|| deleted.cascade_deleted.to_string());
    text::pairs(&[
        ("name", Some(name.to_owned())),
        ("status", Some(deleted.status.clone())),
        ("also deleted", below),
    ])
}

/// A refusal for want of `--confirm` names who would go; any other is passed on.
async fn refused(session: &Session, named: &Named, confirmed: bool, error: Error) -> CommandError {
    let conflict =
        matches!(&error, Error::Refused { status, .. } if *status == StatusCode::CONFLICT);
    if conflict && !confirmed {
        let children = children(&named.id, &session.client.list().await.unwrap_or_default());
        if !children.is_empty() {
            let names = format!("there are workspaces below it: {}", children.join(", "));
            return CommandError::failed(format!("{} was not deleted", named.name))
                .because(Some(names))
                .hint("--confirm deletes them too");
        }
    }
    error.into()
}

fn children(parent: &str, all: &[Workspace]) -> Vec<String> {
    let below = |child: &&Workspace| child.parent_id.is_some_and(|id| id.to_string() == parent);
    all.iter().filter(below).map(|child| child.name.clone()).collect()
}
