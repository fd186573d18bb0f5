//! The laws that one call can break.

use ligand_domain::admission::{Action, Bootstrap, Decision};
use ligand_domain::migration::Stage;

use crate::admit::{Let, Site, rotates};
use crate::world::{Credential, Flaw, Knock, Migration, World};

impl World {
    /// Hold an admission against the laws.
    pub(crate) fn judge(
        &mut self,
        site: &Site,
        knock: &Knock,
        before: &Self,
        decision: &Decision,
        done: &Let,
    ) {
        if knock.from.is_none() {
            let asked = matches!(decision, Decision::Bootstraps { .. }) && knock.bearer.is_none();
            let open = site.bootstrap == Bootstrap::Open || before.opened;
            if !(asked && open && !before.live()) {
                self.broken(Flaw::Stranger);
            } else if site.managed {
                self.displace();
            } else {
                self.person = true;
            }
        }
        if done.inert || rotates(knock) {
            self.judge_candidate(before);
            return;
        }
        if done.generation < self.writer {
            self.broken(Flaw::OlderWriter);
        }
        self.writer = self.writer.max(done.generation);
        let Some(from) = knock.from else { return };
        let agent = &before.agents[usize::from(from)];
        // Until it is the workspace, and for ever where it was called off.
        let early = |it: &Migration| matches!(it.stage, Stage::Before(_) | Stage::Undoing);
        let migration = before.migration.filter(early);
        let target = migration.is_some_and(|it| it.candidate == agent.born && agent.born > 0);
        if target {
            self.broken(Flaw::BlindCutover);
        }
        if agent.superseded && knock.bearer.is_some() {
            self.broken(Flaw::Returned);
        }
    }

    /// A stranger has the place of the newest instance, as the contract lets it.
    fn displace(&mut self) {
        let born = self.row(self.current).map(|row| row.born);
        for agent in self.agents.iter_mut().filter(|agent| Some(agent.born) == born) {
            agent.superseded = true;
        }
    }

    fn judge_candidate(&mut self, before: &Self) {
        let live = |world: &Self| {
            let of_source =
                |it: &&Credential| it.generation == before.current && it.now().is_live();
            world.credentials.iter().filter(of_source).count()
        };
        if self.current != before.current || live(self) < live(before) {
            self.broken(Flaw::BlindCutover);
        }
    }

    /// Hold a refusal against the laws: nobody who is wanted is told to exit.
    pub(crate) fn judge_refusal(
        &mut self,
        site: &Site,
        knock: &Knock,
        told: Option<Action>,
        heard: bool,
    ) {
        if heard {
            self.heard(self.current);
        }
        let Some(from) = knock.from else { return };
        let agent = &self.agents[usize::from(from)];
        let row = self.rows.iter().find(|row| row.born == agent.born);
        let wanted = row.is_some_and(|row| row.generation >= self.current);
        if told == Some(Action::Exit) && (wanted || !site.managed) && !agent.superseded {
            self.broken(Flaw::Exiled);
        }
    }
}
