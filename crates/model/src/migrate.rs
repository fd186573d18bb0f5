//! A migration. What comes next is production's, `ligand_domain::migration::next`, and what its cut-over demands is
//! `may_cut_over`; the steps follow `crates/server/src/migrations`. Secrets, receipt, turn and data are a bit each.

use std::time::Duration;

use ligand_agent::session::Call;
use ligand_domain::credential::{PassportState, State};
use ligand_domain::guards::Guard;
use ligand_domain::id::Generation;
use ligand_domain::instance::{Phase, Seen};
use ligand_domain::migration::{
    self, After, Before, Data, Facts, Probe, Program, Stage, Step, Wish,
};
use ligand_domain::workspace::Intent;

use crate::admit::{Site, generation};
use crate::agent::Recipe;
use crate::reconcile::{Mishap, NOW};
use crate::world::{Agent, Flaw, Knock, Migration, Mind, Probed, Retry, Row, World};

/// What the next step is, without its reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// Nothing to do.
    Rest,
    /// Begin the next phase.
    Enter(Before),
    /// Raise the generation and commit the candidate's passport.
    Prepare,
    /// Ask the target's backend for the candidate.
    Start,
    /// Copy data.
    Copy,
    /// Let messages wait.
    Hold,
    /// Tell the source to stand by.
    StandBy,
    /// Stop the source.
    StopSource,
    /// Make the last copy.
    Complete,
    /// Put it in its place.
    Restore,
    /// Tell the target to run with secrets of this serial.
    Run(i64),
    /// Have the target do a turn.
    Probe,
    /// Make the target the workspace.
    CutOver,
    /// End it, and what its candidate holds.
    RollBack,
    /// Destroy the target.
    DestroyTarget,
    /// Tell the source to run, and let messages go on.
    Resume,
    /// Let messages go on to the target.
    Release,
    /// Destroy the source.
    Retire,
    /// It is over.
    Finish,
}

impl From<Step> for Move {
    fn from(step: Step) -> Self {
        match step {
            Step::Rest(_) => Self::Rest,
            Step::Enter(phase) => Self::Enter(phase),
            Step::Prepare => Self::Prepare,
            Step::Start => Self::Start,
            Step::Copy => Self::Copy,
            Step::Hold => Self::Hold,
            Step::StandBy => Self::StandBy,
            Step::StopSource => Self::StopSource,
            Step::Complete => Self::Complete,
            Step::Restore => Self::Restore,
            Step::Run(serial) => Self::Run(serial),
            Step::Probe => Self::Probe,
            Step::CutOver => Self::CutOver,
            Step::RollBack(_) => Self::RollBack,
            Step::DestroyTarget => Self::DestroyTarget,
            Step::Resume => Self::Resume,
            Step::Release => Self::Release,
            Step::Retire => Self::Retire,
            Step::Finish => Self::Finish,
        }
    }
}

impl Move {
    /// What may go wrong with it.
    pub(crate) const fn mishaps(self) -> &'static [Mishap] {
        match self {
            Self::Start => &[Mishap::DiesBefore, Mishap::DiesMeanwhile, Mishap::DiesAfter],
            Self::DestroyTarget | Self::Retire => {
                &[Mishap::DiesAfter, Mishap::Fails, Mishap::GoesOn]
            }
            Self::StopSource => &[Mishap::DiesAfter, Mishap::GoesOn],
            Self::Probe => &[Mishap::DiesAfter, Mishap::Fails],
            _ => &[],
        }
    }
}

impl World {
    /// What production would do next about the migration.
    #[must_use]
    pub fn moves(&self, site: &Site, recipe: &Recipe) -> Move {
        let Some(it) = &self.migration else { return Move::Rest };
        migration::next(&row(it), &self.known(recipe, it), NOW, site.guards).into()
    }

    fn known(&self, recipe: &Recipe, it: &Migration) -> Facts {
        let alive = |born: u8| if self.runs(born) { Seen::Running } else { Seen::Gone };
        let own = |of: &&crate::world::Credential| of.generation == it.candidate;
        let (copied, complete, restored) = it.data;
        let started = self.is_started(it);
        Facts {
            intent: Intent::Running,
            current: generation(self.current),
            newest: generation(self.newest),
            candidate: self.candidate().map(generation),
            in_flight: self.restart_due || self.starts(),
            serves: self.online,
            serial: self.serial,
            source: migration::Source {
                seen: alive(it.source_born),
                stands_by: recipe.stands_by,
                program: if it.behind { Program::Unknown } else { it.source_says },
                ended: it.source_ended,
                gone: it.source_gone,
            },
            target: migration::Target {
                seen: started.then(|| alive(it.candidate)),
                started,
                registered: it.registered,
                active: self.credentials.iter().filter(own).any(|it| it.state == State::Active),
                program: it.target,
                proved: it.proved,
                gone: it.target_gone,
            },
            data: Data { copied, complete, restored },
            held: self.held,
            turns: 0,
            probe: match it.probe {
                Probed::Never => Probe::None,
                Probed::Turn(serial) => Probe::Completed(serial),
                Probed::Failed => Probe::Failed(String::new()),
            },
        }
    }

    fn is_started(&self, it: &Migration) -> bool {
        self.row(it.candidate).is_some_and(|row| row.phase != Phase::Planned)
    }

    /// A start is under way.
    pub(crate) fn starts(&self) -> bool {
        self.newest > self.current && self.row(self.newest).is_some()
    }

    /// Somebody asks for a migration.
    pub(crate) fn migrate(&mut self) {
        self.serial = 0;
        self.migration = Some(Migration {
            stage: Stage::Before(Before::Prepare),
            source: self.current,
            source_born: 0,
            candidate: 0,
            late: false,
            aborted: false,
            retry: Retry::None,
            registered: false,
            target: Program::Unknown,
            proved: false,
            runs: None,
            probe: Probed::Never,
            target_gone: false,
            stands_by: false,
            source_says: Program::Unknown,
            behind: false,
            source_ended: false,
            source_gone: false,
            data: (false, false, false),
        });
    }

    /// Take a step of the migration.
    pub(crate) fn go(&mut self, site: &Site, recipe: &Recipe, step: Move, mishap: Mishap) {
        let Some(mut it) = self.migration else { return };
        match step {
            Move::Rest => {}
            Move::Enter(phase) => (it.stage, it.late) = (Stage::Before(phase), false),
            Move::Copy => it.data.0 = true,
            Move::Hold => self.held = true,
            Move::StandBy => it.stands_by = true,
            Move::Complete => it.data.1 = true,
            Move::Restore => it.data.2 = true,
            Move::Run(serial) => it.runs = Some(serial),
            Move::Probe => it.probe = self.probe(&it, mishap),
            Move::StopSource => {
                self.destroy_born(it.source_born, mishap);
                it.source_ended = mishap != Mishap::DiesAfter;
            }
            Move::Resume => (self.held, it.stands_by) = (false, false),
            Move::Release => it.stage = Stage::After(After::Retire),
            Move::Retire if mishap == Mishap::Fails => it.retry = Retry::Waits,
            Move::Retire => {
                self.judge_end(it.source_born);
                self.destroy_born(it.source_born, mishap);
                it.source_gone = mishap != Mishap::DiesAfter;
            }
            Move::DestroyTarget if mishap == Mishap::Fails => it.retry = Retry::Waits,
            Move::DestroyTarget => {
                self.judge_end(it.candidate);
                self.destroy_born(it.candidate, mishap);
                // Without the guard of the roll-back it was not ended before.
                self.rows
                    .retain(|row| row.generation != it.candidate || row.generation == self.current);
                it.target_gone = mishap != Mishap::DiesAfter;
            }
            Move::Prepare => return self.prepare(site),
            Move::Start => return self.start_target(site, recipe, &it, mishap),
            Move::CutOver => return self.cut_over(site, recipe),
            Move::RollBack => return self.roll_back(site),
            Move::Finish => {
                self.migration = None;
                return;
            }
        }
        self.migration = Some(it);
    }

    /// Raise the generation for the target: a compare-and-set on there being no start in flight.
    fn prepare(&mut self, site: &Site) {
        let found = (generation(self.current), generation(self.newest));
        let starts = self.starts();
        if !ligand_domain::converge::may_plan(found, found, starts, site.guards) {
            return;
        }
        if starts {
            self.broken(Flaw::TwoFlights);
        }
        self.newest += 1;
        let generation = self.newest;
        let phase = Phase::Planned;
        self.rows.push(Row { generation, born: generation, phase, silent: false, overdue: false });
        self.fresh = Some((generation, self.passport_for(generation)));
        let born = self.row(self.current).map_or(0, |row| row.born);
        if let Some(it) = &mut self.migration {
            (it.source, it.source_born, it.candidate) = (self.current, born, generation);
        }
    }

    fn start_target(&mut self, site: &Site, recipe: &Recipe, it: &Migration, mishap: Mishap) {
        let recipe = Recipe { by_passport: true, waits: true, ..*recipe };
        let before = self.agents.len();
        self.start(site, &recipe, it.candidate, mishap);
        let source = self.agents.iter().find(|agent| agent.born == it.source_born);
        let copied = match source.map(|agent| &agent.mind) {
            Some(Mind::Ours { disk, .. }) if recipe.copies_files => disk.clone(),
            _ => return,
        };
        if let Some(agent) = self.agents.get_mut(before) {
            *agent = recipe.agent(site, it.candidate, agent.passport, copied);
        }
    }

    /// One real turn. Its outcome may be lost with the server.
    fn probe(&mut self, it: &Migration, mishap: Mishap) -> Probed {
        let (serial, born) = (self.serial, it.candidate);
        let target = self.agents.iter_mut().find(|agent| agent.born == born);
        let target = target.filter(|agent| matches!(agent.program, Program::Runs(_)));
        let completed = match target {
            Some(agent) if mishap != Mishap::Fails => {
                agent.turned |= !agent.lacks && agent.program == Program::Runs(serial);
                match agent.program {
                    // Without its secrets a program answers, and does nothing.
                    Program::Runs(loaded) => Probed::Turn(loaded),
                    Program::Unknown | Program::StandsBy => Probed::Failed,
                }
            }
            _ => Probed::Failed,
        };
        if mishap == Mishap::DiesAfter { it.probe } else { completed }
    }

    /// End a migration before its cut-over, and what its candidate can prove itself with, in one transaction.
    pub(crate) fn roll_back(&mut self, site: &Site) {
        let Some(of) = self.migration.map(|it| it.candidate) else { return };
        let ended = of > 0 && site.guards.hold(Guard::RollBackRevokes);
        for it in self.credentials.iter_mut().filter(|it| ended && it.generation == of) {
            if it.state.is_live() {
                it.state = State::Revoked;
            }
        }
        for it in self.passports.iter_mut().filter(|it| ended && it.generation == of) {
            it.state = PassportState::Revoked;
        }
        if ended {
            self.rows.retain(|row| row.generation != of);
        }
        self.fresh = self.fresh.filter(|(fresh, _)| *fresh != of);
        for agent in self.agents.iter_mut().filter(|agent| of > 0 && agent.born == of) {
            agent.superseded = true;
        }
        if let Some(it) = &mut self.migration {
            (it.stage, it.late, it.retry) = (Stage::Undoing, false, Retry::None);
            it.behind = false;
        }
    }

    /// The candidate is the workspace from now on, if everything still stands.
    fn cut_over(&mut self, site: &Site, recipe: &Recipe) {
        let Some(mut it) = self.migration else { return };
        let facts = self.known(recipe, &it);
        if migration::may_cut_over(&row(&it), &facts, site.guards).is_err() {
            return self.roll_back(site);
        }
        self.judge_cut_over(&it);
        let of = it.candidate;
        (self.current, self.newest) = (of, self.newest.max(of));
        for it in self.credentials.iter_mut().filter(|it| it.generation < of) {
            if it.state.is_live() {
                it.state = State::Superseded;
            }
        }
        self.rows.retain(|row| row.generation != it.source);
        for row in self.rows.iter_mut().filter(|row| row.generation == of) {
            row.phase = Phase::Serving;
        }
        (self.held, self.restart_due, self.online) = (false, false, true);
        (it.stage, it.late) = (Stage::After(After::Release), false);
        self.migration = Some(it);
    }

    /// What has to be true of the world, whatever is on record.
    fn judge_cut_over(&mut self, it: &Migration) {
        let of = it.candidate;
        let holds = |agent: &Agent| {
            let active = |at: usize| {
                let it = &self.credentials[at];
                it.generation == of && it.state == State::Active
            };
            let mut all = 0..self.credentials.len();
            all.any(|at| active(at) && agent.has(crate::admit::credential(at)))
        };
        let serves = |agent: &Agent| {
            let runs = agent.program == Program::Runs(self.serial) && !agent.lacks;
            agent.born == of && holds(agent) && agent.turned && (runs || agent.slipped)
        };
        let works = |agent: &Agent| {
            let runs = matches!(agent.program, Program::Runs(_)) && !agent.slipped;
            agent.born == it.source_born && runs && !agent.unstoppable
        };
        let blind = !self.agents.iter().any(serves);
        let works = self.agents.iter().any(works);
        if blind {
            self.broken(Flaw::BlindCutover);
        }
        // Of one that was stopped its backend's word is taken.
        if works || it.behind && !it.source_ended {
            self.broken(Flaw::LeftBehind);
        }
    }

    /// What a migration ends is never the workspace.
    fn judge_end(&mut self, born: u8) {
        if self.row(self.current).is_some_and(|row| row.born == born) {
            self.broken(Flaw::BlindCutover);
        }
    }

    /// What a heartbeat says of the program it is beside.
    pub(crate) fn note_program(&mut self, knock: &Knock, of: u8) {
        if knock.call != Call::Heartbeat {
            return;
        }
        let candidate = self.candidate();
        let lacks = knock.from.is_some_and(|at| self.agents[usize::from(at)].lacks);
        let serial = self.serial;
        let Some(it) = &mut self.migration else { return };
        if candidate == Some(of) {
            it.target = knock.program;
            it.proved = knock.program == Program::Runs(serial) && !lacks;
        } else if of == it.source && matches!(it.stage, Stage::Before(_) | Stage::Undoing) {
            // What it says before it is told to counts for nothing: its answer tells it to run.
            it.source_says = match knock.program {
                Program::StandsBy if it.stands_by => Program::StandsBy,
                Program::StandsBy | Program::Runs(_) | Program::Unknown => Program::Unknown,
            };
            let before = matches!(it.stage, Stage::Before(_)) && it.data.1;
            it.behind |= before && it.source_says != Program::StandsBy;
        }
    }

    /// What the answer to a heartbeat of this generation says of the program.
    pub(crate) fn wish(&self, of: u8) -> Option<Program> {
        let Some(it) = &self.migration else { return Some(Program::Runs(0)) };
        match it.stage {
            Stage::Before(_) if of == it.candidate => it.runs.map(Program::Runs),
            Stage::Before(_) if of == it.source && it.stands_by => Some(Program::StandsBy),
            _ => Some(Program::Runs(0)),
        }
    }
}

/// The row, as the decision sees it.
fn row(it: &Migration) -> migration::Migration {
    let second = Duration::from_secs(1);
    let candidate: Option<Generation> = (it.candidate > 0).then(|| generation(it.candidate));
    migration::Migration {
        stage: it.stage,
        since: NOW,
        deadline: if it.late { NOW } else { NOW.after(second) },
        wish: if it.aborted { Wish::Abort } else { Wish::Go },
        source: generation(it.source),
        candidate,
        grace: Duration::ZERO,
        next_attempt_at: match it.retry {
            Retry::None => None,
            Retry::Waits => Some(NOW.after(second)),
            Retry::Due => Some(NOW),
        },
    }
}
