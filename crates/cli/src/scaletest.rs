//! `ligand scaletest`: how much a server takes on this machine.
//!
//! | file | what |
//! | --- | --- |
//! | [`options`] | what is measured, and how much of it |
//! | [`site`], [`process`] | scratch data, and the servers on it |
//! | [`http`], [`agents`], [`load`], [`histogram`] | simulated agents, and what they measure |
//! | [`store`], [`bare`] | baselines |
//! | [`beats`], [`revocation`], [`registrations`], [`hold`], [`reconnect`], [`rotation`], [`chaos`], [`kills`], [`migrations`], [`passes`], [`enqueue`], [`proxy`], [`watch`] | the scenarios |
//! | [`given`] | the one scenario on a server that runs already |
//! | [`survey`] | how workspaces stand |
//! | [`report`] | the table |

mod agents;
mod bare;
mod beats;
mod chaos;
mod enqueue;
mod given;
mod histogram;
mod hold;
mod http;
mod kills;
mod load;
mod migrations;
mod options;
mod passes;
mod process;
mod proxy;
mod reconnect;
mod registrations;
mod report;
mod revocation;
mod rotation;
mod site;
mod store;
mod survey;
mod watch;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

pub(crate) use self::bare::bare;
use self::given::Given;
use self::hold::Fleet;
pub(crate) use self::options::ScaletestArgs;
use self::options::{Scenario, Size};
use self::report::Row;
use self::site::Site;
use crate::error::{CommandError, CommandResult, Kind};
use crate::output::Progress;
use crate::serve::Stop;

/// Files that the process may have open; a server that it starts may have as many.
const FILES: u64 = 20_000;

/// What scenarios share.
struct Bench {
    args: ScaletestArgs,
    site: Site,
    progress: Progress,
    /// Agents and their server, for the scenarios that share them.
    fleet: Option<Fleet>,
}

impl Bench {
    fn say(&mut self, text: String) {
        self.progress.say(text);
    }

    fn size(&self, of: &Size) -> (usize, usize, std::time::Duration) {
        self.args.size(of)
    }

    fn judged(&self) -> bool {
        self.args.judged()
    }

    async fn measure(&mut self, scenario: Scenario) -> Result<Vec<Row>> {
        match scenario {
            Scenario::HeartbeatsPostgres => beats::on_postgres(self).await,
            Scenario::HeartbeatsSqlite => beats::on_sqlite(self).await,
            Scenario::Revocation => revocation::revocation(self).await,
            Scenario::Registrations => registrations::registrations(self).await,
            Scenario::Memory => hold::memory(self).await,
            Scenario::Hold => hold::hold(self).await,
            Scenario::Reconnect => reconnect::reconnect(self).await,
            Scenario::Rotation => rotation::rotation(self).await,
            Scenario::Chaos => chaos::chaos(self).await,
            Scenario::Kills => kills::kills(self).await,
            Scenario::Migrations => migrations::migrations(self).await,
            Scenario::Passes => passes::passes(self).await,
            Scenario::Enqueue => enqueue::enqueue(self).await,
            Scenario::Proxy => proxy::proxy(self).await,
            Scenario::Watch => watch::watch(self).await,
        }
    }

    async fn all(&mut self, given: Option<&Given>) -> Result<Vec<Row>> {
        if let Some(given) = given {
            return given.measure(self).await;
        }
        let mut rows = Vec::new();
        for scenario in self.args.scenarios() {
            if !matches!(scenario, Scenario::Memory | Scenario::Hold) {
                // Its server would take its share of the machine.
                self.fleet = None;
            }
            let measured = Box::pin(self.measure(scenario)).await;
            rows.extend(measured.with_context(|| format!("measure {}", scenario.name()))?);
        }
        Ok(rows)
    }
}

/// `ligand scaletest`.
pub(crate) async fn run(args: ScaletestArgs) -> CommandResult {
    let failed = |error| CommandError::new(Kind::Failed, error);
    open_files().map_err(failed)?;
    let format = args.output;
    let given = match args.given() {
        Some(client) => Some(Given::find(&client, args.yes_load_this_server).await?),
        None => None,
    };
    let site = Site::new(args.database_url.clone()).map_err(failed)?;
    let mut bench = Bench { args, site, progress: Progress::start(), fleet: None };
    let mut stop = Stop::listen()?;
    // What is dropped on the way out ends its server; what is left of the data goes afterwards.
    let measured = tokio::select! {
        measured = bench.all(given.as_ref()) => measured,
        () = stop.asked() => Err(anyhow::anyhow!("it was ended before it was done")),
    };
    bench.fleet = None;
    let cleared = bench.site.clear().await;
    drop(bench.progress);
    let rows = measured.map_err(failed)?;
    cleared.map_err(failed)?;
    let machine = machine();
    format.answer(&json!({"machine": machine, "rows": rows}), || report::table(&machine, &rows))?;
    match rows.iter().filter(|row| row.broken).count() {
        0 => Ok(()),
        _ => Err(CommandError::failed("a count that must be zero is not")),
    }
}

/// Raises the limit of open files as far as this process may, within reason.
fn open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    }
    Ok(())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let name = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    format!(
        "{cores} cores, {} {} {}",
        name(system.sysname()),
        name(system.release()),
        name(system.machine())
    )
}
