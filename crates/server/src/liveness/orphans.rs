//! What is left over at backends, and rows whose instance is gone.
//!
//! What garbage is says `ligand_domain::orphan`, and why nothing fresh can be any: a row is committed before its
//! instance is asked for, and here the backend's list is read before the rows. Each pass looks at every backend,
//! at all of them at once, so that one that hangs holds up none of the others:
//!
//! 1. instances of removed workspaces, and of purged ones, are stopped and destroyed, and then their data is erased.
//!    Data whose instance could not be ended stays; what fails stops nothing else, and is tried by the next pass;
//! 2. instances that no row names are ended, whosever they are. Data of which this database never heard stays: it
//!    may be somebody else's, or this may be the wrong database. That is told once;
//! 3. an instance that a row names and that its backend does not list is asked for. Only a clean *gone* or *stopped*
//!    counts: then its workspace is due now, and the reconciler does the rest. A control plane that cannot list lists
//!    nothing, so that each of its instances is asked for.
//!
//! A backend that cannot list is left alone until the next pass, and the report says so. What a backend lists is
//! ours by its label: instances of another owner on the same machine are never listed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt as _, StreamExt as _};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use ligand_domain::orphan::{self, Known, Label, Listed, Rows};
use ligand_domain::time::Timestamp;
use serde_json::json;

use super::store;
use super::sweeps::failures;
use crate::app::App;
use crate::backend::{Backend, BackendError, Key};
use crate::journal::{Kind, Work};
use crate::migrations;
use crate::reconcile::{Pass, Reconciler};
use crate::workspaces;

/// How often backends are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// How long one pass may take with one backend, in real time. The rest is left to the next.
const BUDGET: Duration = Duration::from_secs(30);
/// How long a backend may take to say whether one instance is there.
const ANSWER: Duration = Duration::from_secs(10);
/// Workspaces that are looked after at once, at one backend.
const AT_ONCE: usize = 8;

/// See the module.
#[derive(Default)]
pub struct Orphans {
    /// Data of which the database never heard, as far as it was told.
    told: Mutex<BTreeSet<WorkspaceId>>,
}

impl Reconciler for Orphans {
    fn name(&self) -> &'static str {
        "sweep-orphans"
    }

    fn does(&self) -> &'static str {
        "ends instances that no workspace names, erases data of removed workspaces, and looks for instances that are gone"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        self.look(app).map(Ok).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(Some(app.clock.now().after(EVERY))) }.boxed()
    }
}

/// What a pass came to at one backend.
#[derive(Default)]
struct Tally {
    looked_at: u64,
    steps: u64,
    failed: Vec<String>,
}

impl Orphans {
    async fn look(&self, app: &App) -> Pass {
        let looks = app.backends.all().map(|(name, backend)| async move {
            let mut tally = Tally::default();
            let sweep = self.sweep(app, name, &**backend, &mut tally);
            let why = match tokio::time::timeout(BUDGET, sweep).await {
                Ok(Ok(())) => None,
                Ok(Err(cause)) => Some(format!("{cause:#}")),
                Err(_) => Some(format!("not done after {} s; the rest is left", BUDGET.as_secs())),
            };
            tally.failed.extend(why);
            tally.failed.iter_mut().for_each(|why| why.insert_str(0, &format!("{name}: ")));
            tally
        });
        let (mut pass, mut failed) = (Pass::default(), Vec::new());
        for tally in join_all(looks).await {
            pass.looked_at += tally.looked_at;
            pass.steps += tally.steps;
            failed.extend(tally.failed);
        }
        Pass { failed: failures(&failed), ..pass }
    }

    async fn sweep(
        &self,
        app: &App,
        name: &str,
        backend: &dyn Backend,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        // This first, then the rows: see the module.
        let listed = list(backend).await.map_err(|cause| anyhow::anyhow!(cause.chain()))?;
        let rows = rows(app, name, &listed).await.context("read what is known")?;
        let verdict = orphan::sort(&listed, &rows);
        tally.looked_at =
            (listed.instances.len() + listed.data.len() + verdict.missing.len()) as u64;
        self.tell(name, &verdict.unknown);
        missing(app, backend, &verdict.missing).await.context("look for what is gone")?;
        let mut leftovers: BTreeMap<WorkspaceId, Leftover> = BTreeMap::new();
        for (workspace, generation) in verdict.end {
            leftovers.entry(workspace).or_default().instances.push(generation);
        }
        for workspace in verdict.erase {
            leftovers.entry(workspace).or_default().erase = true;
        }
        let clearing = leftovers.into_iter().map(|(workspace, left)| {
            let has_row = rows.workspaces.get(&workspace).is_some_and(|it| *it != Known::Purged);
            clear(app, (name, backend), workspace, left, has_row)
        });
        let mut clearing = futures_util::stream::iter(clearing).buffer_unordered(AT_ONCE);
        while let Some((steps, failed)) = clearing.next().await {
            tally.steps += steps;
            tally.failed.extend(failed);
        }
        Ok(())
    }

    /// Once per server, for each workspace.
    fn tell(&self, name: &str, unknown: &BTreeSet<WorkspaceId>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for workspace in unknown.iter().filter(|workspace| !told.contains(workspace)) {
            tracing::warn!(workspace.id = %workspace, backend = name, "a backend holds data of a workspace that this database never heard of; it is left alone");
        }
        told.extend(unknown);
    }
}

async fn list(backend: &dyn Backend) -> Result<Listed, BackendError> {
    let instances = backend.list_owned().await?.into_iter();
    let data = backend.list_data().await?.into_iter().collect();
    let instances = instances.map(|key| (key.workspace, key.generation)).collect();
    Ok(Listed { instances, data })
}

async fn rows(app: &App, name: &str, listed: &Listed) -> Result<Rows, sqlx::Error> {
    let mut tx = app.db.read().await?;
    // Instances are read last: one that is planned in between is named.
    let removed = store::removed(&mut tx).await?;
    let mut rows = Rows::default();
    for workspace in listed.workspaces() {
        let known = match removed.get(&workspace) {
            Some(false) => Known::Kept,
            Some(true) => Known::Removed,
            None if store::remembered(&mut tx, workspace).await? => Known::Purged,
            None => continue,
        };
        rows.workspaces.insert(workspace, known);
    }
    rows.named = store::named(&mut tx, name).await?;
    // What a migration left, and has not cleared away yet, is named by the migration.
    for label in migrations::named(&mut tx, name).await? {
        rows.named.entry(label).or_insert(false);
    }
    Ok(rows)
}

/// What is left over of one workspace.
#[derive(Default)]
struct Leftover {
    instances: Vec<Generation>,
    erase: bool,
}

/// End its instances, then take its data away. Gives how many steps were taken, and what failed.
async fn clear(
    app: &App,
    (name, backend): (&str, &dyn Backend),
    workspace: WorkspaceId,
    left: Leftover,
    has_row: bool,
) -> (u64, Vec<String>) {
    let (mut steps, mut failed) = (0, Vec::new());
    for generation in &left.instances {
        let key = Key { workspace, generation: *generation };
        if let Err(cause) = end(app, backend, key).await {
            failed.push(format!("workspace {workspace}: {}", cause.chain()));
            continue;
        }
        steps += 1;
        tracing::warn!(workspace.id = %workspace, %generation, backend = name, "an instance was ended that no row names");
        let what = format!("an instance was ended that no row names: generation {generation}");
        failed.extend(note(app, (name, workspace), Some(*generation), what, has_row).await);
    }
    // While something of it may still run, its data stays.
    if left.erase && failed.is_empty() {
        match backend.erase(workspace).await {
            Ok(()) => {
                steps += 1;
                tracing::info!(workspace.id = %workspace, backend = name, "data of a removed workspace was erased");
                let what = "its data was erased: the workspace is removed".to_owned();
                failed.extend(note(app, (name, workspace), None, what, has_row).await);
            }
            Err(cause) => failed.push(format!("workspace {workspace}: {}", cause.chain())),
        }
    }
    (steps, failed)
}

async fn end(app: &App, backend: &dyn Backend, key: Key) -> Result<(), BackendError> {
    backend.stop(key, app.config.stop_grace).await?;
    backend.destroy(key).await
}

/// In the journal of a workspace that has one. Gives what kept it from being written.
async fn note(
    app: &App,
    (name, workspace): (&str, WorkspaceId),
    generation: Option<Generation>,
    what: String,
    has_row: bool,
) -> Option<String> {
    if !has_row {
        return None;
    }
    let noted = async {
        let mut work = Work::begin(app).await?;
        work.note(workspace, generation, Kind::Swept, what, json!({"backend": name}));
        work.commit().await
    };
    noted.await.err().map(|cause| format!("workspace {workspace}: {cause}"))
}

/// Ask for what is named and was not listed. What is gone, its reconciler looks at now.
async fn missing(
    app: &App,
    backend: &dyn Backend,
    missing: &BTreeSet<Label>,
) -> Result<(), sqlx::Error> {
    let asked = missing.clone().into_iter().map(|(workspace, generation)| async move {
        let key = Key { workspace, generation };
        let seen = tokio::time::timeout(ANSWER, backend.inspect(key)).await;
        // No answer is no evidence.
        matches!(seen, Ok(Ok(Seen::Gone | Seen::Stopped(_)))).then_some(workspace)
    });
    let asked = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
    let gone: BTreeSet<WorkspaceId> = asked.filter_map(std::future::ready).collect().await;
    if gone.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    for workspace in &gone {
        workspaces::wake(&mut tx, *workspace, app.clock.now()).await?;
    }
    tx.commit().await?;
    app.bells.ring();
    Ok(())
}
