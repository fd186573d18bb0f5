//! What the decision about a migration looks at.

use ligand_domain::id::Generation;
use ligand_domain::instance::Seen;
use ligand_domain::migration::{Facts, Program, Source, Target};
use ligand_domain::secrets::Receipt;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;

use super::{Done, Migration};
use crate::access;
use crate::app::App;
use crate::db::Tx;
use crate::messages;
use crate::programs;
use crate::workspaces::{self, Instance, Workspace};

/// What was read of a migration's workspace, and what it means.
pub(super) struct Looked {
    /// The workspace; it may have been purged meanwhile.
    pub(super) workspace: Option<Workspace>,
    /// The instance that is left.
    pub(super) source: Option<Instance>,
    /// The instance that is brought up.
    pub(super) target: Option<Instance>,
    /// For the decision. What backends say is not in it yet.
    pub(super) facts: Facts,
}

/// Read what the database knows.
pub(super) async fn look(
    tx: &mut Tx,
    it: &Migration,
    workspace: Option<Workspace>,
    now: Timestamp,
) -> Done<Looked> {
    let id = it.workspace;
    let source = workspaces::instance_of(tx, id, it.source).await?;
    let target = match it.target {
        Some(generation) => workspaces::instance_of(tx, id, generation).await?,
        None => None,
    };
    let standing = workspace.as_ref();
    let starting = match standing.filter(|w| w.newest > w.current) {
        Some(w) => workspaces::instance_of(tx, id, w.newest).await?,
        None => None,
    };
    let starting = starting.is_some_and(|instance| instance.ended_at.is_none());
    let facts = Facts {
        intent: standing.map_or(Intent::Removed, |w| w.intent),
        current: standing.map_or(Generation::NONE, |w| w.current),
        newest: standing.map_or(Generation::NONE, |w| w.newest),
        candidate: standing.and_then(|w| w.identity.candidate),
        in_flight: starting || standing.is_some_and(Workspace::restart_due),
        serves: standing.is_some_and(|w| w.status.serves()),
        serial: standing.map_or(0, |w| w.restarts_wanted),
        source: source_of(tx, it, source.as_ref()).await?,
        target: target_of(tx, it, target.as_ref()).await?,
        data: it.data,
        held: messages::is_held(tx, id, now).await?,
        turns: messages::in_flight(tx, id).await?,
        probe: it.probe.clone(),
    };
    Ok(Looked { workspace, source, target, facts })
}

async fn source_of(tx: &mut Tx, it: &Migration, instance: Option<&Instance>) -> Done<Source> {
    let alive = instance.is_some_and(|instance| instance.ended_at.is_none());
    Ok(Source {
        seen: if alive { unasked() } else { Seen::Gone },
        stands_by: instance.is_some_and(|instance| instance.features.standby),
        program: program(tx, it, it.source).await?,
        ended: it.source_ended,
        gone: it.source_gone,
    })
}

async fn target_of(tx: &mut Tx, it: &Migration, instance: Option<&Instance>) -> Done<Target> {
    let Some(generation) = it.target else {
        return Ok(Target {
            seen: None,
            started: false,
            registered: false,
            active: false,
            program: Program::Unknown,
            proved: false,
            gone: it.target_gone,
        });
    };
    let proved = instance.is_some_and(|instance| {
        instance.receipt == Some(Receipt::Complete) || !instance.features.receipt
    });
    Ok(Target {
        seen: instance.filter(|instance| instance.ended_at.is_some()).map(|_| Seen::Gone),
        started: instance.is_some_and(|instance| instance.started_at.is_some()),
        registered: instance.is_some_and(|instance| instance.registered_at.is_some()),
        active: access::is_active(tx, it.workspace, generation).await?,
        program: program(tx, it, generation).await?,
        proved,
        gone: it.target_gone,
    })
}

async fn program(tx: &mut Tx, it: &Migration, generation: Generation) -> Done<Program> {
    let known = programs::of(tx, (it.workspace, generation)).await?;
    Ok(known.map_or(Program::Unknown, |known| known.doing()))
}

fn unasked() -> Seen {
    Seen::Unknown("it was not asked about".to_owned())
}

impl Looked {
    /// Ask the backends, where their answer counts: up to the cut-over.
    pub(super) async fn ask(&mut self, app: &App, it: &Migration) {
        if let Some(source) = self.source.as_ref().filter(|source| source.ended_at.is_none()) {
            // It is being stopped by this migration: until that is done, its end says nothing.
            self.facts.source.seen = match it.stopping && !it.source_ended {
                true => Seen::Running,
                false => workspaces::see(app, source).await,
            };
        }
        let target = self.target.as_ref();
        if let Some(target) = target.filter(|t| t.started_at.is_some() && t.ended_at.is_none()) {
            self.facts.target.seen = Some(workspaces::see(app, target).await);
        }
    }
}
