//! `ligand migrate`: take a workspace to another backend, and see how it goes.

pub(crate) mod picture;

use std::time::Duration;

use ligand_api::client::Order;
use ligand_api::migration::{Migrate, Migration};
use uuid::Uuid;

use self::picture::ROLLED_BACK;
use crate::error::{self, CommandError, CommandResult, Kind};
use crate::output::{self, Canvas, Format};
use crate::session::{Named, Session};
use crate::target::ClientArgs;
use crate::{clock, text};

/// How often one that is watched is looked at.
const LOOK: Duration = Duration::from_millis(200);

const AFTER: &str = "\
Examples:
  ligand migrate demo --to east --watch   move it, and see how it goes
  ligand migrate demo                     how its last migration stands, or went
  ligand migrate demo --abort             undo it; it can be until the target is the workspace
  ligand migrate                          every migration that is not over

A watch that is ended with Ctrl-C ends nothing else: the migration goes on.
With --watch, exit code 7 says that it was rolled back: the workspace is where it was.";

/// Take a workspace to another backend, with its data and its messages
///
/// Until the target has the data, the secrets, and has completed a turn, the source is the workspace, and whatever goes
/// wrong leads back to it. Without any flag this shows how the last migration stands.
#[derive(clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct MigrateArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: Option<String>,
    #[command(flatten)]
    what: What,
    /// Seconds for which the source is kept after the target has become the workspace
    #[arg(long, value_name = "SECS", requires = "to")]
    grace: Option<u64>,
    /// Why, for people who read the journal
    #[arg(long, value_name = "TEXT", requires = "to")]
    reason: Option<String>,
    /// Show how it goes, until it is over
    #[arg(long, requires = "workspace")]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is to happen; at most one.
#[derive(clap::Args)]
#[group(multiple = false)]
struct What {
    /// Move it to the backend of this name
    #[arg(long, value_name = "BACKEND", requires = "workspace")]
    to: Option<String>,
    /// Let it rest, where the source serves as if nothing were
    #[arg(long, requires = "workspace")]
    pause: bool,
    /// Let it go on
    #[arg(long, requires = "workspace")]
    resume: bool,
    /// Undo it
    #[arg(long, requires = "workspace")]
    abort: bool,
    /// List those that are over, too
    #[arg(long, conflicts_with = "workspace")]
    all: bool,
}

/// The order that one of three flags is.
pub(crate) fn order(pause: bool, resume: bool, abort: bool) -> Option<Order> {
    let orders = [(pause, Order::Pause), (resume, Order::Resume), (abort, Order::Abort)];
    orders.into_iter().find_map(|(given, order)| given.then_some(order))
}

/// `ligand migrate`.
pub(crate) async fn run(args: MigrateArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let Some(workspace) = &args.workspace else { return list(&session, args.what.all).await };
    let named = session.resolve(workspace).await?;
    let What { to, pause, resume, abort, .. } = args.what;
    let it = match (to, order(pause, resume, abort)) {
        (Some(to), _) => {
            let body = Migrate { to, grace_seconds: args.grace, reason: args.reason };
            session.client.migrate(&named.id, &body).await?
        }
        (None, Some(order)) => session.client.order_migration(&named.id, order).await?,
        (None, None) => newest(&session, &named).await?,
    };
    if args.watch {
        return watch(&session, &named, it).await;
    }
    session.format.answer(&it, || picture::draw(&it, clock::now()))?;
    if !picture::is_over(&it) && session.format == Format::Table {
        output::note(&format!("`ligand migrate {} --watch` shows how it goes on", named.name));
    }
    Ok(())
}

async fn list(session: &Session, all: bool) -> CommandResult {
    let found = session.client.migrations(!all).await?;
    session.format.answer(&found, || picture::table(&found.migrations, clock::now()))
}

async fn newest(session: &Session, named: &Named) -> CommandResult<Migration> {
    let all = session.client.migrations_of(&named.id).await?;
    all.migrations.into_iter().next().ok_or_else(|| {
        CommandError::failed(format!("{} was never migrated", named.name))
            .hint(format!("`ligand migrate {} --to BACKEND` does", named.name))
    })
}

/// Shows it until it is over; that it was rolled back is a failure.
async fn watch(session: &Session, named: &Named, it: Migration) -> CommandResult {
    let id = it.id;
    let (mut it, mut shown) = (it, Shown::of(session.format));
    loop {
        shown.show(&it)?;
        if picture::is_over(&it) {
            return judge(named, &it);
        }
        clock::pause(LOOK).await;
        match session.client.migrations_of(&named.id).await {
            Ok(all) => it = of(all.migrations, id)?,
            // A server that is being replaced comes back.
            Err(error) if error::passes(&error) => shown.trouble(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn of(all: Vec<Migration>, id: Uuid) -> CommandResult<Migration> {
    let mut all = all.into_iter();
    all.find(|it| it.id == id)
        .ok_or_else(|| CommandError::failed("the server knows nothing of this migration any more"))
}

fn judge(named: &Named, it: &Migration) -> CommandResult {
    if it.state != ROLLED_BACK {
        return Ok(());
    }
    let error = anyhow::anyhow!("{} was rolled back, and is where it was", named.name);
    let error = CommandError::new(Kind::RolledBack, error).because(it.cause.clone());
    Err(error.hint(format!("`ligand why {}` tells how it came to this", named.name)))
}

/// What was shown so far: a picture on a terminal, else lines, each once.
struct Shown {
    format: Format,
    canvas: Option<Canvas>,
    lines: usize,
    last_error: Option<String>,
    last: String,
}

impl Shown {
    fn of(format: Format) -> Self {
        let canvas = Canvas::new().filter(|_| format == Format::Table);
        Self { format, canvas, lines: 0, last_error: None, last: String::new() }
    }

    fn show(&mut self, it: &Migration) -> CommandResult {
        if self.format == Format::Json {
            let object = serde_json::to_string(it).map_err(|e| CommandError::internal(e.into()))?;
            if object != self.last {
                output::line(&object)?;
                self.last = object;
            }
            return Ok(());
        }
        if let Some(canvas) = &mut self.canvas {
            return canvas.draw(&picture::draw(it, clock::now()));
        }
        for entered in it.phases.iter().skip(self.lines) {
            output::line(&picture::line(it, entered))?;
        }
        self.lines = it.phases.len();
        if it.last_error != self.last_error {
            self.last_error.clone_from(&it.last_error);
            if let Some(error) = &it.last_error {
                output::note(&format!("went wrong, and is tried again: {}", text::plain(error)));
            }
        }
        Ok(())
    }

    fn trouble(&mut self, what: &str) {
        if self.canvas.is_none() && self.last_error.as_deref() != Some(what) {
            output::note(what);
            self.last_error = Some(what.to_owned());
        }
    }
}
