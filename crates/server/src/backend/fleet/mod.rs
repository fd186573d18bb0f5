//! Instances that a control plane runs elsewhere, over HTTP: a fleet of ours, or a foreign one that speaks the same.
//!
//! Of a foreign one no more is asked than what published clients ask: provision, terminate, status, console. What a
//! fleet of ours answers beyond that (instances by generation, data, logs, a stop without an end) is used where it is
//! there; an answer of 404, 405 or 501 means that it is not. An instance is named by the handle that the control plane
//! gave it, never by its workspace; who has the rows tells it again after a restart ([`Backend::known`]).
//!
//! Doubt is an answer: whatever is not a clean state of an instance is an error, and nobody acts on an error.

mod calls;
mod data;
mod handles;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use reqwest::{Client, Method, StatusCode};

use self::calls::Call;
use self::handles::Handles;
use self::wire::{Inventory, Told};
use super::{
    Answer, Backend, BackendError, Bytestream, Carried, Delivery, ErrorKind, Key, Spec, Started,
};
use crate::config::Secret;

pub use self::handles::{handle, instance_of, provider_of};

/// Longest wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often an instance's end is asked for before that is given up for now.
const ATTEMPTS: u32 = 3;
/// Longest wait before the second attempt; the third comes after twice as long.
pub const BACK_OFF: Duration = Duration::from_secs(1);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the control plane is, and who asks it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its address, without a slash at its end.
    pub url: String,
    /// The organisation that asks.
    pub org: String,
    /// On which of its providers instances are started, and where they are looked for; the control plane's choice where
    /// nothing is said.
    pub provider: Option<String>,
    /// The bearer of calls about workspaces.
    pub shared_secret: Option<Secret>,
    /// What says whose platform asks.
    pub identity: Option<Secret>,
    /// The bearer of calls of administrators; the other one where there is none.
    pub admin: Option<Secret>,
    /// Longest wait for an answer.
    pub patience: Duration,
    /// Wait before the second attempt to end an instance.
    pub back_off: Duration,
}

/// See the module.
pub struct Fleet {
    settings: Settings,
    clients: Result<Clients, String>,
    handles: Handles,
}

struct Clients {
    http: Client,
    /// The same for data, which takes as long as it takes.
    long: Client,
}

impl Fleet {
    /// Nothing is asked yet. Where there can be no client, every call says so.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let client = |patience: Option<Duration>| {
            let builder = ligand_api::http::builder().map_err(|cause| cause.to_string())?;
            let builder = builder.no_proxy().connect_timeout(CONNECT);
            let builder = match patience {
                Some(patience) => builder.timeout(patience),
                None => builder,
            };
            builder.build().map_err(|cause| cause.to_string())
        };
        let http = client(Some(settings.patience));
        let clients = http.and_then(|http| Ok(Clients { http, long: client(None)? }));
        Self { settings, clients, handles: Handles::default() }
    }

    fn clients(&self) -> Result<&Clients, BackendError> {
        let broken = |cause: &String| {
            BackendError::broken(format!("no client for the control plane: {cause}"))
        };
        self.clients.as_ref().map_err(broken)
    }

    fn http(&self) -> Result<&Client, BackendError> {
        self.clients().map(|clients| &clients.http)
    }

    fn workspace(&self, workspace: WorkspaceId, rest: &str) -> String {
        format!("{}/cp/workspaces/{workspace}{rest}", self.settings.url)
    }

    /// What it said of an instance is kept, by its key. Gives how it is started.
    fn note(&self, key: Key, told: &Told, chosen: Option<&str>) -> Started {
        let ours = self.settings.provider.as_deref();
        let handle = handle(told.instance(), chosen.filter(|chosen| Some(*chosen) != ours));
        self.handles.note(key, &handle, told.host());
        // A foreign one may say where it has its record of the instance, which is not where an agent answers.
        let address = told.url.clone().filter(|url| told.generation.is_some() && !url.is_empty());
        Started { handle, address }
    }

    async fn provision(&self, spec: Spec) -> Result<Started, BackendError> {
        let key = spec.key;
        let (env, chosen) = (spec.env.clone(), spec.provider.clone());
        let body = wire::provision(&self.settings, spec)?;
        let url = format!("{}/cp/workspaces/provision", self.settings.url);
        let request = self.as_platform(self.http()?.post(url)).json(&body);
        let scrubbed = |error: BackendError| BackendError {
            what: wire::scrub(error.what, env.values().map(String::as_str)),
            ..error
        };
        let (status, answer) = calls::read(Call::Provision, request).await?;
        if status != StatusCode::CREATED {
            return Err(scrubbed(calls::refused(Call::Provision, status, &answer)));
        }
        let told: Told = calls::parse(Call::Provision, &answer)?;
        if told.instance().is_empty() {
            let what = "control plane: provision: the answer names no instance_id";
            return Err(BackendError {
                kind: ErrorKind::Transient,
                what: what.to_owned(),
                source: None,
            });
        }
        let told = self.arrived(key, told).await;
        Ok(self.note(key, &told, chosen.as_deref()))
    }

    /// A fleet of ours answers before an instance is there, and says where it is when it knows. Waited for as long as
    /// for any answer; what is not there by then is on its way.
    async fn arrived(&self, key: Key, mut told: Told) -> Told {
        let handle = handles::Handle { instance: told.instance().to_owned(), provider: None };
        let mut waited = Duration::ZERO;
        while told.is_on_its_way() && waited < self.settings.patience {
            waited += pause(waited).await;
            match self.ask(key, &handle).await {
                Ok(newer) if newer.state.is_some() => {
                    told = Told { instance_id: told.instance_id, ..newer };
                }
                Ok(_) | Err(_) => {}
            }
        }
        told
    }

    /// Instances of one generation, as far as it keeps such a list.
    async fn of_generation(&self, key: Key) -> Result<Option<Told>, BackendError> {
        let path = format!("/instances?generation={}", key.generation);
        let request = self.as_platform(self.http()?.get(self.workspace(key.workspace, &path)));
        let (status, answer) = calls::read(Call::Find, request).await?;
        if !status.is_success() {
            return Err(calls::refused(Call::Find, status, &answer));
        }
        let list: Inventory = calls::parse(Call::Find, &answer)?;
        let of =
            |told: &Told| told.generation == Some(key.generation.number()) && self.is_ours(told);
        Ok(list.instances.into_iter().find(|told| of(told) && !told.is_gone()))
    }

    /// Whether it is on the provider that this backend stands for.
    fn is_ours(&self, told: &Told) -> bool {
        match (&self.settings.provider, told.provider.as_deref()) {
            (Some(ours), Some(its)) if !its.is_empty() => ours == its,
            _ => true,
        }
    }

    async fn status(&self, key: Key) -> Result<Seen, BackendError> {
        let Some(handle) = self.handles.of(key) else { return Ok(Seen::Gone) };
        self.ask(key, &handle).await?.seen()
    }

    async fn ask(&self, key: Key, handle: &handles::Handle) -> Result<Told, BackendError> {
        let request = self.http()?.get(self.workspace(key.workspace, "/status"));
        let request = self.as_platform(request.query(&self.naming(handle)));
        let (status, answer) = calls::read(Call::Status, request).await?;
        if !status.is_success() {
            return Err(calls::refused(Call::Status, status, &answer));
        }
        calls::parse(Call::Status, &answer)
    }

    /// Its instance and its provider, as parameters of a call.
    fn naming(&self, handle: &handles::Handle) -> Vec<(&'static str, String)> {
        let mut named = vec![("instance_id", handle.instance.clone())];
        let provider = handle.provider.as_ref().or(self.settings.provider.as_ref());
        named.extend(provider.map(|provider| ("provider", provider.clone())));
        named
    }

    /// End an instance for good. Tried a few times: what is not ended here costs somebody money.
    #[expect(clippy::disallowed_methods, reason = "a backend has no clock of the server's")]
    async fn terminate(&self, key: Key, prune: bool) -> Result<(), BackendError> {
        let Some(handle) = self.handles.of(key) else { return Ok(()) };
        if self.handles.is_ended(key) && !prune {
            return Ok(());
        }
        let (mut attempt, mut wait, mut waited) = (1, self.settings.back_off, Duration::ZERO);
        loop {
            let request = self.http()?.delete(self.workspace(key.workspace, ""));
            let mut naming = self.naming(&handle);
            naming.extend(prune.then(|| ("prune", "true".to_owned())));
            let asked = calls::read(Call::Stop, self.as_platform(request.query(&naming))).await;
            let failed = match asked {
                Ok((status, answer)) if wire::is_under_way(status, &answer) => {
                    if waited < self.settings.patience {
                        waited += pause(waited).await;
                        continue;
                    }
                    calls::refused(Call::Stop, status, &answer)
                }
                Ok((status, _)) if status.is_success() => {
                    self.handles.end(key);
                    return Ok(());
                }
                Ok((status, answer)) => calls::refused(Call::Stop, status, &answer),
                Err(failed) => failed,
            };
            if attempt == ATTEMPTS {
                return Err(failed);
            }
            (attempt, wait) = (attempt + 1, wait * 2);
            tokio::time::sleep(wait / 2).await;
        }
    }

    /// A stop that leaves the instance's record, where there is such a thing; else its end.
    async fn halt(&self, key: Key) -> Result<(), BackendError> {
        let Some(handle) = self.handles.of(key).filter(|_| !self.handles.is_ended(key)) else {
            return Ok(());
        };
        let mut waited = Duration::ZERO;
        loop {
            let request = self.http()?.post(self.workspace(key.workspace, "/stop"));
            let request = self.as_platform(request.query(&self.naming(&handle)));
            let (status, answer) = calls::read(Call::Halt, request).await?;
            if calls::is_foreign(status) {
                return self.terminate(key, false).await;
            }
            let under_way = wire::is_under_way(status, &answer);
            if status.is_success() && !under_way {
                return Ok(());
            }
            if !under_way || waited >= self.settings.patience {
                return Err(calls::refused(Call::Halt, status, &answer));
            }
            waited += pause(waited).await;
        }
    }

    async fn inventory(&self) -> Result<Vec<Key>, BackendError> {
        let url = format!("{}/cp/workspaces", self.settings.url);
        let (status, answer) =
            calls::read(Call::List, self.as_platform(self.http()?.get(url))).await?;
        if calls::is_foreign(status) {
            // It cannot list, so nothing is missing from its list: whoever has rows asks about each.
            return Ok(Vec::new());
        }
        if !status.is_success() {
            return Err(calls::refused(Call::List, status, &answer));
        }
        let list: Inventory = calls::parse(Call::List, &answer)?;
        let ours = list.instances.iter().filter(|told| self.is_ours(told) && !told.is_gone());
        let keyed: Vec<(Key, &Told)> = ours.filter_map(|told| Some((told.key()?, told))).collect();
        for (key, told) in &keyed {
            self.note(*key, told, self.handles.provider(*key).as_deref());
        }
        Ok(keyed.into_iter().map(|(key, _)| key).collect())
    }
}

/// Wait before something that is under way is asked about again: ever longer, and never long. Gives how long it was.
#[expect(clippy::disallowed_methods, reason = "a backend has no clock of the server's")]
async fn pause(waited: Duration) -> Duration {
    let wait = (waited / 2).clamp(Duration::from_millis(100), Duration::from_secs(2));
    tokio::time::sleep(wait).await;
    wait
}

impl Backend for Fleet {
    fn kind(&self) -> &'static str {
        "fleet"
    }

    fn delivery(&self) -> Delivery {
        Delivery::StartData
    }

    fn known(&self, key: Key, handle: &str) {
        self.handles.known(key, handle);
    }

    fn host(&self, key: Key) -> Option<String> {
        self.handles.host(key)
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        let settings = &self.settings;
        let of = settings.provider.as_deref().unwrap_or("its default provider");
        let told = format!("asks {} for instances of {} on {of}", settings.url, settings.org);
        Box::pin(async move { Ok(told) })
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        Box::pin(self.provision(spec))
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            match self.of_generation(key).await {
                Ok(None) => Ok(None),
                Ok(Some(told)) => {
                    let told = self.arrived(key, told).await;
                    let chosen = self.handles.provider(key);
                    Ok(Some(self.note(key, &told, chosen.as_deref())))
                }
                Err(cause) if cause.kind == ErrorKind::Unsupported => {
                    let known = self.handles.of(key).filter(|_| !self.handles.is_ended(key));
                    Ok(known.map(|handle| Started { handle: handle.to_string(), address: None }))
                }
                Err(cause) => Err(cause),
            }
        })
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(self.status(key))
    }

    fn stop(&self, key: Key, _: Duration) -> Answer<'_, ()> {
        Box::pin(self.halt(key))
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(self.terminate(key, false))
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        Box::pin(async move {
            let erased = self.data(workspace, Method::DELETE).await;
            match (erased, self.handles.last(workspace)) {
                // Its data goes with its last instance, where that is still known.
                (Err(cause), Some(key)) if cause.kind == ErrorKind::Unsupported => {
                    self.terminate(key, true).await?;
                }
                (Err(cause), None) if cause.kind == ErrorKind::Unsupported => {}
                (erased, _) => drop(erased?),
            }
            self.handles.forget(workspace);
            Ok(())
        })
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(self.inventory())
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        Box::pin(self.log_of(workspace, lines))
    }

    fn console(&self, workspace: WorkspaceId) -> Answer<'_, String> {
        Box::pin(self.console_of(workspace))
    }

    fn recover(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(self.export_of(workspace))
    }

    fn import(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        Box::pin(self.import_into(workspace, archive, expected))
    }

    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        Box::pin(self.digest_of(workspace))
    }
}
