//! The data of a workspace that is hibernated: it is what it was when its instance ended, or the journal and the status
//! say that it is not.

use ligand_domain::id::Generation;
use ligand_domain::workspace::{Intent, Status};
use serde_json::json;

use super::steps::Steps;
use super::{Workspace, store};
use crate::backend::{Backend, Carried, ErrorKind};
use crate::journal::{Kind, Work};

/// What is known of the data of a workspace that is laid to rest.
pub(super) enum Rest {
    /// It is not laid to rest, or its backend keeps no data of its own.
    Nothing,
    /// The digest over it.
    Data(Carried),
    /// It cannot be digested, for this reason: nothing can be compared later, and no more than that.
    Unknown(String),
}

impl Steps<'_> {
    /// Digest the data of one that is hibernated, after its instance was stopped.
    pub(super) async fn data_at_rest(&self, workspace: &Workspace, backend: &dyn Backend) -> Rest {
        if workspace.intent != Intent::Hibernated {
            return Rest::Nothing;
        }
        match backend.digest(self.id).await {
            Ok(carried) => Rest::Data(carried),
            Err(cause) if cause.kind == ErrorKind::Unsupported => Rest::Nothing,
            Err(cause) => Rest::Unknown(cause.chain()),
        }
    }

    /// Keep it, in the transaction that says that the instance was ended.
    pub(super) async fn keep_rest(
        &self,
        work: &mut Work<'_>,
        generation: Generation,
        rest: Rest,
    ) -> anyhow::Result<()> {
        let (digest, summary, facts) = match rest {
            Rest::Nothing => return Ok(()),
            Rest::Data(Carried { digest, entries, bytes }) => {
                let facts = json!({"digest": digest, "entries": entries, "bytes": bytes});
                (Some(digest), "the data is kept under its digest".to_owned(), facts)
            }
            Rest::Unknown(why) => {
                (None, format!("the data is kept without a digest: {why}"), json!({}))
            }
        };
        store::keep_digest(&mut work.tx, self.id, digest.as_deref()).await?;
        work.note(self.id, Some(generation), Kind::Data, summary, facts);
        Ok(())
    }

    /// Before it is started again: compare what was kept with what is there, once. Whatever is found, it is started:
    /// its data is all that there is.
    pub(super) async fn compare_rest(
        &self,
        generation: Generation,
        backend: &dyn Backend,
    ) -> anyhow::Result<()> {
        let mut reading = self.app.db.read().await?;
        let kept = store::kept_digest(&mut reading, self.id).await?;
        reading.commit().await?;
        let Some(kept) = kept else { return Ok(()) };
        let found = backend.digest(self.id).await.map(|found| found.digest);
        let mut work = self.begin().await?;
        let now = work.now;
        store::keep_digest(&mut work.tx, self.id, None).await?;
        let changed = match &found {
            Ok(found) if *found == kept => None,
            Ok(_) => Some("the data is not what it was when it was hibernated".to_owned()),
            Err(cause) => {
                let why = cause.chain();
                Some(format!("whether the data is what it was cannot be told: {why}"))
            }
        };
        let facts = json!({"kept": kept, "found": found.ok()});
        match changed {
            None => {
                let summary = "the data is what it was when it was hibernated";
                work.note(self.id, Some(generation), Kind::Data, summary, facts);
            }
            Some(why) => {
                let evidence = format!("generation {generation} is being started; {why}");
                store::set_status(&mut work.tx, self.id, Status::Provisioning, &evidence, now)
                    .await?;
                work.note(self.id, Some(generation), Kind::Data, why, facts);
            }
        }
        Ok(work.commit().await?)
    }
}
