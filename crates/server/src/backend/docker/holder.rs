//! Containers for a moment, through which the volumes of a workspace are reached where no instance of it is there.
//!
//! Several may be there at once: each has a name of its own. One that is left behind by a server that died goes when
//! the next one starts, or with the workspace's data.

use std::sync::atomic::Ordering;

use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::{CreateContainerOptions, ListImagesOptions};
use ligand_domain::id::WorkspaceId;

use super::engine::{failed, status};
use super::{Docker, names};
use crate::backend::BackendError;

/// How many names are tried that somebody else may have taken.
const TRIES: u32 = 100;
/// What a container is to run that never does.
const NOTHING: &str = "never-run";

/// Through which container a workspace's files are reached.
pub(super) struct Through {
    pub(super) name: String,
    /// Made for the moment.
    pub(super) ours: bool,
}

/// A volume, and where it is mounted.
pub(super) type Volume = (String, &'static str);

impl Docker {
    /// The newest instance's container, or one made for the moment; none where the workspace has no data either.
    pub(super) async fn through(
        &self,
        workspace: WorkspaceId,
    ) -> Result<Option<Through>, BackendError> {
        let data = self.data_of(workspace).await?;
        match self.through_instance(workspace, data.import).await? {
            Some(through) => Ok(Some(through)),
            None => self.aside(workspace).await,
        }
    }

    /// The same, for what may be the first that the workspace gets.
    pub(super) async fn through_new(
        &self,
        workspace: WorkspaceId,
    ) -> Result<Through, BackendError> {
        let import = self.data_of(workspace).await?.import;
        if let Some(through) = self.through_instance(workspace, import).await? {
            return Ok(through);
        }
        let label = (import > 0).then_some((names::IMPORT, import));
        self.make_volumes(workspace, &names::roots(workspace, import), label).await?;
        let made = self.aside(workspace).await?;
        made.ok_or_else(|| BackendError::missing(format!("workspace {workspace} has no volumes")))
    }

    /// The newest instance's container, unless it is older than an import: what it has is no longer the data.
    async fn through_instance(
        &self,
        workspace: WorkspaceId,
        import: u64,
    ) -> Result<Option<Through>, BackendError> {
        let Some(name) = self.newest(workspace).await? else { return Ok(None) };
        let Some(found) = self.engine().container(&name).await? else { return Ok(None) };
        let (current, _) = &names::roots(workspace, import)[0];
        let mounts = found.mounts.unwrap_or_default();
        let has = mounts.iter().any(|mount| mount.name.as_ref() == Some(current));
        Ok(has.then_some(Through { name, ours: false }))
    }

    /// One made for the moment that never runs; none where the workspace has no data.
    pub(super) async fn aside(
        &self,
        workspace: WorkspaceId,
    ) -> Result<Option<Through>, BackendError> {
        let volumes = self.volumes_there(workspace).await?;
        if volumes.is_empty() {
            return Ok(None);
        }
        let name = self.make_holder(workspace, &volumes, vec![NOTHING.to_owned()]).await?;
        Ok(Some(Through { name, ours: true }))
    }

    pub(super) async fn let_go(&self, through: Through) {
        if through.ours
            && let Err(cause) = self.engine().remove(&through.name).await
        {
            tracing::warn!(
                error = cause.chain(),
                "a container that was made for the moment is still there"
            );
        }
    }

    /// A container with these volumes. It is whoever's asked for it, to take away.
    pub(super) async fn make_holder(
        &self,
        workspace: WorkspaceId,
        volumes: &[Volume],
        command: Vec<String>,
    ) -> Result<String, BackendError> {
        let image = self.any_image(workspace).await?;
        for _ in 0..TRIES {
            let number = self.0.holders.fetch_add(1, Ordering::Relaxed);
            let name = names::holder(workspace, number);
            let made = self.make_named(&name, workspace, (&image, volumes), command.clone());
            if made.await?.is_some() {
                return Ok(name);
            }
        }
        let what = format!("too many containers of workspace {workspace} were left behind");
        Err(BackendError::broken(what))
    }

    /// A container of this name through which data comes in, by its id. None: somebody else has made it just now.
    pub(super) async fn make_importer(
        &self,
        name: &str,
        workspace: WorkspaceId,
        image: &str,
        volumes: &[Volume],
    ) -> Result<Option<String>, BackendError> {
        self.make_named(name, workspace, (image, volumes), vec![NOTHING.to_owned()]).await
    }

    /// Its id. None: the name is taken.
    async fn make_named(
        &self,
        name: &str,
        workspace: WorkspaceId,
        (image, volumes): (&str, &[Volume]),
        command: Vec<String>,
    ) -> Result<Option<String>, BackendError> {
        let owner = &self.0.setup.owner;
        let body = names::create_holder(owner, workspace, image.to_owned(), volumes, command);
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..CreateContainerOptions::default()
        };
        match self.engine().client()?.create_container(Some(options), body).await {
            Ok(made) => Ok(Some(made.id)),
            Err(cause) if status(&cause) == Some(409) => Ok(None),
            Err(cause) => Err(failed(format!("create the container {name}"), &cause)),
        }
    }

    /// What never runs needs an image all the same: the newest instance's, or any that the engine has.
    pub(super) async fn any_image(&self, workspace: WorkspaceId) -> Result<String, BackendError> {
        if let Some(name) = self.newest(workspace).await?
            && let Some(found) = self.engine().container(&name).await?
            && let Some(image) = found.image
        {
            return Ok(image);
        }
        let setup = &self.0.setup;
        let for_all = setup.image.as_ref().filter(|image| !image.contains("{runtime}"));
        if let Some(image) = setup.images.values().next().or(for_all) {
            return Ok(image.clone());
        }
        let listed = self
            .engine()
            .ask(
                || "list the images".to_owned(),
                async |client| client.list_images(None::<ListImagesOptions>).await,
            )
            .await?;
        let any = listed.into_iter().next().map(|image| image.id);
        any.ok_or_else(|| BackendError::unsupported("the engine has no image to reach files with"))
    }

    /// Take away what was made for a moment: all of a workspace, or what is left of a server that died.
    pub(super) async fn clear_holders(
        &self,
        workspace: Option<WorkspaceId>,
    ) -> Result<(), BackendError> {
        for found in self.engine().containers(&self.0.setup.owner, workspace).await? {
            let instance = found.labels.as_ref().and_then(names::key_of).is_some();
            let busy = !matches!(found.state, Some(State::CREATED | State::EXITED | State::DEAD));
            if let Some(id) = found.id.filter(|_| !instance && (workspace.is_some() || !busy)) {
                self.engine().remove(&id).await?;
            }
        }
        Ok(())
    }
}
