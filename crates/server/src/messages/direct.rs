//! A caller waits on its connection: the fast path.
//!
//! Checks come first, in the contract's order; what they refuse has no row. Then the message is written down, leased
//! to this server, the exchange is made in the background, and its answer ends the row. A caller whose patience ends
//! first is promised the delivery (202): the exchange goes on.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use ligand_api::error::ErrorBody;
use ligand_domain::access::may_talk;
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;
use serde_json::Value;
use tokio::sync::oneshot;

use super::answers::{BUSY_RETRY, FAILED, busy, dropped, queued, recorded};
use super::payload::Payload;
use super::row::Lease;
use super::store::leases::{self, Direct};
use super::turn::{Turn, forwarded};
use super::waiting::{Patience, Waited, end_of};
use super::{Done, store};
use crate::access::Sender;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::route::{NoRoute, Route};
use crate::workspaces::{self, Instance, Roused, Workspace};

/// A turn without a deadline of its own, from an agent, is promised and goes on after this.
pub(super) const AGENT_CEILING: Duration = Duration::from_secs(30 * 60);
/// What the caller of a hibernated workspace is asked to wait.
const WAKING_RETRY: u64 = 15;
/// Another caller of the same message may be quicker so many times.
pub(super) const RACES: usize = 8;

/// What a caller wishes of its call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    /// `Prefer: wait=N`.
    pub(super) wait: Option<Duration>,
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
pub(super) struct Call<'a> {
    pub(super) app: &'a App,
    pub(super) id: WorkspaceId,
    pub(super) sender: Sender,
    pub(super) headers: &'a HeaderMap,
    pub(super) wish: Wish,
    began: Timestamp,
}

/// What its target is.
pub(super) struct Target {
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
    let mut patience = Patience::new(Some(within));
    let begun = call.begin(&target.workspace, &payload, &body, &mut patience).await?;
    let Begun::Leased(lease) = begun else {
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
pub(super) enum Begun {
    /// It is written down, and leased to this call.
    Leased(Lease),
    /// It is answered otherwise.
    Answered(Box<Response>),
    /// Its workspace is held.
    Held,
    /// Another call delivers it, for longer than this one waits.
    Underway,
}

impl Call<'_> {
    pub(super) fn read(&self, body: &Bytes) -> Result<Payload> {
        let fresh =
            || uuid::Builder::from_random_bytes(self.app.ids.bytes()).into_uuid().to_string();
        let named = self.headers.get("idempotency-key").and_then(|value| value.to_str().ok());
        Payload::read(body, named, fresh).map_err(|why| Error::invalid("invalid JSON", why))
    }

    pub(super) fn caller(&self) -> Option<WorkspaceId> {
        match self.sender {
            Sender::Workspace(id) => Some(id),
            Sender::User => None,
        }
    }

    pub(super) fn left(&self) -> Option<Duration> {
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
        let mut patience = Patience::new(self.left());
        let lease = loop {
            match self.begin(&target.workspace, &payload, &body, &mut patience).await? {
                Begun::Leased(lease) => break lease,
                Begun::Answered(response) => return Ok(*response),
                Begun::Held if patience.wait(self.app.post.waiting.release()).await.is_some() => {}
                // For longer than this caller waits.
                Begun::Held | Begun::Underway => return self.accept(&payload).await,
            }
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
    pub(super) async fn wait_for(
        &self,
        id: MessageId,
        payload: &Payload,
        queued: Response,
    ) -> Result<Response> {
        let mut patience = Patience::new(self.left().or(Some(AGENT_CEILING)));
        match end_of(self.app, id, false, &mut patience).await? {
            Waited::Impatient => Ok(queued),
            Waited::Over(None) => Err(Error::not_found("message not found")),
            Waited::Over(Some(message)) => recorded(&message, &payload.envelope["id"]),
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
    async fn begin(
        &self,
        target: &Workspace,
        payload: &Payload,
        body: &str,
        patience: &mut Patience,
    ) -> Result<Begun> {
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
                Err(cause) if super::answers::taken(&cause) => {}
                Err(cause) => return Err(cause.into()),
            }
            let known = match &payload.key {
                Some(key) => store::by_key(&mut self.app.db.read().await?, self.id, key).await?,
                None => None,
            };
            let Some(known) = known else { continue };
            if let Some(begun) = self.again(&known, lease, payload, patience).await? {
                return Ok(begun);
            }
        }
        Err(Error::refused(StatusCode::CONFLICT, "the message is being sent by others"))
    }
}

/// The checks that need no agent, and what else a delivery needs to know.
pub(super) async fn may_send(app: &App, sender: Sender, id: WorkspaceId) -> Result<Target> {
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
pub(super) async fn waking(app: &App, target: &Workspace) -> Result<ErrorBody> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(sender: Sender, headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let named = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
        });
        Wish::of(&named.collect()).patience(sender)
    }

    const WORKSPACE: Sender = Sender::Workspace(WorkspaceId::from_uuid(uuid::Uuid::nil()));

    #[test]
    fn a2_25_a_user_waits_for_as_long_as_it_takes() {
        assert_eq!(patience(Sender::User, &[]), None);
        for none in ["0", "-1", "x", ""] {
            assert_eq!(patience(Sender::User, &[("x-timeout", none)]), None, "{none}");
        }
    }

    #[test]
    fn a2_26_a_workspace_waits_half_an_hour() {
        assert_eq!(patience(WORKSPACE, &[]), Some(Duration::from_secs(1800)));
    }

    #[test]
    fn a2_27_who_says_how_long_waits_for_that() {
        let timeout = ("x-timeout", "7200");
        assert_eq!(patience(WORKSPACE, &[timeout]), Some(Duration::from_secs(7200)));
        let wait = ("prefer", "respond-async, wait=5");
        assert_eq!(patience(Sender::User, &[timeout, wait]), Some(Duration::from_secs(5)));
    }
}
