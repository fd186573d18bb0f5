//! `ligand ws create`.

use ligand_api::workspace::{Create, Created};

use crate::error::{CommandError, CommandResult, Kind};
use crate::session::{Named, Session};
use crate::target::ClientArgs;
use crate::text;
use crate::watch::{self, WaitArgs};

/// Create a workspace
///
/// Without a runtime and a command it gets the default runtime of the server. `--output json` includes the
/// credential that is minted for callers on its behalf, which is never shown again. An external workspace
/// comes with what its operator needs, in either format.
#[derive(clap::Args)]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    /// Which recipe runs it
    #[arg(long)]
    runtime: Option<String>,
    /// What it is for
    #[arg(long)]
    role: Option<String>,
    /// Resource tier, 1 to 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=4))]
    tier: Option<i64>,
    /// Its place in the hierarchy: id or name of the workspace above it
    #[arg(long, value_name = "WS")]
    parent: Option<String>,
    /// Which backend runs it
    #[arg(long)]
    backend: Option<String>,
    /// No backend runs it: you do
    #[arg(long, conflicts_with_all = ["backend", "command"])]
    external: bool,
    /// Where an external agent answers
    #[arg(long, requires = "external")]
    url: Option<String>,
    /// Cents it may spend a month
    #[arg(long, value_name = "CENTS", value_parser = clap::value_parser!(i64).range(0..))]
    budget: Option<i64>,
    /// Model that the runtime is told to use
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    /// The command that is its agent; needs the server's admin token
    #[arg(last = true, value_name = "CMD", conflicts_with = "runtime")]
    command: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws create`.
pub(crate) async fn run(args: CreateArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let parent = match &args.parent {
        Some(parent) => Some(session.resolve(parent).await?.id),
        None => None,
    };
    let wait = args.wait;
    let named_a_command = !args.command.is_empty();
    let body = Create {
        name: args.name,
        role: args.role,
        tier: args.tier,
        model: args.model,
        runtime: args.runtime,
        command: named_a_command.then_some(args.command),
        backend: args.backend,
        external: args.external.then_some(true),
        url: args.url,
        parent_id: parent,
        budget_limit: args.budget,
        ..Create::default()
    };
    let created =
        session.client.create(&body).await.map_err(|e| refused(e.into(), named_a_command))?;
    // At once, not after the wait: what is in it may never be shown again.
    session.format.answer(&created, || summary(&body.name, &created))?;
    if wait.wait {
        let named = Named { id: created.id.to_string(), name: body.name };
        watch::until_online(&session, &named, None, &wait).await?;
    }
    Ok(())
}

fn refused(error: CommandError, named_a_command: bool) -> CommandError {
    if named_a_command && error.kind() == Kind::Denied {
        return error.hint("without that token, name a --runtime instead of a command");
    }
    error
}

fn summary(name: &str, created: &Created) -> String {
    let connection = created.connection.as_ref();
    text::pairs(&[
        ("name", Some(name.to_owned())),
        ("id", Some(created.id.to_string())),
        ("status", Some(created.status.clone())),
        ("platform", connection.map(|c| c.platform_url.clone())),
        ("credential", connection.map(|c| c.auth_token.clone())),
        ("register at", connection.map(|c| c.registry_endpoint.clone())),
        ("heartbeat at", connection.map(|c| c.heartbeat_endpoint.clone())),
    ])
}
