//! A backend that another program is: asked over HTTP, at an address that its operator names.
//!
//! `docs/provider.md` is the protocol. Here is who calls; [`serve`] is the other side, over any backend. A provider is
//! believed what it says of its instances and nothing else: answers are bounded, redirects are not followed,
//! and what it says in a failure is shown without what it was sent.

mod call;
mod listen;
pub mod serve;
mod terminal;
mod wire;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use reqwest::{Body, Method, RequestBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::call::Address;
use self::call::{Caller, LONG, PROMPT, transient};
use self::wire::{
    About, Amount, Confirmed, Instances, Listed, Observed, Sought, Start, Stop, VERSION, Workspaces,
};
use super::{
    Answer, Backend, BackendError, Bytestream, Capability, Carried, Delivery, ErrorKind, Found,
    Key, Place, Pushes, Root, Spec, Started, Terminal,
};

/// How long a start waits for its provider's events to be heard.
const HEARD: Duration = Duration::from_secs(3);
/// Longest wait for data on its way.
const TRANSFER: Duration = Duration::from_secs(3600);

/// See the module.
pub struct Provider {
    line: Arc<Line>,
    pushes: Pushes,
    listener: Mutex<Option<JoinHandle<()>>>,
    heard: watch::Sender<bool>,
}

/// What is known of a provider, and the way there.
struct Line {
    caller: Caller,
    about: RwLock<Option<Arc<About>>>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        listener.inspect(JoinHandle::abort);
    }
}

impl Provider {
    /// The provider at this address. Nothing is asked yet.
    ///
    /// # Errors
    /// Where no HTTP client can be had.
    pub fn new(at: Address, pushes: Pushes) -> Result<Self, BackendError> {
        let line = Arc::new(Line { caller: Caller::new(at)?, about: RwLock::new(None) });
        Ok(Self { line, pushes, listener: Mutex::new(None), heard: watch::Sender::new(false) })
    }

    /// What the provider answers to somebody without a token, and where there is nothing: two statuses.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn door(&self) -> Result<(u16, u16), BackendError> {
        let stranger = self.line.caller.stranger(&["instances"]).await?;
        let nowhere = self.call(Method::GET, &["there", "is", "no", "such", "thing"]);
        let nowhere = match self.line.caller.done("call what is not there", nowhere).await {
            Ok(()) => 200,
            Err(cause) if cause.kind == ErrorKind::Unsupported => 501,
            Err(cause) => return Err(cause),
        };
        Ok((stranger, nowhere))
    }

    fn call(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.line.caller.request(method, path, Some(PROMPT))
    }

    fn of(
        &self,
        method: Method,
        workspace: WorkspaceId,
        what: &str,
        limit: Duration,
    ) -> RequestBuilder {
        let id = workspace.to_string();
        let path: &[&str] =
            if what.is_empty() { &["workspaces", &id] } else { &["workspaces", &id, what] };
        self.line.caller.request(method, path, Some(limit))
    }

    fn instance(&self, method: Method, key: Key, what: &str, limit: Duration) -> RequestBuilder {
        let (id, number) = (key.workspace.to_string(), key.generation.to_string());
        let mut path = vec!["instances", &id, &number];
        path.extend(Some(what).filter(|what| !what.is_empty()));
        self.line.caller.request(method, &path, Some(limit))
    }

    fn file(
        &self,
        method: Method,
        workspace: WorkspaceId,
        at: &Place,
    ) -> Result<RequestBuilder, BackendError> {
        Ok(self.of(method, workspace, "file", LONG).query(&placed(at)?))
    }

    /// Hear what ends from now on, if it says so by itself. Not being heard costs time, never truth.
    async fn listen(&self) -> Result<(), BackendError> {
        if !self.line.known().await?.can(Capability::Events) {
            return Ok(());
        }
        {
            let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
            if listener.as_ref().is_none_or(JoinHandle::is_finished) {
                let body =
                    listen::follow(self.line.clone(), self.pushes.clone(), self.heard.clone());
                *listener = Some(start(body));
            }
        }
        let mut heard = self.heard.subscribe();
        let _ = tokio::time::timeout(HEARD, heard.wait_for(|heard| *heard)).await;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with its backend")]
fn start(body: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(body)
}

/// A place as a query. A name that is no text cannot be asked for.
fn placed(at: &Place) -> Result<[(&'static str, String); 2], BackendError> {
    let path = at.path.to_str().ok_or_else(|| BackendError::broken("a path that is no text"))?;
    Ok([("root", root(at.root).to_owned()), ("path", path.to_owned())])
}

fn root(root: Root) -> &'static str {
    root.as_str().trim_start_matches('/')
}

/// An answer as it comes. One that breaks off ends in failure.
fn stream(answer: reqwest::Response) -> Bytestream {
    let broken = |_| std::io::Error::other("the provider's answer broke off");
    answer.bytes_stream().map(move |part| part.map_err(broken)).boxed()
}

impl Line {
    /// What the provider says of itself, asked anew.
    async fn ask(&self) -> Result<Arc<About>, BackendError> {
        let what = "ask the provider what it is";
        let request = self.caller.request(Method::GET, &[], Some(PROMPT));
        let about: About = self.caller.json(what, request, &[]).await?;
        if about.protocol != VERSION {
            let spoken = about.protocol;
            return Err(BackendError::broken(format!(
                "{what}: it speaks version {spoken} of the protocol, expected {VERSION}"
            )));
        }
        let about = Arc::new(about);
        *self.about.write().unwrap_or_else(PoisonError::into_inner) = Some(about.clone());
        Ok(about)
    }

    fn said(&self) -> Option<Arc<About>> {
        self.about.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, asked at most once.
    async fn known(&self) -> Result<Arc<About>, BackendError> {
        match self.said() {
            Some(about) => Ok(about),
            None => self.ask().await,
        }
    }

    async fn recover(&self) -> Result<(), BackendError> {
        let request = self.caller.request(Method::POST, &["recover"], Some(LONG));
        self.caller.done("recover", request).await
    }
}

impl Backend for Provider {
    fn kind(&self) -> &'static str {
        "provider"
    }

    /// Until it has said: what is right in either case.
    fn delivery(&self) -> Delivery {
        self.line.said().map_or(Delivery::StartData, |about| about.delivery())
    }

    fn can(&self, what: Capability) -> bool {
        self.line.said().is_none_or(|about| about.can(what))
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        Box::pin(async {
            let about = self.line.ask().await?;
            let visible = |text: &str| -> String {
                text.chars().filter(|c| !c.is_control()).take(300).collect()
            };
            Ok(format!("provider of the kind {}: {}", visible(&about.kind), visible(&about.says)))
        })
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        Box::pin(async move {
            self.listen().await?;
            let what =
                format!("start generation {} of {}", spec.key.generation, spec.key.workspace);
            if spec.credential.is_some() && self.delivery() == Delivery::StartData {
                return Err(transient(format!(
                    "{what}: the provider delivers no files, which was not known when this was planned"
                )));
            }
            let mut secrets: Vec<String> = spec.env.values().cloned().collect();
            secrets.extend(spec.credential.as_ref().map(|token| token.reveal().to_owned()));
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let request = self.line.caller.request(Method::POST, &["instances"], Some(LONG));
            let request = request.json(&Start::from(spec));
            let confirmed: Confirmed = self.line.caller.json(&what, request, &secrets).await?;
            Ok(confirmed.into())
        })
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        Box::pin(async move {
            let request = self.instance(Method::GET, key, "", PROMPT);
            let sought: Sought = self.line.caller.json("find an instance", request, &[]).await?;
            Ok(sought.instance.map(Into::into))
        })
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        Box::pin(async move {
            let request = self.instance(Method::GET, key, "state", PROMPT);
            let seen: Observed = self.line.caller.json("inspect an instance", request, &[]).await?;
            Ok(seen.into())
        })
    }

    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            let request = self.instance(Method::POST, key, "stop", grace.saturating_add(LONG));
            self.line.caller.done("stop an instance", request.json(&Stop { grace_ms })).await
        })
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(async move {
            let request = self.instance(Method::DELETE, key, "", LONG);
            self.line.caller.done("destroy an instance", request).await
        })
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        Box::pin(async move {
            let request = self.of(Method::DELETE, workspace, "", LONG);
            self.line.caller.done("erase data", request).await
        })
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(async {
            let request = self.call(Method::GET, &["instances"]);
            let all: Instances = self.line.caller.json("list instances", request, &[]).await?;
            Ok(all.instances.into_iter().map(Into::into).collect())
        })
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        Box::pin(async move {
            let request = self.of(Method::GET, workspace, "logs", PROMPT);
            self.line.caller.bytes("read a log", request.query(&[("lines", lines)])).await
        })
    }

    fn recover(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.line.ask().await?;
            self.listen().await?;
            self.line.recover().await
        })
    }

    fn list_data(&self) -> Answer<'_, Vec<WorkspaceId>> {
        Box::pin(async {
            let request = self.call(Method::GET, &["workspaces"]);
            let all: Workspaces = self.line.caller.json("list data", request, &[]).await?;
            Ok(all.workspaces)
        })
    }

    fn follow(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(async move {
            let (id, query) = (workspace.to_string(), [("follow", "true")]);
            let path = ["workspaces", id.as_str(), "logs"];
            let request = self.line.caller.request(Method::GET, &path, None).query(&query);
            Ok(stream(self.line.caller.answer("follow a log", request, &[]).await?))
        })
    }

    fn export(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        Box::pin(async move {
            let request = self.of(Method::GET, workspace, "data", TRANSFER);
            Ok(stream(self.line.caller.answer("export data", request, &[]).await?))
        })
    }

    fn import(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Answer<'_, Carried> {
        Box::pin(async move {
            let query: Vec<(&str, String)> =
                expected.into_iter().map(|digest| ("digest", digest)).collect();
            let request = self.of(Method::PUT, workspace, "data", TRANSFER).query(&query);
            let request = request.body(Body::wrap_stream(archive));
            let came: Amount = self.line.caller.json("import data", request, &[]).await?;
            Ok(came.into())
        })
    }

    fn digest(&self, workspace: WorkspaceId) -> Answer<'_, Carried> {
        Box::pin(async move {
            let request = self.of(Method::GET, workspace, "digest", TRANSFER);
            let amount: Amount = self.line.caller.json("digest data", request, &[]).await?;
            Ok(amount.into())
        })
    }

    fn list_files(&self, workspace: WorkspaceId, at: Place, depth: u8) -> Answer<'_, Vec<Found>> {
        Box::pin(async move {
            let request = self.of(Method::GET, workspace, "files", LONG).query(&placed(&at)?);
            let request = request.query(&[("depth", depth)]);
            let listed: Listed = self.line.caller.json("list files", request, &[]).await?;
            let found: Vec<Found> = listed.files.into_iter().map(Into::into).collect();
            match found.iter().all(|it| serve::sound(&it.path)) {
                true => Ok(found),
                false => Err(BackendError::broken(
                    "list files: the provider names a path that leads elsewhere",
                )),
            }
        })
    }

    fn read_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, Bytes> {
        Box::pin(async move {
            let request = self.file(Method::GET, workspace, &at)?;
            self.line.caller.bytes("read a file", request).await
        })
    }

    fn write_file(&self, workspace: WorkspaceId, at: Place, content: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            let request = self.file(Method::PUT, workspace, &at)?.body(content);
            self.line.caller.done("write a file", request).await
        })
    }

    fn remove_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, ()> {
        Box::pin(async move {
            let request = self.file(Method::DELETE, workspace, &at)?;
            self.line.caller.done("remove a file", request).await
        })
    }

    fn terminal(&self, key: Key, size: (u16, u16)) -> Answer<'_, Terminal> {
        Box::pin(terminal::open(&self.line, key, size))
    }
}

#[cfg(test)]
mod tests;
