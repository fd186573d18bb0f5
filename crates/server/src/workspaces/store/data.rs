//! What a workspace's data was when it was laid to rest, in the database.

use ligand_domain::id::WorkspaceId;

use super::Done;
use crate::db::{Tx, on};

/// Keep the digest over its data; `None` forgets it.
pub(crate) async fn keep_digest(tx: &mut Tx, id: WorkspaceId, digest: Option<&str>) -> Done {
    on!(tx, c => sqlx::query("UPDATE workspaces SET data_digest = $1 WHERE id = $2")
        .bind(digest).bind(id.uuid()).execute(c).await.map(|_| ()))
}

/// The digest that was kept, if one was.
pub(crate) async fn kept_digest(tx: &mut Tx, id: WorkspaceId) -> Done<Option<String>> {
    let found: Option<Option<String>> = on!(tx, c => sqlx::query_scalar("SELECT data_digest FROM workspaces WHERE id = $1")
        .bind(id.uuid()).fetch_optional(c).await)?;
    Ok(found.flatten())
}
