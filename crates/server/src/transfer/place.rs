//! Where snapshots lie: a folder, a bucket, or memory; and what is done to their objects.

use std::collections::{BTreeMap, HashSet};
use std::error::Error as _;
use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use ligand_domain::time::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use uuid::Uuid;

use super::manifest::{Hash, Manifest, hex, unhex};
use super::{Error, Kept, s3};
use crate::backend::ErrorKind;
use crate::config::Secret;

/// What all snapshots are below.
const ALL: &str = "migrations";
/// A manifest is no larger than this: as much is held in memory.
const LARGEST: u64 = 2 << 30;
/// Which manifest was put at the target ahead of time.
const AHEAD: &str = "ahead";
/// Characters of a store's own words that are passed on: some send pages.
const WORDS: usize = 500;

/// Where snapshots are kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder of this machine. It is made when it is needed first, for its owner alone.
    Folder(PathBuf),
    /// A bucket of S3, or of what speaks as S3 does.
    Bucket(Bucket),
    /// One that is handed over: what is only in memory.
    Given(Store),
}

/// A bucket, and how it is reached.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// `s3://BUCKET/PREFIX`.
    pub url: String,
    /// What the variables `AWS_…` say, by their names in lower case.
    pub said: BTreeMap<&'static str, Secret>,
}

impl Place {
    /// In memory: gone with its last copy.
    #[must_use]
    pub fn memory() -> Self {
        Self::Given(Store::of(Arc::new(InMemory::new())))
    }

    /// Nothing is asked of a bucket yet.
    ///
    /// # Errors
    /// A folder that cannot be made; settings of a bucket that make no sense.
    pub fn open(&self) -> Result<Store, Error> {
        match self {
            Self::Given(store) => Ok(store.clone()),
            Self::Folder(path) => {
                let failed = |cause: &dyn fmt::Display| {
                    let what = format!("cannot use the folder {} for snapshots", path.display());
                    Error::transient(format!("{what}: {cause}"))
                };
                let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
                made.map_err(|cause| failed(&cause))?;
                let objects = LocalFileSystem::new_with_prefix(path);
                let objects = objects.map_err(|cause| failed(&cause))?;
                let folder = Some(path.clone());
                Ok(Store { folder, ..Store::of(Arc::new(objects)) })
            }
            Self::Bucket(bucket) => s3::open(bucket),
        }
    }
}

/// An open store of snapshots.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// What is put in front of every name.
    below: Path,
    /// Where it is on this machine.
    folder: Option<PathBuf>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.objects)
    }
}

impl Store {
    /// Over these objects. Tests give some that misbehave.
    #[must_use]
    pub fn of(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, below: Path::default(), folder: None }
    }

    pub(super) fn below(self, below: Path) -> Self {
        Self { below, ..self }
    }

    fn all(&self) -> Path {
        self.below.clone().join(ALL)
    }

    fn snapshot(&self, id: Uuid) -> Path {
        self.all().join(id.to_string())
    }

    fn manifest_at(&self, id: Uuid) -> Path {
        self.snapshot(id).join("manifest")
    }

    fn chunks_at(&self, id: Uuid) -> Path {
        self.snapshot(id).join("chunks")
    }

    /// What the last copy said; one that is damaged is [`ErrorKind::Broken`].
    pub(super) async fn manifest(&self, id: Uuid) -> Result<Option<Manifest>, Error> {
        let at = self.manifest_at(id);
        let Some(bytes) = self.get(&at, LARGEST).await? else { return Ok(None) };
        let decoded = Manifest::decode(&bytes);
        let damaged = |why| Error::broken(format!("the manifest of migration {id}: {why}"));
        decoded.map(Some).map_err(damaged)
    }

    pub(super) async fn put_manifest(&self, id: Uuid, manifest: &Manifest) -> Result<(), Error> {
        self.put(&self.manifest_at(id), manifest.encode().into()).await
    }

    /// What was put at the target ahead of time, if anything was.
    pub(super) async fn ahead(&self, id: Uuid) -> Result<Option<Manifest>, Error> {
        let at = self.snapshot(id).join(AHEAD);
        let Some(bytes) = self.get(&at, LARGEST).await? else { return Ok(None) };
        // One that is damaged says nothing: then everything is put there.
        Ok(Manifest::decode(&bytes).ok())
    }

    pub(super) async fn put_ahead(&self, id: Uuid, manifest: &Manifest) -> Result<(), Error> {
        self.put(&self.snapshot(id).join(AHEAD), manifest.encode().into()).await
    }

    /// The chunks that are there.
    pub(super) async fn chunks(&self, id: Uuid) -> Result<HashSet<Hash>, Error> {
        let at = self.chunks_at(id);
        let found = self.objects.list(Some(&at)).map_ok(|found| found.location);
        let names = found.try_collect::<Vec<_>>().await;
        let names = names.map_err(|cause| failed("list the chunks at", &at, &cause))?;
        Ok(names.iter().filter_map(|name| unhex(name.filename()?)).collect())
    }

    /// A chunk that is there, whatever it holds.
    pub(super) async fn chunk(&self, id: Uuid, hash: Hash) -> Result<Bytes, Error> {
        let at = self.chunks_at(id).join(hex(&hash));
        let found = self.get(&at, super::pack::CHUNK as u64).await?;
        let hash = hex(&hash);
        found.ok_or_else(|| Error::broken(format!("the chunk {hash} of migration {id} is missing")))
    }

    /// How many bytes were sent.
    pub(super) async fn put_chunk(
        &self,
        id: Uuid,
        hash: Hash,
        content: Bytes,
    ) -> Result<u64, Error> {
        let length = content.len() as u64;
        self.put(&self.chunks_at(id).join(hex(&hash)), content).await?;
        Ok(length)
    }

    /// Nothing there is success.
    pub(super) async fn forget(&self, id: Uuid) -> Result<(), Error> {
        let at = self.snapshot(id);
        if let Some(folder) = &self.folder {
            // With what a copy left that ended in the middle of a write.
            let path = folder.join(ALL).join(id.to_string());
            let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(path)).await;
            return match removed.map_err(io::Error::other).flatten() {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    Err(Error::transient(format!("cannot remove {at} of {self:?}: {cause}")))
                }
                _ => Ok(()),
            };
        }
        let names = self.objects.list(Some(&at)).map_ok(|found| found.location).boxed();
        let mut removed = self.objects.delete_stream(names);
        while let Some(one) = removed.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(cause) => return Err(failed("remove", &at, &cause)),
            }
        }
        Ok(())
    }

    pub(super) async fn list(&self) -> Result<Vec<Kept>, Error> {
        let at = self.all();
        let mut kept: BTreeMap<Uuid, Kept> = BTreeMap::new();
        let mut found = self.objects.list(Some(&at));
        while let Some(one) = found.next().await {
            let one = one.map_err(|cause| failed("list", &at, &cause))?;
            let id = one.location.prefix_match(&at).and_then(|mut below| below.next());
            let Some(id) = id.and_then(|id| Uuid::try_parse(id.as_ref()).ok()) else { continue };
            let written = Timestamp::from_micros(one.last_modified.timestamp_micros());
            let kept = kept.entry(id).or_insert(Kept { id, written, bytes: 0 });
            kept.written = kept.written.max(written);
            kept.bytes += one.size;
        }
        Ok(kept.into_values().collect())
    }

    async fn get(&self, at: &Path, most: u64) -> Result<Option<Bytes>, Error> {
        let found = match self.objects.get(at).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|cause| failed("read", at, &cause))?,
        };
        if found.meta.size > most {
            let size = found.meta.size;
            return Err(Error::broken(format!("{at} has {size} bytes, more than {most}")));
        }
        found.bytes().await.map(Some).map_err(|cause| failed("read", at, &cause))
    }

    async fn put(&self, at: &Path, content: Bytes) -> Result<(), Error> {
        let put = self.objects.put(at, content.into()).await;
        put.map_err(|cause| failed("write", at, &cause))?;
        if let Some(folder) = &self.folder {
            // The folder is its owner's alone; so is what somebody takes out of it.
            let path = folder.join(at.as_ref());
            let narrowed = fs::set_permissions(path, Permissions::from_mode(0o600));
            narrowed.map_err(|cause| Error::transient(format!("cannot write {at}: {cause}")))?;
        }
        Ok(())
    }
}

fn failed(what: &str, at: &Path, cause: &object_store::Error) -> Error {
    use object_store::Error as Of;
    let kind = match cause {
        Of::NotFound { .. } => ErrorKind::Missing,
        Of::PermissionDenied { .. }
        | Of::Unauthenticated { .. }
        | Of::InvalidPath { .. }
        | Of::NotSupported { .. }
        | Of::NotImplemented { .. }
        | Of::UnknownConfigurationKey { .. } => ErrorKind::Broken,
        _ => ErrorKind::Transient,
    };
    Error { kind, what: format!("cannot {what} {at}: {}", words(cause)) }
}

/// What a store says, shortened, in one line.
pub(super) fn words(cause: &object_store::Error) -> String {
    let mut text = cause.to_string();
    let mut below = cause.source();
    while let Some(cause) = below {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = cause.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(WORDS).collect()
}
