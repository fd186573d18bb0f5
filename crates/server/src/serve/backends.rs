//! The backends that settings name, built.

use std::path::Path;
use std::sync::Arc;

use super::StartError;
use crate::backend::docker::Docker;
use crate::backend::fake::Fake;
use crate::backend::fleet::Fleet;
use crate::backend::process::Process;
use crate::backend::provider::Provider;
use crate::backend::{Backend, BackendError, Backends, Pushes};
use crate::config::{BackendConfig, BackendKind, Config};

/// The backends that the settings name. Nothing is asked of them yet.
///
/// # Errors
/// Where what one is reached by cannot be set up.
pub fn backends(config: &Config, pushes: &Pushes) -> Result<Backends, StartError> {
    let mut all = Vec::new();
    for (name, of) in &config.backends {
        let backend: Result<Arc<dyn Backend>, _> = match of.kind {
            BackendKind::Fleet => Ok(Arc::new(Fleet::new(config.fleet(of)))),
            _ => backend(name, of, &config.data_dir, pushes),
        };
        let what = "a backend";
        let backend =
            backend.map_err(|cause| StartError::Machine { what, source: cause.into() })?;
        all.push((name.clone(), backend));
    }
    // Backends that nothing is placed on cost nothing: none of them does anything until asked.
    Ok(Backends::new(all))
}

/// The backend of this name, as its settings say, with its files below the data directory.
///
/// # Errors
/// Where what it is reached by cannot be set up; a control plane is no backend of a control plane.
pub fn backend(
    name: &str,
    of: &BackendConfig,
    data_dir: &Path,
    pushes: &Pushes,
) -> Result<Arc<dyn Backend>, BackendError> {
    Ok(match of.kind {
        BackendKind::Process => {
            let root = of.root.clone().unwrap_or_else(|| data_dir.join(name));
            Arc::new(Process::with(&root, of.process(), pushes.clone()))
        }
        BackendKind::Fake => {
            let fake = Fake::new(pushes.clone());
            of.plan.iter().cloned().for_each(|planned| fake.plan(planned));
            Arc::new(fake)
        }
        BackendKind::Docker => Arc::new(Docker::new(of.setup(data_dir), pushes.clone())),
        BackendKind::Provider => {
            let nowhere = || BackendError::broken(format!("backends.{name}: no address was read"));
            let at = of.reached.clone().ok_or_else(nowhere)?;
            Arc::new(Provider::new(at, pushes.clone())?)
        }
        BackendKind::Fleet => {
            let what = format!("backends.{name}: a control plane is asked for an organisation");
            return Err(BackendError::broken(what));
        }
    })
}
