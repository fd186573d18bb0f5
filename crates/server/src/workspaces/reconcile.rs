//! Brings each workspace's instance in line with its intent.
//!
//! A pass takes one workspace that is due, under a row lease, and asks `ligand_domain::converge::next` for
//! a step, takes it, and asks again, until it says to rest. The steps themselves are in `steps.rs`.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::converge::{self, Step, next};
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::{self, Exit, Phase, Seen};
use ligand_domain::secrets::Receipt;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;
use uuid::Uuid;

use super::steps::{Steps, key};
use super::{Instance, Workspace, store};
use crate::app::App;
use crate::migrations;
use crate::reconcile::{CLAIM, Pass, Reconciler, keep, new_claim};
use crate::templates;

/// How soon a row whose step failed is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Steps of one workspace in one pass. More would be a sign of going in circles.
const MOST_STEPS: u64 = 16;
/// Starting takes seconds where backends are slow: one slow start must not hold up the others.
const WORKERS: usize = 8;

/// See the module.
pub struct WorkspaceReconciler;

impl Reconciler for WorkspaceReconciler {
    fn name(&self) -> &'static str {
        "workspaces"
    }

    fn does(&self) -> &'static str {
        "brings each workspace's instance in line with its intent"
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async {
            let mut tx = app.db.read().await?;
            Ok(store::next_due(&mut tx).await?)
        }
        .boxed()
    }
}

async fn pass(app: &App) -> anyhow::Result<Pass> {
    let now = app.clock.now();
    let claim = new_claim(app);
    let mut tx = app.db.begin().await?;
    let found = store::CLAIMS.take::<(Uuid,)>(&mut tx, claim, now, now.after(CLAIM)).await;
    let Some((id,)) = found.context("claim a workspace")? else { return Ok(Pass::default()) };
    let id = WorkspaceId::from_uuid(id);
    tx.commit().await?;
    // Another worker may find another row.
    app.bells.ring();
    let mut pass = Pass { looked_at: 1, ..Pass::default() };
    let outcome = tokio::select! {
        outcome = converge(app, id, claim, &mut pass) => outcome,
        never = keep(app, &store::CLAIMS, id.uuid(), claim) => match never {},
    };
    let again = match outcome {
        Ok(again) => again,
        Err(cause) => {
            let error = format!("{cause:#}");
            note_failure(app, id, claim, &error).await;
            pass.failed = Some(format!("workspace {id}: {error}"));
            Some(app.clock.now().after(AFTER_FAILURE))
        }
    };
    let outcome = if pass.failed.is_some() { "failed" } else { "ok" };
    app.metrics.steps.with_label_values(&["workspaces", outcome]).inc_by(pass.steps);
    let mut tx = app.db.begin().await?;
    store::CLAIMS.give_back(&mut tx, id.uuid(), claim, again.unwrap_or(Timestamp::NEVER)).await?;
    tx.commit().await?;
    Ok(pass)
}

async fn note_failure(app: &App, id: WorkspaceId, claim: Uuid, error: &str) {
    let noted = async {
        let mut tx = app.db.begin().await?;
        store::set_error(&mut tx, id, claim, error).await?;
        tx.commit().await
    };
    if let Err(cause) = noted.await {
        tracing::warn!(workspace.id = %id, error = %cause, "a failure could not be noted");
    }
}

/// Take steps until it may rest. Gives when to look again.
async fn converge(
    app: &App,
    id: WorkspaceId,
    claim: Uuid,
    pass: &mut Pass,
) -> anyhow::Result<Option<Timestamp>> {
    let mut steps = Steps::new(app, id, claim);
    for _ in 0..MOST_STEPS {
        let mut tx = app.db.begin().await?;
        let until = app.clock.now().after(CLAIM);
        let held = store::CLAIMS.keep(&mut tx, id.uuid(), claim, until).await?;
        let Some(workspace) = store::get(&mut tx, id).await?.filter(|_| held) else {
            return Ok(None);
        };
        let instances = store::alive(&mut tx, id).await?;
        tx.commit().await?;
        steps.confirm(&instances).await?;
        let facts = observe(app, &instances).await;
        let deadline = start_deadline(app, &workspace, &instances).await;
        match next(&view(app, &workspace, &instances, deadline), &facts, app.clock.now()) {
            Step::Rest(again) => {
                if workspace.intent == Intent::Removed {
                    // What it left or was to go to is still being cleared away.
                    if migrations::is_open(app, id).await? {
                        return Ok(Some(app.clock.now().after(AFTER_FAILURE)));
                    }
                    steps.released(&workspace).await?;
                    steps.purge(&workspace).await?;
                }
                return Ok(again);
            }
            step => {
                pass.steps += 1;
                steps.seen = facts;
                steps.take(&workspace, &instances, step).await?;
            }
        }
    }
    Ok(Some(app.clock.now().after(AFTER_FAILURE)))
}

/// Whether its current instance registered without proof that it holds its secrets.
fn unproven(workspace: &Workspace, instances: &[Instance]) -> bool {
    let mut current = instances.iter().filter(|i| i.generation == workspace.current);
    current.any(|it| it.receipt == Some(Receipt::Incomplete))
}

/// How long its start may take. Templates are read only where that matters.
async fn start_deadline(app: &App, workspace: &Workspace, instances: &[Instance]) -> Duration {
    let planned = workspace.planned(workspace.current, workspace.newest);
    match planned > workspace.current || unproven(workspace, instances) {
        true => templates::start_deadline(app, &workspace.runtime).await,
        false => app.config.start_deadline(&workspace.runtime, None),
    }
}

fn view(
    app: &App,
    workspace: &Workspace,
    instances: &[Instance],
    start_deadline: Duration,
) -> converge::Workspace {
    converge::Workspace {
        intent: workspace.intent,
        status: workspace.status,
        since: workspace.since,
        managed: workspace.managed(),
        current: workspace.current,
        newest: workspace.planned(workspace.current, workspace.newest),
        restart_due: workspace.restart_due(),
        next_attempt_at: workspace.next_attempt_at,
        start_deadline,
        unsure: workspace.unsure,
        unproven: unproven(workspace, instances),
        unheard_until: workspace.unheard_until(app),
        migrating: workspace.identity.candidate.is_some(),
    }
}

/// Ask each instance's backend. What cannot be asked is unknown, and nothing more.
async fn observe(app: &App, instances: &[Instance]) -> Vec<instance::Instance> {
    let mut facts = Vec::with_capacity(instances.len());
    for instance in instances {
        facts.push(instance::Instance {
            generation: instance.generation,
            started_at: started_at(instance),
            lease_until: instance.lease_until(app),
            seen: see(app, instance).await,
        });
    }
    facts
}

fn started_at(instance: &Instance) -> Option<Timestamp> {
    match instance.phase {
        Phase::Planned => None,
        Phase::Started | Phase::Serving | Phase::Ended => {
            Some(instance.started_at.unwrap_or(instance.created_at))
        }
    }
}

pub(crate) async fn see(app: &App, instance: &Instance) -> Seen {
    let Some(name) = &instance.backend else {
        return Seen::Unknown("no backend runs it".to_owned());
    };
    let Some(backend) = app.backends.get(name) else {
        return Seen::Unknown(format!("there is no backend named {name} here"));
    };
    // Before it is asked about, and before any step: every step comes after a look.
    if let Some(handle) = &instance.handle {
        backend.known(key(instance), handle);
    }
    if instance.phase == Phase::Planned {
        return Seen::Unknown("not started".to_owned());
    }
    // A report, not a guess: it is acted on whatever the backend would say.
    if let (Phase::Started, Some(why)) = (instance.phase, &instance.condemned) {
        return Seen::Stopped(Exit { said: Some(why.clone()), ..Exit::default() });
    }
    match backend.inspect(key(instance)).await {
        Ok(seen) => seen,
        Err(cause) => Seen::Unknown(cause.chain()),
    }
}

/// What the backend said of an instance, for people.
pub(super) fn say(seen: &Seen) -> String {
    match seen {
        Seen::Running => "the backend says that it runs".to_owned(),
        Seen::Stopped(exit) => format!("the backend says that it {exit}"),
        Seen::Gone => "the backend does not have it".to_owned(),
        Seen::Unknown(why) => format!("whether it runs is unknown ({why})"),
    }
}
