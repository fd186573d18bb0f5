//! Data that comes in beneath an instance that runs: it has its volumes, and gets no others. What came and was verified
//! beside them is put in place of what is in them, and read back. A crash in between leaves half of it: whoever imports
//! beneath an instance counts on that data only when the import was successful, and until then imports it again. What
//! belongs to the instance itself, its credentials, stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;

use super::data::pack_without;
use super::holder::Volume;
use super::{Docker, names};
use crate::backend::archive::{self, ROOTS};
use crate::backend::{BackendError, Carried, ErrorKind};

/// Paths that one program is asked to take away.
const PATHS: usize = 200;

impl Docker {
    /// Whether an instance runs with the volumes of this import. One that runs with others would never see what comes.
    pub(super) async fn runs_on(
        &self,
        of: WorkspaceId,
        import: u64,
        stays: &str,
    ) -> Result<bool, BackendError> {
        let volumes = names::roots(of, import);
        let found = self.engine().containers(&self.0.setup.owner, Some(of)).await?;
        let mut runs = false;
        for one in &found {
            let Some(key) = one.labels.as_ref().and_then(names::key_of) else { continue };
            if self.look(key).await? != Seen::Running {
                continue;
            }
            let mounts = one.mounts.iter().flatten().filter_map(|mount| mount.name.as_ref());
            let mounts: BTreeSet<&String> = mounts.collect();
            if !volumes.iter().any(|(volume, _)| mounts.contains(volume)) {
                let generation = key.generation;
                let what = format!(
                    "{stays}: its instance of generation {generation} runs with older data"
                );
                return Err(BackendError { kind: ErrorKind::Transient, what, source: None });
            }
            runs = true;
        }
        Ok(runs)
    }

    /// Put what is in the importer's volumes in place of what is in those of import `now`: all but what is `gone`, which
    /// has this digest.
    pub(super) async fn pour(
        &self,
        of: WorkspaceId,
        (importer, from): (&str, &[Volume]),
        owner: (u32, u32),
        (now, expected, gone): (u64, &str, Vec<PathBuf>),
    ) -> Result<Carried, BackendError> {
        let volumes = names::roots(of, now);
        let label = (now > 0).then_some((names::IMPORT, now));
        self.make_volumes(of, &volumes, label).await?;
        let image = self.any_image(of).await?;
        let into = self.make_importer(&names::pourer(of), of, &image, &volumes).await?;
        let into = into.ok_or_else(|| BackendError {
            kind: ErrorKind::Transient,
            what: format!("data of workspace {of} is being poured by somebody else"),
            source: None,
        })?;
        let poured = async {
            self.empty(of, &into, &volumes).await?;
            let roots = self.roots(importer, from)?;
            let archive = archive::stream(move |out| pack_without(roots, gone, out).map(drop));
            let came = self.fill(&into, archive, owner).await?;
            let half = format!(
                "the data of workspace {of} came half beneath its instance; import it again"
            );
            self.compare(&into, &volumes, &came, Some(expected), &half).await?;
            Ok(came)
        };
        let poured = poured.await;
        self.engine().remove(&into).await?;
        poured
    }

    /// Take away what belongs to the data. An image without the program for that can be poured into all the same, as
    /// long as nothing is there that is not in what comes: what lies there in the end is compared.
    async fn empty(
        &self,
        of: WorkspaceId,
        holder: &str,
        volumes: &[Volume],
    ) -> Result<(), BackendError> {
        let mut paths = Vec::new();
        for root in ROOTS {
            let mut found: BTreeSet<PathBuf> = BTreeSet::new();
            let at = Path::new("/").join(root);
            self.unpack(holder, &at, None, |entry, _| {
                found.extend(entry.path.components().nth(1).map(|name| at.join(name)));
            })
            .await?;
            let data =
                found.into_iter().filter(|path| path.strip_prefix("/").is_ok_and(archive::carried));
            paths.extend(data.map(|path| path.display().to_string()));
        }
        for some in paths.chunks(PATHS) {
            match self.remove_below(of, volumes, some.iter().cloned()).await {
                Err(cause) if cause.kind == ErrorKind::Unsupported => {
                    tracing::debug!(error = cause.chain(), "what was there is written over");
                    return Ok(());
                }
                removed => removed?,
            }
        }
        Ok(())
    }
}
