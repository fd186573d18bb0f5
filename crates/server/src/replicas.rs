//! Servers on one database: what one of them did, the others hear of at once.
//!
//! They share nothing but rows. A row lease says who works on what, one row of numbers says in which order
//! things were committed, credentials are read at every call. So a server alone is right, and so are many
//! that never hear of each other: each looks again every second or two. Hints make that sooner, no more.

use std::time::Duration;

use tokio::sync::watch;

use crate::app::App;
use crate::db::{Hint, Hints};

/// Rests between two hints: what happens meanwhile is told in one. The first after a rest goes out at once.
const REST: Duration = Duration::from_millis(20);
/// Rests before trying again what the database refused.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Tell the other servers what this one does, and hear them, until it stops. Does nothing where there can be
/// no others.
pub fn join(app: &App) {
    let server = uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid();
    let Some(hints) = app.db.hints(server) else { return };
    let (rings, commits) = (app.bells.rings(), app.hub.own_commits());
    let (telling, hearing) = (app.clone(), app.clone());
    let to_tell = hints.clone();
    app.spawn(async move { tell(&telling, &to_tell, rings, commits).await });
    app.spawn(async move { hear(&hearing, &hints).await });
}

async fn tell(
    app: &App,
    hints: &Hints,
    mut rings: watch::Receiver<u64>,
    mut commits: watch::Receiver<i64>,
) {
    let mut reachable = true;
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = rings.changed() => rings.mark_changed(),
            _ = commits.changed() => {}
        }
        let due = rings.has_changed().unwrap_or_default();
        rings.mark_unchanged();
        let hint = Hint { committed: *commits.borrow_and_update(), due };
        let told = hints.tell(hint).await;
        if let (Err(cause), true) = (&told, reachable) {
            tracing::warn!(error = %cause, "other servers cannot be told; they look by themselves");
        }
        reachable = told.is_ok();
        app.clock.sleep(if reachable { REST } else { AFTER_FAILURE }).await;
    }
}

async fn hear(app: &App, hints: &Hints) {
    let mut reachable = true;
    loop {
        let heard = tokio::select! {
            () = app.stop.cancelled() => break,
            heard = listen(app, hints) => heard,
        };
        if let (Err(cause), true) = (&heard, reachable) {
            tracing::warn!(error = %cause, "other servers cannot be heard; looking without hints");
        }
        reachable = heard.is_ok();
        app.clock.sleep(AFTER_FAILURE).await;
    }
    hints.close().await;
}

/// Ends when the connection is lost for good.
async fn listen(app: &App, hints: &Hints) -> Result<(), sqlx::Error> {
    let mut ear = hints.listen().await?;
    // What was said before there was anybody to hear it.
    app.bells.heard();
    loop {
        match ear.next().await? {
            Some(hint) => {
                app.hub.heard(hint.committed);
                if hint.due {
                    app.bells.heard();
                }
            }
            None => app.bells.heard(),
        }
    }
}
