//! What it costs the reconciler that there are many workspaces, while none of them needs anything.
//!
//! A pass takes one workspace that is due, by an index. So what depends on their number is, first, the look that
//! finds nothing due; and then the time until every one has been looked at, should all be due at once, as they are
//! when a fleet was out of sight. Both are the server's own code, on a file of SQLite and the backend `fake`, without
//! a server around it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_server::app::{App, Clock, Ground, Ids, Names};
use ligand_server::backend::fake::Fake;
use ligand_server::backend::{Backend, Backends, Key, Pushes, Spec};
use ligand_server::config::{File, Flags, resolve};
use ligand_server::db::Db;
use ligand_server::reconcile::Reconciler as _;
use ligand_server::workspaces::WorkspaceReconciler;

use super::Bench;
use super::histogram::Histogram;
use super::options::{Scenario, Size};
use super::report::Row;
use super::store::Filled;
use crate::clock;

const SIZE: Size = Size { workspaces: [100_000, 500], connections: [1, 1], seconds: [1, 1] };
/// The smaller fleet beside it is so many times smaller.
const SMALLER: usize = 10;
/// What counts as linear: so many times more, and the noise of a shared machine.
const LINEAR: f64 = SMALLER as f64 * 1.25;
/// Looks that find nothing.
const LOOKS: usize = 200;
/// The longest that one may take, in ms.
const LONGEST: f64 = 1_000.0;
/// Nothing lapses while this is measured.
const LATER: Duration = Duration::from_secs(86_400);

/// What one fleet took.
struct Measured {
    count: usize,
    /// Looks that found nothing due.
    idle: Histogram,
    /// Until all had been looked at, when all were due.
    all: Duration,
    /// Steps that were taken. None was called for.
    steps: u64,
}

/// See the module.
pub(super) async fn passes(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Passes.name();
    let (count, ..) = bench.size(&SIZE);
    let few = measure(bench, (count / SMALLER).max(1)).await?;
    let many = measure(bench, count).await?;
    let judged = bench.judged();
    let median = |of: &Measured| of.idle.percentile(0.5).unwrap_or_default();
    let row = Row::new(scenario, format!("a pass over {count} workspaces, none due"));
    let row = row.value(median(&many), "ms").beside("a tenth of them", median(&few));
    let row = row.took(&many.idle);
    let quick = row.p99_ms.is_some_and(|p99| p99 <= LONGEST);
    let linear = |row: &Row| row.ratio.is_none_or(|ratio| ratio <= LINEAR);
    let holds = linear(&row);
    let idle = row.require("<= 1 s", judged, quick).require("linear", judged, holds);
    let row = Row::new(scenario, format!("all of {count} looked at, all due at once"));
    let row = row.value(many.all.as_secs_f64(), "s");
    let row = row.beside("a tenth of them", few.all.as_secs_f64());
    let holds = linear(&row);
    let row = row.require("linear", judged, holds).zero("steps taken", few.steps + many.steps);
    let each = many.all.as_secs_f64() * 1e6 / many.count as f64;
    let all = row.note(format!(
        "{each:.0} µs for each of {count}: taken, read, its backend asked, given back; on SQLite, {} workers",
        WorkspaceReconciler.workers()
    ));
    Ok(vec![idle, all])
}

async fn measure(bench: &mut Bench, count: usize) -> Result<Measured> {
    bench.say(format!("{}: {count} workspaces", Scenario::Passes.name()));
    let path = bench.site.database();
    let filled = Filled::create(&path, count, clock::now().after(LATER)).await?;
    let app = app(filled.db.clone(), fleet(&filled).await?)?;
    let mut idle = Histogram::default();
    for _ in 0..LOOKS {
        let begun = clock::instant();
        let pass = WorkspaceReconciler.pass(&app).await?;
        WorkspaceReconciler.next_due(&app).await?;
        idle.add(begun.elapsed());
        ensure!(pass.looked_at == 0, "something was due that should not have been");
    }
    bench.say(format!("{}: {count} workspaces, all due", Scenario::Passes.name()));
    filled.all_due(clock::now()).await?;
    let begun = clock::instant();
    let workers = (0..WorkspaceReconciler.workers()).map(|_| work(&app));
    let done = try_join_all(workers).await?;
    let all = begun.elapsed();
    let (looked_at, steps) = done.into_iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    ensure!(looked_at == count as u64, "{looked_at} of {count} were looked at");
    app.db.close().await;
    Ok(Measured { count, idle, all, steps })
}

/// Passes until nothing is due. Gives how many workspaces it looked at, and the steps that it took.
async fn work(app: &App) -> Result<(u64, u64)> {
    let (mut looked_at, mut steps) = (0, 0);
    loop {
        let pass = WorkspaceReconciler.pass(app).await?;
        if pass.looked_at == 0 {
            return Ok((looked_at, steps));
        }
        ensure!(pass.failed.is_none(), "a pass failed: {}", pass.failed.unwrap_or_default());
        (looked_at, steps) = (looked_at + pass.looked_at, steps + pass.steps);
    }
}

/// A backend that runs what the database says.
async fn fleet(filled: &Filled) -> Result<Fake> {
    let (pushes, _) = Pushes::channel();
    let fake = Fake::new(pushes);
    for (number, id) in filled.ids().await?.into_iter().enumerate() {
        let key = Key { workspace: WorkspaceId::from_uuid(id), generation: Generation::new(1) };
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&number.to_le_bytes());
        let spec = Spec::bare(key, Vec::new(), Token::from_entropy(entropy));
        let ensured = fake.ensure(spec).await;
        ensured.map_err(|cause| anyhow::anyhow!("fill the backend: {}", cause.chain()))?;
    }
    Ok(fake)
}

/// The parts of a server that its reconcilers use.
fn app(db: Db, fake: Fake) -> Result<App> {
    let flags = Flags { backend: Some("fake".to_owned()), ..Flags::default() };
    let config = resolve(&flags, &|_| None, None, File::default())?.config;
    let backend: Arc<dyn Backend> = Arc::new(fake);
    let clock = Clock::System;
    let http = ligand_api::http::builder().map_err(|cause| anyhow::anyhow!("{cause}"))?;
    Ok(App::new(Ground {
        db,
        clock,
        ids: Ids::seeded(1),
        names: Names::table(),
        backends: Backends::new([("fake".to_owned(), backend)]),
        config,
        http: http.no_proxy().build()?,
    }))
}
