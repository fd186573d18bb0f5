//! The platform's side of a call. The decision is production's, `ligand_domain::admission::decide`; what is
//! done about it follows `crates/server/src/registry/mod.rs`, line by line, on rows in memory.

use ligand_agent::session::Call as AgentCall;
use ligand_domain::admission::{
    self, Action, Bootstrap, Call, Decision, Facts, Line, Newcomer, Newest, Presented, Refusal,
    Standing,
};
use ligand_domain::credential::{self, Kind, Origin, PassportState, State};
use ligand_domain::guards::{Guard, Guards};
use ligand_domain::id::{CredentialId, Generation};
use ligand_domain::instance::Phase;
use ligand_domain::migration::Program;
use ligand_domain::rotation::{self, Serials};
use ligand_domain::time::Timestamp;

use crate::world::{Credential, Flaw, Knock, Row, Token, World};

/// What a caller hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Let in.
    Admitted {
        /// A credential, shown this once.
        minted: Option<Token>,
        /// It is asked to rotate.
        rotate: Option<i64>,
        /// What its program is to do.
        program: Option<Program>,
    },
    /// The rotation that it asks for is not answered.
    NoRotation,
    /// Not let in, and what it may know of why.
    Refused(Option<Action>),
}

/// The settings of a workspace that no step changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// A backend runs its instances.
    pub managed: bool,
    /// Whether it may be taken up without a credential.
    pub bootstrap: Bootstrap,
    /// Its instances get start-up data alone, and can redeem no passport.
    pub start_data: bool,
    /// Which of the platform's rules hold.
    pub guards: Guards,
}

/// How a decision was carried out.
pub(crate) struct Let {
    pub(crate) generation: u8,
    pub(crate) minted: Option<Token>,
    pub(crate) inert: bool,
}

pub(crate) fn generation(number: u8) -> Generation {
    Generation::new(i64::from(number))
}

fn number(generation: Generation) -> u8 {
    u8::try_from(generation.number()).expect("generations are counted anew")
}

fn place(id: CredentialId) -> usize {
    (0..16).find(|at| name(*at) == id).expect("it was named here")
}

/// The credential at a place.
pub(crate) fn credential(at: usize) -> Token {
    Token::Credential(u8::try_from(at).expect("few credentials"))
}

pub(crate) fn rotates(knock: &Knock) -> bool {
    matches!(knock.call, AgentCall::Rotate { .. })
}

fn name(at: usize) -> CredentialId {
    let mut bytes = [0; 16];
    bytes[0] = u8::try_from(at).expect("few credentials");
    CredentialId::from_random(bytes)
}

impl World {
    /// Handle a call, in one transaction.
    pub fn knock(&mut self, site: &Site, knock: Knock) -> Reply {
        let facts = self.facts(site, &knock);
        let decision = self.by_start_data(site, &knock, admission::decide(&facts, site.guards));
        if let Decision::Refused(refusal) = decision {
            let told = refusal.told.map(|told| told.action);
            self.judge_refusal(site, &knock, told, refusal.heard);
            return Reply::Refused(told);
        }
        let before = self.clone();
        let done = self.carry_out(site, &knock, decision);
        if !done.inert && !rotates(&knock) {
            self.heard(done.generation);
        }
        self.note_program(&knock, done.generation);
        self.judge(site, &knock, &before, &decision, &done);
        if rotates(&knock) && done.minted.is_none() {
            return Reply::NoRotation;
        }
        let asks =
            done.generation == self.current && !done.inert && knock.call == AgentCall::Heartbeat;
        let rotate = self.serials().due().filter(|_| asks);
        Reply::Admitted { minted: done.minted, rotate, program: self.wish(done.generation) }
    }

    /// What can redeem no passport becomes the planned generation, and nobody else does while that is on its way.
    fn by_start_data(&self, site: &Site, knock: &Knock, decision: Decision) -> Decision {
        let Decision::Bootstraps { abandons: Some(planned), .. } = decision else {
            return decision;
        };
        if !site.start_data || self.newest_is() != Newest::Planned {
            return decision;
        }
        let born = knock.from.map(|from| self.agents[usize::from(from)].born);
        let awaited = self.row(self.newest).is_some_and(|row| Some(row.born) == born);
        if !awaited && site.guards.hold(Guard::ForeignAddress) {
            let (line, bearer) = (Line::Nothing, knock.bearer.is_some());
            return Decision::Refused(Refusal { line, bearer, told: None, heard: false });
        }
        match site.guards.hold(Guard::ForeignPlanned) {
            true => Decision::Bootstraps { generation: planned, abandons: None },
            false => decision,
        }
    }

    /// An instance credential is active, or pending and not given up.
    pub(crate) fn live(&self) -> bool {
        self.credentials.iter().any(|credential| credential.now().is_live())
    }

    pub(crate) fn newest_is(&self) -> Newest {
        if self.newest == self.current {
            Newest::Current
        } else if self.candidate() == Some(self.newest) {
            Newest::Candidate
        } else if self.row(self.newest).is_some() {
            Newest::Planned
        } else {
            Newest::Abandoned
        }
    }

    /// A credential as an admission sees it, which loads the presented one, those of its key, and the live.
    pub(crate) fn fact(&self, at: usize, knock: &Knock) -> credential::Credential {
        let it = self.credentials[at];
        let loaded = |other: usize, row: &Credential| {
            let presented = knock.bearer == Some(credential(other));
            row.state.is_live() || presented || row.key.is_some() && row.key == knock.key
        };
        let newer = |(other, row): (usize, &Credential)| {
            other > at && row.generation == it.generation && row.used && loaded(other, row)
        };
        credential::Credential {
            id: name(at),
            kind: Kind::Instance,
            generation: Some(generation(it.generation)),
            state: it.now(),
            used: it.used,
            newer_used: self.credentials.iter().enumerate().any(newer),
        }
    }

    pub(crate) fn serials(&self) -> Serials {
        Serials { wanted: i64::from(self.wanted), done: i64::from(self.rotated) }
    }

    fn facts(&self, site: &Site, knock: &Knock) -> Facts {
        let by_key =
            knock.key.and_then(|key| self.credentials.iter().rposition(|c| c.key == Some(key)));
        let fact = |at: usize| self.fact(at, knock);
        let call = match knock.call {
            AgentCall::Register => Call::Register,
            AgentCall::Heartbeat => Call::Heartbeat,
            AgentCall::Rotate { .. } => Call::Rotate,
            AgentCall::Secrets => unreachable!("no program of the model fetches any"),
        };
        let presented = match knock.bearer {
            None | Some(Token::Key(_) | Token::Origin(_)) => Presented::Nothing,
            Some(Token::Credential(at)) if !self.credentials[usize::from(at)].committed => {
                Presented::Stranger
            }
            Some(Token::Credential(at)) => Presented::Credential(fact(usize::from(at))),
            Some(Token::Passport(at)) => {
                let it = self.passports[usize::from(at)];
                Presented::Passport(credential::Passport {
                    generation: generation(it.generation),
                    state: it.state,
                })
            }
        };
        Facts {
            call,
            workspace: Some(Standing {
                removed: false,
                current: generation(self.current),
                newest: generation(self.newest),
                newest_is: self.newest_is(),
                born: self.row(self.current).map(|row| generation(row.born)),
                live: (0..self.credentials.len()).any(|at| fact(at).protects(site.guards)),
                bootstrap: site.bootstrap,
                opened: self.opened,
                just_revoked: self.just_revoked,
                managed: site.managed,
                newcomer: Newcomer::Proves,
            }),
            purged: false,
            presented,
            replayed: by_key.map(fact),
            open_registration: false,
            compat: false,
        }
    }

    fn carry_out(&mut self, site: &Site, knock: &Knock, decision: Decision) -> Let {
        let let_in = |generation: Generation| Let {
            generation: number(generation),
            minted: None,
            inert: false,
        };
        match decision {
            Decision::Current { generation, .. } if rotates(knock) => {
                let minted = self.answer_rotation(site, knock);
                Let { minted, ..let_in(generation) }
            }
            Decision::Current { generation, .. } => {
                self.mark_used(site, knock, false);
                let_in(generation)
            }
            Decision::TakesOver { generation, mints } => {
                self.current = number(generation);
                self.newest = self.current;
                let minted = mints.then(|| {
                    self.end_elders(site, knock);
                    self.redeem(site, knock, self.current)
                });
                self.mark_used(site, knock, false);
                Let { minted, ..let_in(generation) }
            }
            Decision::Redeems { generation } => {
                let minted = Some(self.redeem(site, knock, number(generation)));
                Let { minted, ..let_in(generation) }
            }
            Decision::Early { generation } => Let { inert: true, ..let_in(generation) },
            Decision::Candidate { generation, mints, activates } => {
                let minted = mints.then(|| self.redeem(site, knock, number(generation)));
                if activates {
                    self.mark_used(site, knock, true);
                }
                self.note_candidate(knock);
                Let { minted, inert: true, ..let_in(generation) }
            }
            Decision::Remint { lost, generation } => {
                self.credentials[place(lost)].state = State::Revoked;
                let minted = Some(self.mint_answer(site, number(generation), knock));
                Let { minted, ..let_in(generation) }
            }
            Decision::ReEnrols { generation } => {
                self.current = number(generation);
                self.newest = self.newest.max(self.current);
                let minted = Some(self.mint_answer(site, number(generation), knock));
                Let { minted, ..let_in(generation) }
            }
            Decision::Bootstraps { generation, abandons } => {
                self.open(site, number(generation), abandons.map(number));
                let minted = Some(self.mint_answer(site, number(generation), knock));
                Let { minted, ..let_in(generation) }
            }
            Decision::Api { .. }
            | Decision::Creates
            | Decision::LetThrough { .. }
            | Decision::Ignored
            | Decision::Refused(_) => unreachable!("nobody here makes such a call"),
        }
    }

    /// A generation that nobody planned begins.
    fn open(&mut self, site: &Site, generation: u8, abandons: Option<u8>) {
        if generation == self.newest && self.row(generation).is_some() {
            return self.open_planned(generation);
        }
        let mut bindable = vec![self.newest, self.current];
        (self.current, self.newest) = (generation, generation);
        if let Some(planned) = abandons {
            if self.candidate() == Some(planned) {
                self.roll_back(site);
                bindable.remove(0);
            } else {
                self.lapse_pending(planned);
                if !site.managed {
                    self.rows.retain(|row| row.generation != planned);
                }
            }
        }
        // Whatever a backend runs for it is what called: its row becomes the new generation's.
        let at = bindable
            .into_iter()
            .find_map(|of| self.rows.iter().position(|row| row.generation == of));
        match at.filter(|_| site.managed).map(|at| &mut self.rows[at]) {
            Some(row) => (row.generation, row.phase) = (generation, Phase::Serving),
            None => self.rows.push(Row {
                generation,
                born: if site.managed { generation } else { 0 },
                phase: Phase::Serving,
                silent: false,
                overdue: false,
            }),
        }
    }

    /// The planned generation begins; what came before it is over.
    fn open_planned(&mut self, generation: u8) {
        self.current = generation;
        for it in self.passports.iter_mut().filter(|it| it.generation == generation) {
            it.state = PassportState::Spent;
        }
        for row in self.rows.iter_mut().filter(|row| row.generation == generation) {
            row.phase = Phase::Serving;
        }
    }

    fn mint_answer(&mut self, site: &Site, generation: u8, knock: &Knock) -> Token {
        let key = knock.key;
        self.mint(site, Origin::Bootstrap, Credential { key, ..Credential::pending(generation) })
    }

    /// Commit a credential.
    pub(crate) fn mint(&mut self, site: &Site, origin: Origin, new: Credential) -> Token {
        let lapses = credential::lapses_at(origin, Timestamp::EPOCH, site.guards).is_some();
        self.credentials.push(Credential { lapses, serial: self.wanted, ..new });
        credential(self.credentials.len() - 1)
    }

    /// A passport took over: its own credential is yet to be used, and older instances are over already.
    fn end_elders(&mut self, site: &Site, knock: &Knock) {
        let of = generation(self.current);
        let count = self.credentials.len();
        let ended: Vec<bool> =
            (0..count).map(|at| self.fact(at, knock).elder_of(of, site.guards)).collect();
        for (it, _) in self.credentials.iter_mut().zip(ended).filter(|(_, ended)| *ended) {
            it.state = State::Superseded;
        }
    }

    fn redeem(&mut self, site: &Site, knock: &Knock, generation: u8) -> Token {
        let Some(Token::Passport(at)) = knock.bearer else {
            unreachable!("a passport was presented")
        };
        self.passports[usize::from(at)].state = PassportState::Redeemed;
        let minted = Credential { passport: Some(at), ..Credential::pending(generation) };
        self.mint(site, Origin::Passport, Credential { key: knock.key, ..minted })
    }

    /// The value of the rotation that was ordered, anew until one of them is used.
    fn answer_rotation(&mut self, site: &Site, knock: &Knock) -> Option<Token> {
        let (Some(Token::Credential(at)), AgentCall::Rotate { serial }) =
            (knock.bearer, knock.call)
        else {
            return None;
        };
        let facts = rotation::Facts {
            held: self.fact(usize::from(at), knock),
            current: generation(self.current),
            serials: self.serials(),
            asked: serial,
        };
        match rotation::decide(&facts, site.guards) {
            rotation::Decision::Mints(it) => {
                if serial < i64::from(self.wanted) {
                    self.broken(Flaw::OldRotation);
                }
                let token = self.mint(site, Origin::Rotation, Credential::pending(number(it)));
                let newest = self.credentials.last_mut().expect("it was minted");
                newest.serial = u8::try_from(serial).expect("few rotations");
                Some(token)
            }
            _ => None,
        }
    }

    /// An admitted register or heartbeat presented it.
    fn mark_used(&mut self, site: &Site, knock: &Knock, candidate: bool) {
        let Some(Token::Credential(at)) = knock.bearer else { return };
        let at = usize::from(at);
        let ended: Vec<bool> = (0..self.credentials.len())
            .map(|other| {
                let of = generation(self.credentials[at].generation);
                self.fact(other, knock).ended_by(name(at), of, candidate, site.guards)
            })
            .collect();
        let own = &mut self.credentials[at];
        let first = own.state == State::Pending;
        (own.state, own.used) = (State::Active, true);
        let (generation, serial) = (own.generation, own.serial);
        if !first {
            return;
        }
        if !candidate {
            self.opened = false;
            let done = self.serials().after_use(i64::from(serial)).done;
            self.rotated = u8::try_from(done).expect("few rotations");
        }
        for it in
            self.passports.iter_mut().filter(|it| it.generation == generation && it.state.opens())
        {
            it.state = PassportState::Spent;
        }
        for (it, ended) in self.credentials.iter_mut().zip(ended) {
            if ended {
                it.state = State::Superseded;
            }
        }
    }

    /// What a candidate's calls prove.
    fn note_candidate(&mut self, knock: &Knock) {
        if let Some(migration) = &mut self.migration {
            migration.registered |= knock.call == AgentCall::Register;
        }
    }

    /// The start of a generation is over.
    pub(crate) fn lapse_pending(&mut self, generation: u8) {
        for it in &mut self.credentials {
            if it.generation == generation && it.state == State::Pending {
                it.state = State::Lapsed;
            }
        }
        for it in &mut self.passports {
            if it.generation == generation {
                it.state = PassportState::Revoked;
            }
        }
    }

    /// A call of the generation that counts.
    pub(crate) fn heard(&mut self, generation: u8) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.generation == generation) {
            (row.phase, row.silent, row.overdue) = (Phase::Serving, false, false);
        }
        let newer = self.row(self.newest).is_some_and(|row| row.generation > self.current);
        if generation == self.current && !newer {
            self.online = true;
        }
    }
}

impl Credential {
    /// A value that nobody has used.
    pub(crate) fn pending(generation: u8) -> Self {
        Self {
            generation,
            state: State::Pending,
            used: false,
            lapses: false,
            late: false,
            key: None,
            passport: None,
            serial: 0,
            committed: true,
        }
    }

    /// Where it stands now, as an admission sees it.
    pub(crate) fn now(&self) -> State {
        if self.late && self.state == State::Pending { State::Lapsed } else { self.state }
    }
}
