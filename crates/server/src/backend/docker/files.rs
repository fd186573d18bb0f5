//! A workspace's files, through the engine's archives. A container need not run for that; where a workspace has none,
//! one is made for the moment, which never runs.

use std::path::{Component, Path, PathBuf};

use bollard::query_parameters::{
    DownloadFromContainerOptions, StartContainerOptions, WaitContainerOptions,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_domain::id::WorkspaceId;

use super::Docker;
use super::engine::failed;
use super::holder::Volume;
use super::tar::{Entry, Kind, Reader, Writer};
use crate::backend::{BackendError, ErrorKind, Found, Place, Root};

/// A file that is read is no larger than this.
const LARGEST: u64 = 64 << 20;
/// Of what is written through the platform.
const MODE: u32 = 0o644;

const fn root(root: Root) -> &'static str {
    match root {
        Root::Configs => "/configs",
        Root::Workspace => "/workspace",
        Root::Home => "/home",
        Root::Plugins => "/plugins",
    }
}

fn absolute(at: &Place) -> PathBuf {
    Path::new(root(at.root)).join(&at.path)
}

/// A path that stays below its root.
fn checked(at: &Place) -> Result<(), BackendError> {
    if at.path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(());
    }
    Err(BackendError::broken(format!("{} leads out of its directory", at.path.display())))
}

impl Docker {
    pub(super) async fn files_below(
        &self,
        workspace: WorkspaceId,
        at: &Place,
        depth: u8,
    ) -> Result<Vec<Found>, BackendError> {
        let mut found = Vec::new();
        let mut is_dir = false;
        self.read(workspace, at, None, |entry, _| {
            // Every path begins with the name of what was asked for.
            let below: PathBuf = entry.path.components().skip(1).collect();
            let levels = below.components().count();
            if levels == 0 {
                is_dir = entry.kind == Kind::Dir;
            } else if levels <= usize::from(depth) && entry.kind != Kind::Other {
                let dir = entry.kind == Kind::Dir;
                found.push(Found { path: below, size: if dir { 0 } else { entry.size }, dir });
            }
        })
        .await?;
        if !is_dir {
            return Err(missing(at, "directory"));
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    pub(super) async fn file(
        &self,
        workspace: WorkspaceId,
        at: &Place,
    ) -> Result<Bytes, BackendError> {
        let mut found = None;
        self.read(workspace, at, Some(LARGEST), |entry, content| {
            if entry.kind == Kind::File && entry.path.components().count() == 1 {
                found = Some((entry.size, content));
            }
        })
        .await?;
        match found {
            Some((size, _)) if size > LARGEST => {
                let what =
                    format!("{} has {size} bytes, more than {LARGEST}", absolute(at).display());
                Err(BackendError::broken(what))
            }
            Some((_, content)) => Ok(content),
            None => Err(missing(at, "file")),
        }
    }

    pub(super) async fn put_file(
        &self,
        workspace: WorkspaceId,
        at: &Place,
        content: &[u8],
    ) -> Result<(), BackendError> {
        checked(at)?;
        let through = self.through_new(workspace).await?;
        let mut archive = Writer::new((0, 0));
        archive.file(&at.path, MODE, content);
        let put = self.put_archive(&through.name, root(at.root), archive.finish()).await;
        self.let_go(through).await;
        put
    }

    /// The engine can write and read, and not remove: a program of the image must.
    pub(super) async fn take_away(
        &self,
        workspace: WorkspaceId,
        at: &Place,
    ) -> Result<(), BackendError> {
        checked(at)?;
        if at.path.components().next().is_none() {
            return Err(BackendError::broken("a directory of a workspace cannot be taken away"));
        }
        let volumes = self.volumes_there(workspace).await?;
        if volumes.is_empty() {
            return Ok(());
        }
        self.remove_below(workspace, &volumes, [absolute(at).display().to_string()]).await
    }

    /// Take these paths away in the volumes.
    pub(super) async fn remove_below(
        &self,
        workspace: WorkspaceId,
        volumes: &[Volume],
        paths: impl IntoIterator<Item = String>,
    ) -> Result<(), BackendError> {
        let command = ["rm", "-rf", "--"].map(str::to_owned).into_iter().chain(paths).collect();
        let name = self.make_holder(workspace, volumes, command).await?;
        let removed = self.run_to_end(&name).await;
        self.engine().remove(&name).await?;
        removed
    }

    async fn run_to_end(&self, name: &str) -> Result<(), BackendError> {
        let client = self.engine().client()?;
        if let Err(cause) = client.start_container(name, None::<StartContainerOptions>).await {
            let absent = cause.to_string().contains("executable file not found");
            let mut error = failed("take away a file".to_owned(), &cause);
            if absent {
                error = BackendError::unsupported(
                    "the image has no `rm`: its files cannot be taken away",
                );
            }
            return Err(error);
        }
        let mut ends = Box::pin(client.wait_container(name, None::<WaitContainerOptions>));
        match ends.next().await {
            Some(Err(cause)) => Err(failed("take away a file".to_owned(), &cause)),
            _ => Ok(()),
        }
    }

    /// Read what is at a place, entry by entry.
    async fn read(
        &self,
        workspace: WorkspaceId,
        at: &Place,
        keep: Option<u64>,
        take: impl FnMut(Entry, Bytes),
    ) -> Result<(), BackendError> {
        checked(at)?;
        let through = self.through(workspace).await?.ok_or_else(|| missing(at, "workspace"))?;
        let read = self.unpack(&through.name, &absolute(at), keep, take).await;
        self.let_go(through).await;
        read
    }

    pub(super) async fn unpack(
        &self,
        name: &str,
        path: &Path,
        keep: Option<u64>,
        mut take: impl FnMut(Entry, Bytes),
    ) -> Result<(), BackendError> {
        let path = path.display().to_string();
        let what = || format!("read {path} of the container {name}");
        let options = DownloadFromContainerOptions { path: path.clone() };
        let mut parts =
            Box::pin(self.engine().client()?.download_from_container(name, Some(options)));
        let mut reader = Reader::default();
        while let Some(part) = parts.next().await {
            reader.feed(part.map_err(|cause| failed(what(), &cause))?);
            let malformed = |cause| BackendError::io(what(), std::io::Error::other(cause));
            while let Some((entry, content)) = reader.next(keep).map_err(malformed)? {
                take(entry, content);
            }
        }
        Ok(())
    }
}

fn missing(at: &Place, what: &str) -> BackendError {
    BackendError {
        kind: ErrorKind::Missing,
        what: format!("there is no {what} at {}", absolute(at).display()),
        source: None,
    }
}
