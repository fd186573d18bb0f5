//! What happened and why: the journal of decisions, and the events of the contract.
//!
//! [`Work`] is a transaction that also records. Its records are written at its very end, with numbers
//! taken from one row that stays locked until the commit. So the order of numbers is the order of commits:
//! whoever has read up to n has missed nothing before n, on any replica. And since every transaction locks
//! that row last, recording never closes a circle of waiting.
//!
//! Start reading at [`Work::commit`].

pub mod http;
mod hub;
mod pump;
mod ring;
pub mod socket;
mod stand;
mod store;
mod watcher;

use axum::http::StatusCode;
use ligand_api::journal::Entry;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::time::Timestamp;
use serde_json::Value;

use crate::app::App;
use crate::db::{Db, Tx};
use crate::error::Error;

#[cfg(feature = "mutants")]
pub use hub::AfterCommit;
pub use hub::Hub;

/// What kind of decision an entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A workspace was created.
    Created,
    /// Its settings were changed.
    Changed,
    /// A restart was asked for.
    RestartRequested,
    /// A pause was asked for.
    PauseRequested,
    /// A paused one was asked to go on.
    ResumeRequested,
    /// Hibernation was asked for, by a person or by idleness.
    HibernateRequested,
    /// A hibernated one was woken.
    WakeRequested,
    /// A person asked to try again at once.
    RecoverRequested,
    /// It was said which compute it runs on.
    Repointed,
    /// A generation was raised, with a credential for it.
    Planned,
    /// A start was resumed: a second value was minted beside the first.
    Resumed,
    /// A backend confirmed a start.
    Started,
    /// An agent was admitted for the first time in its generation.
    Registered,
    /// A register or heartbeat was not admitted.
    Refused,
    /// A register was admitted, and failed all the same.
    RegisterFailed,
    /// An agent that was admitted does not prove that it holds its secrets.
    Unproven,
    /// A status moved by what an agent reports.
    Reported,
    /// The current instance ended.
    Lost,
    /// The current instance is silent.
    Silent,
    /// A start was given up.
    GivenUp,
    /// Somebody who watched a start says that it failed.
    BootstrapFailed,
    /// An instance is about to be ended.
    Stopping,
    /// An instance that should not be was ended.
    Retired,
    /// Nothing of it runs any more, as was asked for.
    Settled,
    /// An administrator revoked every credential.
    Revoked,
    /// A new credential was asked for, or given out.
    Rotated,
    /// An agent could not take its new credential.
    RotationFailed,
    /// A guess about the current instance was counted, and left to a later look.
    Doubted,
    /// The brake holds up a replacement.
    Held,
    /// A sweep took away what was left over.
    Swept,
    /// Its data was laid to rest, or was compared with what it was.
    Data,
    /// A migration began a phase, or ended.
    Migration,
    /// A message that was promised to be delivered was given up.
    MessageGivenUp,
    /// A workspace was deleted.
    Removed,
}

impl Kind {
    /// As people and programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::RestartRequested => "restart-requested",
            Self::PauseRequested => "pause-requested",
            Self::ResumeRequested => "resume-requested",
            Self::HibernateRequested => "hibernate-requested",
            Self::WakeRequested => "wake-requested",
            Self::RecoverRequested => "recover-requested",
            Self::Repointed => "repointed",
            Self::Planned => "planned",
            Self::Resumed => "resumed",
            Self::Started => "started",
            Self::Registered => "registered",
            Self::Refused => "refused",
            Self::RegisterFailed => "register-failed",
            Self::Unproven => "unproven",
            Self::Reported => "reported",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::GivenUp => "given-up",
            Self::BootstrapFailed => "bootstrap-failed",
            Self::Stopping => "stopping",
            Self::Retired => "retired",
            Self::Settled => "settled",
            Self::Revoked => "revoked",
            Self::Rotated => "rotated",
            Self::RotationFailed => "rotation-failed",
            Self::Doubted => "doubted",
            Self::Held => "held",
            Self::Swept => "swept",
            Self::Data => "data",
            Self::Migration => "migration",
            Self::MessageGivenUp => "message-given-up",
            Self::Removed => "removed",
        }
    }
}

/// What will be recorded when a transaction commits.
enum Record {
    Entry {
        workspace: WorkspaceId,
        generation: Option<Generation>,
        kind: Kind,
        summary: String,
        evidence: Value,
    },
    Event {
        event: &'static str,
        workspace: Option<WorkspaceId>,
        payload: Value,
    },
}

/// A transaction, with what it will record.
pub struct Work<'a> {
    /// The transaction.
    pub tx: Tx,
    /// The one time that everything in this transaction carries.
    pub now: Timestamp,
    app: &'a App,
    records: Vec<Record>,
    /// Events that are not kept, for after the commit.
    told: Vec<(&'static str, WorkspaceId, Value)>,
    /// The last number that was taken before the commit.
    taken: Option<i64>,
}

impl<'a> Work<'a> {
    /// Begin.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(app: &'a App) -> Result<Self, sqlx::Error> {
        let tx = app.db.begin().await?;
        Ok(Self {
            tx,
            now: app.clock.now(),
            app,
            records: Vec::new(),
            told: Vec::new(),
            taken: None,
        })
    }

    /// Record a decision with what it rested on. `evidence` never holds a secret.
    pub fn note(
        &mut self,
        workspace: WorkspaceId,
        generation: Option<Generation>,
        kind: Kind,
        summary: impl Into<String>,
        evidence: Value,
    ) {
        let summary = summary.into();
        self.records.push(Record::Entry { workspace, generation, kind, summary, evidence });
    }

    /// Record a decision, unless an entry of its kind says the same and nothing of another kind happened since:
    /// so that callers who knock for ever do not fill the journal. The statements are the same whether it is
    /// recorded or not, and where there is no such workspace. Call it last: it takes its number at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_once(
        &mut self,
        workspace: WorkspaceId,
        generation: Option<Generation>,
        kind: Kind,
        summary: String,
        evidence: Value,
    ) -> Result<(), sqlx::Error> {
        let seq = store::take_number_if_new(&mut self.tx, workspace, kind, &summary).await?;
        let at = self.now;
        let entry = store::NewEntry {
            seq: seq.unwrap_or_default(),
            at,
            workspace,
            generation,
            kind,
            summary,
            evidence,
        };
        store::insert_entry_if(&mut self.tx, entry, seq.is_some()).await?;
        self.taken = seq.or(self.taken);
        Ok(())
    }

    /// Record an event of the contract.
    pub fn emit(&mut self, event: &'static str, workspace: WorkspaceId, payload: Value) {
        let workspace = Some(workspace);
        self.records.push(Record::Event { event, workspace, payload });
    }

    /// Tell watchers of an event that is not kept, once this is committed.
    pub fn tell(&mut self, event: &'static str, workspace: WorkspaceId, payload: Value) {
        self.told.push((event, workspace, payload));
    }

    /// The server that this is done by.
    #[must_use]
    pub fn app(&self) -> &'a App {
        self.app
    }

    /// Record an event about the whole platform.
    pub fn announce(&mut self, event: &'static str, payload: Value) {
        self.records.push(Record::Event { event, workspace: None, payload });
    }

    /// Write the records, commit, and tell watchers.
    ///
    /// # Errors
    /// When the database does not confirm it.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let (app, now, told) = (self.app, self.now, std::mem::take(&mut self.told));
        self.write().await?;
        for (event, workspace, payload) in told {
            app.hub.broadcast(event, workspace, now, payload);
        }
        Ok(())
    }

    async fn write(mut self) -> Result<(), sqlx::Error> {
        let decisions = self.decisions();
        if self.records.is_empty() {
            self.tx.commit().await?;
            self.app.hub.decided(decisions);
            if let Some(last) = self.taken {
                self.app.hub.committed(last);
            }
            return Ok(());
        }
        let count = i64::try_from(self.records.len()).unwrap_or(i64::MAX);
        let last = store::take_numbers(&mut self.tx, count).await?;
        for (seq, record) in (last - count + 1..).zip(self.records) {
            match record {
                Record::Entry { workspace, generation, kind, summary, evidence } => {
                    let entry = store::NewEntry {
                        seq,
                        at: self.now,
                        workspace,
                        generation,
                        kind,
                        summary,
                        evidence,
                    };
                    store::insert_entry(&mut self.tx, entry).await?;
                }
                Record::Event { event, workspace, payload } => {
                    let id = self.app.ids.event();
                    let new = store::NewEvent { seq, id, at: self.now, event, workspace, payload };
                    store::insert_event(&mut self.tx, new).await?;
                }
            }
        }
        self.tx.commit().await?;
        self.app.hub.decided(decisions);
        self.app.hub.committed(last);
        Ok(())
    }

    /// How many decisions it records.
    fn decisions(&self) -> usize {
        let entries = self.records.iter().filter(|it| matches!(it, Record::Entry { .. })).count();
        entries + usize::from(self.taken.is_some())
    }
}

/// The latest decisions about a workspace, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn entries(
    db: &Db,
    workspace: WorkspaceId,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    store::entries(&mut db.read().await?, workspace, limit).await
}

/// Forget a purged workspace's decisions and events.
///
/// # Errors
/// When the database does not answer.
pub async fn purge(tx: &mut Tx, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    store::purge(tx, workspace).await
}

/// Take away what is older than it is kept: events from before `events`, decisions from before `entries`, a
/// bounded number at a time. Gives how many.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(
    tx: &mut Tx,
    events: Timestamp,
    entries: Timestamp,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let gone = store::forget_events(tx, events, limit).await?;
    Ok(gone + store::forget_entries(tx, entries, limit).await?)
}

/// Parse a cursor: the `seq` of the last event that was read.
fn cursor(text: &str) -> Result<i64, Error> {
    text.trim().parse().ok().filter(|seq| *seq >= 0).ok_or_else(|| {
        Error::refused(StatusCode::BAD_REQUEST, "the cursor must be the number of an event")
    })
}
