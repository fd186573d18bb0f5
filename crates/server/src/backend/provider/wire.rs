//! What crosses the wire between a server and a provider. `docs/provider.md` says it for whoever writes one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::{Exit, Seen};
use serde::{Deserialize, Serialize};

use crate::backend::{
    BackendError, Capability, Carried, Delivery, ErrorKind, Found, Key, Limits, Mount, Spec,
    Started,
};

/// The version of the protocol, and the header that names it in either direction.
pub(super) const VERSION: u32 = 1;
/// See [`VERSION`].
pub(super) const HEADER: &str = "ligand-provider";
/// Largest body that is not a stream, in bytes: a start with its files, a file, a list.
pub(super) const LARGEST: usize = 64 << 20;

/// `GET /v1`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) protocol: u32,
    pub(super) kind: String,
    pub(super) says: String,
    pub(super) delivery: String,
    #[serde(default)]
    pub(super) can: Vec<String>,
}

impl About {
    pub(super) fn can(&self, what: Capability) -> bool {
        self.can.iter().any(|named| named == what.as_str())
    }

    /// What is not said in so many words is start-up data: that is right wherever a file would be, too.
    pub(super) fn delivery(&self) -> Delivery {
        if self.delivery == "file" { Delivery::File } else { Delivery::StartData }
    }
}

pub(super) const fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::File => "file",
        Delivery::StartData => "start_data",
    }
}

/// Which instance.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) workspace: WorkspaceId,
    pub(super) generation: Generation,
}

impl From<Key> for Named {
    fn from(key: Key) -> Self {
        Self { workspace: key.workspace, generation: key.generation }
    }
}

impl From<Named> for Key {
    fn from(named: Named) -> Self {
        Self { workspace: named.workspace, generation: named.generation }
    }
}

/// `POST /v1/instances`. It holds secrets, and hence no `Debug`.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    workspace: WorkspaceId,
    generation: Generation,
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    credential: Option<String>,
    #[serde(default)]
    runtime: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    tier: i64,
    #[serde(default)]
    memory_mb: Option<u64>,
    #[serde(default)]
    cpu_shares: Option<u64>,
    #[serde(default)]
    mount: Option<Mounted>,
    #[serde(default)]
    fresh_session: bool,
}

/// A directory of the provider's machine.
#[derive(Serialize, Deserialize)]
struct Mounted {
    path: PathBuf,
    writable: bool,
}

impl From<Spec> for Start {
    fn from(spec: Spec) -> Self {
        let files = spec.files.into_iter().map(|(path, content)| (path, STANDARD.encode(content)));
        Self {
            workspace: spec.key.workspace,
            generation: spec.key.generation,
            command: spec.command,
            env: spec.env,
            credential: spec.credential.map(|token| token.reveal().to_owned()),
            runtime: spec.runtime,
            files: files.collect(),
            tier: spec.limits.tier,
            memory_mb: spec.limits.memory_mb,
            cpu_shares: spec.limits.cpu_shares,
            mount: spec.mount.map(|it| Mounted { path: it.path, writable: it.writable }),
            fresh_session: spec.fresh_session,
        }
    }
}

impl TryFrom<Start> for Spec {
    type Error = BackendError;

    fn try_from(start: Start) -> Result<Self, BackendError> {
        let credential = start.credential.as_deref().map(token).transpose()?;
        let mut files = BTreeMap::new();
        for (path, content) in start.files {
            let Ok(content) = STANDARD.decode(content) else {
                return Err(BackendError::broken(format!("files.{path}: expected base64")));
            };
            files.insert(path, Bytes::from(content));
        }
        Ok(Self {
            key: Key { workspace: start.workspace, generation: start.generation },
            command: start.command,
            env: start.env,
            credential,
            runtime: start.runtime,
            files,
            limits: Limits {
                tier: start.tier,
                memory_mb: start.memory_mb,
                cpu_shares: start.cpu_shares,
            },
            mount: start.mount.map(|it| Mount { path: it.path, writable: it.writable }),
            provider: None,
            fresh_session: start.fresh_session,
        })
    }
}

fn token(text: &str) -> Result<Token, BackendError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    let expected = || BackendError::broken("credential: expected 32 bytes as base64url");
    bytes.map(Token::from_entropy).ok_or_else(expected)
}

/// An instance that was confirmed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Confirmed {
    pub(super) handle: String,
    #[serde(default)]
    pub(super) address: Option<String>,
}

impl From<Started> for Confirmed {
    fn from(started: Started) -> Self {
        Self { handle: started.handle, address: started.address }
    }
}

impl From<Confirmed> for Started {
    fn from(confirmed: Confirmed) -> Self {
        Self { handle: confirmed.handle, address: confirmed.address }
    }
}

/// `GET /v1/instances/{workspace}/{generation}`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sought {
    pub(super) instance: Option<Confirmed>,
}

/// `GET /v1/instances/{workspace}/{generation}/state`
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Observed {
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<String>,
}

impl From<Seen> for Observed {
    fn from(seen: Seen) -> Self {
        let of = |state: &str| Self { state: state.to_owned(), ..Self::default() };
        match seen {
            Seen::Running => of("running"),
            Seen::Gone => of("gone"),
            Seen::Stopped(Exit { code, signal, said }) => {
                Self { code, signal, said, ..of("stopped") }
            }
            Seen::Unknown(why) => Self { said: Some(why), ..of("unknown") },
        }
    }
}

impl From<Observed> for Seen {
    /// A word that is not known is no evidence of anything.
    fn from(seen: Observed) -> Self {
        let Observed { state, code, signal, said } = seen;
        match state.as_str() {
            "running" => Self::Running,
            "gone" => Self::Gone,
            "stopped" => Self::Stopped(Exit { code, signal, said }),
            "unknown" => Self::Unknown(said.unwrap_or_else(|| "the provider cannot say".into())),
            _ => Self::Unknown("the provider names a state that is not known here".to_owned()),
        }
    }
}

/// `POST /v1/instances/{workspace}/{generation}/stop`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) grace_ms: u64,
}

/// `GET /v1/instances`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Instances {
    pub(super) instances: Vec<Named>,
}

/// `GET /v1/workspaces`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Workspaces {
    pub(super) workspaces: Vec<WorkspaceId>,
}

/// `GET /v1/workspaces/{workspace}/digest`, and the answer to an import.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Amount {
    digest: String,
    entries: u64,
    bytes: u64,
}

impl From<Carried> for Amount {
    fn from(it: Carried) -> Self {
        Self { digest: it.digest, entries: it.entries, bytes: it.bytes }
    }
}

impl From<Amount> for Carried {
    fn from(it: Amount) -> Self {
        Self { digest: it.digest, entries: it.entries, bytes: it.bytes }
    }
}

/// `GET /v1/workspaces/{workspace}/files`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) files: Vec<ListedFile>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListedFile {
    path: String,
    size: u64,
    dir: bool,
}

impl From<Found> for ListedFile {
    fn from(it: Found) -> Self {
        Self { path: it.path.to_string_lossy().into_owned(), size: it.size, dir: it.dir }
    }
}

impl From<ListedFile> for Found {
    fn from(it: ListedFile) -> Self {
        Self { path: PathBuf::from(it.path), size: it.size, dir: it.dir }
    }
}

/// A terminal's new size, as a text message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Size {
    pub(super) columns: u16,
    pub(super) rows: u16,
}

/// A failure.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) error: String,
    #[serde(default)]
    pub(super) kind: String,
}

pub(super) const fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Transient => "transient",
        ErrorKind::Broken => "broken",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Missing => "missing",
    }
}

/// From its name, or else from the status that it came with.
pub(super) fn kind_of(named: &str, status: u16) -> ErrorKind {
    let all = [ErrorKind::Transient, ErrorKind::Broken, ErrorKind::Unsupported, ErrorKind::Missing];
    let named = all.into_iter().find(|it| kind(*it) == named);
    named.unwrap_or(match status {
        501 => ErrorKind::Unsupported,
        // Where nobody says so, a 404 may be that of something in between.
        408 | 425 | 429 | 500.. => ErrorKind::Transient,
        _ => ErrorKind::Broken,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_comes_as_it_went() {
        let key =
            Key { workspace: WorkspaceId::from_random([7; 16]), generation: Generation::new(3) };
        let mut spec = Spec::bare(key, vec!["a".to_owned()], Token::from_entropy([1; 32]));
        spec.files.insert("b/c".to_owned(), Bytes::from_static(b"\0\xff"));
        spec.mount = Some(Mount { path: "/d".into(), writable: true });
        spec.limits = Limits { tier: 2, memory_mb: Some(5), cpu_shares: None };
        let text = serde_json::to_string(&Start::from(spec)).unwrap();
        let came = Spec::try_from(serde_json::from_str::<Start>(&text).unwrap()).unwrap();
        assert_eq!((came.key, came.command.as_slice()), (key, &["a".to_owned()][..]));
        assert_eq!(came.credential, Some(Token::from_entropy([1; 32])));
        assert_eq!(came.files["b/c"], Bytes::from_static(b"\0\xff"));
        assert_eq!(came.limits, Limits { tier: 2, memory_mb: Some(5), cpu_shares: None });
        assert_eq!(came.mount, Some(Mount { path: "/d".into(), writable: true }));
        let bad = text.replace("\"credential\":\"", "\"credential\":\"!");
        let why = Spec::try_from(serde_json::from_str::<Start>(&bad).unwrap()).err().unwrap();
        assert_eq!(why.what, "credential: expected 32 bytes as base64url");
    }

    #[test]
    fn what_is_seen_comes_as_it_went_and_no_other_word_is_an_end() {
        let exit = Exit { code: None, signal: Some(9), said: Some("x".to_owned()) };
        for seen in [Seen::Running, Seen::Gone, Seen::Stopped(exit), Seen::Unknown("y".to_owned())]
        {
            let text = serde_json::to_string(&Observed::from(seen.clone())).unwrap();
            assert_eq!(Seen::from(serde_json::from_str::<Observed>(&text).unwrap()), seen);
        }
        let strange: Observed = serde_json::from_str(r#"{"state":"terminated"}"#).unwrap();
        assert!(matches!(Seen::from(strange), Seen::Unknown(_)));
    }

    #[test]
    fn a_404_of_something_in_between_is_not_a_missing_thing() {
        assert_eq!(kind_of("missing", 404), ErrorKind::Missing);
        assert_eq!(kind_of("", 404), ErrorKind::Broken);
        assert_eq!(kind_of("", 501), ErrorKind::Unsupported);
        assert_eq!(kind_of("", 429), ErrorKind::Transient);
        assert_eq!(kind_of("odd", 502), ErrorKind::Transient);
        assert_eq!(kind_of("", 302), ErrorKind::Broken);
    }
}
