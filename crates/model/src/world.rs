//! What there is: the rows of one workspace, the agents that run somewhere, and what is on its way.
//!
//! Credentials, passports and keys are named by their place in a list. After every step what nobody can ever
//! present again is dropped, and generations are counted anew in their order: so recoveries may go on for
//! ever, while the states stay few.

use ligand_agent::holdings::{Disk, Holdings};
use ligand_agent::session::{Bearer, Call, Session};
use ligand_domain::credential::{PassportState, State};
use ligand_domain::instance::Phase;
use ligand_domain::migration::{Program, Stage};

/// A secret that can be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Token {
    /// A credential, by its place.
    Credential(u8),
    /// A passport, by its place.
    Passport(u8),
    /// The `Idempotency-Key` of a register. A credential only in that it is a text.
    Key(u8),
    /// The mark of what was obtained with the passport of this place.
    Origin(u8),
}

/// A credential's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential {
    /// Its generation.
    pub generation: u8,
    /// Where the database has it.
    pub state: State,
    /// An admitted register or heartbeat presented it.
    pub used: bool,
    /// It lapses if nobody uses it.
    pub lapses: bool,
    /// The time to use it is over; the row does not say so, its `lapses_at` does.
    pub late: bool,
    /// The `Idempotency-Key` that brought it.
    pub key: Option<Token>,
    /// The passport that it was minted for.
    pub passport: Option<u8>,
    /// How many rotations had been ordered when it was minted.
    pub serial: u8,
    /// Its row is there. Without it nobody knows it.
    pub committed: bool,
}

/// A passport's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Passport {
    /// The generation it opens.
    pub generation: u8,
    /// Where it stands.
    pub state: PassportState,
}

/// An instance's row, as long as it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// The generation it stands for.
    pub generation: u8,
    /// The generation it was asked for under: the backend knows it by that.
    pub born: u8,
    /// How far it has come.
    pub phase: Phase,
    /// Its lease has lapsed.
    pub silent: bool,
    /// Its start takes longer than is waited for.
    pub overdue: bool,
}

/// The next call of an agent of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn {
    /// Which.
    pub call: Call,
    /// With what.
    pub bearer: Bearer,
    /// After reading the file again.
    pub reread: bool,
}

/// What runs beside the user's program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mind {
    /// Ligand's own agent: its rules are production's.
    Ours {
        /// Where its conversation stands.
        session: Session,
        /// What it has in memory.
        holdings: Holdings<Token>,
        /// What is on its disk.
        disk: Disk<Token>,
        /// What it does next; `None`: it exited.
        turn: Option<Turn>,
    },
    /// A runtime that registers once per start, then sends heartbeats for ever.
    Foreign {
        /// Its token file.
        file: Option<Token>,
        /// What it has in memory.
        held: Option<Token>,
        /// It has registered, or tried to.
        registered: bool,
    },
}

/// Something that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The generation its backend knows it by; 0 where no backend runs it.
    pub born: u8,
    /// The generation that it was last known to stand for.
    pub stands: u8,
    /// What it does.
    pub mind: Mind,
    /// A passport in its start-up data.
    pub passport: Option<u8>,
    /// Not up yet: it takes longer than an unused credential is kept.
    pub booting: bool,
    /// A newer generation took its place, and it still runs.
    pub superseded: bool,
    /// Its disk takes no more.
    pub full: bool,
    /// Its backend cannot end it, nor see it.
    pub unstoppable: bool,
    /// What its program does.
    pub program: Program,
    /// It comes up standing by, and waits to be told to run.
    pub waits: bool,
    /// It waits since it came up, and was told nothing yet.
    pub untold: bool,
    /// Its program started by itself, since it last said what that does.
    pub slipped: bool,
    /// The secrets that its program has are not all.
    pub lacks: bool,
    /// Its program completed a turn, with the secrets that are stored now.
    pub turned: bool,
    /// Somebody else started it, and no backend here knows of it.
    pub outsider: bool,
}

impl Agent {
    /// Everything that it has, in memory and on disk.
    pub fn has(&self, token: Token) -> bool {
        match &self.mind {
            Mind::Ours { holdings, disk, .. } => {
                let mut found = self.passport.is_some_and(|at| Token::Passport(at) == token);
                let mut look = |it: Token| {
                    found |= it == token;
                    it
                };
                let _ = holdings.clone().map(&mut look);
                let _ = disk.clone().map(&mut look);
                found
            }
            Mind::Foreign { file, held, .. } => *file == Some(token) || *held == Some(token),
        }
    }
}

/// A request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Knock {
    /// The agent that sent it, by its place; `None`: a stranger or a thief.
    pub from: Option<u8>,
    /// Which call.
    pub call: Call,
    /// Its bearer.
    pub bearer: Option<Token>,
    /// Its key.
    pub key: Option<Token>,
    /// What a heartbeat says of the program.
    pub program: Program,
}

/// How often something that failed was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It did not fail.
    None,
    /// It is tried again later.
    Waits,
    /// It is tried again now.
    Due,
}

/// How the probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probed {
    /// Not made.
    Never,
    /// A turn was completed, with secrets of this serial.
    Turn(i64),
    /// It failed.
    Failed,
}

/// A migration that is not over: its row, and what is on record of its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Migration {
    /// Where it stands.
    pub stage: Stage,
    /// The generation that it leaves.
    pub source: u8,
    /// The generation that its backend knows the source by.
    pub source_born: u8,
    /// The generation of its target; 0 before it is prepared.
    pub candidate: u8,
    /// Its phase takes too long.
    pub late: bool,
    /// A person wants it undone.
    pub aborted: bool,
    /// Whether what failed is tried again.
    pub retry: Retry,
    /// The target registered.
    pub registered: bool,
    /// What the target last said of its program.
    pub target: Program,
    /// It showed that it holds the secrets of that serial.
    pub proved: bool,
    /// It is to run with secrets of this serial.
    pub runs: Option<i64>,
    /// How the probe went.
    pub probe: Probed,
    /// The target was destroyed.
    pub target_gone: bool,
    /// The source is to stand by.
    pub stands_by: bool,
    /// What the source last said of its program.
    pub source_says: Program,
    /// It said after the last copy that its program runs.
    pub behind: bool,
    /// The source was stopped.
    pub source_ended: bool,
    /// The source was destroyed.
    pub source_gone: bool,
    /// How far the data is: a first copy, the last one, in its place.
    pub data: (bool, bool, bool),
}

/// A migrator of somebody else's, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outside {
    /// It started a target, which has nothing to prove itself with.
    Started,
    /// It revoked what the source has.
    Revoked,
    /// It saw that the target took over, and said where the instance is now.
    Repointed,
    /// It ordered a restart.
    Restarted,
    /// It saw a turn completed, and ended the source.
    Retired,
    /// It called the move off.
    CalledOff,
}

/// What may still happen to the world from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Faults of network and machines.
    pub faults: u8,
    /// Restarts that administrators order.
    pub restarts: u8,
    /// Revocations that administrators order.
    pub revokes: u8,
    /// Rotations that administrators order.
    pub rotations: u8,
    /// Credentials that an operator puts into the agent's file.
    pub deliveries: u8,
    /// Migrations.
    pub migrations: u8,
    /// Migrations that a person wants undone.
    pub aborts: u8,
    /// Moves by a migrator of somebody else's.
    pub moves: u8,
    /// Calls of a stranger.
    pub strangers: u8,
    /// Calls of a thief.
    pub thieves: u8,
    /// Runs of the sweeper.
    pub sweeps: u8,
}

/// A broken law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flaw {
    /// An older generation acted after a newer one.
    OlderWriter,
    /// An instance that was superseded presented something and became the writer again.
    Returned,
    /// Somebody without a credential minted for it became the workspace.
    Stranger,
    /// A migration's target took over, or its source was ended, without the evidence.
    BlindCutover,
    /// A migration's source went on working after the last copy of its data, and had said so.
    LeftBehind,
    /// A sweep ended a credential of the current or the newest generation, or of a candidate.
    Swept,
    /// An agent that is wanted was told to exit.
    Exiled,
    /// Two starts of one workspace at once.
    TwoFlights,
    /// A rotation was answered that a newer one had overtaken.
    OldRotation,
}

/// One workspace and everything that touches it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The generation that counts.
    pub current: u8,
    /// The newest one.
    pub newest: u8,
    /// In the order in which they were minted.
    pub credentials: Vec<Credential>,
    /// In the order in which they were minted.
    pub passports: Vec<Passport>,
    /// Of instances that have not ended.
    pub rows: Vec<Row>,
    /// What runs.
    pub agents: Vec<Agent>,
    /// Not over.
    pub migration: Option<Migration>,
    /// A migrator of somebody else's.
    pub outside: Option<Outside>,
    /// Messages wait.
    pub held: bool,
    /// Restarts that were asked for since the migration began. What its target loads must be as new.
    pub serial: i64,
    /// The credentials were revoked so recently that a migrator's target should come first.
    pub just_revoked: bool,
    /// A restart was asked for that no instance has loaded.
    pub restart_due: bool,
    /// The status serves.
    pub online: bool,
    /// An administrator opened it for one registration.
    pub opened: bool,
    /// Rotations that were ordered.
    pub wanted: u8,
    /// The newest of them that a used credential satisfies.
    pub rotated: u8,
    /// The secret that the reconciler has in memory, and its generation.
    pub fresh: Option<(u8, Token)>,
    /// What a backend was asked to start, and has not begun with.
    pub order: Option<(u8, Token)>,
    /// A generation that was started, and whose credential is not committed (only without that guard).
    pub half_planned: Option<u8>,
    /// Another replica decided to restart, and has not acted yet.
    pub second: bool,
    /// The sweeper found something here, and has not acted yet.
    pub looked: bool,
    /// A copy of a request that the network has kept.
    pub wire: Option<Knock>,
    /// What a thief has.
    pub stolen: Option<Token>,
    /// A person has to say who is who.
    pub person: bool,
    /// The generation of the last call that counted.
    pub writer: u8,
    /// The first law that was broken. Nothing follows from such a state.
    pub flaw: Option<Flaw>,
    /// What may still happen.
    pub budget: Budget,
}

impl World {
    /// Where no workspace has an instance yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            current: 0,
            newest: 0,
            credentials: Vec::new(),
            passports: Vec::new(),
            rows: Vec::new(),
            agents: Vec::new(),
            migration: None,
            outside: None,
            held: false,
            serial: 0,
            just_revoked: false,
            restart_due: false,
            online: false,
            opened: false,
            wanted: 0,
            rotated: 0,
            fresh: None,
            order: None,
            half_planned: None,
            second: false,
            looked: false,
            wire: None,
            stolen: None,
            person: false,
            writer: 0,
            flaw: None,
            budget,
        }
    }

    /// The row that stands for a generation.
    #[must_use]
    pub fn row(&self, generation: u8) -> Option<&Row> {
        self.rows.iter().find(|row| row.generation == generation)
    }

    /// The generation of a migration's target, until that is the workspace or is ended.
    #[must_use]
    pub fn candidate(&self) -> Option<u8> {
        let before = |it: &Migration| matches!(it.stage, Stage::Before(_)) && it.candidate > 0;
        self.migration.filter(before).map(|it| it.candidate)
    }

    /// Note a broken law; the first one counts.
    pub fn broken(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }
}
