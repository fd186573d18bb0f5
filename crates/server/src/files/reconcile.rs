//! Restarts that written files ask for.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::time::Timestamp;

use super::store;
use crate::app::App;
use crate::journal::Work;
use crate::reconcile::{Pass, Reconciler};
use crate::workspaces;

/// Asks for the restarts that are due. That nothing is due any more, and the restart, are one transaction.
pub struct FileRestarts;

impl Reconciler for FileRestarts {
    fn name(&self) -> &'static str {
        "file-restarts"
    }

    fn does(&self) -> &'static str {
        "restarts workspaces whose configuration was written, every 15 s at most"
    }

    fn workers(&self) -> usize {
        1
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(store::next_due(&mut app.db.read().await?).await?) }.boxed()
    }
}

async fn pass(app: &App) -> anyhow::Result<Pass> {
    let mut work = Work::begin(app).await?;
    let Some(id) = store::take(&mut work.tx, work.now).await? else {
        return Ok(Pass::default());
    };
    let asked = workspaces::reload(&mut work, id, "files that it reads were written").await?;
    work.commit().await?;
    app.bells.ring();
    Ok(Pass { looked_at: 1, steps: u64::from(asked), failed: None })
}
