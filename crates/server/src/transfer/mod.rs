//! A workspace's data on its way from one backend to another, through a store of objects that both ends may reach.
//!
//! A snapshot is a manifest and chunks of at most 4 MiB, named by what they hold. A copy reads an export once and sends
//! what the store has not: a second one, after the source has stopped, sends what changed meanwhile and no more. A
//! file's content is cut into pieces of 4 MiB, so that what grows at its end sends its last piece; many small files
//! share a chunk. The manifest is written last: a copy that ended half-way leaves chunks alone, which the next one
//! finds, and [`forget`] takes away.
//!
//! ```text
//! migrations/ID/manifest          what the snapshot holds, and where each piece of it lies
//! migrations/ID/chunks/SHA-256    content
//! migrations/ID/ahead             the manifest of what was put at the target ahead of time
//! ```
//!
//! A copy holds some 36 MiB at a time, a restore some 60 MiB, and either about 300 bytes for each entry of the data. No
//! file that proves who an instance is comes here: exports leave those out. What is stored is as confidential as
//! the data itself, and encrypted by nobody but the store. Dropping any of these futures leaves nothing broken.
//!
//! Not here: which data goes where, and when; see migrations.

mod delta;
mod manifest;
mod pack;
mod place;
mod s3;
mod unpack;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use tokio::sync::{OnceCell, mpsc};
use uuid::Uuid;

use self::pack::{Packing, Told};
pub use self::place::{Bucket, Place, Store};
use self::unpack::How;
use crate::app::App;
use crate::backend::{Backend, BackendError, Bytestream, Carried, ErrorKind, archive};

/// Objects that are sent, or fetched, at the same time.
const AT_ONCE: usize = 4;

/// Why data did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// What can be done. [`ErrorKind::Broken`]: it fails in the same way again.
    pub kind: ErrorKind,
    /// What was being done, and what hindered it.
    pub what: String,
}

impl Error {
    fn transient(what: String) -> Self {
        Self { kind: ErrorKind::Transient, what }
    }

    fn broken(what: String) -> Self {
        Self { kind: ErrorKind::Broken, what }
    }
}

impl From<BackendError> for Error {
    fn from(cause: BackendError) -> Self {
        Self { kind: cause.kind, what: cause.chain() }
    }
}

/// The store of this server, opened when it is needed first.
#[derive(Default)]
pub struct Opened(OnceCell<Store>);

/// A copy that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The digest over the data, as backends compute it. Empty where the copy is not whole.
    pub digest: String,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes that the store did not have yet.
    pub sent: u64,
    /// Whether all of the data is in the store.
    pub whole: bool,
}

/// A snapshot that is kept, whole or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Of which migration.
    pub id: Uuid,
    /// When something of it was last written, by the clock of the store.
    pub written: Timestamp,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// How far it is: bytes of content that are done, and of how many; as many as are done, where that is not known.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Bring the snapshot of a migration up to what a workspace's data is now. Nothing may change it meanwhile.
///
/// # Errors
/// Of the backend, of the store; [`ErrorKind::Transient`] where the data could not be read whole.
pub async fn copy(
    app: &App,
    id: Uuid,
    backend: &dyn Backend,
    workspace: WorkspaceId,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let store = store(app).await?;
    let mut copying = Copying::begin(store, id, progress).await?;
    let read = copying.pass(backend.export(workspace).await?).await?;
    let carried = read.map_err(|cause| unread(workspace, &cause))?;
    copying.end(Some(carried)).await
}

/// The same while an instance goes on changing the data: what is sent now need not be sent later. Where the data
/// changes too fast to be read whole, twice, that is no error: as much is copied as could be.
///
/// # Errors
/// Of the backend, before it gives anything; of the store.
pub async fn copy_ahead(
    app: &App,
    id: Uuid,
    backend: &dyn Backend,
    workspace: WorkspaceId,
    progress: Progress<'_>,
) -> Result<Copied, Error> {
    let store = store(app).await?;
    let mut copying = Copying::begin(store, id, progress).await?;
    if let Ok(carried) = copying.pass(backend.export(workspace).await?).await? {
        return copying.end(Some(carried)).await;
    }
    let read = copying.pass(backend.export(workspace).await?).await?;
    if let Err(cause) = &read {
        let error = unread(workspace, cause);
        tracing::debug!(%error, "copied as far as possible; the rest comes when nothing changes it any more");
    }
    copying.end(read.ok()).await
}

/// Bring a snapshot to the backend where it is going to be restored, before it is complete: then only what changes yet
/// has to come. Where the backend cannot do that, or the snapshot is not whole, nothing is done; nothing that fails is
/// of consequence either.
pub async fn restore_ahead(
    app: &App,
    id: Uuid,
    backend: &dyn Backend,
    workspace: WorkspaceId,
    progress: Progress<'_>,
) {
    let brought = async {
        let store = store(app).await?;
        let Some(manifest) = store.manifest(id).await?.filter(|manifest| manifest.whole) else {
            return Ok(());
        };
        let to = (backend, workspace, How::Ahead);
        let came = unpack::into(store, id, manifest.clone(), to, progress).await?;
        if came.digest == manifest.carried.digest {
            store.put_ahead(id, &manifest).await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = brought.await {
        tracing::debug!(migration.id = %id, %error, "no data was put at the target ahead of time");
    }
}

/// Put a snapshot in place of what a backend holds of a workspace. With any other digest than `expected`, what was
/// there stays. An instance of the workspace that stands by at that backend stays as it is, and sees the new data.
///
/// # Errors
/// [`ErrorKind::Missing`] without a snapshot; [`ErrorKind::Broken`] where it is damaged, not whole, or has another
/// digest; those of the store and of the backend.
pub async fn restore(
    app: &App,
    id: Uuid,
    backend: &dyn Backend,
    workspace: WorkspaceId,
    expected: &str,
    progress: Progress<'_>,
) -> Result<Carried, Error> {
    let store = store(app).await?;
    let manifest = store.manifest(id).await?.ok_or_else(|| Error {
        kind: ErrorKind::Missing,
        what: format!("there is no snapshot of migration {id}"),
    })?;
    if !manifest.whole {
        return Err(Error::broken(format!("the snapshot of migration {id} is not whole")));
    }
    let found = &manifest.carried.digest;
    if found != expected {
        let what = format!(
            "the digest of the snapshot of migration {id} is {found}, expected was {expected}"
        );
        return Err(Error::broken(what));
    }
    let ahead = store.ahead(id).await.unwrap_or_default();
    if let Some(ahead) = ahead {
        let (changes, gone) = delta::delta(&ahead, &manifest);
        let to = (backend, workspace, How::Changes(gone));
        match unpack::into(store, id, changes, to, progress).await {
            Ok(carried) => return Ok(carried),
            // What lies there may be anything after a crash: its digest was looked at.
            Err(error) => {
                tracing::debug!(migration.id = %id, %error, "all of the data is put at the target anew");
            }
        }
    }
    unpack::into(store, id, manifest, (backend, workspace, How::All), progress).await
}

/// Take a migration's snapshot away. Nothing there is success.
///
/// # Errors
/// Of the store.
pub async fn forget(app: &App, id: Uuid) -> Result<(), Error> {
    store(app).await?.forget(id).await
}

/// Every snapshot that the store keeps, so that those of migrations which are long over can be forgotten. It looks at
/// every object: nothing for every minute.
///
/// # Errors
/// Of the store.
pub async fn list(app: &App) -> Result<Vec<Kept>, Error> {
    store(app).await?.list().await
}

async fn store(app: &App) -> Result<&Store, Error> {
    app.transfers().0.get_or_try_init(async || app.config.migrations.store.open()).await
}

fn unread(workspace: WorkspaceId, cause: &std::io::Error) -> Error {
    Error::transient(format!("the data of workspace {workspace} cannot be read whole: {cause}"))
}

/// A copy that is being made.
struct Copying<'a> {
    store: &'a Store,
    id: Uuid,
    progress: Progress<'a>,
    /// None while a pass has it.
    packing: Option<Packing>,
    /// Whether there is a manifest that says more than one that is not whole.
    has_manifest: bool,
    /// Bytes of content that the last one spoke of.
    about: u64,
    sent: u64,
}

impl<'a> Copying<'a> {
    async fn begin(store: &'a Store, id: Uuid, progress: Progress<'a>) -> Result<Self, Error> {
        let last = match store.manifest(id).await {
            // Then all is sent again, but for the chunks that come out the same.
            Err(cause) if cause.kind == ErrorKind::Broken => {
                tracing::warn!(error = %cause, "a snapshot is begun anew");
                None
            }
            last => last?,
        };
        let there = store.chunks(id).await?;
        let (has_manifest, about) =
            last.as_ref().map_or((false, 0), |last| (last.whole, last.carried.bytes));
        let packing = Some(Packing::new(last, there));
        Ok(Self { store, id, progress, packing, has_manifest, about, sent: 0 })
    }

    /// Read an export, and send what is not there yet. What it is if it could be read whole, else why not.
    async fn pass(&mut self, export: Bytestream) -> Result<Result<Carried, std::io::Error>, Error> {
        let Some(mut packing) = self.packing.take() else {
            return Err(Error::broken("an earlier pass was broken off".to_owned()));
        };
        let (sender, told) = mpsc::channel(1);
        let reading = archive::feed(export, move |source| {
            let read = packing.pass(source, &sender);
            Ok((packing, read))
        });
        let (read, sent) = tokio::join!(reading, self.send(told));
        self.sent += sent?;
        let (packing, read) = read.map_err(|cause| Error::transient(cause.to_string()))?;
        self.packing = Some(packing);
        Ok(read)
    }

    /// Send what is told, a few at a time.
    async fn send(&self, mut told: mpsc::Receiver<Told>) -> Result<u64, Error> {
        let (mut sent, mut sending) = (0, FuturesUnordered::new());
        loop {
            tokio::select! {
                biased;
                Some(done) = sending.next() => sent += done?,
                next = told.recv(), if sending.len() < AT_ONCE => match next {
                    Some(Told::Chunk(hash, content)) => {
                        sending.push(self.store.put_chunk(self.id, hash, content));
                    }
                    Some(Told::Read(bytes)) => (self.progress)(bytes, self.about.max(bytes)),
                    None => break,
                },
            }
        }
        while let Some(done) = sending.try_next().await? {
            sent += done;
        }
        Ok(sent)
    }

    /// Say what there is, now that all of it is.
    async fn end(mut self, carried: Option<Carried>) -> Result<Copied, Error> {
        let Some(packing) = self.packing.take() else {
            return Err(Error::broken("an earlier pass was broken off".to_owned()));
        };
        let whole = carried.is_some();
        let manifest = packing.manifest(carried);
        let Carried { digest, entries, bytes } = manifest.carried.clone();
        if whole || !self.has_manifest {
            self.store.put_manifest(self.id, &manifest).await?;
        }
        (self.progress)(bytes, bytes);
        Ok(Copied { digest, entries, bytes, sent: self.sent, whole })
    }
}
