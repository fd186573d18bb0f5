//! The ground that a provider at an address is: seen through nothing but the protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ligand_server::backend::provider::{Address, Provider};
use ligand_server::backend::{Backend, Capability, Key, Pushes, Root};

use crate::bench::{Doing, Done, Flaw, Ground, Name, at};

/// The file at whose sight a program that waits kills itself.
const DIE: &str = ".ligand-kit-die";

/// See the module.
pub struct Remote {
    at: Address,
    name: Name,
    patience: Duration,
}

impl Remote {
    /// A provider, for one scenario.
    #[must_use]
    pub fn new(at: Address, name: Name, patience: Duration) -> Self {
        Self { at, name, patience }
    }
}

impl Ground for Remote {
    fn name(&self) -> Name {
        self.name
    }

    fn open(&self, pushes: Pushes) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Provider::new(self.at.clone(), pushes)?))
    }

    fn shared(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn program(&self, doing: Doing) -> Vec<String> {
        match doing {
            // The first process of a container cannot be killed by itself: it says what would have been.
            Doing::Waits => Doing::script(&format!(
                "trap 'exit 0' TERM INT; while [ ! -e {DIE} ]; do sleep 0.2 & wait $!; done; \
                 rm -f {DIE}; kill -9 $$; exit 137"
            )),
            other => other.shell(),
        }
    }

    fn kill<'a>(&'a self, backend: &'a dyn Backend, key: Key) -> BoxFuture<'a, Done> {
        Box::pin(async move {
            for what in [Capability::Programs, Capability::Files] {
                if !backend.can(what) {
                    return Err(Flaw::unclaimed(what));
                }
            }
            Ok(backend.write_file(key.workspace, at(Root::Workspace, DIE), Bytes::new()).await?)
        })
    }

    fn door(&self) -> BoxFuture<'_, Done<(u16, u16)>> {
        Box::pin(async {
            let provider = Provider::new(self.at.clone(), Pushes::channel().0)?;
            Ok(provider.door().await?)
        })
    }
}
