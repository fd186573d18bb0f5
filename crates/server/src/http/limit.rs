//! How often one caller may ask.
//!
//! Two kinds of buckets of one size. A request that proves no workspace credential counts against the
//! address that it comes from, refused admissions among them: whoever guesses runs out of guesses. One that
//! proves a credential counts against its workspace, so agents behind one address never throttle each other,
//! and a runaway agent throttles itself alone.
//!
//! Whether a bearer proves something is known only to the gates and the registry, which ask the database
//! anyway; asking here too would cost every heartbeat a statement. So it is charged in two ways:
//!
//! - *Proven lately*: the bearer's hash is in a bounded memory. Its workspace is charged, and refused if it
//!   is over, before anything else happens. The memory lets nobody in: the gates decide as ever. What
//!   comes through without having proven it again is forgotten, and counts against the address too, whatever
//!   the answer: open routes refuse nobody. Only failures of the server's own tell nothing about a bearer.
//! - *Anything else*: an address that is over its limit is refused. What carries no bearer can prove nothing
//!   and is charged at once; what carries one is charged when it is known whom to charge: its workspace if
//!   something was proven ([`Proof::of`]), else the address, be it because the caller went away. So first calls with good credentials never
//!   count against the address, however many come at once. What this gives away is bounded by what one
//!   address has under way at the moment at which it reaches its limit.
//!
//! A good credential that was never seen here is refused with the strangers while its address is over the
//! limit: a minute at most, and only where somebody else behind that address floods.
//!
//! The window's arithmetic is `ligand_domain::rate`. Each replica counts for itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use ligand_api::error::ErrorBody;
use ligand_domain::credential::{TokenHash, bearer};
use ligand_domain::guards::Guard;
use ligand_domain::id::WorkspaceId;
use ligand_domain::rate::{Rate, Standing, Window};
use ligand_domain::time::Timestamp;

use crate::app::App;
use crate::error::{Error, Result};

/// Proven bearers that are remembered, and buckets of each kind: some 25 MB at most. More agents than this on
/// one server would push each other out.
const MOST: usize = 262_144;
/// Ended windows are swept this often.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// The same, where there is no room: a flood of addresses must not make each request look at all of them.
const SWEEP_WHEN_FULL: Duration = Duration::from_secs(1);
/// Tokens of the organisation that one address may mint.
const MINTS: Rate = Rate { most: 10, per: Duration::from_secs(3600) };
/// Calls of tools that one bearer may make.
const TOOLS: Rate = Rate { most: 120, per: Duration::from_secs(60) };

/// The header that says how many requests may come.
const LIMIT: &str = "x-ratelimit-limit";

/// Where a request comes from; `None` where there is no socket, which is one address too.
type Address = Option<IpAddr>;

/// Every bucket of one server.
pub struct Limiter {
    addresses: Mutex<Buckets<Address>>,
    workspaces: Mutex<Buckets<WorkspaceId>>,
    mints: Mutex<Buckets<Address>>,
    tools: Mutex<Buckets<TokenHash>>,
    proven: Mutex<HashMap<TokenHash, WorkspaceId>>,
}

impl Limiter {
    /// So many requests a minute.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        let rate = Rate { most: per_minute, per: Duration::from_secs(60) };
        Self {
            addresses: Mutex::new(Buckets::new(rate)),
            workspaces: Mutex::new(Buckets::new(rate)),
            mints: Mutex::new(Buckets::new(MINTS)),
            tools: Mutex::new(Buckets::new(TOOLS)),
            proven: Mutex::new(HashMap::new()),
        }
    }

    fn remember(&self, hash: TokenHash, workspace: WorkspaceId) {
        let mut proven = lock(&self.proven);
        if proven.len() >= MOST && !proven.contains_key(&hash) {
            // Which one goes does not matter: it comes back with its next call.
            let any = proven.keys().next().copied();
            any.map(|any| proven.remove(&any));
        }
        proven.insert(hash, workspace);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Windows of one kind of caller.
struct Buckets<K> {
    rate: Rate,
    windows: HashMap<K, Window>,
    swept: Timestamp,
}

impl<K: Hash + Eq + Copy> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, windows: HashMap::new(), swept: Timestamp::EPOCH }
    }

    fn charge(&mut self, of: K, now: Timestamp) -> Standing {
        let rate = self.rate;
        let full = self.windows.len() >= MOST;
        let since = now.since(self.swept);
        if since >= SWEEP_EVERY || (full && since >= SWEEP_WHEN_FULL) {
            self.windows.retain(|_, window| !window.over(rate, now));
            self.swept = now;
        }
        if self.windows.len() >= MOST && !self.windows.contains_key(&of) {
            let any = self.windows.keys().next().copied();
            any.map(|any| self.windows.remove(&any));
        }
        self.windows.entry(of).or_insert_with(|| Window::begin(now)).count(rate, now)
    }

    fn look(&self, of: K, now: Timestamp) -> Standing {
        let window = self.windows.get(&of).copied().unwrap_or_else(|| Window::begin(now));
        window.look(self.rate, now)
    }
}

/// By which a gate says that a request proved a workspace's credential. An argument of handlers that judge
/// credentials themselves.
#[derive(Debug, Clone, Default)]
pub struct Proof(Arc<OnceLock<WorkspaceId>>);

impl Proof {
    /// The bearer of this request is a live credential of that workspace.
    pub fn of(&self, workspace: WorkspaceId) {
        let _ = self.0.set(workspace);
    }

    /// What the request carries; one that nobody reads, where there is no limiter.
    #[must_use]
    pub fn carried(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_default()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Proof {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> std::result::Result<Self, Self::Rejection> {
        Ok(Self::carried(parts))
    }
}

/// Where a request comes from: the peer of its connection. What headers claim does not count.
#[must_use]
pub fn peer(extensions: &axum::http::Extensions) -> Option<IpAddr> {
    let connection = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(connection.0.ip().to_canonical())
}

/// Count a token of the organisation that this address asks for.
///
/// # Errors
/// 429 when it had its share.
pub fn charge_mint(app: &App, from: Address) -> Result<()> {
    if app.config.fails_open() {
        return Ok(());
    }
    let told = lock(&app.limiter().mints).charge(from, app.clock.now());
    if told.within { Ok(()) } else { Err(too_many(told, "rate limit exceeded")) }
}

/// Count a call of a tool for whoever's bearer this is, whatever else is counted, and make it if that had not its
/// share yet. To be asked behind the gate, so that only what opens one fills the memory.
pub async fn metered(
    app: &App,
    headers: &HeaderMap,
    call: impl Future<Output = Response>,
) -> Response {
    let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(text) = said.and_then(loosely) else {
        return Error::unauthenticated("missing bearer token").into_response();
    };
    let told = lock(&app.limiter().tools).charge(TokenHash::of(text), app.clock.now());
    let answer = match told.within {
        true => call.await,
        false => too_many(told, "MCP rate limit exceeded").into_response(),
    };
    headed(answer, told)
}

/// The bearer as this one limit reads it: the scheme in letters of any size, and the rest as it is.
fn loosely(header: &str) -> Option<&str> {
    let (scheme, rest) = header.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty()).then_some(rest)
}

fn too_many(told: Standing, text: &str) -> Error {
    let body = ErrorBody { retry_after: Some(told.reset), ..ErrorBody::new(text) };
    Error::Refused(StatusCode::TOO_MANY_REQUESTS, Box::new(body))
}

/// Count every request, and refuse those that are too many.
pub async fn limit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if app.config.fails_open() {
        let mut response = next.run(request).await;
        let unlimited = HeaderValue::from_static("unlimited");
        response.headers_mut().entry(LIMIT).or_insert(unlimited);
        return response;
    }
    let from = peer(request.extensions());
    let text = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let hash = text.and_then(bearer).map(TokenHash::of);
    let held = app.config.guards.hold(Guard::WorkspaceBucket);
    let call = Call { app: &app, from, hash: hash.filter(|_| held) };
    let before = call.before();
    if let Some(told) = before.filter(|told| !told.within) {
        return headed(too_many(told, "rate limit exceeded").into_response(), told);
    }
    let proof = Proof::default();
    request.extensions_mut().insert(proof.clone());
    let mut abandoned = Abandoned(before.is_none().then_some(&call));
    let response = next.run(request).await;
    abandoned.0 = None;
    let failed = response.status().is_server_error();
    let told = call.after(before, proof.0.get().copied(), failed);
    headed(response, told)
}

/// One request, and whom it is charged to.
struct Call<'a> {
    app: &'a App,
    from: Address,
    hash: Option<TokenHash>,
}

/// A call that is charged to nobody yet. Where its caller goes away before it is known whom to charge, its
/// address is.
struct Abandoned<'a>(Option<&'a Call<'a>>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.0 {
            call.charge_address();
        }
    }
}

impl Call<'_> {
    fn charge_address(&self) -> Standing {
        lock(&self.app.limiter().addresses).charge(self.from, self.app.clock.now())
    }

    /// What is charged, or refused, without knowing whether the bearer proves anything. `None`: it has to be
    /// tried.
    fn before(&self) -> Option<Standing> {
        let (limiter, now) = (self.app.limiter(), self.app.clock.now());
        let Some(hash) = &self.hash else {
            return Some(self.charge_address());
        };
        let known = lock(&limiter.proven).get(hash).copied();
        match known {
            Some(workspace) => Some(lock(&limiter.workspaces).charge(workspace, now)),
            None => {
                let standing = lock(&limiter.addresses).look(self.from, now);
                (!standing.within).then_some(standing)
            }
        }
    }

    fn after(
        &self,
        before: Option<Standing>,
        proven: Option<WorkspaceId>,
        failed: bool,
    ) -> Standing {
        let (limiter, now) = (self.app.limiter(), self.app.clock.now());
        match (&self.hash, proven, before) {
            (Some(hash), Some(workspace), charged) => {
                limiter.remember(*hash, workspace);
                charged.unwrap_or_else(|| lock(&limiter.workspaces).charge(workspace, now))
            }
            // What was good a moment ago may not be any more: it must not use up its successor's share.
            (Some(hash), None, Some(_)) if !failed => {
                lock(&limiter.proven).remove(hash);
                self.charge_address()
            }
            (_, _, Some(charged)) => charged,
            (_, None, None) | (None, _, None) => self.charge_address(),
        }
    }
}

/// Tell a caller how it stands, unless a narrower limit has said so already.
fn headed(mut response: Response, told: Standing) -> Response {
    if response.headers().contains_key(LIMIT) {
        return response;
    }
    let said = [
        (LIMIT, u64::from(told.limit)),
        ("x-ratelimit-remaining", u64::from(told.remaining)),
        ("x-ratelimit-reset", told.reset),
    ];
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in said {
        headers.insert(name, HeaderValue::from(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ML-08 and ML-09.
    #[test]
    fn ml_08_ml_09_a_bucket_is_found_by_the_hash_of_a_bearer_in_any_letters() {
        for same in ["Bearer t", "bearer t", "BEARER t"] {
            assert_eq!(loosely(same), Some("t"));
        }
        assert_eq!(loosely("Bearer  t"), Some(" t"), "it is not trimmed");
        for none in ["", "t", "Bearer", "Bearer ", "Basic t"] {
            assert_eq!(loosely(none), None, "{none}");
        }
        let (key, text) = (TokenHash::of("t"), b"t".as_slice());
        assert_eq!(key, TokenHash::of("t"));
        assert!(key != TokenHash::of("u") && !key.bytes().starts_with(text));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut buckets = Buckets::new(Rate { most: 1, per: Duration::from_secs(60) });
        let now = Timestamp::from_micros(1);
        for number in 0..MOST + 100 {
            assert!(buckets.charge(number, now).within);
        }
        assert_eq!(buckets.windows.len(), MOST);
        buckets.charge(0, now.after(SWEEP_EVERY));
        assert_eq!(buckets.windows.len(), 1, "what ended is swept");
        let limiter = Limiter::new(1);
        for number in 0..MOST + 100 {
            let workspace = WorkspaceId::from_random([0; 16]);
            limiter.remember(TokenHash::of(&number.to_string()), workspace);
        }
        assert_eq!(lock(&limiter.proven).len(), MOST);
    }
}
