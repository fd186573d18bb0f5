//! A workspace's directories and its log, in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::backend::archive::{self, Item, Meta, Most, Packer};
use crate::backend::{BackendError, Bytestream, Carried, Found, Place, Root};

/// What a workspace has. Directories are there as long as something is in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    files: BTreeMap<(Root, PathBuf), Bytes>,
    log: Vec<u8>,
    followers: Vec<mpsc::UnboundedSender<Bytes>>,
}

/// Of files and of the directories that they are in.
const MODES: (u32, u32) = (0o644, 0o755);
const ROOTS: [(Root, &str); 4] = [
    (Root::Configs, "configs"),
    (Root::Workspace, "workspace"),
    (Root::Home, "home"),
    (Root::Plugins, "plugins"),
];

fn name(root: Root) -> &'static str {
    ROOTS.iter().find(|(it, _)| *it == root).map_or("", |(_, name)| name)
}

fn named(root: Root, path: &Path) -> PathBuf {
    Path::new(name(root)).join(path)
}

fn missing(at: &Place) -> BackendError {
    BackendError::missing(format!("there is no /{}/{}", name(at.root), at.path.display()))
}

fn broken(cause: io::Error) -> BackendError {
    BackendError::broken(format!("this is no archive: {cause}"))
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

    /// What travels, by its name in archives.
    fn data(&self) -> BTreeMap<PathBuf, &Bytes> {
        let named = self.files.iter().map(|((root, path), content)| (named(*root, path), content));
        named.filter(|(path, _)| archive::carried(path)).collect()
    }

    /// What lies here, without credentials, the same for the same content.
    pub(super) fn archive(&self) -> Result<Bytes, BackendError> {
        let data = self.data();
        let mut entries: BTreeMap<&Path, Option<&Bytes>> = BTreeMap::new();
        for (path, content) in &data {
            let above =
                path.ancestors().skip(1).filter(|above| above.components().nth(1).is_some());
            entries.extend(above.map(|above| (above, None)));
            entries.insert(path, Some(*content));
        }
        let mut packer = Packer::new(Vec::new());
        for (path, content) in entries {
            let mode = if content.is_some() { MODES.0 } else { MODES.1 };
            let meta = Meta { mode, changed: 0, owner: (0, 0) };
            let mut rest = content.map_or(&[][..], |content| content);
            let item = match content {
                Some(content) => Item::File { size: content.len() as u64, content: &mut rest },
                None => Item::Dir,
            };
            packer.put(path, meta, item).map_err(broken)?;
        }
        packer.finish().map(Bytes::from).map_err(broken)
    }

    pub(super) fn carried(&self) -> Result<Carried, BackendError> {
        archive::digest_of_archive(&self.archive()?[..], Most::default()).map_err(broken)
    }

    /// The files that an archive holds, and the digest over all of it. Modes, links and empty directories are lost here.
    pub(super) fn of(archive: &[u8]) -> Result<(Self, Carried), BackendError> {
        let mut tree = Self::default();
        let carried = archive::each(archive, Most::default(), |path, _, item| {
            if let Item::File { content, .. } = item {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                let root = ROOTS.iter().find(|(_, name)| path.starts_with(name));
                if let Some((root, name)) = root {
                    let below = path.strip_prefix(name).unwrap_or(path).to_owned();
                    tree.files.insert((*root, below), Bytes::from(bytes));
                }
            }
            Ok(())
        });
        carried.map(|carried| (tree, carried)).map_err(broken)
    }

    /// Put other data in place of what is here. What does not travel stays, and so do the log and its readers.
    pub(super) fn become_data_of(&mut self, other: Self) {
        self.files.retain(|(root, path), _| !archive::carried(&named(*root, path)));
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
