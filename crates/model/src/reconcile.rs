//! The reconciler's side. What comes next is production's, `ligand_domain::converge::next`; the steps follow
//! `crates/server/src/workspaces/steps.rs`. A backend starts and ends instances at once, unless a fault says
//! otherwise.

use std::time::Duration;

use ligand_domain::converge::{self, Cause, Step};
use ligand_domain::credential::{Origin, PassportState, State};
use ligand_domain::guards::Guard;
use ligand_domain::instance::{Instance, Phase, Seen};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};

use crate::admit::{Site, generation};
use crate::agent::Recipe;
use crate::world::{Credential, Flaw, Passport, Row, Token, World};

/// When everything here happens.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

/// What goes wrong with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// Nothing.
    None,
    /// The server dies before it asked the backend.
    DiesBefore,
    /// The server dies after it asked, and the backend begins later.
    DiesMeanwhile,
    /// The server dies after the backend began, and before it wrote that down.
    DiesAfter,
    /// What was to be ended goes on running, and its backend does not see it.
    GoesOn,
    /// It was asked, and did not do it.
    Fails,
}

/// What the next step is, without its reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nothing to do.
    Rest,
    /// Raise the generation, because of this.
    Plan(Why),
    /// Ask the backend for this generation.
    Start(u8),
    /// Note that it ended.
    Lost(u8),
    /// Give its start up.
    GiveUp(u8),
    /// Note that it is silent.
    Silent(u8),
    /// End it.
    Retire(u8),
}

/// Why a generation is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// There is none, or the last one ended.
    Missing,
    /// Someone asked for a restart.
    Restart,
    /// It has been silent for too long.
    Unreachable,
}

impl World {
    /// What production would do next.
    #[must_use]
    pub fn next(&self, site: &Site) -> Next {
        let workspace = converge::Workspace {
            intent: Intent::Running,
            status: if self.online { Status::Online } else { Status::Offline },
            since: Timestamp::from_micros(0),
            managed: site.managed,
            current: generation(self.current),
            newest: generation(self.newest),
            restart_due: self.restart_due,
            next_attempt_at: None,
            start_deadline: converge::START_DEADLINE,
            unsure: false,
            unproven: false,
            unheard_until: None,
            migrating: self.candidate().is_some(),
        };
        let instances: Vec<Instance> =
            self.rows.iter().map(|row| self.observe(site, row)).collect();
        let number =
            |it: ligand_domain::id::Generation| u8::try_from(it.number()).unwrap_or(u8::MAX);
        match converge::next(&workspace, &instances, NOW) {
            // Backends here always answer, nobody is taken at a creator's word, nothing is paused, and nobody has secrets.
            Step::Rest(_) | Step::Unsure(_) | Step::Heard(_) | Step::Unheard | Step::Settle(_) => {
                Next::Rest
            }
            Step::Plan(Cause::First | Cause::Replace | Cause::Unproven) => Next::Plan(Why::Missing),
            Step::Plan(Cause::Restart) => Next::Plan(Why::Restart),
            Step::Plan(Cause::Unreachable) => Next::Plan(Why::Unreachable),
            Step::Start(it) => Next::Start(number(it)),
            Step::Lost(it, _) => Next::Lost(number(it)),
            Step::GiveUp(it, _) => Next::GiveUp(number(it)),
            Step::Silent(it) => Next::Silent(number(it)),
            Step::Retire(it) => Next::Retire(number(it)),
        }
    }

    fn observe(&self, site: &Site, row: &Row) -> Instance {
        let started_at = match row.phase {
            Phase::Planned => None,
            Phase::Started if !row.overdue => Some(NOW),
            Phase::Started | Phase::Serving | Phase::Ended => {
                Some(NOW.before(converge::START_DEADLINE))
            }
        };
        Instance {
            generation: generation(row.generation),
            started_at,
            lease_until: if row.silent { NOW } else { NOW.after(Duration::from_secs(1)) },
            seen: match row.phase {
                Phase::Planned => Seen::Unknown(String::new()),
                _ if !site.managed => Seen::Unknown(String::new()),
                _ if self.runs(row.born) => Seen::Running,
                _ => Seen::Gone,
            },
        }
    }

    /// Whether the backend has it.
    #[must_use]
    pub fn runs(&self, born: u8) -> bool {
        self.agents.iter().any(|agent| agent.born == born && !agent.unstoppable)
    }

    /// Take a step.
    pub fn take(&mut self, site: &Site, recipe: &Recipe, step: Next, mishap: Mishap) {
        match step {
            Next::Rest => {}
            Next::Plan(why) => self.plan(site, recipe, why),
            Next::Start(generation) => {
                let older: Vec<u8> = self.rows.iter().map(|row| row.generation).collect();
                for older in older.into_iter().filter(|older| *older < generation) {
                    self.end(older, mishap);
                }
                self.start(site, recipe, generation, mishap);
            }
            Next::Lost(generation) => {
                self.destroy(generation, mishap);
                self.rows.retain(|row| row.generation != generation);
                self.online = false;
            }
            Next::GiveUp(generation) => {
                self.end(generation, mishap);
                self.online = false;
            }
            Next::Silent(_) => self.online = false,
            Next::Retire(generation) => self.end(generation, mishap),
        }
    }

    /// Raise the generation and commit its credential, unless a start is in flight.
    pub(crate) fn plan(&mut self, site: &Site, recipe: &Recipe, why: Why) {
        let in_flight = self.starts();
        // What was decided by is what is found: being in flight is all that may come between here.
        let found = (generation(self.current), generation(self.newest));
        if !converge::may_plan(found, found, in_flight, site.guards) {
            return;
        }
        let current = self.row(self.current);
        let holds = match why {
            Why::Missing => true,
            Why::Restart => self.restart_due || !site.guards.hold(Guard::SingleFlight),
            Why::Unreachable => current.is_none_or(|row| row.silent) && !self.online,
        };
        if !holds {
            return;
        }
        if in_flight {
            self.broken(Flaw::TwoFlights);
        }
        self.newest += 1;
        let generation = self.newest;
        let phase = Phase::Planned;
        self.rows.push(Row { generation, born: generation, phase, silent: false, overdue: false });
        self.restart_due = false;
        self.online = false;
        if site.start_data && site.guards.hold(Guard::ForeignSuperseded) {
            // The next one has nothing to show: it can only come in where nothing is live.
            for it in self.credentials.iter_mut().filter(|it| it.state.is_live()) {
                it.state = State::Superseded;
            }
        }
        if site.guards.hold(Guard::PlanCommits) {
            self.fresh = Some((generation, self.deliver(site, recipe, generation)));
        }
    }

    /// What an instance proves itself with is committed after its start, too late.
    pub(crate) fn commit(&mut self, generation: u8) {
        self.half_planned = None;
        for it in
            self.credentials.iter_mut().filter(|it| it.generation == generation && !it.committed)
        {
            (it.committed, it.state) = (true, State::Pending);
        }
    }

    fn deliver(&mut self, site: &Site, recipe: &Recipe, generation: u8) -> Token {
        if !recipe.by_passport {
            return self.mint(site, Origin::Start, Credential::pending(generation));
        }
        self.passport_for(generation)
    }

    pub(crate) fn passport_for(&mut self, generation: u8) -> Token {
        self.passports.push(Passport { generation, state: PassportState::Open });
        Token::Passport(u8::try_from(self.passports.len() - 1).expect("few passports"))
    }

    pub(crate) fn start(&mut self, site: &Site, recipe: &Recipe, generation: u8, mishap: Mishap) {
        let Some(row) = self.row(generation).copied() else { return };
        let minted = self.credentials.len();
        let fresh = self.fresh.take().filter(|(of, _)| *of == row.born).map(|(_, token)| token);
        let forgotten = fresh.is_none() && !site.guards.hold(Guard::ResumePlanned);
        if mishap == Mishap::DiesBefore || forgotten {
            return;
        }
        if fresh.is_some() || !self.runs(row.born) {
            let token = fresh.unwrap_or_else(|| self.resume(site, recipe, generation));
            // Creating is idempotent: what was asked for first is what there will be.
            let order = *self.order.get_or_insert((row.born, token));
            if mishap == Mishap::DiesMeanwhile {
                return;
            }
            self.order = None;
            self.agents.push(recipe.start(site, order.0, order.1));
        }
        if mishap == Mishap::DiesAfter {
            return;
        }
        let late = self.credentials[minted..].iter().any(|it| !it.committed);
        self.half_planned = late.then_some(generation);
        for row in self.rows.iter_mut().filter(|row| row.generation == generation) {
            row.phase = Phase::Started;
        }
    }

    /// The secret was lost with the server: another one is minted beside the first.
    fn resume(&mut self, site: &Site, recipe: &Recipe, generation: u8) -> Token {
        if !site.guards.hold(Guard::ResumeBeside) {
            self.lapse_pending(generation);
        }
        let token = self.deliver(site, recipe, generation);
        if let (Token::Credential(_), false) = (token, site.guards.hold(Guard::PlanCommits)) {
            let newest = self.credentials.last_mut().expect("it was minted");
            (newest.committed, newest.state) = (false, State::Lapsed);
        }
        token
    }

    fn destroy(&mut self, generation: u8, mishap: Mishap) {
        // No backend, nothing to destroy.
        if let Some(born) = self.row(generation).map(|row| row.born).filter(|born| *born > 0) {
            self.destroy_born(born, mishap);
        }
    }

    pub(crate) fn destroy_born(&mut self, born: u8, mishap: Mishap) {
        self.order = self.order.filter(|(of, _)| *of != born);
        if mishap == Mishap::GoesOn {
            for agent in self.agents.iter_mut().filter(|agent| agent.born == born) {
                agent.unstoppable = true;
            }
        } else {
            self.leave(|agent| agent.born != born || agent.unstoppable);
        }
    }

    /// End an instance: its row, its unused credentials, and whatever runs.
    fn end(&mut self, generation: u8, mishap: Mishap) {
        if generation == 0 {
            return;
        }
        self.destroy(generation, mishap);
        self.lapse_pending(generation);
        self.rows.retain(|row| row.generation != generation);
        self.fresh = self.fresh.filter(|(of, _)| *of != generation);
    }

    /// End every live credential and open the door for one registration. A migration's target would come in by it.
    pub(crate) fn revoke(&mut self, site: &Site) {
        if self.candidate().is_some() && site.guards.hold(Guard::CutOverRereads) {
            self.roll_back(site);
        }
        for it in &mut self.credentials {
            if it.state.is_live() {
                it.state = State::Revoked;
            }
        }
        for it in &mut self.passports {
            if matches!(it.state, PassportState::Open | PassportState::Redeemed) {
                it.state = PassportState::Revoked;
            }
        }
        self.opened = true;
    }
}
