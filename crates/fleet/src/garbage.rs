//! What providers have that nobody asked for, and what is kept no longer.
//!
//! What a provider has is listed *before* the rows are read, and a row is committed before its instance is asked for:
//! so nothing fresh can be taken for garbage, whoever starts it. See `ligand_domain::orphan`.

use std::time::Duration;

use futures_util::future::BoxFuture;
use ligand_domain::orphan::{Known, Listed, Rows, sort};
use ligand_server::backend::{Backend, BackendError, Key};
use ligand_server::reconcile::Pass;

use crate::app::Fleet;
use crate::drive::Reconciler;
use crate::journal::{self, About};
use crate::{instances, tenants};

/// Ends what nobody asked for.
pub struct GarbageReconciler;

impl Reconciler for GarbageReconciler {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn hears(&self) -> bool {
        false
    }

    fn pass<'a>(&'a self, fleet: &'a Fleet) -> BoxFuture<'a, anyhow::Result<Pass>> {
        Box::pin(pass(fleet))
    }
}

async fn pass(fleet: &Fleet) -> anyhow::Result<Pass> {
    let mut all = Pass::default();
    let providers: Vec<_> =
        fleet.providers.all().map(|(name, it)| (name.to_owned(), it.clone())).collect();
    for (name, provider) in providers {
        all.looked_at += 1;
        match sweep(fleet, &name, &*provider).await? {
            Ok(steps) => all.steps += steps,
            // It could not be asked: nothing is done on the strength of that.
            Err(cause) => all.failed = Some(format!("{name}: {}", cause.chain())),
        }
    }
    all.steps += erase(fleet).await?;
    let mut tx = fleet.db.begin().await?;
    all.steps += tenants::purge(&mut tx).await?;
    tx.commit().await?;
    all.steps += journal::forget(fleet, fleet.config.keep).await?;
    Ok(all)
}

/// Data that is to be taken away, and could not be when it was asked for.
async fn erase(fleet: &Fleet) -> Result<u64, sqlx::Error> {
    let mut tx = fleet.db.read().await?;
    let known = instances::workspaces_known(&mut tx).await?;
    drop(tx);
    let mut steps = 0;
    for (workspace, _) in known.into_iter().filter(|(_, known)| *known == Known::Removed) {
        steps += u64::from(instances::data::erase_if_wanted(fleet, workspace).await?);
    }
    Ok(steps)
}

async fn sweep(
    fleet: &Fleet,
    name: &str,
    provider: &dyn Backend,
) -> anyhow::Result<Result<u64, BackendError>> {
    let listed = match listed(provider).await {
        Ok(listed) => listed,
        Err(cause) => return Ok(Err(cause)),
    };
    let mut tx = fleet.db.read().await?;
    let workspaces = instances::workspaces_known(&mut tx).await?;
    let named = instances::named_on(&mut tx, name).await?;
    drop(tx);
    let verdict = sort(&listed, &Rows { workspaces, named });
    let mut steps = 0;
    for (workspace, generation) in verdict.end {
        let mut tx = fleet.db.begin().await?;
        let about = About { workspace: Some(workspace), ..About::default() };
        let what =
            format!("generation {generation} is on {name}, and nobody asked for it: it is ended");
        journal::note(fleet, &mut tx, about, "garbage", &what).await?;
        tx.commit().await?;
        let key = Key { workspace, generation };
        let ended = match provider.stop(key, fleet.config.stop_grace).await {
            Ok(()) => provider.destroy(key).await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = ended {
            return Ok(Err(cause));
        }
        steps += 1;
    }
    for workspace in verdict.unknown {
        tracing::warn!(workspace.id = %workspace, provider = name, "data of a workspace that this fleet never heard of is left alone");
    }
    for (workspace, generation) in verdict.missing {
        instances::heed(fleet, ligand_server::backend::Push(Key { workspace, generation })).await?;
    }
    Ok(Ok(steps))
}

async fn listed(provider: &dyn Backend) -> Result<Listed, BackendError> {
    let instances = provider.list_owned().await?;
    let instances = instances.into_iter().map(|key| (key.workspace, key.generation)).collect();
    let data = provider.list_data().await?.into_iter().collect();
    Ok(Listed { instances, data })
}
