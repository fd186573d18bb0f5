//! What an admitted register or heartbeat does to the workspace.

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Features;
use ligand_domain::secrets::Receipt;
use ligand_domain::workspace::{Reason, Standing, Status, Vitals, on_heartbeat};
use serde_json::{Value, json};

use super::Admitted;
use super::receipt::{self, Proof, Shown};
use crate::app::App;
use crate::error::Error;
use crate::journal::{Kind, Work};
use crate::workspaces::{self, Beat, Observed, Register};

/// What a register showed.
pub(super) struct Seen<'a> {
    pub(super) url: Option<String>,
    pub(super) card: &'a Value,
    pub(super) mode: &'static str,
    pub(super) features: Option<Features>,
    pub(super) shown: Shown<'a>,
}

fn standing(admitted: &Admitted) -> Standing {
    let before = admitted.before.standing();
    let newest = admitted.before.planned(admitted.current, admitted.newest);
    Standing { current: admitted.current, newest, ..before }
}

pub(super) async fn register(
    app: &App,
    work: &mut Work<'_>,
    admitted: &Admitted,
    seen: Seen<'_>,
) -> Result<Observed, sqlx::Error> {
    let (id, now) = (admitted.before.id, work.now);
    let of = (id, admitted.generation);
    let names = seen.features.map(|features| features.names().join(" "));
    let url = seen.url.as_deref();
    workspaces::observe_instance(&mut work.tx, of, names.as_deref(), url, now).await?;
    let mut observed = workspaces::observed(app, &mut work.tx, of, admitted.inert).await?;
    if admitted.first {
        first_note(work, admitted, "register");
        workspaces::wake(&mut work.tx, id, now).await?;
    }
    if admitted.is_candidate() {
        observed.wants_receipt =
            receipt::of_candidate(app, work, of, &observed, seen.shown).await?;
    }
    if observed.inert || !standing(admitted).may_move(admitted.generation) {
        return Ok(observed);
    }
    let proof = receipt::judge(app, work, of, &observed, seen.shown).await?;
    let answers = observed.url.as_deref().or(url);
    let card = seen.card.to_string();
    let register = Register { url: answers, card: &card, delivery_mode: Some(seen.mode) };
    workspaces::observe_register(&mut work.tx, id, register, now).await?;
    if let Proof::Lacking(lacks) = &proof {
        observed.wants_receipt = true;
        receipt::hold(work, admitted, lacks).await?;
        return Ok(observed);
    }
    let evidence = format!("generation {} registered{}", admitted.generation, proof.remark());
    workspaces::set_status(&mut work.tx, id, Status::Online, &evidence, now).await?;
    let payload = json!({"url": answers, "agent_card": seen.card, "delivery_mode": seen.mode,
        "generation": admitted.generation});
    work.emit("WORKSPACE_ONLINE", id, payload);
    Ok(observed)
}

pub(super) async fn heartbeat(
    app: &App,
    work: &mut Work<'_>,
    admitted: &Admitted,
    (vitals, shown): (Vitals, Shown<'_>),
    beat: &Beat,
) -> Result<Observed, sqlx::Error> {
    let (id, now) = (admitted.before.id, work.now);
    let of = (id, admitted.generation);
    workspaces::observe_instance(&mut work.tx, of, None, None, now).await?;
    let mut observed = workspaces::observed(app, &mut work.tx, of, admitted.inert).await?;
    if admitted.first {
        first_note(work, admitted, "heartbeat");
        workspaces::wake(&mut work.tx, id, now).await?;
        observed.woke = true;
    }
    if admitted.is_candidate() {
        observed.wants_receipt = receipt::of_candidate(app, work, of, &observed, shown).await?;
    }
    // Only the current generation speaks for the workspace.
    if observed.inert || admitted.generation != admitted.current {
        observed.inert = true;
        return Ok(observed);
    }
    workspaces::observe_beat(&mut work.tx, id, beat, now).await?;
    if beat.card.is_some() && admitted.before.agent.register_failed_at.is_some() {
        workspaces::register_succeeded(&mut work.tx, id).await?;
    }
    if !standing(admitted).may_move(admitted.generation) {
        return Ok(observed);
    }
    // What serves has proved what it holds. It may say so again, and then it has to be true.
    let mut remark = "";
    if shown.receipt.is_some() || !admitted.before.status.serves() {
        let proof = receipt::judge(app, work, of, &observed, shown).await?;
        if let Proof::Lacking(lacks) = &proof {
            observed.wants_receipt = true;
            receipt::hold(work, admitted, lacks).await?;
            return Ok(observed);
        }
        remark = proof.remark();
    }
    for change in on_heartbeat(admitted.before.status, vitals) {
        let (event, evidence, payload) = describe(admitted, change.reason, vitals, beat);
        let evidence = match change.reason {
            Reason::HeardAgain => {
                let unproven = observed.receipt == Some(Receipt::Incomplete);
                let own = observed.address.as_deref().filter(|_| unproven);
                let answers = observed.url.as_deref().or(own);
                workspaces::heard_again(&mut work.tx, id, answers).await?;
                format!("{evidence}{remark}")
            }
            Reason::Wedged | Reason::Errors | Reason::RegisterFailed | Reason::Recovered => {
                evidence
            }
        };
        workspaces::set_status(&mut work.tx, id, change.to, &evidence, now).await?;
        let summary = format!("{} → {}: {evidence}", change.from.as_str(), change.to.as_str());
        work.note(id, Some(admitted.generation), Kind::Reported, summary, payload.clone());
        work.emit(event, id, payload);
    }
    Ok(observed)
}

/// Somebody was let in to register, and it failed. That counts against the agent until a register succeeds.
/// It is noted in a transaction of its own, since nothing of the failed one stays; not being able to note it
/// changes nothing of the answer.
pub(super) async fn register_failed(app: &App, of: (WorkspaceId, Generation), failed: &Error) {
    if let Err(cause) = note_failure(app, of, failed).await {
        tracing::warn!(error = %cause, workspace = %of.0, "a failed register could not be noted");
    }
}

async fn note_failure(
    app: &App,
    of: (WorkspaceId, Generation),
    failed: &Error,
) -> Result<(), sqlx::Error> {
    let mut work = Work::begin(app).await?;
    let now = work.now;
    if !workspaces::register_failed(&mut work.tx, of.0, now).await? {
        return Ok(());
    }
    let why = match failed {
        Error::Refused(_, body) => body.error.as_str(),
        Error::Internal(text, _) => text,
        Error::Unavailable(_) => "the database did not answer",
    };
    let summary = format!("a register was let in and failed: {why}");
    work.note_once(of.0, Some(of.1), Kind::RegisterFailed, summary, json!({})).await?;
    work.commit().await
}

fn describe(
    admitted: &Admitted,
    reason: Reason,
    vitals: Vitals,
    beat: &Beat,
) -> (&'static str, String, Value) {
    let generation = admitted.generation;
    match reason {
        Reason::Wedged => (
            "WORKSPACE_DEGRADED",
            "the agent says that it is wedged".to_owned(),
            json!({"runtime_state": "wedged", "sample_error": beat.sample_error, "generation": generation}),
        ),
        Reason::Errors => (
            "WORKSPACE_DEGRADED",
            format!("{:.0} % of recent work failed", vitals.error_rate * 100.0),
            json!({"error_rate": vitals.error_rate, "sample_error": beat.sample_error, "generation": generation}),
        ),
        Reason::RegisterFailed => (
            "WORKSPACE_DEGRADED",
            "its last register failed".to_owned(),
            json!({"register_failure": true, "sample_error": beat.sample_error, "generation": generation}),
        ),
        Reason::Recovered => (
            "WORKSPACE_ONLINE",
            "recent work succeeds again".to_owned(),
            json!({"generation": generation}),
        ),
        Reason::HeardAgain => {
            let from = admitted.before.status;
            let payload = if from == Status::Offline {
                json!({"generation": generation})
            } else {
                json!({"recovered_from": from.as_str(), "generation": generation})
            };
            ("WORKSPACE_ONLINE", format!("generation {generation} sent a heartbeat"), payload)
        }
    }
}

/// What the journal says of a first admission.
fn first_note(work: &mut Work<'_>, admitted: &Admitted, by: &str) {
    let how = if admitted.minted.is_some() {
        "a credential was minted for it"
    } else {
        "by its own credential"
    };
    let summary = format!("the agent was admitted for the first time ({by}), {how}");
    let evidence = json!({"superseded": admitted.before.current.number()});
    work.note(admitted.before.id, Some(admitted.generation), Kind::Registered, summary, evidence);
}
