//! A workspace's log from now on, over the ends of its instances.

use std::time::Duration;

use bollard::errors::Error;
use futures_util::{StreamExt as _, stream};
use ligand_domain::id::WorkspaceId;

use super::engine::status;
use super::{Docker, broken_stream, names, said};
use crate::backend::{BackendError, Bytestream, Key};

/// How often the next instance is looked for.
const LOOK: Duration = Duration::from_millis(300);
/// Of an instance that came later, from its beginning.
const ALL: &str = "all";

impl Docker {
    /// What the newest instance says from now on, and then whatever those say that come after it.
    pub(super) async fn follow_log(&self, of: WorkspaceId) -> Result<Bytestream, BackendError> {
        let Some(first) = self.newest_key(of).await? else {
            return Err(BackendError::missing(format!("workspace {of} has no instance")));
        };
        let (this, now) = (self.clone(), self.log_of(first, "0")?);
        let later = stream::unfold(first, move |heard| {
            let this = this.clone();
            async move {
                let next = this.next_after(of, heard).await;
                let log = this.log_of(next, ALL);
                let failed = |cause: BackendError| std::io::Error::other(cause.chain());
                let log = log.unwrap_or_else(|cause| stream::iter([Err(failed(cause))]).boxed());
                Some((log, next))
            }
        });
        Ok(now.chain(later.flatten()).boxed())
    }

    fn log_of(&self, key: Key, lines: &str) -> Result<Bytestream, BackendError> {
        let name = names::container(key);
        let parts = self.engine().client()?.logs(&name, Some(said(true, lines)));
        // It is asked for when it is read. What was destroyed by then has no more to say.
        let gone = |cause: &Error| matches!(status(cause), Some(404 | 409));
        let parts = parts.filter_map(move |part| {
            std::future::ready(match part {
                Err(cause) if gone(&cause) => None,
                part => Some(part.map(|part| part.into_bytes()).map_err(broken_stream)),
            })
        });
        Ok(parts.boxed())
    }

    /// Wait for an instance that is newer. An engine that says nothing is asked again.
    #[expect(
        clippy::disallowed_methods,
        reason = "instances come in real time, whatever the clock of the server says"
    )]
    async fn next_after(&self, of: WorkspaceId, heard: Key) -> Key {
        loop {
            match self.newest_key(of).await {
                Ok(Some(found)) if found > heard => return found,
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
