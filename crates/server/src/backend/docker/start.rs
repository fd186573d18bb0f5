//! How an instance comes to be.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use bollard::models::{ContainerInspectResponse, NetworkCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, InspectNetworkOptions, StartContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use super::engine::{absent, failed, status};
use super::tar::Writer;
use super::{Docker, Network, Phase, names, phase};
use crate::backend::{BackendError, ErrorKind, Key, Spec, Started};

/// All that anybody but the operator is told of a failure of the engine.
const START_FAILED: &str = "workspace start failed";
/// What an agent of an earlier generation kept beside its credential. The engine can only write over it: an empty file is
/// none to an agent.
const STALE: [&str; 4] =
    [".auth_token.next", ".auth_token.previous", ".auth_token.generation", ".register_key"];
/// Of the credential, and of what stands beside it.
const PRIVATE: u32 = 0o600;
const PLAIN: u32 = 0o644;

impl Docker {
    /// Wait until nobody else in this server starts this instance.
    async fn alone(&self, key: Key) -> OwnedMutexGuard<()> {
        let mine = {
            let mut all = self.0.starting.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, one| Arc::strong_count(one) > 1);
            Arc::clone(all.entry(key).or_default())
        };
        mine.lock_owned().await
    }

    /// Start it, or find it. What went wrong in the engine stands in the log alone: its words are not for users.
    pub(super) async fn start(&self, spec: Spec) -> Result<Started, BackendError> {
        let Some(image) = self.0.setup.image_of(&spec.runtime) else {
            let what =
                format!("the runtime `{}` has no recipe for the backend `docker`", spec.runtime);
            return Err(BackendError::broken(what));
        };
        let _alone = self.alone(spec.key).await;
        self.start_from(&spec, &image).await.map_err(|cause| {
            tracing::warn!(
                workspace.id = %spec.key.workspace, generation = %spec.key.generation, image,
                error = cause.chain(), "a container could not be started"
            );
            let kind =
                if cause.kind == ErrorKind::Transient { cause.kind } else { ErrorKind::Broken };
            BackendError { kind, what: START_FAILED.to_owned(), source: None }
        })
    }

    async fn start_from(&self, spec: &Spec, image: &str) -> Result<Started, BackendError> {
        let name = names::container(spec.key);
        match self.engine().container(&name).await? {
            Some(found) if !names::is_of(&self.0.setup.owner, labels(&found)) => {
                let what = format!("the container {name} belongs to another platform");
                return Err(BackendError::broken(what));
            }
            Some(found) if phase(&found) != Phase::Created => return Ok(started(&name, &found)),
            // An earlier attempt ended half-way; with which credential is not known.
            Some(_) => self.engine().remove(&name).await?,
            None => {}
        }
        let owner = self.owner_in(image).await?;
        if spec.fresh_session {
            let sessions = names::sessions(spec.key.workspace);
            self.remove_volume(&sessions, spec.key.workspace).await?;
        }
        let import = self.data_of(spec.key.workspace).await?.import;
        let label = (import > 0).then_some((names::IMPORT, import));
        let volumes = names::volumes_of(spec, import);
        self.make_volumes(spec.key.workspace, &volumes, label).await?;
        let network = names::network(&self.0.setup, spec.limits.tier);
        let port = match network {
            Network::Host => Some(free_port()?),
            Network::Bridge => None,
        };
        if network == Network::Bridge {
            self.make_network().await?;
        }
        let body = names::create(&self.0.setup, spec, (image, import), port);
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            ..CreateContainerOptions::default()
        };
        let client = self.engine().client()?;
        let made = client.create_container(Some(options), body).await;
        made.map_err(|cause| failed(format!("create the container {name} from {image}"), &cause))?;
        self.put_archive(&name, "/configs", delivery(spec, owner)).await?;
        match client.start_container(&name, None::<StartContainerOptions>).await {
            Ok(()) => {}
            Err(cause) if status(&cause) == Some(304) => {}
            Err(cause) => return Err(failed(format!("start the container {name}"), &cause)),
        }
        let found = self.engine().container(&name).await?;
        let found =
            found.ok_or_else(|| BackendError::missing(format!("the container {name} is gone")))?;
        Ok(started(&name, &found))
    }

    /// The user whom files of an instance belong to: the image's, where it is told by number.
    pub(super) async fn owner_in(&self, image: &str) -> Result<(u32, u32), BackendError> {
        let what = || format!("find the image {image}");
        let found =
            self.engine().ask(what, async |client| client.inspect_image(image).await).await?;
        let user = found.config.and_then(|config| config.user).unwrap_or_default();
        let (user, group) = user.split_once(':').unwrap_or((&user, &user));
        Ok((user.parse().unwrap_or(0), group.parse().unwrap_or(0)))
    }

    async fn make_network(&self) -> Result<(), BackendError> {
        let what = || format!("create the network {}", names::BRIDGE);
        let looked = self.engine().ask(what, async |client| {
            client.inspect_network(names::BRIDGE, None::<InspectNetworkOptions>).await
        });
        if absent(looked.await)?.is_some() {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: names::BRIDGE.to_owned(),
            ..NetworkCreateRequest::default()
        };
        let client = self.engine().client()?;
        match client.create_network(request).await {
            Ok(_) => Ok(()),
            // Somebody else was quicker.
            Err(cause) if status(&cause) == Some(409) => Ok(()),
            Err(cause) => Err(failed(what(), &cause)),
        }
    }

    /// Unpack an archive in a container, which need not run.
    pub(super) async fn put_archive(
        &self,
        name: &str,
        at: &str,
        archive: Bytes,
    ) -> Result<(), BackendError> {
        let options =
            UploadToContainerOptions { path: at.to_owned(), ..UploadToContainerOptions::default() };
        let client = self.engine().client()?;
        let put =
            client.upload_to_container(name, Some(options), bollard::body_full(archive)).await;
        put.map_err(|cause| failed(format!("write into {at} of the container {name}"), &cause))
    }
}

/// What an instance finds in its configuration directory.
fn delivery(spec: &Spec, owner: (u32, u32)) -> Bytes {
    let mut archive = Writer::new(owner);
    for stale in STALE {
        archive.file(Path::new(stale), PRIVATE, b"");
    }
    for (path, content) in &spec.files {
        archive.file(Path::new(path), PLAIN, content);
    }
    if let Some(credential) = &spec.credential {
        archive.file(Path::new(".auth_token"), PRIVATE, credential.reveal().as_bytes());
    }
    archive.finish()
}

/// A loopback port that nobody has now. Whoever takes it first has it: an agent that comes too late ends, and is
/// replaced by one with another port.
fn free_port() -> Result<u16, BackendError> {
    let failed = |cause| BackendError::io("cannot find a free loopback port", cause);
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    Ok(socket.local_addr().map_err(failed)?.port())
}

/// What is known of a container that was started.
pub(super) fn started(name: &str, found: &ContainerInspectResponse) -> Started {
    let decided = labels(found).and_then(|labels| labels.get(names::ADDRESS)).cloned();
    let ports = found.network_settings.as_ref().and_then(|settings| settings.ports.as_ref());
    Started { handle: name.to_owned(), address: decided.or_else(|| names::published(ports)) }
}

/// What a container says of itself.
pub(super) fn labels(found: &ContainerInspectResponse) -> Option<&HashMap<String, String>> {
    found.config.as_ref()?.labels.as_ref()
}
