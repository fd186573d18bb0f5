//! A workspace's directories and its log, in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::backend::{BackendError, Bytestream, Carried, Found, Place, Root};

/// Files of the platform that begin like this belong to an instance, not to the data.
const CREDENTIALS: &str = ".auth_token";

/// What a workspace has. Directories are there as long as something is in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    files: BTreeMap<(Root, PathBuf), Bytes>,
    log: Vec<u8>,
    followers: Vec<mpsc::UnboundedSender<Bytes>>,
}

/// An archive of this backend's own: it is read by no other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    form: String,
    files: Vec<(String, PathBuf, Vec<u8>)>,
}

const FORM: &str = "ligand-fake-1";
const ROOTS: [(Root, &str); 4] = [
    (Root::Configs, "configs"),
    (Root::Workspace, "workspace"),
    (Root::Home, "home"),
    (Root::Plugins, "plugins"),
];

fn name(root: Root) -> &'static str {
    ROOTS.iter().find(|(it, _)| *it == root).map_or("", |(_, name)| name)
}

fn travels(root: Root, path: &Path) -> bool {
    match root {
        Root::Workspace | Root::Home => true,
        Root::Configs => !path.to_string_lossy().starts_with(CREDENTIALS),
        Root::Plugins => false,
    }
}

fn missing(at: &Place) -> BackendError {
    BackendError::missing(format!("there is no /{}/{}", name(at.root), at.path.display()))
}

impl Tree {
    pub(super) fn put(&mut self, at: Place, content: Bytes) {
        self.files.insert((at.root, at.path), content);
    }

    pub(super) fn read(&self, at: &Place) -> Result<Bytes, BackendError> {
        let found = self.files.get(&(at.root, at.path.clone()));
        found.cloned().ok_or_else(|| missing(at))
    }

    pub(super) fn remove(&mut self, at: &Place) {
        self.files.retain(|(root, path), _| *root != at.root || !path.starts_with(&at.path));
    }

    pub(super) fn list(&self, at: &Place, depth: u8) -> Result<Vec<Found>, BackendError> {
        let mut found: BTreeMap<PathBuf, Found> = BTreeMap::new();
        let mut there = at.path.as_os_str().is_empty();
        for ((_, path), content) in self.files.iter().filter(|((root, _), _)| *root == at.root) {
            let Ok(below) = path.strip_prefix(&at.path) else { continue };
            there = true;
            let parts: Vec<_> = below.components().collect();
            for length in 1..=parts.len().min(usize::from(depth)) {
                let path: PathBuf = parts[..length].iter().collect();
                let dir = length < parts.len();
                let size = if dir { 0 } else { content.len() as u64 };
                found.insert(path.clone(), Found { path, size, dir });
            }
        }
        if there { Ok(found.into_values().collect()) } else { Err(missing(at)) }
    }

    /// What travels: neither credentials nor plugins do.
    fn data(&self) -> impl Iterator<Item = (&Root, &PathBuf, &Bytes)> {
        let data = self.files.iter().filter(|((root, path), _)| travels(*root, path));
        data.map(|((root, path), content)| (root, path, content))
    }

    /// What lies here, without credentials, the same for the same content.
    pub(super) fn archive(&self) -> Bytes {
        let files = self
            .data()
            .map(|(root, path, content)| (name(*root).to_owned(), path.clone(), content.to_vec()));
        let archive = Archive { form: FORM.to_owned(), files: files.collect() };
        Bytes::from(serde_json::to_vec(&archive).unwrap_or_default())
    }

    pub(super) fn carried(&self) -> Carried {
        let archive = self.archive();
        let sum = Sha256::digest(&archive);
        Carried {
            digest: sum.iter().map(|byte| format!("{byte:02x}")).collect(),
            entries: self.data().count() as u64,
            bytes: self.data().map(|(_, _, content)| content.len() as u64).sum(),
        }
    }

    /// What an archive holds.
    pub(super) fn of(archive: &[u8]) -> Result<Self, BackendError> {
        let broken = |why: String| BackendError::broken(format!("this is no archive: {why}"));
        let archive: Archive =
            serde_json::from_slice(archive).map_err(|cause| broken(cause.to_string()))?;
        if archive.form != FORM {
            return Err(broken(format!("its form is `{}`, expected `{FORM}`", archive.form)));
        }
        let mut tree = Self::default();
        for (named, path, content) in archive.files {
            let root = ROOTS.iter().find(|(_, name)| *name == named);
            let root = root.ok_or_else(|| broken(format!("there is no directory `{named}`")))?.0;
            tree.files.insert((root, path), Bytes::from(content));
        }
        Ok(tree)
    }

    /// Put other data in place of what is here. What does not travel stays, and so do the log and its readers.
    pub(super) fn become_data_of(&mut self, other: Self) {
        self.files.retain(|(root, path), _| !travels(*root, path));
        self.files.extend(other.files);
    }

    pub(super) fn say(&mut self, text: &str) {
        self.log.extend_from_slice(text.as_bytes());
        let said = Bytes::copy_from_slice(text.as_bytes());
        self.followers.retain(|follower| follower.send(said.clone()).is_ok());
    }

    pub(super) fn tail(&self, lines: usize) -> Bytes {
        let ends = self.log.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        let from = ends.map(|(at, _)| at + 1).skip(1).nth(lines.saturating_sub(1)).unwrap_or(0);
        Bytes::copy_from_slice(if lines == 0 { &[] } else { &self.log[from..] })
    }

    pub(super) fn follow(&mut self) -> Bytestream {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.followers.push(sender);
        let next = |mut receiver: mpsc::UnboundedReceiver<Bytes>| async move {
            receiver.recv().await.map(|said| (Ok(said), receiver))
        };
        Box::pin(futures_util::stream::unfold(receiver, next))
    }
}
