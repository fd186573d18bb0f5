//! `ligand up`: everything on this machine, with a workspace to try.

use std::time::Duration;

use clap::Args;
use ligand_api::answer::said;
use ligand_api::client::Client;
use ligand_api::workspace::{Create, Workspace};

use crate::error::{self, CommandError, CommandResult};
use crate::serve::{ENVIRONMENT, Recorded, ServerArgs, Stop, start};
use crate::{clock, fleet, output};

/// The workspace that a newcomer meets.
const DEMO: &str = "hello";
/// What it is told first.
const FIRST_WORDS: &str = "hello from ligand up";
/// How long its first turn may take, its start included.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Run everything on this machine, in the foreground
///
/// The first start creates a workspace named `hello`, whose built-in agent echoes what it is told. Ctrl-C
/// ends the server and what it runs; the next start brings it back. After a crash what was running is still
/// running, and the next start finds it.
#[derive(Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct UpArgs {
    /// Print the first turn of the workspace `hello`, and stop
    #[arg(long)]
    once: bool,
    // Last: its heading is that of all that follows.
    #[command(flatten)]
    server: ServerArgs,
}

/// `ligand up`.
pub(crate) fn up(args: UpArgs) -> CommandResult {
    args.server.run("warn", |config| async move {
        let runs = config.backend.is_some();
        let mut stop = Stop::listen()?;
        let Some(recorded) = start(config, &mut stop).await? else { return Ok(()) };
        let fleet = match args.once {
            true => None,
            false => fleet::beside_platform(&recorded.server.app().config).await,
        };
        let outcome = stay(&recorded, &mut stop, args.once, runs).await;
        output::note("stopping");
        if let Some(fleet) = fleet {
            fleet.stop_with_instances().await;
        }
        recorded.stop(true).await;
        outcome
    })
}

async fn stay(recorded: &Recorded, stop: &mut Stop, once: bool, runs: bool) -> CommandResult {
    if !runs {
        output::note("no backend: only external workspaces can come online here");
        stop.asked().await;
        return Ok(());
    }
    tokio::select! {
        () = stop.asked() => return Ok(()),
        turn = first_turn(recorded) => match turn {
            Ok(answer) => output::line(&format!("{DEMO} <- {FIRST_WORDS}\n{DEMO} -> {answer}"))?,
            Err(error) if once => return Err(error),
            // The server is of use all the same; `why` knows more.
            Err(error) => output::failure(&error),
        },
    }
    if once {
        return Ok(());
    }
    output::note(
        "try, in another terminal:  ligand ws list  |  ligand ws send hello \"hi\"  |  ligand why hello",
    );
    stop.asked().await;
    Ok(())
}

async fn first_turn(recorded: &Recorded) -> CommandResult<String> {
    let token = recorded.server.app().config.admin_token.reveal().to_owned();
    let client = Client::new(&recorded.url, Some(token).filter(|token| !token.is_empty()))?;
    let client = client.of(recorded.server.app().config.org_id.clone());
    let id = demo(&client).await?.to_string();
    let until = clock::now().after(PATIENCE);
    loop {
        let seen = client.workspace(&id).await?;
        if seen.status == "online" {
            match client.send(&id, FIRST_WORDS, PATIENCE).await {
                Ok(answer) => return Ok(said(&answer).unwrap_or_else(|| answer.to_string())),
                // Its instance ended with the last server, which this one is about to notice.
                Err(error) if error::passes(&error) && clock::now() < until => {}
                Err(error) => return Err(error.into()),
            }
        } else if clock::now() >= until {
            let error = CommandError::timed_out(format!(
                "the workspace {DEMO} is {}, not online",
                seen.status
            ));
            return Err(error
                .because(seen.last_error.flatten().or(seen.evidence))
                .hint(format!("ligand why {DEMO}")));
        }
        clock::pause(LOOK).await;
    }
}

/// The demo workspace, created if it is not there.
async fn demo(client: &Client) -> CommandResult<uuid::Uuid> {
    let all = client.list().await?;
    if let Some(found) = all.iter().find(|workspace: &&Workspace| workspace.name == DEMO) {
        return Ok(found.id);
    }
    let role = Some("answers whatever it is told".to_owned());
    // The one that is always there, whatever the default is.
    let runtime = Some("echo".to_owned());
    let create = Create { name: DEMO.to_owned(), role, runtime, ..Create::default() };
    let created = client.create(&create).await?;
    Ok(created.id)
}
