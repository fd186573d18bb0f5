//! Messages that are known already, and those that are accepted without waiting for their answer.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use ligand_api::error::ErrorBody;
use ligand_domain::message::{self, Known, Repeat};
use ligand_domain::workspace::Status;

use super::answers::{another, applied, busy, queued, replayed};
use super::direct::{Begun, Call, RACES, may_send, waking};
use super::payload::Payload;
use super::queue::{self, Enqueue, Put};
use super::row::{Lease, Message};
use super::store::{self, leases};
use super::turn::forwarded;
use super::waiting::{Patience, Waited, end_of};
use crate::error::{Error, Result};
use crate::workspaces::{self, Workspace};

impl Call<'_> {
    /// A message of this name is known. `None`: it changed meanwhile, look again.
    pub(super) async fn again(
        &self,
        known: &Message,
        new: Lease,
        payload: &Payload,
        patience: &mut Patience,
    ) -> Result<Option<Begun>> {
        let answered = |response: Response| Ok(Some(Begun::Answered(Box::new(response))));
        match self.repeated(known, payload).await? {
            None => Ok(None),
            Some(Repeat::Another) => Err(another()),
            Some(Repeat::Replay) => answered(replayed(known, &payload.envelope["id"])?),
            Some(Repeat::Queued) => {
                let depth = store::queue::depth(&mut self.app.db.read().await?, self.id).await?;
                let response = queued(known.id, depth, "the message is queued already");
                match self.wish.wait {
                    Some(_) => answered(self.wait_for(known.id, payload, response).await?),
                    None => answered(response),
                }
            }
            Some(Repeat::Join) => {
                let waited = end_of(self.app, known.id, true, patience).await?;
                Ok(matches!(waited, Waited::Impatient).then_some(Begun::Underway))
            }
            Some(Repeat::Anew) => {
                let now = self.app.clock.now();
                let lease = Lease { id: known.id, attempt: known.attempt + 1, ..new };
                let mut tx = self.app.db.begin().await?;
                let until = now.after(message::LEASE);
                let opened = leases::reopen(&mut tx, (lease, until), known.state, now).await?;
                let held = store::queue::held(&mut tx, self.id, now).await?;
                tx.commit().await?;
                Ok(match (opened, held) {
                    (true, _) => Some(Begun::Leased(lease)),
                    (false, Some(_)) => Some(Begun::Held),
                    (false, None) => None,
                })
            }
        }
    }

    /// What to do about it. `None`: it was over for so long that its name is free again.
    async fn repeated(&self, known: &Message, payload: &Payload) -> Result<Option<Repeat>> {
        let past = self.app.clock.now().before(self.app.config.messages.dedupe);
        if known.times.ended.is_some_and(|ended| ended < past) {
            let mut tx = self.app.db.begin().await?;
            store::queue::forget_one(&mut tx, known.id, past).await?;
            tx.commit().await?;
            return Ok(None);
        }
        let same = known.digest == payload.digest && known.caller == self.caller();
        let promised = known.origin.is_promised();
        Ok(Some(message::repeated(Known { state: known.state, same, promised })))
    }

    /// Accept the message without waiting for its answer; whoever asked to wait waits for it all the same.
    pub(super) async fn accept(&self, payload: &Payload) -> Result<Response> {
        if self.caller().is_some_and(|caller| caller != self.id) {
            may_send(self.app, self.sender, self.id).await?;
        }
        let headers = serde_json::to_string(&forwarded(self.headers)).unwrap_or_default();
        for _ in 0..RACES {
            let of = (self.id, self.caller());
            let row = queue::accepted(self.app, of, payload, headers.clone(), self.app.clock.now());
            let id = row.id;
            match self.app.post.group.ask(self.app, Enqueue(row)).await {
                Some(Put::Accepted(depth)) => {
                    let response =
                        queued(id, depth, "the message is accepted; its answer can be read later");
                    return match self.wish.wait {
                        Some(_) => self.wait_for(id, payload, response).await,
                        None => Ok(applied(response)),
                    };
                }
                Some(Put::Refused) => {}
                Some(Put::Failed(cause)) => {
                    return Err(busy(&format!("it could not be queued: {cause}")));
                }
                None => return Err(busy("it could not be queued")),
            }
            may_send(self.app, self.sender, self.id).await?;
            let Some(key) = &payload.key else { continue };
            let known = store::by_key(&mut self.app.db.read().await?, self.id, key).await?;
            let Some(known) = known else { continue };
            if let Some(response) = self.accepted_before(&known, payload).await? {
                return Ok(response);
            }
        }
        Err(busy("it could not be queued"))
    }

    /// A message of this name is known. `None`: it changed meanwhile, look again.
    async fn accepted_before(
        &self,
        known: &Message,
        payload: &Payload,
    ) -> Result<Option<Response>> {
        let Some(repeat) = self.repeated(known, payload).await? else { return Ok(None) };
        let now = self.app.clock.now();
        let expires = now.after(self.app.config.messages.expire_after);
        let mut tx = self.app.db.begin().await?;
        let kept = match repeat {
            Repeat::Another => return Err(another()),
            Repeat::Replay => return replayed(known, &payload.envelope["id"]).map(Some),
            Repeat::Queued => true,
            Repeat::Join => {
                let holder = known.holder.unwrap_or_default();
                let (attempt, generation) = (known.attempt, known.generation);
                let lease = Lease { id: known.id, attempt, generation, holder };
                leases::promise(&mut tx, lease, expires).await?
            }
            Repeat::Anew => {
                store::queue::reaccept(&mut tx, known.id, known.state, (false, expires), now)
                    .await?
            }
        };
        let depth = store::queue::depth(&mut tx, self.id).await?;
        tx.commit().await?;
        if !kept {
            return Ok(None);
        }
        super::ring(self.app);
        let response = queued(known.id, depth, "the message is queued already");
        match self.wish.wait {
            Some(_) => self.wait_for(known.id, payload, response).await.map(Some),
            None => Ok(Some(response)),
        }
    }

    /// There is no address: it may be woken, or it comes by itself, or it does not.
    pub(super) async fn nowhere(&self, target: &Workspace, body: &Bytes) -> Result<Response> {
        let asleep = matches!(target.status, Status::Hibernated | Status::Hibernating);
        if self.wish.wait.is_some() {
            let payload = self.read(body)?;
            if asleep {
                workspaces::rouse(self.app, self.id, "a message came").await?;
            }
            return self.accept(&payload).await;
        }
        let mut body = ErrorBody::new("workspace has no URL");
        body.status = Some(target.status.as_str().to_owned());
        if asleep {
            body = waking(self.app, target).await?;
        }
        Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)))
    }
}
