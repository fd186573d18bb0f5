//! A workspace's data as a whole: out, in, and its digest, through the engine's archives of a container that never runs.
//!
//! An import fills volumes of its own, which no instance has ever seen. They are read back, and only when their digest
//! is the expected one they become the workspace's: an empty volume is created whose label says that this import is
//! whole, and creating a volume is one step. From then on every instance gets the new volumes, and the old ones go.
//!
//! ```text
//! ws-ID-workspace …       the data; the import counts whose number is highest among those that are whole
//! ws-ID-workspace-3 …     import 3, being filled: worth nothing
//! ws-ID-import            the container that fills it: who takes it away ends that import
//! ws-ID-whole-3           import 3 counts; all others are taken away
//! ```
//!
//! Where an instance runs with the volumes that count, as one that stands by does, those stay, and what was verified is
//! poured into them: `pour.rs`.
//!
//! A server that dies before the last step has changed nothing: the next import takes away what it left, and so does
//! `erase`. One that dies after it leaves volumes that nobody uses, which go in the same way. Two servers that import
//! at once: the later one takes the container away, as soon as the engine lets go of it, and the earlier one sees after
//! its last step that it is gone, and takes its step back. Volumes that a container of an ended instance still holds stay until the next
//! import, or `erase`.

use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{Volume as Found, VolumeCreateRequest};
use bollard::query_parameters::{
    DownloadFromContainerOptions, ListVolumesOptions, RemoveVolumeOptions, UploadToContainerOptions,
};
use futures_util::StreamExt as _;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::engine::{absent, failed};
use super::holder::{Through, Volume};
use super::{Docker, broken_stream, names};
use crate::backend::archive::{self, Incoming, Most, Passing, ROOTS};
use crate::backend::{BackendError, Bytestream, Carried, ErrorKind};

/// How long nothing may come, or be taken, before it is taken for broken off.
const PATIENCE: Duration = Duration::from_secs(180);
/// The longest that data may come in altogether.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// An archive ends in so many zeros; the engine's do even where it gave up, unless they do not.
const END: usize = 1024;

/// An import that goes on in this server; over when dropped.
pub(super) struct Importing<'a>(&'a Docker, WorkspaceId);

impl Drop for Importing<'_> {
    fn drop(&mut self) {
        self.0.0.importing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Docker {
    /// What the volumes say about a workspace's data.
    pub(super) async fn data_of(
        &self,
        workspace: WorkspaceId,
    ) -> Result<names::Data, BackendError> {
        Ok(judged(workspace, &self.volumes_found(workspace).await?))
    }

    async fn volumes_found(&self, workspace: WorkspaceId) -> Result<Vec<Found>, BackendError> {
        let filters = names::filters(&self.0.setup.owner, Some(workspace));
        let options = ListVolumesOptions { filters: Some(filters) };
        let what = || format!("list the volumes of workspace {workspace}");
        let found = self
            .engine()
            .ask(what, async |client| client.list_volumes(Some(options)).await)
            .await?;
        Ok(found.volumes.unwrap_or_default())
    }

    /// The volumes of a workspace that are there, and where they are mounted.
    pub(super) async fn volumes_there(
        &self,
        workspace: WorkspaceId,
    ) -> Result<Vec<Volume>, BackendError> {
        let found = self.volumes_found(workspace).await?;
        let import = judged(workspace, &found).import;
        let mut there = Vec::new();
        for (name, at) in names::volumes(workspace, import) {
            if found.iter().any(|volume| volume.name == name) || self.unclaimed(&name).await? {
                there.push((name, at));
            }
        }
        Ok(there)
    }

    /// Whether there is such a volume without a label of any platform: it is whose name it bears.
    async fn unclaimed(&self, name: &str) -> Result<bool, BackendError> {
        let what = || format!("look at the volume {name}");
        let found = self.engine().ask(what, async |client| client.inspect_volume(name).await).await;
        Ok(absent(found)?.is_some_and(|volume| !volume.labels.contains_key(names::OWNER)))
    }

    /// See that these volumes are there. Labels are given to those that are not.
    pub(super) async fn make_volumes(
        &self,
        workspace: WorkspaceId,
        volumes: &[Volume],
        label: Option<(&str, u64)>,
    ) -> Result<(), BackendError> {
        for (name, _) in volumes {
            let mut labels = names::labels(&self.0.setup.owner, workspace);
            labels.extend(label.map(|(label, number)| (label.to_owned(), number.to_string())));
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels),
                ..VolumeCreateRequest::default()
            };
            let what = || format!("create the volume {name}");
            // One that is there already is given as it is.
            let made =
                self.engine().ask(what, async |client| client.create_volume(request).await).await?;
            self.ours(name, &made.labels, workspace)?;
        }
        Ok(())
    }

    /// Take away a volume, unless it is somebody else's.
    pub(super) async fn remove_volume(
        &self,
        name: &str,
        workspace: WorkspaceId,
    ) -> Result<(), BackendError> {
        let what = || format!("remove the volume {name}");
        let found = self.engine().ask(what, async |client| client.inspect_volume(name).await).await;
        let Some(found) = absent(found)? else { return Ok(()) };
        self.ours(name, &found.labels, workspace)?;
        let options = RemoveVolumeOptions { force: false };
        let removed =
            self.engine().ask(what, async |client| client.remove_volume(name, Some(options)).await);
        absent(removed.await).map(drop)
    }

    /// Everything that a workspace has, what imports left half done included.
    pub(super) async fn erase_data(&self, workspace: WorkspaceId) -> Result<(), BackendError> {
        self.clear_holders(Some(workspace)).await?;
        let found = self.volumes_found(workspace).await?;
        let data = judged(workspace, &found);
        let current = names::volumes(workspace, data.import).into_iter().map(|(name, _)| name);
        let others = found.iter().map(|volume| volume.name.clone());
        // Its own first: an instance that is there has all of them, and then nothing is taken away.
        for name in current.chain(data.stale.iter().cloned()).chain(others) {
            self.remove_volume(&name, workspace).await?;
        }
        Ok(())
    }

    pub(super) async fn export_data(&self, of: WorkspaceId) -> Result<Bytestream, BackendError> {
        let (through, roots) = self.all_roots(of).await?;
        let (this, runtime) = (self.clone(), Handle::current());
        Ok(archive::stream(move |out| {
            let packed = pack(roots, out);
            runtime.block_on(this.let_go(through));
            packed.map(drop)
        }))
    }

    pub(super) async fn digest_data(&self, of: WorkspaceId) -> Result<Carried, BackendError> {
        let (through, roots) = self.all_roots(of).await?;
        let digested = digest(roots).await;
        self.let_go(through).await;
        digested.map_err(|cause| {
            BackendError::io(format!("cannot digest the data of workspace {of}"), cause)
        })
    }

    /// A container with the workspace's data, and the archives of it.
    async fn all_roots(&self, of: WorkspaceId) -> Result<(Through, Vec<Root>), BackendError> {
        let volumes = self.volumes_there(of).await?;
        if volumes.is_empty() {
            return Err(BackendError::missing(format!("there is no data of workspace {of}")));
        }
        let name = self.make_holder(of, &volumes, vec!["never-run".to_owned()]).await?;
        let through = Through { name, ours: true };
        match self.roots(&through.name, &volumes) {
            Ok(roots) => Ok((through, roots)),
            Err(cause) => {
                self.let_go(through).await;
                Err(cause)
            }
        }
    }

    /// The engine's archives of these volumes, as far as they are roots of the data. Each is asked for when it is read.
    pub(super) fn roots(
        &self,
        container: &str,
        volumes: &[Volume],
    ) -> Result<Vec<Root>, BackendError> {
        let client = self.engine().client()?;
        let there = |root: &&str| volumes.iter().any(|(_, at)| at.strip_prefix('/') == Some(root));
        let roots = ROOTS.into_iter().filter(there).map(|root| {
            let options = DownloadFromContainerOptions { path: format!("/{root}") };
            // The client is no part of what it gives: it stays until the last byte.
            let (client, container) = (client.clone(), container.to_owned());
            let parts = client.download_from_container(&container, Some(options));
            let parts = parts.map(|part| part.map_err(broken_stream)).boxed();
            (root, Incoming::new(parts, PATIENCE))
        });
        Ok(roots.collect())
    }

    pub(super) async fn import_data(
        &self,
        of: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Result<Carried, BackendError> {
        let (_importing, stays) = (self.importing(of)?, stays(of));
        let now = self.data_of(of).await?.import;
        let runs = self.runs_on(of, now, &stays).await?;
        let Room { importer, import, volumes, owner } = self.make_room(of).await?;
        let came = async {
            let came = self.fill(&importer, archive, owner).await.map_err(|mut cause| {
                cause.what = format!("{stays}: {}", cause.what);
                cause
            })?;
            self.compare(&importer, &volumes, &came, expected.as_deref(), &stays).await?;
            match runs {
                true => {
                    let to = (now, came.digest.as_str(), Vec::new());
                    self.pour(of, (&importer, &volumes), owner, to).await?;
                }
                false => self.count(of, import, &importer, &stays).await?,
            }
            Ok(came)
        };
        let came = came.await;
        self.engine().remove(&importer).await?;
        let old = match &came {
            Ok(_) if !runs => self.data_of(of).await?.stale,
            _ => volumes.into_iter().map(|(name, _)| name).collect(),
        };
        for name in old {
            if let Err(cause) = self.remove_volume(&name, of).await {
                tracing::debug!(error = cause.chain(), "a volume that nobody needs stays for now");
            }
        }
        came
    }

    /// Nobody else in this server imports there until this is dropped.
    pub(super) fn importing(&self, of: WorkspaceId) -> Result<Importing<'_>, BackendError> {
        let first = self.0.importing.lock().unwrap_or_else(PoisonError::into_inner).insert(of);
        first.then(|| Importing(self, of)).ok_or_else(|| busy(of))
    }

    /// Empty volumes for what is to come. Whoever else imports there has died, or is too late.
    pub(super) async fn make_room(&self, of: WorkspaceId) -> Result<Room, BackendError> {
        self.engine().remove(&names::importer(of)).await?;
        self.engine().remove(&names::pourer(of)).await?;
        let data = self.data_of(of).await?;
        for name in data.stale {
            // One that is in use is in nobody's way.
            let _ = self.remove_volume(&name, of).await;
        }
        let (import, volumes) = (data.next, names::roots(of, data.next));
        self.make_volumes(of, &volumes, Some((names::IMPORT, import))).await?;
        let image = self.any_image(of).await?;
        let importer = self.make_importer(&names::importer(of), of, &image, &volumes).await?;
        let importer = importer.ok_or_else(|| busy(of))?;
        let owner = self.owner_in(&image).await?;
        Ok(Room { importer, import, volumes, owner })
    }

    /// An instance that was started meanwhile would go on with what was there, and lose it.
    async fn nothing_runs(&self, of: WorkspaceId, stays: &str) -> Result<(), BackendError> {
        let found = self.engine().containers(&self.0.setup.owner, Some(of)).await?;
        for key in found.iter().filter_map(|one| names::key_of(one.labels.as_ref()?)) {
            if self.look(key).await? == Seen::Running {
                let generation = key.generation;
                let what = format!("{stays}: its instance of generation {generation} runs");
                return Err(BackendError { kind: ErrorKind::Transient, what, source: None });
            }
        }
        Ok(())
    }

    /// Unpack an archive in the importer. What belongs to nobody in particular is `owner`'s.
    pub(super) async fn fill(
        &self,
        importer: &str,
        archive: Bytestream,
        owner: (u32, u32),
    ) -> Result<Carried, BackendError> {
        let moved = Arc::new(AtomicU64::new(0));
        let (say, said) = oneshot::channel();
        let mut source = Incoming::new(archive, PATIENCE);
        let _while_asked = source.while_held();
        let body = archive::stream(move |out| {
            let mut passing =
                Passing::new(out, Most::default(), Some((owner.0.into(), owner.1.into())));
            let passed = passing.through(&mut source).and_then(|()| passing.finish());
            // Whether it was whole is said last.
            let passed = passed.and_then(|came| {
                io::copy(&mut source, &mut io::sink())?;
                Ok(came)
            });
            let told = passed
                .as_ref()
                .map(drop)
                .map_err(|cause| io::Error::new(cause.kind(), cause.to_string()));
            let _ = say.send(passed);
            told
        });
        let counting = Arc::clone(&moved);
        let body = body.inspect(move |_| {
            counting.fetch_add(1, Ordering::Relaxed);
        });
        let client = self.engine().client()?.with_timeout(LONGEST);
        let options = UploadToContainerOptions {
            path: "/".to_owned(),
            ..UploadToContainerOptions::default()
        };
        let put =
            client.upload_to_container(importer, Some(options), bollard::body_try_stream(body));
        let mut put = pin!(put);
        let put = loop {
            let before = moved.load(Ordering::Relaxed);
            match tokio::time::timeout(PATIENCE, &mut put).await {
                Ok(done) => break done,
                Err(_) if moved.load(Ordering::Relaxed) == before => {
                    break Err(Error::RequestTimeoutError);
                }
                Err(_) => {}
            }
        };
        let put = put.map_err(|cause| failed("unpack the archive".to_owned(), &cause));
        match said.await {
            Ok(Ok(came)) => put.map(|()| came),
            // Nobody reads any more: the engine has said why.
            Ok(Err(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => {
                Err(put.err().unwrap_or_else(|| BackendError::io("the engine gave up", cause)))
            }
            Ok(Err(cause)) => Err(BackendError::io("the archive cannot be read", cause)),
            Err(_) => Err(put.err().unwrap_or_else(|| BackendError::broken("nothing was read"))),
        }
    }

    /// What counts is what lies there.
    pub(super) async fn compare(
        &self,
        importer: &str,
        volumes: &[Volume],
        came: &Carried,
        expected: Option<&str>,
        stays: &str,
    ) -> Result<(), BackendError> {
        let wanted = expected.unwrap_or(&came.digest);
        let other = |what: &str, digest: &str| {
            let why = format!("{stays}: {what} digest is {digest}, expected was {wanted}");
            BackendError::broken(why)
        };
        if came.digest != wanted {
            return Err(other("the archive's", &came.digest));
        }
        let lies = digest(self.roots(importer, volumes)?).await;
        let lies = lies.map_err(|cause| BackendError::io(stays, cause))?;
        if lies.digest == wanted { Ok(()) } else { Err(other("what lies there", &lies.digest)) }
    }

    /// From here on the new data is what counts, unless somebody else imports there by now.
    async fn count(
        &self,
        of: WorkspaceId,
        import: u64,
        importer: &str,
        stays: &str,
    ) -> Result<(), BackendError> {
        self.nothing_runs(of, stays).await?;
        let mark = (names::whole(of, import), "");
        self.make_volumes(of, std::slice::from_ref(&mark), Some((names::WHOLE, import))).await?;
        if self.engine().container(importer).await?.is_some() {
            return Ok(());
        }
        self.remove_volume(&mark.0, of).await?;
        let what = format!("{stays}: another import has begun");
        Err(BackendError { kind: ErrorKind::Transient, what, source: None })
    }
}

fn judged(workspace: WorkspaceId, found: &[Found]) -> names::Data {
    let found: Vec<_> = found.iter().map(|volume| (volume.name.as_str(), &volume.labels)).collect();
    names::data(workspace, &found)
}

/// Where data comes in.
pub(super) struct Room {
    /// The container that has them.
    pub(super) importer: String,
    /// Which import it is.
    pub(super) import: u64,
    pub(super) volumes: [Volume; 4],
    /// Whose is what belongs to nobody in particular.
    pub(super) owner: (u32, u32),
}

pub(super) fn stays(of: WorkspaceId) -> String {
    format!("cannot import data of workspace {of}; what was there stays")
}

fn busy(of: WorkspaceId) -> BackendError {
    let what = format!("{}: data is being imported there", stays(of));
    BackendError { kind: ErrorKind::Transient, what, source: None }
}

/// A root of the data, and the engine's archive of it.
pub(super) type Root = (&'static str, Incoming);

/// Read the archives of roots, and write one.
pub(super) fn pack(roots: Vec<Root>, out: impl io::Write) -> io::Result<Carried> {
    pack_without(roots, Vec::new(), out)
}

/// The same, without these.
pub(super) fn pack_without(
    roots: Vec<Root>,
    gone: Vec<PathBuf>,
    out: impl io::Write,
) -> io::Result<Carried> {
    let mut passing = Passing::new(out, Most::default(), None).without(gone);
    for (root, archive) in roots {
        let mut whole = Whole { from: archive, zeros: 0 };
        passing.root(root)?;
        passing.through(&mut whole)?;
        whole.seen()?;
    }
    passing.finish()
}

async fn digest(roots: Vec<Root>) -> io::Result<Carried> {
    let digested = tokio::task::spawn_blocking(move || pack(roots, io::sink())).await;
    digested.map_err(io::Error::other)?
}

/// Sees whether an archive has an end: an engine that gives up in the middle closes it as if it were whole.
struct Whole<R> {
    from: R,
    zeros: usize,
}

impl<R: Read> Whole<R> {
    /// Read what is left of it.
    fn seen(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        if self.zeros < END {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the engine gave half an archive",
            ));
        }
        Ok(())
    }
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let ending = buffer[..read].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if ending == read { self.zeros + read } else { ending };
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_archive_is_seen_wherever_it_was_cut() {
        let mut tar = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        header.set_entry_type(::tar::EntryType::Regular);
        tar.append_data(&mut header, "workspace/a", &b"abc"[..]).unwrap();
        let archive = tar.into_inner().unwrap();
        let told = |length: usize| {
            let mut whole = Whole { from: &archive[..length], zeros: 0 };
            let mut passing = Passing::new(io::sink(), Most::default(), None);
            passing.through(&mut whole).and_then(|()| whole.seen())
        };
        assert!(told(archive.len()).is_ok());
        for length in [archive.len() - END, 514, 512, 100] {
            assert!(told(length).is_err(), "{length}");
        }
    }
}
