//! A caller waits on its connection: the fast path.
//!
//! Checks come first, in the contract's order; what they refuse has no row. Then the message is written down, leased
//! to this server, the exchange is made in the background, and its answer ends the row. A caller whose patience ends
//! first is promised the delivery (202): the exchange goes on.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use ligand_api::error::ErrorBody;
use ligand_api::message::Queued;
use ligand_domain::access::may_talk;
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::{self, Known, Next, Repeat, State};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;
use serde_json::Value;
use tokio::sync::oneshot;

use super::outcome::{self, Settled, refusal};
use super::payload::{self, Payload};
use super::queue::{self, Enqueue, Put};
use super::row::{Lease, Message};
use super::store::leases::{self, Direct};
use super::turn::{Came, Lost, Reply, Turn, forwarded};
use super::waiting::end_of;
use super::{Done, store};
use crate::access::Sender;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::route::{NoRoute, Route};
use crate::workspaces::{self, Instance, Roused, Workspace};

/// A turn without a deadline of its own, from an agent, is promised and goes on after this.
pub(super) const AGENT_CEILING: Duration = Duration::from_secs(30 * 60);
/// What a busy agent's caller is asked to wait.
const BUSY_RETRY: u64 = 30;
/// What the caller of a hibernated workspace is asked to wait.
const WAKING_RETRY: u64 = 15;
/// Another caller of the same message may be quicker so many times.
const RACES: usize = 8;
/// The contract's text for a turn that cannot be made.
const FAILED: &str = "failed to create proxy request";

/// What a caller wishes of its call.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    /// `Prefer: wait=N`.
    wait: Option<Duration>,
    /// `Prefer: respond-async`.
    later: bool,
    /// `X-Timeout`.
    timeout: Option<Duration>,
}

impl Wish {
    fn of(headers: &HeaderMap) -> Self {
        let seconds = |text: &str| {
            let number = text.trim().trim_matches('"').parse::<u64>().ok();
            number.filter(|number| *number > 0).map(Duration::from_secs)
        };
        let timeout = headers.get("x-timeout").and_then(|value| seconds(value.to_str().ok()?));
        let mut wish = Self { timeout, ..Self::default() };
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split([',', ';'])) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_lowercase().as_str() {
                "wait" => wish.wait = seconds(value),
                "respond-async" => wish.later = true,
                _ => {}
            }
        }
        wish
    }

    /// How long its caller waits; `None`: as long as it takes.
    fn patience(self, sender: Sender) -> Option<Duration> {
        match (self.wait, self.timeout) {
            (Some(wait), Some(timeout)) => Some(wait.min(timeout)),
            (Some(limit), None) | (None, Some(limit)) => Some(limit),
            (None, None) => matches!(sender, Sender::Workspace(_)).then_some(AGENT_CEILING),
        }
    }
}

/// One call.
struct Call<'a> {
    app: &'a App,
    id: WorkspaceId,
    sender: Sender,
    headers: &'a HeaderMap,
    wish: Wish,
    began: Timestamp,
}

/// What its target is.
struct Target {
    workspace: Workspace,
    instance: Option<Instance>,
}

/// Send a message that came over HTTP.
pub(super) async fn send(
    app: &App,
    id: WorkspaceId,
    sender: Sender,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response> {
    let call = Call { app, id, sender, headers, wish: Wish::of(headers), began: app.clock.now() };
    if call.wish.later && call.wish.wait.is_none() {
        let payload = call.read(body)?;
        return call.accept(&payload).await;
    }
    let target = may_send(app, sender, id).await?;
    if target.workspace.agent.url.is_empty() {
        return call.nowhere(&target.workspace, body).await;
    }
    let route = route_to(app, &target).await?;
    let payload = call.read(body)?;
    if payload.carries {
        call.deliver(target, route, payload).await
    } else {
        call.question(target, route, payload).await
    }
}

/// Tell an agent something on the platform's own behalf, by the way that a user's message takes: now or never. Its
/// answer is waited for and thrown away.
///
/// # Errors
/// As a call over HTTP.
pub(crate) async fn tell(
    app: &App,
    id: WorkspaceId,
    message: Value,
    within: Duration,
) -> Result<()> {
    let (headers, sender) = (HeaderMap::new(), Sender::User);
    let wish = Wish { timeout: Some(within), ..Wish::default() };
    let call = Call { app, id, sender, headers: &headers, wish, began: app.clock.now() };
    let target = may_send(app, sender, id).await?;
    if target.workspace.agent.url.is_empty() {
        return Err(Error::refused(StatusCode::SERVICE_UNAVAILABLE, "workspace has no URL"));
    }
    let route = route_to(app, &target).await?;
    let payload = Payload::of(message);
    let body = payload.envelope.to_string();
    let Begun::Leased(lease) = call.begin(&target.workspace, &payload, &body).await? else {
        return Ok(());
    };
    let mut turn = call.turn(target, route, body);
    (turn.lease, turn.fleeting) = (Some(lease), true);
    let (reply, answered) = oneshot::channel();
    app.spawn(turn.serve(Some(reply)));
    match tokio::time::timeout(within, answered).await {
        Ok(Ok(answer)) => answer.map(drop),
        Ok(Err(_)) | Err(_) => {
            Err(Error::refused(StatusCode::SERVICE_UNAVAILABLE, "workspace agent is busy"))
        }
    }
}

/// What came of looking a message up, or writing it down.
enum Begun {
    /// It is written down, and leased to this call.
    Leased(Lease),
    /// It is answered otherwise.
    Answered(Box<Response>),
    /// Its workspace is held.
    Held,
}

impl Call<'_> {
    fn read(&self, body: &Bytes) -> Result<Payload> {
        let fresh =
            || uuid::Builder::from_random_bytes(self.app.ids.bytes()).into_uuid().to_string();
        let named = self.headers.get("idempotency-key").and_then(|value| value.to_str().ok());
        Payload::read(body, named, fresh).map_err(|why| Error::invalid("invalid JSON", why))
    }

    fn caller(&self) -> Option<WorkspaceId> {
        match self.sender {
            Sender::Workspace(id) => Some(id),
            Sender::User => None,
        }
    }

    fn left(&self) -> Option<Duration> {
        let patience = self.wish.patience(self.sender)?;
        Some(patience.saturating_sub(self.app.clock.now().since(self.began)))
    }

    fn turn(&self, target: Target, route: Route, body: String) -> Turn {
        let remembers = target.instance.as_ref().is_some_and(|instance| instance.features.turns);
        Turn {
            app: self.app.clone(),
            target: target.workspace,
            route,
            remembers,
            body,
            headers: forwarded(self.headers),
            sender: self.caller(),
            lease: None,
            again: false,
            queued: false,
            fleeting: false,
            limit: None,
            began: self.began,
        }
    }

    /// A question about a message, or about the agent: it has no row, and is worth nothing later.
    async fn question(&self, target: Target, route: Route, payload: Payload) -> Result<Response> {
        let held = store::queue::held(&mut self.app.db.read().await?, self.id, self.began).await?;
        if held.is_some() {
            let body = ErrorBody {
                busy: Some(true),
                retry_after: Some(BUSY_RETRY),
                ..ErrorBody::new("workspace agent is busy")
            };
            return Err(Error::Refused(
                StatusCode::SERVICE_UNAVAILABLE,
                Box::new(body.detail("it is being moved")),
            ));
        }
        let mut turn = self.turn(target, route, payload.envelope.to_string());
        turn.limit = self.wish.patience(self.sender);
        let (reply, answered) = oneshot::channel();
        self.app.spawn(turn.serve(Some(reply)));
        answered.await.map_err(|_| dropped())?
    }

    /// Deliver, and wait for the answer.
    async fn deliver(&self, target: Target, route: Route, payload: Payload) -> Result<Response> {
        let body = payload.envelope.to_string();
        let began = async {
            loop {
                match self.begin(&target.workspace, &payload, &body).await? {
                    Begun::Held => self.app.post.waiting.release().await,
                    begun => return Ok::<_, Error>(begun),
                }
            }
        };
        let began = match self.left() {
            None => began.await?,
            Some(left) => match tokio::time::timeout(left, began).await {
                Ok(began) => began?,
                // Held, or made for somebody else, for longer than this caller waits.
                Err(_) => return self.accept(&payload).await,
            },
        };
        let lease = match began {
            Begun::Leased(lease) => lease,
            Begun::Answered(response) => return Ok(*response),
            Begun::Held => return Err(dropped()),
        };
        let mut turn = self.turn(target, route, body);
        turn.lease = Some(lease);
        let (reply, mut answered) = oneshot::channel();
        self.app.spawn(turn.serve(Some(reply)));
        let Some(left) = self.left() else { return answered.await.map_err(|_| dropped())? };
        let response = match tokio::time::timeout(left, &mut answered).await {
            Ok(answered) => {
                return self
                    .unless_queued(answered.map_err(|_| dropped())??, lease.id, &payload)
                    .await;
            }
            Err(_) => self.promise(lease).await,
        };
        match response {
            Ok(Some(queued)) => Ok(queued),
            // It ended this very moment.
            Ok(None) => answered.await.map_err(|_| dropped())?,
            Err(cause) => Err(busy(&format!("it could not be queued: {cause}"))),
        }
    }

    /// Whoever asked to wait goes on waiting when the agent is busy.
    async fn unless_queued(
        &self,
        response: Response,
        id: MessageId,
        payload: &Payload,
    ) -> Result<Response> {
        if response.status() != StatusCode::ACCEPTED || self.wish.wait.is_none() {
            return Ok(response);
        }
        self.wait_for(id, payload, response).await
    }

    /// Wait for the outcome of a message in the queue; `queued` is what is said when patience ends.
    async fn wait_for(
        &self,
        id: MessageId,
        payload: &Payload,
        queued: Response,
    ) -> Result<Response> {
        let left = self.left().unwrap_or(AGENT_CEILING);
        match tokio::time::timeout(left, end_of(self.app, id, false)).await {
            Err(_) => Ok(queued),
            Ok(Err(cause)) => Err(cause),
            Ok(Ok(None)) => Err(Error::not_found("message not found")),
            Ok(Ok(Some(message))) => recorded(&message, &payload.envelope["id"]),
        }
    }

    /// The caller's patience is over, and the exchange is not. `None`: now it is.
    async fn promise(&self, lease: Lease) -> Done<Option<Response>> {
        let mut tx = self.app.db.begin().await?;
        let expires = self.app.clock.now().after(self.app.config.messages.expire_after);
        let promised = leases::promise(&mut tx, lease, expires).await?;
        let depth = store::queue::depth(&mut tx, self.id).await?;
        tx.commit().await?;
        let text = "the agent is at it; its answer can be read later";
        Ok(promised.then(|| queued(lease.id, depth, text)))
    }

    /// Write the message down, or find out what is known of it.
    async fn begin(&self, target: &Workspace, payload: &Payload, body: &str) -> Result<Begun> {
        let headers = serde_json::to_string(&forwarded(self.headers)).unwrap_or_default();
        for _ in 0..RACES {
            let now = self.app.clock.now();
            let (id, holder) = (self.app.ids.message(), self.app.post.holder(self.app));
            let lease = Lease { id, attempt: 1, generation: target.current, holder };
            let method = Some(payload.method()).filter(|method| !method.is_empty());
            let new = Direct {
                lease,
                workspace: self.id,
                caller: self.caller(),
                method,
                key: payload.key.as_deref(),
                digest: &payload.digest,
                body,
                headers: &headers,
                until: now.after(message::LEASE),
            };
            let mut single = self.app.db.renewal().await?;
            let opened = leases::open(&mut single, &new, now).await;
            drop(single);
            match opened {
                Ok(true) => return Ok(Begun::Leased(lease)),
                Ok(false) => return Ok(Begun::Held),
                Err(cause) if taken(&cause) => {}
                Err(cause) => return Err(cause.into()),
            }
            let known = match &payload.key {
                Some(key) => store::by_key(&mut self.app.db.read().await?, self.id, key).await?,
                None => None,
            };
            let Some(known) = known else { continue };
            if let Some(begun) = self.again(&known, lease, payload).await? {
                return Ok(begun);
            }
        }
        Err(Error::refused(StatusCode::CONFLICT, "the message is being sent by others"))
    }

    /// A message of this name is known. `None`: it changed meanwhile, look again.
    async fn again(&self, known: &Message, new: Lease, payload: &Payload) -> Result<Option<Begun>> {
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
                end_of(self.app, known.id, true).await?;
                Ok(None)
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
    async fn accept(&self, payload: &Payload) -> Result<Response> {
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
                    super::ring(self.app);
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
    async fn nowhere(&self, target: &Workspace, body: &Bytes) -> Result<Response> {
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

/// The checks that need no agent, and what else a delivery needs to know.
async fn may_send(app: &App, sender: Sender, id: WorkspaceId) -> Result<Target> {
    let mut tx = app.db.read().await?;
    if let Sender::Workspace(caller) = sender
        && caller != id
    {
        let caller = workspaces::lineage(&mut tx, caller).await?;
        let target = workspaces::lineage(&mut tx, id).await?;
        if !may_talk(caller.as_ref(), target.as_ref()) {
            let text = "access denied: workspaces cannot communicate per hierarchy rules";
            return Err(Error::refused(StatusCode::FORBIDDEN, text));
        }
    }
    let found = workspaces::get(&mut tx, id).await.map_err(Error::internal("lookup failed"))?;
    let workspace = found
        .filter(|workspace| workspace.status != Status::Removed)
        .ok_or_else(|| Error::not_found("workspace not found"))?;
    if workspace.budget_limit.is_some_and(|limit| workspace.monthly_spend >= limit) {
        return Err(Error::refused(
            StatusCode::PAYMENT_REQUIRED,
            "workspace budget limit exceeded",
        ));
    }
    let instance = workspaces::instance_of(&mut tx, id, workspace.current).await?;
    Ok(Target { workspace, instance })
}

/// Where the agent answers. An address that its backend reported is trusted; any other is judged anew, by
/// every address that its name resolves to.
async fn route_to(app: &App, target: &Target) -> Result<Route> {
    let reported = target.instance.as_ref().is_some_and(|instance| instance.url_reported);
    let found = Route::to(app, &target.workspace.agent.url, reported).await;
    found.map_err(|cause| match cause {
        NoRoute::Unsafe(why) => {
            let body = ErrorBody::new("workspace URL is not publicly routable").detail(why);
            Error::Refused(StatusCode::BAD_GATEWAY, Box::new(body))
        }
        NoRoute::Broken(cause) => Error::Internal(FAILED, cause),
    })
}

/// What the caller of a hibernated workspace is told: it is being woken, unless something keeps it asleep.
async fn waking(app: &App, target: &Workspace) -> Result<ErrorBody> {
    let mut body = ErrorBody::new("workspace is hibernated");
    body.status = Some(target.status.as_str().to_owned());
    match workspaces::rouse(app, target.id, "a message came").await? {
        Roused::Begun | Roused::Awake => {
            body.detail = Some("it is being woken; send the message again".to_owned());
            Ok(ErrorBody { waking: Some(true), retry_after: Some(WAKING_RETRY), ..body })
        }
        Roused::Gone => Err(Error::not_found("workspace not found")),
        Roused::NoBackend => Ok(body.detail("it cannot be woken: no backend here runs it")),
        Roused::Under(why) => Ok(body.detail(format!("it cannot be woken: {why}"))),
    }
}

impl Turn {
    /// Make the exchange, write down what came of it, and answer whoever waits.
    pub(super) async fn serve(self, mut reply: Reply) {
        let came = self.run(&mut reply).await;
        let (mut dead, mut native) = (false, false);
        if let Came::Lost(lost) = &came {
            dead = self.dead().await;
            native = self.native_session();
            if lost.outcome == message::Outcome::Unreached && !dead {
                self.suspect(&lost.why).await;
            }
        }
        let settled = outcome::settle(&self, &came, dead || native || self.fleeting).await;
        outcome::note_outcome(&self, &came);
        if let Some(reply) = reply {
            let _ = reply.send(self.respond(came, settled, (dead, native)).await);
        }
        self.app.post.room(&self.app);
    }

    async fn respond(
        &self,
        came: Came,
        settled: Settled,
        (dead, native): (bool, bool),
    ) -> Result<Response> {
        let lost = match came {
            Came::Answer(answer) if answer.status.is_success() => {
                let kind = HeaderValue::from_static("application/json");
                let kind = answer.kind.clone().filter(|_| answer.streams()).unwrap_or(kind);
                return Ok(
                    (answer.status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
                );
            }
            Came::Answer(answer) => return Err(Error::refused(answer.status, refusal(&answer))),
            Came::Lost(lost) => lost,
        };
        if let Some(status) = lost.unread {
            return Err(unread(status, lost.why));
        }
        if dead {
            let body = ErrorBody::new("workspace agent is being restarted");
            let body = ErrorBody { restarting: Some(true), ..body };
            return Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)));
        }
        match (lost.outcome, settled, self.lease) {
            (message::Outcome::Busy, _, _) if native => {
                let body = ErrorBody {
                    busy: Some(true),
                    retry_after: Some(BUSY_RETRY),
                    native_session: Some(true),
                    ..ErrorBody::new("workspace agent is busy").detail(lost.why)
                };
                Err(Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body)))
            }
            (message::Outcome::Busy, Settled::As(Next::Again { .. }), Some(lease)) => {
                let depth = async {
                    store::queue::depth(&mut self.app.db.read().await?, self.target.id).await
                };
                let text = "workspace agent is busy; the message is queued";
                Ok(queued(lease.id, depth.await.unwrap_or(1), text))
            }
            (message::Outcome::Busy, _, _) => Err(busy(&lost.why)),
            (_, _, _) => Err(unreached(&lost)),
        }
    }
}

fn unreached(lost: &Lost) -> Error {
    let body = ErrorBody::new("failed to reach workspace agent").detail(lost.why.as_str());
    Error::Refused(StatusCode::BAD_GATEWAY, Box::new(body))
}

fn busy(why: &str) -> Error {
    let body = ErrorBody::new("workspace agent is busy").detail(why);
    let body = ErrorBody { busy: Some(true), retry_after: Some(BUSY_RETRY), ..body };
    Error::Refused(StatusCode::SERVICE_UNAVAILABLE, Box::new(body))
}

fn dropped() -> Error {
    Error::Internal(FAILED, anyhow::anyhow!("the turn was dropped"))
}

fn another() -> Error {
    let body = ErrorBody::new("the message id was used for another message");
    let body = body
        .detail("messageId, or Idempotency-Key: expected another one, or the same message again");
    Error::Refused(StatusCode::UNPROCESSABLE_ENTITY, Box::new(body))
}

/// The agent answered, and its answer was lost.
fn unread(status: StatusCode, why: String) -> Error {
    let confirmed = status.is_success() || status.is_redirection();
    let body = ErrorBody {
        delivery_confirmed: Some(confirmed),
        ..ErrorBody::new("failed to read agent response")
    };
    Error::Refused(StatusCode::BAD_GATEWAY, Box::new(body.detail(why)))
}

/// Whether a name is another message's.
fn taken(cause: &sqlx::Error) -> bool {
    cause.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

fn queued(id: MessageId, depth: i64, text: &str) -> Response {
    let body =
        Queued { queued: true, queue_id: id.uuid(), queue_depth: depth, message: text.to_owned() };
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn applied(mut response: Response) -> Response {
    let applied = HeaderValue::from_static("respond-async");
    response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    response
}

/// What was recorded, for a call that repeats the message.
fn replayed(message: &Message, id: &Value) -> Result<Response> {
    let mut response = recorded(message, id)?;
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(HeaderName::from_static("idempotent-replayed"), replayed);
    Ok(response)
}

/// What became of a message that is over, as an answer.
fn recorded(message: &Message, id: &Value) -> Result<Response> {
    if !message.state.is_done() {
        let status = match (message.response_status, message.state) {
            (Some(status), _) if status >= 300 => u16::try_from(status).ok(),
            (_, State::Expired) => Some(504),
            (_, _) => None,
        };
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let why = message.last_error.clone().unwrap_or_else(|| message.state.as_str().to_owned());
        return Err(Error::refused(status.unwrap_or(StatusCode::BAD_GATEWAY), why));
    }
    if message.response_cut {
        let body = ErrorBody::new("the answer was too long to be kept");
        let body = body.detail(format!("its end is at a2a/queue/{}", message.id));
        return Err(Error::Refused(StatusCode::GONE, Box::new(body)));
    }
    let streams =
        message.response_type.as_deref().is_some_and(|kind| kind.starts_with("text/event-stream"));
    let kind = if streams { "text/event-stream" } else { "application/json" };
    let text = message.response.as_deref().unwrap_or_default();
    let text = payload::readdressed(text, streams, id);
    let status = message.response_status.and_then(|status| u16::try_from(status).ok());
    let status =
        status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    Ok((status, [(header::CONTENT_TYPE, kind)], text).into_response())
}
