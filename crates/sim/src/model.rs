//! What the simulator knows of a workspace.

use ligand_api::journal::Why;
use ligand_domain::id::WorkspaceId;

/// How a workspace is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// By the backend. Nobody becomes it without its credential.
    Managed,
    /// Elsewhere, with a credential that its operator was given.
    Enrolled,
    /// Elsewhere, with nothing: its agent takes it up by registering.
    Open,
}

/// A migration that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// `running`, `paused`, `undoing`.
    pub state: String,
    /// How far it came.
    pub phase: String,
    /// The generation that it leaves.
    pub source: i64,
    /// The one that it brings up.
    pub target: Option<i64>,
}

/// One workspace.
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name in the trace.
    pub name: String,
    /// How it is run.
    pub sort: Sort,
    /// Somebody deleted it.
    pub removed: bool,
    /// Every trace of it is to go: sooner or later nothing of it is left.
    pub purging: bool,
    /// Nothing of it is left.
    pub purged: bool,
    /// A restart was asked for, and no newer generation was planned since.
    pub restart_due: bool,
    /// So many of its next instances die at once.
    pub doomed: u32,
    /// A migration of it was asked for at some time.
    pub moved: bool,
    /// The migration that is not over.
    pub moving: Option<Moving>,
    /// What it was when it was last looked at.
    pub seen: View,
    /// How far the record went then.
    pub seen_at: i64,
}

impl Workspace {
    /// A new one, not looked at yet.
    #[must_use]
    pub fn new(id: WorkspaceId, name: String, sort: Sort) -> Self {
        let (removed, purging, purged, restart_due, doomed) = (false, false, false, false, 0);
        let (moved, moving, seen, seen_at) = (false, None, View::default(), -1);
        Self {
            id,
            name,
            sort,
            removed,
            purging,
            purged,
            restart_due,
            doomed,
            moved,
            moving,
            seen,
            seen_at,
        }
    }
}

impl Workspace {
    /// Whether a generation is the newest, but for the target of a migration.
    #[must_use]
    pub fn is_newest(&self, generation: i64, seen: &View) -> bool {
        let candidate = self.moving.as_ref().and_then(|moving| moving.target);
        generation == seen.newest
            || candidate == Some(seen.newest)
            || seen.rows.iter().all(|row| row.generation <= generation || row.ended)
    }

    /// Whether a migration that is not over runs this instance.
    #[must_use]
    pub fn moves(&self, generation: i64) -> bool {
        self.moving
            .as_ref()
            .is_some_and(|it| it.source == generation || it.target == Some(generation))
    }

    /// Whether this generation serves, and nobody asked for another, or for none.
    #[must_use]
    pub fn is_served_by(&self, generation: i64) -> bool {
        let newest = generation == self.seen.current && self.is_newest(generation, &self.seen);
        newest && self.seen.serves() && !self.restart_due && !self.removed
    }
}

/// One instance, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which incarnation.
    pub generation: i64,
    /// How far it came.
    pub phase: String,
    /// Its agent was admitted at some time.
    pub registered: bool,
    /// It ended.
    pub ended: bool,
}

/// A workspace, as the API shows it to an administrator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// What a user asked for.
    pub intent: String,
    /// What was last observed.
    pub status: String,
    /// What that rests on.
    pub evidence: String,
    /// Where it answers.
    pub url: String,
    /// What runs it.
    pub backend: Option<String>,
    /// The generation that counts.
    pub current: i64,
    /// The newest.
    pub newest: i64,
    /// Its latest instances, newest first.
    pub rows: Vec<Row>,
    /// What will happen next, in words.
    pub next: String,
    /// Numbers and sentences of its journal.
    pub journal: Vec<(i64, String)>,
}

impl From<Why> for View {
    fn from(why: Why) -> Self {
        let row = |it: ligand_api::journal::Instance| Row {
            generation: it.generation,
            phase: it.phase,
            registered: it.registered_at.is_some(),
            ended: it.ended_at.is_some(),
        };
        let rows: Vec<Row> = why.instances.into_iter().map(row).collect();
        let current = why.workspace.generation;
        Self {
            intent: why.workspace.intent,
            status: why.workspace.status,
            evidence: why.workspace.evidence.unwrap_or_default(),
            url: why.workspace.url,
            backend: why.workspace.backend.flatten(),
            current,
            newest: rows.iter().map(|row| row.generation).fold(current, i64::max),
            rows,
            next: why.next,
            journal: why.journal.into_iter().map(|entry| (entry.seq, entry.summary)).collect(),
        }
    }
}

impl View {
    /// What a call that has no say must leave as it was.
    #[must_use]
    pub fn standing(&self) -> (&str, &str, &str, i64, i64) {
        (&self.intent, &self.status, &self.url, self.current, self.newest)
    }

    /// Whether its status says that turns may be sent to it.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.status.as_str(), "online" | "degraded")
    }

    /// In a few words.
    #[must_use]
    pub fn brief(&self) -> String {
        let rows: Vec<String> = self
            .rows
            .iter()
            .filter(|row| !row.ended)
            .map(|row| format!("{} {}", row.generation, row.phase))
            .collect();
        let Self { intent, status, current, newest, evidence, next, .. } = self;
        format!(
            "{intent}, {status} ({evidence}), generation {current} of {newest}, instances [{}]; {next}",
            rows.join(", ")
        )
    }
}
