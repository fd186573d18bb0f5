//! `ligand drain`: every workspace leaves a backend.

mod picture;

use std::time::Duration;

use ligand_api::migration::{Drain, DrainRequest, Migration};
use serde_json::json;

use crate::error::{self, CommandError, CommandResult, Kind};
use crate::output::{self, Canvas, Format};
use crate::session::Session;
use crate::target::ClientArgs;
use crate::{clock, migrate};

/// How often one that is watched is looked at.
const LOOK: Duration = Duration::from_millis(300);

const AFTER: &str = "\
Examples:
  ligand drain west --to east --concurrency 8 --watch   move all, eight at a time
  ligand drain west                                     how its last drain stands, or went
  ligand drain west --abort                             begin no further one, and undo those that can be

With --watch, exit code 7 says that workspaces stayed; each is named with the reason.";

/// Take every workspace of a backend to another one
///
/// Each is migrated by itself, a few at a time. After the first that is rolled back no further one is begun, unless
/// --stop-after says otherwise. Without any flag this shows how the last drain stands.
#[derive(clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct DrainArgs {
    /// The name of the backend that they leave
    #[arg(value_name = "BACKEND")]
    backend: Option<String>,
    #[command(flatten)]
    what: What,
    /// Migrations at once [default: 4]
    #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: Option<u32>,
    /// After so many that were rolled back no further one is begun; 0: never stop [default: 1]
    #[arg(long, value_name = "N", requires = "to")]
    stop_after: Option<u32>,
    /// Seconds for which each source is kept after its target has become the workspace
    #[arg(long, value_name = "SECS", requires = "to")]
    grace: Option<u64>,
    /// Show how it goes, until it is over
    #[arg(long, requires = "backend")]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is to happen; at most one.
#[derive(clap::Args)]
#[group(multiple = false)]
struct What {
    /// Move them to the backend of this name
    #[arg(long, value_name = "NAME", requires = "backend")]
    to: Option<String>,
    /// Begin no further one for now
    #[arg(long, requires = "backend")]
    pause: bool,
    /// Let it go on, also after it stopped at a failure
    #[arg(long, requires = "backend")]
    resume: bool,
    /// Begin no further one, for good; those on their way are undone, where they can be
    #[arg(long, requires = "backend")]
    abort: bool,
}

/// `ligand drain`.
pub(crate) async fn run(args: DrainArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let Some(backend) = args.backend else {
        let found = session.client.drains().await?;
        return session.format.answer(&found, || picture::table(&found.drains, clock::now()));
    };
    let What { to, pause, resume, abort } = args.what;
    let it = match (to, migrate::order(pause, resume, abort)) {
        (Some(to), _) => {
            let (concurrency, stop_after_failures) = (args.concurrency, args.stop_after);
            let grace_seconds = args.grace;
            let body =
                DrainRequest { backend, to, concurrency, stop_after_failures, grace_seconds };
            session.client.drain(&body).await?
        }
        (None, Some(order)) => {
            let it = newest(&session, &backend).await?;
            session.client.order_drain(&it.id.to_string(), order).await?
        }
        (None, None) => newest(&session, &backend).await?,
    };
    if args.watch {
        return watch(&session, it).await;
    }
    let under_way = under_way(&session, &it).await;
    session.format.answer(&it, || picture::draw(&it, &under_way, clock::now()))?;
    if !picture::is_over(&it) && session.format == Format::Table {
        output::note(&format!("`ligand drain {} --watch` shows how it goes on", it.backend));
    }
    Ok(())
}

/// The last one of this backend.
async fn newest(session: &Session, backend: &str) -> CommandResult<Drain> {
    let all = session.client.drains().await?.drains;
    all.into_iter().find(|it| it.backend == backend).ok_or_else(|| {
        CommandError::failed(format!("the backend {backend} was never drained"))
            .hint(format!("`ligand drain {backend} --to NAME` does"))
    })
}

/// Its migrations that are not over; none where nobody can say.
async fn under_way(session: &Session, it: &Drain) -> Vec<Migration> {
    if picture::is_over(it) && it.open == 0 {
        return Vec::new();
    }
    let all = session.client.migrations(true).await.unwrap_or_default().migrations;
    all.into_iter().filter(|one| one.drain_id == Some(it.id)).collect()
}

async fn watch(session: &Session, it: Drain) -> CommandResult {
    let id = it.id.to_string();
    let mut it = it;
    let mut canvas = Canvas::new().filter(|_| session.format == Format::Table);
    let mut last = String::new();
    loop {
        let migrations = under_way(session, &it).await;
        match (&mut canvas, session.format) {
            (Some(canvas), _) => canvas.draw(&picture::draw(&it, &migrations, clock::now()))?,
            (None, format) => {
                let told = picture::line(&it);
                let wire = json!({"drain": &it, "migrations": &migrations});
                let news = if format == Format::Json { wire.to_string() } else { told.clone() };
                if news != last {
                    format.item(&wire, || told)?;
                    last = news;
                }
            }
        }
        if picture::is_over(&it) && it.open == 0 {
            return judge(&it);
        }
        clock::pause(LOOK).await;
        match session.client.drain_of(&id).await {
            Ok(now) => it = now,
            // A server that is being replaced comes back.
            Err(error) if error::passes(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn judge(it: &Drain) -> CommandResult {
    if it.state == "done" && it.failed.is_empty() {
        return Ok(());
    }
    let stayed = it.total - it.migrated;
    let error = anyhow::anyhow!("{stayed} of {} workspaces stayed on {}", it.total, it.backend);
    let first = it.failed.first().map(|one| format!("{}: {}", one.workspace, one.cause));
    let error = CommandError::new(Kind::RolledBack, error).because(it.cause.clone().or(first));
    Err(error.hint(format!("`ligand drain {}` names each with the reason", it.backend)))
}
