//! Messages to agents, and the ledger of them.
//!
//! Every message to a workspace is a row: `accepted`, `delivering`, then over for one of the reasons that
//! `ligand_domain::message` names. Rows vanish only when they are over and the window in which a repeated message is
//! recognised has passed.
//!
//! | file | what |
//! | --- | --- |
//! | `http.rs`, `http/` | a message comes; its outcome is read; operators look, replay, drop |
//! | `direct.rs` | a caller waits on its connection: the fast path |
//! | `repeat.rs` | the name of a message is known already, or its caller does not wait |
//! | `answers.rs` | what callers are told |
//! | `queue.rs` | a caller is told that it is accepted: many are written down at once |
//! | `reconcile.rs` | queued ones are delivered; lapsed leases, expiry, retention |
//! | `turn.rs` | one exchange with an agent |
//! | `outcome.rs` | what came of an attempt is written down |
//! | `waiting.rs` | those who wait for what becomes of a message |
//! | `payload.rs` | what is sent: envelope, name, digest |
//!
//! A row that is being delivered is leased to (attempt, generation, holder), and nobody else says what came of it.
//! The direct path costs one insert before the exchange and one update after it, on the connection that does not wait
//! for the disk. Whatever is promised to somebody (202) is on the disk first.

mod answers;
mod direct;
pub mod http;
mod outcome;
mod payload;
mod queue;
pub mod reconcile;
mod repeat;
mod row;
mod store;
mod told;
mod turn;
mod waiting;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::{Origin, TASK};
use ligand_domain::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::direct::{ask, tell};
use self::queue::Enqueue;
pub use self::reconcile::{DeliveryReconciler, MessageRetention};
pub use self::row::{Message, Times};
pub(crate) use self::told::{Told, tell as tell_waiting, told};
use self::waiting::Waiting;
use crate::app::App;
use crate::db::Tx;
use crate::db::group::Group;
use crate::delegations;
use crate::journal::Work;
use crate::workspaces;

type Done<T = ()> = Result<T, sqlx::Error>;

/// Most of one batch of messages.
const BATCH: usize = 128;

/// What this server remembers of messages. Hints: nothing is wrong without them.
pub struct Post {
    /// Messages on their way to the database.
    group: Group<Enqueue>,
    /// Who holds the leases of this server.
    holder: OnceLock<Uuid>,
    /// Those who wait for what becomes of a message.
    waiting: Waiting,
    /// Workspaces whose agent was busy when a message came.
    busy: Mutex<HashSet<WorkspaceId>>,
    /// Workspaces for which a message waited when this server last looked, or since.
    queued: Mutex<HashSet<WorkspaceId>>,
    /// When this server last looked for messages that are to be given up.
    given_up: Mutex<Timestamp>,
}

impl Default for Post {
    fn default() -> Self {
        Self {
            group: Group::new(BATCH),
            holder: OnceLock::new(),
            waiting: Waiting::default(),
            busy: Mutex::default(),
            queued: Mutex::default(),
            given_up: Mutex::new(Timestamp::EPOCH),
        }
    }
}

impl Post {
    /// Under which name this server holds leases: another after each start.
    fn holder(&self, app: &App) -> Uuid {
        *self.holder.get_or_init(|| uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid())
    }

    fn busy(&self) -> MutexGuard<'_, HashSet<WorkspaceId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is room for a delivery somewhere, or something to deliver.
    fn ring(&self, app: &App) {
        app.bells.of(reconcile::NAME).notify_one();
    }

    fn queued(&self) -> MutexGuard<'_, HashSet<WorkspaceId>> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exchange is over: if something waits for this workspace, there is room for it now.
    fn room(&self, app: &App, workspace: WorkspaceId) {
        if self.queued().contains(&workspace) {
            self.ring(app);
        }
    }

    /// Whether it is time to look for messages that are to be given up.
    fn gives_up(&self, now: Timestamp) -> bool {
        let mut last = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now.since(*last) >= reconcile::GIVE_UP;
        if due {
            *last = now;
        }
        due
    }
}

/// A message that is to be delivered without anybody waiting for it on a connection.
#[derive(Debug, Clone)]
pub struct New {
    /// To whom.
    pub target: WorkspaceId,
    /// From whom; `None`: a user, or the platform.
    pub caller: Option<WorkspaceId>,
    /// Why there is nobody on a connection.
    pub origin: Origin,
    /// See `ligand_domain::message`.
    pub priority: i64,
    /// The JSON-RPC envelope. Its message id names it.
    pub body: Value,
    /// The delegation that it carries.
    pub delegation_id: Option<String>,
    /// When it is given up, if it still waits then; `None`: as the settings say.
    pub expires_at: Option<Timestamp>,
}

impl New {
    /// With the usual priority, until the settings give it up.
    #[must_use]
    pub fn of(
        origin: Origin,
        target: WorkspaceId,
        caller: Option<WorkspaceId>,
        body: Value,
    ) -> Self {
        let (priority, delegation_id, expires_at) = (TASK, None, None);
        Self { target, caller, origin, priority, body, delegation_id, expires_at }
    }
}

/// Accept a message in the caller's transaction. Gives its id; a message of the same name that is there already
/// gives that one's, and changes nothing. After the commit, [`ring`].
///
/// # Errors
/// When the database does not answer.
pub async fn enqueue(work: &mut Work<'_>, app: &App, new: New) -> Done<MessageId> {
    let row = queue::row(app, new, work.now);
    if store::queue::accept(&mut work.tx, &row).await? {
        return Ok(row.id);
    }
    let known = match &row.key {
        Some(key) => store::by_key(&mut work.tx, row.workspace, key).await?,
        None => None,
    };
    known.map(|known| known.id).ok_or(sqlx::Error::RowNotFound)
}

/// Something was accepted: deliver it now.
pub fn ring(app: &App) {
    app.post.ring(app);
}

/// Read a message.
///
/// # Errors
/// When the database does not answer.
pub async fn get(tx: &mut Tx, id: MessageId) -> Done<Option<Message>> {
    store::get(tx, id).await
}

/// Deliver nothing to a workspace until it is released, or until then: direct calls wait, queued messages stay. What
/// is under way goes on; [`in_flight`] says how much that is.
///
/// # Errors
/// When the database does not answer.
pub async fn hold(app: &App, workspace: WorkspaceId, reason: &str, until: Timestamp) -> Done {
    let mut tx = app.db.begin().await?;
    hold_in(&mut tx, workspace, reason, until).await?;
    tx.commit().await
}

/// [`hold`], in the caller's transaction.
///
/// # Errors
/// When the database does not answer.
pub async fn hold_in(tx: &mut Tx, workspace: WorkspaceId, reason: &str, until: Timestamp) -> Done {
    store::queue::hold(tx, workspace, reason, until).await
}

/// Deliver again.
///
/// # Errors
/// When the database does not answer.
pub async fn release(app: &App, workspace: WorkspaceId) -> Done {
    let mut tx = app.db.begin().await?;
    release_in(&mut tx, workspace).await?;
    tx.commit().await?;
    released(app);
    Ok(())
}

/// [`release`], in the caller's transaction. After its commit, [`released`].
///
/// # Errors
/// When the database does not answer.
pub async fn release_in(tx: &mut Tx, workspace: WorkspaceId) -> Done {
    store::queue::release(tx, workspace).await
}

/// A hold is over: those who wait for that look now.
pub fn released(app: &App) {
    app.post.waiting.released();
    ring(app);
}

/// How many messages are being delivered to a workspace.
///
/// # Errors
/// When the database does not answer.
pub async fn in_flight(tx: &mut Tx, workspace: WorkspaceId) -> Done<i64> {
    store::queue::in_flight(tx, workspace).await
}

/// Whether a workspace is held.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn is_held(tx: &mut Tx, workspace: WorkspaceId, now: Timestamp) -> Done<bool> {
    Ok(store::queue::held(tx, workspace, now).await?.is_some())
}

/// How many messages wait for a workspace.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn waiting(tx: &mut Tx, workspace: WorkspaceId) -> Done<i64> {
    store::queue::depth(tx, workspace).await
}

/// The latest messages of a workspace, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn recent(app: &App, workspace: WorkspaceId, limit: i64) -> Done<Vec<Message>> {
    store::recent(&mut app.db.read().await?, workspace, limit).await
}

/// An agent was heard that has room: what waits because it was busy is due.
pub(crate) async fn spare(app: &App, workspace: WorkspaceId, active_tasks: i64) {
    if !app.post.busy().contains(&workspace) {
        return;
    }
    let due = async {
        let mut tx = app.db.begin().await?;
        let found = workspaces::get(&mut tx, workspace).await?;
        if found.is_some_and(|found| active_tasks >= found.max_concurrent_tasks) {
            return Ok(());
        }
        app.post.busy().remove(&workspace);
        store::queue::due(&mut tx, workspace, app.clock.now()).await?;
        tx.commit().await
    };
    match due.await {
        Ok(()) => app.post.ring(app),
        Err(cause) => {
            tracing::debug!(error = %cause, "what waits for a busy agent waits for its own time");
        }
    }
}

/// Whoever holds the lock of a SQLite file is alone with it: leases in there are those of a server that died.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn release_all(tx: &mut Tx, now: Timestamp) -> Done {
    store::leases::lapse_all(tx, now).await
}

/// A message is over: the one place where others hear of it, in the transaction that ends it. A message with a
/// delegation moves that delegation here.
async fn ended(work: &mut Work<'_>, message: &Message) -> Done {
    delegations::ended(work, message).await
}

/// Its caller knows what became of a message, by other ways than asking for it.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn acknowledge(tx: &mut Tx, id: MessageId, now: Timestamp) -> Done<bool> {
    store::queue::acknowledge(tx, id, now).await
}

/// A message is over by somebody's word: those who wait for it hear of it.
fn over(app: &App, message: &Message) {
    app.post.waiting.tell(message.id);
    app.post.room(app, message.workspace);
}
