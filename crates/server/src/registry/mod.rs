//! Registers, heartbeats and card updates: who is let in, and what follows from it.
//!
//! A heartbeat is handled in `http.rs`, by `heartbeat`. Each call is one transaction: lock the workspace's
//! row, load the facts, ask `ligand_domain::admission::decide`, carry the answer out here in [`admit`], and
//! commit. A reply is sent only after the commit, so what it says is already true.

pub mod http;
mod status;

use ligand_api::error::ErrorBody;
use ligand_domain::admission::{
    self, Action, Bootstrap, Call, Decision, Facts, Newest, Presented, Refusal,
};
use ligand_domain::credential::{
    Credential, Kind as CredentialKind, MIN_IDEMPOTENCY_KEY, State, Token, TokenHash,
};
use ligand_domain::id::{CredentialId, Generation, WorkspaceId};
use ligand_domain::instance::Phase;
use ligand_domain::time::Timestamp;
use serde_json::json;

use crate::access::{self, For, Held};
use crate::app::App;
use crate::config::Auth;
use crate::error::{Error, Result};
use crate::journal::{self, Kind, Work};
use crate::workspaces::{self, Workspace};

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
}

/// Decide, and carry the decision out in the caller's transaction.
///
/// # Errors
/// 401 with what may be told; 503 when the database does not answer.
pub(crate) async fn admit(app: &App, work: &mut Work<'_>, knock: &Knock<'_>) -> Result<Admitted> {
    let workspace = workspaces::lock(&mut work.tx, knock.workspace).await?;
    let hash = knock.bearer.map(TokenHash::of);
    let key = knock.key.filter(|key| key.len() >= MIN_IDEMPOTENCY_KEY).map(TokenHash::of);
    let held =
        access::for_admission(&mut work.tx, knock.workspace, hash.as_ref(), key.as_ref()).await?;
    let newest_is = newest(work, workspace.as_ref()).await?;
    let purged = workspace.is_none() && access::ever_issued(&mut work.tx, knock.workspace).await?;
    let keys = Keys { hash, key, purged };
    let facts = facts(app, knock, workspace.as_ref(), &held, keys, newest_is, work.now);
    let mut admission = Admission { app, work, key, held: presented(&held, hash.as_ref()) };
    match admission::decide(&facts, app.config.guards) {
        Decision::Refused(refusal) => Err(admission.refuse(workspace.as_ref(), refusal).await?),
        Decision::Creates => admission.create(knock.workspace).await,
        decision => {
            let before =
                workspace.expect("every other decision is about a workspace that is there");
            admission.carry_out(before, decision).await
        }
    }
}

#[derive(Clone, Copy)]
struct Keys {
    hash: Option<TokenHash>,
    key: Option<TokenHash>,
    /// There is no such workspace any more, but its tombstone.
    purged: bool,
}

async fn newest(work: &mut Work<'_>, workspace: Option<&Workspace>) -> Result<Newest> {
    let Some(workspace) = workspace.filter(|w| w.newest > w.current) else {
        return Ok(Newest::Current);
    };
    let instance = workspaces::instance_of(&mut work.tx, workspace.id, workspace.newest).await?;
    let alive = instance.is_some_and(|instance| instance.ended_at.is_none());
    Ok(if alive { Newest::Planned } else { Newest::Abandoned })
}

fn presented<'h>(held: &'h [Held], hash: Option<&TokenHash>) -> Option<&'h Held> {
    let hash = hash?;
    held.iter().find(|credential| credential.hash == hash.bytes())
}

/// Translate what the database has into what the decision looks at.
#[expect(clippy::too_many_arguments, reason = "each is one kind of fact")]
fn facts(
    app: &App,
    knock: &Knock<'_>,
    workspace: Option<&Workspace>,
    held: &[Held],
    keys: Keys,
    newest_is: Newest,
    now: Timestamp,
) -> Facts {
    let state = |credential: &Held| credential.state.at(credential.lapses_at, now);
    let credential = |credential: &Held| Credential {
        id: credential.id,
        kind: credential.kind,
        generation: credential.generation,
        state: state(credential),
        used: credential.first_used_at.is_some(),
        newer_used: held.iter().any(|other| {
            other.generation == credential.generation
                && other.created_at > credential.created_at
                && other.first_used_at.is_some()
        }),
    };
    let live = held.iter().any(|c| c.kind == CredentialKind::Instance && state(c).is_live());
    let compat = app.config.auth == Auth::Compat;
    let replayed = keys.key.and_then(|key| {
        held.iter().rev().find(|c| c.idempotency_hash.as_deref() == Some(key.bytes()))
    });
    Facts {
        call: knock.call,
        workspace: workspace.map(|w| admission::Standing {
            removed: w.intent == ligand_domain::workspace::Intent::Removed,
            current: w.current,
            newest: w.newest,
            newest_is,
            live,
            bootstrap: w.bootstrap,
            opened: w.bootstrap_until.is_some_and(|until| until > now),
            just_revoked: false,
            managed: w.managed(),
        }),
        purged: keys.purged,
        presented: match (knock.bearer, presented(held, keys.hash.as_ref())) {
            (None, _) => Presented::Nothing,
            (Some(_), None) => Presented::Stranger,
            (Some(_), Some(found)) => Presented::Credential(credential(found)),
        },
        replayed: replayed.map(credential),
        open_registration: app.config.open_registration || compat,
        compat,
    }
}

/// One admission in progress.
struct Admission<'w, 'a, 'h> {
    app: &'h App,
    work: &'w mut Work<'a>,
    key: Option<TokenHash>,
    held: Option<&'h Held>,
}

impl Admission<'_, '_, '_> {
    async fn carry_out(&mut self, before: Workspace, decision: Decision) -> Result<Admitted> {
        let (current, newest) = (before.current, before.newest);
        let let_in = |generation, before: Workspace| Admitted {
            before,
            generation,
            current,
            newest,
            minted: None,
            inert: false,
            first: false,
        };
        match decision {
            Decision::Current { generation, activates } => {
                self.mark_used(&before, generation, activates).await?;
                Ok(Admitted { first: activates, ..let_in(generation, before) })
            }
            Decision::TakesOver { generation, mints: _ } => {
                workspaces::set_generations(&mut self.work.tx, before.id, generation, generation)
                    .await?;
                self.mark_used(&before, generation, true).await?;
                let taken = let_in(generation, before);
                Ok(Admitted { current: generation, newest: generation, first: true, ..taken })
            }
            Decision::Early { generation } | Decision::Candidate { generation, .. } => {
                Ok(Admitted { inert: true, ..let_in(generation, before) })
            }
            Decision::Remint { lost, generation } => {
                access::end_one(&mut self.work.tx, lost, State::Revoked, self.work.now).await?;
                let minted = self.mint(before.id, generation).await?;
                Ok(Admitted { minted: Some(minted), ..let_in(generation, before) })
            }
            Decision::ReEnrols { generation } => {
                let takes_over = generation > current;
                if takes_over {
                    workspaces::set_generations(
                        &mut self.work.tx,
                        before.id,
                        generation,
                        generation,
                    )
                    .await?;
                }
                let minted = self.mint(before.id, generation).await?;
                let admitted = let_in(generation, before);
                Ok(Admitted { minted: Some(minted), current: generation, first: true, ..admitted })
            }
            Decision::Bootstraps { generation, abandons } => {
                self.open(&before, generation, abandons).await?;
                let minted = self.mint(before.id, generation).await?;
                let admitted = let_in(generation, before);
                let (current, newest) = (generation, generation);
                Ok(Admitted { minted: Some(minted), current, newest, first: true, ..admitted })
            }
            Decision::Api { opens, abandons } => {
                let generation = opens.unwrap_or(current);
                if opens.is_some() {
                    self.open(&before, generation, abandons).await?;
                }
                let newest = newest.max(generation);
                let first = opens.is_some();
                Ok(Admitted { current: generation, newest, first, ..let_in(generation, before) })
            }
            Decision::Redeems { generation } => {
                let minted = self.mint(before.id, generation).await?;
                Ok(Admitted { minted: Some(minted), ..let_in(generation, before) })
            }
            Decision::LetThrough { generation } => Ok(let_in(generation, before)),
            Decision::Ignored | Decision::Creates | Decision::Refused(_) => {
                unreachable!("handled by the caller")
            }
        }
    }

    /// An unknown id creates itself.
    async fn create(&mut self, id: WorkspaceId) -> Result<Admitted> {
        workspaces::insert_registered(&mut self.work.tx, id, self.work.now).await?;
        let before = workspaces::get(&mut self.work.tx, id).await?;
        let before = before.expect("it was inserted in this transaction");
        let generation = Generation::NONE.next();
        self.work.note(
            id,
            None,
            Kind::Created,
            "registered under an id that was unknown",
            json!({}),
        );
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
        let tx = &mut self.work.tx;
        workspaces::set_generations(tx, id, generation, generation).await?;
        if let Some(planned) = abandons {
            access::lapse_pending(tx, id, planned, now).await?;
            if !before.managed() {
                workspaces::abandon(tx, (id, planned), now).await?;
            }
        }
        let bound =
            before.managed() && workspaces::bind_newest(tx, id, before.newest, generation).await?;
        if !bound {
            let instance = self.app.ids.instance();
            let backend = before.backend.as_deref();
            workspaces::insert_instance(
                tx,
                instance,
                (id, generation),
                backend,
                Phase::Serving,
                now,
            )
            .await?;
        }
        Ok(())
    }

    async fn mint(&mut self, workspace: WorkspaceId, generation: Generation) -> Result<Token> {
        let purpose = For::Answer { generation, key: self.key };
        Ok(access::mint(self.app, self.work, workspace, purpose).await?)
    }

    async fn mark_used(
        &mut self,
        before: &Workspace,
        generation: Generation,
        activates: bool,
    ) -> Result<()> {
        let id: CredentialId = self.held.expect("a credential was presented").id;
        access::mark_used(&mut self.work.tx, id, self.work.now).await?;
        if activates {
            access::supersede_others(&mut self.work.tx, before.id, id, generation, self.work.now)
                .await?;
        }
        Ok(())
    }

    /// Say no, and note why: each reason once, until something else happens. A caller who knocks for ever
    /// does not bury what matters.
    async fn refuse(&mut self, workspace: Option<&Workspace>, refusal: Refusal) -> Result<Error> {
        let line = refusal.line.as_str();
        self.app.metrics.refusals.with_label_values(&[line]).inc();
        if let Some(workspace) = workspace {
            let prefix = self.held.map(|held| held.id.to_string());
            let told = refusal.told.map(|told| told.action.as_str());
            let summary = format!("a call was refused: {line}");
            let said =
                journal::said_since(&mut self.work.tx, workspace.id, Kind::Refused, &summary)
                    .await?;
            if !said {
                let evidence = json!({"credential": prefix, "told": told});
                let generation = self.held.and_then(|held| held.generation);
                self.work.note(workspace.id, generation, Kind::Refused, summary, evidence);
            }
        }
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
        Ok(Error::Refused(axum::http::StatusCode::UNAUTHORIZED, Box::new(body)))
    }
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

/// Whether a workspace whose instances Ligand starts itself needs an open door. It does not.
#[must_use]
pub(crate) fn bootstrap_of(managed: bool) -> Bootstrap {
    if managed { Bootstrap::Sealed } else { Bootstrap::Open }
}
