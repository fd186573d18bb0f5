//! What platforms are told of instances that the fleet replaces for them: that one died, or never registered. It is
//! told until it was heard; whether it matters the platform decides.

mod store;

use std::time::Duration;

use futures_util::future::BoxFuture;
use ligand_domain::fleet::boot_deadline;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use ligand_server::db::Tx;
use ligand_server::reconcile::Pass;
use reqwest::{Method, StatusCode};
use uuid::Uuid;

use crate::app::Fleet;
use crate::drive::Reconciler;
use crate::instances::Instance;
use crate::journal::{self, About};
use crate::{platform, tenants};

/// An attempt that takes longer was given up by whoever made it.
const LEASE: Duration = Duration::from_secs(60);
/// Lines of the log that go along, and the most bytes of them: what the platform keeps.
const LINES: usize = 100;
const TAIL: usize = 8192;
/// Waits double up to this one.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    id: Uuid,
    org: String,
    workspace: WorkspaceId,
    provider: String,
    error: String,
    attempts: i64,
    created_at: Timestamp,
}

/// Tell the instance's platform, once this is committed. The text says what happened, and no secret.
pub(crate) async fn add(
    fleet: &Fleet,
    tx: &mut Tx,
    it: &Instance,
    error: &str,
) -> Result<(), sqlx::Error> {
    let notice = Notice {
        id: fleet.ids.message().uuid(),
        org: it.org.clone(),
        workspace: it.workspace,
        provider: it.provider.clone(),
        error: error.to_owned(),
        attempts: 0,
        created_at: fleet.clock.now(),
    };
    store::insert(tx, &notice).await
}

/// Tells platforms.
pub struct NoticeReconciler;

impl Reconciler for NoticeReconciler {
    fn name(&self) -> &'static str {
        "notices"
    }

    fn workers(&self) -> usize {
        2
    }

    fn every(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn pass<'a>(&'a self, fleet: &'a Fleet) -> BoxFuture<'a, anyhow::Result<Pass>> {
        Box::pin(pass(fleet))
    }
}

async fn pass(fleet: &Fleet) -> anyhow::Result<Pass> {
    let now = fleet.clock.now();
    let mut tx = fleet.db.begin().await?;
    let taken = store::take(&mut tx, now, now.after(LEASE)).await?;
    let Some(notice) = taken else { return Ok(Pass::default()) };
    let tenant = tenants::get(&mut tx, &notice.org).await?;
    tx.commit().await?;
    let told = match tenant.filter(|tenant| tenant.removed_at.is_none()) {
        Some(tenant) => tell(fleet, &tenant, &notice).await,
        // Nobody is there any more who could be told.
        None => Ok("its organisation is gone".to_owned()),
    };
    let now = fleet.clock.now();
    let mut tx = fleet.db.begin().await?;
    let about = About { org: Some(&notice.org), workspace: Some(notice.workspace), instance: None };
    // Older news than an instance may take to register is no news.
    let stale = now.since(notice.created_at) > boot_deadline("hermes");
    let failed = match told {
        Ok(what) => {
            journal::note(fleet, &mut tx, about, "notice", &what).await?;
            store::remove(&mut tx, notice.id).await?;
            None
        }
        Err(why) if stale => {
            let what = format!("given up: {why}");
            journal::note(fleet, &mut tx, about, "notice", &what).await?;
            store::remove(&mut tx, notice.id).await?;
            Some(why)
        }
        Err(why) => {
            let doublings = u32::try_from(notice.attempts.clamp(0, 10)).unwrap_or(0);
            let wait = Duration::from_secs(2u64.saturating_pow(doublings)).min(LONGEST_WAIT);
            store::failed(&mut tx, notice.id, &why, now.after(wait)).await?;
            Some(why)
        }
    };
    tx.commit().await?;
    Ok(Pass { looked_at: 1, steps: 1, failed })
}

/// What came of it, in words; or why it was not heard.
async fn tell(fleet: &Fleet, tenant: &tenants::Tenant, notice: &Notice) -> Result<String, String> {
    // It may hold what a program printed: it goes to its own platform, and is kept nowhere.
    let tail = match fleet.providers.get(&notice.provider) {
        Some(provider) => provider.logs(notice.workspace, LINES).await.unwrap_or_default(),
        None => bytes::Bytes::new(),
    };
    let tail = &tail[tail.len().saturating_sub(TAIL)..];
    let body = serde_json::json!({
        "error": notice.error,
        "log_tail": String::from_utf8_lossy(tail),
    });
    let path = format!("/admin/workspaces/{}/bootstrap-failed", notice.workspace);
    let answer = platform::call(fleet, tenant, Method::POST, &path, Some(&body)).await;
    match answer.map_err(|cause| cause.to_string())? {
        (status, _) if status.is_success() => {
            Ok(format!("the platform was told: {}", notice.error))
        }
        (StatusCode::NOT_FOUND, _) => Ok("the platform does not know the workspace".to_owned()),
        (status, body) => Err(platform::refusal(status, &body)),
    }
}
