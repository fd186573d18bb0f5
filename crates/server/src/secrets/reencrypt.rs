//! Encrypting everything anew, under the current key.
//!
//! It goes through a route of administrators and not directly to the database, so that only servers ever hold keys:
//! whoever asks has the admin token and nothing else, and SQLite, which serves one process, need not be stopped.
//! A batch is a transaction; what is done is not looked at again, so that it can be cut short and asked for anew at
//! any time, by several at once. Values do not change by it, so nobody is restarted.

use ligand_api::error::ErrorBody;
use ligand_api::secret::{Reencrypt, Reencrypted, UnreadableSecret};
use ligand_domain::secrets::Key;

use super::{FIRST, seal, store};
use crate::app::App;
use crate::error::{Error, Result};

/// Secrets of one batch.
const BATCH: usize = 200;

/// Do one batch.
pub(super) async fn batch(app: &App, asked: &Reencrypt) -> Result<Reencrypted> {
    let Some(name) = app.config.secrets.current.as_ref().map(Key::name) else {
        let body = ErrorBody::new("no encryption key").detail(
            "SECRETS_ENCRYPTION_KEY is not set on this server: there is nothing to encrypt with",
        );
        return Err(Error::Refused(axum::http::StatusCode::CONFLICT, Box::new(body)));
    };
    let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
    let mut tx = app.db.begin().await?;
    // Global secrets are written under this lock, and a start that loads waits for the end of the batch.
    store::hold_global(&mut tx).await?;
    let stale = store::stale(&mut tx, &name, asked.after.unwrap_or(FIRST), limit).await?;
    let mut done = Reencrypted::default();
    for of in &stale {
        match app.config.secrets.open(&of.stored()) {
            Ok(value) => {
                let stored = seal(app, &value);
                let kept = store::restore(&mut tx, of, &stored, Some(&name)).await?;
                done.reencrypted += u64::from(kept);
            }
            Err(why) => done.unreadable.push(UnreadableSecret {
                key: of.key.clone(),
                workspace_id: of.workspace_id,
                why: why.to_string(),
            }),
        }
    }
    done.left = u64::try_from(store::count_stale(&mut tx, &name).await?).unwrap_or_default();
    tx.commit().await?;
    done.next = stale.last().filter(|_| stale.len() == BATCH).map(|last| last.id);
    Ok(done)
}
