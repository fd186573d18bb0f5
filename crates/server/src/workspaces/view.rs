//! What callers see of a workspace.

use ligand_api::journal::{Entry, Instance as InstanceView, Why};
use ligand_api::workspace::Workspace as View;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Phase;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use serde_json::Value;

use super::{Instance, Workspace};

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Anybody: the contract's short form.
    Open,
    /// The workspace itself, or an administrator, at one workspace.
    Proven,
    /// An administrator, at the list.
    List,
}

fn text(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

pub(super) fn workspace(of: &Workspace, look: Look) -> View {
    let proven = look != Look::Open;
    let listed = look == Look::List;
    let (x, y, collapsed) = of.canvas;
    let agent = &of.agent;
    let compute = of.compute.as_ref().filter(|_| proven);
    let compute = compute.map(|it| (it.instance.clone(), it.provider.clone()));
    View {
        id: of.id.uuid(),
        name: of.name.clone(),
        role: of.role.clone(),
        tier: of.tier,
        status: of.status.as_str().to_owned(),
        agent_card: agent
            .card
            .as_deref()
            .and_then(|card| serde_json::from_str::<Value>(card).ok())
            .filter(|card| !card.is_null()),
        url: agent.url.clone(),
        parent_id: of.parent.map(WorkspaceId::uuid),
        active_tasks: agent.active_tasks,
        max_concurrent_tasks: of.max_concurrent_tasks,
        last_error_rate: agent.error_rate,
        uptime_seconds: agent.uptime_seconds,
        runtime: of.runtime.clone(),
        x,
        y,
        collapsed,
        last_heartbeat_at: text(agent.last_heartbeat_at),
        generation: of.current.number(),
        intent: of.intent.as_str().to_owned(),
        since: of.since.to_string(),
        last_sample_error: listed.then(|| agent.sample_error.clone()),
        current_task: listed.then(|| agent.current_task.clone()),
        workspace_dir: listed.then(|| of.workspace_dir.clone()),
        monthly_spend: listed.then_some(of.monthly_spend),
        budget_used: listed.then_some(of.monthly_spend),
        budget_limit: listed.then_some(of.budget_limit),
        last_outbound_at: (!listed).then(|| text(agent.last_outbound_at)),
        backend: proven.then(|| of.backend.clone()),
        evidence: proven.then(|| of.evidence.clone()),
        last_error: proven.then(|| of.last_error.clone()),
        next_attempt_at: proven.then(|| text(of.next_attempt_at)),
        hibernation_idle_minutes: of.leisure.minutes.filter(|_| proven),
        instance_id: compute.clone().map(|(instance, _)| instance),
        provider: compute.map(|(_, provider)| provider),
        provision_timeout_ms: None,
        migration: None,
    }
}

fn instance(of: &Instance) -> InstanceView {
    InstanceView {
        generation: of.generation.number(),
        backend: of.backend.clone().unwrap_or_default(),
        phase: of.phase.as_str().to_owned(),
        started_at: text(of.started_at),
        registered_at: text(of.registered_at),
        ended_at: text(of.ended_at),
        exit: of.exit.clone(),
    }
}

pub(super) fn why(
    of: &Workspace,
    instances: &[Instance],
    until: (Option<Timestamp>, Option<Timestamp>),
    journal: Vec<Entry>,
) -> Why {
    Why {
        workspace: workspace(of, Look::Proven),
        next: next(of, instances, until),
        instances: instances.iter().map(instance).collect(),
        journal,
        messages: Vec::new(),
    }
}

/// What will happen without anybody's doing, and when.
fn next(
    of: &Workspace,
    instances: &[Instance],
    (lease_until, replaced_at): (Option<Timestamp>, Option<Timestamp>),
) -> String {
    match of.intent {
        Intent::Removed if of.released_at.is_some() && of.purge => {
            return "every trace of it is being taken away".to_owned();
        }
        Intent::Removed if of.released_at.is_some() => return "nothing: it is deleted".to_owned(),
        Intent::Removed => return "its instances are being ended".to_owned(),
        Intent::Paused if of.status != Status::Paused => {
            return "it is paused as soon as its instance has ended".to_owned();
        }
        Intent::Paused => return "nothing until it is resumed".to_owned(),
        Intent::Hibernated => return "it wakes when a message comes".to_owned(),
        Intent::Running => {}
    }
    if let Some(at) = of.next_attempt_at {
        return format!("the next attempt to start it begins at {at}");
    }
    if of.restart_due() {
        return "it is restarted as soon as the present step ends".to_owned();
    }
    let newest = instances.iter().find(|instance| instance.generation == of.newest);
    if let Some(at) = replaced_at {
        return format!(
            "it comes online when its agent proves that it holds its secrets; if not, it is replaced at {at}"
        );
    }
    if of.identity.candidate.is_some() {
        return format!("generation {} takes over at the cut-over of its migration", of.newest);
    }
    if of.newest > of.current && newest.is_some_and(|instance| instance.phase != Phase::Ended) {
        return format!("generation {} takes over when its agent registers", of.newest);
    }
    match (of.status, lease_until) {
        (Status::Online | Status::Degraded, Some(until)) => {
            format!("if no heartbeat comes by {until}, its backend is asked about it")
        }
        (Status::AwaitingAgent, _) => {
            let heard = newest.and_then(|instance| instance.last_seen_at);
            let refused = of.identity.refused_since(heard).map(|text| format!("; {text}"));
            let refused = refused.unwrap_or_default();
            format!("it comes online when its agent registers; nothing here starts it{refused}")
        }
        _ if !of.managed() => "nothing: no backend runs it".to_owned(),
        _ => "it is being looked after".to_owned(),
    }
}
