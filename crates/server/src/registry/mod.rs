//! Registers, heartbeats, card updates and rotations: who is let in, and what follows from it.
//!
//! Register, card updates and rotations are handled in `http.rs`, heartbeats in `heartbeat.rs`; those that change
//! nothing are recorded many at a time by `beats.rs`, and need no decision. Each other call is one transaction,
//! begun by [`enter`]: lock the row of its workspace, load the facts, ask `ligand_domain::admission::decide`, carry
//! the answer out (`carry.rs`), and commit. A reply is sent only after the commit, so what it says is already true.
//!
//! Who proves nothing learns nothing: for such a caller the same statements run in the same order, whether the
//! workspace is there, sealed, removed, purged, or was never there.

mod addresses;
pub mod beats;
mod card;
mod carry;
pub mod heartbeat;
pub mod http;
mod receipt;
mod status;
mod store;
pub mod turns;

use std::net::IpAddr;

use ligand_domain::admission::{
    self, Bootstrap, Call, Decision, Facts, Newcomer, Newest, Presented, just_revoked,
};
use ligand_domain::credential::{
    Credential, MIN_IDEMPOTENCY_KEY, Passport, PassportState, Token, TokenHash,
};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Phase;
use ligand_domain::rotation::Serials;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;

use self::carry::Admission;
use crate::access::{self, For, Held, HeldPassport};
use crate::app::App;
use crate::config::Auth;
use crate::error::{Error, Result};
use crate::http::limit::Proof;
use crate::journal::Work;
use crate::workspaces::{self, Brings, Observed, Workspace};

/// What a call brings along to be let in by.
pub(crate) struct Knock<'a> {
    /// Which call.
    pub(crate) call: Call,
    /// The workspace it claims.
    pub(crate) workspace: WorkspaceId,
    /// Its bearer.
    pub(crate) bearer: Option<&'a str>,
    /// Its `Idempotency-Key`; only long ones count.
    pub(crate) key: Option<&'a str>,
    /// Where it comes from.
    pub(crate) whence: Whence<'a>,
}

/// Where a call comes from, as far as it matters: to registers without a proof alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Whence<'a> {
    /// Where it says that it answers.
    pub(crate) says: Option<&'a str>,
    /// The peer of its connection.
    pub(crate) peer: Option<IpAddr>,
}

/// Somebody who was let in.
pub(crate) struct Admitted {
    /// The workspace, as it was before the call.
    pub(crate) before: Workspace,
    /// The generation it was admitted as.
    pub(crate) generation: Generation,
    /// The current generation from now on.
    pub(crate) current: Generation,
    /// The newest generation from now on.
    pub(crate) newest: Generation,
    /// A credential was minted for it.
    pub(crate) minted: Option<Token>,
    /// Known, but nothing of the workspace may change by it (a candidate, or an early card).
    pub(crate) inert: bool,
    /// Admitted for the first time in its generation.
    pub(crate) first: bool,
    /// The credential that it presented, as it was before the call.
    pub(crate) held: Option<Credential>,
    /// The rotations from now on.
    pub(crate) serials: Serials,
}

impl Admitted {
    /// Whoever was let in by a live credential, and did not get one, proved to be the workspace.
    pub(crate) fn proves(&self, proof: &Proof) {
        let live = self.held.is_some_and(|held| held.state.is_live());
        if self.minted.is_none() && live {
            proof.of(self.before.id);
        }
    }

    /// Whether it is a migration's candidate.
    pub(crate) fn is_candidate(&self) -> bool {
        self.inert && self.before.identity.candidate == Some(self.generation)
    }

    /// The serial that its agent should ask for: the current generation's, if it can.
    pub(crate) fn rotate(&self, observed: &Observed) -> Option<i64> {
        let asked = observed.rotates && !observed.inert && self.generation == self.current;
        self.serials.due().filter(|_| asked && self.held.is_some())
    }
}

/// Begin a transaction, and decide and carry out in it whether the call is let in. `None`: the contract wants
/// it answered as if it had been, and nothing changes. A refusal is noted and committed.
///
/// # Errors
/// 401 with what may be told; 503 when the database does not answer (compat: 500 with `failed`, the contract's
/// text for the place).
pub(crate) async fn enter<'a>(
    app: &'a App,
    knock: &Knock<'_>,
    failed: &'static str,
) -> Result<Option<(Work<'a>, Admitted)>> {
    let entered = async {
        let mut work = Work::begin(app).await?;
        match admit(app, &mut work, knock).await {
            Ok(Some(admitted)) => Ok(Some((work, admitted))),
            Ok(None) => Ok(None),
            Err(refused @ Error::Refused(..)) => {
                work.commit().await?;
                Err(refused)
            }
            Err(other) => Err(other),
        }
    };
    match entered.await {
        Err(Error::Unavailable(cause)) if app.config.auth == Auth::Compat => {
            Err(Error::Internal(failed, cause))
        }
        other => other,
    }
}

/// What the bearer and the key are, at this workspace.
struct Looked {
    /// The bearer's hash.
    hash: Option<TokenHash>,
    /// The key's hash, if the key counts.
    key: Option<TokenHash>,
    /// The credential that the bearer is, the one that the key brought, and every live one.
    held: Vec<Held>,
    /// The passport that the bearer is.
    passport: Option<HeldPassport>,
    /// What the newest generation is.
    newest_is: Newest,
    /// With which generation the current instance was born, where that has not ended.
    born: Option<Generation>,
    /// There is no such workspace any more, but its tombstone.
    purged: bool,
    /// The newest instance is somewhere else than the caller, for all that a backend says which passes start-up data only.
    elsewhere: bool,
}

impl Looked {
    /// The credential that the bearer is.
    fn presented(&self) -> Option<&Held> {
        let hash = self.hash.as_ref()?;
        self.held.iter().find(|credential| credential.hash == hash.bytes())
    }

    /// A credential as decisions look at it.
    fn credential(&self, of: &Held, now: Timestamp) -> Credential {
        let since = |other: &Held| {
            other.generation == of.generation
                && other.id != of.id
                && other.state.is_live()
                && other.first_used_at.is_some()
        };
        Credential {
            id: of.id,
            kind: of.kind,
            generation: of.generation,
            state: of.state.at(of.lapses_at, now),
            used: of.first_used_at.is_some(),
            newer_used: !of.state.is_live() && self.held.iter().any(since),
        }
    }
}

/// Decide, and carry the decision out in the caller's transaction.
async fn admit(app: &App, work: &mut Work<'_>, knock: &Knock<'_>) -> Result<Option<Admitted>> {
    let workspace = workspaces::lock(&mut work.tx, knock.workspace).await?;
    let looked = look(app, work, knock, workspace.as_ref()).await?;
    let facts = facts(app, knock, workspace.as_ref(), &looked, work.now);
    let decision = admission::decide(&facts, app.config.guards);
    let mut admission = Admission { app, work, looked: &looked };
    match decision {
        Decision::Refused(refusal) => {
            Err(admission.refuse(knock, workspace.as_ref(), refusal).await?)
        }
        Decision::Ignored => Ok(None),
        Decision::Creates => admission.create(knock.workspace).await.map(Some),
        decision => {
            let before =
                workspace.expect("every other decision is about a workspace that is there");
            admission.carry_out(before, decision).await.map(Some)
        }
    }
}

/// Who holds a live credential has proven who they are; for everybody else the same statements run.
async fn look(
    app: &App,
    work: &mut Work<'_>,
    knock: &Knock<'_>,
    workspace: Option<&Workspace>,
) -> Result<Looked> {
    let (tx, id) = (&mut work.tx, knock.workspace);
    let hash = knock.bearer.map(TokenHash::of);
    let key = knock.key.filter(|key| key.len() >= MIN_IDEMPOTENCY_KEY).map(TokenHash::of);
    let held = access::for_admission(tx, id, hash.as_ref(), key.as_ref()).await?;
    let mut looked = Looked {
        hash,
        key,
        held,
        passport: None,
        newest_is: Newest::Current,
        born: None,
        purged: false,
        elsewhere: false,
    };
    let proven = looked.presented().is_some_and(|held| held.state.is_live());
    let generation = workspace.map_or(Generation::NONE, |workspace| workspace.newest);
    let ahead = workspace.filter(|workspace| workspace.newest > workspace.current);
    if !proven || ahead.is_some() {
        let newest = workspaces::instance_of(tx, id, generation).await?;
        let newest = newest.filter(|instance| instance.ended_at.is_none());
        let alive = newest.is_some();
        looked.elsewhere = addresses::is_elsewhere(app, workspace, newest.as_ref(), knock.whence);
        // Not before the one that it replaces has ended: until then whoever calls is that one.
        let older = workspaces::alive(tx, id).await?;
        let replaces = newest.as_ref().is_some_and(|instance| instance.started_at.is_none());
        looked.elsewhere |= replaces && older.iter().any(|it| it.generation < generation);
        looked.newest_is = match ahead {
            None => Newest::Current,
            Some(w) if w.identity.candidate == Some(w.newest) => Newest::Candidate,
            Some(_) if alive => Newest::Planned,
            Some(_) => Newest::Abandoned,
        };
    }
    if !proven {
        looked.passport = access::passport(tx, id, looked.hash.as_ref()).await?;
        let issued = access::ever_issued(tx, id).await?;
        looked.purged = issued && workspace.is_none();
        let current = workspace.map_or(Generation::NONE, |workspace| workspace.current);
        let serving = workspaces::instance_of(tx, id, current).await?;
        looked.born = serving.filter(|it| it.ended_at.is_none()).map(|it| it.born);
    }
    Ok(looked)
}

/// Translate what the database has into what the decision looks at.
fn facts(
    app: &App,
    knock: &Knock<'_>,
    workspace: Option<&Workspace>,
    looked: &Looked,
    now: Timestamp,
) -> Facts {
    let compat = app.config.auth == Auth::Compat;
    let guards = app.config.guards;
    let live = looked.held.iter().any(|held| looked.credential(held, now).protects(guards));
    let replayed = looked.key.and_then(|key| {
        looked.held.iter().rev().find(|c| c.idempotency_hash.as_deref() == Some(key.bytes()))
    });
    Facts {
        call: knock.call,
        workspace: workspace.map(|w| admission::Standing {
            removed: w.intent == Intent::Removed,
            current: w.current,
            newest: w.newest,
            newest_is: looked.newest_is,
            born: looked.born,
            live,
            bootstrap: w.bootstrap,
            opened: w.bootstrap_until.is_some_and(|until| until > now),
            just_revoked: just_revoked(w.identity.revoked_at, now),
            managed: w.managed(),
            newcomer: match Brings::of(app, w) {
                Brings::Credential | Brings::Passport => Newcomer::Proves,
                Brings::Nothing => Newcomer::Bare { there: !looked.elsewhere },
            },
        }),
        purged: looked.purged,
        presented: match (knock.bearer, looked.presented(), &looked.passport) {
            (None, ..) => Presented::Nothing,
            (Some(_), Some(held), _) => Presented::Credential(looked.credential(held, now)),
            (Some(_), None, Some(passport)) => Presented::Passport(Passport {
                generation: passport.generation,
                state: PassportState::at(passport.times, now),
            }),
            (Some(_), None, None) => Presented::Stranger,
        },
        replayed: replayed.map(|held| looked.credential(held, now)),
        open_registration: app.config.open_registration || compat,
        compat,
    }
}

/// End a generation for good, in the caller's transaction: every credential and passport of it ends, it is
/// marked abandoned, and if it was a migration's candidate there is none any more. Only after the commit may
/// its instance be destroyed.
///
/// # Errors
/// When the database does not answer.
pub async fn abandon(
    work: &mut Work<'_>,
    of: (WorkspaceId, Generation),
    why: &str,
) -> std::result::Result<(), sqlx::Error> {
    let now = work.now;
    access::end_generation(&mut work.tx, of.0, of.1, now).await?;
    workspaces::abandon(&mut work.tx, of, why, now).await?;
    workspaces::clear_candidate(&mut work.tx, of.0).await
}

/// The credential of an external workspace's first generation, for its operator to deliver. It never lapses:
/// that takes a person as long as it takes.
///
/// # Errors
/// 503 when the database does not answer.
pub(crate) async fn enrol_external(
    app: &App,
    work: &mut Work<'_>,
    id: WorkspaceId,
) -> Result<Token> {
    let generation = Generation::NONE.next();
    let token = access::mint(app, work, id, For::Start(generation)).await?;
    workspaces::set_generations(&mut work.tx, id, generation, generation).await?;
    let of = (id, generation);
    workspaces::insert_instance(
        &mut work.tx,
        app.ids.instance(),
        of,
        None,
        Phase::Started,
        work.now,
    )
    .await?;
    Ok(token)
}

/// Why a generation is abandoned that somebody else overtook.
pub(crate) const OVERTAKEN: &str = "abandoned: another agent took up the workspace first";

/// Whether a workspace needs an open door. One whose instances run Ligand's own agent does not: they prove who they
/// are from the beginning.
#[must_use]
pub(crate) fn bootstrap_of(
    app: &App,
    backend: Option<&str>,
    runtime: &str,
    command: Option<&[String]>,
) -> Bootstrap {
    match backend {
        Some(backend) if app.config.redeems(command, runtime, backend) => Bootstrap::Sealed,
        Some(_) | None => Bootstrap::Open,
    }
}
