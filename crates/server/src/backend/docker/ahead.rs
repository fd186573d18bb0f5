//! Data that comes ahead of time, while an instance stands by that is going to work on it. It waits in the volumes of an
//! import that does not count; what has changed is written over it, and all of it poured beneath the instance. An import
//! takes away what was left to wait.

use std::path::PathBuf;

use ligand_domain::id::WorkspaceId;

use super::data::{Room, stays};
use super::{Docker, names};
use crate::backend::{BackendError, Bytestream, Carried};

impl Docker {
    pub(super) async fn take_ahead(
        &self,
        of: WorkspaceId,
        archive: Bytestream,
    ) -> Result<Carried, BackendError> {
        let _importing = self.importing(of)?;
        let Room { importer, owner, .. } = self.make_room(of).await?;
        let came = self.fill(&importer, archive, owner).await;
        if came.is_err() {
            self.engine().remove(&importer).await?;
        }
        came
    }

    pub(super) async fn amend_data(
        &self,
        of: WorkspaceId,
        changes: Bytestream,
        gone: Vec<PathBuf>,
        expected: String,
    ) -> Result<Carried, BackendError> {
        let _importing = self.importing(of)?;
        let (data, importer) = (self.data_of(of).await?, names::importer(of));
        let volumes = names::roots(of, data.next.saturating_sub(1));
        let mounts = self.engine().container(&importer).await?.and_then(|found| found.mounts);
        let mut mounts = mounts.iter().flatten().filter_map(|mount| mount.name.as_ref());
        if !mounts.any(|name| *name == volumes[0].0) {
            let what = format!("no data of workspace {of} was taken in ahead of time");
            return Err(BackendError::missing(what));
        }
        if !self.runs_on(of, data.import, &stays(of)).await? {
            let what = format!("no instance of workspace {of} stands by for its data");
            return Err(BackendError::unsupported(what));
        }
        let owner = self.owner_in(&self.any_image(of).await?).await?;
        self.fill(&importer, changes, owner).await?;
        let to = (data.import, expected.as_str(), gone);
        let came = self.pour(of, (&importer, &volumes), owner, to).await?;
        self.engine().remove(&importer).await?;
        for (name, _) in &volumes {
            if let Err(cause) = self.remove_volume(name, of).await {
                tracing::debug!(error = cause.chain(), "a volume that nobody needs stays for now");
            }
        }
        Ok(came)
    }
}
