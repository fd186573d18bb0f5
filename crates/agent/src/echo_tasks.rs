//! The tasks of the built-in agent. One works until its time, unless it is cancelled before; nothing runs meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::echo::Dialect;
use crate::machine;

/// Tasks that are remembered; the oldest are forgotten.
const MOST: usize = 1_000;

/// The tasks, newest last.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<VecDeque<Task>>);

/// One of them.
#[derive(Clone)]
pub(crate) struct Task {
    id: String,
    context: String,
    text: String,
    /// When it is done.
    due: Instant,
    done: Arc<Mutex<Option<State>>>,
    cancelled: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Working,
    Completed,
    Canceled,
}

impl State {
    fn word(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Working, Dialect::Old) => "working",
            (Self::Completed, Dialect::Old) => "completed",
            (Self::Canceled, Dialect::Old) => "canceled",
            (Self::Working, Dialect::New) => "TASK_STATE_WORKING",
            (Self::Completed, Dialect::New) => "TASK_STATE_COMPLETED",
            (Self::Canceled, Dialect::New) => "TASK_STATE_CANCELED",
        }
    }
}

impl Tasks {
    /// A task for a message, done at `due`. One of that message before it is forgotten.
    pub(crate) fn begin(&self, message: &str, context: String, text: String, due: Instant) -> Task {
        let id = format!("task-{message}");
        let (done, cancelled) = (Arc::default(), CancellationToken::new());
        let task = Task { id, context, text, due, done, cancelled };
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|other| other.id != task.id);
        if tasks.len() == MOST {
            tasks.pop_front();
        }
        tasks.push_back(task.clone());
        task
    }

    pub(crate) fn get(&self, id: &str) -> Option<Task> {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().find(|task| task.id == id).cloned()
    }
}

impl Task {
    fn state(&self) -> State {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.is_none() && machine::now() >= self.due {
            *done = Some(State::Completed);
        }
        done.unwrap_or(State::Working)
    }

    /// Whether that came in time.
    pub(crate) fn cancel(&self) -> bool {
        let working = self.state() == State::Working;
        if working {
            self.settle(State::Canceled);
            self.cancelled.cancel();
        }
        working
    }

    /// It is done, before its time perhaps.
    pub(crate) fn complete(&self) {
        self.settle(State::Completed);
    }

    fn settle(&self, state: State) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(state);
    }

    /// Wait; false if it was cancelled before the time was over.
    pub(crate) async fn lasts(&self, time: Duration) -> bool {
        self.cancelled.run_until_cancelled(machine::sleep(time)).await.is_some()
    }

    fn part(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::Old => json!({ "kind": "text", "text": self.text }),
            Dialect::New => json!({ "text": self.text }),
        }
    }

    fn artifact(&self, dialect: Dialect) -> Value {
        json!({ "artifactId": "echo", "parts": [self.part(dialect)] })
    }

    /// The task as it stands.
    pub(crate) fn show(&self, dialect: Dialect) -> Value {
        self.shown(self.state(), dialect)
    }

    fn shown(&self, state: State, dialect: Dialect) -> Value {
        let status = json!({ "state": state.word(dialect) });
        let mut shown = json!({ "id": self.id, "contextId": self.context, "status": status });
        if state == State::Completed {
            shown["artifacts"] = json!([self.artifact(dialect)]);
        }
        if dialect == Dialect::Old {
            shown["kind"] = json!("task");
        }
        shown
    }

    /// The first event of a stream.
    pub(crate) fn event(&self, dialect: Dialect) -> Value {
        let shown = self.shown(State::Working, dialect);
        match dialect {
            Dialect::Old => shown,
            Dialect::New => json!({ "task": shown }),
        }
    }

    /// The text, for the `nth` time of so many.
    pub(crate) fn artifact_event(&self, dialect: Dialect, nth: u32, of: u32) -> Value {
        let event = json!({
            "taskId": self.id,
            "contextId": self.context,
            "artifact": self.artifact(dialect),
            "append": nth > 0,
            "lastChunk": nth + 1 == of,
        });
        update(event, dialect, "artifact-update", "artifactUpdate")
    }

    /// How it ended.
    pub(crate) fn status_event(&self, dialect: Dialect) -> Value {
        let status = json!({ "state": self.state().word(dialect) });
        let mut event = json!({ "taskId": self.id, "contextId": self.context, "status": status });
        if dialect == Dialect::Old {
            event["final"] = json!(true);
        }
        update(event, dialect, "status-update", "statusUpdate")
    }
}

fn update(mut event: Value, dialect: Dialect, old: &str, new: &str) -> Value {
    match dialect {
        Dialect::Old => {
            event["kind"] = json!(old);
            event
        }
        Dialect::New => json!({ new: event }),
    }
}
