//! Tasks that one workspace gives to another, and wants the outcome of.
//!
//! The platform carries a task as a message of the ledger, whose id names it. While that message is open it tells
//! where the task stands; the transaction that ends it ends the delegation: [`ended`]. A caller that carries a task
//! itself has it recorded, and says how it ended; if its message had to be queued, the ledger says so instead.

mod answer;
mod front;
pub mod http;
mod store;

use ligand_domain::access::may_talk;
use ligand_domain::activity::{MOST_TEXT, kept, preview};
use ligand_domain::delegation::Status;
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::{Origin, State};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use self::answer::read as read_answer;
pub(crate) use self::front::{given as give_for, stand};
use self::store::{Ended, Row};
use crate::activity::{self, DELEGATION, New};
use crate::app::App;
use crate::db::Tx;
use crate::journal::Work;
use crate::messages::{self, Message};
use crate::workspaces;

type Done<T = ()> = Result<T, sqlx::Error>;

/// A task that was given.
const DELEGATE: &str = "delegate";
/// What came of it.
const RESULT: &str = "delegate_result";
/// Characters of a task that watchers are shown.
const TASK_SHOWN: usize = 100;
/// Characters of an answer that watchers are shown.
const ANSWER_SHOWN: usize = 200;

/// A task to be given.
struct Task {
    caller: WorkspaceId,
    target: WorkspaceId,
    text: String,
    key: Option<String>,
}

/// What came of giving a task.
enum Given {
    /// It is given, under this id.
    New(String),
    /// It had been given, under the same key.
    Before(Box<Row>),
    /// Its caller is no more.
    Nobody,
}

/// Give a task: its row, its message, its line in the log and the event are one transaction.
async fn give(app: &App, task: &Task) -> Done<Given> {
    let mut work = Work::begin(app).await?;
    if let Some(key) = &task.key
        && let Some(known) = store::by_key(&mut work.tx, task.caller, key).await?
    {
        if known.status() != Status::Failed {
            return Ok(Given::Before(Box::new(known)));
        }
        store::release_key(&mut work.tx, known.id).await?;
    }
    let id = uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid();
    let name = id.to_string();
    let new = store::New {
        id,
        caller: task.caller,
        delegation_id: &name,
        target: task.target,
        task: &task.text,
        key: task.key.as_deref(),
        status: Status::Pending,
    };
    let now = work.now;
    if !store::insert(&mut work.tx, &new, now).await? {
        drop(work);
        // Somebody else was quicker, or there is no such caller.
        let Some(key) = &task.key else { return Ok(Given::Nobody) };
        let winner = store::by_key(&mut app.db.read().await?, task.caller, key).await?;
        return Ok(winner.map_or(Given::Nobody, |row| Given::Before(Box::new(row))));
    }
    let logged = log_given(&mut work, &new).await?;
    sent(&mut work, &new);
    match refusal(&mut work.tx, task).await? {
        None => {
            let message = message(task, &name);
            let message = messages::enqueue(&mut work, app, message).await?;
            store::carried_by(&mut work.tx, id, Some(message.uuid()), logged).await?;
        }
        Some(why) => {
            store::carried_by(&mut work.tx, id, None, logged).await?;
            if let Some(row) = store::get(&mut work.tx, task.caller, &name).await? {
                finish(&mut work, &row, &Outcome::failed(why), None).await?;
            }
        }
    }
    work.commit().await?;
    messages::ring(app);
    Ok(Given::New(name))
}

/// Why a task cannot be carried to its target at all, in the words of a message's refusal.
async fn refusal(tx: &mut Tx, task: &Task) -> Done<Option<&'static str>> {
    let caller = workspaces::lineage(tx, task.caller).await?;
    let family = workspaces::lineage(tx, task.target).await?;
    let target = workspaces::get(tx, task.target).await?;
    let target = target.filter(|target| target.intent != Intent::Removed);
    Ok(match target {
        None => Some("workspace not found"),
        Some(_) if !may_talk(caller.as_ref(), family.as_ref()) => {
            Some("access denied: workspaces cannot communicate per hierarchy rules")
        }
        Some(target) => {
            let spent = target.budget_limit.is_some_and(|limit| target.monthly_spend >= limit);
            spent.then_some("workspace budget limit exceeded")
        }
    })
}

fn message(task: &Task, name: &str) -> messages::New {
    // Two generations of the protocol look for the kind of a part under two names.
    let body = json!({"jsonrpc": "2.0", "id": name, "method": "message/send", "params": {"message": {
        "role": "user", "messageId": name, "parts": [{"kind": "text", "type": "text", "text": task.text}],
        "metadata": {"delegation_id": name}}}});
    let new = messages::New::of(Origin::Delegation, task.target, Some(task.caller), body);
    messages::New { delegation_id: Some(name.to_owned()), ..new }
}

/// The line of a task in its caller's log.
async fn log_given(work: &mut Work<'_>, new: &store::New<'_>) -> Done<Option<Uuid>> {
    let request = json!({"task": new.task, "delegation_id": new.delegation_id});
    let entry = New {
        source: Some(new.caller),
        target: Some(new.target),
        method: Some(DELEGATE.to_owned()),
        summary: Some(given(new.task)),
        request: Some(request.to_string()),
        status: new.status.as_str().to_owned(),
        ..New::of(new.caller, DELEGATION)
    };
    activity::note_in(work, entry).await
}

fn given(task: &str) -> String {
    format!("a task: {}", preview(task, TASK_SHOWN))
}

fn sent(work: &mut Work<'_>, new: &store::New<'_>) {
    let task = preview(new.task, TASK_SHOWN);
    let payload =
        json!({"delegation_id": new.delegation_id, "target_id": new.target, "task_preview": task});
    work.emit("DELEGATION_SENT", new.caller, payload);
}

/// A task that its caller carries itself. `false`: there is no such caller.
async fn record(app: &App, new: store::New<'_>) -> Done<bool> {
    let mut work = Work::begin(app).await?;
    let now = work.now;
    if store::insert(&mut work.tx, &new, now).await? {
        let logged = log_given(&mut work, &new).await?;
        store::carried_by(&mut work.tx, new.id, None, logged).await?;
        sent(&mut work, &new);
        work.commit().await?;
        return Ok(true);
    }
    Ok(store::get(&mut work.tx, new.caller, new.delegation_id).await?.is_some())
}

/// How a task ended.
struct Outcome {
    /// What its target answered, or why it failed.
    said: Result<String, String>,
    processed_at: Option<Timestamp>,
}

impl Outcome {
    fn failed(why: &str) -> Self {
        Self { said: Err(why.to_owned()), processed_at: None }
    }

    fn status(&self) -> Status {
        if self.said.is_ok() { Status::Completed } else { Status::Failed }
    }

    /// What the end of a message says of the task that it carries.
    fn of(message: &Message) -> Option<Self> {
        let why = |otherwise: &str| {
            let told = message.last_error.clone().filter(|why| !why.is_empty());
            Err(told.unwrap_or_else(|| otherwise.to_owned()))
        };
        let said = match message.state {
            State::Accepted | State::Delivering => return None,
            State::Processed | State::Acknowledged => {
                answer::read(message.response.as_deref().unwrap_or_default())
            }
            State::Expired => why("it was not delivered in time"),
            State::Dead => why("it was given up"),
            State::Dropped => why("an operator took it away"),
        };
        Some(Self { said, processed_at: message.times.processed })
    }
}

/// The delegation that a message carries: it names it, and comes from its caller to its target.
async fn carried(work: &mut Work<'_>, message: &Message) -> Done<Option<Row>> {
    let (Some(name), Some(caller)) = (&message.delegation_id, message.caller) else {
        return Ok(None);
    };
    let row = store::get(&mut work.tx, caller, name).await?;
    let own = |row: &Row| row.message.is_none_or(|own| own == message.id.uuid());
    Ok(row.filter(|row| row.target == message.workspace && own(row)))
}

/// A message is over: so is the task that it carries. Part of the transaction that ends the message.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn ended(work: &mut Work<'_>, message: &Message) -> Done {
    let Some(outcome) = Outcome::of(message) else { return Ok(()) };
    let Some(row) = carried(work, message).await? else { return Ok(()) };
    // What its caller said first counts.
    let via = (message.origin == Origin::Queue).then_some("queue_drain");
    finish(work, &row, &outcome, via).await.map(drop)
}

/// A message is being delivered, or has to wait for another delivery: watchers of its task hear of it. Part of the
/// transaction that says so.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn moved(work: &mut Work<'_>, message: &Message, to: Status) -> Done {
    let Some(row) = carried(work, message).await? else { return Ok(()) };
    if row.message.is_none() {
        if row.written.is_over() {
            return Ok(());
        }
        // Its caller carried it until now, and met a busy agent.
        let id = Some(message.id.uuid());
        store::carried_by(&mut work.tx, row.id, id, row.activity).await?;
    }
    if let Some(logged) = row.activity {
        activity::restate(&mut work.tx, logged, to.as_str(), None).await?;
    }
    let payload = json!({"delegation_id": row.delegation_id, "target_id": row.target,
        "task_preview": preview(&row.task, TASK_SHOWN), "status": to.as_str()});
    work.emit("DELEGATION_STATUS", row.caller, payload);
    Ok(())
}

/// Write down how a task ended, log it, and tell watchers. `false`: something else counts.
async fn finish(
    work: &mut Work<'_>,
    row: &Row,
    outcome: &Outcome,
    via: Option<&str>,
) -> Done<bool> {
    let status = outcome.status();
    if !row.written.may_become(status) {
        return Ok(false);
    }
    let text = outcome.said.as_ref().ok().map(|text| kept(text, MOST_TEXT));
    let error = outcome.said.as_ref().err().map(|why| kept(why, MOST_TEXT));
    let (text, error) = (text.as_deref(), error.as_deref());
    let processed_at = outcome.processed_at;
    let end = Ended { status, error, response: text, processed_at };
    let now = work.now;
    if !store::end(&mut work.tx, row, &end, now).await? {
        return Ok(false);
    }
    if let Some(logged) = row.activity {
        activity::restate(&mut work.tx, logged, status.as_str(), error).await?;
    }
    let response = json!({"text": text, "delegation_id": row.delegation_id});
    let entry = New {
        source: Some(row.caller),
        target: Some(row.target),
        method: Some(RESULT.to_owned()),
        summary: Some(result(status, text, error)),
        request: Some(json!({"delegation_id": row.delegation_id}).to_string()),
        response: text.map(|_| response.to_string()),
        status: status.as_str().to_owned(),
        error_detail: error.map(str::to_owned),
        ..New::of(row.caller, DELEGATION)
    };
    if let Some(logged) = activity::note_in(work, entry).await? {
        store::logged_as(&mut work.tx, row.id, logged).await?;
    }
    announce(work, row, (text, error), via);
    Ok(true)
}

fn announce(
    work: &mut Work<'_>,
    row: &Row,
    (text, error): (Option<&str>, Option<&str>),
    via: Option<&str>,
) {
    let mut payload = json!({"delegation_id": row.delegation_id, "target_id": row.target});
    let event = match error {
        None => {
            payload["response_preview"] = json!(preview(text.unwrap_or_default(), ANSWER_SHOWN));
            "DELEGATION_COMPLETE"
        }
        Some(why) => {
            payload["error"] = json!(why);
            "DELEGATION_FAILED"
        }
    };
    if let Some(via) = via {
        payload["via"] = Value::from(via);
    }
    work.emit(event, row.caller, payload);
}

/// The outcome in a sentence.
fn result(status: Status, text: Option<&str>, error: Option<&str>) -> String {
    match status {
        Status::Completed => format!("done: {}", preview(text.unwrap_or_default(), ANSWER_SHOWN)),
        Status::Failed => format!("failed: {}", preview(error.unwrap_or_default(), ANSWER_SHOWN)),
        Status::Pending | Status::Dispatched | Status::Queued => {
            "its target is busy: it waits for another delivery".to_owned()
        }
    }
}

/// Its caller knows how these ended.
async fn acknowledge(app: &App, rows: &[Row]) -> Done {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    // The messages first, as everywhere.
    for id in rows.iter().filter_map(|row| row.message) {
        messages::acknowledge(&mut tx, MessageId::from_uuid(id), now).await?;
    }
    for row in rows {
        store::acknowledge(&mut tx, row.id, now).await?;
    }
    tx.commit().await
}

/// Take away those that ended before `at`, a bounded number at a time. Gives how many.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(tx: &mut Tx, at: Timestamp, limit: i64) -> Done<u64> {
    store::forget(tx, at, limit).await
}
