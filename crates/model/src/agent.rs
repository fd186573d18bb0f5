//! The agents. What ours does after an answer, and what it writes in which order, is production's
//! (`ligand_agent::session`, `ligand_agent::holdings`); here are its loop and a runtime of somebody else's.

use ligand_agent::guards::Guards;
use ligand_agent::holdings::{Disk, Holdings, Passport, Slot, Write};
use ligand_agent::session::{Action, Answer, Call, Next, Refusal, Session};
use ligand_domain::admission::Action as Told;
use ligand_domain::migration::Program;

use crate::admit::{Reply, Site};
use crate::world::{Agent, Knock, Mind, Token, Turn, World};

/// A key that nobody has; it gets a number of its own when the world is tidied.
const NEW_KEY: Token = Token::Key(u8::MAX);

/// What the instances of a workspace are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// A runtime of somebody else's.
    pub foreign: bool,
    /// Its start-up data bring a passport; else its credential is in its file before it starts.
    pub by_passport: bool,
    /// It takes longer to come up than an unused credential would be kept.
    pub slow: bool,
    /// A migration's data bring the source's credential files along.
    pub copies_files: bool,
    /// It can stand by when it is told to.
    pub stands_by: bool,
    /// It comes up standing by.
    pub waits: bool,
    /// Which of the agent's rules hold.
    pub guards: Guards,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The answer arrives, and what it brought is written down.
    Answered,
    /// The answer is lost.
    Lost,
    /// The answer arrives, and the network keeps a copy of the request.
    Copied,
    /// The answer arrives, and not every secret that is fetched then.
    Withheld,
    /// The answer arrives, and the agent dies after so many writes.
    Dies(u8),
}

impl Recipe {
    /// What a backend starts.
    #[must_use]
    pub fn start(&self, site: &Site, born: u8, token: Token) -> Agent {
        match token {
            Token::Passport(at) => self.agent(site, born, Some(at), Disk::default()),
            _ => self.agent(site, born, None, Disk { token: Some(token), ..Disk::default() }),
        }
    }

    /// An agent that comes up on these files.
    #[must_use]
    pub fn agent(&self, site: &Site, born: u8, passport: Option<u8>, disk: Disk<Token>) -> Agent {
        let mind = if self.foreign {
            Mind::Foreign { file: disk.token, held: disk.token, registered: false }
        } else {
            self.awake(site.managed, passport, disk)
        };
        let booting = self.slow;
        Agent {
            born,
            stands: born,
            mind,
            passport,
            booting,
            superseded: false,
            full: false,
            unstoppable: false,
            program: if self.waits { Program::StandsBy } else { Program::Runs(0) },
            waits: self.waits,
            untold: self.waits,
            slipped: false,
            lacks: false,
            turned: false,
            outsider: false,
        }
    }

    fn awake(&self, managed: bool, passport: Option<u8>, disk: Disk<Token>) -> Mind {
        let brought =
            passport.map(|at| Passport { value: Token::Passport(at), origin: Token::Origin(at) });
        let holdings = Holdings::open(disk.clone(), brought, self.guards);
        let mut session = Session::new(managed, self.guards);
        let turn = turn(session.first(holdings.facts(false, 0.0)));
        Mind::Ours { session, holdings, disk, turn }
    }
}

fn turn(next: Next) -> Option<Turn> {
    match next {
        Next::Call { call, bearer, reread, .. } => Some(Turn { call, bearer, reread }),
        Next::Exit { .. } => None,
    }
}

/// Carry out what is to be written, or the first steps of it.
fn write(holdings: &mut Holdings<Token>, disk: &mut Disk<Token>, most: usize) {
    let plan: Vec<Write<Token>> = holdings.plan();
    for step in plan.iter().take(most) {
        if let Write::Put(Slot::Token, value) = step {
            // Somebody else has written the token file since: that one stays.
            let ours = [holdings.file().copied(), Some(*value), None].contains(&disk.token);
            if !ours {
                holdings.overtaken(disk.token);
                continue;
            }
        }
        disk.apply(step);
        holdings.done(step);
    }
}

fn answer(call: Call, reply: Reply) -> Answer<Token> {
    match (call, reply) {
        (Call::Register, Reply::Admitted { minted, .. }) => {
            Answer::Registered { token: minted, pace: None }
        }
        (Call::Heartbeat, Reply::Admitted { rotate, .. }) => Answer::Beaten { pace: None, rotate },
        (Call::Rotate { .. }, Reply::Admitted { minted: Some(token), .. }) => {
            Answer::Rotated { token }
        }
        (Call::Secrets, Reply::Admitted { .. }) => Answer::Fetched,
        (Call::Rotate { .. }, Reply::Admitted { minted: None, .. }) | (_, Reply::NoRotation) => {
            Answer::Rejected { why: String::new() }
        }
        (_, Reply::Refused(told)) => {
            let action = told.map(|told| match told {
                Told::RereadCredential => Action::Reread,
                Told::Exit => Action::Exit,
                Told::Register => Action::Register,
                Told::Wait(_) => Action::Wait,
            });
            Answer::Refused(Refusal { action, retry_after: None, why: String::new() })
        }
    }
}

impl World {
    /// An agent makes its next call.
    pub fn call(&mut self, site: &Site, recipe: &Recipe, at: usize, fate: Fate) {
        let mind = self.agents[at].mind.clone();
        let mind = match mind {
            Mind::Ours { session, holdings, disk, turn: Some(turn) } => {
                self.call_ours(site, at, fate, (session, holdings, disk, turn))
            }
            Mind::Ours { turn: None, .. } => return,
            Mind::Foreign { file, held, registered } => {
                self.call_foreign(site, at, fate, (file, held, registered))
            }
        };
        self.agents[at].mind = mind;
        if let Fate::Dies(_) = fate {
            self.crash(site, recipe, at);
        }
        let exited = matches!(self.agents[at].mind, Mind::Ours { turn: None, .. });
        if exited && (site.managed || self.agents[at].superseded) {
            self.remove(at);
        }
    }

    fn send(&mut self, site: &Site, at: usize, knock: Knock, fate: Fate) -> Reply {
        debug_assert_eq!(knock.from.map(usize::from), Some(at));
        if fate == Fate::Copied {
            self.wire = Some(knock);
        }
        self.knock(site, knock)
    }

    fn call_ours(
        &mut self,
        site: &Site,
        at: usize,
        fate: Fate,
        (mut session, mut holdings, mut disk, turn): (Session, Holdings<Token>, Disk<Token>, Turn),
    ) -> Mind {
        if turn.reread {
            holdings.reread(|| disk.token);
        }
        let full = self.agents[at].full;
        let most = if full { 0 } else { usize::MAX };
        write(&mut holdings, &mut disk, most);
        let bearer = holdings.presented(turn.bearer).copied();
        let key = (turn.call == Call::Register).then(|| *holdings.key_or(|| NEW_KEY));
        write(&mut holdings, &mut disk, most);
        let from = u8::try_from(at).ok();
        let program = self.says(at, turn.call);
        let knock = Knock { from, call: turn.call, bearer, key, program };
        let reply = self.send(site, at, knock, fate);
        if let (Reply::Admitted { program, .. }, true) = (reply, turn.call == Call::Heartbeat) {
            self.agents[at].slipped = false;
            self.hear_wish(at, program, fate);
        }
        let answer = match fate {
            Fate::Lost => Answer::Failed { why: String::new(), retry_after: None },
            _ => answer(turn.call, reply),
        };
        let differs = holdings.learn(&answer, turn.bearer, || disk.token);
        let most = match fate {
            _ if full => 0,
            Fate::Dies(most) => usize::from(most),
            Fate::Answered | Fate::Lost | Fate::Copied | Fate::Withheld => usize::MAX,
        };
        write(&mut holdings, &mut disk, most);
        let next = session.after(&answer, holdings.facts(differs, 0.0));
        let session = session.timeless();
        Mind::Ours { session, holdings, disk, turn: self::turn(next) }
    }

    fn call_foreign(
        &mut self,
        site: &Site,
        at: usize,
        fate: Fate,
        (mut file, mut held, registered): (Option<Token>, Option<Token>, bool),
    ) -> Mind {
        let call = if registered { Call::Heartbeat } else { Call::Register };
        let from = u8::try_from(at).ok();
        let program = Program::Unknown;
        let knock = Knock { from, call, bearer: held, key: None, program };
        let reply = self.send(site, at, knock, fate);
        match reply {
            _ if fate == Fate::Lost => {}
            Reply::Admitted { minted: Some(token), .. } => {
                (file, held) = (Some(token), Some(token))
            }
            Reply::Admitted { .. } | Reply::NoRotation => {}
            Reply::Refused(_) => held = file,
        }
        Mind::Foreign { file, held, registered: true }
    }

    /// What a heartbeat says of the program.
    fn says(&self, at: usize, call: Call) -> Program {
        if call == Call::Heartbeat { self.agents[at].program } else { Program::Unknown }
    }

    /// The answer to a heartbeat says what its program is to do; nothing: what it does anyway, and one that came up
    /// standing by goes on waiting.
    fn hear_wish(&mut self, at: usize, wish: Option<Program>, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        let agent = &mut self.agents[at];
        match (wish, agent.program) {
            (Some(Program::StandsBy), _) => {
                (agent.program, agent.untold) = (Program::StandsBy, false);
            }
            (Some(Program::Runs(serial)), Program::Runs(has)) if has >= serial => {}
            (Some(Program::Runs(serial)), _) => {
                // It fetches what is stored now.
                (agent.program, agent.untold) = (Program::Runs(serial), false);
                agent.lacks = fate == Fate::Withheld;
            }
            (None | Some(Program::Unknown), Program::StandsBy) if !agent.untold => {
                agent.program = Program::Runs(0);
            }
            (None | Some(Program::Unknown), _) => {}
        }
    }

    /// An agent dies, and comes up again on what is on its disk.
    pub fn crash(&mut self, site: &Site, recipe: &Recipe, at: usize) {
        let agent = &mut self.agents[at];
        let passport = agent.passport;
        let program = if agent.waits { Program::StandsBy } else { Program::Runs(0) };
        agent.slipped |= agent.program != program;
        (agent.program, agent.untold, agent.lacks) = (program, agent.waits, false);
        agent.mind = match &agent.mind {
            Mind::Ours { disk, .. } => recipe.awake(site.managed, passport, disk.clone()),
            Mind::Foreign { file, .. } => {
                Mind::Foreign { file: *file, held: *file, registered: false }
            }
        };
    }

    /// Its disk is lost, with everything on it.
    pub fn lose_disk(&mut self, site: &Site, recipe: &Recipe, at: usize) {
        let passport = self.agents[at].passport;
        let born = self.agents[at].born;
        self.agents[at] = recipe.agent(site, born, passport, Disk::default());
    }

    /// An operator puts a credential into the token file.
    pub fn put_file(&mut self, at: usize, token: Token) {
        match &mut self.agents[at].mind {
            Mind::Ours { disk, .. } => disk.token = Some(token),
            Mind::Foreign { file, .. } => *file = Some(token),
        }
    }

    /// The agents that go on.
    pub(crate) fn leave(&mut self, stays: impl Fn(&Agent) -> bool) {
        for at in (0..self.agents.len()).rev() {
            if !stays(&self.agents[at]) {
                self.remove(at);
            }
        }
    }

    /// What a dead agent had sent may still arrive; nobody waits for the answer.
    fn remove(&mut self, at: usize) {
        self.agents.remove(at);
        let gone = u8::try_from(at).expect("few agents");
        self.wire = self.wire.filter(|knock| knock.from != Some(gone));
        if let Some(from) = self.wire.as_mut().and_then(|knock| knock.from.as_mut())
            && *from > gone
        {
            *from -= 1;
        }
    }

    /// Note who is superseded by now.
    pub(crate) fn note_superseded(&mut self, site: &Site) {
        if !site.managed {
            return;
        }
        let known = |agent: &&mut Agent| agent.born > 0 || !agent.outsider;
        for agent in self.agents.iter_mut().filter(known) {
            let row = self.rows.iter().find(|row| row.born == agent.born);
            agent.stands = row.map_or(agent.stands, |row| row.generation);
            agent.superseded |= agent.stands < self.current;
        }
    }
}
