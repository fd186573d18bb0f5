//! Carrying out what the admission table decided, in the transaction that it was decided in.

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_domain::admission::{Action, Call, Decision, Refusal};
use ligand_domain::credential::{State, Token};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Phase;
use serde_json::json;

use super::{Admitted, Knock, Looked};
use crate::access::{self, For};
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};
use crate::workspaces::{self, Workspace};

/// One admission in progress.
pub(super) struct Admission<'w, 'a, 'h> {
    pub(super) app: &'h App,
    pub(super) work: &'w mut Work<'a>,
    pub(super) looked: &'h Looked,
}

impl Admission<'_, '_, '_> {
    pub(super) async fn carry_out(
        &mut self,
        before: Workspace,
        decision: Decision,
    ) -> Result<Admitted> {
        let current = before.current;
        match decision {
            Decision::Current { generation, activates } => {
                let mut admitted = self.admitted(before, generation);
                self.mark_used(&mut admitted, activates, false).await?;
                Ok(Admitted { first: activates, ..admitted })
            }
            Decision::TakesOver { generation, mints } => {
                self.take_over(before, generation, mints).await
            }
            Decision::Early { generation } => {
                Ok(Admitted { inert: true, ..self.admitted(before, generation) })
            }
            Decision::Redeems { generation } => {
                let minted = self.redeem(before.id, generation).await?;
                Ok(Admitted { minted: Some(minted), ..self.admitted(before, generation) })
            }
            Decision::Candidate { generation, mints, activates } => {
                let mut admitted = Admitted { inert: true, ..self.admitted(before, generation) };
                if mints {
                    admitted.minted = Some(self.redeem(admitted.before.id, generation).await?);
                } else {
                    self.mark_used(&mut admitted, activates, true).await?;
                }
                Ok(Admitted { first: activates, ..admitted })
            }
            Decision::Remint { lost, generation } => {
                access::end_one(&mut self.work.tx, lost, State::Revoked, self.work.now).await?;
                let minted = self.mint(before.id, generation).await?;
                Ok(Admitted { minted: Some(minted), ..self.admitted(before, generation) })
            }
            Decision::ReEnrols { generation } => {
                let tx = &mut self.work.tx;
                if generation > current {
                    workspaces::set_generations(tx, before.id, generation, generation).await?;
                }
                let minted = self.mint(before.id, generation).await?;
                let admitted = self.admitted(before, generation);
                Ok(Admitted { minted: Some(minted), current: generation, first: true, ..admitted })
            }
            Decision::Bootstraps { generation, abandons } => {
                self.open(&before, generation, abandons).await?;
                let minted = Some(self.mint(before.id, generation).await?);
                let (current, newest) = (generation, generation);
                let admitted = self.admitted(before, generation);
                Ok(Admitted { minted, current, newest, first: true, ..admitted })
            }
            Decision::Api { opens, abandons } => {
                let generation = opens.unwrap_or(current);
                if opens.is_some() {
                    self.open(&before, generation, abandons).await?;
                }
                let newest = before.newest.max(generation);
                let first = opens.is_some();
                let admitted = self.admitted(before, generation);
                Ok(Admitted { current: generation, newest, first, ..admitted })
            }
            Decision::LetThrough { generation } => Ok(self.admitted(before, generation)),
            Decision::Ignored | Decision::Creates | Decision::Refused(_) => {
                unreachable!("handled by the caller")
            }
        }
    }

    /// Admitted, and nothing changes by that alone.
    fn admitted(&self, before: Workspace, generation: Generation) -> Admitted {
        let now = self.work.now;
        let held = self.looked.presented().map(|held| self.looked.credential(held, now));
        Admitted {
            generation,
            current: before.current,
            newest: before.newest,
            minted: None,
            inert: false,
            first: false,
            held,
            serials: before.identity.serials,
            before,
        }
    }

    /// A planned generation becomes the current one.
    async fn take_over(
        &mut self,
        before: Workspace,
        generation: Generation,
        mints: bool,
    ) -> Result<Admitted> {
        workspaces::set_generations(&mut self.work.tx, before.id, generation, generation).await?;
        let mut admitted = self.admitted(before, generation);
        (admitted.current, admitted.newest, admitted.first) = (generation, generation, true);
        if !mints {
            self.mark_used(&mut admitted, true, false).await?;
            return Ok(admitted);
        }
        // Its first use is to come; older instances are over already.
        let (now, guards) = (self.work.now, self.app.config.guards);
        for elder in &self.looked.held {
            if self.looked.credential(elder, now).elder_of(generation, guards) {
                access::end_one(&mut self.work.tx, elder.id, State::Superseded, now).await?;
            }
        }
        admitted.minted = Some(self.redeem(admitted.before.id, generation).await?);
        Ok(admitted)
    }

    /// An unknown id creates itself.
    pub(super) async fn create(&mut self, id: WorkspaceId) -> Result<Admitted> {
        workspaces::insert_registered(&mut self.work.tx, id, self.work.now).await?;
        let before = workspaces::get(&mut self.work.tx, id).await?;
        let before = before.expect("it was inserted in this transaction");
        let generation = Generation::NONE.next();
        let summary = "registered under an id that was unknown";
        self.work.note(id, None, Kind::Created, summary, json!({}));
        self.carry_out(before, Decision::Bootstraps { generation, abandons: None }).await
    }

    /// A generation that nobody planned begins.
    async fn open(
        &mut self,
        before: &Workspace,
        generation: Generation,
        abandons: Option<Generation>,
    ) -> Result<()> {
        let (id, now) = (before.id, self.work.now);
        workspaces::set_generations(&mut self.work.tx, id, generation, generation).await?;
        let mut bindable = vec![before.newest, before.current];
        match abandons {
            Some(candidate) if before.identity.candidate == Some(candidate) => {
                super::abandon(self.work, (id, candidate), super::OVERTAKEN).await?;
                bindable.remove(0);
            }
            Some(planned) => {
                access::lapse_pending(&mut self.work.tx, id, planned, now).await?;
                access::end_passports_of(&mut self.work.tx, id, planned, now).await?;
                if !before.managed() {
                    workspaces::abandon(&mut self.work.tx, (id, planned), super::OVERTAKEN, now)
                        .await?;
                }
            }
            None => {}
        }
        let tx = &mut self.work.tx;
        // Whatever a backend runs for it is what called: its row becomes the new generation's.
        for from in bindable.into_iter().filter(|_| before.managed()) {
            if workspaces::bind_newest(tx, id, from, generation).await? {
                return Ok(());
            }
        }
        let (instance, backend) = (self.app.ids.instance(), before.backend.as_deref());
        let of = (id, generation);
        workspaces::insert_instance(tx, instance, of, backend, Phase::Serving, now).await?;
        Ok(())
    }

    async fn mint(&mut self, workspace: WorkspaceId, generation: Generation) -> Result<Token> {
        let purpose = For::Answer { generation, key: self.looked.key };
        Ok(access::mint(self.app, self.work, workspace, purpose).await?)
    }

    /// Mint for the passport that was presented.
    async fn redeem(&mut self, workspace: WorkspaceId, generation: Generation) -> Result<Token> {
        let passport = self.looked.passport.as_ref().expect("a passport was presented");
        access::redeem(&mut self.work.tx, passport.id, self.work.now).await?;
        let purpose = For::Passport { generation, key: self.looked.key };
        Ok(access::mint(self.app, self.work, workspace, purpose).await?)
    }

    /// Note a use. The first one ends siblings and elders, uses up the passport of the generation, and
    /// satisfies rotations. It closes the door that a person opened: not sooner, for until then it is not known
    /// that anybody got what was minted, and while that may be used nobody else comes in.
    async fn mark_used(
        &mut self,
        admitted: &mut Admitted,
        activates: bool,
        candidate: bool,
    ) -> Result<()> {
        let held = self.looked.presented().expect("a credential was presented");
        let (now, guards) = (self.work.now, self.app.config.guards);
        let (id, generation) = (admitted.before.id, admitted.generation);
        let tx = &mut self.work.tx;
        access::mark_used(tx, held.id, activates, now).await?;
        if !activates {
            return Ok(());
        }
        for other in &self.looked.held {
            let fact = self.looked.credential(other, now);
            if fact.ended_by(held.id, generation, candidate, guards) {
                access::end_one(tx, other.id, State::Superseded, now).await?;
            }
        }
        access::spend(tx, id, generation, now).await?;
        if !candidate {
            workspaces::close_bootstrap(tx, id).await?;
            workspaces::rotated(tx, id, held.serial).await?;
            admitted.serials = admitted.serials.after_use(held.serial);
        }
        Ok(())
    }

    /// Say no, and note why: each reason once, until something else happens. A caller who knocks for ever
    /// does not bury what matters.
    pub(super) async fn refuse(
        &mut self,
        knock: &Knock<'_>,
        workspace: Option<&Workspace>,
        refusal: Refusal,
    ) -> Result<Error> {
        let line = refusal.line.as_str();
        let (id, now) = (knock.workspace, self.work.now);
        self.app.metrics.refusals.with_label_values(&[line]).inc();
        let registers = knock.call == Call::Register;
        let shown = workspaces::refused_text(now, line);
        workspaces::note_refused(&mut self.work.tx, id, registers, line, &shown, now).await?;
        let held = self.looked.presented();
        let generation = held.and_then(|held| held.generation);
        let generation =
            generation.or_else(|| self.looked.passport.as_ref().map(|held| held.generation));
        if let (true, Some(of), Some(_)) = (refusal.heard, generation, workspace) {
            workspaces::heard(&mut self.work.tx, (id, of), now).await?;
        }
        let told = refusal.told.map(|told| told.action.as_str());
        let evidence = json!({"credential": held.map(|held| held.id.to_string()), "told": told});
        let summary = format!("a call was refused: {line}");
        self.work.note_once(id, generation, Kind::Refused, summary, evidence).await?;
        Ok(refused(refusal))
    }
}

/// The answer. Which line refused is not in it.
fn refused(refusal: Refusal) -> Error {
    let text = if refusal.bearer {
        "invalid workspace auth token"
    } else {
        "missing workspace auth token"
    };
    let mut body = ErrorBody::new(text);
    if let Some(told) = refusal.told {
        body.code = Some(told.code.as_str().to_owned());
        body.action = Some(told.action.as_str().to_owned());
        if let Action::Wait(time) = told.action {
            body.retry_after = Some(time.as_secs());
        }
    }
    Error::Refused(StatusCode::UNAUTHORIZED, Box::new(body))
}
