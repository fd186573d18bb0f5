//! Whether an agent has proved that its program holds the secrets that its instance was given.
//!
//! What is proved is judged by what is stored now. That is what was loaded: whoever writes a secret asks for a
//! restart in the same transaction, and while one is due nobody is judged. So no value and nothing derived from one
//! is kept per instance.

use std::collections::BTreeMap;

use ligand_api::registry::ProgramState;
use ligand_domain::credential::TokenHash;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::secrets::{Receipt, lacking};
use ligand_domain::workspace::Status;
use serde_json::json;

use super::Admitted;
use crate::app::App;
use crate::journal::{Kind, Work};
use crate::secrets;
use crate::workspaces::{self, Observed};

/// What a call shows.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The hash of the credential that it presents, with which the proofs are keyed.
    pub(super) credential: Option<TokenHash>,
    /// The proofs, by name.
    pub(super) receipt: Option<&'a BTreeMap<String, String>>,
    /// The program runs, as far as its agent says.
    pub(super) runs: bool,
}

impl<'a> Shown<'a> {
    pub(super) fn new(
        bearer: Option<&str>,
        receipt: Option<&'a BTreeMap<String, String>>,
        program: Option<&ProgramState>,
    ) -> Self {
        let runs = program.is_none_or(|program| program.state == "running");
        Self { credential: bearer.map(TokenHash::of), receipt, runs }
    }
}

/// What follows from it.
pub(super) enum Proof {
    /// It may be online.
    Complete,
    /// It may be online, and nobody knows what it holds.
    Unsupported,
    /// It may not: this is what it does not do.
    Lacking(String),
}

impl Proof {
    /// What the evidence of a status says of it.
    pub(super) fn remark(&self) -> &'static str {
        match self {
            Self::Unsupported => "; receipt: unsupported",
            Self::Complete | Self::Lacking(_) => "",
        }
    }
}

/// Judge what an instance shows that may move the status of its workspace, and for which no restart is due.
pub(super) async fn judge(
    app: &App,
    work: &mut Work<'_>,
    of: (WorkspaceId, Generation),
    observed: &Observed,
    shown: Shown<'_>,
) -> Result<Proof, sqlx::Error> {
    // Whoever runs an external agent gives it its secrets, or it asks for them.
    if !observed.managed {
        return Ok(Proof::Complete);
    }
    if !shown.runs {
        if observed.receipt != Some(Receipt::Incomplete) {
            workspaces::set_receipt(&mut work.tx, of, Receipt::Incomplete).await?;
        }
        return Ok(Proof::Lacking("does not run its program yet".to_owned()));
    }
    if !observed.features.receipt {
        let any = secrets::any(&mut work.tx, of.0).await?;
        return Ok(if any { Proof::Unsupported } else { Proof::Complete });
    }
    if shown.receipt.is_none() && observed.receipt == Some(Receipt::Complete) {
        return Ok(Proof::Complete);
    }
    let nothing = BTreeMap::new();
    // Without a credential there is nothing that a proof could be keyed with.
    let said = shown.receipt.filter(|_| shown.credential.is_some()).unwrap_or(&nothing);
    let credential = shown.credential.unwrap_or(TokenHash::from_bytes([0; 32]));
    let lacks = match secrets::load(app, &mut work.tx, of.0).await? {
        Ok(loaded) => {
            let lacks = lacking(&credential, &loaded, said, app.config.guards);
            (!lacks.nothing()).then(|| lacks.to_string())
        }
        Err(unread) => unread.first().map(ToString::to_string),
    };
    let receipt = if lacks.is_none() { Receipt::Complete } else { Receipt::Incomplete };
    if observed.receipt != Some(receipt) {
        workspaces::set_receipt(&mut work.tx, of, receipt).await?;
    }
    let lacks = lacks.map(|lacks| format!("does not prove that it holds its secrets: {lacks}"));
    Ok(lacks.map_or(Proof::Complete, Proof::Lacking))
}

/// Judge what a candidate shows, once its program runs, by what is stored now. That is all that a call of it changes,
/// and it is the instance's. Says whether it should show more.
pub(super) async fn of_candidate(
    app: &App,
    work: &mut Work<'_>,
    of: (WorkspaceId, Generation),
    observed: &Observed,
    shown: Shown<'_>,
) -> Result<bool, sqlx::Error> {
    if !shown.runs {
        return Ok(false);
    }
    let proof = judge(app, work, of, observed, shown).await?;
    Ok(matches!(proof, Proof::Lacking(_)))
}

/// It does not come online, and this is why. Call it last.
pub(super) async fn hold(
    work: &mut Work<'_>,
    admitted: &Admitted,
    lacks: &str,
) -> Result<(), sqlx::Error> {
    let (id, generation, now) = (admitted.before.id, admitted.generation, work.now);
    let why = format!("generation {generation} {lacks}");
    workspaces::set_status(&mut work.tx, id, Status::Provisioning, &why, now).await?;
    workspaces::note_unproven(&mut work.tx, id, &why).await?;
    workspaces::wake(&mut work.tx, id, now).await?;
    work.note_once(id, Some(generation), Kind::Unproven, why, json!({})).await
}
