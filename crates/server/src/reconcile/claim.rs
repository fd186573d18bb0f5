//! The claim that a pass has on its row.

use std::convert::Infallible;
use std::time::Duration;

use uuid::Uuid;

use crate::app::App;
use crate::db::Claims;

/// A claim lasts this long unless it is kept; after a crash somebody else takes over then.
pub const CLAIM: Duration = Duration::from_secs(10);
/// A pass that takes long keeps its claim this often: a slow backend loses nothing to anybody.
const KEEP_EVERY: Duration = Duration::from_secs(3);

/// A name for a claim. Each is one worker's alone, so that a late release never frees somebody else's.
pub fn new_claim(app: &App) -> Uuid {
    uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid()
}

/// Keep the claim for as long as a pass takes. Where it cannot be kept, the pass finds out when it is about to write
/// something down.
pub async fn keep(app: &App, claims: &Claims, row: Uuid, claim: Uuid) -> Infallible {
    loop {
        app.clock.tick(KEEP_EVERY).await;
        let kept = async {
            let mut tx = app.db.begin().await?;
            claims.keep(&mut tx, row, claim, app.clock.now().after(CLAIM)).await?;
            tx.commit().await
        };
        if let Err(cause) = kept.await {
            tracing::warn!(%row, error = %cause, "a claim could not be kept");
        }
    }
}
