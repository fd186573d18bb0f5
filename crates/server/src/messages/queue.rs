//! Messages that are accepted without waiting for their answer: written down many at a time, on the disk before
//! anybody is told.

use std::collections::{HashMap, HashSet};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::{Origin, TASK};
use ligand_domain::time::Timestamp;

use super::payload::{self, Payload};
use super::store::queue::{self as store, Accepted};
use super::{Done, New};
use crate::app::App;
use crate::db::group::Item;

/// A message that is to be accepted.
pub(super) struct Enqueue(pub(super) Accepted);

/// What became of that.
pub(super) enum Put {
    /// It is on the disk; so many wait for its workspace.
    Accepted(i64),
    /// Its name is taken, or its workspace takes none.
    Refused,
    /// The database did not take it.
    Failed(String),
}

impl Item for Enqueue {
    /// Two of one name would be one.
    type Key = (WorkspaceId, String);
    type Answer = Put;

    fn key(&self) -> Self::Key {
        let name = self.0.key.clone();
        (self.0.workspace, name.unwrap_or_else(|| self.0.id.to_string()))
    }

    fn run(app: App, batch: Vec<Self>) -> BoxFuture<'static, Vec<Put>> {
        async move {
            match put(&app, &batch).await {
                Ok(answers) => answers,
                Err(cause) => {
                    let why = cause.to_string();
                    batch.iter().map(|_| Put::Failed(why.clone())).collect()
                }
            }
        }
        .boxed()
    }
}

async fn put(app: &App, batch: &[Enqueue]) -> Done<Vec<Put>> {
    // In one order everywhere, so that batches of two servers do not wait for each other.
    let mut rows: Vec<&Accepted> = batch.iter().map(|one| &one.0).collect();
    rows.sort_unstable_by(|a, b| (a.workspace, &a.key).cmp(&(b.workspace, &b.key)));
    let mut tx = app.db.begin().await?;
    let accepted = store::accept_all(&mut tx, &rows).await?;
    let mut targets: Vec<WorkspaceId> = rows.iter().map(|row| row.workspace).collect();
    targets.dedup();
    let depths = store::depths(&mut tx, &targets).await?;
    tx.commit().await?;
    let accepted: HashSet<MessageId> = accepted.into_iter().collect();
    tell(app, batch, &accepted, &depths);
    let answer = |one: &Enqueue| match accepted.contains(&one.0.id) {
        true => Put::Accepted(depths.get(&one.0.workspace).copied().unwrap_or(1)),
        false => Put::Refused,
    };
    Ok(batch.iter().map(answer).collect())
}

/// Something is to be delivered. Where messages waited before, room for another is heard of by itself.
fn tell(
    app: &App,
    batch: &[Enqueue],
    accepted: &HashSet<MessageId>,
    depths: &HashMap<WorkspaceId, i64>,
) {
    let mut new: HashMap<WorkspaceId, i64> = HashMap::new();
    for one in batch.iter().filter(|one| accepted.contains(&one.0.id)) {
        *new.entry(one.0.workspace).or_default() += 1;
    }
    app.post.queued().extend(new.keys().copied());
    if new.iter().any(|(id, count)| depths.get(id).is_none_or(|depth| depth <= count)) {
        app.post.ring(app);
    }
}

/// The row of a message that somebody in this server made.
pub(super) fn row(app: &App, new: New, now: Timestamp) -> Accepted {
    let payload = Payload::of(new.body);
    let delegation_id = new.delegation_id.or_else(|| payload::delegation_id(&payload.envelope));
    let accepted = accepted(app, (new.target, new.caller), &payload, "{}".to_owned(), now);
    let expires = new.expires_at.unwrap_or(accepted.expires);
    Accepted { origin: new.origin, priority: new.priority, expires, delegation_id, ..accepted }
}

/// The row of a message that came over HTTP.
pub(super) fn accepted(
    app: &App,
    (workspace, caller): (WorkspaceId, Option<WorkspaceId>),
    payload: &Payload,
    headers: String,
    now: Timestamp,
) -> Accepted {
    Accepted {
        id: app.ids.message(),
        workspace,
        caller,
        origin: Origin::Queue,
        method: Some(payload.method().to_owned()).filter(|method| !method.is_empty()),
        key: payload.key.clone(),
        digest: payload.digest.clone(),
        priority: TASK,
        body: payload.envelope.to_string(),
        headers,
        maybe_run: false,
        now,
        due: now,
        expires: now.after(app.config.messages.expire_after),
        delegation_id: payload::delegation_id(&payload.envelope),
    }
}
