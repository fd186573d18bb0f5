//! A message as the database has it, and as others see it.

use ligand_api::message as api;
use ligand_domain::id::{Generation, MessageId, WorkspaceId};
use ligand_domain::message::{Facts, Origin, State};
use ligand_domain::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

/// Who may say what came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Which message.
    pub(crate) id: MessageId,
    /// The number of the attempt.
    pub(crate) attempt: i64,
    /// The generation that it was delivered to.
    pub(crate) generation: Generation,
    /// The server that delivers.
    pub(crate) holder: Uuid,
}

/// A message of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// To whom.
    pub workspace: WorkspaceId,
    /// From whom.
    pub caller: Option<WorkspaceId>,
    /// Where it came from.
    pub origin: Origin,
    /// Its JSON-RPC method.
    pub method: Option<String>,
    /// By what it is recognised.
    pub key: Option<String>,
    /// SHA-256 of what was said.
    pub digest: Vec<u8>,
    /// What it is worth.
    pub priority: i64,
    /// The envelope, as JSON.
    pub body: String,
    /// Headers that go with it, as JSON.
    pub headers: String,
    /// Where it stands.
    pub state: State,
    /// Leases so far.
    pub attempt: i64,
    /// Failures that count.
    pub failures: i64,
    /// The generation of the latest attempt.
    pub generation: Generation,
    /// Who made the latest attempt.
    pub holder: Option<Uuid>,
    /// An attempt may have run without an answer.
    pub maybe_run: bool,
    /// It runs although it may have run.
    pub again: bool,
    /// When what happened.
    pub times: Times,
    /// HTTP status of the answer.
    pub response_status: Option<i64>,
    /// Media type of the answer.
    pub response_type: Option<String>,
    /// The answer.
    pub response: Option<String>,
    /// Only the end of the answer is there.
    pub response_cut: bool,
    /// `agent` or `answer`.
    pub evidence: Option<String>,
    /// Why the latest attempt failed, or why it was given up.
    pub last_error: Option<String>,
    /// The delegation that it carries.
    pub delegation_id: Option<String>,
}

/// When what happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// It was accepted.
    pub accepted: Timestamp,
    /// The next attempt may begin.
    pub due: Timestamp,
    /// It is given up.
    pub expires: Option<Timestamp>,
    /// Its agent had it.
    pub delivered: Option<Timestamp>,
    /// Its turn began.
    pub started: Option<Timestamp>,
    /// It was answered.
    pub processed: Option<Timestamp>,
    /// Its caller read that.
    pub acknowledged: Option<Timestamp>,
    /// It was over.
    pub ended: Option<Timestamp>,
}

/// How much of a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What stands in lists.
    Brief,
    /// With the answer.
    Outcome,
    /// With what was sent.
    Whole,
}

impl Message {
    /// What decisions about it look at.
    pub(super) fn facts(&self, remembers: bool, not_queued: bool) -> Facts {
        Facts {
            promised: self.origin.is_promised(),
            remembers,
            maybe_run: self.maybe_run,
            failures: self.failures,
            not_queued,
        }
    }

    /// As callers and operators see it.
    pub(super) fn view(&self, look: Look) -> api::Message {
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let waits = self.state == State::Accepted;
        api::Message {
            queue_id: self.id.uuid(),
            workspace_id: self.workspace.uuid(),
            caller_id: self.caller.map(WorkspaceId::uuid),
            origin: self.origin.as_str().to_owned(),
            method: self.method.clone(),
            key: self.key.clone(),
            priority: self.priority,
            status: self.state.in_queue().to_owned(),
            state: self.state.as_str().to_owned(),
            attempt: self.attempt,
            generation: self.generation.number(),
            maybe_run: self.maybe_run,
            evidence: self.evidence.clone(),
            accepted_at: self.times.accepted.to_string(),
            due_at: waits.then(|| self.times.due.to_string()),
            expires_at: text(self.times.expires.filter(|_| waits)),
            delivered_at: text(self.times.delivered),
            started_at: text(self.times.started),
            processed_at: text(self.times.processed),
            acknowledged_at: text(self.times.acknowledged),
            ended_at: text(self.times.ended),
            last_error: self.last_error.clone(),
            response_status: self.response_status,
            response: self.response.as_deref().filter(|_| look != Look::Brief).map(json),
            response_cut: self.response_cut,
            body: (look == Look::Whole).then(|| json(&self.body)),
            delegation_id: self.delegation_id.clone(),
        }
    }

    /// As `why` shows it.
    pub(crate) fn brief(&self) -> api::Message {
        self.view(Look::Brief)
    }
}

/// What is JSON is shown as that, anything else as the text that it is.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
